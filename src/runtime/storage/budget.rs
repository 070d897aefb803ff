//! How much disk a replica's log may use, what it needs at least, and whether that is there.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::restart::StorageBackend;
use super::{DataDirectory, StorageError};
use crate::smr::execution::StateRule;

/// How many ways from one checkpoint to the next the log must hold: while the snapshot of one is being
/// written, those after it are taken without; the log goes on until the next snapshot is there.
const PERIODS: u64 = 3;

/// Of how many leaders, one after the other, the log must hold the undecided proposals: what was proposed and
/// never decided goes with the next checkpoint that includes the state, and counts towards none.
const LEADERS: u64 = 4;

/// Segments beside what is needed: the one that is written to, and one that still holds something old.
const PARTIAL_SEGMENTS: u64 = 2;

/// How much disk a log may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskBudget {
    /// The size of a segment.
    pub segment_bytes: u64,
    /// How much the log may use.
    pub log_bytes_max: u64,
    /// Decisions between two checkpoints.
    pub checkpoint_decisions: u64,
    /// Bytes of batches between two checkpoints, the last batch included.
    pub checkpoint_bytes: u64,
    /// How much the log grows at most from one checkpoint that includes a large state to the next that is due
    /// then.
    pub state_log_bytes: u64,
    /// How many bytes of one leader's proposals are logged at most before they are decided.
    pub undecided_bytes: u64,
    /// What the log has of the view the replica is in, which is written again after each cut.
    pub view_bytes: u64,
}

impl DiskBudget {
    /// How many segments there may be at once.
    #[must_use]
    pub fn segments_max(&self) -> usize {
        usize::try_from(self.log_bytes_max / self.segment_bytes.max(1)).unwrap_or(usize::MAX)
    }

    /// What a log must be able to hold, or it may be full before a checkpoint frees anything: then nothing
    /// would ever be voted again.
    #[must_use]
    pub fn required_bytes(&self) -> u64 {
        self.for_growth(self.state_log_bytes)
    }

    /// What is needed as long as the state is small: every checkpoint includes it then.
    fn least_bytes(&self) -> u64 {
        self.for_growth(0)
    }

    fn for_growth(&self, state_log_bytes: u64) -> u64 {
        let padding = StateRule::DECISION_BYTES;
        let period = self
            .checkpoint_decisions
            .saturating_mul(padding)
            .saturating_add(self.checkpoint_bytes)
            .saturating_add(self.view_bytes)
            .saturating_add(state_log_bytes);
        PERIODS
            .saturating_mul(period)
            .saturating_add(LEADERS.saturating_mul(self.undecided_bytes))
            .saturating_add(PARTIAL_SEGMENTS.saturating_mul(self.segment_bytes))
    }

    /// Checks the budget against what is needed, and the disk against the budget.
    ///
    /// # Errors
    /// [`StorageError::Budget`] when the configuration gives the log too little, [`StorageError::Space`] when
    /// the disk has not even what is needed while the state is small. A disk that has that and less than the
    /// budget is warned of.
    pub fn check(&self, directory: &DataDirectory) -> Result<(), StorageError> {
        let path = directory.path();
        let required = self.required_bytes();
        if self.log_bytes_max < required {
            return Err(StorageError::Budget {
                path: path.to_owned(),
                configured: self.log_bytes_max,
                required,
            });
        }
        let there: u64 = directory
            .segments()?
            .iter()
            .filter_map(|segment| segment.path.metadata().ok())
            .map(|metadata| metadata.len())
            .sum();
        let free = free_bytes(path)?;
        let least = self.least_bytes();
        if free.saturating_add(there) < least {
            return Err(StorageError::Space {
                path: path.to_owned(),
                free,
                required: least - there,
            });
        }
        let missing = self.log_bytes_max.saturating_sub(there);
        if free < missing {
            tracing::warn!(
                path = %path.display(),
                free,
                missing,
                "the disk is smaller than the log may become: when it is full, nothing is voted until a checkpoint frees some"
            );
        }
        Ok(())
    }
}

/// How many bytes an unprivileged process may still use on the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> Result<u64, StorageError> {
    let failed = StorageError::io(path, "cannot tell how much space is free");
    let name = match CString::new(path.as_os_str().as_bytes()) {
        Ok(name) => name,
        Err(error) => return Err(failed(error.into())),
    };
    let mut answer = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the name ends with a zero, and the kernel fills the struct it is given.
    if unsafe { libc::statvfs(name.as_ptr(), answer.as_mut_ptr()) } != 0 {
        return Err(failed(std::io::Error::last_os_error()));
    }
    // SAFETY: the call succeeded, so the struct is filled.
    let answer = unsafe { answer.assume_init() };
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::types::{ClusterId, Epoch, NodeId};

    const BUDGET: DiskBudget = DiskBudget {
        segment_bytes: 1 << 20,
        log_bytes_max: 16 << 20,
        checkpoint_decisions: 100,
        checkpoint_bytes: 1 << 20,
        state_log_bytes: 2 << 20,
        undecided_bytes: 256 << 10,
        view_bytes: 1 << 20,
    };

    fn directory(path: &Path) -> DataDirectory {
        let cluster = ClusterId::from_bytes([7; 16]);
        DataDirectory::format(path, cluster, NodeId::new(2), Epoch::ZERO).unwrap();
        DataDirectory::open(path, cluster, NodeId::new(2)).unwrap()
    }

    #[test]
    fn a_log_that_cannot_reach_the_next_checkpoint_is_refused_with_what_it_needs() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = directory(&temporary.path().join("d"));
        let required = BUDGET.required_bytes();
        assert_eq!(required, (3 * 4 + 2 + 1) * (1 << 20) + 3 * 100 * 4 * 4096);
        let exact = DiskBudget {
            log_bytes_max: required,
            ..BUDGET
        };
        exact.check(&directory).unwrap();
        let short = DiskBudget {
            log_bytes_max: required - 1,
            ..BUDGET
        };
        let error = short.check(&directory).unwrap_err().to_string();
        assert!(error.contains("log_bytes_max"), "{error}");
        assert!(error.contains(&required.to_string()), "{error}");
        assert!(error.contains(&(required - 1).to_string()), "{error}");
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_with_what_is_free() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = directory(&temporary.path().join("d"));
        let huge = DiskBudget {
            log_bytes_max: u64::MAX,
            checkpoint_bytes: 1 << 60,
            ..BUDGET
        };
        let error = huge.check(&directory).unwrap_err();
        assert!(matches!(error, StorageError::Space { .. }), "{error}");
        assert!(error.to_string().contains("bytes are free"), "{error}");
    }
}
