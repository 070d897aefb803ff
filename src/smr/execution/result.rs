use std::fmt;

use crate::smr::messages::{Failure, OperationResult};

/// The longest result of one operation, in bytes. Equal at every replica, as results are part of checkpoints.
pub const RESULT_BYTES_MAX: usize = 2 << 20;

/// What the results of one frame have together at most, in bytes.
///
/// An operation's result depends on no other operation of its frame: a frame whose results have become longer
/// than `FRAME_RESULT_BYTES_MAX - RESULT_BYTES_MAX` is not executed any further. Its reply then ends early,
/// and the client asks for the rest under another number.
pub const FRAME_RESULT_BYTES_MAX: usize = 3 << 20;

/// How long results may be. Equal at every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultLimits {
    /// Bytes of one operation's result.
    pub operation_bytes_max: usize,
    /// A frame with results of so many bytes or more is not executed any further.
    pub frame_bytes: usize,
}

impl Default for ResultLimits {
    fn default() -> Self {
        Self {
            operation_bytes_max: RESULT_BYTES_MAX,
            frame_bytes: FRAME_RESULT_BYTES_MAX - RESULT_BYTES_MAX,
        }
    }
}

/// Takes the result of one operation: bytes of the application's own meaning, a value unless it
/// [fails](Self::fail).
///
/// A result that becomes longer than one may be is dropped as it is written; the client is told that it was
/// too long.
///
/// ```
/// use atlas_smr_replica::execution::ResultWriter;
/// use atlas_smr_replica::messages::OperationResult;
///
/// let mut result = ResultWriter::default();
/// result.push(1);
/// result.extend_from_slice(b"23");
/// assert_eq!(result.result(), OperationResult::Value(b"\x0123"));
/// result.fail("no such account");
/// assert_eq!(result.result(), OperationResult::Error(b"no such account"));
/// ```
#[derive(Debug)]
pub struct ResultWriter {
    /// The results of a frame, or this one alone.
    bytes: Vec<u8>,
    /// Where the result that is being written starts.
    start: usize,
    bytes_max: usize,
    failure: Option<Failure>,
}

impl Default for ResultWriter {
    fn default() -> Self {
        Self::new(RESULT_BYTES_MAX)
    }
}

impl ResultWriter {
    /// A writer of results of at most `bytes_max` bytes.
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            bytes_max,
            failure: None,
        }
    }

    /// Appends one byte.
    pub fn push(&mut self, byte: u8) {
        self.extend_from_slice(&[byte]);
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if self.failure == Some(Failure::TooLong) {
            return;
        }
        if self.len() + bytes.len() > self.bytes_max {
            self.bytes.truncate(self.start);
            self.failure = Some(Failure::TooLong);
            return;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The operation gives no value but this error, in place of what was written. What it changed stays
    /// changed.
    pub fn fail(&mut self, error: impl AsRef<[u8]>) {
        self.clear();
        self.extend_from_slice(error.as_ref());
        self.failure.get_or_insert(Failure::Application);
    }

    /// Takes back everything that was written.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
        self.failure = None;
    }

    /// How many bytes were written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was written.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The result as its client sees it.
    #[must_use]
    pub fn result(&self) -> OperationResult<'_> {
        match self.failure {
            None => OperationResult::Value(self.as_slice()),
            Some(Failure::Application) => OperationResult::Error(self.as_slice()),
            Some(Failure::TooLong) => OperationResult::TooLong,
            Some(Failure::Panicked) => OperationResult::Panicked,
        }
    }

    /// Begins anew, with results of at most `bytes_max` bytes.
    pub(super) fn reset(&mut self, bytes_max: usize) {
        self.bytes.clear();
        self.start = 0;
        self.failure = None;
        self.bytes_max = bytes_max;
    }

    /// Exchanges the bytes of all results.
    pub(super) fn swap_bytes(&mut self, bytes: &mut Vec<u8>) {
        std::mem::swap(&mut self.bytes, bytes);
        self.start = self.bytes.len();
        self.failure = None;
    }

    /// The application panicked: what it wrote counts for nothing.
    pub(super) fn panicked(&mut self) {
        self.clear();
        self.failure = Some(Failure::Panicked);
    }

    /// The bytes of all results.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Closes the result that was written, and begins the next: whether it is no value.
    pub(super) fn end(&mut self) -> Option<Failure> {
        self.start = self.bytes.len();
        self.failure.take()
    }
}

impl fmt::Write for ResultWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
