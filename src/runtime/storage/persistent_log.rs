//! The persistent log as a part of a replica: what it has to do, and what drives it.
//!
//! The log role takes records from consensus ([`crate::smr::node::Log`]), and is the only caller. In each of
//! its turns:
//!
//! 1. [`has_room`](GroupWriter::has_room), then [`append`](GroupWriter::append), for each record; a record
//!    without room waits, and all that comes after it. Positions have no gaps.
//! 2. [`next_write`](SmrPersistentLog::next_write), unless a write is under way. The role has its bytes
//!    written to the segment, with `RWF_DSYNC`, and gives the memory back with
//!    [`on_written`](SmrPersistentLog::on_written). The group under way is never touched: its memory is lent.
//! 3. [`wanted_segment`](GroupWriter::wanted_segment): the storage worker makes it, filled with zeros, and
//!    [`add_segment`](GroupWriter::add_segment) says that it is there.
//! 4. [`durable`](GroupWriter::durable), which consensus is told when it grew.
//!
//! **The durability rule.** `durable` may pass a record only after `on_written` has said that every byte of
//! it, and of all records before it, was written; until then a loss of power forgets it. It may lag behind
//! for any time: votes wait for it. It never goes back. Nothing else in a replica knows what is on disk: a
//! log that promises early makes its replica contradict itself after a crash.
//! [`check_log_contract`](super::check_log_contract) finds one that does.
//!
//! **What a restart reads.** The bytes are groups, as [`storage`](crate::storage) describes them: recovery,
//! reading back and `atlas inspect` know one format. So another log is made around a [`LogWriter`]: when it
//! has it write, how much at once, what it counts and what it writes elsewhere as well is its own affair.
//!
//! **What may fail.** A write that failed for want of space is offered again, and the log says that it is
//! [short of space](SmrPersistentLog::is_short_of_space). Any other failure is told by `on_written`, and the
//! replica stops: what is on disk is not known any more.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{AlignedBuffer, LogWriter, Outcome, StorageError, Tail, WriterSettings};
use crate::smr::node::{GroupWriter, Released};
use crate::smr::protocol::{InvalidSetting, LogCut, PartConfig, Record, in_range};
use crate::smr::types::{Lsn, SeqNo};

/// Takes records in groups, knows in which segments they are, and says what is on disk.
///
/// Who calls what, and what may be promised when: the module's text in `storage/persistent_log.rs`.
pub trait SmrPersistentLog: GroupWriter + Sized + Send + 'static {
    /// What it may decide for itself: `[log]` in the replica's file.
    type Config: PersistentLogPartConfig;

    /// A log that goes on after the end that a restart found. `config` was validated.
    fn make(config: &Self::Config, settings: WriterSettings, tail: &Tail) -> Self;

    /// The memory that it lends for writes, each at the place of its [number](AlignedBuffer::number). Asked
    /// once, before the first write: the ring has it registered.
    fn memory(&self) -> Vec<&AlignedBuffer>;

    /// The next write, if there is something to write and no write is under way.
    fn next_write(&mut self) -> Option<LogWrite>;

    /// The write under way ended: so many bytes of it are on disk, or none. What is left of one that was cut
    /// short is the next write.
    ///
    /// # Errors
    /// When it failed for another reason than a lack of space: the replica stops.
    fn on_written(&mut self, buffer: AlignedBuffer, outcome: Outcome) -> Result<(), StorageError>;

    /// Whether everything that was appended is on disk.
    fn is_idle(&self) -> bool;

    /// Whether the next group waits for a segment, or for space to write it.
    fn waits_for_space(&self) -> bool;

    /// Whether the disk had no space for the last write: the next one is tried a second later.
    fn is_short_of_space(&self) -> bool;

    /// How many bytes of segments hold records.
    fn used_bytes(&self) -> u64;
}

/// What every persistent log is told of the disk, whatever else it may decide.
pub trait PersistentLogPartConfig: PartConfig {
    /// The size of one segment, in bytes.
    fn segment_bytes(&self) -> u64;

    /// How much disk the log may use, in bytes.
    fn log_bytes_max(&self) -> u64;
}

/// A write of a log: what goes where.
#[derive(Debug)]
pub struct LogWrite {
    /// The segment.
    pub segment: u64,
    /// Where in it; a multiple of a block.
    pub offset: u64,
    /// The memory, lent until the write ended.
    pub buffer: AlignedBuffer,
    /// What of it is written: whole blocks.
    pub bytes: Range<usize>,
}

/// The persistent log's segments.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct PersistentLogConfig {
    /// The size of one segment, in bytes: a multiple of 1 MiB.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub segment_bytes: u64,
    /// How much disk the log may use, in bytes. When it is used up nothing is voted until a checkpoint frees
    /// some.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub log_bytes_max: u64,
}

impl Default for PersistentLogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            log_bytes_max: 16 << 30,
        }
    }
}

impl PartConfig for PersistentLogConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("segment_bytes", self.segment_bytes, 16 << 20..=4 << 30)?;
        if !self.segment_bytes.is_multiple_of(1 << 20) {
            return Err(InvalidSetting {
                key: "segment_bytes",
                value: self.segment_bytes.to_string(),
                rule: "must be a multiple of 1 MiB".into(),
            });
        }
        in_range(
            "log_bytes_max",
            self.log_bytes_max,
            4 * self.segment_bytes..=1 << 44,
        )
    }
}

impl PersistentLogPartConfig for PersistentLogConfig {
    fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    fn log_bytes_max(&self) -> u64 {
        self.log_bytes_max
    }
}

impl GroupWriter for LogWriter {
    fn has_room(&self, record: &Record) -> bool {
        self.has_room(record)
    }

    fn append(&mut self, record: &Record) -> Lsn {
        self.append(record)
    }

    fn cut(&mut self, cut: LogCut) -> Option<Released> {
        self.cut(cut)
    }

    fn segments_from(&self, seq: SeqNo) -> Vec<u64> {
        self.segments_from(seq)
    }

    fn wanted_segment(&self) -> Option<(u64, u64)> {
        let index = self.wanted_segment()?;
        Some((index, self.segment_bytes()))
    }

    fn add_segment(&mut self, index: u64) {
        self.add_segment(index);
    }

    fn durable(&self) -> Lsn {
        self.durable()
    }
}

impl SmrPersistentLog for LogWriter {
    type Config = PersistentLogConfig;

    fn make(_: &PersistentLogConfig, settings: WriterSettings, tail: &Tail) -> Self {
        Self::resume(settings, tail)
    }

    fn memory(&self) -> Vec<&AlignedBuffer> {
        self.buffers()
    }

    fn next_write(&mut self) -> Option<LogWrite> {
        self.lend_write()
    }

    fn on_written(&mut self, buffer: AlignedBuffer, outcome: Outcome) -> Result<(), StorageError> {
        self.on_lent_written(buffer, outcome)
    }

    fn is_idle(&self) -> bool {
        self.is_idle()
    }

    fn waits_for_space(&self) -> bool {
        self.waits_for_space()
    }

    fn is_short_of_space(&self) -> bool {
        self.is_short_of_space()
    }

    fn used_bytes(&self) -> u64 {
        self.used_bytes()
    }
}
