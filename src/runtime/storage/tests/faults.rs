//! Real files whose writes and syncs fail, or are cut short, at every step of a run.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::files::planned::{self, Plan};
use super::restart::StorageBackend;
use super::storage_worker::{StorageEvent, Task, Work, write_snapshot};
use super::*;
use crate::smr::node::StorageTask;
use crate::smr::protocol::LogCut;

/// Four groups of one block each.
const SMALL_SEGMENT: u64 = 16 << 10;
const OPERATIONS: u64 = 28;
const CHECKPOINT_EVERY: u64 = 8;
/// How often a life tries again what there was no space for.
const PATIENCE: usize = 12;

fn small() -> WriterSettings {
    WriterSettings {
        segment_bytes: SMALL_SEGMENT,
        record_bytes_max: 2 << 10,
        // A log that has to reuse its segments.
        segments_max: 5,
        ..settings()
    }
}

fn operation(number: u64) -> Record {
    Record::Decision {
        seq: SeqNo::new(number),
        digest: Digest::from_bytes([number as u8; 32]),
        chain: Chain::START,
    }
}

/// A checkpoint whose contents are the numbers of the operations.
#[derive(Debug)]
struct Numbers {
    upto: u64,
    next: u64,
}

impl crate::smr::execution::CheckpointSnapshot for Numbers {
    fn claim(&self) -> CheckpointClaim {
        CheckpointClaim {
            seq: SeqNo::new(self.upto),
            digest: Digest::ZERO,
        }
    }

    fn next_chunk(&mut self, _: usize, chunk: &mut Vec<u8>) -> bool {
        self.next += 1;
        chunk.extend_from_slice(&self.next.to_le_bytes());
        self.next <= self.upto
    }
}

/// A replica's disk side, on one thread: the log role's part and the storage worker's.
struct Life {
    work: Work,
    writer: LogWriter,
    files: BTreeMap<u64, File>,
    asked: Option<u64>,
    /// The last operation that was acknowledged.
    acknowledged: u64,
}

/// What came back at a start: every operation of snapshot and log, which must be without a gap.
fn start(path: &Path) -> Result<(Life, u64), StorageError> {
    let directory = DataDirectory::open(path, CLUSTER, NODE)?;
    let superblock = *directory.superblock();
    let snapshot = superblock.snapshot;
    let mut known = 0;
    if snapshot > SeqNo::ZERO {
        snapshot::read(&directory.snapshot_path(snapshot), superblock.seed, |chunk| {
            known += 1;
            assert_eq!(
                chunk,
                u64::to_le_bytes(known),
                "the snapshot is that of the checkpoint"
            );
            Ok(())
        })?;
        assert_eq!(known, snapshot.get());
    }
    let segments = directory.segments()?;
    let tail = scan(&superblock, &segments, |raw| {
        let place = raw.place().unwrap().get();
        assert!(
            place <= known + 1,
            "operation {} is missing before {place}",
            known + 1
        );
        known = known.max(place);
        Ok(())
    })?;
    let settings = WriterSettings {
        tag: superblock.tag(),
        seed: superblock.seed,
        ..small()
    };
    let is_spare = |found: &&Found| found.index < superblock.log_start;
    let spare = segments
        .iter()
        .filter(is_spare)
        .map(|found| found.index)
        .collect();
    let mut life = Life {
        writer: LogWriter::resume(settings, &tail),
        files: BTreeMap::new(),
        asked: None,
        acknowledged: known,
        work: Work::new(directory, spare),
    };
    let last = tail.segments.last().map(|(index, _)| *index);
    for found in segments.iter().filter(|found| !is_spare(found)) {
        if last.is_none_or(|last| found.index > last) {
            life.writer.add_segment(found.index);
        }
        let file = life.work.directory.open_segment(found.index, SMALL_SEGMENT)?;
        life.files.insert(found.index, file);
    }
    Ok((life, known))
}

impl Life {
    fn on_kept(&mut self, kept: Option<StorageEvent>) -> Result<(), StorageError> {
        match kept {
            Some(StorageEvent::Segment { index, file }) => {
                self.asked = None;
                self.files.insert(index, file);
                self.writer.add_segment(index);
            }
            Some(StorageEvent::NoSegment) => self.asked = None,
            Some(StorageEvent::Snapshot(seq)) => {
                let before = self.writer.durable();
                let view = View::ZERO;
                if let Some(released) = self.writer.cut(LogCut { seq, before, view }) {
                    for index in &released.gone {
                        self.files.remove(index);
                    }
                    let kept = self.work.run(Task::Keep(StorageTask::Release(released)));
                    return self.on_kept(kept);
                }
            }
            Some(StorageEvent::Failed(error)) => return Err(error),
            Some(StorageEvent::Adopted(_)) | None => {}
        }
        Ok(())
    }

    /// One operation of the log, on its real file, unless it is planned to fail.
    fn operate(&mut self) -> Option<Outcome> {
        Some(match self.writer.next_operation()? {
            LogOperation::Write { segment, offset } => {
                let (file, bytes) = (&self.files[&segment], self.writer.bytes());
                let half = bytes.len() / 2 / 512 * 512;
                match planned::next() {
                    None => {
                        file.write_all_at(bytes, offset).unwrap();
                        Ok(bytes.len())
                    }
                    Some((0, _)) => {
                        file.write_all_at(&bytes[..half], offset).unwrap();
                        Ok(half)
                    }
                    Some((errno, torn)) => {
                        if torn {
                            file.write_all_at(&bytes[..half], offset).unwrap();
                        }
                        Err(errno)
                    }
                }
            }
            // Without a power cut, what was written is there: nothing to wait for.
            LogOperation::Sync { .. } => match planned::next() {
                None | Some((0, _)) => Ok(0),
                Some((errno, _)) => Err(errno),
            },
        })
    }

    /// Works until everything appended is on disk, or there is no space.
    fn drive(&mut self) -> Result<(), StorageError> {
        for _ in 0..PATIENCE {
            if let Some(index) = self.writer.wanted_segment().filter(|_| self.asked.is_none()) {
                self.asked = Some(index);
                let kept = self.work.run(Task::Keep(StorageTask::Prepare {
                    index,
                    bytes: SMALL_SEGMENT,
                }));
                self.on_kept(kept)?;
            }
            while let Some(outcome) = self.operate() {
                self.writer.on_complete(outcome)?;
                if self.writer.is_short_of_space() {
                    break;
                }
            }
            if self.writer.is_idle() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Goes on to the last operation; each is acknowledged once it is durable.
    fn run(&mut self) -> Result<(), StorageError> {
        while self.acknowledged < OPERATIONS {
            let number = self.acknowledged + 1;
            self.writer.append(&operation(number));
            self.drive()?;
            assert!(
                self.writer.is_idle(),
                "space came back, operation {number} did not go on"
            );
            self.acknowledged = number;
            if number.is_multiple_of(CHECKPOINT_EVERY) {
                let snapshot = Numbers {
                    upto: number,
                    next: 0,
                };
                let directory = &self.work.directory;
                let (snapshots, seed) = (directory.snapshots_path(), directory.superblock().seed);
                let written = write_snapshot(&snapshots, seed, Box::new(snapshot));
                let kept = self.work.run(Task::Written(0, written));
                self.on_kept(kept)?;
            }
        }
        Ok(())
    }
}

fn fresh() -> (TempDir, std::path::PathBuf) {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("r2");
    DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap();
    (temporary, path)
}

/// A run with these failures planned from its `first` operation on: how it ended, after everything
/// acknowledged was found again and the rest was done by another life.
fn survives(first: usize, count: usize, errno: i32, torn: bool) -> Result<(), StorageError> {
    let (_temporary, path) = fresh();
    planned::plan(Some(Plan {
        first,
        count,
        errno,
        torn,
    }));
    // The start itself may fail: then nothing was acknowledged.
    let (ended, acknowledged) = match start(&path) {
        Ok((mut life, _)) => (life.run(), life.acknowledged),
        Err(error) => (Err(error), 0),
    };
    planned::plan(None);
    let (mut again, known) = start(&path).unwrap_or_else(|error| panic!("step {first}: {error}"));
    assert!(
        known >= acknowledged,
        "step {first}: {known} of {acknowledged} acknowledged"
    );
    again.run().unwrap();
    drop(again);
    assert_eq!(start(&path).unwrap().1, OPERATIONS, "step {first}");
    ended
}

/// How many steps a run has when nothing fails.
fn steps() -> usize {
    let (_temporary, path) = fresh();
    planned::plan(None);
    start(&path).unwrap().0.run().unwrap();
    planned::steps()
}

#[test]
fn an_error_of_the_disk_at_any_step_stops_the_replica_and_loses_nothing_acknowledged() {
    let steps = steps();
    assert!(
        steps > 120,
        "{steps} steps: log, segments, snapshots and superblock"
    );
    for torn in [false, true] {
        for step in 0..steps {
            let error = survives(step, 1, libc::EIO, torn).expect_err("it is not passed over");
            let text = error.to_string();
            assert!(
                text.contains("os error 5") || text.contains("Input/output error"),
                "step {step}: {text}"
            );
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_step_and_then_is_not_loses_nothing_acknowledged() {
    let mut healed = 0;
    let steps = steps();
    for (count, torn) in [(1, false), (1, true), (4, false)] {
        for step in 0..steps {
            healed += usize::from(survives(step, count, libc::ENOSPC, torn).is_ok());
        }
    }
    // The rest are syncs and the superblock, whose blocks are there: to fail at these is a fault of the disk.
    assert!(
        healed > steps,
        "{healed} of {} runs went on by themselves",
        3 * steps
    );
}

#[test]
fn a_lack_of_descriptors_at_any_step_loses_nothing_acknowledged_and_ends_no_snapshot_or_segment_for_good() {
    let mut healed = 0;
    let steps = steps();
    for step in 0..steps {
        healed += usize::from(survives(step, 2, libc::EMFILE, false).is_ok());
    }
    // The others are writes and the superblock, which need no new descriptor.
    assert!(
        healed > steps / 8,
        "{healed} of {steps} runs went on by themselves"
    );
}

#[test]
fn snapshots_that_no_descriptor_was_left_to_forget_or_take_over_are_forgotten_and_taken_over_later() {
    let (_temporary, path) = fresh();
    let directory = DataDirectory::open(&path, CLUSTER, NODE).unwrap();
    for seq in [8, 16, 24] {
        std::fs::write(directory.snapshot_path(SeqNo::new(seq)), "a snapshot").unwrap();
    }
    let mut work = Work::new(directory, Vec::new());
    let lack = |count| {
        planned::plan(Some(Plan {
            first: 0,
            count,
            errno: libc::EMFILE,
            torn: false,
        }));
    };
    lack(1);
    let forget = || Task::Keep(StorageTask::Forget(SeqNo::new(16), Vec::new()));
    assert!(work.run(forget()).is_none());
    assert!(work.directory.snapshot_path(SeqNo::new(8)).exists());
    assert!(work.run(forget()).is_none());
    assert!(!work.directory.snapshot_path(SeqNo::new(8)).exists());
    lack(3);
    let adopted = work.run(Task::Keep(StorageTask::InstallBase(SeqNo::new(16))));
    assert!(matches!(adopted, Some(StorageEvent::Adopted(_))), "{adopted:?}");
    planned::plan(None);
    assert_eq!(work.directory.superblock().snapshot, SeqNo::new(16));
    assert!(!work.directory.snapshot_path(SeqNo::new(24)).exists());
}

#[test]
fn a_write_of_the_log_that_is_cut_short_is_finished() {
    for step in 0..steps() {
        survives(step, 1, 0, true).unwrap();
    }
}
