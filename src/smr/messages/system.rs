use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use super::checked::{Checked, encode};
use super::envelope::{Envelope, Kind};
use super::ordering::{OrderingMessage, split_frames};
use super::transfer::{LogTransferMessage, StateTransferMessage};
use super::view::ViewTransferMessage;
use super::{BatchError, Frame, SignedCheckpoint, Vote, Votes};
use crate::smr::types::{ClusterId, Epoch};

/// Frames that clients sent to a replica that does not lead, passed on to the leader as received.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ForwardedRequests {
    /// Where each frame ends in `frames`.
    pub ends: Vec<u32>,
    /// The frames, end to end.
    pub frames: Vec<u8>,
}

/// What replicas say to each other: one family per protocol.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum SystemMessage {
    /// Client frames on their way to the leader.
    ForwardedRequestMessage(ForwardedRequests),
    /// The ordering protocol.
    ProtocolMessage(OrderingMessage),
    /// Views, and what a replica lacks.
    ViewTransferMessage(ViewTransferMessage),
    /// Decisions in bulk.
    LogTransferMessage(LogTransferMessage),
    /// The contents of checkpoints.
    StateTransferMessage(StateTransferMessage),
}

impl SystemMessage {
    /// The whole message that carries `votes`.
    #[must_use]
    pub fn votes(cluster: ClusterId, epoch: Epoch, votes: Vec<Vote>) -> Bytes {
        let hint = votes.len() * 64;
        let message = Self::ProtocolMessage(OrderingMessage::Votes(Votes { votes }));
        encode(Envelope::new(Kind::System, cluster, epoch), &message, hint)
    }

    /// The whole message that carries a checkpoint.
    #[must_use]
    pub fn checkpoint(cluster: ClusterId, epoch: Epoch, checkpoint: SignedCheckpoint) -> Bytes {
        let message = Self::ProtocolMessage(OrderingMessage::Checkpoint(checkpoint));
        encode(Envelope::new(Kind::System, cluster, epoch), &message, 160)
    }

    /// The whole message that passes frames on, as received.
    #[must_use]
    pub fn forwarded_requests<'a>(
        cluster: ClusterId,
        epoch: Epoch,
        frames: impl IntoIterator<Item = &'a Frame>,
    ) -> Bytes {
        let mut message = ForwardedRequests {
            ends: Vec::new(),
            frames: Vec::new(),
        };
        for frame in frames {
            message.frames.extend_from_slice(frame.bytes());
            message
                .ends
                .push(u32::try_from(message.frames.len()).expect("forwarded frames are under 4 GiB"));
        }
        let hint = message.frames.len() + 4 * message.ends.len();
        let message = Self::ForwardedRequestMessage(message);
        encode(
            Envelope::new(Kind::SystemWithFrames, cluster, epoch),
            &message,
            hint,
        )
    }
}

impl Checked<SystemMessage> {
    /// The frames passed on in this message, or `None` when it is another message.
    ///
    /// # Errors
    /// [`BatchError::Ends`] or [`BatchError::TooLong`] when the table of ends does not describe them.
    pub fn forwarded_frames(
        &self,
        bytes_max: usize,
    ) -> Option<Result<impl ExactSizeIterator<Item = Bytes> + '_, BatchError>> {
        match &**self {
            ArchivedSystemMessage::ForwardedRequestMessage(message) => Some(split_frames(
                self,
                message.ends.as_slice(),
                message.frames.as_slice(),
                bytes_max,
            )),
            _ => None,
        }
    }
}
