//! Messages of other replicas, each handed to the protocol it concerns; and the votes that leave together.

use bytes::Bytes;

use super::{Action, Offences, Replica, Stack};
use crate::smr::log_transfer::LogTransferProtocol;
use crate::smr::messages::archived::{
    ArchivedOrderingMessage, ArchivedSystemMessage, ArchivedViewChange, ArchivedViewTransferMessage,
};
use crate::smr::messages::{BatchRef, Checked, Proposal, STATUS_PLACES, Status, SystemMessage};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{Recipients, Rejected, Rejection};
use crate::smr::types::{NodeId, REPLICAS_MAX, SeqNo, Time, View};
use crate::smr::view_transfer::ViewTransferProtocol;

/// How many signatures there are in a view change.
fn signatures(view_change: &ArchivedViewChange) -> usize {
    1 + view_change.stable_proof.len()
}

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

    /// The turn's votes, in as few messages as hold them.
    pub(super) fn send_votes(&mut self) {
        let votes = self.promises.take_votes();
        self.counters.votes_cast += votes.len() as u64;
        let together = match active(Mutant::VotesUnsplit) {
            true => votes.len().max(1),
            false => self.settings.votes_max,
        };
        for votes in votes.chunks(together) {
            let message = SystemMessage::votes(self.settings.cluster, self.settings.epoch, votes.to_vec());
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
        if self.is_choked() {
            return true;
        }
        match &**checked {
            ArchivedSystemMessage::ProtocolMessage(ArchivedOrderingMessage::Votes(votes)) => {
                let count = self.judgements.may_count(now, from, votes.votes.len());
                if count < votes.votes.len() {
                    self.counters.reject(Rejection::OverBudget);
                }
                for vote in votes.votes.iter().take(count) {
                    self.on_vote(now, from, vote.to_vote());
                }
            }
            ArchivedSystemMessage::ProtocolMessage(ArchivedOrderingMessage::Checkpoint(checkpoint)) => {
                if self.may_judge(now, from, 1) {
                    self.on_checkpoint(now, from, checkpoint.to_checkpoint());
                }
            }
            ArchivedSystemMessage::ViewTransferMessage(view_message) => {
                return self.on_view_message(now, from, view_message);
            }
            _ => return false,
        }
        true
    }

    fn on_view_message(
        &mut self,
        now: Time,
        from: NodeId,
        view_message: &ArchivedViewTransferMessage,
    ) -> bool {
        let refs = |list: &rkyv::vec::ArchivedVec<crate::smr::messages::archived::ArchivedBatchRef>| {
            let refs = list.iter().take(STATUS_PLACES);
            refs.map(|reference| reference.to_ref())
                .collect::<Vec<BatchRef>>()
        };
        match view_message {
            ArchivedViewTransferMessage::ViewChange(view_change) => {
                if !self.may_judge(now, from, signatures(view_change)) {
                    return true;
                }
                let view_change = view_change.to_view_change();
                self.view_transfer
                    .on_view_change(now, from, view_change, &mut self.outbox);
            }
            ArchivedViewTransferMessage::NewView(new_view) => {
                if !self.may_judge(now, from, 1) {
                    return true;
                }
                let new_view = new_view.to_new_view();
                self.view_transfer
                    .on_new_view(now, from, new_view, &mut self.outbox);
            }
            ArchivedViewTransferMessage::Status(status) => self.take_status(now, from, &status.to_status()),
            ArchivedViewTransferMessage::Complaint(view) => {
                let view = View::new(view.to_native());
                self.view_transfer.on_complaint(from, view, &mut self.outbox);
            }
            ArchivedViewTransferMessage::FetchBatches(wanted) => {
                if self.donations.may_answer(now, from) {
                    self.ordering.on_fetch(now, from, &refs(wanted), &mut self.outbox);
                    self.charge_answer(from);
                }
            }
            ArchivedViewTransferMessage::Decisions(decisions) => {
                self.ordering
                    .on_decisions(now, from, &refs(decisions), &mut self.outbox);
            }
            ArchivedViewTransferMessage::Stable(proof) => {
                if !self.may_judge(now, from, proof.len()) {
                    return true;
                }
                let proof: Vec<_> = proof.iter().map(|signed| signed.to_checkpoint()).collect();
                self.ordering.on_stable(now, from, &proof, &mut self.outbox);
            }
            ArchivedViewTransferMessage::FetchViewChanges(wanted) => {
                if self.donations.may_answer(now, from) {
                    let wanted = wanted.iter().take(REPLICAS_MAX).map(|named| named.to_named());
                    let wanted: Vec<_> = wanted.collect();
                    self.view_transfer.on_fetch(now, from, &wanted, &mut self.outbox);
                    self.charge_answer(from);
                }
            }
            ArchivedViewTransferMessage::BatchResponse(_) => return false,
        }
        self.carry_out(now);
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
            && !self.is_choked()
        {
            self.ordering.on_batch(now, from, batch, &mut self.outbox);
        }
        self.carry_out(now);
    }
}
