//! The orchestrator's transfer phase: a replica that lacks decisions or state gets them. What it gives to
//! others is [`donations`](super::donations)' business.
//!
//! ```text
//!  peers are far ahead ─► log transfer ─► decisions, in order, to ordering
//!       │ forgotten there
//!       ▼
//!  state transfer ─► head checked: ordering goes on after the checkpoint (jump), decisions wait for the state
//!                 ─► pieces, on disk ─► installed ─► the decisions that waited are executed
//! ```
//!
//! The transfers run beside live ordering: from the jump on the replica votes on places after the checkpoint
//! like any other, so it cannot fall behind again while its state is on the way.
//!
//! A replica whose own checkpoint is contradicted by a quorum stops executing at once and replaces its state
//! in the same way.

use std::sync::Arc;

use bytes::Bytes;

use super::{Action, Replica, Stack, TransferPhase};
use crate::smr::decision_log::DecisionLog;
use crate::smr::execution::SessionWindows;
use crate::smr::log_transfer::{LogTransferProtocol, LogTransferState};
use crate::smr::messages::archived::{ArchivedLogTransferMessage, ArchivedStateTransferMessage};
use crate::smr::messages::{
    CheckpointClaim, CheckpointOffer, ChunkOf, DECIDED_MAX, PieceRange, Proposal, SignedCheckpoint,
    StateTransferMessage,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{Recipients, Record, Rejection, SnapshotEvent, SnapshotTask, Timer};
use crate::smr::state_transfer::{StateTransferProtocol, StateTransferState};
use crate::smr::types::{ClientId, Digest, NodeId, SeqNo, Time};

/// How many batches answer one question of a log transfer, at most.
const BATCHES_PER_ANSWER: u64 = 64;

impl<S: Stack> Replica<S> {
    /// Which transfers run.
    #[must_use]
    pub fn transfer_phase(&self) -> TransferPhase {
        let (state_transfer, log_transfer) = (self.state_transfer.state(), self.log_transfer.state());
        match (state_transfer, log_transfer) {
            (StateTransferState::Idle, LogTransferState::Idle) => TransferPhase::NotRunning,
            _ => TransferPhase::RunningTransferProtocols {
                state_transfer,
                log_transfer,
            },
        }
    }

    /// The last decision up to which all that this replica promised is on disk.
    #[must_use]
    pub fn released(&self) -> SeqNo {
        self.supply.released()
    }

    /// A peer says in its status how far it is.
    pub(super) fn consider_transfer(&mut self, now: Time, from: NodeId, decided: SeqNo) {
        let here = self.ordering.decided();
        let is_behind = self.lag.on_status(now, from, decided, here);
        if is_behind && self.log_transfer.state() == LogTransferState::Idle {
            self.begin_log_transfer(now);
        }
    }

    pub(super) fn begin_log_transfer(&mut self, now: Time) {
        self.counters.log_transfers += 1;
        self.log_transfer
            .begin(now, self.ordering.decided(), &mut self.outbox);
        self.dispatch_effects(now);
    }

    /// Looks for a checkpoint after `after` and brings its state.
    pub(super) fn begin_state_transfer(&mut self, now: Time, after: SeqNo) {
        self.state_transfer.begin(now, after, &mut self.outbox);
        self.dispatch_effects(now);
    }

    /// Our own state was contradicted by a quorum: it is not executed on any more, and is replaced. What was
    /// executed on it is executed again, on the state that comes; snapshots of it are none.
    pub(super) fn replace_state(&mut self, now: Time, stable: SeqNo) {
        self.counters.divergences += 1;
        self.checkpoints.disown();
        if self.supply.awaits_state() {
            // The state that is on its way already replaces this one as well.
            return;
        }
        self.actions.push(Action::Snapshot(SnapshotTask::Invalidate));
        let base = self.decision_log.base();
        self.decision_log.keep_after(base);
        self.supply.await_state(stable.max(base));
        // Any state will do from which our decisions go on: what a quorum signed is right, and a later one
        // may be far off.
        let floor = self.decision_log.floor();
        self.begin_state_transfer(now, floor.minus(1));
    }

    /// Goes on with what runs.
    pub(super) fn go_on_with_transfers(&mut self, now: Time) {
        self.replay_to_executor(now);
        while !self.waits_for_state()
            // Half of the room is for what is ordered here.
            && self.promises.has_room()
            && let Some(decision) = self.next_transferred(now)
        {
            let before = self.ordering.decided();
            self.ordering.on_transferred(now, &decision, &mut self.outbox);
            self.dispatch_effects(now);
            if self.ordering.decided() == before {
                self.request_status_now(now, before);
                break;
            }
            self.counters.decisions_transferred += 1;
        }
        match self.log_transfer.state() {
            LogTransferState::OutOfReach { certain } => {
                self.log_transfer.end(&mut self.outbox);
                let after = self.ordering.decided();
                // One replica's word alone sends nobody looking for a state, or for another one than that
                // which comes. If f+1 say so, a state no later than our decisions is of no use: nothing would
                // go on from there.
                let is_idle = self.state_transfer.state() == StateTransferState::Idle;
                let is_behind = self.lag.reached() > after;
                if certain || (is_idle && is_behind) {
                    self.begin_state_transfer(now, after);
                }
            }
            LogTransferState::Idle | LogTransferState::Running { .. } => {}
        }
        if let Some(target) = self.state_transfer.take_target() {
            self.adopt_sync_target(now, target.claim, target.chain);
        }
    }

    /// The window ends here, and peers have what moves it: they are asked at once, and not with the next
    /// status in its turn.
    fn request_status_now(&mut self, now: Time, decided: SeqNo) {
        if self.lag.hurries(decided) {
            self.timers.set(Timer::Status, now);
        }
    }

    fn next_transferred(&mut self, now: Time) -> Option<Arc<Proposal>> {
        let next = self
            .log_transfer
            .deliver(now, self.ordering.decided(), &mut self.outbox);
        self.dispatch_effects(now);
        next
    }

    /// The checkpoint whose state will come is known.
    fn adopt_sync_target(&mut self, now: Time, claim: CheckpointClaim, chain: crate::smr::crypto::Chain) {
        let goes_on = !self.supply.awaits_state() && !self.is_repairing();
        if goes_on && claim.seq <= self.ordering.decided() {
            // Ordering came so far by itself meanwhile: execution arrives there without help.
            self.state_transfer.end(&mut self.outbox);
            return self.dispatch_effects(now);
        }
        let floor = self.decision_log.floor();
        if claim.seq < floor {
            // What was decided between the two is forgotten: nothing could go on from there.
            self.state_transfer.end(&mut self.outbox);
            return self.begin_state_transfer(now, floor.minus(1));
        }
        let last = self.decision_log.last();
        if claim.seq >= last {
            let Some(known) = self
                .checkpoints
                .find_proof(claim.seq)
                .filter(|known| known.claim == claim)
            else {
                // Later ones have taken its place meanwhile, and without it nobody could be convinced of
                // where we go on.
                self.state_transfer.end(&mut self.outbox);
                return self.begin_state_transfer(now, claim.seq.minus(1));
            };
            let (signed, proof) = (known.signed(), known.proof);
            self.decision_log.restore_base(claim.seq, chain);
            self.outbox.persist(Record::Jump {
                seq: claim.seq,
                chain,
            });
            self.ordering
                .jump(now, claim.seq, signed, &proof, &mut self.outbox);
            self.supply.pass(claim.seq);
        }
        self.decision_log.keep_after(claim.seq);
        self.supply.await_state(claim.seq);
        self.dispatch_effects(now);
        // The others went on meanwhile.
        self.begin_log_transfer(now);
    }

    /// Whether so much waits for a state that others are not listened to until it has come.
    pub(super) fn waits_for_state(&self) -> bool {
        self.supply.awaits_state()
            && (self.decision_log.kept_bytes() > self.donations.limits().waiting_bytes_max
                || !self.decision_log.is_proved())
    }

    /// The disk has done something with a snapshot.
    pub fn on_snapshot(&mut self, now: Time, event: SnapshotEvent) {
        match event {
            SnapshotEvent::Chunk { to, seq, last, bytes } => {
                let chunk = ChunkOf {
                    seq: seq.get(),
                    last,
                    // No copy, if nobody else holds it.
                    bytes: bytes.into(),
                };
                let message =
                    StateTransferMessage::Chunk(chunk).encode(self.settings.cluster, self.settings.epoch);
                self.outbox.send(Recipients::One(to), message);
            }
            event => {
                self.state_transfer.on_snapshot(now, &event, &mut self.outbox);
                self.counters.pieces_reused = self.state_transfer.reused();
            }
        }
        self.dispatch_effects(now);
    }

    /// Execution has read the state after `seq`: what waited for it is executed. `windows` is what the state
    /// includes, by client.
    pub fn on_installed(&mut self, now: Time, seq: SeqNo, windows: &[SessionWindows]) {
        self.state_transfer.on_installed(seq, &mut self.outbox);
        self.counters.states_transferred += 1;
        self.checkpoints.on_installed(seq);
        if let Some(known) = self.checkpoints.find_proof(seq) {
            self.close_epoch(now, known.claim);
        }
        self.reads.may_have_answered(self.supply.executed());
        self.supply.on_installed(seq);
        for (client, window) in (0..).zip(windows) {
            self.pool.adopt_windows(ClientId::new(client), window.clone());
        }
        self.replay_to_executor(now);
        self.dispatch_effects(now);
        self.cut_log(now);
    }

    pub(super) fn on_log_message(&mut self, now: Time, from: NodeId, message: &ArchivedLogTransferMessage) {
        match message {
            ArchivedLogTransferMessage::AskDecided { after } => {
                self.answer_decided(now, from, SeqNo::new(after.to_native()));
            }
            ArchivedLogTransferMessage::Decided {
                after,
                first,
                digests,
            } => {
                let digests: Vec<Digest> = digests
                    .iter()
                    .take(DECIDED_MAX)
                    .map(|digest| Digest::from_bytes(*digest))
                    .collect();
                let places = (SeqNo::new(after.to_native()), SeqNo::new(first.to_native()));
                self.log_transfer
                    .on_decided(now, from, places, &digests, &mut self.outbox);
            }
            ArchivedLogTransferMessage::FetchDecisions { first, count } => {
                let count = u64::from(count.to_native()).min(BATCHES_PER_ANSWER);
                self.donations
                    .enqueue_decisions(from, SeqNo::new(first.to_native()), count);
                self.serve_pending(now);
            }
        }
        self.dispatch_effects(now);
    }

    pub(super) fn on_state_message(
        &mut self,
        now: Time,
        from: NodeId,
        message: &ArchivedStateTransferMessage,
        whole: &Bytes,
    ) {
        match message {
            ArchivedStateTransferMessage::AskOffer { after } => {
                self.answer_offer(now, from, SeqNo::new(after.to_native()));
            }
            ArchivedStateTransferMessage::Offer(offer) => {
                if offer.proof.len() > self.settings.quorum.n() {
                    // Not one that a correct replica makes: no more of it is looked at, or copied.
                    self.counters.reject(Rejection::BadSignature);
                    return;
                }
                let offer = offer.to_offer();
                let claim = offer.claim();
                let light = offer.light(self.settings.epoch);
                let signed = light.map_or(claim, |light| light.claim(&self.digester));
                let mut certified = self.checkpoints.is_certified(signed);
                if !certified
                    && self.state_transfer.wants_offer(from, claim.seq)
                    && self.may_judge(now, from, offer.proof.len())
                    && let Some(certificate) = self.certificate_of(&offer, signed)
                {
                    self.checkpoints.remember_certificate(signed, certificate);
                    certified = true;
                }
                if certified && let Some(light) = light {
                    self.checkpoints.remember_light(light, signed);
                }
                self.state_transfer
                    .on_offer(now, from, &offer, certified, &mut self.outbox);
            }
            ArchivedStateTransferMessage::Fetch(range) => {
                let range: PieceRange = range.to_range();
                self.checkpoints.on_fetch(now, from, SeqNo::new(range.seq));
                self.donations.enqueue_pieces(from, range);
                self.serve_pending(now);
            }
            ArchivedStateTransferMessage::Chunk(chunk) => {
                let of = (SeqNo::new(chunk.seq.to_native()), chunk.last);
                // A slice of the message: a state is not copied on its way to the disk.
                let bytes = whole.slice_ref(&chunk.bytes);
                self.state_transfer
                    .on_chunk(now, from, of, bytes, &mut self.outbox);
                self.counters.chunks_refused = self.state_transfer.lies();
            }
        }
        self.dispatch_effects(now);
    }

    /// What proves a checkpoint that is offered, without anything else that came with it.
    fn certificate_of(
        &self,
        offer: &CheckpointOffer,
        signed: CheckpointClaim,
    ) -> Option<Vec<SignedCheckpoint>> {
        match active(Mutant::StateTargetUncertified) {
            true => Some(offer.proof.clone()),
            false => self.ordering.certificate(signed, &offer.proof),
        }
    }
}
