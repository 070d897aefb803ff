//! The threads that do what takes long on disk and what nobody waits for.
//!
//! One writes images of checkpoints and nothing else, which may take seconds; the other does the rest, so
//! that the log never waits for an image to get its next segment.
//!
//! **Adopting.** A state that came from others replaces the one that execution has, which may be wrong. From
//! then on no image of the replaced state may be believed, whatever is under way when the replica stops:
//! - *A state is found to be wrong:* no image of it is placed any more.
//! - *The image that came is put in its place here*, after the own images that were written before it: one of
//!   the wrong state with the same number is replaced, and does not replace it.
//! - *The superblock names the image that came; then the later ones are removed.* A restart in between begins
//!   with it, and removes what is left of the later ones ([`restart`](super::restart)). Only then execution
//!   reads it, and only then another one may come: were one placed meanwhile, it would be removed with the
//!   later ones, and be named all the same.
//! - *Images that are being written* are of the state that execution had when it gave them: each carries how
//!   many states had been installed then. It is placed if that is still so, and none was adopted since. To
//!   write one may take longer than to install a state.
//! - *Earlier images* stay: when this replica only fell behind they are sound, and peers may need them. Those
//!   of a wrong state are told apart by their heads: after a restart an image is offered as what its own head
//!   says, and only that can be proved.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::directory::numbered;
use super::{DataDirectory, Released, StorageError, files, image};
use crate::runtime::shard::Alarm;
use crate::smr::execution::{CheckpointHelp, CheckpointImage};
use crate::smr::node::SnapshotTrust;
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

/// What the keeper is asked to do.
#[derive(Debug)]
pub(super) enum Task {
    Prepare {
        index: u64,
        bytes: u64,
    },
    Release(Released),
    /// An image of execution's state was written, after so many others had been installed; how many bytes it
    /// has.
    Written(u64, Result<(SeqNo, u64), StorageError>),
    Disown,
    Adopt(SeqNo),
    Installed,
    Forget(SeqNo, Vec<SeqNo>),
    Stop,
}

/// What the thread for images is asked to do.
#[derive(Debug)]
enum ImageWork {
    Help(CheckpointHelp),
    /// After so many states were installed.
    Write(u64, Box<dyn CheckpointImage>),
    Stop,
}

/// What the keeper did.
#[derive(Debug)]
pub(crate) enum Kept {
    /// A segment can be used.
    Segment { index: u64, file: File },
    /// A segment cannot be made for now; it may be asked for again.
    NoSegment,
    /// The contents of a checkpoint are on disk.
    Image(SeqNo),
    /// A restart begins with this image, which came from others.
    Adopted(SeqNo),
    /// The disk failed.
    Failed(StorageError),
}

/// Asks the keeper. Clones are equal.
#[derive(Debug, Clone)]
pub(crate) struct KeeperHandle {
    tasks: mpsc::Sender<Task>,
    images: mpsc::Sender<ImageWork>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The replica ends: nothing is waited for any more.
    ends: AtomicBool,
    is_writing: AtomicBool,
    image_bytes: AtomicU64,
    /// How many states from others execution has read. Written and read on its thread alone.
    installed: AtomicU64,
}

impl KeeperHandle {
    pub fn prepare(&self, index: u64, bytes: u64) {
        // A keeper that is gone stops the replica by its own report.
        let _ = self.tasks.send(Task::Prepare { index, bytes });
    }

    /// The log was cut.
    pub fn release(&self, released: Released) {
        let _ = self.tasks.send(Task::Release(released));
    }

    /// Keeps an image of the state that execution has, unless another one is being written: then this one is
    /// dropped.
    pub fn keep(&self, image: Box<dyn CheckpointImage>) {
        if !self.shared.is_writing.swap(true, Ordering::AcqRel) {
            let installed = self.shared.installed.load(Ordering::Relaxed);
            let _ = self.images.send(ImageWork::Write(installed, image));
        }
    }

    /// Helps with the digest of a checkpoint whose image will come.
    pub fn help(&self, help: CheckpointHelp) {
        let _ = self.images.send(ImageWork::Help(help));
    }

    /// The state that execution has is wrong: no more images of it are kept until another one is
    /// [installed](Self::installed).
    pub fn disown(&self) {
        let _ = self.tasks.send(Task::Disown);
    }

    /// An image that came from others is whole: it is put in its place, and a restart begins with it from now
    /// on. Later ones of the state that it replaces are removed, and no more are kept until it is
    /// [installed](Self::installed).
    pub fn adopt(&self, seq: SeqNo) {
        let _ = self.tasks.send(Task::Adopt(seq));
    }

    /// Execution has the state that was adopted: what it gives from now on are images of that.
    pub fn installed(&self) {
        self.shared.installed.fetch_add(1, Ordering::Relaxed);
        let _ = self.tasks.send(Task::Installed);
    }

    /// A handle of a keeper that does nothing but take tasks.
    #[cfg(test)]
    pub(super) fn detached() -> (Self, mpsc::Receiver<Task>) {
        let (tasks, todo) = mpsc::channel();
        let (images, _) = mpsc::channel();
        let handle = Self {
            tasks,
            images,
            shared: Arc::default(),
        };
        (handle, todo)
    }

    /// Images before this one are not needed any more, but for some.
    pub fn forget(&self, before: SeqNo, but: Vec<SeqNo>) {
        let _ = self.tasks.send(Task::Forget(before, but));
    }

    /// Whether an image is being written.
    pub fn is_writing(&self) -> bool {
        self.shared.is_writing.load(Ordering::Acquire)
    }

    /// The size of the last image, in bytes.
    pub fn image_bytes(&self) -> u64 {
        self.shared.image_bytes.load(Ordering::Relaxed)
    }
}

/// The keeper of one replica's directory.
pub(crate) struct Keeper {
    handle: KeeperHandle,
    threads: Vec<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the threads. `spare` are segments that are not needed any more; `told` is called on it with
    /// everything it did, `alarm` when one of them panics.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn spawn(
        (name, images_name): (String, String),
        directory: DataDirectory,
        spare: Vec<u64>,
        alarm: &Alarm,
        mut told: impl FnMut(Kept) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (tasks, todo) = mpsc::channel();
        let (images, to_write) = mpsc::channel();
        let place = (directory.images_path(), directory.superblock().seed);
        let mut work = Work::new(directory, spare);
        let shared = work.shared.clone();
        let handle = KeeperHandle {
            tasks,
            images,
            shared,
        };
        let written = handle.tasks.clone();
        let images = alarm.spawn(images_name, move || {
            let (directory, seed) = place;
            for work in to_write {
                match work {
                    ImageWork::Help(help) => help.run(),
                    ImageWork::Write(installed, image) => {
                        let seq = image.claim().seq;
                        let write = AssertUnwindSafe(|| write_image(&directory, seed, image));
                        let image = catch_unwind(write).unwrap_or_else(|_| {
                            // It printed what it had to say.
                            Err(StorageError::ImagePanicked {
                                path: numbered(&directory, seq.get()),
                            })
                        });
                        // A keeper that is gone needs no image.
                        let _ = written.send(Task::Written(installed, image));
                    }
                    ImageWork::Stop => break,
                }
            }
        })?;
        let keeper = alarm.spawn(name, move || {
            while let Ok(task) = todo.recv() {
                if matches!(task, Task::Stop) {
                    break;
                }
                if let Some(kept) = work.run(task) {
                    told(kept);
                }
            }
        })?;
        Ok(Self {
            handle,
            threads: vec![images, keeper],
        })
    }

    pub fn handle(&self) -> KeeperHandle {
        self.handle.clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.handle.shared.ends.store(true, Ordering::Release);
        let _ = self.handle.images.send(ImageWork::Stop);
        let _ = self.handle.tasks.send(Task::Stop);
        for thread in self.threads.drain(..) {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// The keeper's work, on whatever thread.
pub(super) struct Work {
    pub directory: DataDirectory,
    /// Segments that are not needed any more.
    recycled: Vec<u64>,
    shared: Arc<Shared>,
    trust: SnapshotTrust,
    /// Of room for segments.
    lack: Lack,
}

impl Work {
    pub fn new(directory: DataDirectory, spare: Vec<u64>) -> Self {
        Self {
            directory,
            recycled: spare,
            shared: Arc::default(),
            trust: SnapshotTrust::default(),
            lack: Lack::default(),
        }
    }

    pub fn run(&mut self, task: Task) -> Option<Kept> {
        match task {
            Task::Prepare { index, bytes } => {
                let recycled = self.recycled.last().copied();
                match self.directory.prepare_segment(index, bytes, recycled) {
                    Ok(file) => {
                        // An attempt that failed may have made it of nothing.
                        self.recycled
                            .pop_if(|old| !self.directory.segment_path(*old).exists());
                        if self.lack.ends() {
                            tracing::warn!("there is room for the log again: votes go on");
                        }
                        Some(Kept::Segment { index, file })
                    }
                    Err(error) if is_lack(&error) => {
                        if self.lack.begins(Instant::now()) {
                            tracing::error!(%error, "no space or no open file for another segment of the log: nothing is voted until there is");
                        }
                        Some(Kept::NoSegment)
                    }
                    Err(error) => Some(Kept::Failed(error)),
                }
            }
            Task::Release(Released {
                log_start,
                view,
                gone,
            }) => {
                // First nobody looks there any more, then the files are used again.
                let moved = self
                    .directory
                    .update(|superblock| superblock.cut(log_start, view));
                self.recycled.extend(gone);
                moved.err().map(Kept::Failed)
            }
            Task::Written(installed, written) => {
                let is_current = self.trust.believes(installed);
                let kept = written.and_then(|(seq, bytes)| self.keep(seq, bytes, is_current));
                self.shared.is_writing.store(false, Ordering::Release);
                match kept {
                    Ok(kept) => kept.map(Kept::Image),
                    Err(error) if is_lack(&error) => {
                        tracing::error!(%error, "no space or no open file for the image of a checkpoint; the log grows until there is");
                        None
                    }
                    Err(error) => Some(Kept::Failed(error)),
                }
            }
            Task::Disown => {
                self.trust.distrust();
                None
            }
            Task::Adopt(seq) => {
                self.trust.distrust();
                Some(match self.until_there_is_room(|this| this.adopt(seq)) {
                    Ok(()) => Kept::Adopted(seq),
                    Err(error) => Kept::Failed(error),
                })
            }
            Task::Installed => {
                self.trust.installed();
                None
            }
            Task::Forget(before, but) => match self.directory.forget_images(before, &but) {
                // What is left is forgotten with the next ones.
                Err(error) if !is_lack(&error) => Some(Kept::Failed(error)),
                Ok(()) | Err(_) => None,
            },
            Task::Stop => None,
        }
    }

    /// Does what cannot be left undone, and waits with it for space or descriptors if there are none.
    fn until_there_is_room(
        &mut self,
        mut act: impl FnMut(&mut Self) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        let mut complained = false;
        loop {
            match act(self) {
                Err(error) if is_lack(&error) && !self.shared.ends.load(Ordering::Acquire) => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!(%error, "no space or no open file to take over the state that others sent: it waits");
                    }
                    std::thread::sleep(ROOM_PAUSE);
                }
                done => return done,
            }
        }
    }

    /// Puts an own image that was written into its place, unless it is of a state that was, or is being,
    /// replaced.
    fn keep(&mut self, seq: SeqNo, bytes: u64, is_current: bool) -> Result<Option<SeqNo>, StorageError> {
        let path = self.directory.image_path(seq);
        if !is_current {
            image::discard(&path);
            return Ok(None);
        }
        image::place(&path)?;
        self.shared.image_bytes.store(bytes, Ordering::Relaxed);
        let last = self.directory.superblock().image;
        if SnapshotTrust::begins_with(seq, last, self.directory.image_path(last).exists()) {
            self.directory.update(|superblock| superblock.image = seq)?;
        }
        Ok(Some(seq))
    }

    /// Has a restart begin with an image that came from others. Our own later ones are of a state that a
    /// quorum contradicted, or that no log of ours leads on from.
    fn adopt(&mut self, seq: SeqNo) -> Result<(), StorageError> {
        image::place_received(&self.directory.images_path(), seq)?;
        if self.directory.superblock().image != seq {
            self.directory.update(|superblock| superblock.image = seq)?;
        }
        self.directory.forget_images_after(seq)
    }
}

/// Writes an image beside its place in the directory of images.
pub(super) fn write_image(
    directory: &Path,
    seed: u64,
    mut image: Box<dyn CheckpointImage>,
) -> Result<(SeqNo, u64), StorageError> {
    let seq = image.claim().seq;
    let bytes = image::write_beside(&numbered(directory, seq.get()), &mut *image, seed)?;
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
