use bytes::Bytes;

use super::error::CallError;
use crate::smr::messages::{Checked, OperationResult, ReplyBody};
use crate::smr::types::NodeId;

/// What the session wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a message to a replica.
    Send {
        /// The replica.
        to: NodeId,
        /// The message, envelope included.
        message: Bytes,
    },
    /// Operations have ended, in the order in which they were submitted to their frame.
    Ended {
        /// The caller's names of the operations.
        tokens: Vec<u64>,
        /// Their results, or why there are none.
        outcome: Outcome,
    },
}

/// How operations of a frame ended.
#[derive(Debug)]
pub enum Outcome {
    /// Enough replicas agree on these results, one per operation. An operation may have failed.
    Results(FrameResults),
    /// None of them has a result.
    Failed(CallError),
}

/// The results of operations that followed one another in a frame.
#[derive(Debug, Clone)]
pub struct FrameResults {
    /// A reply to the whole frame, its table of ends checked.
    body: Checked<ReplyBody>,
    /// The first of the operations, and how many they are.
    first: usize,
    count: usize,
}

impl FrameResults {
    pub(super) fn new(body: Checked<ReplyBody>, first: usize, count: usize) -> Self {
        debug_assert!(body.is_sound() && first + count <= body.ends.len());
        Self { body, first, count }
    }

    /// One result per operation, in order.
    pub fn results(&self) -> impl ExactSizeIterator<Item = OperationResult<'_>> {
        self.body.results().skip(self.first).take(self.count)
    }

    /// The value of each operation, or why it has none, in order. A value keeps the whole reply in memory.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Result<Bytes, CallError>> {
        self.results().map(|result| match result {
            OperationResult::Value(value) => Ok(self.slice_of(value)),
            OperationResult::Error(error) => Err(CallError::Application(Bytes::copy_from_slice(error))),
            OperationResult::TooLong => Err(CallError::ResultTooLong),
            OperationResult::Panicked => Err(CallError::Panicked),
        })
    }

    /// A reference-counted slice for a result of [`results`](Self::results); it keeps the whole reply in
    /// memory.
    ///
    /// # Panics
    /// When `result` is not borrowed from these results.
    #[must_use]
    pub fn slice_of(&self, result: &[u8]) -> Bytes {
        self.body.slice_of(result)
    }
}
