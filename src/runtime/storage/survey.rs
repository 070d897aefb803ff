//! A data directory, looked at without opening it: for tools.
//!
//! Nothing is changed, and no lock is taken, so a replica may have the directory open meanwhile, and may
//! start at any time. Beside a running replica a look is only as good as its moment: the end of the log is in
//! motion, and segments are renamed and snapshots removed after checkpoints. What looks damaged then is
//! looked at again before it is believed.

mod log;
mod snapshot;

pub use log::{LogSurvey, LoggedRecord};
pub use snapshot::SurveyedSnapshot;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::directory::{list, read_superblock, superblock_path};
use super::recovery::Found;
use super::{BLOCK_BYTES, StorageError, Superblock};
use crate::smr::crypto::Digester;

/// How often what looks damaged beside a running replica is looked at before it is believed, and the pause in
/// between.
const LOOKS: usize = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// One copy of the superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuperblockCopy {
    /// Whole.
    Sound(Superblock),
    /// Of another format version.
    Version(u16),
    /// Not written yet: zeros.
    Blank,
    /// Neither: torn, or damaged.
    Damaged,
}

/// A directory that is looked at.
#[derive(Debug)]
pub struct Survey {
    path: PathBuf,
    copies: [SuperblockCopy; 2],
    superblock: Superblock,
    holder: Option<u32>,
    digester: Digester,
}

impl Survey {
    /// Reads the superblock of a directory.
    ///
    /// # Errors
    /// When it is no data directory, of another format version, or neither copy is sound.
    pub fn of(path: &Path) -> Result<Self, StorageError> {
        let name = superblock_path(path);
        let read = super::files::expect_regular(&name).and_then(|()| fs::read(&name));
        let bytes = read.map_err(StorageError::io(
            &name,
            "cannot be read; name the directory that is `db_path` in the replica's file",
        ))?;
        let copy = |number: usize| match bytes.chunks(BLOCK_BYTES).nth(number) {
            Some(block) if block.iter().all(|byte| *byte == 0) => SuperblockCopy::Blank,
            block => match block.and_then(Superblock::from_block) {
                Some(Ok(superblock)) => SuperblockCopy::Sound(superblock),
                Some(Err(version)) => SuperblockCopy::Version(version),
                None => SuperblockCopy::Damaged,
            },
        };
        let superblock = read_superblock(path)?;
        Ok(Self {
            path: path.to_owned(),
            copies: [copy(0), copy(1)],
            superblock,
            holder: holder(path),
            digester: Digester::new(superblock.cluster),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Both copies of the superblock, as they lie in the file.
    #[must_use]
    pub fn copies(&self) -> &[SuperblockCopy; 2] {
        &self.copies
    }

    /// The copy that counts.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The process that has the directory open, as far as this one can tell: those of other containers are
    /// not seen.
    #[must_use]
    pub fn holder(&self) -> Option<u32> {
        self.holder
    }

    /// Computes the digests of the directory's cluster.
    #[must_use]
    pub fn digester(&self) -> &Digester {
        &self.digester
    }

    /// The snapshots, in order.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn snapshots(&self) -> Result<Vec<Found>, StorageError> {
        list(&self.path.join("images"))
    }

    /// Looks until nothing is damaged, or, beside a running replica, the same was damaged each time.
    fn look<T>(&self, mut look: impl FnMut(&Superblock) -> (T, bool)) -> T {
        let mut superblock = self.superblock;
        for _ in 1..LOOKS {
            let (seen, is_damaged) = look(&superblock);
            if !is_damaged || holder(&self.path).is_none() {
                return seen;
            }
            std::thread::sleep(LOOK_PAUSE);
            superblock = read_superblock(&self.path).unwrap_or(superblock);
        }
        look(&superblock).0
    }
}

/// Who holds the lock of a directory, without touching the lock.
fn holder(path: &Path) -> Option<u32> {
    let lock = fs::metadata(path.join("lock")).ok()?;
    let (major, minor) = (libc::major(lock.dev()), libc::minor(lock.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", lock.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // `1: FLOCK  ADVISORY  WRITE 8306 fe:00:5308779 0 EOF`
    locks.lines().find_map(|line| {
        let mut fields = line
            .split_whitespace()
            .skip_while(|field| *field != "WRITE")
            .skip(1);
        let (process, locked) = (fields.next()?, fields.next()?);
        (locked == file).then(|| process.parse().ok()).flatten()
    })
}
