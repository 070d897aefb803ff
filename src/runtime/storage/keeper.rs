//! The threads that do what takes long on disk and what nobody waits for.
//!
//! One writes images of checkpoints and nothing else, which may take seconds; the other does the rest, so
//! that the log never waits for an image to get its next segment.
//!
//! In which order what is done, and why: [`crate::smr::node::Keeper`].

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::directory::numbered;
use super::{DataDirectory, StorageError, files, image};
use crate::runtime::shard::Alarm;
use crate::smr::execution::{CheckpointHelp, CheckpointImage};
use crate::smr::node::{self, KeeperEvent, KeeperOutcome, KeeperStep, KeeperTask};
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
    Keep(KeeperTask),
    /// An image of execution's state was written, after so many others had been installed; how many bytes it
    /// has.
    Written(u64, Result<(SeqNo, u64), StorageError>),
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
    /// Asks for anything but keeping an image that execution gives.
    pub fn ask(&self, task: KeeperTask) {
        // A keeper that is gone stops the replica by its own report.
        let _ = self.tasks.send(Task::Keep(task));
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

    /// Execution has the state that was adopted: what it gives from now on are images of that.
    pub fn installed(&self) {
        self.shared.installed.fetch_add(1, Ordering::Relaxed);
        self.ask(KeeperTask::Installed);
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
    keeper: node::Keeper,
    shared: Arc<Shared>,
    /// Of room for segments.
    lack: Lack,
}

impl Work {
    pub fn new(directory: DataDirectory, spare: Vec<u64>) -> Self {
        let named = directory.superblock().image;
        let named = Some(named).filter(|named| directory.image_path(*named).exists());
        Self {
            directory,
            keeper: node::Keeper::new(spare, named),
            shared: Arc::default(),
            lack: Lack::default(),
        }
    }

    pub fn run(&mut self, task: Task) -> Option<Kept> {
        match task {
            Task::Keep(task) => self.keep(task),
            Task::Written(installed, written) => {
                let kept = match written {
                    Ok((seq, bytes)) => {
                        let kept = self.keep(KeeperTask::Written { installed, seq });
                        if matches!(kept, Some(Kept::Image(_))) {
                            self.shared.image_bytes.store(bytes, Ordering::Relaxed);
                        }
                        kept
                    }
                    Err(error) if is_lack(&error) => {
                        complain_of_image(&error);
                        None
                    }
                    Err(error) => Some(Kept::Failed(error)),
                };
                self.shared.is_writing.store(false, Ordering::Release);
                kept
            }
            Task::Stop => None,
        }
    }

    /// Does a task step by step. What cannot be left undone waits for space or descriptors if there are none.
    fn keep(&mut self, task: KeeperTask) -> Option<Kept> {
        self.keeper.begin(task);
        let (mut kept, mut complained) = (None, false);
        while let Some(step) = self.keeper.next_step() {
            let (outcome, file, lack) = match act(&mut self.directory, step) {
                Ok(file) => (KeeperOutcome::Done, file, None),
                Err(error) if is_lack(&error) && step.may_lack_room() => {
                    (KeeperOutcome::NoRoom, None, Some(error))
                }
                Err(error) => return Some(Kept::Failed(error)),
            };
            let event = self.keeper.on_ended(outcome);
            match (&event, lack) {
                (Some(KeeperEvent::NoSegment), Some(error)) if self.lack.begins(Instant::now()) => {
                    tracing::error!(%error, "no space or no open file for another segment of the log: nothing is voted until there is");
                }
                (Some(KeeperEvent::NoImage), Some(error)) => complain_of_image(&error),
                (None, Some(error)) if self.keeper.next_step().is_some() => {
                    if self.shared.ends.load(Ordering::Acquire) {
                        return Some(Kept::Failed(error));
                    }
                    if !std::mem::replace(&mut complained, true) {
                        tracing::error!(%error, "no space or no open file to take over the state that others sent: it waits");
                    }
                    std::thread::sleep(ROOM_PAUSE);
                }
                (Some(KeeperEvent::Segment(_)), None) if self.lack.ends() => {
                    tracing::warn!("there is room for the log again: votes go on");
                }
                _ => {}
            }
            kept = match event {
                Some(KeeperEvent::Segment(index)) => file.map(|file| Kept::Segment { index, file }),
                Some(KeeperEvent::NoSegment) => Some(Kept::NoSegment),
                Some(KeeperEvent::Image(seq)) => Some(Kept::Image(seq)),
                Some(KeeperEvent::Adopted(seq)) => Some(Kept::Adopted(seq)),
                Some(KeeperEvent::NoImage) | None => None,
            };
        }
        kept
    }
}

/// Does a step; the segment that was prepared, if it was that.
fn act(directory: &mut DataDirectory, step: &KeeperStep) -> Result<Option<File>, StorageError> {
    match step {
        KeeperStep::Prepare {
            index,
            bytes,
            recycled,
        } => return directory.prepare_segment(*index, *bytes, *recycled).map(Some),
        KeeperStep::Cut(released) => {
            directory.update(|superblock| superblock.cut(released.log_start, released.view))?;
        }
        KeeperStep::Place(seq) => image::place(&directory.image_path(*seq))?,
        KeeperStep::Discard(seq) => image::discard(&directory.image_path(*seq)),
        KeeperStep::PlaceReceived(seq) => image::place_received(&directory.images_path(), *seq)?,
        KeeperStep::Name(seq) => directory.update(|superblock| superblock.image = *seq)?,
        KeeperStep::ForgetAfter(seq) => directory.forget_images_after(*seq)?,
        KeeperStep::Forget(before, but) => directory.forget_images(*before, but)?,
    }
    Ok(None)
}

fn complain_of_image(error: &StorageError) {
    tracing::error!(%error, "no space or no open file for the image of a checkpoint; the log grows until there is");
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
