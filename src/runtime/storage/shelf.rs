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

use super::basis::Basis;
use super::directory::numbered;
use super::image::{ImageFile, chunk_head, each_sound, file_magic, received_path};
use super::keeper::{KeeperHandle, ROOM_PAUSE, is_lack};
use super::logged::LogReader;
use super::{StorageError, files};
use crate::runtime::shard::Alarm;
use crate::smr::crypto::Digester;
use crate::smr::decision_log::{LoggedDecisions, LoggedRange};
use crate::smr::messages::{ImageIndex, PieceRange};
use crate::smr::node::KeeperTask;
use crate::smr::protocol::{ImageEvent, ImageTask};
use crate::smr::types::SeqNo;

/// How many bytes that came gather before the disk is told to write them.
const WRITTEN_AT_ONCE: u64 = 8 << 20;

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

/// An image that comes from others.
struct Receiving {
    seq: SeqNo,
    path: PathBuf,
    file: File,
    written: u64,
    /// What the disk was told to write already.
    begun: u64,
    /// All of it is on disk.
    is_synced: bool,
}

struct Work {
    images: PathBuf,
    seed: u64,
    keeper: KeeperHandle,
    digester: Digester,
    receiving: Option<Receiving>,
    /// The own image that has pieces of it.
    basis: Option<Basis<File>>,
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
            match self.run(task, told) {
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

    /// Does a task. One that failed can be done again.
    fn run(&mut self, task: &ImageTask, told: &mut impl FnMut(Shelved)) -> Result<(), StorageError> {
        match *task {
            ImageTask::Open { seq, ref index } => {
                self.receive(seq, told)?;
                self.basis = self.find_basis(index);
                if let Some(basis) = &self.basis {
                    let pieces = basis.pieces().to_vec();
                    told(Shelved::Event(ImageEvent::Reusable { seq, pieces }));
                }
                told(Shelved::Event(ImageEvent::Opened(seq)));
            }
            ImageTask::Keep(ref chunk) => {
                self.keep(chunk)?;
                told(Shelved::Event(ImageEvent::Kept(chunk.len())));
            }
            ImageTask::Copy(ref pieces) => {
                let missing = self.copy(pieces)?;
                let pieces = pieces.clone();
                told(Shelved::Event(ImageEvent::Copied { pieces, missing }));
            }
            ImageTask::Complete(seq) => {
                self.basis = None;
                // The keeper puts it in its place, and tells when a restart begins with it.
                self.complete(seq)?;
            }
            ImageTask::Read { to, range, bytes_max } => {
                let mut chunks = self.read(range, bytes_max).unwrap_or_else(|error| {
                    tracing::debug!(%error, "cannot read an image for a peer");
                    Vec::new()
                });
                if chunks.is_empty() {
                    // Says that it is not there.
                    chunks.push(Bytes::new());
                }
                let (seq, count) = (SeqNo::new(range.seq), chunks.len());
                for (number, bytes) in chunks.into_iter().enumerate() {
                    let last = number + 1 == count;
                    told(Shelved::Event(ImageEvent::Chunk { to, seq, last, bytes }));
                }
            }
            ImageTask::Forget { before, ref but } => {
                // Open, they would take up their room on disk.
                self.open.retain(|(seq, _)| *seq >= before || but.contains(seq));
                self.keeper.ask(KeeperTask::Forget(before, but.clone()));
            }
            ImageTask::Disown => self.keeper.ask(KeeperTask::Disown),
            ImageTask::Install(_) => {}
        }
        Ok(())
    }

    /// Opens the file of an image to come, after what an earlier attempt kept; other attempts are removed.
    fn receive(&mut self, seq: SeqNo, told: &mut impl FnMut(Shelved)) -> Result<(), StorageError> {
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
        let mut written = 0;
        // Only what can be read without an error is taken for kept.
        let found = each_sound(&path, &file, self.seed, |chunk, end| {
            written = end;
            told(Shelved::Event(ImageEvent::Found(Bytes::copy_from_slice(chunk))));
        });
        if found.is_err() || written == 0 {
            let magic = file_magic();
            written = magic.len() as u64;
            file.set_len(0)
                .and_then(|()| files::write_all_at(&file, magic, 0))
                .map_err(StorageError::io(&path, "cannot be written"))?;
        }
        file.set_len(written)
            .map_err(StorageError::io(&path, "cannot be written"))?;
        self.receiving = Some(Receiving {
            seq,
            path,
            file,
            written,
            begun: written,
            is_synced: false,
        });
        Ok(())
    }

    /// The newest own image, whatever its contents: every piece of it is checked.
    fn find_basis(&self, index: &Arc<ImageIndex>) -> Option<Basis<File>> {
        let entries = fs::read_dir(&self.images).ok()?;
        let whole = entries.flatten().map(|entry| entry.path());
        let newest = whole.filter(|path| path.extension().is_none()).max()?;
        let basis = ImageFile::open(&newest, self.seed).and_then(|image| Basis::of(image, index.clone()));
        basis
            .inspect_err(|error| tracing::debug!(%error, "nothing is taken of an own image"))
            .ok()?
    }

    /// Adds pieces of the own image; those that are missing.
    fn copy(&mut self, pieces: &Range<usize>) -> Result<Vec<usize>, StorageError> {
        let Some(basis) = self.basis.take() else {
            return Ok(pieces.clone().collect());
        };
        let digester = self.digester.clone();
        let missing = basis.copy(pieces.clone(), &digester, |chunk| self.keep(chunk));
        self.basis = Some(basis);
        missing
    }

    fn keep(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        let Some(receiving) = &mut self.receiving else {
            return Ok(());
        };
        let head = chunk_head(receiving.written, chunk, self.seed);
        let at = receiving.written;
        files::write_all_at(&receiving.file, &head, at)
            .and_then(|()| files::write_all_at(&receiving.file, chunk, at + head.len() as u64))
            .map_err(StorageError::io(&receiving.path, "cannot be written"))?;
        receiving.written += (head.len() + chunk.len()) as u64;
        let waiting = receiving.written - receiving.begun;
        if waiting >= WRITTEN_AT_ONCE {
            files::begin_writing(&receiving.file, receiving.begun, waiting);
            receiving.begun = receiving.written;
        }
        Ok(())
    }

    /// The image that came is whole, if it is the one that was asked for. The keeper puts it in its place,
    /// after the own images that it was given before: one of a state that is wrong would take its place else.
    fn complete(&mut self, seq: SeqNo) -> Result<(), StorageError> {
        let Some(receiving) = self.receiving.as_ref().filter(|receiving| receiving.seq == seq) else {
            self.receiving = None;
            return Ok(());
        };
        if !receiving.is_synced {
            let whole = receiving.written;
            self.keep(&[])?;
            self.sync(whole)?;
        }
        self.receiving = None;
        // Later ones are removed, and this one has another's place perhaps.
        self.open.retain(|(open, _)| *open < seq);
        // A restart begins with it from now on.
        self.keeper.ask(KeeperTask::Adopt(seq));
        Ok(())
    }

    /// Syncs the image that came. Before its last chunk there are so many bytes.
    fn sync(&mut self, whole: u64) -> Result<(), StorageError> {
        let Some(receiving) = &mut self.receiving else {
            return Ok(());
        };
        // Done again after a failure, the last chunk goes to the same place.
        receiving.written = whole;
        let start = std::time::Instant::now();
        files::sync(&receiving.file).map_err(StorageError::io(&receiving.path, "cannot be synced"))?;
        receiving.is_synced = true;
        tracing::debug!(seq = %receiving.seq, bytes = whole, sync = ?start.elapsed(), "a state from other replicas is on disk");
        Ok(())
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

    fn read(&mut self, range: PieceRange, bytes_max: usize) -> Result<Vec<Bytes>, StorageError> {
        self.open(SeqNo::new(range.seq))?.read_range(range, bytes_max)
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

#[cfg(test)]
mod tests;
