//! The thread that reads and writes what transfers carry: snapshots of checkpoints, and decisions that only
//! the log holds.
//!
//! Beside the storage worker, because a peer that waits for pieces must not wait for a snapshot that is being
//! written.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;

use super::basis::LocalSnapshotDelta;
use super::directory::numbered;
use super::logged::LogReader;
use super::received::Received;
use super::snapshot::{SnapshotFile, received_path};
use super::storage_worker::{ROOM_PAUSE, StorageWorkerHandle, is_lack};
use super::{StorageError, files};
use crate::runtime::shard::Alarm;
use crate::smr::crypto::Digester;
use crate::smr::decision_log::{LoggedDecisions, LoggedRange};
use crate::smr::messages::{PieceRange, SnapshotIndex};
use crate::smr::node::{SnapshotTransferPort, StorageTask, serve_snapshot_task};
use crate::smr::protocol::{SnapshotEvent, SnapshotTask};
use crate::smr::types::SeqNo;

/// Chunks on their way to execution; an error ends them.
pub(crate) type ChunkSender = mpsc::SyncSender<Result<Bytes, StorageError>>;

enum Task {
    Snapshot(SnapshotTask),
    Stream(SeqNo, ChunkSender),
    ReadLog(LoggedRange, Vec<u64>),
    Stop,
}

/// What the snapshot transfer has to say.
#[derive(Debug)]
pub(crate) enum SnapshotTransferEvent {
    /// To the orchestrator.
    Snapshot(SnapshotEvent),
    /// To the orchestrator: what was read of the log.
    Read(LoggedDecisions),
    /// The disk failed.
    Failed(StorageError),
}

/// Asks the snapshot transfer. Clones are equal.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotTransferHandle {
    tasks: mpsc::Sender<Task>,
}

impl SnapshotTransferHandle {
    /// Does anything but installing.
    pub fn ask(&self, task: SnapshotTask) {
        // A snapshot transfer that is gone stops the replica by its own report.
        let _ = self.tasks.send(Task::Snapshot(task));
    }

    /// Sends every chunk of a snapshot, in the order of its pieces.
    pub fn stream(&self, seq: SeqNo, chunks: ChunkSender) {
        let _ = self.tasks.send(Task::Stream(seq, chunks));
    }

    /// Reads decisions from the log; `segments` may hold them.
    pub fn read_log(&self, range: LoggedRange, segments: Vec<u64>) {
        let _ = self.tasks.send(Task::ReadLog(range, segments));
    }
}

/// The snapshot transfer of one replica's directory.
pub(crate) struct SnapshotTransferWorker {
    handle: SnapshotTransferHandle,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SnapshotTransferWorker {
    /// Starts the thread, for the snapshots in this directory under this seed, and the log in that one.
    /// `report` is called on it with everything it did, `alarm` when it panics.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn spawn(
        name: String,
        (snapshots, seed, digester): (PathBuf, u64, Digester),
        (log, mut reader): (PathBuf, LogReader<File>),
        (storage_worker, peers): (StorageWorkerHandle, usize),
        alarm: &Alarm,
        mut report: impl FnMut(SnapshotTransferEvent) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (tasks, todo) = mpsc::channel();
        let mut work = Work {
            snapshots,
            seed,
            storage_worker,
            digester,
            receiving: None,
            basis: None,
            open: VecDeque::new(),
            open_max: peers + 1,
        };
        let ends = Arc::new(AtomicBool::new(false));
        let ended = ends.clone();
        let thread = alarm.spawn(name, move || {
            while let Ok(task) = todo.recv() {
                match task {
                    Task::Snapshot(task) => {
                        if let Err(error) = work.run_with_space(&task, &ended, &mut report) {
                            report(SnapshotTransferEvent::Failed(error));
                        }
                    }
                    Task::Stream(seq, chunks) => work.stream(seq, &chunks),
                    Task::ReadLog(range, segments) => {
                        let open = |segment| File::open(numbered(&log, segment)).ok();
                        report(SnapshotTransferEvent::Read(reader.read(range, &segments, open)));
                    }
                    Task::Stop => break,
                }
            }
        })?;
        Ok(Self {
            handle: SnapshotTransferHandle { tasks },
            ends,
            thread: Some(thread),
        })
    }

    pub fn handle(&self) -> SnapshotTransferHandle {
        self.handle.clone()
    }
}

impl Drop for SnapshotTransferWorker {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        let _ = self.handle.tasks.send(Task::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

struct Work {
    snapshots: PathBuf,
    seed: u64,
    storage_worker: StorageWorkerHandle,
    digester: Digester,
    receiving: Option<Received<File>>,
    /// The own snapshot that has pieces of it.
    basis: Option<LocalSnapshotDelta<File>>,
    /// Snapshots that are open, the one read last at the back: to open one reads a little of each of its
    /// chunks. What its name names no longer is never read, so being here keeps nothing: the orchestrator
    /// says which snapshots are kept for peers.
    open: VecDeque<(SeqNo, SnapshotFile)>,
    /// Each peer reads one snapshot at a time, and execution reads the one that came.
    open_max: usize,
}

impl Work {
    /// Does a task, and waits with it for space if there is none: what comes from others can come later.
    fn run_with_space(
        &mut self,
        task: &SnapshotTask,
        ends: &AtomicBool,
        report: &mut impl FnMut(SnapshotTransferEvent),
    ) -> Result<(), StorageError> {
        let mut complained = false;
        loop {
            match serve_snapshot_task(task, self, |event| report(SnapshotTransferEvent::Snapshot(event))) {
                Err(error) if is_lack(&error) && !ends.load(Ordering::Acquire) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!(%error, "no space or no open file for the state that others send: it waits until there is");
                    }
                    std::thread::sleep(ROOM_PAUSE);
                }
                done => return done,
            }
        }
    }

    /// The newest own snapshot, whatever its contents: every piece of it is checked.
    fn find_basis(&self, index: &Arc<SnapshotIndex>) -> Option<LocalSnapshotDelta<File>> {
        let entries = fs::read_dir(&self.snapshots).ok()?;
        let whole = entries.flatten().map(|entry| entry.path());
        let newest = whole.filter(|path| path.extension().is_none()).max()?;
        let basis = SnapshotFile::open(&newest, self.seed)
            .and_then(|snapshot| LocalSnapshotDelta::of(snapshot, index.clone()));
        basis
            .inspect_err(|error| tracing::debug!(%error, "nothing is taken of an own snapshot"))
            .ok()?
    }

    fn open(&mut self, seq: SeqNo) -> Result<&SnapshotFile, StorageError> {
        let at = self.open.iter().position(|(open, _)| *open == seq);
        let known = at.and_then(|at| self.open.remove(at));
        // The storage worker may have removed it, or put another one in its place.
        let snapshot = match known.filter(|(_, snapshot)| snapshot.is_in_place()) {
            Some((_, snapshot)) => snapshot,
            None => SnapshotFile::open(&self.snapshots.join(format!("{:016}", seq.get())), self.seed)?,
        };
        if self.open.len() >= self.open_max {
            self.open.pop_front();
        }
        self.open.push_back((seq, snapshot));
        Ok(&self.open[self.open.len() - 1].1)
    }

    fn stream(&mut self, seq: SeqNo, chunks: &ChunkSender) {
        let snapshot = match self.open(seq) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                let _ = chunks.send(Err(error));
                return;
            }
        };
        for number in 0..snapshot.chunks() {
            let chunk = snapshot.chunk(number).map(Bytes::from);
            let is_error = chunk.is_err();
            // Nobody listens any more when the replica ends.
            if chunks.send(chunk).is_err() || is_error {
                return;
            }
        }
    }
}

impl SnapshotTransferPort for Work {
    type Error = StorageError;

    fn receive(&mut self, seq: SeqNo, found: impl FnMut(&[u8])) -> Result<(), StorageError> {
        let path = received_path(&self.snapshots, seq);
        self.receiving = None;
        let entries =
            files::read_dir(&self.snapshots).map_err(StorageError::io(&self.snapshots, "cannot be read"))?;
        for entry in entries.flatten() {
            let other = entry.path();
            if other.extension().is_some_and(|extension| extension == "partial") && other != path {
                files::remove(&other).map_err(StorageError::io(&other, "cannot be removed"))?;
            }
        }
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = options.map_err(StorageError::io(&path, "cannot be made"))?;
        self.receiving = Some(Received::open((seq, &path), file, self.seed, found)?);
        Ok(())
    }

    fn compare(&mut self, index: &Arc<SnapshotIndex>) -> Option<Vec<Range<usize>>> {
        self.basis = self.find_basis(index);
        self.basis.as_ref().map(|basis| basis.pieces().to_vec())
    }

    fn add(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        self.receiving
            .as_mut()
            .map_or(Ok(()), |receiving| receiving.add(chunk))
    }

    fn copy(&mut self, pieces: &Range<usize>) -> Result<Option<Vec<usize>>, StorageError> {
        let (Some(basis), Some(receiving)) = (&self.basis, &mut self.receiving) else {
            return Ok(None);
        };
        let missing = basis.copy(pieces.clone(), &self.digester, |chunk| receiving.add(chunk))?;
        Ok(Some(missing))
    }

    fn close(&mut self, seq: SeqNo) -> Result<bool, StorageError> {
        self.basis = None;
        if let Some(receiving) = self.receiving.as_mut().filter(|receiving| receiving.seq == seq) {
            receiving.close()?;
        }
        let came = self.receiving.take();
        Ok(came.is_some_and(|came| came.seq == seq))
    }

    fn read(&mut self, range: PieceRange, bytes_max: usize) -> Vec<Bytes> {
        let snapshot = self.open(SeqNo::new(range.seq));
        let read = snapshot.and_then(|snapshot| snapshot.read_range(range, bytes_max));
        let read = read.inspect_err(|error| tracing::debug!(%error, "cannot read a snapshot for a peer"));
        read.unwrap_or_default()
    }

    fn storage(&mut self, task: StorageTask) {
        match &task {
            // Open, they would take up their room on disk.
            StorageTask::Forget(before, but) => {
                self.open.retain(|(seq, _)| seq >= before || but.contains(seq));
            }
            // Later ones are removed, and this one has another's place perhaps.
            StorageTask::InstallBase(seq) => self.open.retain(|(open, _)| open < seq),
            _ => {}
        }
        self.storage_worker.ask(task);
    }
}

#[cfg(test)]
mod tests;
