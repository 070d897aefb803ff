//! Whose batches are looked at, and how many of their signatures are verified.
//!
//! Sending a batch of frames with false signatures costs its sender next to nothing, and verifying them a core of ours. The leader of
//! the current view proposes as much as it likes: if nothing comes of it, it is replaced. Anybody else may send batches that
//! this replica asked for, by digest; those that are verified beyond that fit an allowance that fills up with time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::messages::archived::ArchivedPrePrepare;
use crate::messages::{BatchError, Checked, SystemMessage};
use crate::types::{NodeId, Time, View};

/// Signatures a second that are verified for all peers together beside what is expected: less than a core can.
const RATE: u64 = 40_000;
/// How many of them of one peer at once, after a pause: what answers a question for the batches of a new view.
const BURST: u64 = 32_768;

/// What consensus expects of other replicas. Copies are one: consensus tells, every preprocess role knows.
#[derive(Debug, Clone, Default)]
pub struct Expectations(Arc<Expected>);

#[derive(Debug, Default)]
struct Expected {
    view: AtomicU64,
    transfers: AtomicBool,
}

impl Expectations {
    /// Consensus is in this view; `transfers` says whether it asks for decisions that it lacks.
    pub fn tell(&self, view: View, transfers: bool) {
        // Whoever sees it late takes a batch on account of the allowance.
        self.0.view.store(view.get(), Ordering::Relaxed);
        self.0.transfers.store(transfers, Ordering::Relaxed);
    }

    fn view(&self) -> View {
        View::new(self.0.view.load(Ordering::Relaxed))
    }

    fn transfers(&self) -> bool {
        self.0.transfers.load(Ordering::Relaxed)
    }
}

/// The allowances of every peer at one preprocess role.
#[derive(Debug)]
pub struct ProposalGate {
    expectations: Expectations,
    /// By peer: signatures that may still be verified, and since when that is so.
    left: Vec<(u64, Time)>,
}

impl ProposalGate {
    /// For n replicas.
    #[must_use]
    pub fn new(n: usize, expectations: Expectations) -> Self {
        Self {
            expectations,
            left: vec![(BURST, Time::START); n],
        }
    }

    /// How many signatures of this message may be verified: a pre-prepare, or a batch that was perhaps asked for.
    ///
    /// # Errors
    /// [`BatchError::NotLeader`] when it proposes for a view that its sender does not lead: a faulty replica.
    pub fn admit(
        &mut self,
        now: Time,
        from: NodeId,
        checked: &Checked<SystemMessage>,
    ) -> Result<usize, BatchError> {
        let Some(view) = checked.pre_prepare_head().map(ArchivedPrePrepare::view) else {
            return Ok(0);
        };
        let is_free = match checked.is_batch_response() {
            true => self.expectations.transfers(),
            false if view.leader(self.left.len()) != from => return Err(BatchError::NotLeader),
            false => view == self.expectations.view(),
        };
        match is_free {
            true => Ok(usize::MAX),
            false => Ok(self.left_of(now, from)),
        }
    }

    fn left_of(&mut self, now: Time, from: NodeId) -> usize {
        let rate = (RATE / self.left.len().max(1) as u64).max(1);
        let Some((left, at)) = self.left.get_mut(from.index()) else {
            return 0;
        };
        let since = now.since(*at).min(Duration::from_secs(60));
        let earned = since.as_micros() as u64 * rate / 1_000_000;
        if earned > 0 {
            *left = (*left + earned).min(BURST);
            *at = now;
        }
        *left as usize
    }

    /// So many signatures of what a peer sent were verified, of so many that might have been.
    pub fn charge(&mut self, from: NodeId, verified: usize, admitted: usize) {
        if let Some((left, _)) = self.left.get_mut(from.index()).filter(|_| admitted < usize::MAX) {
            *left = left.saturating_sub(verified as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{Batch, PrePrepare, ViewTransferMessage};
    use crate::types::{ClusterId, Epoch, SeqNo};

    const CLUSTER: ClusterId = ClusterId::from_bytes([3; 16]);

    fn proposal(view: u64) -> bytes::Bytes {
        PrePrepare::encode(
            CLUSTER,
            Epoch::ZERO,
            View::new(view),
            SeqNo::new(1),
            &Batch::null(),
        )
    }

    fn response(view: u64) -> bytes::Bytes {
        let (view, seq) = (View::new(view), SeqNo::new(1));
        ViewTransferMessage::batch(CLUSTER, Epoch::ZERO, view, seq, &Batch::null())
    }

    fn admit(
        gate: &mut ProposalGate,
        ms: u64,
        from: u16,
        message: &bytes::Bytes,
    ) -> Result<usize, BatchError> {
        let checked = Checked::<SystemMessage>::body_of(message).unwrap();
        let now = Time::START.after(Duration::from_millis(ms));
        gate.admit(now, NodeId::new(from), &checked)
    }

    #[test]
    fn only_the_leader_proposes_and_in_its_view_as_much_as_it_likes() {
        let expectations = Expectations::default();
        let mut gate = ProposalGate::new(4, expectations.clone());
        expectations.tell(View::new(5), false);
        assert_eq!(admit(&mut gate, 0, 1, &proposal(5)), Ok(usize::MAX));
        assert_eq!(admit(&mut gate, 0, 2, &proposal(5)), Err(BatchError::NotLeader));
        // Perhaps the view begins here a little later than there.
        let first = admit(&mut gate, 0, 2, &proposal(6)).unwrap();
        assert_eq!(first, BURST as usize);
        gate.charge(NodeId::new(2), first, first);
        assert_eq!(admit(&mut gate, 0, 2, &proposal(6)), Ok(0));
        expectations.tell(View::new(6), false);
        assert_eq!(admit(&mut gate, 0, 2, &proposal(6)), Ok(usize::MAX));
    }

    #[test]
    fn batches_that_nobody_asked_for_are_verified_in_part_and_those_of_a_transfer_all() {
        let expectations = Expectations::default();
        let mut gate = ProposalGate::new(4, expectations.clone());
        let (mut verified, message) = (0, response(0));
        for ms in 0..1000 {
            let admitted = admit(&mut gate, ms, 3, &message).unwrap();
            let checked = admitted.min(1000);
            gate.charge(NodeId::new(3), checked, admitted);
            verified += checked as u64;
        }
        let most = BURST + RATE / 4;
        assert!((most - 100..=most).contains(&verified), "{verified} of {most}");
        let other = admit(&mut gate, 1000, 1, &message);
        assert_eq!(other, Ok(BURST as usize), "it costs nobody else anything");
        expectations.tell(View::ZERO, true);
        assert_eq!(admit(&mut gate, 1000, 3, &message), Ok(usize::MAX));
    }
}
