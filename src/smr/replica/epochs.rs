//! How the epoch ends: what was decided last is executed, the members sign the checkpoint after it, and what they
//! signed is on disk. Then whoever runs this replica ends it, and begins the next epoch with a new one.
//!
//! ```text
//!  decided: a change ─► logged ─► executed ─► checkpoint taken ─► on_closed ─► a quorum signed ─► take_ended ─► EpochEnded
//!                                                  └─► its contents on disk ────────────────────────┘
//! ```
//!
//! A replica that was elsewhere learns of the end by its certificate, and begins the next epoch without the state
//! that it begins with: that comes from others.

use super::promises::Held;
use super::{Action, Replica, Stack};
use crate::smr::membership::{ChangeRequest, EndedEpoch, EpochHistory};
use crate::smr::messages::{CheckpointClaim, Proposal};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{Persisted, Record, Rejection, RestoreError};
use crate::smr::reconfiguration::{EpochHandover, ReconfigurationMessage, ReconfigurationProtocol};
use crate::smr::types::{Digest, Epoch, Lsn, NodeId, SeqNo, Time};

/// How far the end of the epoch is.
#[derive(Debug)]
pub(super) struct EpochEnd {
    protocol: EpochHandover,
    restored: RestoredEnd,
    /// The epochs that have ended since this replica began: this one is the first.
    ended: Vec<EndedEpoch>,
    /// It was said that this one has.
    is_told: bool,
}

/// What a restart finds of the end: a decision may be in the log, and what says that it is the last may have been
/// lost.
#[derive(Debug, Default)]
struct RestoredEnd {
    /// The state that it began with.
    state: Option<CheckpointClaim>,
    /// The batches that would close the epoch.
    batches: Vec<(SeqNo, Digest, ChangeRequest)>,
    /// The one that was decided.
    decided: Option<(SeqNo, ChangeRequest)>,
}

impl RestoredEnd {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Proposal(proposal) | Record::Batch(proposal) => {
                if let Some(request) = request_of(proposal) {
                    self.batches.push((proposal.seq, proposal.batch.digest, request));
                }
            }
            Record::Decision { seq, digest, .. } => {
                let mut batches = self.batches.iter();
                if let Some((_, _, request)) = batches.find(|(at, batch, _)| (at, batch) == (seq, digest)) {
                    self.decided = Some((*seq, request.clone()));
                }
            }
            _ => {}
        }
    }
}

/// What a decision asks for that closes the epoch.
fn request_of(decision: &Proposal) -> Option<ChangeRequest> {
    ChangeRequest::asked_in(decision.batch.change()?)
}

impl<S: Stack> Replica<S> {
    /// The same as a member of a cluster whose membership can change.
    #[must_use]
    pub fn with_epochs(mut self, protocol: EpochHandover) -> Self {
        self.epoch_end = Some(EpochEnd {
            protocol,
            restored: RestoredEnd::default(),
            ended: Vec::new(),
            is_told: false,
        });
        self
    }

    /// The epochs that are known.
    #[must_use]
    pub fn history(&self) -> Option<&EpochHistory> {
        self.epoch_end.as_ref().map(|end| end.protocol.history())
    }

    /// The last place of the epoch, once it is decided here: nothing is ordered behind it.
    #[must_use]
    pub fn closing(&self) -> Option<SeqNo> {
        self.epoch_end.as_ref().and_then(|end| end.protocol.closing())
    }

    /// A message about epochs arrived, of a peer in any epoch. False when it is none.
    pub fn on_reconfiguration(&mut self, now: Time, from: NodeId, body: &[u8]) -> bool {
        let Ok(message) = ReconfigurationMessage::decode(self.settings.cluster, body) else {
            return false;
        };
        if let Some(end) = &mut self.epoch_end {
            end.protocol.on_message(now, from, message, &mut self.outbox);
        }
        self.dispatch_effects(now);
        true
    }

    /// A peer said something in another epoch: one of the two has something to learn.
    pub fn on_other_epoch(&mut self, now: Time, from: NodeId, epoch: Epoch) {
        self.counters.reject(Rejection::OtherEpoch);
        if let Some(end) = &mut self.epoch_end {
            end.protocol.on_other_epoch(now, from, epoch, &mut self.outbox);
        }
        self.dispatch_effects(now);
    }

    /// Ordering has decided this. If it is the last of the epoch, it is executed once the log says so: a restart
    /// may begin with the state after it, and must not go on.
    pub(super) fn log_closing(&mut self, decision: &Proposal) -> Option<Persisted> {
        let request = request_of(decision)?;
        let end = self.epoch_end.as_mut()?;
        end.protocol.on_decided(decision.seq, &request, &mut self.outbox)
    }

    /// Execution has the state of this checkpoint: perhaps the one after the last decision. Who may have forgotten
    /// what it signed signs nothing.
    pub(super) fn close_epoch(&mut self, now: Time, claim: CheckpointClaim) {
        if self.abstention.is_none()
            && let Some(end) = &mut self.epoch_end
            && end.protocol.closing() == Some(claim.seq)
        {
            end.protocol.on_closed(now, claim, &mut self.outbox);
        }
    }

    /// A restart has read the snapshot of this checkpoint.
    pub(super) fn restore_closing_state(&mut self, claim: CheckpointClaim) {
        if let Some(end) = &mut self.epoch_end {
            end.restored.state = Some(claim);
        }
    }

    /// The log was read: it may know of a last decision, which may be part of the state that the restart began with.
    pub(super) fn resume_epoch_end(&mut self, now: Time) {
        let Some(end) = &mut self.epoch_end else {
            return;
        };
        if self.promises.logged_end() == Lsn::ZERO {
            // What was restored waits for the first record like everything else.
            end.protocol.begin_log(&mut self.outbox);
        }
        let restored = std::mem::take(&mut end.restored);
        if let (None, Some((seq, request))) = (end.protocol.closing(), restored.decided) {
            end.protocol.on_decided(seq, &request, &mut self.outbox);
        }
        if let Some(last) = end.protocol.closing() {
            self.ordering.restore_end(last);
        }
        if let Some(claim) = restored.state.filter(|_| !self.supply.awaits_state()) {
            self.close_epoch(now, claim);
        }
    }

    /// The own end of the epoch is told again now and then.
    pub(super) fn on_epoch_status_due(&mut self, now: Time) {
        if let Some(end) = &mut self.epoch_end {
            end.protocol.on_status_due(now, &mut self.outbox);
        }
    }

    /// The state that came from others may be the one after the last decision.
    fn learn_closing(&mut self, now: Time) {
        let (executed, decided) = (self.supply.executed(), self.ordering.decided());
        let Some(end) = &mut self.epoch_end else {
            return;
        };
        if executed != decided || self.supply.awaits_state() {
            return;
        }
        if let Some(request) = end.protocol.take_learned(executed) {
            end.protocol.on_decided(executed, &request, &mut self.outbox);
            self.ordering.restore_end(executed);
            if let Some(known) = self.checkpoints.find_proof(executed) {
                self.close_epoch(now, known.claim);
            }
            self.dispatch_effects(now);
        }
    }

    /// Says that the epoch has ended, once it is known what follows. Who executes what is decided by itself waits
    /// until the closing checkpoint is on disk as well: without it the whole state would have to come from others.
    pub(super) fn consider_epoch_end(&mut self, now: Time) {
        self.learn_closing(now);
        let Some(end) = &mut self.epoch_end else {
            return;
        };
        while let Some(ended) = end.protocol.take_ended() {
            end.ended.push(ended);
        }
        let Some(first) = end.ended.first().filter(|_| !end.is_told) else {
            return;
        };
        let closing = first.certificate.closing();
        let arrives = self.ordering.decided() >= closing.seq && !self.supply.awaits_state();
        if arrives
            && !active(Mutant::EndUnawaited)
            && self.checkpoints.kept() < closing.seq
            && !self.supply.is_repairing()
        {
            return;
        }
        end.is_told = true;
        self.hold(self.promises.when_all_is_durable(), Held::EpochEnded);
    }

    /// It is on disk that the epoch has ended.
    pub(super) fn tell_epoch_ended(&mut self) {
        if let Some(history) = self.history().cloned() {
            self.actions.push(Action::EpochEnded(Box::new(history)));
        }
    }

    /// The log holds this record, about epochs or something else.
    pub(super) fn restore_epochs(&mut self, record: &Record) -> Result<(), RestoreError> {
        let Some(end) = &mut self.epoch_end else {
            return Ok(());
        };
        end.restored.take(record);
        end.protocol.restore(record)
    }

    /// What of epochs has to be written again before the log is cut.
    pub(super) fn epoch_records(&self) -> Vec<Record> {
        self.epoch_end
            .as_ref()
            .map_or_else(Vec::new, |end| end.protocol.base_records())
    }
}
