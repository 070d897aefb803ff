//! Who wants another view: soft words that bind nobody, so that no replica leaves its view alone.
//!
//! A replica that sent a VIEW-CHANGE votes in no earlier view any more. If it did so because it alone was cut
//! off from the leader for a while, it would be lost to the cluster until the others happen to change their
//! view. So a view is left in two steps, as a broadcast is delivered in Bracha's reliable broadcast
//! (Information and Computation 1987):
//!
//! - *Suspicion:* COMPLAINT ⟨w⟩ to all, w one more than our view. It is repeated while it holds, and
//!   withdrawn when it does not, with a status.
//! - *COMPLAINT or VIEW-CHANGE of f+1 others for views after ours:* one of them is correct; complain as well.
//! - *COMPLAINT or VIEW-CHANGE of q replicas, ourselves included, for w or later:* leave for w.
//! - *COMPLAINT of f+1 others for w+1 or later:* as their VIEW-CHANGE for w, which is what one of them that is
//!   correct has on disk: leave for w. Whoever was cut off for long is with the others in one step, and does
//!   not go through every view that they have left meanwhile.
//!
//! **All or none.** Whoever leaves has heard q complaints, f+1 of them of correct replicas, which everybody
//! hears: so all correct replicas complain, and all leave. Only a complaint that was withdrawn meanwhile
//! breaks this, and its consequence is repaired below.
//!
//! **Words do not feed on words.** Where f others complain, one more that comes and goes has each correct
//! replica say so to all, and each of these words may do the same elsewhere: without end, and ever more of
//! them. So only the first word of a replica is said at once; it is taken back when a status is due, and no
//! replica says more than two things to all in that time, whatever it hears.
//!
//! **A view is named only from the one before.** Nobody complains for more than one view after its own, and
//! only once its own is on disk. So q complaints for w say that q−f correct replicas have reached w−1 for
//! good (see [abstention](crate::smr::replica), which counts on it).
//!
//! **Who is alone in a later view comes back.** A VIEW-CHANGE cannot be withdrawn, but the others can follow
//! it: a peer whose valid VIEW-CHANGE waits for [`ALONE_PERIODS`] is a reason to complain. It costs its
//! signer an allowance that fills slowly, so that a liar gains a view change in minutes by it, and no more.

use std::time::Duration;

use crate::smr::protocol::{Allowance, Rate};
use crate::smr::types::{NodeId, Quorum, Time, View};

/// A peer waits in a later view for so many review periods before the others follow it.
pub(super) const ALONE_PERIODS: u32 = 4;
/// How many times a peer is followed at once, and how long it takes until it may be once more.
const FOLLOWED_AT_ONCE: u64 = 2;
const FOLLOWED_AGAIN: Duration = Duration::from_secs(120);
/// What the reason "slow or unfair" lasts, in review periods, without being renewed.
const REVIEW_PERIODS: u32 = 4;

/// Why this replica wants another view, and since when others do.
#[derive(Debug)]
pub(super) struct Complaints {
    /// Nothing was executed, or the view did not begin, for a timeout.
    stalled: bool,
    /// The leader was found slow or unfair, or left a peer alone: for so many periods still.
    reviewed: u32,
    /// By replica: the view it complains for; zero for none.
    heard: Vec<View>,
    /// By replica: the latest view that it has reached, by what it complained for.
    reached: Vec<View>,
    /// By replica: for how many periods it has waited in a later view.
    alone: Vec<u32>,
    /// By replica: how often it is followed, in seconds of its allowance.
    follow: Vec<Allowance>,
    /// The view we complained for last, as it was said; zero for none.
    pub(super) said: View,
}

impl Complaints {
    pub(super) fn new(n: usize) -> Self {
        let seconds = FOLLOWED_AGAIN.as_secs();
        let rate = Rate {
            burst: FOLLOWED_AT_ONCE * seconds,
            per_second: 1,
        };
        Self {
            stalled: false,
            reviewed: 0,
            heard: vec![View::ZERO; n],
            reached: vec![View::ZERO; n],
            alone: vec![0; n],
            follow: vec![Allowance::full(rate); n],
            said: View::ZERO,
        }
    }

    /// Nothing happened for a timeout.
    pub(super) fn on_stalled(&mut self) {
        self.stalled = true;
    }

    /// Whether that is why we complain.
    pub(super) fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Something was executed: what stalled goes on.
    pub(super) fn on_progress(&mut self) {
        self.stalled = false;
    }

    /// The leader was found slow or unfair.
    pub(super) fn on_bad_review(&mut self) {
        self.reviewed = REVIEW_PERIODS;
    }

    /// A review period ended; `waits` says of whom a valid VIEW-CHANGE for a later view than ours is here.
    pub(super) fn end_period(&mut self, now: Time, waits: impl Iterator<Item = bool>) {
        self.reviewed = self.reviewed.saturating_sub(1);
        for (node, waits) in waits.enumerate().take(self.alone.len()) {
            self.alone[node] = if waits { self.alone[node] + 1 } else { 0 };
            let is_long = self.alone[node] >= ALONE_PERIODS;
            if is_long && self.follow[node].take(now, FOLLOWED_AGAIN.as_secs()) {
                self.alone[node] = 0;
                self.on_bad_review();
            }
        }
    }

    /// Our view is another one: what we had against the last is over.
    pub(super) fn on_view_changed(&mut self) {
        self.stalled = false;
        self.reviewed = 0;
        self.said = View::ZERO;
        self.alone.fill(0);
    }

    /// A peer complains for a view, or takes back what it said.
    pub(super) fn on_complaint(&mut self, from: NodeId, view: View) {
        if let Some(heard) = self.heard.get_mut(from.index()) {
            *heard = view;
            let reached = &mut self.reached[from.index()];
            *reached = View::new(view.get().saturating_sub(1)).max(*reached);
        }
    }

    /// By replica: the latest view that it has reached for good if it is correct, by what it complained for.
    /// It stays so when the complaint is taken back.
    pub(super) fn reached(&self) -> &[View] {
        &self.reached
    }

    /// A peer's status says for which view it complains: what it took back is forgotten. Nothing is believed
    /// by it: a complaint waits for its sender's disk, and a status does not.
    pub(super) fn on_status(&mut self, from: NodeId, view: View) {
        if let Some(heard) = self.heard.get_mut(from.index()) {
            *heard = view.min(*heard);
        }
    }

    /// The view we complain for now: the one after ours, if we have a reason, or f+1 others have. `asked` is
    /// the latest view of which each replica's valid VIEW-CHANGE is here.
    pub(super) fn ours(&self, node: NodeId, view: View, quorum: Quorum, asked: &[View]) -> Option<View> {
        let has_reason = self.stalled || self.reviewed > 0;
        let others = self
            .wanted(asked)
            .enumerate()
            .filter(|(index, wanted)| *index != node.index() && *wanted > view);
        (has_reason || others.count() >= quorum.weak()).then(|| view.next())
    }

    /// The view that q replicas want at least, `ours` for ourselves, if it is later than `view`.
    pub(super) fn left_for(
        &self,
        node: NodeId,
        view: View,
        (quorum, ours): (Quorum, Option<View>),
        asked: &[View],
    ) -> Option<View> {
        let mut wanted: Vec<View> = self.wanted(asked).collect();
        if let (Some(wanted), Some(ours)) = (wanted.get_mut(node.index()), ours) {
            *wanted = ours;
        }
        wanted.sort_unstable_by(|a, b| b.cmp(a));
        let by_quorum = wanted.get(quorum.quorum() - 1).copied();
        by_quorum.filter(|by_quorum| *by_quorum > view)
    }

    /// By replica: the view it wants, by its complaint or its VIEW-CHANGE.
    fn wanted(&self, asked: &[View]) -> impl Iterator<Item = View> {
        self.heard
            .iter()
            .zip(asked)
            .map(|(heard, asked)| *heard.max(asked))
    }
}
