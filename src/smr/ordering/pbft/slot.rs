use std::sync::Arc;

use crate::smr::messages::lengths::PRE_PREPARED_MAX;
use crate::smr::messages::{Batch, Phase, Proposal, SlotDigest, SlotStatus};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::Rejection;
use crate::smr::types::{Digest, NodeId, SeqNo, Signers, View};

/// How many pre-prepared digests and bodies of one place are kept: as many as a view change may carry. The
/// oldest goes, but never the one that was prepared last.
pub(super) const KEPT_PER_SLOT: usize = PRE_PREPARED_MAX;

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
        if active(Mutant::MessagesCounted)
            && self.voted.has(from)
            && let Some((_, signers)) = self.by_digest.iter_mut().find(|(d, _)| *d == digest)
        {
            let nobody = (0..64)
                .rev()
                .map(NodeId::new)
                .find(|nobody| !signers.has(*nobody));
            signers.add(nobody.unwrap_or(from));
            return Ok(());
        }
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

/// One batch of Q.
#[derive(Debug, Clone, Copy)]
struct Accepted {
    digest: Digest,
    /// The latest view in which it was pre-prepared.
    view: View,
    /// Whether a record about its place says so: it lasts as long as the place matters.
    logged: bool,
}

/// Q of one place: every batch pre-prepared there, with the latest view.
#[derive(Debug, Default)]
pub(super) struct PrePrepared(Vec<Accepted>);

impl PrePrepared {
    /// Adds a batch. If there are too many, the oldest goes, but not `needed`.
    pub(super) fn add(&mut self, view: View, digest: Digest, logged: bool, needed: Option<Digest>) {
        if let Some(known) = self.0.iter_mut().find(|known| known.digest == digest) {
            match view.cmp(&known.view) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => known.logged |= logged,
                std::cmp::Ordering::Greater => (known.view, known.logged) = (view, logged),
            }
            return;
        }
        if self.0.len() >= KEPT_PER_SLOT {
            let oldest = (0..self.0.len())
                .filter(|&at| Some(self.0[at].digest) != needed)
                .min_by_key(|&at| self.0[at].view);
            if let Some(oldest) = oldest {
                self.0.remove(oldest);
            }
        }
        self.0.push(Accepted { digest, view, logged });
    }

    /// Its entries, ascending.
    pub(super) fn placed(&self, seq: SeqNo) -> Vec<SlotDigest> {
        let entries = self.0.iter();
        let mut placed: Vec<SlotDigest> = entries
            .map(|entry| SlotDigest::new(seq, &entry.digest, entry.view))
            .collect();
        placed.sort_unstable();
        placed
    }

    /// Those that no record about the place shows.
    pub(super) fn unlogged(&self, seq: SeqNo) -> impl Iterator<Item = SlotDigest> + '_ {
        let unlogged = self.0.iter().filter(|entry| !entry.logged);
        unlogged.map(move |entry| SlotDigest::new(seq, &entry.digest, entry.view))
    }
}

/// A batch whose frames are at hand.
#[derive(Debug, Clone)]
struct Body {
    proposal: Arc<Proposal>,
    /// Whether the log has it.
    logged: bool,
}

/// What is known about one sequence number inside the window.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// The current view's batch, its frames at hand.
    pub(super) proposal: Option<Arc<Proposal>>,
    /// The digest with which the current view began here (its NEW-VIEW chose it).
    pub(super) chosen: Option<Digest>,
    pub(super) prepares: Tally,
    pub(super) commits: Tally,
    /// Others' word that a digest was decided here. Outlives the view: what was decided stays decided.
    pub(super) decisions: Tally,
    /// We answer for the proposal: logged it, and prepared it (or proposed it).
    pub(super) accepted: bool,
    pub(super) prepared: bool,
    /// What was committed here. Outlives the view.
    pub(super) outcome: Option<Digest>,
    /// What the current view's fresh proposal counts as while its place is not decided.
    pub(super) undecided_bytes: usize,
    /// P: the last view in which a batch prepared here, and its digest. Outlives the view.
    last_prepared: Option<(View, Digest)>,
    /// Q: every digest pre-prepared here, with the latest view. Outlives the view.
    pre_prepared: PrePrepared,
    /// Batches of earlier views and fetched ones.
    bodies: Vec<Body>,
}

impl Slot {
    pub(super) fn tally(&mut self, phase: Phase) -> &mut Tally {
        match phase {
            Phase::Prepare => &mut self.prepares,
            Phase::Commit => &mut self.commits,
        }
    }

    /// Marks the proposal as ours to answer for: it enters the Q set. `logged` says whether a record about
    /// the place says so.
    pub(super) fn accept(&mut self, view: View, digest: Digest, logged: bool) {
        self.accepted = true;
        self.pre_prepare(view, digest, logged);
    }

    /// The batch enters the Q set.
    pub(super) fn pre_prepare(&mut self, view: View, digest: Digest, logged: bool) {
        let prepared = self.last_prepared.map(|(_, digest)| digest);
        self.pre_prepared.add(view, digest, logged, prepared);
    }

    /// So do those of a place that comes into the window.
    pub(super) fn take_pre_prepared(&mut self, ahead: &PrePrepared) {
        for entry in &ahead.0 {
            self.pre_prepare(entry.view, entry.digest, entry.logged);
        }
    }

    /// Marks the proposal as prepared: it enters the P set.
    pub(super) fn prepare(&mut self, view: View, digest: Digest) {
        self.prepared = true;
        self.note_prepared(view, digest);
    }

    /// It was prepared in this view, which may be an earlier one: it enters the P set.
    pub(super) fn note_prepared(&mut self, view: View, digest: Digest) {
        if self.last_prepared.is_none_or(|(last, _)| last <= view) {
            self.last_prepared = Some((view, digest));
        }
    }

    /// P's entry.
    pub(super) fn last_prepared(&self) -> Option<(View, Digest)> {
        self.last_prepared
    }

    /// Q's entries.
    pub(super) fn pre_prepared(&self) -> &PrePrepared {
        &self.pre_prepared
    }

    /// Keeps a batch that is not the current view's proposal.
    pub(super) fn keep(&mut self, proposal: Arc<Proposal>, logged: bool) {
        if self.body(&proposal.batch.digest).is_some() {
            return;
        }
        if self.bodies.len() >= KEPT_PER_SLOT {
            let needed = [self.outcome, self.chosen, self.last_prepared.map(|(_, d)| d)];
            let spare = self
                .bodies
                .iter()
                .position(|body| !needed.contains(&Some(body.proposal.batch.digest)));
            self.bodies.remove(spare.unwrap_or(0));
        }
        self.bodies.push(Body { proposal, logged });
    }

    /// The batch with this digest, if it is at hand.
    pub(super) fn body(&self, digest: &Digest) -> Option<&Arc<Proposal>> {
        let bodies = self.bodies.iter().map(|body| &body.proposal);
        self.proposal
            .iter()
            .chain(bodies)
            .find(|p| p.batch.digest == *digest)
    }

    /// Whether the log has the batch with this digest. It need not have the null request.
    pub(super) fn is_logged(&self, digest: &Digest) -> bool {
        let in_log = |body: &Body| body.logged && body.proposal.batch.digest == *digest;
        let is_it = |proposal: &Arc<Proposal>| proposal.batch.digest == *digest;
        let accepted = self.accepted && self.proposal.as_ref().is_some_and(is_it);
        *digest == Digest::ZERO || accepted || self.bodies.iter().any(in_log)
    }

    /// The batch with this digest as a proposal for (view, seq); the null request is always at hand.
    pub(super) fn proposal_of(&self, view: View, seq: SeqNo, digest: &Digest) -> Option<Arc<Proposal>> {
        let (batch, message) = match self.body(digest) {
            Some(body) if body.view == view && body.seq == seq => return Some(body.clone()),
            Some(body) => (body.batch.clone(), body.message.clone()),
            None if *digest == Digest::ZERO => (Arc::new(Batch::null()), bytes::Bytes::new()),
            None => return None,
        };
        Some(Arc::new(Proposal {
            view,
            seq,
            batch,
            message,
            authentic: true,
        }))
    }

    /// The digest this slot waits for the frames of.
    pub(super) fn wanted(&self) -> Option<Digest> {
        [self.outcome, self.chosen]
            .into_iter()
            .flatten()
            .find(|digest| *digest != Digest::ZERO && self.body(digest).is_none())
    }

    /// What a status says of this slot.
    pub(super) fn status(&self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.proposal.is_some(), SlotStatus::PROPOSED)
            | bit(self.prepared, SlotStatus::PREPARED)
            | bit(self.outcome.is_some(), SlotStatus::COMMITTED)
    }

    /// Another view begins: its votes start from nothing; what was learnt in earlier ones stays.
    pub(super) fn begin_view(&mut self) {
        if let Some(proposal) = self.proposal.take() {
            let logged = self.accepted;
            self.keep(proposal, logged);
        }
        self.chosen = None;
        self.undecided_bytes = 0;
        self.prepares.clear();
        self.commits.clear();
        self.accepted = false;
        self.prepared = false;
    }

    /// Forgets everything; the allocations stay.
    pub(super) fn clear(&mut self) {
        self.begin_view();
        self.decisions.clear();
        self.outcome = None;
        self.last_prepared = None;
        self.pre_prepared.0.clear();
        self.bodies.clear();
    }
}
