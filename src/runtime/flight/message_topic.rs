use crate::smr::messages::ENVELOPE_BYTES;
use crate::smr::messages::archived::ArchivedSystemMessage;

/// What a replica's message is about, by a look at its last bytes: nothing of it is checked, and what is no
/// message may pass for one. For the record, and for nothing that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageTopic {
    /// Clients' frames that are passed on.
    Forwarded,
    /// A batch that is proposed.
    Proposal,
    /// Votes, and what else the ordering protocol says.
    Protocol,
    /// What the view transfer protocol says.
    ViewTransfer,
    /// Checkpoints, and what a replica lacks.
    Sync,
    /// Decisions in bulk.
    LogTransfer,
    /// The contents of checkpoints.
    StateTransfer,
}

impl MessageTopic {
    /// Every topic, in the order of [`SystemMessage`](crate::smr::messages::SystemMessage)'s.
    pub const ALL: [Self; 7] = [
        Self::Forwarded,
        Self::Proposal,
        Self::Protocol,
        Self::ViewTransfer,
        Self::Sync,
        Self::LogTransfer,
        Self::StateTransfer,
    ];

    /// That of a whole message, envelope included. An archive ends with its root, which begins with the
    /// number of its variant.
    #[must_use]
    pub fn of(message: &[u8]) -> Option<Self> {
        let root = message.len().checked_sub(size_of::<ArchivedSystemMessage>())?;
        let number = message.get(root).filter(|_| root >= ENVELOPE_BYTES)?;
        Self::ALL.get(usize::from(*number)).copied()
    }

    /// The number of a topic in an event; what is none is one beyond them all.
    #[must_use]
    pub fn code(topic: Option<Self>) -> u64 {
        topic.map_or(Self::ALL.len() as u64, |topic| topic as u64)
    }

    /// In words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Forwarded => "frames passed on",
            Self::Proposal => "proposal",
            Self::Protocol => "votes",
            Self::ViewTransfer => "view change",
            Self::Sync => "sync",
            Self::LogTransfer => "log transfer",
            Self::StateTransfer => "state transfer",
        }
    }

    /// Whether what such a message says is signed by its sender.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        matches!(self, Self::ViewTransfer | Self::Sync)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::messages::{
        Envelope, ForwardedRequests, Kind, LogTransferMessage, PrePrepare, ProtocolMessages,
        StateTransferMessage, SyncMessage, SystemMessage, encode,
    };
    use crate::smr::types::{ClusterId, Epoch};

    #[test]
    fn a_messages_topic_is_that_of_its_variant() {
        let batch = PrePrepare {
            view: 1,
            seq: 2,
            digest: [3; 32],
            time: 4,
            ends: vec![3],
            frames: b"abc".to_vec(),
        };
        let frames = ForwardedRequests {
            ends: vec![],
            frames: vec![],
        };
        let messages = [
            SystemMessage::ForwardedRequestMessage(frames),
            SystemMessage::ProposalMessage(batch),
            SystemMessage::ProtocolMessage(ProtocolMessages::of([&b"vote"[..]])),
            SystemMessage::ViewTransferMessage(vec![1, 2, 3]),
            SystemMessage::SyncMessage(SyncMessage::Decisions(vec![])),
            SystemMessage::LogTransferMessage(LogTransferMessage::AskDecided { after: 1 }),
            SystemMessage::StateTransferMessage(StateTransferMessage::AskOffer { after: 1 }),
        ];
        let envelope = Envelope::new(Kind::System, ClusterId::from_bytes([1; 16]), Epoch::ZERO);
        for (message, expected) in messages.iter().zip(MessageTopic::ALL) {
            let topic = MessageTopic::of(&encode(envelope, message, 64));
            assert_eq!(topic, Some(expected), "{message:?}");
        }
        assert_eq!(MessageTopic::of(&[]), None);
        assert_eq!(MessageTopic::of(&[0; ENVELOPE_BYTES]), None);
        assert_eq!(MessageTopic::of(&[0xff; 4 * ENVELOPE_BYTES]), None);
    }
}
