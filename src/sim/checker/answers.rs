use super::{Broken, Rule};
use crate::messages::archived::{
    ArchivedStateTransferMessage, ArchivedSystemMessage, ArchivedViewTransferMessage,
};
use crate::replica::TransferLimits;
use crate::types::{NodeId, Time};

/// A status is answered at most once in so many milliseconds; clocks are not quite right.
const STATUS_PAUSE_MS: u64 = 99;
/// Restarts and jumps of the clock begin a pause anew; so often at most.
const AGAIN: u64 = 64;
/// What a peer is sent of a state at once.
const PIECES_BYTES: u64 = 1 << 20;

/// How often one correct replica answered each peer.
pub(super) struct Answers {
    limits: TransferLimits,
    /// By peer: answers to its status, and to its questions for pieces of a state.
    given: Vec<[u64; 2]>,
}

impl Answers {
    pub(super) fn new(n: usize, limits: TransferLimits) -> Self {
        Self {
            limits,
            given: vec![[0; 2]; n],
        }
    }

    /// This replica sends a message to one peer: however much that one asks, it is answered within limits.
    pub(super) fn gives(
        &mut self,
        now: Time,
        to: NodeId,
        message: &ArchivedSystemMessage,
    ) -> Result<(), Broken> {
        let since_ms = now.since(Time::START).as_millis() as u64;
        let (kind, what, most) = match message {
            ArchivedSystemMessage::ViewTransferMessage(ArchivedViewTransferMessage::Decisions(_)) => {
                (0, "statuses", since_ms / STATUS_PAUSE_MS)
            }
            ArchivedSystemMessage::StateTransferMessage(ArchivedStateTransferMessage::Chunk(chunk))
                if chunk.last =>
            {
                let TransferLimits {
                    donor_bytes_per_second: rate,
                    donor_burst_bytes: burst,
                    ..
                } = self.limits;
                let cost = burst.min(PIECES_BYTES);
                let earned = u128::from(rate) * u128::from(since_ms) / 1000 + u128::from(burst);
                (1, "questions for pieces", (earned / u128::from(cost)) as u64)
            }
            _ => return Ok(()),
        };
        let given = &mut self.given[to.index()][kind];
        *given += 1;
        match *given <= most + AGAIN {
            true => Ok(()),
            false => Err((
                Rule::Memory,
                format!("{given} {what} of {to:?} are answered in {since_ms} ms"),
            )),
        }
    }
}
