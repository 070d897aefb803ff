//! A replica's data directory: its files, who may open it, and how it is made.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::recovery::{Found, read_segment};
use super::repair::{AbstentionMark, set_log_aside};
use super::restart::StorageBackend;
use super::snapshot::{SnapshotFile, claim_of};
use super::{StorageError, Superblock, files};
use crate::smr::crypto::Digester;
use crate::smr::messages::CheckpointClaim;
use crate::smr::types::{ApplicationId, ClusterId, Epoch, NodeId, SeqNo, View};

/// The proof that a directory was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formatted;

/// A data directory that this process alone has open.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    superblock: Superblock,
    superblock_file: File,
    /// Held as long as the directory is open.
    _lock: File,
}

impl DataDirectory {
    /// Makes the directory of a replica that has never run.
    ///
    /// # Errors
    /// When it exists already, holds what a replica wrote before, or cannot be written.
    pub fn format(
        path: &Path,
        cluster: ClusterId,
        node: NodeId,
        epoch: Epoch,
    ) -> Result<Formatted, StorageError> {
        for directory in [path.to_owned(), path.join("log"), path.join("images")] {
            fs::create_dir_all(&directory).map_err(StorageError::io(&directory, "cannot be made"))?;
        }
        let name = superblock_path(path);
        if name.exists() {
            return Err(StorageError::AlreadyFormatted {
                path: path.to_owned(),
            });
        }
        for directory in [path.join("log"), path.join("images")] {
            if let Some(remains) = list(&directory)?.into_iter().next() {
                return Err(StorageError::Remains { path: remains.path });
            }
        }
        let superblock = Superblock::first(cluster, node, epoch, rand::random());
        // Whole or not at all.
        let unfinished = name.with_extension("new");
        let mut file = files::create(&unfinished).map_err(StorageError::io(&unfinished, "cannot be made"))?;
        files::write_all(&mut file, &superblock.first_file())
            .and_then(|()| files::sync(&file))
            .map_err(StorageError::io(&unfinished, "cannot be written"))?;
        files::rename(&unfinished, &name).map_err(StorageError::io(&name, "cannot be made"))?;
        sync_directory(path)?;
        // The directory's own name is in the one above.
        match path.parent() {
            Some(above) if above != Path::new("") => sync_directory(above)?,
            _ => sync_directory(Path::new("."))?,
        }
        Ok(Formatted)
    }

    /// Looks whether a directory is this replica's, without opening it.
    ///
    /// # Errors
    /// When it is not there, or is somebody else's or another version's.
    #[cfg(feature = "tools")]
    pub(crate) fn expect_of(path: &Path, cluster: ClusterId, node: NodeId) -> Result<(), StorageError> {
        let name = superblock_path(path);
        let read = files::expect_regular(&name).and_then(|()| match name.exists() {
            true => fs::read(&name).map(Some),
            false => Ok(None),
        });
        let bytes = read.map_err(StorageError::io(&name, "cannot be read"))?;
        Superblock::open(&name, bytes.as_deref(), cluster, node).map(|_| ())
    }

    /// Looks whether this process may write to a directory that is there, or make one where none is; leaves
    /// everything as it was. It may be open meanwhile.
    ///
    /// # Errors
    /// What [`open`](Self::open) would say, or [`format`](Self::format) where there is no directory.
    #[cfg(feature = "tools")]
    pub(crate) fn expect_writable(path: &Path) -> Result<(), StorageError> {
        let Ok(found) = fs::metadata(path) else {
            return expect_makeable(path);
        };
        if !found.is_dir() {
            // It has no superblock, which says enough.
            return Ok(());
        }
        // Files by these names are opened; where there are none yet, others try whether they can be made.
        let files = [
            (path.join("lock"), "cannot be made"),
            (superblock_path(path), "cannot be opened"),
            (path.join("log").join(UNFINISHED), "cannot be made"),
            (path.join("images").join(UNFINISHED), "cannot be made"),
        ];
        for (name, doing) in files {
            let directory = name
                .parent()
                .filter(|directory| directory.exists())
                .unwrap_or(path);
            files::expect_regular(&name).map_err(StorageError::io(&name, "cannot be used"))?;
            if name.exists() {
                let opened = OpenOptions::new().write(true).open(&name);
                opened.map_err(StorageError::io(&name, doing))?;
            }
            try_to_write(directory).map_err(StorageError::io(&name, doing))?;
        }
        Ok(())
    }

    /// Whether the directory at `path`, if there is one, is of this application or was never used.
    ///
    /// # Errors
    /// When it is another's, or cannot be read.
    pub fn check_application(path: &Path, application: ApplicationId) -> Result<(), StorageError> {
        match superblock_path(path).exists() {
            true => read_superblock(path)?.check_application(path, application),
            false => Ok(()),
        }
    }

    /// Opens the directory of a replica, alone.
    ///
    /// # Errors
    /// When it is not there, is somebody else's or another version's, or is open already.
    pub fn open(path: &Path, cluster: ClusterId, node: NodeId) -> Result<Self, StorageError> {
        let name = superblock_path(path);
        if !name.exists() {
            // Says that it was never made, or was lost.
            Superblock::open(&name, None, cluster, node)?;
        }
        files::expect_regular(&name).map_err(StorageError::io(&name, "cannot be used"))?;
        let lock = lock(path)?;
        let bytes = fs::read(&name).map_err(StorageError::io(&name, "cannot be read"))?;
        let superblock = Superblock::open(&name, Some(&bytes), cluster, node)?;
        let superblock_file = OpenOptions::new()
            .write(true)
            .open(&name)
            .map_err(StorageError::io(&name, "cannot be opened"))?;
        let mut this = Self {
            path: path.to_owned(),
            superblock,
            superblock_file,
            _lock: lock,
        };
        this.settle_names()?;
        this.update(|superblock| superblock.starts += 1)?;
        Ok(this)
    }

    /// Makes directories that are missing: what was in them is missed below, and replaced like what is
    /// damaged. Removes what was not finished, and has every name reach the disk: a file that was renamed
    /// before the last end may lose its name yet, and with it what is written to it from now on.
    fn settle_names(&self) -> Result<(), StorageError> {
        for directory in [self.path.join("log"), self.snapshots_path()] {
            if !directory.exists() {
                tracing::error!(directory = %directory.display(), "the directory was lost with what was in it; an empty one is made");
                fs::create_dir(&directory).map_err(StorageError::io(&directory, "cannot be made"))?;
            }
            let unfinished = |path: &Path| path.file_name().is_some_and(is_unfinished);
            let entries =
                files::read_dir(&directory).map_err(StorageError::io(&directory, "cannot be read"))?;
            for path in entries.flatten().map(|entry| entry.path()) {
                if unfinished(&path) {
                    files::remove(&path).map_err(StorageError::io(&path, "cannot be removed"))?;
                }
            }
            sync_directory(&directory)?;
        }
        sync_directory(&self.path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its superblock says.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Changes the superblock, on disk as well. What could not be written has not changed; the next attempt
    /// goes to the same copy, so that the other one stays whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn update(&mut self, change: impl FnOnce(&mut Superblock)) -> Result<(), StorageError> {
        let mut changed = self.superblock;
        change(&mut changed);
        changed.generation += 1;
        files::write_all_at(&self.superblock_file, &changed.to_block(), changed.offset())
            .and_then(|()| files::sync(&self.superblock_file))
            .map_err(StorageError::io(
                &superblock_path(&self.path),
                "cannot be written",
            ))?;
        self.superblock = changed;
        Ok(())
    }

    /// Opens a segment of `bytes` as the log role needs it: with all that was found in it on disk, and all of
    /// its room.
    ///
    /// # Errors
    /// When it is not there, cannot be synced, or the file system has no `O_DIRECT`.
    pub fn open_segment(&self, index: u64, bytes: u64) -> Result<File, StorageError> {
        let path = self.segment_path(index);
        // What a process wrote and did not sync is found, and believed, after its end.
        let file = OpenOptions::new().append(true).open(&path);
        file.and_then(|mut file| {
            let length = file.metadata()?.len();
            fill_with_zeros(&mut file, bytes.saturating_sub(length))
        })
        .map_err(StorageError::io(
            &path,
            "cannot be synced and filled up with zeros",
        ))?;
        open_direct(&path)
    }

    /// Where the log's segments are.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where a segment is.
    #[must_use]
    pub fn segment_path(&self, index: u64) -> PathBuf {
        numbered(&self.log_path(), index)
    }

    /// Where snapshots are.
    #[must_use]
    pub fn snapshots_path(&self) -> PathBuf {
        self.path.join("images")
    }

    /// Where the snapshot of a checkpoint is.
    #[must_use]
    pub fn snapshot_path(&self, seq: SeqNo) -> PathBuf {
        numbered(&self.path.join("images"), seq.get())
    }

    /// Makes a segment full of zeros, out of `recycled` if there is one. Asked again after a failure, it goes
    /// on.
    ///
    /// # Errors
    /// When there is no space, or it cannot be written.
    pub fn prepare_segment(
        &mut self,
        index: u64,
        bytes: u64,
        recycled: Option<u64>,
    ) -> Result<File, StorageError> {
        let (path, unfinished) = (self.segment_path(index), self.path.join("log").join(UNFINISHED));
        match recycled.map(|old| self.segment_path(old)) {
            _ if path.exists() => {}
            // Groups of its earlier life have another segment's number.
            Some(old) => files::rename(&old, &path).map_err(StorageError::io(
                &path,
                "cannot be made of a segment that is not needed any more",
            ))?,
            None => {
                let filled =
                    files::create(&unfinished).and_then(|mut file| fill_with_zeros(&mut file, bytes));
                filled
                    .inspect_err(|_| remove_leftover(&unfinished))
                    .map_err(StorageError::io(&unfinished, "cannot be filled with zeros"))?;
                files::rename(&unfinished, &path).map_err(StorageError::io(&path, "cannot be made"))?;
            }
        }
        sync_directory(&self.path.join("log"))?;
        let file = self.open_segment(index, bytes)?;
        if index > self.superblock.log_end {
            // From now on it is missed when it is gone.
            self.update(|superblock| superblock.log_end = index)?;
        }
        Ok(file)
    }

    /// Removes the snapshots of checkpoints before `seq`, but for some.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn forget_snapshots(&self, seq: SeqNo, but: &[SeqNo]) -> Result<(), StorageError> {
        let snapshots = list(&self.path.join("images"))?;
        let is_needed =
            |snapshot: &&Found| snapshot.index >= seq.get() || but.contains(&SeqNo::new(snapshot.index));
        for old in snapshots.iter().filter(|snapshot| !is_needed(snapshot)) {
            files::remove(&old.path).map_err(StorageError::io(&old.path, "cannot be removed"))?;
        }
        Ok(())
    }
}

impl DataDirectory {
    /// Removes the snapshots of checkpoints after `seq`, for good.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub(super) fn forget_snapshots_after(&self, seq: SeqNo) -> Result<(), StorageError> {
        let snapshots = list(&self.snapshots_path())?;
        let mut later = snapshots
            .iter()
            .filter(|snapshot| snapshot.index > seq.get())
            .peekable();
        if later.peek().is_none() {
            return Ok(());
        }
        for snapshot in later {
            files::remove(&snapshot.path).map_err(StorageError::io(&snapshot.path, "cannot be removed"))?;
        }
        // They would be believed if they came back when the superblock names a later one.
        sync_directory(&self.snapshots_path())
    }
}

impl StorageBackend for DataDirectory {
    type Snapshot = File;

    fn path(&self) -> &Path {
        &self.path
    }

    fn superblock(&self) -> Superblock {
        self.superblock
    }

    fn segments(&self) -> Result<Vec<Found>, StorageError> {
        segments(&self.path)
    }

    fn read_segment(&self, segment: &Found, bytes: &mut Vec<u8>) -> Result<(), StorageError> {
        read_segment(&segment.path, bytes)
    }

    fn snapshots(&self) -> Result<Vec<SeqNo>, StorageError> {
        let found = list(&self.path.join("images"))?;
        Ok(found.iter().map(|snapshot| SeqNo::new(snapshot.index)).collect())
    }

    fn open_snapshot(&self, seq: SeqNo) -> Result<SnapshotFile, StorageError> {
        SnapshotFile::open(&self.snapshot_path(seq), self.superblock.seed)
    }

    fn snapshot_claim(&self, seq: SeqNo, digester: &Digester) -> Result<CheckpointClaim, StorageError> {
        let path = self.snapshot_path(seq);
        let file = File::open(&path).map_err(StorageError::io(&path, "cannot be opened"))?;
        claim_of(&path, &file, self.superblock.seed, digester)
    }

    fn forget_snapshots_after(&mut self, seq: SeqNo) -> Result<(), StorageError> {
        Self::forget_snapshots_after(self, seq)
    }

    fn set_snapshot_aside(&mut self, seq: SeqNo) -> Result<(), StorageError> {
        let path = self.snapshot_path(seq);
        if !path.exists() {
            return Ok(());
        }
        let aside = path.with_extension("damaged");
        files::rename(&path, &aside).map_err(StorageError::io(&path, "cannot be set aside"))
    }

    fn abstention(&self) -> Option<Option<View>> {
        let mark = AbstentionMark::of(&self.path);
        mark.is_set().then(|| mark.view().map(View::new))
    }

    fn set_log_aside(&mut self, damage: &StorageError, view: Option<View>) -> Result<(), StorageError> {
        AbstentionMark::of(&self.path).set(&damage.to_string(), view.map(View::get))?;
        let aside = set_log_aside(&self.path)?;
        tracing::error!(evidence = %aside.display(), "the damaged log was moved");
        // Neither its segments nor what it said about views is missed.
        self.update(|superblock| (superblock.log_end, superblock.view) = (0, View::ZERO))
    }
}

pub(super) fn superblock_path(path: &Path) -> PathBuf {
    path.join("superblock")
}

pub(super) fn numbered(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016}"))
}

/// Reads the superblock of a directory without opening it: for tools.
///
/// # Errors
/// When it is not there, damaged, or another version's.
pub(crate) fn read_superblock(path: &Path) -> Result<Superblock, StorageError> {
    let name = superblock_path(path);
    let read = files::expect_regular(&name).and_then(|()| fs::read(&name));
    let bytes = read.map_err(StorageError::io(&name, "cannot be read"))?;
    Superblock::newest(&name, &bytes)
}

/// Whether a directory could be made that is not there, and those above it that are missing.
#[cfg(feature = "tools")]
fn expect_makeable(path: &Path) -> Result<(), StorageError> {
    let above = path.ancestors().skip(1).find(|above| above.exists());
    let above = above
        .filter(|above| *above != Path::new(""))
        .unwrap_or(Path::new("."));
    let tried = tried_in(above);
    fs::create_dir(&tried)
        .and_then(|()| fs::remove_dir(&tried))
        .map_err(StorageError::io(path, "cannot be made"))
}

#[cfg(feature = "tools")]
fn try_to_write(directory: &Path) -> std::io::Result<()> {
    let tried = tried_in(directory);
    File::create_new(&tried)?;
    fs::remove_file(&tried)
}

/// What is made to see whether it can be, and removed at once.
#[cfg(feature = "tools")]
fn tried_in(directory: &Path) -> PathBuf {
    directory.join(format!(".atlas-check-{}", std::process::id()))
}

fn lock(path: &Path) -> Result<File, StorageError> {
    let name = path.join("lock");
    files::expect_regular(&name).map_err(StorageError::io(&name, "cannot be used"))?;
    let file = File::create(&name).map_err(StorageError::io(&name, "cannot be made"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(StorageError::io(&name, "cannot be locked")(source)),
    }
}

/// The segments of the log of a directory, in order.
pub(super) fn segments(path: &Path) -> Result<Vec<Found>, StorageError> {
    list(&path.join("log"))
}

pub(super) fn sync_directory(path: &Path) -> Result<(), StorageError> {
    files::sync_directory(path).map_err(StorageError::io(path, "cannot be synced"))
}

/// What a segment is called, and a snapshot's name ends with, before it is whole.
pub(super) const UNFINISHED: &str = "unfinished";

fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|extension| extension == UNFINISHED)
        || name == UNFINISHED
}

/// Gives the space of what could not be finished back, as far as possible: there may be too little.
pub(super) fn remove_leftover(path: &Path) {
    if let Err(error) = files::remove(path) {
        tracing::warn!(path = %path.display(), %error, "what could not be finished cannot be removed");
    }
}

/// Appends so many zeros, and has the file reach the disk.
fn fill_with_zeros(file: &mut File, bytes: u64) -> std::io::Result<()> {
    let zeros = vec![0; bytes.min(1 << 20) as usize];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(zeros.len() as u64);
        files::write_all(file, &zeros[..count as usize])?;
        left -= count;
    }
    files::sync(file)
}

fn open_direct(path: &Path) -> Result<File, StorageError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .map_err(StorageError::io(
            path,
            "cannot be opened with O_DIRECT; keep `db_path` on a file system of a disk (ext4, xfs), not on tmpfs",
        ))
}

/// The files of a directory whose names are numbers, in order.
pub(crate) fn list(directory: &Path) -> Result<Vec<Found>, StorageError> {
    let entries = files::read_dir(directory).map_err(StorageError::io(directory, "cannot be read"))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StorageError::io(directory, "cannot be read"))?;
        if let Some(index) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            let path = entry.path();
            files::expect_regular(&path).map_err(StorageError::io(&path, "cannot be used"))?;
            found.push(Found { index, path });
        }
    }
    found.sort_by_key(|file| file.index);
    Ok(found)
}
