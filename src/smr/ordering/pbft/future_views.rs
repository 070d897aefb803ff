//! What comes before it can be looked at: its view has not begun here, or the window does not reach it yet.

use super::Pbft;
use crate::smr::messages::{Proposal, Vote};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Outbox, Rejection};
use crate::smr::types::{NodeId, SeqNo, Time, View};

/// What arrived of one sender too early: of the latest view it spoke of only, so that a correct sender is
/// never displaced and a faulty one displaces nobody but itself.
#[derive(Debug)]
pub(super) struct FutureViewBuffer {
    view: View,
    votes: Vec<Vote>,
    proposals: Vec<Proposal>,
}

impl Default for FutureViewBuffer {
    fn default() -> Self {
        Self {
            view: View::ZERO,
            votes: Vec::new(),
            proposals: Vec::new(),
        }
    }
}

impl FutureViewBuffer {
    /// Makes room for a message of `view`; false when the sender spoke of a later one before.
    fn turn_to(&mut self, view: View) -> bool {
        if view > self.view {
            self.view = view;
            self.votes.clear();
            self.proposals.clear();
        }
        view == self.view
    }

    /// Keeps a vote if there is room for it.
    pub(super) fn keep_vote(&mut self, vote: Vote, votes_max: usize) -> bool {
        let is_new = self.turn_to(vote.view()) && !self.votes.contains(&vote);
        let kept = is_new && self.votes.len() < votes_max;
        if kept {
            self.votes.push(vote);
        }
        kept
    }

    /// Keeps a proposal if there is room for it.
    pub(super) fn keep_proposal(&mut self, proposal: Proposal, proposals_max: usize) -> bool {
        let is_first = self.turn_to(proposal.view) && !self.proposals.iter().any(|p| p.seq == proposal.seq);
        let kept = is_first && self.proposals.len() < proposals_max;
        if kept {
            self.proposals.push(proposal);
        }
        kept
    }

    /// Takes out what is for `view`; what is for an earlier one is dropped.
    pub(super) fn take(&mut self, view: View) -> (Vec<Proposal>, Vec<Vote>) {
        if self.view > view {
            return (Vec::new(), Vec::new());
        }
        let taken = std::mem::take(self);
        if taken.view == view {
            (taken.proposals, taken.votes)
        } else {
            (Vec::new(), Vec::new())
        }
    }
}

impl Pbft {
    /// Whether `view` has not begun here.
    pub(super) fn is_to_come(&self, view: View) -> bool {
        view > self.view || (view == self.view && !self.active)
    }

    /// Whether a message for (view, seq) is kept until it may be looked at. A leader whose window has moved
    /// proposes up to a window beyond the others': what they dropped would come again only after a status or
    /// two, and their patience may not last so long.
    pub(super) fn is_early(&self, view: View, seq: SeqNo) -> bool {
        let is_ahead = seq > self.high() && seq <= self.high().plus(self.context.window);
        self.is_to_come(view) || (view == self.view && is_ahead && !active(Mutant::WatermarkUnchecked))
    }

    pub(super) fn keep_early_proposal(&mut self, from: NodeId, proposal: Proposal) -> Result<(), Rejection> {
        let reason = self.too_early(proposal.view);
        let kept = self.early[from.index()].keep_proposal(proposal, self.config.pipeline);
        if kept { Ok(()) } else { Err(reason) }
    }

    pub(super) fn keep_early_vote(&mut self, from: NodeId, vote: Vote) -> Result<(), Rejection> {
        let votes_max = 2 * self.context.window as usize;
        let reason = self.too_early(vote.view());
        let kept = self.early[from.index()].keep_vote(vote, votes_max);
        if kept { Ok(()) } else { Err(reason) }
    }

    /// Why what was said too early is not kept.
    fn too_early(&self, view: View) -> Rejection {
        match self.is_to_come(view) {
            true => Rejection::FutureView,
            false => Rejection::AboveWindow,
        }
    }

    /// Takes what waited for this view or for the window. What is still beyond the window is kept on.
    ///
    /// Not where they move: a record about a place must lie behind the record that brings the place into the
    /// window, or a restart takes it for one of a place above and drops it.
    pub(super) fn take_waiting(&mut self, now: Time, out: &mut Outbox) -> bool {
        if !std::mem::take(&mut self.has_moved) {
            return false;
        }
        self.install_backlog(out);
        if !self.active {
            return true;
        }
        for index in 0..self.early.len() {
            let from = NodeId::new(index as u16);
            let (proposals, votes) = self.early[index].take(self.view);
            for proposal in proposals {
                let (view, seq) = (proposal.view, proposal.seq);
                let result = self.try_proposal(now, from, proposal, out);
                Self::reject(from, view, seq, result, out);
            }
            for vote in votes {
                let result = self.try_vote(from, vote, out);
                Self::reject(from, vote.view(), vote.seq(), result, out);
            }
        }
        true
    }
}
