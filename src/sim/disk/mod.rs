//! A simulated disk with what runs on it: the real log writer, and the steps of the log role, the storage
//! worker and the snapshot transfer.
//!
//! Time passes between an operation's start and its end; what is under way when the power goes is kept, lost
//! or torn as the rng say. What was acknowledged is kept, unless a fault of the plan takes it.

mod snapshot_transfer;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::SimRng;
use crate::runtime::storage::basis::LocalSnapshotDelta;
use crate::runtime::storage::restart::{Continued, Restored};
use crate::runtime::storage::{BLOCK_BYTES, LogOperation, LogWriter, RecordReader, WriterSettings, snapshot};
use crate::smr::decision_log::{LoggedDecisions, LoggedRange};
use crate::smr::execution::CheckpointSnapshot;
use crate::smr::node::{
    Log, LogEntry, LogPort, Released, StorageDone, StorageOutcome, StorageStep, StorageTask, StorageWork,
};
use crate::smr::protocol::Record;
use crate::smr::types::{Lsn, SeqNo, Time};
pub(in crate::sim) use state::{DiskState, Rot, Unreadable};

/// About how long a chunk of a snapshot is.
const CHUNK_BYTES: usize = 4 << 10;
/// How long the storage worker waits with what cannot be left undone.
const ROOM_PAUSE: Duration = Duration::from_millis(200);

/// How a disk behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct DiskSettings {
    /// Microseconds of a sync.
    pub sync_us: (u64, u64),
    /// The size of a segment.
    pub segment_bytes: u64,
    /// How many there may be.
    pub segments_max: usize,
    /// The longest record.
    pub record_bytes_max: usize,
    /// In so many of a hundred writes only a part is written at first.
    pub short_percent: u64,
    /// Whether each write is on the disk when it ends, as the log role of production has it, and syncs do
    /// nothing; else writes end at once.
    pub write_syncs: bool,
}

/// Something that a disk has under way ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskEvent {
    /// The sync of the log.
    Synced,
    /// A write of so many bytes to the log that needs no sync.
    Written(usize),
    /// The storage worker's step.
    StorageEvent,
    /// Space may have come back.
    Space,
}

/// What an event of the disk led to.
#[derive(Default)]
pub(super) struct Done {
    /// Records that are durable now.
    pub records: Vec<Record>,
    /// The log's new end.
    pub log: Option<Lsn>,
    /// The checkpoint whose contents are kept now.
    pub snapshot: Option<SeqNo>,
    /// The checkpoint of others with which a restart begins now, and whether it is there.
    pub adopted: Option<(SeqNo, bool)>,
    /// A sync failed: the process ends.
    pub failed: bool,
}

/// What the log asked for and said, and nobody took yet.
#[derive(Default)]
struct Wishes {
    tasks: Vec<StorageTask>,
    reads: Vec<(LoggedRange, Vec<u64>)>,
    durable: Option<Lsn>,
}

impl LogPort for Wishes {
    fn storage(&mut self, task: StorageTask) {
        self.tasks.push(task);
    }

    fn read(&mut self, range: LoggedRange, segments: Vec<u64>) {
        self.reads.push((range, segments));
    }

    fn durable(&mut self, end: Lsn) {
        self.durable = Some(end);
    }
}

/// One life of a replica's disk: from a start to the loss of power.
pub(super) struct SimDisk {
    pub disk_state: DiskState,
    settings: DiskSettings,
    rng: SimRng,
    log: Log<LogWriter>,
    wishes: Wishes,
    reader: RecordReader,
    /// Decisions that were read back.
    read: Vec<LoggedDecisions>,
    /// Given to the log and not acknowledged.
    given: VecDeque<(Lsn, Record)>,
    /// Written and not synced: segment, offset, bytes.
    unsynced: Vec<(u64, usize, Vec<u8>)>,
    /// What the storage worker is to do, one after the other.
    tasks: VecDeque<StorageTask>,
    storage: StorageWork,
    /// Its next step is under way.
    is_keeping: bool,
    /// Own snapshots that were written beside their places: one, and perhaps one more that closes the epoch.
    beside: VecDeque<(SeqNo, Bytes)>,
    planned: Vec<(Time, DiskEvent)>,
    pub hits: BTreeMap<&'static str, u64>,
    /// Until when syncs take so many times as long.
    slow: (Time, u64),
    full_until: Time,
    sync_fails: bool,
    /// The own snapshot that has pieces of one that comes.
    basis: Option<LocalSnapshotDelta<Bytes>>,
    /// How many states execution has read.
    installed: u64,
}

impl SimDisk {
    /// The disk of a process that has read `disk_state` with this reader, as `restored` says.
    pub fn new(
        disk_state: DiskState,
        (restored, reader): (&Restored, RecordReader),
        settings: DiskSettings,
        rng: SimRng,
    ) -> Self {
        let superblock = disk_state.superblock;
        let writer_settings = WriterSettings {
            tag: superblock.tag(),
            seed: superblock.seed,
            segment_bytes: settings.segment_bytes,
            segments_max: settings.segments_max,
            record_bytes_max: settings.record_bytes_max,
        };
        let writer = LogWriter::resume(writer_settings, &restored.tail);
        let Continued { writer, spare, .. } = restored.go_on(writer, &superblock);
        let named = Some(superblock.snapshot).filter(|named| disk_state.snapshots.contains_key(named));
        Self {
            disk_state,
            settings,
            rng,
            log: Log::new(writer),
            wishes: Wishes::default(),
            reader,
            read: Vec::new(),
            given: VecDeque::new(),
            unsynced: Vec::new(),
            tasks: VecDeque::new(),
            storage: StorageWork::new(spare, named),
            is_keeping: false,
            beside: VecDeque::new(),
            planned: Vec::new(),
            hits: BTreeMap::new(),
            slow: (Time::START, 1),
            full_until: Time::START,
            sync_fails: false,
            basis: None,
            installed: 0,
        }
    }

    fn hit(&mut self, name: &'static str) {
        *self.hits.entry(name).or_default() += 1;
    }

    /// What was acknowledged: a restart finds at least this.
    pub fn acknowledged(&self) -> Lsn {
        self.log.told()
    }

    /// The moments at which something that is under way ends.
    pub fn drain_planned(&mut self) -> std::vec::Drain<'_, (Time, DiskEvent)> {
        self.planned.drain(..)
    }

    /// Takes what consensus has for the log.
    pub fn log(&mut self, now: Time, entry: LogEntry) {
        if let LogEntry::Record { lsn, record } = &entry {
            self.given.push_back((*lsn, record.clone()));
        }
        self.log.take(entry, &mut self.wishes);
        self.go_on(now);
    }

    /// What was read back.
    pub fn take_read(&mut self) -> Vec<LoggedDecisions> {
        std::mem::take(&mut self.read)
    }

    /// Whether a snapshot is being written: another one would be dropped.
    pub fn is_writing_snapshot(&self) -> bool {
        !self.beside.is_empty()
    }

    /// Takes the snapshot of an own checkpoint.
    pub fn keep_snapshot(&mut self, now: Time, contents: &mut dyn CheckpointSnapshot) {
        let is_needed = contents.is_needed();
        if self.is_writing_snapshot() && !is_needed {
            return;
        }
        let (seq, mut bytes) = (contents.claim().seq, Vec::new());
        let seed = self.disk_state.superblock.seed;
        snapshot::write_to(&mut bytes, contents, seed, CHUNK_BYTES).expect("memory takes everything");
        self.beside.push_back((seq, bytes.into()));
        let installed = self.installed;
        self.ask(
            now,
            StorageTask::Written {
                installed,
                seq,
                is_needed,
            },
        );
    }

    /// Execution has read a snapshot that came from others.
    pub fn installed(&mut self, now: Time) {
        self.installed += 1;
        self.ask(now, StorageTask::Installed);
    }

    /// Syncs that start before `until` take `factor` times as long.
    pub fn slow_down(&mut self, factor: u64, until: Time) {
        self.slow = (until, factor.max(1));
    }

    /// There is no room for new files until then.
    pub fn fill_up(&mut self, until: Time) {
        self.full_until = self.full_until.max(until);
    }

    /// The next sync fails.
    pub fn fail_sync(&mut self) {
        self.sync_fails = true;
    }

    fn sync_end(&mut self, now: Time) -> Time {
        let (from, to) = self.settings.sync_us;
        let (slow_until, factor) = self.slow;
        let factor = if now < slow_until { factor } else { 1 };
        now.after(self.rng.micros(from * factor, to * factor))
    }

    /// The log role's turn.
    fn go_on(&mut self, now: Time) {
        self.log.turn(now, &mut self.wishes);
        while let Some(operation) = self.log.writer.next_operation() {
            match operation {
                LogOperation::Write { segment, offset } => self.write(now, segment, offset as usize),
                LogOperation::Sync { .. } if self.settings.write_syncs => self.complete(0),
                LogOperation::Sync { .. } => {
                    let at = self.sync_end(now);
                    self.planned.push((at, DiskEvent::Synced));
                }
            }
        }
        self.log.turn(now, &mut self.wishes);
        for task in std::mem::take(&mut self.wishes.tasks) {
            self.ask(now, task);
        }
        for (range, segments) in std::mem::take(&mut self.wishes.reads) {
            let read = self.read_log(range, &segments);
            self.read.push(read);
        }
    }

    fn write(&mut self, now: Time, segment: u64, offset: usize) {
        let bytes = self.log.writer.bytes().to_vec();
        let mut count = bytes.len();
        if count > BLOCK_BYTES && self.rng.chance(self.settings.short_percent) {
            count = self.rng.between(1, count as u64) as usize;
            self.hit("short write");
        }
        let written = bytes[..count].to_vec();
        self.unsynced.push((segment, offset, written));
        match self.settings.write_syncs {
            true => {
                let at = self.sync_end(now);
                self.planned.push((at, DiskEvent::Written(count)));
            }
            false => self.complete(count),
        }
    }

    /// The log's operation under way ended well.
    fn complete(&mut self, count: usize) {
        self.log
            .writer
            .on_complete(Ok(count))
            .expect("what ended well is no failure");
    }

    /// What was written is on the disk_state.
    fn settle(&mut self) {
        for (segment, offset, bytes) in std::mem::take(&mut self.unsynced) {
            self.disk_state.write(segment, offset, &bytes);
            self.disk_state.log_end = (segment, offset);
        }
    }

    fn ask(&mut self, now: Time, task: StorageTask) {
        self.tasks.push_back(task);
        self.keep_going(now);
    }

    /// The storage worker begins its next step, and before that its next task.
    fn keep_going(&mut self, now: Time) {
        while !self.is_keeping {
            if self.storage.next_step().is_some() {
                self.is_keeping = true;
                let at = self.sync_end(now);
                self.planned.push((at, DiskEvent::StorageEvent));
            } else if let Some(task) = self.tasks.pop_front() {
                self.storage.begin(task);
            } else {
                return;
            }
        }
    }

    /// Something that was under way has ended.
    pub fn on_event(&mut self, now: Time, event: DiskEvent) -> Done {
        let mut done = Done::default();
        match event {
            DiskEvent::Synced | DiskEvent::Written(_) if self.sync_fails => {
                done.failed = true;
                return done;
            }
            DiskEvent::Synced => {
                self.settle();
                self.complete(0);
            }
            DiskEvent::Written(count) => {
                self.settle();
                self.complete(count);
            }
            DiskEvent::StorageEvent => {
                self.keep(now, &mut done);
                self.keep_going(now);
            }
            DiskEvent::Space => {}
        }
        self.go_on(now);
        done.log = self.wishes.durable.take();
        let durable = self.log.told();
        while self.given.front().is_some_and(|(lsn, _)| *lsn < durable) {
            done.records
                .extend(self.given.pop_front().map(|(_, record)| record));
        }
        done
    }

    /// The storage worker's step under way ends.
    fn keep(&mut self, now: Time, done: &mut Done) {
        self.is_keeping = false;
        let Some(step) = self.storage.next_step().cloned() else {
            return;
        };
        let outcome = match now < self.full_until && needs_room(&step) {
            true => StorageOutcome::NoRoom,
            false => {
                self.perform(step);
                StorageOutcome::Done
            }
        };
        match self.storage.on_ended(outcome) {
            Some(StorageDone::Segment(index)) => self.log.on_segment(index),
            Some(StorageDone::NoSegment) => {
                self.hit("no space for a segment");
                self.log.on_no_segment(now);
                let due = self.log.next_timeout();
                self.planned.extend(due.map(|due| (due, DiskEvent::Space)));
            }
            Some(StorageDone::Snapshot(seq)) => done.snapshot = Some(seq),
            Some(StorageDone::NoSnapshot) => {
                self.beside.pop_front();
                self.hit("no space for a snapshot");
            }
            Some(StorageDone::Adopted(seq)) => {
                done.adopted = Some((seq, self.disk_state.snapshots.contains_key(&seq)));
            }
            None if outcome == StorageOutcome::NoRoom => {
                self.hit("no space to adopt a snapshot");
                self.is_keeping = true;
                self.planned
                    .push((now.after(ROOM_PAUSE), DiskEvent::StorageEvent));
            }
            None => {}
        }
    }

    fn perform(&mut self, step: StorageStep) {
        let disk_state = &mut self.disk_state;
        match step {
            StorageStep::Prepare { index, recycled, .. } => {
                let old = recycled.and_then(|old| disk_state.segments.remove(&old));
                disk_state.segments.insert(index, old.unwrap_or_default());
                if recycled.is_some() {
                    self.hit("segment recycled");
                }
            }
            StorageStep::Cut(Released { log_start, view, .. }) => {
                disk_state.update(|superblock| superblock.cut(log_start, view));
            }
            StorageStep::Place(_) => disk_state.snapshots.extend(self.beside.pop_front()),
            StorageStep::Discard(_) => {
                self.beside.pop_front();
                self.hit("snapshot of a replaced state dropped");
            }
            StorageStep::PlaceReceived(seq) => {
                let received = disk_state.partial.take_if(|received| received.seq == seq);
                disk_state
                    .snapshots
                    .extend(received.map(|received| (seq, received.file.into())));
            }
            StorageStep::Name(seq) => disk_state.update(|superblock| superblock.snapshot = seq),
            StorageStep::ForgetAfter(seq) => disk_state.snapshots.retain(|kept, _| *kept <= seq),
            StorageStep::Forget(before, but) => {
                let is_needed = |kept: &SeqNo| *kept >= before || but.contains(kept);
                disk_state.snapshots.retain(|kept, _| is_needed(kept));
            }
        }
    }

    /// The power goes: what was under way may be there, or not, or in part.
    pub fn lose_power(&mut self) -> DiskState {
        let lost = self.given.len() as u64;
        let unsynced = std::mem::take(&mut self.unsynced);
        if !unsynced.is_empty() {
            // All, nothing, a first part, any blocks; the last with rubbish in one of them.
            let fate = self.rng.below(5);
            let whole: usize = unsynced
                .iter()
                .map(|(_, _, bytes)| bytes.len().div_ceil(BLOCK_BYTES))
                .sum();
            let until = match fate {
                4 => self.rng.below(whole as u64),
                _ => self.rng.below(whole as u64 + 1),
            } as usize;
            let (mut number, mut kept) = (0, 0);
            for (segment, offset, bytes) in unsynced {
                for (block, at) in bytes.chunks(BLOCK_BYTES).zip((offset..).step_by(BLOCK_BYTES)) {
                    let survives = match fate {
                        0 => true,
                        1 => false,
                        2 => number < until,
                        4 if number == until => true,
                        _ => self.rng.chance(50),
                    };
                    let mut block = block.to_vec();
                    if fate == 4 && number == until {
                        // Often near the block's start, where its contents are.
                        let reach = block.len() as u64 >> self.rng.below(6);
                        let from = self.rng.below(reach) as usize;
                        block[from..].iter_mut().for_each(|byte| *byte = !*byte);
                        self.hit("rubbish written");
                    }
                    if survives {
                        kept += 1;
                        self.disk_state.write(segment, at, &block);
                    }
                    number += 1;
                }
            }
            if kept > 0 && kept < whole {
                self.hit("torn write");
            }
        }
        *self.hits.entry("unsynced record lost").or_default() += lost;
        self.tear_keeper();
        self.disk_state.clone()
    }

    /// The storage worker's step under way: what appears is whole or not there; a copy of the superblock may
    /// be torn, and some of what is removed may be left.
    fn tear_keeper(&mut self) {
        if let Some(partial) = &mut self.disk_state.partial {
            let end = self.rng.below(partial.file.len() as u64 + 1) as usize;
            partial.file.truncate(end);
        }
        let Some(step) = self.storage.next_step().filter(|_| self.is_keeping).cloned() else {
            return;
        };
        match (self.rng.below(3), step) {
            (0, step) => self.perform(step),
            (1, StorageStep::Cut(_) | StorageStep::Name(_)) => {
                // The older copy was being written.
                let at = (self.disk_state.superblock.generation + 1) % 2 * BLOCK_BYTES as u64;
                if let Some(file) = &mut self.disk_state.superblock_file {
                    let from = at as usize + self.rng.below(BLOCK_BYTES as u64) as usize;
                    file[from..at as usize + BLOCK_BYTES].fill(0x5a);
                    self.hit("superblock torn");
                }
            }
            (_, StorageStep::ForgetAfter(seq)) => {
                let left: Vec<SeqNo> = self.disk_state.snapshots.keys().copied().collect();
                for later in left.into_iter().filter(|left| *left > seq) {
                    self.hit("later snapshot left beside an adopted one");
                    if self.rng.chance(30) {
                        self.disk_state.snapshots.remove(&later);
                    }
                }
            }
            _ => {}
        }
    }
}

/// What a full disk has no room for.
fn needs_room(step: &StorageStep) -> bool {
    match step {
        StorageStep::Prepare { recycled, .. } => recycled.is_none(),
        // Its contents, or another name.
        StorageStep::Place(_) | StorageStep::PlaceReceived(_) => true,
        _ => false,
    }
}
