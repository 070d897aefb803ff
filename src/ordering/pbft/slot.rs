use std::sync::Arc;

use crate::messages::{Phase, Proposal};
use crate::protocol::Rejection;
use crate::types::{Digest, NodeId, Signers, View};

/// The votes of one phase for one slot: the first of each sender, grouped by digest.
#[derive(Debug, Default)]
pub(super) struct Tally {
    voted: Signers,
    /// At most one entry per sender: bounded by n whatever arrives.
    by_digest: Vec<(Digest, Signers)>,
}

impl Tally {
    /// Counts a vote.
    pub(super) fn add(&mut self, from: NodeId, digest: Digest) -> Result<(), Rejection> {
        if self.voted.has(from) {
            let same = self
                .by_digest
                .iter()
                .any(|(d, signers)| *d == digest && signers.has(from));
            return Err(if same {
                Rejection::Duplicate
            } else {
                Rejection::ConflictingVote
            });
        }
        self.voted.add(from);
        match self.by_digest.iter_mut().find(|(d, _)| *d == digest) {
            Some((_, signers)) => {
                signers.add(from);
            }
            None => {
                let mut signers = Signers::NONE;
                signers.add(from);
                self.by_digest.push((digest, signers));
            }
        }
        Ok(())
    }

    /// How many distinct replicas voted for `digest`.
    pub(super) fn count(&self, digest: &Digest) -> usize {
        self.by_digest
            .iter()
            .find(|(d, _)| d == digest)
            .map_or(0, |(_, signers)| signers.count())
    }

    fn clear(&mut self) {
        self.voted = Signers::NONE;
        self.by_digest.clear();
    }
}

/// What is known about one sequence number inside the window.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The leader's proposal in the current view.
    pub(super) proposal: Option<Arc<Proposal>>,
    pub(super) prepares: Tally,
    pub(super) commits: Tally,
    /// We answer for the proposal: logged it, and prepared it (or proposed it).
    pub(super) accepted: bool,
    pub(super) prepared: bool,
    pub(super) committed: bool,
    /// P: the last view in which a batch prepared here, and its digest. Outlives the view.
    last_prepared: Option<(View, Digest)>,
    /// Q: every digest pre-prepared here, with the latest view. Outlives the view.
    pre_prepared: Vec<(Digest, View)>,
}

impl Slot {
    pub(super) fn tally(&mut self, phase: Phase) -> &mut Tally {
        match phase {
            Phase::Prepare => &mut self.prepares,
            Phase::Commit => &mut self.commits,
        }
    }

    /// Marks the proposal as ours to answer for: it enters the Q set.
    pub(super) fn accept(&mut self, view: View, digest: Digest) {
        self.accepted = true;
        match self.pre_prepared.iter_mut().find(|(d, _)| *d == digest) {
            Some((_, latest)) => *latest = view,
            None => self.pre_prepared.push((digest, view)),
        }
    }

    /// Marks the proposal as prepared: it enters the P set.
    pub(super) fn prepare(&mut self, view: View, digest: Digest) {
        self.prepared = true;
        self.last_prepared = Some((view, digest));
    }

    /// Forgets everything; the allocations stay.
    pub(super) fn clear(&mut self) {
        self.proposal = None;
        self.prepares.clear();
        self.commits.clear();
        self.accepted = false;
        self.prepared = false;
        self.committed = false;
        self.last_prepared = None;
        self.pre_prepared.clear();
    }
}
