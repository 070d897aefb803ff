//! A leader's proposals that are not decided, counted in bytes: what is kept and logged of them is bounded.

use std::sync::Arc;

use super::Pbft;
use super::config::UNDECIDED_BYTES;
use crate::smr::messages::Proposal;
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::SeqNo;

impl Pbft {
    /// Whether a fresh proposal may be kept and logged beside those that are not decided. The next place is
    /// decided by no other.
    pub(super) fn has_room_for(&self, proposal: &Proposal) -> bool {
        let bytes = self.undecided_bytes + undecided_bytes(proposal);
        bytes <= self.context.undecided_bytes_max
            || proposal.seq == self.decided.next()
            || active(Mutant::UndecidedUnlimited)
    }

    /// A fresh proposal of the current view takes its place.
    pub(super) fn take_fresh(&mut self, proposal: Arc<Proposal>) {
        let bytes = undecided_bytes(&proposal);
        let slot = self.slot(proposal.seq);
        slot.proposal = Some(proposal);
        slot.undecided_bytes = bytes;
        self.undecided_bytes += bytes;
    }

    /// A place is decided now, or is left behind.
    pub(super) fn pass_undecided(&mut self, seq: SeqNo) {
        let bytes = std::mem::take(&mut self.slot(seq).undecided_bytes);
        self.undecided_bytes = self.undecided_bytes.saturating_sub(bytes);
    }
}

/// What a proposal that is not decided counts as.
fn undecided_bytes(proposal: &Proposal) -> usize {
    proposal.message.len() + UNDECIDED_BYTES
}
