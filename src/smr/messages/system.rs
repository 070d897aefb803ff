use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use super::checked::{Checked, encode};
use super::envelope::{Envelope, Kind};
use super::ordering::{PrePrepare, join_parts, split_parts};
use super::sync::SyncMessage;
use super::transfer::{LogTransferMessage, StateTransferMessage};
use super::{BatchError, Frame, SignedCheckpoint};
use crate::smr::types::{ClusterId, Epoch};

/// Frames that clients sent to a replica that does not lead, passed on to the leader as received.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ForwardedRequests {
    /// Where each frame ends in `frames`.
    pub ends: Vec<u32>,
    /// The frames, end to end.
    pub frames: Vec<u8>,
}

/// What a replica of the ordering protocol said since its last flush, in that order: archives of that
/// protocol's own [`Message`](crate::smr::ordering::OrderingProtocol::Message), end to end.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ProtocolMessages {
    /// Where each ends in `messages`.
    pub ends: Vec<u32>,
    /// The archives.
    pub messages: Vec<u8>,
}

impl ProtocolMessages {
    /// These archives together.
    #[must_use]
    pub fn of<'a>(archives: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let (ends, messages) = join_parts(archives.into_iter(), 0);
        Self { ends, messages }
    }
}

/// What replicas say to each other. What is a protocol's own is an archive inside the archive: who carries it
/// does not read it, and another protocol changes nothing here.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum SystemMessage {
    /// Client frames on their way to the leader.
    ForwardedRequestMessage(ForwardedRequests),
    /// A batch that is proposed for a place.
    ProposalMessage(PrePrepare),
    /// What else the ordering protocol says.
    ProtocolMessage(ProtocolMessages),
    /// What the view transfer protocol says: an archive of its own
    /// [`Message`](crate::smr::view_transfer::ViewTransferProtocol::Message).
    ViewTransferMessage(Vec<u8>),
    /// Checkpoints, and what a replica lacks.
    SyncMessage(SyncMessage),
    /// Decisions in bulk.
    LogTransferMessage(LogTransferMessage),
    /// The contents of checkpoints.
    StateTransferMessage(StateTransferMessage),
}

impl SystemMessage {
    /// The whole message that carries these archives of the ordering protocol's.
    #[must_use]
    pub fn protocol<'a>(
        cluster: ClusterId,
        epoch: Epoch,
        archives: impl IntoIterator<Item = &'a [u8]>,
    ) -> Bytes {
        let messages = ProtocolMessages::of(archives);
        let hint = messages.messages.len() + 4 * messages.ends.len();
        let message = Self::ProtocolMessage(messages);
        encode(Envelope::new(Kind::System, cluster, epoch), &message, hint)
    }

    /// The whole message that carries this archive of the view transfer protocol's.
    #[must_use]
    pub fn view_transfer(cluster: ClusterId, epoch: Epoch, archive: Vec<u8>) -> Bytes {
        let hint = archive.len();
        let message = Self::ViewTransferMessage(archive);
        encode(Envelope::new(Kind::System, cluster, epoch), &message, hint)
    }

    /// The whole message that carries a checkpoint.
    #[must_use]
    pub fn checkpoint(cluster: ClusterId, epoch: Epoch, checkpoint: SignedCheckpoint) -> Bytes {
        SyncMessage::Checkpoint(checkpoint).encode(cluster, epoch)
    }

    /// The whole message that passes frames on, as received.
    #[must_use]
    pub fn forwarded_requests<'a>(
        cluster: ClusterId,
        epoch: Epoch,
        frames: impl IntoIterator<Item = &'a Frame>,
    ) -> Bytes {
        let (ends, frames) = join_parts(frames.into_iter().map(|frame| &frame.bytes()[..]), 0);
        let hint = frames.len() + 4 * ends.len();
        let message = Self::ForwardedRequestMessage(ForwardedRequests { ends, frames });
        encode(
            Envelope::new(Kind::SystemWithFrames, cluster, epoch),
            &message,
            hint,
        )
    }
}

impl Checked<SystemMessage> {
    /// The ordering protocol's archives in this message, or `None` when it is another message.
    ///
    /// # Errors
    /// [`BatchError::Ends`] when the table of ends does not describe them.
    pub fn protocol_messages(&self) -> Option<Result<impl ExactSizeIterator<Item = Bytes> + '_, BatchError>> {
        match &**self {
            ArchivedSystemMessage::ProtocolMessage(bundle) => {
                let (ends, messages) = (bundle.ends.as_slice(), bundle.messages.as_slice());
                Some(split_parts(self, ends, messages, usize::MAX))
            }
            _ => None,
        }
    }

    /// The frames passed on in this message, or `None` when it is another message.
    ///
    /// # Errors
    /// [`BatchError::Ends`] or [`BatchError::TooLong`] when the table of ends does not describe them.
    pub fn forwarded_frames(
        &self,
        bytes_max: usize,
    ) -> Option<Result<impl ExactSizeIterator<Item = Bytes> + '_, BatchError>> {
        match &**self {
            ArchivedSystemMessage::ForwardedRequestMessage(message) => Some(split_parts(
                self,
                message.ends.as_slice(),
                message.frames.as_slice(),
                bytes_max,
            )),
            _ => None,
        }
    }
}
