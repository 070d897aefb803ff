use std::collections::VecDeque;

use super::Dice;
use crate::protocol::Record;
use crate::types::{Lsn, Time};

/// A replica's disk: takes records in order and acknowledges them, in order, some time later. Group commit: what
/// arrives during a sync waits for the next one.
///
/// A crash loses what was not acknowledged, except for a prefix of it that had reached the platter.
#[derive(Debug)]
pub struct SimDisk {
    sync_us: (u64, u64),
    dice: Dice,
    kept: Vec<Record>,
    syncing: VecDeque<(Lsn, Record)>,
    waiting: VecDeque<(Lsn, Record)>,
    lost: usize,
    /// Until when syncs take so many times as long.
    slow: (Time, u64),
    /// Until when there is no room: no sync ends before.
    full_until: Time,
}

impl SimDisk {
    /// An empty disk whose syncs take between two numbers of microseconds.
    #[must_use]
    pub fn new(sync_us: (u64, u64), dice: Dice) -> Self {
        Self {
            sync_us,
            dice,
            kept: Vec::new(),
            syncing: VecDeque::new(),
            waiting: VecDeque::new(),
            lost: 0,
            slow: (Time::START, 1),
            full_until: Time::START,
        }
    }

    /// Takes a record. The time at which the sync that it starts will be done; `None` while one is running.
    pub fn append(&mut self, now: Time, lsn: Lsn, record: Record) -> Option<Time> {
        self.waiting.push_back((lsn, record));
        match self.syncing.is_empty() {
            true => self.start_sync(now),
            false => None,
        }
    }

    fn start_sync(&mut self, now: Time) -> Option<Time> {
        std::mem::swap(&mut self.syncing, &mut self.waiting);
        let (from, to) = self.sync_us;
        let (slow_until, factor) = self.slow;
        let factor = if now < slow_until { factor } else { 1 };
        let start = now.max(self.full_until);
        (!self.syncing.is_empty()).then(|| start.after(self.dice.micros(from * factor, to * factor)))
    }

    /// Syncs that start before `until` take `factor` times as long.
    pub fn slow_down(&mut self, factor: u64, until: Time) {
        self.slow = (until, factor.max(1));
    }

    /// The disk is full until then: nothing that arrives meanwhile becomes durable before.
    pub fn fill_up(&mut self, until: Time) {
        self.full_until = self.full_until.max(until);
    }

    /// The running sync is done: the records that it made durable, their end, and when the next sync is done.
    pub fn sync_done(&mut self, now: Time) -> (Vec<Record>, Option<Lsn>, Option<Time>) {
        let end = self.syncing.back().map(|(lsn, _)| lsn.next());
        let records: Vec<Record> = self.syncing.drain(..).map(|(_, record)| record).collect();
        self.kept.extend(records.iter().cloned());
        (records, end, self.start_sync(now))
    }

    /// The host lost power: a prefix of what was being written survives, the rest is gone.
    pub fn crash(&mut self) {
        let survivors = self.dice.below(self.syncing.len() as u64 + 1) as usize;
        let survivors = self.syncing.drain(..survivors).map(|(_, record)| record);
        self.kept.extend(survivors);
        self.lost += self.syncing.len() + self.waiting.len();
        self.syncing.clear();
        self.waiting.clear();
    }

    /// Forgets records that a stable checkpoint made superfluous.
    pub fn forget(&mut self) {
        self.kept.clear();
    }

    /// What a restart would read.
    #[must_use]
    pub fn kept(&self) -> &[Record] {
        &self.kept
    }

    /// How many records crashes have lost.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost
    }
}
