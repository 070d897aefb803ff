//! Messages of other replicas, each handed to the protocol it concerns; and the votes that leave together.

use bytes::Bytes;

use super::{Action, MessageOf, Offences, Replica, Stack, ViewMessageOf, ViewTransferOf};
use crate::smr::log_transfer::LogTransferProtocol;
use crate::smr::messages::archived::{ArchivedProtocolMessages, ArchivedSyncMessage, ArchivedSystemMessage};
use crate::smr::messages::{Archived, BatchRef, Checked, Proposal, STATUS_SLOTS, Status, SystemMessage};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{Recipients, Rejected, Rejection};
use crate::smr::types::{NodeId, SeqNo, Time};
use crate::smr::view_transfer::ViewTransferProtocol;

impl<S: Stack> Replica<S> {
    /// A peer's message is refused.
    pub(super) fn reject(&mut self, rejected: Rejected) {
        self.counters.reject(rejected.reason);
        self.judgements.on_rejected(rejected);
    }

    /// What this peer sent that no correct replica sends.
    #[must_use]
    pub fn offences(&self, peer: NodeId) -> Offences {
        self.judgements.offences(peer)
    }

    /// Whether so many signatures of what a peer says are verified now; counted if not.
    pub(super) fn may_judge(&mut self, now: Time, from: NodeId, signatures: usize) -> bool {
        let may = self.judgements.may_judge(now, from, signatures);
        if !may {
            self.counters.reject(Rejection::OverBudget);
        }
        may
    }

    /// What the ordering protocol said in this turn, in as few messages as hold it.
    pub(super) fn send_gathered(&mut self) {
        let together = self.promises.take_together();
        self.counters.votes_cast += together.len() as u64;
        let most = match active(Mutant::VotesUnsplit) {
            true => together.len().max(1),
            false => self.settings.votes_max,
        };
        for some in together.chunks(most) {
            let archives = some.iter().map(|archive| &archive[..]);
            let message = SystemMessage::protocol(self.settings.cluster, self.settings.epoch, archives);
            let to = Recipients::Others;
            self.actions.push(Action::ToReplicas { to, message });
        }
    }

    /// A replica's message without client frames arrived. `message` is the whole message that `checked` is
    /// the body of. False when it is none of those: messages with frames come by preprocessing.
    pub fn on_message(
        &mut self,
        now: Time,
        from: NodeId,
        checked: &Checked<SystemMessage>,
        message: &Bytes,
    ) -> bool {
        match &**checked {
            ArchivedSystemMessage::LogTransferMessage(message) => {
                self.on_log_message(now, from, message);
                return true;
            }
            ArchivedSystemMessage::StateTransferMessage(transfer) => {
                self.on_state_message(now, from, transfer, message);
                return true;
            }
            _ => {}
        }
        if self.is_backpressured() {
            return true;
        }
        match &**checked {
            ArchivedSystemMessage::ProtocolMessage(bundle) => self.on_bundle(now, from, checked, bundle),
            ArchivedSystemMessage::ViewTransferMessage(archive) => {
                let archive = checked.slice_of(archive.as_slice());
                let Ok(message) = Checked::<ViewMessageOf<S>>::new(archive) else {
                    return false;
                };
                self.on_view_message(now, from, &message);
                true
            }
            ArchivedSystemMessage::SyncMessage(message) => self.on_sync_message(now, from, message),
            _ => false,
        }
    }

    /// Messages of the ordering protocol's own. False when one of them is none.
    fn on_bundle(
        &mut self,
        now: Time,
        from: NodeId,
        checked: &Checked<SystemMessage>,
        bundle: &ArchivedProtocolMessages,
    ) -> bool {
        let count = self.judgements.may_count(now, from, bundle.ends.len());
        if count < bundle.ends.len() {
            self.counters.reject(Rejection::OverBudget);
        }
        // What is over the budget is not looked at, not even at its table.
        if count == 0 {
            return true;
        }
        let Some(Ok(archives)) = checked.protocol_messages() else {
            return false;
        };
        for archive in archives.take(count) {
            let Ok(message) = Checked::<MessageOf<S>>::new(archive) else {
                return false;
            };
            self.on_protocol_message(now, from, &message);
        }
        true
    }

    fn on_view_message(&mut self, now: Time, from: NodeId, message: &Archived<ViewMessageOf<S>>) {
        let signatures = ViewTransferOf::<S>::signatures(message);
        if signatures > 0 && !self.may_judge(now, from, signatures) {
            return;
        }
        let is_question = ViewTransferOf::<S>::is_question(message);
        if !is_question || self.donations.may_answer(now, from) {
            self.view_transfer
                .on_message(now, from, message, &mut self.outbox);
            if is_question {
                self.charge_answer(from);
            }
        }
        self.dispatch_effects(now);
    }

    fn on_sync_message(&mut self, now: Time, from: NodeId, message: &ArchivedSyncMessage) -> bool {
        let refs = |list: &rkyv::vec::ArchivedVec<crate::smr::messages::archived::ArchivedBatchRef>| {
            let refs = list.iter().take(STATUS_SLOTS);
            refs.map(|reference| reference.to_ref())
                .collect::<Vec<BatchRef>>()
        };
        match message {
            ArchivedSyncMessage::Checkpoint(checkpoint) => {
                if self.may_judge(now, from, 1) {
                    self.on_checkpoint(now, from, checkpoint.to_checkpoint());
                }
                return true;
            }
            ArchivedSyncMessage::Stable(proof) => {
                if !self.may_judge(now, from, proof.len()) {
                    return true;
                }
                let proof: Vec<_> = proof.iter().map(|signed| signed.to_checkpoint()).collect();
                self.ordering.on_stable(now, from, &proof, &mut self.outbox);
            }
            ArchivedSyncMessage::Status(status) => self.take_status(now, from, &status.to_status()),
            ArchivedSyncMessage::FetchBatches(wanted) => {
                if self.donations.may_answer(now, from) {
                    self.ordering.on_fetch(now, from, &refs(wanted), &mut self.outbox);
                    self.charge_answer(from);
                }
            }
            ArchivedSyncMessage::Decisions(decisions) => {
                self.ordering
                    .on_decisions(now, from, &refs(decisions), &mut self.outbox);
            }
            ArchivedSyncMessage::BatchResponse(_) => return false,
        }
        self.dispatch_effects(now);
        true
    }

    fn take_status(&mut self, now: Time, from: NodeId, status: &Status) {
        if let Some(abstention) = &mut self.abstention {
            abstention.on_status(from, status);
        }
        self.disputes.claim(now, from, &status.disputed);
        self.settle_disputes(now);
        if self.donations.may_answer(now, from) {
            self.ordering.on_status(now, from, status, &mut self.outbox);
            self.charge_answer(from);
        }
        self.view_transfer.on_status(now, from, status, &mut self.outbox);
        self.consider_transfer(now, from, SeqNo::new(status.decided));
    }

    /// What ordering has just answered a peer counts against what the peer is sent for its transfers.
    pub(super) fn charge_answer(&mut self, from: NodeId) {
        let answer: usize = self.outbox.sent_to(from).map(Bytes::len).sum();
        self.donations.charge(from, answer as u64);
    }

    /// A batch this replica asked for arrived, its frames checked by preprocessing.
    pub fn on_batch(&mut self, now: Time, from: NodeId, batch: Proposal) {
        // What a transfer asked for it has room for, and takes however slow the disk is: it would have to ask
        // again.
        if let Some(batch) = self.take_to_mend(now, batch)
            && let Some(batch) = self.log_transfer.on_batch(now, from, batch, &mut self.outbox)
            && !self.is_backpressured()
        {
            self.ordering.on_batch(now, from, batch, &mut self.outbox);
        }
        self.dispatch_effects(now);
    }
}
