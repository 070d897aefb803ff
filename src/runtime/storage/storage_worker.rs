//! The threads that do what takes long on disk and what nobody waits for.
//!
//! One writes snapshots of checkpoints and nothing else, which may take seconds; the other does the rest, so
//! that the log never waits for a snapshot to get its next segment.
//!
//! In which order what is done, and why: [`crate::smr::node::StorageWork`].

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::directory::numbered;
use super::{DataDirectory, StorageError, files, snapshot};
use crate::runtime::shard::Alarm;
use crate::smr::execution::{CheckpointHelp, CheckpointSnapshot};
use crate::smr::node::{self, StorageDone, StorageOutcome, StorageStep, StorageTask};
use crate::smr::types::SeqNo;

/// How often a task is tried again that there was no space or no descriptor for.
pub(super) const ROOM_PAUSE: Duration = match cfg!(test) {
    true => Duration::from_millis(1),
    false => Duration::from_millis(200),
};

/// A lack that lasts is said once in so long.
const SAID_AGAIN: Duration = Duration::from_secs(60);

/// What is said of a lack: that it is there, now and then while it lasts, and that it is over.
#[derive(Debug, Default)]
struct Lack {
    /// When it was said last, while it lasts.
    said: Option<Instant>,
}

impl Lack {
    /// It is there; whether that is to be said.
    fn begins(&mut self, now: Instant) -> bool {
        let is_due = self
            .said
            .is_none_or(|said| now.duration_since(said) >= SAID_AGAIN);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }

    /// It is not there; whether that is news.
    fn ends(&mut self) -> bool {
        self.said.take().is_some()
    }
}

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Task {
    Keep(StorageTask),
    /// A snapshot of execution's state was written, after so many others had been installed; how many bytes
    /// it has.
    Written(u64, Result<(SeqNo, u64), StorageError>),
    Stop,
}

/// What the thread for snapshots is asked to do.
#[derive(Debug)]
enum SnapshotWork {
    Help(CheckpointHelp),
    /// After so many states were installed.
    Write(u64, Box<dyn CheckpointSnapshot>),
    Stop,
}

/// What the storage worker did.
#[derive(Debug)]
pub(crate) enum StorageEvent {
    /// A segment can be used.
    Segment { index: u64, file: File },
    /// A segment cannot be made for now; it may be asked for again.
    NoSegment,
    /// The contents of a checkpoint are on disk.
    Snapshot(SeqNo),
    /// A restart begins with this snapshot, which came from others.
    Adopted(SeqNo),
    /// The disk failed.
    Failed(StorageError),
}

/// Asks the storage worker. Clones are equal.
#[derive(Debug, Clone)]
pub(crate) struct StorageWorkerHandle {
    tasks: mpsc::Sender<Task>,
    snapshots: mpsc::Sender<SnapshotWork>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The replica ends: nothing is waited for any more.
    ends: AtomicBool,
    is_writing: AtomicBool,
    snapshot_bytes: AtomicU64,
    /// How many states from others execution has read. Written and read on its thread alone.
    installed: AtomicU64,
}

impl StorageWorkerHandle {
    /// Asks for anything but keeping a snapshot that execution gives.
    pub fn ask(&self, task: StorageTask) {
        // A storage worker that is gone stops the replica by its own report.
        let _ = self.tasks.send(Task::Keep(task));
    }

    /// Keeps a snapshot of the state that execution has, unless another one is being written: then this one
    /// is dropped.
    pub fn keep(&self, snapshot: Box<dyn CheckpointSnapshot>) {
        if !self.shared.is_writing.swap(true, Ordering::AcqRel) {
            let installed = self.shared.installed.load(Ordering::Relaxed);
            let _ = self.snapshots.send(SnapshotWork::Write(installed, snapshot));
        }
    }

    /// Helps with the digest of a checkpoint whose snapshot will come.
    pub fn help(&self, help: CheckpointHelp) {
        let _ = self.snapshots.send(SnapshotWork::Help(help));
    }

    /// Execution has the state that was adopted: what it gives from now on are snapshots of that.
    pub fn installed(&self) {
        self.shared.installed.fetch_add(1, Ordering::Relaxed);
        self.ask(StorageTask::Installed);
    }

    /// A handle of a storage worker that does nothing but take tasks.
    #[cfg(test)]
    pub(super) fn detached() -> (Self, mpsc::Receiver<Task>) {
        let (tasks, todo) = mpsc::channel();
        let (snapshots, _) = mpsc::channel();
        let handle = Self {
            tasks,
            snapshots,
            shared: Arc::default(),
        };
        (handle, todo)
    }

    /// Whether a snapshot is being written.
    pub fn is_writing(&self) -> bool {
        self.shared.is_writing.load(Ordering::Acquire)
    }

    /// The size of the last snapshot, in bytes.
    pub fn snapshot_bytes(&self) -> u64 {
        self.shared.snapshot_bytes.load(Ordering::Relaxed)
    }
}

/// The storage worker of one replica's directory.
pub(crate) struct StorageWorker {
    handle: StorageWorkerHandle,
    threads: Vec<JoinHandle<()>>,
}

impl StorageWorker {
    /// Starts the threads. `spare` are segments that are not needed any more; `report` is called on it with
    /// everything it did, `alarm` when one of them panics.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn spawn(
        (name, snapshots_name): (String, String),
        directory: DataDirectory,
        spare: Vec<u64>,
        alarm: &Alarm,
        mut report: impl FnMut(StorageEvent) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (tasks, todo) = mpsc::channel();
        let (snapshots, to_write) = mpsc::channel();
        let place = (directory.snapshots_path(), directory.superblock().seed);
        let mut work = Work::new(directory, spare);
        let shared = work.shared.clone();
        let handle = StorageWorkerHandle {
            tasks,
            snapshots,
            shared,
        };
        let written = handle.tasks.clone();
        let snapshots = alarm.spawn(snapshots_name, move || {
            let (directory, seed) = place;
            for work in to_write {
                match work {
                    SnapshotWork::Help(help) => help.run(),
                    SnapshotWork::Write(installed, snapshot) => {
                        let seq = snapshot.claim().seq;
                        let write = AssertUnwindSafe(|| write_snapshot(&directory, seed, snapshot));
                        let snapshot = catch_unwind(write).unwrap_or_else(|_| {
                            // It printed what it had to say.
                            Err(StorageError::SnapshotPanicked {
                                path: numbered(&directory, seq.get()),
                            })
                        });
                        // A storage worker that is gone needs no snapshot.
                        let _ = written.send(Task::Written(installed, snapshot));
                    }
                    SnapshotWork::Stop => break,
                }
            }
        })?;
        let storage_worker = alarm.spawn(name, move || {
            while let Ok(task) = todo.recv() {
                if matches!(task, Task::Stop) {
                    break;
                }
                if let Some(kept) = work.run(task) {
                    report(kept);
                }
            }
        })?;
        Ok(Self {
            handle,
            threads: vec![snapshots, storage_worker],
        })
    }

    pub fn handle(&self) -> StorageWorkerHandle {
        self.handle.clone()
    }
}

impl Drop for StorageWorker {
    fn drop(&mut self) {
        self.handle.shared.ends.store(true, Ordering::Release);
        let _ = self.handle.snapshots.send(SnapshotWork::Stop);
        let _ = self.handle.tasks.send(Task::Stop);
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// The storage worker's work, on whatever thread.
pub(super) struct Work {
    pub directory: DataDirectory,
    storage_worker: node::StorageWork,
    shared: Arc<Shared>,
    /// Of room for segments.
    lack: Lack,
}

impl Work {
    pub fn new(directory: DataDirectory, spare: Vec<u64>) -> Self {
        let named = directory.superblock().snapshot;
        let named = Some(named).filter(|named| directory.snapshot_path(*named).exists());
        Self {
            directory,
            storage_worker: node::StorageWork::new(spare, named),
            shared: Arc::default(),
            lack: Lack::default(),
        }
    }

    pub fn run(&mut self, task: Task) -> Option<StorageEvent> {
        match task {
            Task::Keep(task) => self.keep(task),
            Task::Written(installed, written) => {
                let kept = match written {
                    Ok((seq, bytes)) => {
                        let kept = self.keep(StorageTask::Written {
                            installed,
                            seq,
                            is_needed: false,
                        });
                        if matches!(kept, Some(StorageEvent::Snapshot(_))) {
                            self.shared.snapshot_bytes.store(bytes, Ordering::Relaxed);
                        }
                        kept
                    }
                    Err(error) if is_lack(&error) => {
                        complain_of_snapshot(&error);
                        None
                    }
                    Err(error) => Some(StorageEvent::Failed(error)),
                };
                self.shared.is_writing.store(false, Ordering::Release);
                kept
            }
            Task::Stop => None,
        }
    }

    /// Does a task step by step. What cannot be left undone waits for space or descriptors if there are none.
    fn keep(&mut self, task: StorageTask) -> Option<StorageEvent> {
        self.storage_worker.begin(task);
        let (mut kept, mut complained) = (None, false);
        while let Some(step) = self.storage_worker.next_step() {
            let (outcome, file, lack) = match act(&mut self.directory, step) {
                Ok(file) => (StorageOutcome::Done, file, None),
                Err(error) if is_lack(&error) && step.may_lack_room() => {
                    (StorageOutcome::NoRoom, None, Some(error))
                }
                Err(error) => return Some(StorageEvent::Failed(error)),
            };
            let event = self.storage_worker.on_ended(outcome);
            match (&event, lack) {
                (Some(StorageDone::NoSegment), Some(error)) if self.lack.begins(Instant::now()) => {
                    tracing::error!(%error, "no space or no open file for another segment of the log: nothing is voted until there is");
                }
                (Some(StorageDone::NoSnapshot), Some(error)) => complain_of_snapshot(&error),
                (None, Some(error)) if self.storage_worker.next_step().is_some() => {
                    if self.shared.ends.load(Ordering::Acquire) {
                        return Some(StorageEvent::Failed(error));
                    }
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!(%error, "no space or no open file to take over the state that others sent: it waits");
                    }
                    std::thread::sleep(ROOM_PAUSE);
                }
                (Some(StorageDone::Segment(_)), None) if self.lack.ends() => {
                    tracing::warn!("there is room for the log again: votes go on");
                }
                _ => {}
            }
            kept = match event {
                Some(StorageDone::Segment(index)) => file.map(|file| StorageEvent::Segment { index, file }),
                Some(StorageDone::NoSegment) => Some(StorageEvent::NoSegment),
                Some(StorageDone::Snapshot(seq)) => Some(StorageEvent::Snapshot(seq)),
                Some(StorageDone::Adopted(seq)) => Some(StorageEvent::Adopted(seq)),
                Some(StorageDone::NoSnapshot) | None => None,
            };
        }
        kept
    }
}

/// Does a step; the segment that was prepared, if it was that.
fn act(directory: &mut DataDirectory, step: &StorageStep) -> Result<Option<File>, StorageError> {
    match step {
        StorageStep::Prepare {
            index,
            bytes,
            recycled,
        } => return directory.prepare_segment(*index, *bytes, *recycled).map(Some),
        StorageStep::Cut(released) => {
            directory.update(|superblock| superblock.cut(released.log_start, released.view))?;
        }
        StorageStep::Place(seq) => snapshot::place(&directory.snapshot_path(*seq))?,
        StorageStep::Discard(seq) => snapshot::discard(&directory.snapshot_path(*seq)),
        StorageStep::PlaceReceived(seq) => snapshot::place_received(&directory.snapshots_path(), *seq)?,
        StorageStep::Name(seq) => directory.update(|superblock| superblock.snapshot = *seq)?,
        StorageStep::ForgetAfter(seq) => directory.forget_snapshots_after(*seq)?,
        StorageStep::Forget(before, but) => directory.forget_snapshots(*before, but)?,
    }
    Ok(None)
}

fn complain_of_snapshot(error: &StorageError) {
    tracing::error!(%error, "no space or no open file for the snapshot of a checkpoint; the log grows until there is");
}

/// Writes a snapshot beside its place in the directory of snapshots.
pub(super) fn write_snapshot(
    directory: &Path,
    seed: u64,
    mut snapshot: Box<dyn CheckpointSnapshot>,
) -> Result<(SeqNo, u64), StorageError> {
    let seq = snapshot.claim().seq;
    let bytes = snapshot::write_beside(&numbered(directory, seq.get()), &mut *snapshot, seed)?;
    Ok((seq, bytes))
}

/// Whether space or descriptors that come back would have helped.
pub(super) fn is_lack(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if files::is_lack(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_is_said_once_in_a_while_and_so_is_its_end() {
        let (mut lack, start) = (Lack::default(), Instant::now());
        assert!(!lack.ends(), "there was none");
        let said: Vec<u64> = (0..150)
            .filter(|second| lack.begins(start + Duration::from_secs(*second)))
            .collect();
        assert_eq!(said, [0, 60, 120]);
        assert!(lack.ends() && !lack.ends());
        assert!(lack.begins(start), "another one");
    }
}
