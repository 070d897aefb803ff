//! PBFT (Castro & Liskov, Practical Byzantine Fault Tolerance and Proactive Recovery, TOCS 2002): ordering.
//!
//! ```text
//!  leader   ──pre-prepare──►  prepare   commit
//!  backup 1        ●────────────►●─────────►●  decided
//!  backup 2        ●────────────►●─────────►●  decided
//!  backup 3        ●────────────►●─────────►●  decided
//! ```
//!
//! **Events** (n replicas, f = ⌊(n−1)/3⌋, quorum q = ⌈(n+f+1)/2⌉, window (h, H], H = h + k):
//! - *A free slot and pending frames, at the leader:* log the proposal, then send PRE-PREPARE ⟨v, s, d,
//!   time, frames⟩ (§4.2).
//! - *PRE-PREPARE of the leader of our view, h < s ≤ H, none accepted for (v, s) with another digest, its
//!   time near what our clock shows (`clock`):* log it, then send PREPARE ⟨v, s, d⟩.
//! - *PREPARE from q−1 distinct backups matching the accepted pre-prepare:* the batch is **prepared**; log
//!   the vote, then send COMMIT ⟨v, s, d⟩.
//! - *COMMIT ⟨v, s, d⟩ from q distinct replicas:* d is **committed** at s. Committed batches are decided in
//!   the order of s, each once, without gaps, as soon as their frames are at hand.
//! - *Own checkpoint from execution:* sign, log, send CHECKPOINT ⟨s, d⟩ (§4.3).
//! - *CHECKPOINT ⟨s, d⟩ equal from q distinct signers:* **stable**. h := the smaller of s and what is decided
//!   here; everything up to h is forgotten. A replica that lags behind s goes on with the messages that are
//!   still under way; when s lies above its H it has fallen behind: only a transfer brings it back.
//! - *A decision closes the epoch* ([`Batch::closes_epoch`]): it is the last place, H is no higher, and nothing
//!   after it is voted on or decided. View changes go on as before: they are about the places up to it.
//! - *A transfer hands in the next decision, or a stable checkpoint beyond the last one:* decided; or
//!   everything up to the checkpoint is forgotten, and ordering goes on after it.
//! - *A view is left* ([`OrderingProtocol::leave_view`]): no vote for an earlier view is cast any more.
//!   Handed out are the stable checkpoint with its proof, P (per place the batch prepared last, with its
//!   view) and Q (per place the batches pre-prepared, each with its latest view), all of places after the
//!   checkpoint (§4.4).
//! - *A view begins* with a batch chosen for each place from min-s + 1 to max-s
//!   ([`OrderingProtocol::enter_view`]; how they are chosen is [`crate::smr::view_transfer::pbft`]'s): each
//!   chosen batch counts as pre-prepared by the new leader; backups prepare it, and the three phases go on as
//!   above, for places already decided as well (§4.4). Frames that are not at hand are fetched by digest.
//!   Fresh proposals start after max-s. The leader has all of them in Q from then on, and writes again,
//!   before the log is cut, what of this no record about a place shows.
//! - *A message for a view that has not begun here, or for a place up to a window above ours:* kept, within
//!   bounds, until the view begins or the window reaches it.
//! - *A stable checkpoint with its proof, later than ours:* stable here as well, whoever sent it.
//! - *[`Status`] of a peer that asks:* it is sent our stable checkpoint with its proof, our checkpoints,
//!   decisions, votes and proposals that it lacks.
//! - *Decisions from f+1 distinct replicas that name d for s:* d is committed at s.
//!
//! **Why two replicas never decide differently.** Two batches prepared for one (v, s) need two quorums of
//! accepted pre-prepares; two quorums share a correct replica, and a correct replica accepts one pre-prepare
//! per (v, s). Across views: a committed batch is prepared at f+1 correct replicas, which say so in P of
//! every later view change; every quorum of view changes holds one of them, and the choice rules then leave
//! no other batch.
//!
//! **Deviations from the paper, and why.**
//! - Votes carry no authenticators of their own: links are authenticated and sealed.
//! - A batch whose MACs do not convince us is accepted once f+1 others vouch for it, the leader by proposing
//!   it and backups by preparing it: one of them is correct, and the first correct one could check its own
//!   MACs. A batch a view begins with was accepted by a correct replica before (A2).
//! - A quorum of commits decides without our own prepare (the paper asks for both): f+1 of its senders are
//!   correct and prepared d, which is all that later views need. So a leader that suppresses a proposal from
//!   some suppresses nothing.
//! - f+1 equal words "decided" decide: one of them is a correct replica's. They replace the retransmission of
//!   votes of views that are over.
//! - Checkpoints are signed, and due where execution says (by decisions or by bytes), not at multiples of a
//!   constant.
//! - A leader's undecided proposals are bounded by bytes as well as by places: what goes beyond is refused,
//!   but for the next place. A correct leader keeps to half of that.
//! - A certificate of a stable checkpoint is exactly a quorum of signatures: whatever else came with them is
//!   neither kept nor handed on.
//! - Q keeps at most `KEPT_PER_SLOT` digests per place, the one in P always among
//!   them: more need as many failed leaders in a row without one decision. So a VIEW-CHANGE has a greatest
//!   length, and none that a correct replica sends is refused ([`crate::smr::messages::lengths`]).
//!
//! **What is promised.** Safety with up to f faulty replicas under any timing. Progress, with up to f faulty
//! replicas, leaders included, while messages between correct replicas arrive in time (the view transfer
//! doubles what "in time" is). With MAC-authenticated clients, a client whose frames convince the leader and
//! fewer than f correct backups costs a view change. Not promised: return of a replica that fell behind by
//! more than the others remember (a transfer does that).
//!
//! Invariants: one accepted proposal per slot and view; one prepare and one commit counted per sender, slot
//! and view (a sender's second, different vote is refused); nothing is sent that binds us before it is
//! logged; memory is bounded by the window whatever arrives.

mod checkpoints;
mod clock;
mod config;
mod future_views;
pub(crate) mod records;
mod resend;
mod restore;
mod slot;
mod transfer;
mod undecided;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::smr::messages::{
    Archived, Batch, BatchRef, CheckpointClaim, Phase, PrePrepare, Proposal, SignedCheckpoint, Status,
    SystemMessage, ViewEvidence, ViewStart, Vote,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{
    Effect, OrderingProgress, Outbox, OwnRecord, PartContext, Persisted, Recipients, Record, Rejected,
    Rejection, RestoreError, Timer,
};
use crate::smr::types::{Digest, NodeId, Quorum, SeqNo, Time, UnixTime, View};
use checkpoints::Checkpoints;
use clock::Clock;
pub use config::{OrderingConfig, undecided_bytes_max};
use future_views::FutureViewBuffer;
use resend::Resend;
use slot::{PrePrepared, Slot};

/// The state of one replica.
pub struct Pbft {
    config: OrderingConfig,
    context: PartContext,
    view: View,
    /// Whether `view` has begun here; while it has not, nothing is voted on.
    active: bool,
    /// The last place the view began with (max-s): fresh proposals come after it.
    view_floor: SeqNo,
    /// The batches the last view that began here began with that lie above our window still, the next place
    /// last.
    new_view_backlog: Vec<(SeqNo, Digest)>,
    /// Q of places above our window, by new views of our own.
    announced_ahead: BTreeMap<SeqNo, PrePrepared>,
    slots: Vec<Slot>,
    /// By sender: what came for a view to come, or for places above our window.
    early: Vec<FutureViewBuffer>,
    /// The view began, or the window moved, and what waited for that was not taken yet.
    has_moved: bool,
    /// The last stable checkpoint a quorum proved to us, and its certificate: exactly a quorum of signatures
    /// that hold.
    stable: CheckpointClaim,
    proof: Vec<SignedCheckpoint>,
    /// h, the low watermark: the smaller of `stable` and `decided`. Slots at or below it are empty.
    low: SeqNo,
    /// Everything up to here was given to execution.
    decided: SeqNo,
    /// The last sequence number this replica proposed, as leader.
    proposed: SeqNo,
    /// Where this replica proposed to close the epoch, as leader.
    proposed_end: Option<SeqNo>,
    /// The last place of the epoch, once it is decided which that is.
    last: Option<SeqNo>,
    /// What the current view's fresh proposals count as that are not decided, in bytes.
    undecided_bytes: usize,
    checkpoints: Checkpoints,
    clock: Clock,
    resend: Resend,
    /// The last thing we logged: what is sent again waits for it.
    promise: Option<Persisted>,
    /// While the log is read back: what it says of a view that has not begun yet.
    unplaced: Vec<Record>,
}

impl Pbft {
    /// A replica at the beginning of an epoch: view zero, nothing decided after its base.
    #[must_use]
    pub fn new(config: OrderingConfig, context: PartContext) -> Self {
        let slots = (0..context.window).map(|_| Slot::default()).collect();
        let checkpoints = Checkpoints::new(context.digester.clone(), context.verifying.clone());
        let (n, base) = (context.quorum.n(), context.base);
        Self {
            view: View::ZERO,
            active: true,
            view_floor: base.seq,
            new_view_backlog: Vec::new(),
            announced_ahead: BTreeMap::new(),
            slots,
            early: (0..n).map(|_| FutureViewBuffer::default()).collect(),
            has_moved: false,
            stable: base,
            proof: Vec::new(),
            low: base.seq,
            decided: base.seq,
            proposed: base.seq,
            proposed_end: None,
            last: None,
            undecided_bytes: 0,
            checkpoints,
            clock: Clock::new(context.clock_bound),
            resend: Resend::new(n),
            promise: None,
            unplaced: Vec::new(),
            config,
            context,
        }
    }

    /// H: the highest sequence number accepted now.
    fn high(&self) -> SeqNo {
        let high = self.low.plus(self.context.window);
        self.last.map_or(high, |last| high.min(last))
    }

    fn slot(&mut self, seq: SeqNo) -> &mut Slot {
        let index = (seq.get() % self.context.window) as usize;
        &mut self.slots[index]
    }

    fn peek(&self, seq: SeqNo) -> &Slot {
        &self.slots[(seq.get() % self.context.window) as usize]
    }

    /// Whether a message for (view, seq) of a view that has begun may be looked at.
    fn admit(&self, view: View, seq: SeqNo) -> Result<(), Rejection> {
        if view < self.view {
            Err(Rejection::OldView)
        } else if seq <= self.low {
            Err(Rejection::BelowWindow)
        } else if seq > self.high() && !active(Mutant::WatermarkUnchecked) {
            Err(Rejection::AboveWindow)
        } else {
            Ok(())
        }
    }

    fn try_proposal(
        &mut self,
        now: Time,
        from: NodeId,
        proposal: Proposal,
        out: &mut Outbox,
    ) -> Result<(), Rejection> {
        let n = self.context.quorum.n();
        let leads = from == proposal.view.turn(n) || active(Mutant::NotLeaderAccepted);
        if !leads || from == self.context.node {
            return Err(Rejection::NotLeader);
        }
        if self.is_early(proposal.view, proposal.seq) {
            return self.keep_early_proposal(from, proposal);
        }
        self.admit(proposal.view, proposal.seq)?;
        let (seq, floor) = (proposal.seq, self.view_floor);
        let has_room = self.has_room_for(&proposal);
        let slot = self.slot(seq);
        let first = slot
            .chosen
            .or(slot.proposal.as_ref().map(|first| first.batch.digest));
        if active(Mutant::EquivocationAccepted) {
            slot.accepted = false;
        }
        if let Some(first) = first.filter(|_| !active(Mutant::EquivocationAccepted)) {
            return Err(if first == proposal.batch.digest {
                Rejection::Duplicate
            } else {
                Rejection::Equivocation
            });
        }
        if seq <= floor {
            // The view began with a later checkpoint: what lies before it is decided elsewhere.
            return Err(Rejection::BelowWindow);
        }
        if !has_room {
            return Err(Rejection::OverBudget);
        }
        let awaited = self.peek(seq).outcome;
        if awaited != Some(proposal.batch.digest) {
            self.clock.judge(now, proposal.batch.time)?;
        }
        self.take_fresh(Arc::new(proposal));
        self.advance(seq, out);
        if awaited.is_some() {
            self.decide(out);
        }
        Ok(())
    }

    fn try_vote(&mut self, from: NodeId, vote: Vote, out: &mut Outbox) -> Result<(), Rejection> {
        let (seq, view) = (vote.seq(), vote.view());
        let n = self.context.quorum.n();
        let by_leader = from == view.turn(n) && !active(Mutant::LeaderPrepareCounted);
        if vote.phase == Phase::Prepare && by_leader {
            return Err(Rejection::LeaderPrepare);
        }
        if from == self.context.node || from.index() >= n {
            return Err(Rejection::Duplicate);
        }
        if self.is_early(view, seq) {
            return self.keep_early_vote(from, vote);
        }
        self.admit(view, seq)?;
        let quorum = self.commits_needed();
        let slot = self.slot(seq);
        slot.tally(vote.phase).add(from, vote.digest())?;
        if vote.phase == Phase::Commit
            && slot.outcome.is_none()
            && slot.commits.count(&vote.digest()) >= quorum
        {
            slot.outcome = Some(vote.digest());
            self.decide(out);
        } else {
            self.advance(seq, out);
        }
        Ok(())
    }

    /// How many backups' prepares, and how many commits, it takes.
    fn prepares_needed(&self) -> usize {
        let fewer = usize::from(active(Mutant::PrepareQuorumMinusOne));
        self.context.quorum.prepares().saturating_sub(fewer)
    }

    fn commits_needed(&self) -> usize {
        self.context.quorum.quorum() - usize::from(active(Mutant::CommitQuorumMinusOne))
    }

    /// Takes every step the slot's messages allow.
    fn advance(&mut self, seq: SeqNo, out: &mut Outbox) {
        let (weak, prepares, quorum) = (
            self.context.quorum.weak(),
            self.prepares_needed(),
            self.commits_needed(),
        );
        let (node, view) = (self.context.node, self.view);
        let slot = self.slot(seq);
        let Some(proposal) = slot.proposal.clone() else {
            return;
        };
        let digest = proposal.batch.digest;
        if !slot.accepted {
            // Others vouch for clients whose MACs do not convince us: the leader with its proposal, backups
            // with their prepares.
            let believed = proposal.authentic || active(Mutant::UnauthenticAccepted);
            if !believed && slot.prepares.count(&digest) + 1 < weak {
                return;
            }
            self.accept(&proposal, out);
        }
        let slot = self.slot(seq);
        if !slot.prepared && slot.prepares.count(&digest) >= prepares {
            slot.prepare(view, digest);
            let _ = slot.commits.add(node, digest);
            let vote = vote(Phase::Commit, view, seq, digest);
            let promise = self.persist(records::cast(vote), out);
            out.send_together(&vote, promise);
        }
        let slot = self.slot(seq);
        if slot.prepared && slot.outcome.is_none() && slot.commits.count(&digest) >= quorum {
            slot.outcome = Some(digest);
            self.decide(out);
        }
    }

    /// Answers for a proposal: it enters Q, and our prepare (or, at the leader, the proposal itself) leaves
    /// once it is logged. What the view began with was logged with the new-view message, its frames when they
    /// came.
    fn accept(&mut self, proposal: &Arc<Proposal>, out: &mut Outbox) {
        let (node, view, leading) = (self.context.node, self.view, self.leader() == self.context.node);
        let (seq, digest) = (proposal.seq, proposal.batch.digest);
        self.clock.note(&proposal.batch);
        let slot = self.slot(seq);
        let chosen = slot.chosen.is_some();
        let logged = chosen && slot.is_logged(&digest);
        // Our own new view said it, and no record about the place.
        let is_announced = leading && logged;
        slot.accept(view, digest, !is_announced);
        if !leading {
            let _ = slot.prepares.add(node, digest);
        }
        let mut promise = None;
        if !logged && !active(Mutant::AcceptedUnlogged) {
            promise = Some(self.persist(Record::Proposal(proposal.clone()), out));
        }
        if leading {
            if let (false, Some(promise)) = (chosen, promise) {
                out.send_promise(Recipients::Others, proposal.message.clone(), promise);
            }
            return;
        }
        let vote = vote(Phase::Prepare, view, seq, digest);
        let promise = match promise {
            Some(promise) => promise,
            None => self.persist(records::cast(vote), out),
        };
        out.send_together(&vote, promise);
    }

    fn persist(&mut self, record: Record, out: &mut Outbox) -> Persisted {
        let promise = out.persist(record);
        self.promise = Some(promise);
        promise
    }

    /// Hands committed batches to execution, in order, as far as their frames are at hand.
    fn decide(&mut self, out: &mut Outbox) {
        let last = self.decided;
        while self.decided < self.high() {
            let next = self.decided.next();
            let slot = self.peek(next);
            let Some(digest) = slot.outcome else { break };
            let Some(proposal) = slot.proposal_of(self.view, next, &digest) else {
                break;
            };
            if !slot.is_logged(&digest) {
                // Decided by others' words, before it was accepted here: a restart needs its batch.
                self.persist(Record::Batch(proposal.clone()), out);
            }
            self.clock.note(&proposal.batch);
            self.resend.remember(proposal.clone());
            self.note_end(&proposal);
            out.push(Effect::Decide(proposal));
            self.decided = next;
            self.pass_undecided(next);
        }
        if self.decided > last && self.low < self.stable.seq {
            self.advance_low();
        }
    }

    /// A decision may be the last of its epoch. What was proposed, prepared or even committed after it is void, at
    /// every replica alike.
    fn note_end(&mut self, decision: &Proposal) {
        if decision.batch.closes_epoch() && !active(Mutant::OrderedBeyondEnd) {
            self.last = Some(decision.seq);
        }
    }

    fn reject(from: NodeId, view: View, seq: SeqNo, result: Result<(), Rejection>, out: &mut Outbox) {
        if let Err(reason) = result {
            out.push(Effect::Rejected(Rejected {
                from,
                view,
                seq,
                reason,
            }));
        }
    }
}

fn vote(phase: Phase, view: View, seq: SeqNo, digest: Digest) -> Vote {
    Vote {
        phase,
        view: view.get(),
        seq: seq.get(),
        digest: *digest.as_bytes(),
    }
}

impl OrderingProtocol for Pbft {
    type Message = Vote;
    type Evidence = ViewEvidence;
    type Start = ViewStart;

    fn describe(contents: &[u8]) -> Option<OwnRecord> {
        records::describe(contents)
    }

    fn leader_of(view: View, quorum: Quorum) -> NodeId {
        view.turn(quorum.n())
    }

    fn promise_span(&self) -> u64 {
        self.context.window
    }

    fn view(&self) -> View {
        self.view
    }

    fn leader(&self) -> NodeId {
        Self::leader_of(self.view, self.context.quorum)
    }

    fn is_leading(&self) -> bool {
        self.active && self.leader() == self.context.node
    }

    fn free_slots(&self) -> usize {
        if !self.is_leading() {
            return 0;
        }
        if self.proposed_end.is_some_and(|end| end > self.decided) {
            // What followed would be void.
            return 0;
        }
        let under_way = self.proposed.since(self.decided) as usize;
        // Half of what the others take: what is decided here may not be there.
        if under_way > 0 && self.undecided_bytes > self.context.undecided_bytes_max / 2 {
            return 0;
        }
        // A leader that others have overtaken proposes after what they decided.
        let window = self.high().since(self.proposed.max(self.decided)) as usize;
        self.config.pipeline.saturating_sub(under_way).min(window)
    }

    fn on_wall_clock(&mut self, now: Time, unix: UnixTime) {
        self.clock.set(now, unix);
    }

    fn next_time(&self, now: Time) -> UnixTime {
        self.clock.next(now)
    }

    fn propose(&mut self, _: Time, batch: Arc<Batch>, out: &mut Outbox) {
        assert!(self.free_slots() > 0, "only a leader with a free slot proposes");
        let seq = self.proposed.max(self.decided).next();
        self.proposed = seq;
        self.proposed_end = batch.closes_epoch().then_some(seq);
        let message = PrePrepare::encode(self.context.cluster, self.context.epoch, self.view, seq, &batch);
        let proposal = Proposal {
            view: self.view,
            seq,
            batch,
            message,
            authentic: true,
        };
        self.take_fresh(Arc::new(proposal));
        self.advance(seq, out);
    }

    fn on_proposal(&mut self, now: Time, from: NodeId, proposal: Proposal, out: &mut Outbox) {
        let (view, seq) = (proposal.view, proposal.seq);
        let result = self.try_proposal(now, from, proposal, out);
        Self::reject(from, view, seq, result, out);
    }

    fn on_message(&mut self, _: Time, from: NodeId, message: &Archived<Vote>, out: &mut Outbox) {
        let vote = message.to_vote();
        let result = self.try_vote(from, vote, out);
        Self::reject(from, vote.view(), vote.seq(), result, out);
    }

    fn on_checkpoint(&mut self, _: Time, from: NodeId, checkpoint: SignedCheckpoint, out: &mut Outbox) {
        let result = self.checkpoints.add(from, checkpoint, self.stable.seq);
        Self::reject(from, self.view, checkpoint.claim().seq, result, out);
        if result.is_ok() {
            self.try_stable(out);
        }
    }

    fn on_stable(&mut self, _: Time, from: NodeId, proof: &[SignedCheckpoint], out: &mut Outbox) {
        let Some(claim) = proof.first().map(SignedCheckpoint::claim) else {
            return;
        };
        let result = match () {
            () if claim.seq <= self.stable.seq => Err(Rejection::BelowWindow),
            () if active(Mutant::StableWordBelieved) => Ok(proof.to_vec()),
            // It is kept and handed on: nothing may ride on it.
            () => self.certificate(claim, proof).ok_or(Rejection::BadSignature),
        };
        match result {
            Ok(certificate) => self.adopt_stable(claim, certificate, out),
            Err(reason) => Self::reject(from, self.view, claim.seq, Err(reason), out),
        }
    }

    fn on_own_checkpoint(&mut self, _: Time, claim: CheckpointClaim, out: &mut Outbox) {
        if claim.seq <= self.stable.seq {
            if let Some(stable) = self.checkpoints.contradicted(claim) {
                self.checkpoints.disown(self.context.node);
                out.push(Effect::Diverged { stable, ours: claim });
            }
            return;
        }
        if self.checkpoints.has_own(claim) {
            // Signed before the last restart.
            return;
        }
        if self.checkpoints.contradicts_own(claim) {
            // The state that was lost in the last restart was another one, and what was said of it says
            // nothing of this one.
            self.checkpoints.disown(self.context.node);
        }
        let checkpoint = self
            .checkpoints
            .sign(claim, self.context.node, &self.context.signing);
        let promise = self.persist(Record::Checkpoint(checkpoint), out);
        let message = SystemMessage::checkpoint(self.context.cluster, self.context.epoch, checkpoint);
        out.send_promise(Recipients::Others, message, promise);
        self.try_stable(out);
    }

    fn on_timeout(&mut self, _: Time, timer: Timer, out: &mut Outbox) {
        if timer == Timer::Status {
            self.on_status_due(out);
        }
    }

    fn leave_view(&mut self, next: View) -> ViewEvidence {
        self.leave(next)
    }

    fn enter_view(&mut self, _: Time, start: &ViewStart, out: &mut Outbox) {
        self.enter(start, out);
    }

    fn take_early(&mut self, now: Time, out: &mut Outbox) -> bool {
        self.take_waiting(now, out)
    }

    fn on_fetch(&mut self, now: Time, from: NodeId, wanted: &[BatchRef], out: &mut Outbox) {
        self.answer_fetch(now, from, wanted, out);
    }

    fn on_batch(&mut self, _: Time, from: NodeId, batch: Proposal, out: &mut Outbox) {
        let (view, seq) = (batch.view, batch.seq);
        let result = self.try_batch(batch, out);
        Self::reject(from, view, seq, result, out);
    }

    fn on_decisions(&mut self, _: Time, from: NodeId, decisions: &[BatchRef], out: &mut Outbox) {
        self.take_decisions(from, decisions, out);
    }

    fn on_status(&mut self, now: Time, from: NodeId, status: &Status, out: &mut Outbox) {
        self.answer_status(now, from, status, out);
    }

    fn standing(&mut self) -> OrderingProgress {
        self.stand()
    }

    fn evidence(&self) -> ViewEvidence {
        self.carried()
    }

    fn restore_base(&mut self, seq: SeqNo) {
        self.start_after(seq);
    }

    fn restore(&mut self, record: &Record) -> Result<(), RestoreError> {
        self.take_record(record)
    }

    fn restore_snapshot(&mut self, claim: CheckpointClaim) {
        if !active(Mutant::ReplacedClaimsKept) {
            self.checkpoints.settle(claim, self.context.node);
        }
    }

    fn restore_view(&mut self, start: &ViewStart) {
        self.take_view(start);
    }

    fn restore_decision(&mut self, seq: SeqNo, digest: Digest) -> Option<Arc<Proposal>> {
        self.take_decision(seq, digest)
    }

    fn resume(&mut self, _: Time, out: &mut Outbox) {
        self.go_on(out);
    }

    fn base_records(&self) -> Vec<Record> {
        self.records_to_carry()
    }

    fn certificate(
        &self,
        claim: CheckpointClaim,
        proof: &[SignedCheckpoint],
    ) -> Option<Vec<SignedCheckpoint>> {
        self.checkpoints.certificate(claim, proof, self.context.quorum)
    }

    fn jump(
        &mut self,
        _: Time,
        seq: SeqNo,
        stable: CheckpointClaim,
        proof: &[SignedCheckpoint],
        out: &mut Outbox,
    ) {
        self.jump_to(seq, stable, proof, out);
    }

    fn on_transferred(&mut self, _: Time, decision: &Arc<Proposal>, out: &mut Outbox) {
        self.take_transferred(decision, out);
    }

    fn restore_end(&mut self, last: SeqNo) {
        self.last = Some(last);
    }

    fn decided(&self) -> SeqNo {
        self.decided
    }

    fn stable(&self) -> SeqNo {
        self.stable.seq
    }
}

#[cfg(test)]
pub(crate) mod tests;
