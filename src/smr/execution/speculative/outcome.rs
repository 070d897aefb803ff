use std::ops::Range;

use super::{Column, Failure};

/// A value or key in an outcome's bytes.
pub(super) type ByteRange = Range<usize>;

/// One access of an execution.
#[derive(Debug, Clone)]
pub(super) struct Access {
    /// The hash of column and key: the same one everywhere in the process.
    pub hash: u64,
    pub column: Column,
    pub key: ByteRange,
    /// What was found or is to be written; `None` for no value.
    pub value: Option<ByteRange>,
}

/// Buffers beyond this are given back after the operation that needed them.
const KEPT_BYTES: usize = 64 * 1024;

/// What one execution of an operation found, wrote and answered. Reused from operation to operation, so that
/// speculation allocates nothing while operations stay alike.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Keys and values, end to end.
    pub(super) bytes: Vec<u8>,
    pub(super) reads: Vec<Access>,
    pub(super) writes: Vec<Access>,
    /// The result of the operation.
    pub result: Vec<u8>,
    /// Why the result is no value, if it is none.
    pub failure: Option<Failure>,
    /// Whether the operation counts as not executed: the results of its frame left no room for it.
    pub is_put_off: bool,
    /// The operation it belongs to.
    pub(super) txn: u64,
    /// Whether it read nothing but what was final, by the keys it declared: it needs no validation then.
    pub(super) certain: bool,
    /// Operations executed alone before it began.
    pub(super) alone: u64,
    /// Whether it began before its turn.
    pub(super) early: bool,
}

impl Outcome {
    pub(super) fn reset(&mut self, txn: u64) {
        for buffer in [&mut self.bytes, &mut self.result] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES);
        }
        self.reads.clear();
        self.writes.clear();
        self.failure = None;
        self.is_put_off = false;
        self.txn = txn;
        self.certain = false;
        self.alone = 0;
        self.early = false;
    }

    /// Appends bytes.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> ByteRange {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    pub(super) fn slice(&self, range: &ByteRange) -> &[u8] {
        &self.bytes[range.clone()]
    }

    pub(super) fn value(&self, access: &Access) -> Option<&[u8]> {
        access.value.as_ref().map(|range| self.slice(range))
    }

    /// The latest write of a key.
    pub(super) fn written(&self, hash: u64, column: Column, key: &[u8]) -> Option<usize> {
        find(&self.writes, &self.bytes, hash, column, key)
    }

    /// The read of a key.
    pub(super) fn found(&self, hash: u64, column: Column, key: &[u8]) -> Option<usize> {
        find(&self.reads, &self.bytes, hash, column, key)
    }
}

fn find(accesses: &[Access], bytes: &[u8], hash: u64, column: Column, key: &[u8]) -> Option<usize> {
    accesses.iter().position(|access| {
        access.hash == hash && access.column == column && bytes[access.key.clone()] == *key
    })
}
