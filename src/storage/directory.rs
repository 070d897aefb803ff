//! A replica's data directory: its files, who may open it, and how it is made.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::image::ImageFile;
use super::recovery::{Found, read_segment};
use super::repair::{AbstentionMark, set_log_aside};
use super::restart::Medium;
use super::{StorageError, Superblock};
use crate::types::{ClusterId, Epoch, NodeId, SeqNo, View};

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
    /// When it exists already, or cannot be written.
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
        let superblock = Superblock::first(cluster, node, epoch, rand::random());
        // Whole or not at all.
        let unfinished = name.with_extension("new");
        let mut file = File::create(&unfinished).map_err(StorageError::io(&unfinished, "cannot be made"))?;
        file.write_all(&superblock.first_file())
            .and_then(|()| file.sync_all())
            .map_err(StorageError::io(&unfinished, "cannot be written"))?;
        fs::rename(&unfinished, &name).map_err(StorageError::io(&name, "cannot be made"))?;
        sync_directory(path)?;
        Ok(Formatted)
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
        this.update(|superblock| superblock.starts += 1)?;
        Ok(this)
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

    /// Changes the superblock, on disk as well.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn update(&mut self, change: impl FnOnce(&mut Superblock)) -> Result<(), StorageError> {
        change(&mut self.superblock);
        self.superblock.generation += 1;
        self.superblock_file
            .write_all_at(&self.superblock.to_block(), self.superblock.offset())
            .and_then(|()| self.superblock_file.sync_data())
            .map_err(StorageError::io(
                &superblock_path(&self.path),
                "cannot be written",
            ))
    }

    /// Opens a segment as the log role needs it.
    ///
    /// # Errors
    /// When it is not there, or the file system has no `O_DIRECT`.
    pub fn open_segment(&self, index: u64) -> Result<File, StorageError> {
        open_direct(&self.segment_path(index))
    }

    /// Where a segment is.
    #[must_use]
    pub fn segment_path(&self, index: u64) -> PathBuf {
        numbered(&self.path.join("log"), index)
    }

    /// Where images are.
    #[must_use]
    pub fn images_path(&self) -> PathBuf {
        self.path.join("images")
    }

    /// Where the image of a checkpoint is.
    #[must_use]
    pub fn image_path(&self, seq: SeqNo) -> PathBuf {
        numbered(&self.path.join("images"), seq.get())
    }

    /// Makes a segment full of zeros, out of `recycled` if there is one.
    ///
    /// # Errors
    /// When there is no space, or it cannot be written.
    pub fn prepare_segment(
        &self,
        index: u64,
        bytes: u64,
        recycled: Option<u64>,
    ) -> Result<File, StorageError> {
        let (path, unfinished) = (self.segment_path(index), self.path.join("log").join("unfinished"));
        match recycled {
            // Groups of its earlier life have another segment's number.
            Some(old) => fs::rename(self.segment_path(old), &path).map_err(StorageError::io(
                &path,
                "cannot be made of a segment that is not needed any more",
            ))?,
            None => {
                fill_with_zeros(&unfinished, bytes)
                    .map_err(StorageError::io(&unfinished, "cannot be filled with zeros"))?;
                fs::rename(&unfinished, &path).map_err(StorageError::io(&path, "cannot be made"))?;
            }
        }
        sync_directory(&self.path.join("log"))?;
        open_direct(&path)
    }

    /// Removes the images of checkpoints before `seq`, but for some.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn forget_images(&self, seq: SeqNo, but: &[SeqNo]) -> Result<(), StorageError> {
        let images = list(&self.path.join("images"))?;
        let is_needed = |image: &&Found| image.index >= seq.get() || but.contains(&SeqNo::new(image.index));
        for old in images.iter().filter(|image| !is_needed(image)) {
            fs::remove_file(&old.path).map_err(StorageError::io(&old.path, "cannot be removed"))?;
        }
        Ok(())
    }
}

impl Medium for DataDirectory {
    type Image = File;

    fn path(&self) -> &Path {
        &self.path
    }

    fn superblock(&self) -> Superblock {
        self.superblock
    }

    fn segments(&self) -> Result<Vec<Found>, StorageError> {
        list(&self.path.join("log"))
    }

    fn read_segment(&self, segment: &Found) -> Result<Vec<u8>, StorageError> {
        read_segment(&segment.path)
    }

    fn images(&self) -> Result<Vec<SeqNo>, StorageError> {
        let found = list(&self.path.join("images"))?;
        Ok(found.iter().map(|image| SeqNo::new(image.index)).collect())
    }

    fn open_image(&self, seq: SeqNo) -> Result<ImageFile, StorageError> {
        ImageFile::open(&self.image_path(seq), self.superblock.seed)
    }

    fn set_image_aside(&mut self, seq: SeqNo) -> Result<(), StorageError> {
        let path = self.image_path(seq);
        if !path.exists() {
            return Ok(());
        }
        let aside = path.with_extension("damaged");
        fs::rename(&path, &aside).map_err(StorageError::io(&path, "cannot be set aside"))
    }

    fn abstention(&self) -> Option<Option<View>> {
        let mark = AbstentionMark::of(&self.path);
        mark.is_set().then(|| mark.view().map(View::new))
    }

    fn set_log_aside(&mut self, damage: &StorageError, view: Option<View>) -> Result<(), StorageError> {
        AbstentionMark::of(&self.path).set(&damage.to_string(), view.map(View::get))?;
        let aside = set_log_aside(&self.path)?;
        tracing::error!(evidence = %aside.display(), "the damaged log was moved");
        Ok(())
    }
}

fn superblock_path(path: &Path) -> PathBuf {
    path.join("superblock")
}

fn numbered(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016}"))
}

/// Reads the superblock of a directory without opening it: for tools.
///
/// # Errors
/// When it is not there, damaged, or another version's.
pub(crate) fn read_superblock(path: &Path) -> Result<Superblock, StorageError> {
    let name = superblock_path(path);
    let bytes = fs::read(&name).map_err(StorageError::io(&name, "cannot be read"))?;
    Superblock::newest(&name, &bytes)
}

fn lock(path: &Path) -> Result<File, StorageError> {
    let name = path.join("lock");
    let file = File::create(&name).map_err(StorageError::io(&name, "cannot be made"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(StorageError::io(&name, "cannot be locked")(source)),
    }
}

pub(super) fn sync_directory(path: &Path) -> Result<(), StorageError> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(StorageError::io(path, "cannot be synced"))
}

fn fill_with_zeros(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    let zeros = vec![0; 1 << 20];
    let mut left = bytes;
    while left > 0 {
        let count = left.min(zeros.len() as u64);
        file.write_all(&zeros[..count as usize])?;
        left -= count;
    }
    file.sync_all()
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
    let entries = fs::read_dir(directory).map_err(StorageError::io(directory, "cannot be read"))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StorageError::io(directory, "cannot be read"))?;
        if let Some(index) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            found.push(Found {
                index,
                path: entry.path(),
            });
        }
    }
    found.sort_by_key(|file| file.index);
    Ok(found)
}
