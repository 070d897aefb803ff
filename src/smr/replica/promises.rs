//! What binds this replica waits here until the log holds what it follows from, and nowhere else.
//!
//! What the ordering protocol says of its own waits once more: that of a turn leaves together.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::smr::messages::Proposal;
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{LogCut, Recipients, When};
use crate::smr::types::{Lsn, SeqNo};

/// An effect that waits for the disk.
pub(super) enum Held {
    Send { to: Recipients, message: Bytes },
    SendTogether(Bytes),
    Decide(Arc<Proposal>),
    CutLog(LogCut),
    AbstentionOver,
    EpochEnded,
    Install(SeqNo),
}

/// How far the log is, and what waits for it.
pub(super) struct Promises {
    /// Effects in the order of the log positions they wait for.
    held: VecDeque<(Lsn, Held)>,
    /// While so many wait, there is no room for more that others lead to.
    held_max: usize,
    /// The next position the log will be given; all below `durable_end` are on disk.
    logged_end: Lsn,
    durable_end: Lsn,
    /// What the ordering protocol says in this turn.
    together: Vec<Bytes>,
}

impl Promises {
    /// Nothing waits, and the log continues at `next_lsn`.
    pub fn new(held_max: usize, next_lsn: Lsn) -> Self {
        Self {
            held: VecDeque::new(),
            held_max,
            logged_end: next_lsn,
            durable_end: next_lsn,
            together: Vec::new(),
        }
    }

    /// What was found in the log is on disk, and it continues at `next_lsn`.
    pub fn resume(&mut self, next_lsn: Lsn) {
        self.logged_end = next_lsn;
        self.durable_end = next_lsn;
    }

    /// The next position the log will be given.
    pub fn logged_end(&self) -> Lsn {
        self.logged_end
    }

    /// The log was given a record.
    pub fn on_logged(&mut self, lsn: Lsn) {
        self.logged_end = lsn.next();
    }

    /// The log is on disk up to, but not including, `end`.
    pub fn on_durable(&mut self, end: Lsn) {
        debug_assert!(
            end <= self.logged_end,
            "the log is durable only where something was logged"
        );
        self.durable_end = self.durable_end.max(end);
    }

    /// Takes the next effect that needs not wait any more.
    pub fn take_durable(&mut self) -> Option<Held> {
        let is_durable = |(lsn, _): &(Lsn, Held)| *lsn < self.durable_end;
        let has_one = self.held.front().is_some_and(is_durable);
        let next = has_one.then(|| self.held.pop_front())?;
        next.map(|(_, held)| held)
    }

    /// Once everything is on disk that was logged until now.
    pub fn when_all_is_durable(&self) -> When {
        match self.logged_end {
            Lsn::ZERO => When::Now,
            end => When::Durable(end.minus(1)),
        }
    }

    /// Once the last record is on disk: there is one.
    pub fn when_last_is_durable(&self) -> When {
        When::Durable(self.logged_end.minus(1))
    }

    /// Holds an effect back until then; given back if it needs not wait.
    pub fn hold(&mut self, when: When, held: Held) -> Option<Held> {
        match when {
            When::Durable(lsn) if lsn >= self.durable_end => self.held.push_back((lsn, held)),
            When::DurableIfRoom(lsn) if lsn >= self.durable_end => {
                // Half of the room is for what is said for the first time.
                if self.has_room() || active(Mutant::DiskRoomIgnored) {
                    self.held.push_back((lsn, held));
                }
            }
            When::Now | When::Durable(_) | When::DurableIfRoom(_) => return Some(held),
        }
        None
    }

    /// How many effects wait for the disk.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether no more than half of the room is used: what could wait elsewhere need not.
    pub fn has_room(&self) -> bool {
        self.held.len() < self.held_max / 2
    }

    /// Whether the disk does not keep up.
    pub fn is_full(&self) -> bool {
        self.held.len() >= self.held_max && !active(Mutant::DiskRoomIgnored)
    }

    /// This may leave at the end of the turn.
    pub fn say_together(&mut self, message: Bytes) {
        self.together.push(message);
    }

    /// What may leave.
    pub fn take_together(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.together)
    }
}
