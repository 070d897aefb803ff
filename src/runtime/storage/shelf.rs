//! The thread that reads and writes what transfers carry: images of checkpoints, and decisions that only the
//! log holds.
//!
//! Beside the keeper, because a peer that waits for pieces must not wait for an image that is being written.

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
use super::image::{ImageFile, received_path};
use super::keeper::{KeeperHandle, ROOM_PAUSE, is_lack};
use super::logged::LogReader;
use super::received::Received;
use super::{StorageError, files};
use crate::runtime::shard::Alarm;
use crate::smr::crypto::Digester;
use crate::smr::decision_log::{LoggedDecisions, LoggedRange};
use crate::smr::messages::{ImageIndex, PieceRange};
use crate::smr::node::{KeeperTask, ShelfPort, shelve};
use crate::smr::protocol::{ImageEvent, ImageTask};
use crate::smr::types::SeqNo;

/// Chunks on their way to execution; an error ends them.
pub(crate) type ChunkSender = mpsc::SyncSender<Result<Bytes, StorageError>>;

enum Task {
    Image(ImageTask),
    Stream(SeqNo, ChunkSender),
    ReadLog(LoggedRange, Vec<u64>),
    Stop,
}

/// What the shelf has to say.
#[derive(Debug)]
pub(crate) enum Shelved {
    /// To the orchestrator.
    Event(ImageEvent),
    /// To the orchestrator: what was read of the log.
    Read(LoggedDecisions),
    /// The disk failed.
    Failed(StorageError),
}

/// Asks the shelf. Clones are equal.
#[derive(Debug, Clone)]
pub(crate) struct ShelfHandle {
    tasks: mpsc::Sender<Task>,
}

impl ShelfHandle {
    /// Does anything but installing.
    pub fn ask(&self, task: ImageTask) {
        // A shelf that is gone stops the replica by its own report.
        let _ = self.tasks.send(Task::Image(task));
    }

    /// Sends every chunk of an image, in the order of its pieces.
    pub fn stream(&self, seq: SeqNo, chunks: ChunkSender) {
        let _ = self.tasks.send(Task::Stream(seq, chunks));
    }

    /// Reads decisions from the log; `segments` may hold them.
    pub fn read_log(&self, range: LoggedRange, segments: Vec<u64>) {
        let _ = self.tasks.send(Task::ReadLog(range, segments));
    }
}

/// The shelf of one replica's directory.
pub(crate) struct Shelf {
    handle: ShelfHandle,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Shelf {
    /// Starts the thread, for the images in this directory under this seed, and the log in that one. `told`
    /// is called on it with everything it did, `alarm` when it panics.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub fn spawn(
        name: String,
        (images, seed, digester): (PathBuf, u64, Digester),
        (log, mut reader): (PathBuf, LogReader<File>),
        (keeper, peers): (KeeperHandle, usize),
        alarm: &Alarm,
        mut told: impl FnMut(Shelved) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (tasks, todo) = mpsc::channel();
        let mut work = Work {
            images,
            seed,
            keeper,
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
                    Task::Image(task) => {
                        if let Err(error) = work.run_with_space(&task, &ended, &mut told) {
                            told(Shelved::Failed(error));
                        }
                    }
                    Task::Stream(seq, chunks) => work.stream(seq, &chunks),
                    Task::ReadLog(range, segments) => {
                        let open = |segment| File::open(numbered(&log, segment)).ok();
                        told(Shelved::Read(reader.read(range, &segments, open)));
                    }
                    Task::Stop => break,
                }
            }
        })?;
        Ok(Self {
            handle: ShelfHandle { tasks },
            ends,
            thread: Some(thread),
        })
    }

    pub fn handle(&self) -> ShelfHandle {
        self.handle.clone()
    }
}

impl Drop for Shelf {
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
    images: PathBuf,
    seed: u64,
    keeper: KeeperHandle,
    digester: Digester,
    receiving: Option<Received<File>>,
    /// The own image that has pieces of it.
    basis: Option<LocalSnapshotDelta<File>>,
    /// Images that are open, the one read last at the back: to open one reads a little of each of its chunks.
    /// What its name names no longer is never read, so being here keeps nothing: the orchestrator says which
    /// images are kept for peers.
    open: VecDeque<(SeqNo, ImageFile)>,
    /// Each peer reads one image at a time, and execution reads the one that came.
    open_max: usize,
}

impl Work {
    /// Does a task, and waits with it for space if there is none: what comes from others can come later.
    fn run_with_space(
        &mut self,
        task: &ImageTask,
        ends: &AtomicBool,
        told: &mut impl FnMut(Shelved),
    ) -> Result<(), StorageError> {
        let mut complained = false;
        loop {
            match shelve(task, self, |event| told(Shelved::Event(event))) {
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

    /// The newest own image, whatever its contents: every piece of it is checked.
    fn find_basis(&self, index: &Arc<ImageIndex>) -> Option<LocalSnapshotDelta<File>> {
        let entries = fs::read_dir(&self.images).ok()?;
        let whole = entries.flatten().map(|entry| entry.path());
        let newest = whole.filter(|path| path.extension().is_none()).max()?;
        let basis = ImageFile::open(&newest, self.seed)
            .and_then(|image| LocalSnapshotDelta::of(image, index.clone()));
        basis
            .inspect_err(|error| tracing::debug!(%error, "nothing is taken of an own image"))
            .ok()?
    }

    fn open(&mut self, seq: SeqNo) -> Result<&ImageFile, StorageError> {
        let at = self.open.iter().position(|(open, _)| *open == seq);
        let known = at.and_then(|at| self.open.remove(at));
        // The keeper may have removed it, or put another one in its place.
        let image = match known.filter(|(_, image)| image.is_in_place()) {
            Some((_, image)) => image,
            None => ImageFile::open(&self.images.join(format!("{:016}", seq.get())), self.seed)?,
        };
        if self.open.len() >= self.open_max {
            self.open.pop_front();
        }
        self.open.push_back((seq, image));
        Ok(&self.open[self.open.len() - 1].1)
    }

    fn stream(&mut self, seq: SeqNo, chunks: &ChunkSender) {
        let image = match self.open(seq) {
            Ok(image) => image,
            Err(error) => {
                let _ = chunks.send(Err(error));
                return;
            }
        };
        for number in 0..image.chunks() {
            let chunk = image.chunk(number).map(Bytes::from);
            let is_error = chunk.is_err();
            // Nobody listens any more when the replica ends.
            if chunks.send(chunk).is_err() || is_error {
                return;
            }
        }
    }
}

impl ShelfPort for Work {
    type Error = StorageError;

    fn receive(&mut self, seq: SeqNo, found: impl FnMut(&[u8])) -> Result<(), StorageError> {
        let path = received_path(&self.images, seq);
        self.receiving = None;
        let entries =
            files::read_dir(&self.images).map_err(StorageError::io(&self.images, "cannot be read"))?;
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

    fn compare(&mut self, index: &Arc<ImageIndex>) -> Option<Vec<Range<usize>>> {
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
        let image = self.open(SeqNo::new(range.seq));
        let read = image.and_then(|image| image.read_range(range, bytes_max));
        let read = read.inspect_err(|error| tracing::debug!(%error, "cannot read an image for a peer"));
        read.unwrap_or_default()
    }

    fn keeper(&mut self, task: KeeperTask) {
        match &task {
            // Open, they would take up their room on disk.
            KeeperTask::Forget(before, but) => {
                self.open.retain(|(seq, _)| seq >= before || but.contains(seq));
            }
            // Later ones are removed, and this one has another's place perhaps.
            KeeperTask::Adopt(seq) => self.open.retain(|(open, _)| open < seq),
            _ => {}
        }
        self.keeper.ask(task);
    }
}

#[cfg(test)]
mod tests;
