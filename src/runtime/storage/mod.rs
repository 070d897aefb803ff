//! What is on disk: the persistent log, snapshots of checkpoints, and the superblock that names them.
//!
//! ```text
//!  DIR/lock                  held by the process that has the directory open
//!  DIR/superblock            two copies: who this is, where the log starts, the key of its checksums
//!  DIR/log/0000000000000001  segments of one fixed size, zero-filled before use, recycled after a checkpoint
//!  DIR/images/0000000000000001  the contents of the last checkpoints, two of them, and what peers read or were offered
//!
//!  segment   group │ group │ … │ zeros or groups of an earlier life
//!  group     header (96 bytes) │ records, end to end │ zeros up to a multiple of 4096
//!  record    u32 length │ u8 kind │ contents
//! ```
//!
//! **Group commit.** Records are gathered into one aligned buffer while the group before them is being
//! written; when it is on disk the next is sealed and written. One group is under way at a time: it is
//! written with `O_DIRECT` and synced, with `RWF_DSYNC` in one step, and only then do its records count as
//! durable. A group is never written again once it was sealed.
//!
//! **What a restart believes.** A group's checksum is keyed, and covers its header and its records; the
//! header names cluster, node, segment, the group's number and the checksum of the group before it. So groups
//! of a segment's earlier life, of another directory, and whatever a client made records look like are all
//! told apart from the log.
//! - The first group that is not sound ends the log: it was under way when the replica stopped, nobody was
//!   promised anything. It is cut off.
//! - Unless a later group is sound: then the broken one had been durable, and what was promised is damaged.
//!   The replica does not start ([`StorageError::Damaged`]).
//!
//! **What is damaged is replaced.** A damaged snapshot is renamed, and its state comes from others. A damaged
//! log is moved away as a whole (`log.damaged-N`), after a mark was made (`DIR/abstain`): as long as it is
//! there the replica votes on nothing, since the log may have held votes that are forgotten (`repair`,
//! [`crate::smr::replica`]).
//!
//! **Bounds.** There are at most `log_bytes_max / segment_bytes` segments; each is filled with zeros before
//! it is used, so a write to it needs no space. When none is free, nothing is logged, hence nothing voted,
//! until a checkpoint frees one.
//!
//! **Who does what.** [`LogWriter`] is a state machine: it says what to write and is told what became of it.
//! The log role runs it on a data shard's ring ([`crate::runtime::shard`]), or another [`SmrPersistentLog`]
//! that a [`Host`](crate::runtime::server::Host) names. The `StorageWorker`, two threads
//! of its own, does what takes long and nobody waits for: fills segments with zeros, writes snapshots, moves
//! the superblock on.

pub(crate) mod basis;
mod budget;
mod buffer;
mod codec;
mod contract;
mod directory;
mod files;
mod group;
pub(crate) mod logged;
mod persistent_log;
pub(crate) mod received;
mod recovery;
mod repair;
pub mod restart;
pub mod snapshot;
pub(crate) mod snapshot_transfer;
pub(crate) mod storage_worker;
mod superblock;
pub mod survey;
mod writer;

pub use budget::DiskBudget;
pub(crate) use budget::free_bytes;
pub use buffer::AlignedBuffer;
pub(crate) use buffer::MemoryPin;
pub use codec::{CodecError, RecordReader};
pub(crate) use codec::{encode as encode_record, encoded_bytes as encoded_record_bytes};
pub use contract::{BrokenLogRule, LogContractError, check_log_contract};
pub(crate) use directory::read_superblock;
pub use directory::{DataDirectory, Formatted};
pub use group::BLOCK_BYTES;
pub use persistent_log::{LogWrite, PersistentLogConfig, PersistentLogPartConfig, SmrPersistentLog};
pub use recovery::{Found, RawRecord, Tail, scan, scan_with};
pub use repair::{AbstentionMark, SalvagedLog, replace_directory};
pub use superblock::Superblock;
pub use writer::{LogOperation, LogWriter, Outcome, WriterSettings};

use std::path::{Path, PathBuf};

use crate::smr::messages::SnapshotError;
pub use crate::smr::node::{GroupWriter, Released};
use crate::smr::protocol::RestoreError;
use crate::smr::types::{NodeId, SeqNo};

/// The version of everything in a data directory.
pub const FORMAT_VERSION: u16 = 3;

/// Why a data directory cannot be used, or is used no longer.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file cannot be opened, read or written.
    #[error("{}: {doing}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no superblock: the directory was never made, or was lost.
    #[error(
        "{}: there is no superblock, so this is not the data directory of {node}. If {node} has never run, make one with `atlas format`. \
         If it has run, its directory was lost or replaced: it must not vote as if nothing had happened; start it with `atlas run --repair`, and it \
         abstains until what it may have promised does not matter any more",
        path.display()
    )]
    NotFormatted {
        /// The directory.
        path: PathBuf,
        /// Whose it should be.
        node: NodeId,
    },
    /// The directory is made already.
    #[error("{}: there is a superblock already; a data directory is made once", path.display())]
    AlreadyFormatted {
        /// The directory.
        path: PathBuf,
    },
    /// There is no superblock, but what a replica wrote.
    #[error(
        "{}: a replica wrote this before, and its superblock is lost: it must not vote again under its old key. Give it a new key \
         and reconfigure, or choose an empty directory for a replica that has never run",
        path.display()
    )]
    Remains {
        /// The first file found.
        path: PathBuf,
    },
    /// The directory belongs to somebody else, or to another version.
    #[error("{}: belongs to {what} {found}, expected {expected}; set `db_path` to the directory of this replica", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What the superblock says.
        found: String,
        /// What the configuration says.
        expected: String,
    },
    /// The configuration gives the log less than it needs.
    #[error(
        "{}: log_bytes_max = {configured} is less than the {required} bytes that the log needs from one checkpoint to the next; \
         raise log_bytes_max under [log], or have checkpoints more often",
        path.display()
    )]
    Budget {
        /// The directory.
        path: PathBuf,
        /// What the log may use, in bytes.
        configured: u64,
        /// What it needs, in bytes.
        required: u64,
    },
    /// The disk has less than the log needs.
    #[error(
        "{}: {free} bytes are free, but the log needs another {required} from one checkpoint to the next; free some, or put `db_path` \
         on a larger disk",
        path.display()
    )]
    Space {
        /// The directory.
        path: PathBuf,
        /// What is free, in bytes.
        free: u64,
        /// What is needed beside what is there already, in bytes.
        required: u64,
    },
    /// Another process has it open.
    #[error("{}: another process uses this data directory; stop it first", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// What was promised is damaged.
    #[error("{}: damaged at offset {offset}: {what}; {} (`atlas inspect integrity` shows the extent)", path.display(), remedy(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// What the log says makes no sense.
    #[error("{}: the log cannot be replayed: {source}", path.display())]
    Replay {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: RestoreError,
    },
    /// A snapshot cannot be read.
    #[error("{}: {source}", path.display())]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SnapshotError,
    },
    /// The application panicked while its state was written.
    #[error("{}: the application's state panicked while its snapshot was written", path.display())]
    SnapshotPanicked {
        /// The file.
        path: PathBuf,
    },
    /// A snapshot is of another state than the one a quorum signed.
    #[error("{}: the snapshot of the checkpoint at {seq} is not of the state that a quorum signed; the state has to come from other replicas", path.display())]
    Contradicted {
        /// The directory of snapshots.
        path: PathBuf,
        /// The checkpoint.
        seq: SeqNo,
    },
    /// A write or a sync of the log failed: what is on disk is unknown.
    #[error(
        "the log: {doing} failed with {source}; the replica stops, because what is on disk is not known any more"
    )]
    Log {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// What helps against damage of a file.
fn remedy(path: &Path) -> &'static str {
    if path.file_name().is_some_and(|name| name == "superblock") {
        return "both copies are lost, and with them what this replica promised: one of a cluster of four or more starts again with \
                `atlas run --repair`, catches up and abstains from votes as long as that matters; in a smaller one, restore what was there";
    }
    match path.parent().is_some_and(|parent| parent.ends_with("images")) {
        true => "the state has to come from other replicas",
        false => {
            "what this replica promised may be lost: one of a cluster of four or more sets its log aside, catches up and abstains from \
             votes as long as that matters; in a smaller one, restore what was there"
        }
    }
}

impl StorageError {
    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, doing, source }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            offset,
            what: what.into(),
        }
    }
}

#[cfg(test)]
mod tests;
