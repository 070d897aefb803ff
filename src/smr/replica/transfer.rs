//! The orchestrator's transfer phase: a replica that lacks decisions or state gets them, and gives them to
//! others.
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

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::TransferLimits;
use super::checkpoints::{Certificate, StateProof};
use super::donations::Donations;
use super::loans::Loans;
use super::mending::Mending;
use super::{Action, Replica, Stack};
use crate::smr::decision_log::DecisionLog;
use crate::smr::execution::SessionWindows;
use crate::smr::log_transfer::{LogTransferProtocol, LogTransferState};
use crate::smr::messages::archived::{ArchivedLogTransferMessage, ArchivedStateTransferMessage};
use crate::smr::messages::{
    CheckpointClaim, CheckpointOffer, ChunkOf, CoveringCheckpoint, DECIDED_MAX, LightCheckpoint,
    LogTransferMessage, PieceRange, Proposal, SignedCheckpoint, StateTransferMessage,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{ImageEvent, ImageTask, Recipients, Record, Rejection, Timer};
use crate::smr::state_transfer::{StateTransferProtocol, StateTransferState};
use crate::smr::types::{ClientId, Digest, NodeId, SeqNo, Time};

/// A replica so many decisions behind f+1 others has them transferred; fewer come with the next status.
const LAG_DECISIONS: u64 = 32;
/// A gap that does not close for so long is not small, whatever its size.
const GAP_PATIENCE: Duration = Duration::from_secs(1);
/// How many batches answer one question of a log transfer, at most.
const BATCHES_PER_ANSWER: u64 = 64;

/// Whether state and decisions are being transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferPhase {
    /// Nothing is.
    NotRunning,
    /// At least one of both is.
    RunningTransferProtocols {
        /// How far the state is.
        state_transfer: StateTransferState,
        /// How far the decisions are.
        log_transfer: LogTransferState,
    },
}

impl TransferPhase {
    /// A number that changes when another step begins.
    #[must_use]
    pub fn stage(&self) -> u8 {
        let Self::RunningTransferProtocols { state_transfer, .. } = self else {
            return 0;
        };
        match state_transfer {
            StateTransferState::Idle => 1,
            StateTransferState::Asking => 2,
            StateTransferState::Opening { .. } => 3,
            StateTransferState::Receiving { .. } => 4,
            StateTransferState::Installing { .. } => 5,
        }
    }
}

impl TransferPhase {
    /// How many tenths of a state's pieces have come.
    #[must_use]
    pub fn tenth(&self) -> usize {
        match self {
            Self::RunningTransferProtocols {
                state_transfer: StateTransferState::Receiving { pieces, of, .. },
                ..
            } => 10 * pieces / (*of).max(1),
            _ => 0,
        }
    }
}

impl std::fmt::Display for TransferPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::RunningTransferProtocols {
            state_transfer,
            log_transfer,
        } = self
        else {
            return f.write_str("no transfer");
        };
        match state_transfer {
            StateTransferState::Idle => {}
            StateTransferState::Asking => f.write_str("looking for a checkpoint of others")?,
            StateTransferState::Opening { seq } => write!(f, "opening the checkpoint at {seq}")?,
            StateTransferState::Receiving {
                seq,
                pieces,
                of,
                bytes,
                donors,
            } => write!(
                f,
                "receiving the state at {seq}: {pieces} of {of} pieces, {} MiB, from {donors} donors",
                bytes >> 20
            )?,
            StateTransferState::Installing { seq } => write!(f, "installing the state at {seq}")?,
        }
        match (state_transfer, log_transfer) {
            (StateTransferState::Idle, LogTransferState::Running { delivered, settled }) => {
                write!(f, "receiving decisions: {delivered} of {settled}")
            }
            (_, LogTransferState::Running { delivered, settled }) => {
                write!(f, "; decisions: {delivered} of {settled}")
            }
            (_, LogTransferState::Idle | LogTransferState::OutOfReach { .. }) => Ok(()),
        }
    }
}

/// What the orchestrator knows about transfers.
#[derive(Debug)]
pub(super) struct Transfers {
    /// By peer: its last decision, as it says.
    decided: Vec<SeqNo>,
    /// Our own last decision, and since when.
    moved: (SeqNo, Time),
    /// Stable checkpoints and what proves them, the newest last.
    pub(super) certificates: VecDeque<Certificate>,
    /// Light checkpoints that execution took, or a quorum signed, the newest last.
    pub(super) lights: VecDeque<(LightCheckpoint, CheckpointClaim)>,
    /// What proves those of `taken` and `images` that are proved.
    pub(super) proofs: BTreeMap<SeqNo, StateProof>,
    /// The images that are on disk, the newest last.
    pub(super) images: VecDeque<SeqNo>,
    /// Of these, what was on disk at the start, as its head says: it may be of a state that was replaced
    /// before.
    pub(super) found: Vec<CheckpointClaim>,
    /// The checkpoints that execution took of the state it has now, the newest last: their images are to
    /// come.
    pub(super) taken: VecDeque<SeqNo>,
    loans: Loans,
    /// Execution waits for the state after this decision.
    pub awaiting: Option<SeqNo>,
    /// Execution goes on from a state that came from others: everything up to this place was given to it.
    /// What is released is not given to it at once.
    pub fed: Option<SeqNo>,
    /// The first place of what is being read from the log for it.
    pub feeding: Option<SeqNo>,
    /// What the log did not give back.
    pub mending: Option<Mending>,
    /// The last decision that was handed out, to execution unless it waits.
    pub released: SeqNo,
    /// The end of the window for which peers were asked out of turn last.
    hurried: SeqNo,
    pub donations: Donations,
}

impl Transfers {
    pub fn new(n: usize) -> Self {
        Self {
            decided: vec![SeqNo::ZERO; n],
            moved: (SeqNo::ZERO, Time::START),
            certificates: VecDeque::new(),
            lights: VecDeque::new(),
            proofs: BTreeMap::new(),
            images: VecDeque::new(),
            taken: VecDeque::new(),
            found: Vec::new(),
            loans: Loans::new(n),
            awaiting: None,
            fed: None,
            feeding: None,
            mending: None,
            released: SeqNo::ZERO,
            hurried: SeqNo::ZERO,
            donations: Donations::new(n, TransferLimits::default()),
        }
    }

    /// Forgets images that nobody needs, if there are any: those before the one before the last that a quorum
    /// signed, but for those that peers need. Later ones may not be signed for long, and until one is, only
    /// that one helps a peer that lacks its state.
    fn forget_images(&mut self, now: Time) -> Option<ImageTask> {
        let is_certified = |seq: &SeqNo| self.proofs.contains_key(seq);
        let last = self.images.iter().rposition(is_certified)?;
        let before = *self.images.get(last.saturating_sub(1))?;
        let but: Vec<SeqNo> = self.loans.needed(now).filter(|seq| *seq < before).collect();
        let known = self.images.len();
        self.images.retain(|seq| *seq >= before || but.contains(seq));
        (self.images.len() < known).then_some(ImageTask::Forget { before, but })
    }

    /// The place that f+1 peers have reached, or say so.
    fn reached(&self, weak: usize) -> SeqNo {
        let mut decided = self.decided.clone();
        decided.sort_unstable_by(|a, b| b.cmp(a));
        decided.get(weak - 1).copied().unwrap_or(SeqNo::ZERO)
    }
}

impl<S: Stack> Replica<S> {
    /// Has images that nobody needs any more removed.
    pub(super) fn drop_images(&mut self, now: Time) {
        if let Some(task) = self.transfers.forget_images(now) {
            self.actions.push(Action::Image(task));
        }
    }

    /// The same with other limits on what it gives to others.
    #[must_use]
    pub fn with_transfer_limits(mut self, limits: TransferLimits) -> Self {
        self.transfers.donations = Donations::new(self.settings.quorum.n(), limits);
        self
    }

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
        self.transfers.released
    }

    /// A peer says in its status how far it is.
    pub(super) fn consider_transfer(&mut self, now: Time, from: NodeId, decided: SeqNo) {
        if let Some(known) = self.transfers.decided.get_mut(from.index()) {
            *known = decided;
        }
        let (reached, here) = (
            self.transfers.reached(self.settings.quorum.weak()),
            self.ordering.decided(),
        );
        if self.transfers.moved.0 != here || reached <= here {
            self.transfers.moved = (here, now);
        }
        let is_stuck = reached > here && now.since(self.transfers.moved.1) >= GAP_PATIENCE;
        let is_far = reached > here.plus(LAG_DECISIONS);
        if (is_far || is_stuck) && self.log_transfer.state() == LogTransferState::Idle {
            self.begin_log_transfer(now);
        }
    }

    pub(super) fn begin_log_transfer(&mut self, now: Time) {
        self.counters.log_transfers += 1;
        self.log_transfer
            .begin(now, self.ordering.decided(), &mut self.outbox);
        self.carry_out(now);
    }

    /// Looks for a checkpoint after `after` and brings its state.
    pub(super) fn begin_state_transfer(&mut self, now: Time, after: SeqNo) {
        self.state_transfer.begin(now, after, &mut self.outbox);
        self.carry_out(now);
    }

    /// Our own state was contradicted by a quorum: it is not executed on any more, and is replaced. What was
    /// executed on it is executed again, on the state that comes; images of it are none.
    pub(super) fn replace_state(&mut self, now: Time, stable: SeqNo) {
        self.counters.divergences += 1;
        self.transfers.images.clear();
        self.transfers.taken.clear();
        self.transfers.lights.clear();
        self.transfers.fed = None;
        self.image_kept = self.cut;
        if self.transfers.awaiting.is_some() {
            // The state that is on its way already replaces this one as well.
            return;
        }
        self.actions.push(Action::Image(ImageTask::Disown));
        let base = self.decision_log.base();
        self.decision_log.keep_after(base);
        self.transfers.awaiting = Some(stable.max(base));
        // Any state will do from which our decisions go on: what a quorum signed is right, and a later one
        // may be far off.
        let floor = self.decision_log.floor();
        self.begin_state_transfer(now, floor.minus(1));
    }

    /// Goes on with what runs.
    pub(super) fn go_on_with_transfers(&mut self, now: Time) {
        self.feed_execution(now);
        while !self.waits_for_state()
            && self.has_disk_room()
            && let Some(decision) = self.next_transferred(now)
        {
            let before = self.ordering.decided();
            self.ordering.on_transferred(now, &decision, &mut self.outbox);
            self.carry_out(now);
            if self.ordering.decided() == before {
                self.hurry_status(now, before);
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
                let is_behind = self.transfers.reached(self.settings.quorum.weak()) > after;
                if certain || (is_idle && is_behind) {
                    self.begin_state_transfer(now, after);
                }
            }
            LogTransferState::Idle | LogTransferState::Running { .. } => {}
        }
        if let Some(target) = self.state_transfer.take_target() {
            self.aim_at(now, target.claim, target.chain);
        }
    }

    /// Whether the disk keeps up well enough for more decisions that others made: half of the room is for
    /// what is ordered here.
    fn has_disk_room(&self) -> bool {
        self.held.len() < self.settings.held_effects_max / 2
    }

    /// The window ends here, and peers have what moves it: they are asked at once, and not with the next
    /// status in its turn.
    fn hurry_status(&mut self, now: Time, decided: SeqNo) {
        if self.transfers.hurried < decided {
            self.transfers.hurried = decided;
            self.timers.set(Timer::Status, now);
        }
    }

    fn next_transferred(&mut self, now: Time) -> Option<Arc<Proposal>> {
        let next = self
            .log_transfer
            .deliver(now, self.ordering.decided(), &mut self.outbox);
        self.carry_out(now);
        next
    }

    /// The checkpoint whose state will come is known.
    fn aim_at(&mut self, now: Time, claim: CheckpointClaim, chain: crate::smr::crypto::Chain) {
        let goes_on = self.transfers.awaiting.is_none() && !self.is_mending();
        if goes_on && claim.seq <= self.ordering.decided() {
            // Ordering came so far by itself meanwhile: execution arrives there without help.
            self.state_transfer.end(&mut self.outbox);
            return self.carry_out(now);
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
                .transfers
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
            self.transfers.released = self.transfers.released.max(claim.seq);
        }
        self.decision_log.keep_after(claim.seq);
        self.transfers.awaiting = Some(claim.seq);
        self.transfers.fed = None;
        self.carry_out(now);
        // The others went on meanwhile.
        self.begin_log_transfer(now);
    }

    /// Whether so much waits for a state that others are not listened to until it has come.
    pub(super) fn waits_for_state(&self) -> bool {
        let waits = self.transfers.awaiting.is_some();
        waits
            && (self.decision_log.kept_bytes() > self.transfers.donations.limits().waiting_bytes_max
                || !self.decision_log.is_proved())
    }

    /// The disk has done something with an image.
    pub fn on_image(&mut self, now: Time, event: ImageEvent) {
        match event {
            ImageEvent::Chunk { to, seq, last, bytes } => {
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
                self.state_transfer.on_image(now, &event, &mut self.outbox);
                self.counters.pieces_reused = self.state_transfer.reused();
            }
        }
        self.carry_out(now);
    }

    /// Execution has read the state after `seq`: what waited for it is executed. `windows` is what the state
    /// includes, by client.
    pub fn on_installed(&mut self, now: Time, seq: SeqNo, windows: &[SessionWindows]) {
        self.state_transfer.on_installed(seq, &mut self.outbox);
        self.counters.states_transferred += 1;
        self.transfers.awaiting = None;
        self.transfers.taken.clear();
        self.transfers.replace_image(seq);
        self.reads.may_have_answered(self.executed);
        self.executed = seq;
        self.image_kept = self.image_kept.max(seq);
        for (client, window) in (0..).zip(windows) {
            self.pool.adopt_windows(ClientId::new(client), window.clone());
        }
        self.transfers.fed = Some(seq);
        self.feed_execution(now);
        self.carry_out(now);
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
                self.transfers
                    .donations
                    .owe_decisions(from, SeqNo::new(first.to_native()), count);
                self.answer_owed(now);
            }
        }
        self.carry_out(now);
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
                let certificates = &self.transfers.certificates;
                let mut certified = certificates.iter().any(|(known, _)| *known == signed);
                if !certified
                    && self.state_transfer.wants_offer(from, claim.seq)
                    && self.may_judge(now, from, offer.proof.len())
                    && let Some(certificate) = self.certificate_of(&offer, signed)
                {
                    self.transfers.remember_certificate(signed, certificate);
                    certified = true;
                }
                if certified && let Some(light) = light {
                    self.transfers.remember_light(light, signed);
                }
                self.state_transfer
                    .on_offer(now, from, &offer, certified, &mut self.outbox);
            }
            ArchivedStateTransferMessage::Fetch(range) => {
                let range: PieceRange = range.to_range();
                self.transfers.loans.on_fetch(now, from, SeqNo::new(range.seq));
                self.transfers.donations.owe_pieces(from, range);
                self.answer_owed(now);
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
        self.carry_out(now);
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

    fn answer_decided(&mut self, now: Time, from: NodeId, after: SeqNo) {
        let first = after.max(self.decision_log.floor()).next();
        let released = self.transfers.released.next().since(first) as usize;
        let digests = self.decision_log.digests(first, released.min(DECIDED_MAX));
        let digests: Vec<[u8; 32]> = digests.map(|digest| *digest.as_bytes()).collect();
        let answer_bytes = 32 * digests.len() as u64 + 72;
        if !self.transfers.donations.may_send(now, from, answer_bytes) {
            return;
        }
        // Also when there is nothing to name: whoever asks then knows that it need not wait.
        let message = LogTransferMessage::Decided {
            after: after.get(),
            first: first.get(),
            digests,
        };
        let message = message.encode(self.settings.cluster, self.settings.epoch);
        self.outbox.send(Recipients::One(from), message);
    }

    /// Offers every image that is there, the newest first: the others may have other ones, and a checkpoint
    /// that several have comes from several.
    fn answer_offer(&mut self, now: Time, from: NodeId, after: SeqNo) {
        if !self.transfers.donations.may_answer(now, from) {
            return;
        }
        let images = &self.transfers.images;
        let proofs = self.transfers.proofs.values();
        let mut offered: Vec<StateProof> = proofs
            .filter(|proof| proof.claim.seq > after && images.contains(&proof.claim.seq))
            .cloned()
            .rev()
            .collect();
        if active(Mutant::LightOffered) {
            // The last that is stable, whatever it is.
            let last = self.transfers.certificates.back();
            let last = last.filter(|(claim, _)| claim.seq > after).cloned();
            let cover = None;
            offered = last
                .map(|(claim, proof)| StateProof { claim, cover, proof })
                .into_iter()
                .collect();
        }
        let seqs = offered.iter().map(|proof| proof.claim.seq);
        self.transfers.loans.on_offered(now, from, seqs);
        for StateProof { claim, cover, proof } in offered {
            let offer = CheckpointOffer {
                seq: claim.seq.get(),
                digest: *claim.digest.as_bytes(),
                cover: cover.map(|(light, _)| CoveringCheckpoint {
                    seq: light.seq.get(),
                    chain: *light.chain.head().as_bytes(),
                }),
                proof,
            };
            let message =
                StateTransferMessage::Offer(offer).encode(self.settings.cluster, self.settings.epoch);
            self.outbox.send(Recipients::One(from), message);
        }
        self.charge_answer(from);
    }
}
