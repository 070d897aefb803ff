//! What a log transfer knows of one donor.

use std::collections::VecDeque;

use super::NAMED_MAX;
use crate::smr::types::{Digest, SeqNo, Time};

/// The batches a donor was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owed {
    pub first: SeqNo,
    pub last: SeqNo,
    pub asked: Time,
    /// By then it has to send some of them.
    pub until: Time,
}

impl Owed {
    pub fn has(&self, seq: SeqNo) -> bool {
        self.first <= seq && seq <= self.last
    }
}

/// What is known of one donor.
#[derive(Debug, Default)]
pub(super) struct Donor {
    pub first: SeqNo,
    pub digests: VecDeque<Digest>,
    /// Its last answer was full, and it was not asked since.
    pub has_more: bool,
    pub owes: Option<Owed>,
    /// It has forgotten what was decided up to here, as it says.
    pub floor: SeqNo,
    /// It has answered since the transfer began.
    pub is_heard: bool,
    /// It did not send in time what it was asked for.
    pub is_slow: bool,
    pub banned: bool,
}

impl Donor {
    /// Whether it has forgotten what comes after this place.
    pub fn forgot(&self, delivered: SeqNo) -> bool {
        self.floor > delivered
    }

    pub fn is_usable(&self, delivered: SeqNo) -> bool {
        !self.banned && !self.forgot(delivered) && !self.digests.is_empty()
    }

    pub fn digest(&self, seq: SeqNo) -> Option<&Digest> {
        let place = (seq >= self.first).then(|| seq.since(self.first))?;
        self.digests.get(place as usize)
    }

    /// It names digests from `first` on. They go on where its last ones ended, or begin nearer; what is
    /// nearer is needed first.
    pub fn name(&mut self, delivered: SeqNo, first: SeqNo, digests: &[Digest]) {
        let passed = delivered.next().since(first).min(digests.len() as u64) as usize;
        let (first, digests) = (first.plus(passed as u64), &digests[passed..]);
        let end = self.first.plus(self.digests.len() as u64);
        if digests.is_empty() {
            return;
        }
        if self.digests.is_empty() || first < self.first {
            self.first = first;
            self.digests.clear();
            self.digests.extend(digests);
        } else if first <= end {
            let known = end.since(first) as usize;
            self.digests.extend(digests.iter().skip(known));
        }
        self.digests.truncate(NAMED_MAX);
    }
}
