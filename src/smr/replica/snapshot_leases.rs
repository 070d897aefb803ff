//! Snapshots that are kept for peers, however many newer ones there are: so a transfer comes to its end
//! however fast checkpoints follow one another.
//!
//! **Events**
//! - *A peer is offered snapshots:* the newest [`OFFERED_HELD`] of them are kept until it asks for pieces of one
//!   that was offered, or for [`LOAN_IDLE`]. Checkpoints may come faster than its question.
//! - *It asks for pieces of a snapshot:* this one is lent to it until it has asked nothing of it for
//!   [`LOAN_IDLE`], or asks for another one, and at most for [`LOAN_MAX`].
//!
//! **What it costs.** A peer has one loan and one offer: a faulty one costs the room of two snapshots or of one,
//! for a while.

use std::time::Duration;

use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{NodeId, SeqNo, Time};

/// A snapshot is kept for a peer until it has asked nothing of it for so long, and at most so long in all.
const LOAN_IDLE: Duration = Duration::from_secs(10);
const LOAN_MAX: Duration = Duration::from_secs(30 * 60);
/// How many snapshots a peer was offered that are kept until it asks. Older ones that were offered are lent
/// to others.
const OFFERED_HELD: usize = 2;

/// A snapshot that a peer reads.
#[derive(Debug, Clone, Copy)]
struct SnapshotLease {
    seq: SeqNo,
    since: Time,
    /// When the peer asked last.
    asked: Time,
}

impl SnapshotLease {
    fn runs(&self, now: Time) -> bool {
        now.since(self.asked) < LOAN_IDLE && now.since(self.since) < LOAN_MAX
    }
}

/// What a peer was offered last, and what it reads.
#[derive(Debug, Clone)]
struct LeaseHolder {
    offered: Vec<SeqNo>,
    offered_at: Time,
    loan: Option<SnapshotLease>,
}

impl LeaseHolder {
    fn needed(&self, now: Time) -> impl Iterator<Item = SeqNo> {
        let is_fresh = now.since(self.offered_at) < LOAN_IDLE && !active(Mutant::HoldSkipped);
        let offered = self.offered.iter().copied().filter(move |_| is_fresh);
        let loan = self
            .loan
            .filter(|loan| loan.runs(now) && !active(Mutant::LoansIgnored));
        offered.chain(loan.map(|loan| loan.seq))
    }
}

/// What is kept for whom.
#[derive(Debug)]
pub(super) struct SnapshotLeases {
    /// By peer.
    borrowers: Vec<LeaseHolder>,
}

impl SnapshotLeases {
    pub fn new(n: usize) -> Self {
        let borrower = LeaseHolder {
            offered: Vec::new(),
            offered_at: Time::START,
            loan: None,
        };
        Self {
            borrowers: vec![borrower; n],
        }
    }

    /// A peer was offered these snapshots, the newest first.
    pub fn on_offered(&mut self, now: Time, to: NodeId, seqs: impl Iterator<Item = SeqNo>) {
        let seqs: Vec<SeqNo> = seqs.take(OFFERED_HELD).collect();
        let borrower = self.borrowers.get_mut(to.index());
        // Who is offered nothing goes on with what it was offered before.
        if let Some(borrower) = borrower.filter(|_| !seqs.is_empty()) {
            borrower.offered = seqs;
            borrower.offered_at = now;
        }
    }

    /// A peer asks for pieces of this snapshot.
    pub fn on_fetch(&mut self, now: Time, from: NodeId, seq: SeqNo) {
        let Some(borrower) = self.borrowers.get_mut(from.index()) else {
            return;
        };
        if borrower.offered.contains(&seq) {
            // It has chosen. A question about something else is one of an earlier attempt.
            borrower.offered.clear();
        }
        match &mut borrower.loan {
            Some(loan) if loan.seq == seq => loan.asked = now,
            loan => {
                *loan = Some(SnapshotLease {
                    seq,
                    since: now,
                    asked: now,
                });
            }
        }
    }

    /// The snapshots that peers need now.
    pub fn needed(&self, now: Time) -> impl Iterator<Item = SeqNo> {
        self.borrowers
            .iter()
            .flat_map(move |borrower| borrower.needed(now))
    }
}
