//! The orchestrator: one sans-io [`Replica`] that composes the protocols.
//!
//! ```text
//!   frames, proposals, votes          decisions, resends
//!   ───────────────► ┌──────────────┐ ────────────────► execution
//!   durable(lsn)     │  Replica<S>  │  records
//!   ───────────────► │  pool        │ ────────────────► log
//!   executed,        │  ordering    │  messages
//!   checkpoints ───► │  timers      │ ────────────────► network
//!   time        ───► └──────────────┘
//! ```
//!
//! Each event method takes the time, lets the protocol it concerns answer, and carries the protocol's effects
//! out as [`Action`]s. What must wait for the disk waits here, and nowhere else (`held`). A turn ends with
//! [`Replica::finish_turn`]: free slots take what is pending, and the votes of the turn leave together.
//!
//! Invariant: no [`Action`] that carries a promise exists before the log is durable up to it.

mod abstention;
mod action;
mod checkpoints;
mod counters;
mod disputes;
mod donations;
mod effects;
mod forwarding;
mod judgements;
mod lag;
mod loans;
mod logged;
mod mending;
mod messages;
mod reads;
mod restore;
mod settings;
mod stack;
mod supply;
mod timers;
mod transfer;
mod transfer_phase;

pub use crate::smr::state_transfer::TransferLimits;
pub use abstention::{Forgotten, Participation};
pub use action::Action;
pub use counters::{Offences, ReplicaCounters};
pub use settings::{ExecutionPhase, MUST_SIGN_FOR, ReplicaSettings};
pub use stack::{
    ApplicationOf, DecisionLogOf, DefaultConfigs, DefaultStack, ExecutorOf, LogTransferOf, OrderingOf,
    PartConfigs, PartSettings, SpeculativeStack, Stack, StateTransferOf, ViewTransferOf,
};
pub use transfer_phase::TransferPhase;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::smr::crypto::Digester;
use crate::smr::decision_log::DecisionLog;
use crate::smr::log_transfer::LogTransferProtocol;
use crate::smr::messages::{
    Batch, CheckpointClaim, Frame, FrameId, FrameKey, Proposal, RefusalReason, SignedCheckpoint, Vote,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::preprocessing::{Offer, RequestPool, batch_digest};
use crate::smr::protocol::{Outbox, Rejected, Timer, ViewStart};
use crate::smr::state_transfer::StateTransferProtocol;
use crate::smr::types::{ClientId, Lsn, NodeId, SeqNo, Time, UnixTime, View};
use crate::smr::view_transfer::ViewTransferProtocol;
use abstention::Abstention;
use checkpoints::Checkpoints;
use disputes::{Change, Disputes};
use donations::Donations;
use effects::Held;
use forwarding::{OVERDUE, PassedOn};
use judgements::Judgements;
use lag::Lag;
use reads::Reads;
use supply::Supply;
use timers::Timers;

/// How many pending frames are passed on to the leader of a view that begins, about. Clients send the rest again.
const FORWARDED_FRAMES_MAX: usize = 4096;

/// The protocols of a replica.
pub struct Protocols<S: Stack> {
    /// How batches are ordered.
    pub ordering: OrderingOf<S>,
    /// How leaders are replaced.
    pub view_transfer: ViewTransferOf<S>,
    /// How decisions are kept.
    pub decision_log: DecisionLogOf<S>,
    /// How decisions come from other replicas.
    pub log_transfer: LogTransferOf<S>,
    /// How states come from other replicas.
    pub state_transfer: StateTransferOf<S>,
}

/// One replica: the protocols of stack `S`, composed.
pub struct Replica<S: Stack> {
    settings: ReplicaSettings,
    digester: Digester,
    ordering: OrderingOf<S>,
    view_transfer: ViewTransferOf<S>,
    decision_log: DecisionLogOf<S>,
    log_transfer: LogTransferOf<S>,
    state_transfer: StateTransferOf<S>,
    supply: Supply,
    checkpoints: Checkpoints,
    lag: Lag,
    donations: Donations,
    /// While there is one, nothing is said that binds.
    abstention: Option<Abstention>,
    reads: Reads,
    pool: RequestPool,
    disputes: Disputes,
    judgements: Judgements,
    /// Frames on their way to the leader: their clients have lost patience with it.
    forward: Vec<Frame>,
    passed_on: PassedOn,
    /// What is pending was shared, and nothing was executed since.
    shares: bool,
    timers: Timers,
    outbox: Outbox,
    /// Effects in the order of the log positions they wait for.
    held: VecDeque<(Lsn, Held)>,
    /// The next position the log will be given; all below `durable_end` are on disk.
    logged_end: Lsn,
    durable_end: Lsn,
    votes: Vec<Vote>,
    actions: Vec<Action>,
    counters: ReplicaCounters,
    /// By peer.
    offences: Vec<Offences>,
}

impl<S: Stack> Replica<S> {
    /// A replica whose log continues at `next_lsn`.
    #[must_use]
    pub fn new(
        settings: ReplicaSettings,
        digester: Digester,
        protocols: Protocols<S>,
        pool: RequestPool,
        next_lsn: Lsn,
    ) -> Self {
        let Protocols {
            ordering,
            view_transfer,
            decision_log,
            log_transfer,
            state_transfer,
        } = protocols;
        let mut timers = Timers::default();
        timers.set(Timer::Status, Time::START);
        timers.set(Timer::LeaderReview, Time::START);
        let disputes = Disputes::new(pool.clients(), settings.quorum.weak(), settings.must_sign_for);
        Self {
            supply: Supply::new(),
            checkpoints: Checkpoints::new(settings.quorum.n()),
            lag: Lag::new(settings.quorum.n(), settings.quorum.weak()),
            donations: Donations::new(settings.quorum.n(), TransferLimits::default()),
            judgements: Judgements::new(settings.quorum.n()),
            offences: vec![Offences::default(); settings.quorum.n()],
            abstention: None,
            reads: Reads::default(),
            settings,
            digester,
            ordering,
            view_transfer,
            decision_log,
            log_transfer,
            state_transfer,
            disputes,
            pool,
            forward: Vec::new(),
            passed_on: PassedOn::default(),
            shares: false,
            timers,
            outbox: Outbox::new(next_lsn),
            held: VecDeque::new(),
            logged_end: next_lsn,
            durable_end: next_lsn,
            votes: Vec::new(),
            actions: Vec::new(),
            counters: ReplicaCounters::default(),
        }
    }

    fn reject(&mut self, rejected: Rejected) {
        self.counters.reject(rejected.reason);
        if let Some(offences) = self.offences.get_mut(rejected.from.index())
            && rejected.reason.is_misbehaviour()
        {
            offences.count += 1;
            offences.last = Some(rejected);
        }
    }

    /// What this peer sent that no correct replica sends.
    #[must_use]
    pub fn offences(&self, peer: NodeId) -> Offences {
        self.offences.get(peer.index()).copied().unwrap_or_default()
    }

    /// A client's frame arrived by its own link, checked by preprocessing. What it costs to answer is its client's own.
    pub fn on_frame(&mut self, now: Time, frame: Frame) {
        let id = frame.id();
        let is_signed = frame.is_signed();
        match self.offer(now, frame, true) {
            // What is signed has nothing to prove: there is no room for it.
            Offer::Queued | Offer::Duplicate | Offer::OverQuota
                if !is_signed && self.asks_for_proof(now, id.key) =>
            {
                self.ask_for_proof(id);
            }
            Offer::Queued | Offer::Duplicate => {}
            Offer::AlreadyDecided if active(Mutant::ReplyAgainSkipped) => {}
            Offer::AlreadyDecided => self.actions.push(Action::ReplyAgain(id)),
            Offer::Stale => self.refuse(id, RefusalReason::Stale),
            Offer::SessionEnded => self.refuse(id, RefusalReason::SessionEnded),
            Offer::OverQuota => self.refuse(id, RefusalReason::Overloaded),
        }
    }

    /// A frame that another replica passed on arrived, checked by preprocessing. Its client hears nothing of it: a faulty replica could pass
    /// on without end what others would have to answer, and send its answers to clients itself.
    pub fn on_passed_on(&mut self, now: Time, frame: Frame) {
        let id = frame.id();
        let offer = self.offer(now, frame, false);
        if offer == Offer::AlreadyDecided && active(Mutant::PassedOnAnswered) {
            self.actions.push(Action::ReplyAgain(id));
        }
    }

    /// Takes a frame into the pool, and has it passed on to the leader: a client sends to the leader alone until it loses patience with it.
    fn offer(&mut self, now: Time, frame: Frame, is_own: bool) -> Offer {
        let key = frame.key();
        // What is pending when a view begins is passed on then; what waits behind an earlier frame of its client leaves the way to that.
        let passes_on = !self.ordering.is_leading()
            && self.phase() == ExecutionPhase::OrderProtocol
            && self.forward.len() < FORWARDED_FRAMES_MAX
            && !self.pool.waits_for_earlier(now, &frame, OVERDUE);
        let forwarded = passes_on.then(|| frame.clone());
        let offer = self.pool.offer(now, frame);
        let is_new = offer == Offer::Queued || (offer == Offer::Duplicate && is_own);
        if is_new
            && let Some(frame) = forwarded
            && self.passed_on.may_pass(now, key)
        {
            self.forward.push(frame);
        }
        match offer {
            Offer::Queued => self.counters.frames_queued += 1,
            Offer::Duplicate => self.counters.frames_duplicate += 1,
            Offer::AlreadyDecided | Offer::Stale | Offer::SessionEnded | Offer::OverQuota => {}
        }
        self.counters.frames_crowded_out = self.pool.crowded_out();
        offer
    }

    /// The host's clock shows this time of day: said first of all, and every second or so.
    pub fn on_wall_clock(&mut self, now: Time, unix: UnixTime) {
        self.ordering.on_wall_clock(now, unix);
    }

    /// A replica's pre-prepare arrived, its frames checked by preprocessing.
    pub fn on_proposal(&mut self, now: Time, from: NodeId, proposal: Proposal) {
        if self.is_choked() {
            return;
        }
        self.ordering.on_proposal(now, from, proposal, &mut self.outbox);
        self.carry_out(now);
    }

    /// A replica's vote arrived.
    pub fn on_vote(&mut self, now: Time, from: NodeId, vote: Vote) {
        self.ordering.on_vote(now, from, vote, &mut self.outbox);
        self.carry_out(now);
    }

    /// A replica's checkpoint arrived.
    pub fn on_checkpoint(&mut self, now: Time, from: NodeId, checkpoint: SignedCheckpoint) {
        self.ordering
            .on_checkpoint(now, from, checkpoint, &mut self.outbox);
        self.carry_out(now);
    }

    /// Execution finished a decision of this many operations.
    pub fn on_executed(&mut self, now: Time, seq: SeqNo, operations: usize) {
        self.supply.on_executed(seq);
        if !self.supply.awaits_state() {
            self.decision_log.keep_after(seq);
        }
        self.view_transfer.on_executed(now, operations);
        if operations > 0 {
            self.shares = false;
            self.donations.on_served(now);
        }
        self.counters.operations_executed += operations as u64;
    }

    /// The log is on disk up to, but not including, `end`.
    pub fn on_durable(&mut self, end: Lsn) {
        debug_assert!(
            end <= self.logged_end,
            "the log is durable only where something was logged"
        );
        self.durable_end = self.durable_end.max(end);
        while self.held.front().is_some_and(|(lsn, _)| *lsn < self.durable_end) {
            let Some((_, held)) = self.held.pop_front() else {
                break;
            };
            self.release(held);
        }
    }

    /// Fires the timers that are due.
    pub fn on_time(&mut self, now: Time) {
        while let Some(timer) = self.timers.take_due(now) {
            if self.abstention.is_some()
                && let Some(later) = Abstention::puts_off(timer, now)
            {
                self.timers.set(timer, later);
                continue;
            }
            self.ordering.on_timeout(now, timer, &mut self.outbox);
            match timer {
                Timer::LogTransfer => self.log_transfer.on_timeout(now, &mut self.outbox),
                Timer::StateTransfer => self.state_transfer.on_timeout(now, &mut self.outbox),
                Timer::Donor => self.answer_owed(now),
                Timer::Mending => self.on_mending_due(now),
                _ => {}
            }
            if timer == Timer::Status {
                let mut standing = self.ordering.standing();
                self.settle_disputes(now);
                standing.disputed = self.disputes.named(now);
                self.view_transfer.on_status_due(now, standing, &mut self.outbox);
            } else {
                self.view_transfer.on_timeout(now, timer, &mut self.outbox);
            }
            self.carry_out(now);
        }
    }

    /// When [`on_time`](Self::on_time) must be called next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Ends a turn: free slots take what is pending, and the turn's votes leave together, in as few messages as hold them.
    pub fn finish_turn(&mut self, now: Time) {
        self.go_on_with_transfers(now);
        while self.ordering.take_early(now, &mut self.outbox) {
            self.carry_out(now);
        }
        self.consider_abstention();
        self.forward_frames();
        if self.supply.is_executing() {
            self.view_transfer.on_executing(now);
        }
        let waiting = self.pool.waiting(now);
        self.view_transfer
            .on_pending_changed(now, waiting, &mut self.outbox);
        if !self.outbox.is_empty() {
            self.carry_out(now);
        }
        while self.abstention.is_none() && self.ordering.free_slots() > 0 {
            let Some((frames, _)) = self
                .pool
                .take_batch(self.settings.batch_bytes_max, self.settings.batch_frames_max)
            else {
                break;
            };
            let time = self.ordering.next_time(now);
            let digest = batch_digest(&self.digester, time, &frames);
            self.counters.batches_proposed += 1;
            self.ordering
                .propose(now, Arc::new(Batch::new(digest, time, frames)), &mut self.outbox);
            self.carry_out(now);
        }
        self.send_votes();
        self.tell_reads();
    }

    /// The actions since the last call, in order; the allocation stays.
    pub fn drain_actions(&mut self) -> std::vec::Drain<'_, Action> {
        self.actions.drain(..)
    }

    /// Whether nothing is pending, under way, or decided and not executed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pool.pending_frames() == 0
            && self.held.is_empty()
            && self.supply.executed() == self.ordering.decided()
    }

    /// The current view.
    #[must_use]
    pub fn view(&self) -> View {
        self.ordering.view()
    }

    /// The ordering protocol, to look at.
    #[must_use]
    pub fn ordering(&self) -> &OrderingOf<S> {
        &self.ordering
    }

    /// The frames that are not decided yet, to look at.
    #[must_use]
    pub fn pool(&self) -> &RequestPool {
        &self.pool
    }

    /// The decisions that are kept in memory, to look at.
    pub fn kept_decisions(&self) -> impl Iterator<Item = &Proposal> {
        let first = self.decision_log.base().next();
        let kept = self.decision_log.read(first, usize::MAX);
        kept.map(|decision| &*decision.proposal)
    }

    /// How many effects wait for the disk.
    #[must_use]
    pub fn held_effects(&self) -> usize {
        self.held.len()
    }

    /// The last decision that was executed.
    #[must_use]
    pub fn executed(&self) -> SeqNo {
        self.supply.executed()
    }

    /// The last checkpoint this replica took.
    #[must_use]
    pub fn last_checkpoint(&self) -> Option<CheckpointClaim> {
        self.checkpoints.last()
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> &ReplicaCounters {
        &self.counters
    }

    fn refuse(&mut self, frame: FrameId, reason: RefusalReason) {
        self.counters.frames_refused += 1;
        self.actions.push(Action::Refuse { frame, reason });
    }

    /// [`ExecutionPhase::ViewTransferProtocol`] begins.
    fn leave_view(&mut self, now: Time, view: View) {
        if view <= self.ordering.view() {
            return;
        }
        self.counters.view_changes += 1;
        let evidence = self.ordering.leave_view(view);
        self.name_disputed(now);
        let ended = self.ends_abstention(view);
        self.view_transfer
            .on_view_left(now, view, evidence, &mut self.outbox);
        self.carry_out(now);
        self.mark_abstention_over(ended);
    }

    /// [`ExecutionPhase::OrderProtocol`] begins. What was proposed in the last view may be lost: it is queued again, here or
    /// at the new leader.
    fn enter_view(&mut self, now: Time, start: &ViewStart) {
        self.counters.views_entered += 1;
        let ended = self.ends_abstention(start.view);
        self.mark_abstention_over(ended);
        self.ordering.enter_view(now, start, &mut self.outbox);
        self.carry_out(now);
        self.pool.return_in_flight();
        self.forward.clear();
        self.shares = false;
        self.name_disputed(now);
        let must_sign: Vec<ClientId> = self.disputes.must_sign().collect();
        must_sign
            .into_iter()
            .for_each(|client| self.drop_unsigned(client));
        if !self.ordering.is_leading() {
            self.forward = self.pending_frames();
        }
    }

    /// A frame was proposed whose MAC failed here.
    pub fn on_disputed(&mut self, key: FrameKey) {
        self.counters.frames_disputed += 1;
        self.disputes.add(key);
    }

    /// The view is lost. Perhaps for frames whose MACs convinced some replicas and not enough of them.
    fn name_disputed(&mut self, now: Time) {
        let pool = &self.pool;
        if self.disputes.on_view_lost(now, |key| pool.is_decided(key)) {
            // The next leader has to know before it proposes the same again.
            self.timers.set(Timer::Status, now);
        }
    }

    /// Who has to sign begins to, and who had to does not have to any more.
    fn settle_disputes(&mut self, now: Time) {
        if active(Mutant::DisputesIgnored) {
            return;
        }
        for Change { client, must_sign } in self.disputes.settle(now) {
            self.actions.push(Action::RequireSignature { client, must_sign });
            if must_sign {
                self.counters.signatures_required += 1;
                self.drop_unsigned(client);
            }
        }
    }

    /// What a client has pending with MACs needs a signature.
    fn drop_unsigned(&mut self, client: ClientId) {
        for frame in self.pool.drop_unsigned(client) {
            self.refuse(frame, RefusalReason::MustSign);
        }
    }

    /// Which protocol is at work.
    #[must_use]
    pub fn phase(&self) -> ExecutionPhase {
        match self.view_transfer.is_active() {
            true => ExecutionPhase::OrderProtocol,
            false => ExecutionPhase::ViewTransferProtocol,
        }
    }

    /// Whether the disk does not keep up: a full one, say. The others go on without this replica, and whatever they say
    /// would be one more thing that waits.
    fn is_choked(&mut self) -> bool {
        let is_full = self.held.len() >= self.settings.held_effects_max && !active(Mutant::DiskRoomIgnored);
        let choked = is_full || self.waits_for_state();
        self.counters.messages_choked += u64::from(choked);
        choked
    }
}

#[cfg(test)]
pub(crate) mod tests;
