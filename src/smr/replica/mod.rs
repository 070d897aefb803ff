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
//! out as [`Action`]s. What must wait for the disk waits in `promises`, and nowhere else. A turn ends with
//! [`Replica::finish_turn`]: free slots take what is pending, and the votes of the turn leave together. How a
//! replica is run stands with [`Replica`].
//!
//! Invariant: no [`Action`] that carries a promise exists before the log is durable up to it.

mod action;
mod checkpoints;
mod counters;
mod donations;
mod effects;
mod epochs;
mod forwarding;
mod frames;
mod lag;
mod logged;
mod mac_disputes;
mod messages;
mod promises;
mod reads;
mod repair;
mod restore;
mod settings;
mod snapshot_leases;
mod stack;
mod supply;
mod timers;
mod transfer;
mod transfer_phase;
mod verify_budget;
mod views;
mod voting_suspension;

pub use crate::smr::state_transfer::TransferLimits;
pub use action::Action;
pub use counters::{Offences, ReplicaCounters};
pub use settings::{ExecutionPhase, MUST_SIGN_FOR, ReplicaSettings};
pub use stack::{
    ApplicationOf, DecisionLogOf, DefaultConfigs, DefaultStack, ExecutorOf, LogTransferOf, MessageOf,
    OrderingOf, PartConfigs, PartSettings, SpeculativeStack, Stack, StateTransferOf, ViewMessageOf,
    ViewTransferOf,
};
pub use transfer_phase::TransferPhase;
pub use voting_suspension::{LostPromises, Participation};

use std::sync::Arc;

use crate::smr::crypto::Digester;
use crate::smr::decision_log::DecisionLog;
use crate::smr::log_transfer::LogTransferProtocol;
use crate::smr::messages::{Archived, Batch, CheckpointClaim, Proposal, SignedCheckpoint};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::preprocessing::{RequestPool, batch_digest};
use crate::smr::protocol::{Outbox, Timer};
use crate::smr::state_transfer::StateTransferProtocol;
use crate::smr::types::{Lsn, NodeId, SeqNo, Time, UnixTime, View};
use crate::smr::view_transfer::{ViewTransferProtocol, Waiting};
use checkpoints::Checkpoints;
use donations::Donations;
use epochs::EpochEnd;
use forwarding::Forwarding;
use lag::Lag;
use mac_disputes::MacDisputes;
use promises::Promises;
use reads::Reads;
use supply::Supply;
use timers::Timers;
use verify_budget::VerifyBudget;
use voting_suspension::VotingSuspension;

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
///
/// It does no I/O, knows no threads and reads no clock. Whoever owns it tells it what happened and how late
/// it is, and does what it answers; the same calls with the same times lead to the same answers, which is how
/// a simulator runs it.
///
/// # What is told
/// | about | by |
/// |---|---|
/// | clients | [`on_frame`](Self::on_frame), checked by preprocessing |
/// | replicas, with frames that preprocessing has checked | [`on_proposal`](Self::on_proposal), [`on_batch`](Self::on_batch), [`on_passed_on`](Self::on_passed_on), [`on_disputed`](Self::on_disputed) |
/// | replicas, all else | [`on_message`](Self::on_message) |
/// | the log | [`on_durable`](Self::on_durable), [`on_logged`](Self::on_logged) |
/// | execution | [`on_executed`](Self::on_executed), [`on_checkpoint_taken`](Self::on_checkpoint_taken), [`on_installed`](Self::on_installed) |
/// | other epochs | [`on_reconfiguration`](Self::on_reconfiguration), [`on_other_epoch`](Self::on_other_epoch) |
/// | snapshots of states | [`on_snapshot_kept`](Self::on_snapshot_kept), [`on_snapshot`](Self::on_snapshot) |
/// | time | [`on_time`](Self::on_time), [`on_wall_clock`](Self::on_wall_clock) |
///
/// What clients and replicas sent may be told in any order, late, or twice; what the log, execution and the
/// disk have done, in the order in which each of them did it.
///
/// # The start
/// [`new`](Self::new); then what the disk holds: the snapshots ([`restore_snapshots`](Self::restore_snapshots),
/// [`restore_base`](Self::restore_base)), every record about what is stable
/// ([`restore_stable`](Self::restore_stable)), every record in order ([`restore`](Self::restore)); then
/// [`abstain`](Self::abstain), if the log is not whole, and [`resume`](Self::resume).
///
/// # The loop
/// ```text
/// on_wall_clock(now, unix)                    before the first turn, and every second or so
/// loop {
///     on_…(now, …)                            some of what has happened: as many as are there, up to a limit
///     on_time(now)                            if next_timeout() has come
///     finish_turn(now)                        if anything was told
///     for action in drain_actions() { … }     each carried out, in order
///     wait for anything to tell, and for next_timeout() at the longest
/// }
/// ```
///
/// # What the caller owes
/// 1. *Turns end.* Proposals, votes and what is passed on to the leader leave in
///    [`finish_turn`](Self::finish_turn): without it nothing is ordered. The more is told in a turn, the
///    fewer messages carry its votes; a turn that is put off delays everything.
/// 2. *Actions are done in order,* all of them, before anything else is told that depends on them.
///    [`Action::Execute`] is given to execution in this order, and [`Action::Log`] to the log, position by
///    position.
/// 3. *Durable is durable.* [`on_durable`](Self::on_durable) says what a loss of power leaves. Whatever binds
///    this replica was held back until then: no action has to wait for the disk after it was drained.
/// 4. *Questions are answered,* each once: [`Action::ReadLog`] by [`on_logged`](Self::on_logged), what
///    [`Action::Snapshot`] asks by [`on_snapshot`](Self::on_snapshot) or [`on_installed`](Self::on_installed).
/// 5. *Time does not go back,* from one call to the next.
/// 6. *An epoch ends once:* after [`Action::EpochEnded`] this replica is of no more use. The next epoch begins with
///    a new one, on the disk that this one left.
/// 7. *Peers are who they are said to be,* and what is told of them was said since this replica started.
///    Nothing else is asked of the links: messages may be lost.
pub struct Replica<S: Stack> {
    settings: ReplicaSettings,
    digester: Digester,

    // The protocols.
    ordering: OrderingOf<S>,
    view_transfer: ViewTransferOf<S>,
    decision_log: DecisionLogOf<S>,
    log_transfer: LogTransferOf<S>,
    state_transfer: StateTransferOf<S>,

    // Clients.
    pool: RequestPool,
    forwarding: Forwarding,
    disputes: MacDisputes,
    reads: Reads,

    // Peers.
    judgements: VerifyBudget,
    lag: Lag,
    donations: Donations,

    // How far this replica is.
    supply: Supply,
    checkpoints: Checkpoints,
    /// While there is one, nothing is said that binds.
    abstention: Option<VotingSuspension>,
    /// How the epoch ends; `None` where the membership never changes.
    epoch_end: Option<EpochEnd>,

    // On its way out.
    outbox: Outbox,
    promises: Promises,
    timers: Timers,
    actions: Vec<Action>,
    counters: ReplicaCounters,
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
        let (n, weak) = (settings.quorum.n(), settings.quorum.weak());
        Self {
            forwarding: Forwarding::default(),
            disputes: MacDisputes::new(pool.clients(), weak, settings.must_sign_for),
            reads: Reads::default(),
            judgements: VerifyBudget::new(n),
            lag: Lag::new(n, weak),
            donations: Donations::new(n, TransferLimits::default()),
            supply: Supply::new(),
            checkpoints: Checkpoints::new(n, settings.base),
            abstention: None,
            epoch_end: None,
            outbox: Outbox::new(next_lsn),
            promises: Promises::new(settings.held_effects_max, next_lsn),
            timers,
            actions: Vec::new(),
            counters: ReplicaCounters::default(),
            settings,
            digester,
            ordering,
            view_transfer,
            decision_log,
            log_transfer,
            state_transfer,
            pool,
        }
    }

    /// The host's clock shows this time of day: said first of all, and every second or so.
    pub fn on_wall_clock(&mut self, now: Time, unix: UnixTime) {
        self.ordering.on_wall_clock(now, unix);
    }

    /// A replica's pre-prepare arrived, its frames checked by preprocessing.
    pub fn on_proposal(&mut self, now: Time, from: NodeId, proposal: Proposal) {
        if self.is_backpressured() {
            return;
        }
        self.ordering.on_proposal(now, from, proposal, &mut self.outbox);
        self.dispatch_effects(now);
    }

    /// A replica's vote arrived.
    fn on_protocol_message(&mut self, now: Time, from: NodeId, message: &Archived<MessageOf<S>>) {
        self.ordering.on_message(now, from, message, &mut self.outbox);
        self.dispatch_effects(now);
    }

    /// A replica's checkpoint arrived.
    pub fn on_checkpoint(&mut self, now: Time, from: NodeId, checkpoint: SignedCheckpoint) {
        self.ordering
            .on_checkpoint(now, from, checkpoint, &mut self.outbox);
        self.dispatch_effects(now);
    }

    /// Execution finished a decision of this many operations.
    pub fn on_executed(&mut self, now: Time, seq: SeqNo, operations: usize) {
        self.supply.on_executed(seq);
        if !self.supply.awaits_state() {
            self.decision_log.keep_after(seq);
        }
        self.view_transfer.on_executed(now, operations);
        if operations > 0 {
            self.forwarding.on_executed();
            self.donations.on_served(now);
        }
        self.counters.operations_executed += operations as u64;
    }

    /// The log is on disk up to, but not including, `end`.
    pub fn on_durable(&mut self, end: Lsn) {
        self.promises.on_durable(end);
        while let Some(held) = self.promises.take_durable() {
            self.release(held);
        }
    }

    /// Fires the timers that are due.
    pub fn on_time(&mut self, now: Time) {
        while let Some(timer) = self.timers.take_due(now) {
            if self.abstention.is_some()
                && let Some(later) = VotingSuspension::defers_timer(timer, now)
            {
                self.timers.set(timer, later);
                continue;
            }
            self.ordering.on_timeout(now, timer, &mut self.outbox);
            match timer {
                Timer::LogTransfer => self.log_transfer.on_timeout(now, &mut self.outbox),
                Timer::StateTransfer => self.state_transfer.on_timeout(now, &mut self.outbox),
                Timer::Donor => self.serve_pending(now),
                Timer::Repair => self.on_repair_due(now),
                _ => {}
            }
            if timer == Timer::Status {
                let mut standing = self.ordering.standing();
                self.settle_disputes(now);
                standing.disputed = self.disputes.named(now);
                self.view_transfer.on_status_due(now, standing, &mut self.outbox);
                self.on_epoch_status_due(now);
            } else {
                self.view_transfer.on_timeout(now, timer, &mut self.outbox);
            }
            self.dispatch_effects(now);
        }
    }

    /// When [`on_time`](Self::on_time) must be called next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The timers that [`on_time`](Self::on_time) would handle now, to look at.
    pub fn due_timers(&self, now: Time) -> impl Iterator<Item = Timer> {
        self.timers.due(now)
    }

    /// Ends a turn: free slots take what is pending, and the turn's votes leave together, in as few messages
    /// as hold them.
    pub fn finish_turn(&mut self, now: Time) {
        self.go_on_with_transfers(now);
        while self.ordering.take_early(now, &mut self.outbox) {
            self.dispatch_effects(now);
        }
        self.consider_abstention();
        self.forward_frames();
        if self.supply.is_executing() {
            self.view_transfer.on_executing(now);
        }
        // What comes after the end of the epoch waits for the next: it is nobody's fault.
        let waiting = match self.closing() {
            Some(_) => Waiting::default(),
            None => self.pool.waiting(now),
        };
        self.view_transfer
            .on_pending_changed(now, waiting, &mut self.outbox);
        if !self.outbox.is_empty() {
            self.dispatch_effects(now);
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
            self.dispatch_effects(now);
        }
        self.consider_epoch_end(now);
        self.send_gathered();
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
            && self.promises.held() == 0
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
        self.promises.held()
    }

    /// How many decisions a peer was behind this replica when it last said how far it is, to look at.
    #[must_use]
    pub fn lag_of(&self, peer: NodeId) -> u64 {
        self.lag.of(peer)
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

    /// Whether the disk does not keep up: a full one, say. The others go on without this replica, and
    /// whatever they say would be one more thing that waits.
    fn is_backpressured(&mut self) -> bool {
        let choked = self.promises.is_full() || self.waits_for_state();
        self.counters.messages_backpressured += u64::from(choked);
        choked
    }
}

#[cfg(test)]
pub(crate) mod tests;
