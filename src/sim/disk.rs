use std::collections::VecDeque;

use super::Dice;
use crate::protocol::Record;
use crate::types::{Lsn, SeqNo, Time};

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
    /// The contents of checkpoints: what is kept, what is being written and what waits.
    images: [Option<SeqNo>; 3],
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
            images: [None; 3],
            lost: 0,
            slow: (Time::START, 1),
            full_until: Time::START,
        }
    }

    /// Takes a record. The time at which the sync that it starts will be done; `None` while one is running.
    pub fn append(&mut self, now: Time, lsn: Lsn, record: Record) -> Option<Time> {
        self.waiting.push_back((lsn, record));
        self.start_if_idle(now)
    }

    /// Takes the contents of a checkpoint; like [`append`](Self::append).
    pub fn write_image(&mut self, now: Time, seq: SeqNo) -> Option<Time> {
        self.images[2] = Some(seq);
        self.start_if_idle(now)
    }

    fn start_if_idle(&mut self, now: Time) -> Option<Time> {
        match self.syncing.is_empty() && self.images[1].is_none() {
            true => self.start_sync(now),
            false => None,
        }
    }

    fn start_sync(&mut self, now: Time) -> Option<Time> {
        std::mem::swap(&mut self.syncing, &mut self.waiting);
        self.images[1] = self.images[2].take();
        let (from, to) = self.sync_us;
        let (slow_until, factor) = self.slow;
        let factor = if now < slow_until { factor } else { 1 };
        let start = now.max(self.full_until);
        let has_work = !self.syncing.is_empty() || self.images[1].is_some();
        has_work.then(|| start.after(self.dice.micros(from * factor, to * factor)))
    }

    /// Syncs that start before `until` take `factor` times as long.
    pub fn slow_down(&mut self, factor: u64, until: Time) {
        self.slow = (until, factor.max(1));
    }

    /// The disk is full until then: nothing that arrives meanwhile becomes durable before.
    pub fn fill_up(&mut self, until: Time) {
        self.full_until = self.full_until.max(until);
    }

    /// The running sync is done: the records that it made durable, their end, the checkpoint whose contents it wrote, and when
    /// the next sync is done.
    pub fn sync_done(&mut self, now: Time) -> (Vec<Record>, Option<Lsn>, Option<SeqNo>, Option<Time>) {
        let end = self.syncing.back().map(|(lsn, _)| lsn.next());
        let records: Vec<Record> = self.syncing.drain(..).map(|(_, record)| record).collect();
        self.kept.extend(records.iter().cloned());
        let image = self.images[1].take();
        self.images[0] = image.or(self.images[0]);
        (records, end, image, self.start_sync(now))
    }

    /// The host lost power: a prefix of what was being written survives, the rest is gone.
    pub fn crash(&mut self) {
        let survivors = self.dice.below(self.syncing.len() as u64 + 1) as usize;
        let survivors = self.syncing.drain(..survivors).map(|(_, record)| record);
        self.kept.extend(survivors);
        self.lost += self.syncing.len() + self.waiting.len();
        self.syncing.clear();
        self.waiting.clear();
        (self.images[1], self.images[2]) = (None, None);
    }

    /// Forgets what is about places up to this one, and what is about none and was written before the last record about
    /// stability.
    pub fn cut(&mut self, seq: SeqNo) {
        let is_stable = |record: &Record| matches!(record, Record::Stable { .. });
        let last = self.kept.iter().rposition(is_stable).unwrap_or(0);
        let mut place = 0;
        self.kept.retain(|record| {
            place += 1;
            match record.seq() {
                Some(about) => about > seq,
                None => place > last || !is_stable(record),
            }
        });
    }

    /// The last checkpoint whose contents are kept.
    #[must_use]
    pub fn image(&self) -> Option<SeqNo> {
        self.images[0]
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
