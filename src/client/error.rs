use std::fmt;

use bytes::Bytes;

use crate::smr::execution::RESULT_BYTES_MAX;
use crate::smr::messages::RefusalReason;
use crate::smr::types::NodeId;

/// What one replica had said when a call ended without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Silence {
    /// Nothing.
    Silent(NodeId),
    /// A result, told by the beginning of its digest, that fewer than f+1 replicas gave.
    Answered(NodeId, String),
    /// A refusal.
    Refused(NodeId, RefusalReason),
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The deadline passed. The operation may still be executed later.
    #[error("no f+1 equal answers before the deadline ({}); the operation may still be executed", list(.0))]
    DeadlineExceeded(Vec<Silence>),
    /// The deadline passed while frames sent before were waiting for answers. The operation was not sent and
    /// is not executed.
    #[error("the deadline passed before the operation could be sent; it is not executed")]
    NeverSent,
    /// f+1 replicas refuse the frame for good.
    #[error("refused by f+1 replicas: {0}")]
    Refused(RefusalReason),
    /// The application refused the operation, and says this about it.
    #[error("the application refuses the operation: {}", text(.0))]
    Application(Bytes),
    /// The operation took effect, and its result is longer than one may be.
    #[error("the operation took effect, but its result is longer than {RESULT_BYTES_MAX} bytes")]
    ResultTooLong,
    /// The application panicked during the operation. What it had changed by then stays changed.
    #[error("the application panicked during the operation")]
    Panicked,
    /// Too many calls are under way at this client.
    #[error("too many operations are under way at this client")]
    Full,
    /// The operation is larger than a frame may be.
    #[error("the operation has {got} bytes, at most {max} fit a frame")]
    TooLarge {
        /// Its size.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// The client was closed.
    #[error("the client was closed")]
    Closed,
}

/// Words as they are, anything else in hexadecimal digits.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => hex::encode(bytes),
    }
}

fn list(said: &[Silence]) -> String {
    let said: Vec<String> = said.iter().map(ToString::to_string).collect();
    said.join(", ")
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(node) => write!(f, "{node} silent"),
            Self::Answered(node, digest) => write!(f, "{node} answered {digest}"),
            Self::Refused(node, reason) => write!(f, "{node} refused: {reason}"),
        }
    }
}
