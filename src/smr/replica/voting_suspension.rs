//! Abstention: a replica whose log was damaged may have forgotten what it promised. Until nothing of that
//! matters any more it says nothing that binds it.
//!
//! It listens, decides what a quorum of others decides, executes, answers clients and has what it lacks
//! transferred. It sends no vote, no proposal, no view change, no new view and no checkpoint, and asks for no
//! view of its own accord.
//!
//! **What it may have promised.** Let C be its last stable checkpoint and W the last view it asked for, both
//! forgotten.
//! - *Places:* nothing beyond C + the ordering protocol's span. A quorum signed C, so q−f−1 correct others had executed it. Any q
//!   of the others hold at least q−f correct ones; (q−f−1) + (q−f) > n−1−f, so one of those is among any q.
//!   What the q say now is no less than what they had then: C is at most the largest of it.
//! - *Views:* whoever asks for W was asked by q replicas that complain for it or a later one, itself
//!   included, each correct one from the view before, which it had on disk; or it follows f+1 others that
//!   asked for W, of which the first correct one came in the first way. So q−f−1 correct others had reached
//!   W−1 for good, and W is at most one more than the largest view that any q of the others name now. Where
//!   the log that is left says more exactly what W is, that counts.
//!
//! **Events**
//! - *A status of a peer:* the least it has said since the start is kept; for a correct one every word is
//!   large enough.
//! - *q others have spoken:* the bounds are known.
//! - *Decided and stable up to the bound of places, and a view no earlier than the bound of views begins, or
//!   is asked for by f+1 others:* the abstention ends. What is said from then on is about places that were
//!   never spoken of, in views that no forgotten view change speaks against; a view change now made carries
//!   nothing forgotten, since a stable checkpoint covers it.
//! - *The log holds, durably, what ended it:* the mark on disk goes. Until then a restart abstains again.
//!
//! **What it costs.** The replica counts as one of the f faulty ones until the end, and so does whoever keeps
//! it from ending by naming places or views that nobody has reached.
//!
//! Messages not sent are messages lost, which is always safe; all the rest is about when to begin again.
//!
//! Assumption: what arrives was sent after this replica started: links do not outlive a process.

use std::time::Duration;

use super::promises::Held;
use super::{Replica, Stack};
use crate::smr::messages::Status;
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{Timer, When};
use crate::smr::types::{NodeId, Quorum, SeqNo, Time, View};
use crate::smr::view_transfer::ViewTransferProtocol;

/// Timers that would ask for a view are put off by so much while a replica abstains.
pub(super) const PUT_OFF: Duration = Duration::from_millis(500);

/// Whether a replica takes part in votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Participation {
    /// It does.
    Full,
    /// It does not, because it may have forgotten what it promised.
    Abstaining {
        /// How many others have said where they are.
        heard: usize,
        /// How many have to.
        needed: usize,
        /// It votes again after this place has been passed by a stable checkpoint, in this view or a later
        /// one.
        until: Option<(SeqNo, View)>,
    },
}

impl std::fmt::Display for Participation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("voting"),
            Self::Abstaining {
                until: Some((seq, view)),
                ..
            } => write!(f, "abstaining until checkpoint {seq} and view {view}"),
            Self::Abstaining { heard, needed, .. } => {
                write!(f, "abstaining, heard {heard} of {needed} others")
            }
        }
    }
}

/// Where the log that is left says that a replica's promises ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostPromises {
    /// The last view it may have asked for, if that is known.
    pub view: Option<View>,
}

/// What a peer has said at least since this replica started.
#[derive(Debug, Clone, Copy)]
struct Reached {
    seq: SeqNo,
    view: View,
}

#[derive(Debug)]
pub(super) struct VotingSuspension {
    forgotten: LostPromises,
    /// How many places after its stable checkpoint a replica makes promises about.
    span: u64,
    needed: usize,
    /// By peer.
    reached: Vec<Option<Reached>>,
}

impl VotingSuspension {
    pub fn new(quorum: Quorum, span: u64, forgotten: LostPromises) -> Self {
        Self {
            forgotten,
            span,
            needed: quorum.quorum(),
            reached: vec![None; quorum.n()],
        }
    }

    pub fn on_status(&mut self, from: NodeId, status: &Status) {
        let Some(known) = self.reached.get_mut(from.index()) else {
            return;
        };
        let said = Reached {
            seq: SeqNo::new(status.decided.max(status.stable)),
            view: View::new(status.view),
        };
        let least = known.map_or(said, |known| Reached {
            seq: known.seq.min(said.seq),
            view: known.view.min(said.view),
        });
        *known = Some(least);
    }

    /// What has to be passed by a stable checkpoint, and the first view to vote in.
    fn bounds(&self) -> Option<(SeqNo, View)> {
        let heard = || self.reached.iter().flatten();
        if heard().count() < self.needed {
            return None;
        }
        let seq = heard().map(|reached| reached.seq).max()?;
        let view = heard().map(|reached| reached.view.next()).max()?;
        let view = self.forgotten.view.map_or(view, |known| known.min(view));
        Some((seq.plus(self.span), view))
    }

    /// Whether nothing forgotten matters to a replica that has come so far, in `view`.
    pub fn is_over(&self, passed: SeqNo, view: View) -> bool {
        self.bounds().is_some_and(|(seq, first)| {
            (passed >= seq || active(Mutant::AbstentionSlotsForgotten)) && view >= first
        })
    }

    pub fn participation(&self) -> Participation {
        Participation::Abstaining {
            heard: self.reached.iter().flatten().count(),
            needed: self.needed,
            until: self.bounds(),
        }
    }

    /// Whether this is not said: it binds.
    pub fn suppresses(when: When) -> bool {
        when != When::Now && !active(Mutant::AbstentionIgnored)
    }

    /// When a timer is looked at instead, if it would have the replica ask for a view.
    pub fn defers_timer(timer: Timer, now: Time) -> Option<Time> {
        match timer {
            Timer::Progress | Timer::ViewChange | Timer::LeaderReview => Some(now.after(PUT_OFF)),
            Timer::Status | Timer::LogTransfer | Timer::StateTransfer | Timer::Donor | Timer::Repair => None,
        }
    }
}

impl<S: Stack> Replica<S> {
    /// Has this replica say nothing that binds it until what it has forgotten does not matter any more.
    /// Called before [`resume`](Self::resume).
    pub fn abstain(&mut self, forgotten: LostPromises) {
        let span = self.ordering.promise_span();
        self.abstention = Some(VotingSuspension::new(self.settings.quorum, span, forgotten));
    }

    /// Whether it takes part in votes.
    #[must_use]
    pub fn participation(&self) -> Participation {
        self.abstention
            .as_ref()
            .map_or(Participation::Full, VotingSuspension::participation)
    }

    /// Ends the abstention if nothing forgotten matters in `view`, which begins or is asked for by f+1
    /// others.
    pub(super) fn ends_abstention(&mut self, view: View) -> bool {
        // Votes may be about any place after what is both stable and decided.
        let passed = self.ordering.stable().min(self.ordering.decided());
        let has_state = !self.supply.awaits_state();
        let is_over = |abstention: &mut VotingSuspension| has_state && abstention.is_over(passed, view);
        let ended = self.abstention.take_if(is_over);
        if let Some((bound, _)) = ended.as_ref().and_then(VotingSuspension::bounds) {
            // What it has forgotten that it executed lies before that.
            self.reads.may_have_answered(bound);
        }
        ended.is_some()
    }

    /// In a view that has begun, the end may come with a checkpoint.
    pub(super) fn consider_abstention(&mut self) {
        if self.abstention.is_some() && self.view_transfer.is_active() {
            let ended = self.ends_abstention(self.ordering.view());
            self.mark_abstention_over(ended);
        }
    }

    /// Once the log holds what ended the abstention, a restart need not abstain any more.
    pub(super) fn mark_abstention_over(&mut self, ended: bool) {
        if ended {
            let when = match active(Mutant::AbstentionMarkEarly) {
                true => When::Now,
                false => self.promises.when_last_is_durable(),
            };
            self.hold(when, Held::AbstentionOver);
        }
    }
}

#[cfg(test)]
mod replica_tests;

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn status(view: u64, decided: u64) -> Status {
        Status {
            view,
            active: true,
            stable: decided / 100 * 100,
            decided,
            view_changes: Vec::new(),
            asks: false,
            slots: Vec::new(),
            disputed: Vec::new(),
            complaint: 0,
        }
    }

    fn of_four(view: Option<u64>) -> VotingSuspension {
        let view = view.map(View::new);
        VotingSuspension::new(Quorum::of(4).unwrap(), 200, LostPromises { view })
    }

    fn until(abstention: &VotingSuspension) -> Option<(u64, u64)> {
        abstention.bounds().map(|(seq, view)| (seq.get(), view.get()))
    }

    #[test]
    fn the_bounds_are_known_when_a_quorum_of_others_has_spoken() {
        let mut abstention = of_four(None);
        abstention.on_status(NodeId::new(0), &status(3, 1000));
        abstention.on_status(NodeId::new(1), &status(3, 1010));
        abstention.on_status(NodeId::new(1), &status(9, 9000));
        assert_eq!(until(&abstention), None, "one that speaks twice is one");
        assert!(!abstention.is_over(SeqNo::new(1 << 60), View::new(1 << 60)));
        abstention.on_status(NodeId::new(2), &status(4, 500));
        assert_eq!(
            until(&abstention),
            Some((1210, 5)),
            "the most of the least that each said"
        );
    }

    #[test]
    fn what_one_says_later_only_lowers_what_it_said() {
        let mut abstention = of_four(None);
        for peer in 0..3 {
            abstention.on_status(NodeId::new(peer), &status(u64::from(peer), 1000));
        }
        abstention.on_status(NodeId::new(2), &status(1 << 40, 1 << 40));
        assert_eq!(until(&abstention), Some((1200, 3)));
        abstention.on_status(NodeId::new(2), &status(1, 900));
        assert_eq!(until(&abstention), Some((1200, 2)));
    }

    #[test]
    fn places_and_view_have_to_be_passed_both() {
        let mut abstention = of_four(None);
        for peer in 0..3 {
            abstention.on_status(NodeId::new(peer), &status(7, 1000));
        }
        let is_over = |seq, view| abstention.is_over(SeqNo::new(seq), View::new(view));
        assert!(is_over(1200, 8));
        assert!(!is_over(1199, 8), "a place it may have voted on is not covered");
        assert!(!is_over(1200, 7), "it may have asked for view 8 alone");
    }

    #[test]
    fn a_log_that_tells_the_view_makes_a_view_change_unneeded() {
        let mut abstention = of_four(Some(7));
        for peer in 0..3 {
            abstention.on_status(NodeId::new(peer), &status(7, 1000));
        }
        assert_eq!(until(&abstention), Some((1200, 7)));
    }

    #[test]
    fn what_binds_is_withheld_and_what_does_not_is_said() {
        use crate::smr::types::Lsn;
        assert!(VotingSuspension::suppresses(When::Durable(Lsn::ZERO)));
        assert!(VotingSuspension::suppresses(When::DurableIfRoom(Lsn::ZERO)));
        assert!(!VotingSuspension::suppresses(When::Now));
    }
}
