//! What a transfer brings: decisions made by others, and checkpoints to go on from.

use std::sync::Arc;

use super::Pbft;
use crate::smr::messages::{CheckpointClaim, Proposal, SignedCheckpoint};
use crate::smr::protocol::{Outbox, Record};
use crate::smr::types::SeqNo;

impl Pbft {
    /// Goes on after `last`; `stable` is a checkpoint there or later, which its proof convinced the caller
    /// of.
    pub(super) fn jump_to(
        &mut self,
        last: SeqNo,
        stable: CheckpointClaim,
        proof: &[SignedCheckpoint],
        out: &mut Outbox,
    ) {
        if last <= self.decided {
            return;
        }
        // Nothing before it is of any use: the slots of those places become those of later ones.
        for seq in self.low.get() + 1..=last.get().min(self.high().get()) {
            self.pass_undecided(SeqNo::new(seq));
            self.slot(SeqNo::new(seq)).clear();
        }
        self.decided = last;
        self.resend.restart();
        if stable.seq > self.stable.seq {
            self.adopt_stable(stable, proof.to_vec(), out);
        } else {
            self.advance_low();
        }
        self.decide(out);
        self.fetch_wanted(out);
    }

    pub(super) fn take_transferred(&mut self, decision: &Arc<Proposal>, out: &mut Outbox) {
        let (seq, digest) = (decision.seq, decision.batch.digest);
        if seq > self.high() {
            // Only a checkpoint of the others leads on: the next status asks for theirs.
            self.resend.ask_next();
        }
        if seq != self.decided.next() || seq > self.high() {
            return;
        }
        let view = self.view;
        let slot = self.slot(seq);
        // The slot may have the batch, from a proposal that came meanwhile.
        let is_new = slot.proposal_of(view, seq, &digest).is_none();
        slot.outcome = Some(digest);
        if is_new {
            slot.keep(decision.clone(), true);
            self.persist(Record::Batch(decision.clone()), out);
        }
        self.decide(out);
    }
}
