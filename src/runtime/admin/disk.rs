//! The disk that a replica's data lie on.

use std::fmt;
use std::path::PathBuf;

use super::exposition::Text;
use crate::runtime::storage::free_bytes;

/// Where a replica keeps its data, and how much its log may use.
#[derive(Debug)]
pub(crate) struct DataDisk {
    pub path: PathBuf,
    pub log_bytes_max: u64,
}

impl DataDisk {
    /// Writes what there is. A disk that does not say it is left out.
    pub(super) fn describe(&self, text: &mut Text<'_>) -> fmt::Result {
        text.gauge(
            "log_budget_bytes",
            "How much disk the log may use.",
            self.log_bytes_max,
        )?;
        match free_bytes(&self.path) {
            Ok(free) => text.gauge(
                "disk_free_bytes",
                "What a process may still use of the disk that the data lie on.",
                free,
            ),
            Err(_) => Ok(()),
        }
    }
}
