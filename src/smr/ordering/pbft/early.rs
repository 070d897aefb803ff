use super::Pbft;
use crate::smr::messages::{Proposal, Vote};
use crate::smr::protocol::{Effect, Outbox, Rejected};
use crate::smr::types::{NodeId, View};

/// What arrived of one sender for a view that has not begun here: of the latest such view only, so that a
/// correct sender is never displaced and a faulty one displaces nobody but itself.
#[derive(Debug)]
pub(super) struct Early {
    view: View,
    votes: Vec<Vote>,
    proposals: Vec<Proposal>,
}

impl Default for Early {
    fn default() -> Self {
        Self {
            view: View::ZERO,
            votes: Vec::new(),
            proposals: Vec::new(),
        }
    }
}

impl Early {
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
        let kept = self.turn_to(vote.view()) && self.votes.len() < votes_max;
        if kept {
            self.votes.push(vote);
        }
        kept
    }

    /// Keeps a proposal if there is room for it.
    pub(super) fn keep_proposal(&mut self, proposal: Proposal, proposals_max: usize) -> bool {
        let kept = self.turn_to(proposal.view) && self.proposals.len() < proposals_max;
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

    /// Takes what arrived for this view before it began.
    pub(super) fn take_early(&mut self, out: &mut Outbox) {
        for index in 0..self.early.len() {
            let from = NodeId::new(index as u16);
            let (proposals, votes) = self.early[index].take(self.view);
            for proposal in proposals {
                let (view, seq) = (proposal.view, proposal.seq);
                let result = self.try_proposal(from, proposal, out);
                Self::reject(from, view, seq, result, out);
            }
            for vote in votes {
                if let Err(reason) = self.try_vote(from, vote, out) {
                    out.push(Effect::Rejected(Rejected {
                        from,
                        view: vote.view(),
                        seq: vote.seq(),
                        reason,
                    }));
                }
            }
        }
    }
}
