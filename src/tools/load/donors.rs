//! Donors that lie: what a faulty replica does to a transfer when it is asked for its part of it.

use std::time::Duration;

use bytes::Bytes;

use crate::runtime::shard::faults::Interceptor;
use crate::smr::messages::archived::{
    ArchivedLogTransferMessage, ArchivedStateTransferMessage, ArchivedSystemMessage,
};
use crate::smr::messages::{Checked, ChunkOf, StateTransferMessage, SystemMessage};
use crate::smr::types::{ClusterId, Epoch, NodeId};

/// What a faulty donor does. In everything else it is correct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DonorLie {
    /// Sends chunks with one byte changed.
    CorruptChunks,
    /// Offers checkpoints and decisions, and then sends neither.
    StallTransfer,
}

impl DonorLie {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CorruptChunks => "donor: corrupt chunks",
            Self::StallTransfer => "donor: stalled transfers",
        }
    }

    /// The lie told by a replica of a real cluster.
    pub(crate) fn over_links(self, cluster: ClusterId, epoch: Epoch) -> Box<dyn Interceptor> {
        Box::new(LyingDonor {
            lie: self,
            cluster,
            epoch,
        })
    }
}

struct LyingDonor {
    lie: DonorLie,
    cluster: ClusterId,
    epoch: Epoch,
}

impl LyingDonor {
    /// What is sent in place of a message, if anything.
    fn change(&self, message: &Bytes) -> Option<Bytes> {
        let Ok(checked) = Checked::<SystemMessage>::body_of(message) else {
            return Some(message.clone());
        };
        match (&*checked, self.lie) {
            (
                ArchivedSystemMessage::StateTransferMessage(ArchivedStateTransferMessage::Chunk(chunk)),
                DonorLie::CorruptChunks,
            ) if !chunk.bytes.is_empty() => {
                let mut bytes = chunk.bytes.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                let chunk = ChunkOf {
                    seq: chunk.seq.to_native(),
                    last: chunk.last,
                    bytes,
                };
                Some(StateTransferMessage::Chunk(chunk).encode(self.cluster, self.epoch))
            }
            (
                ArchivedSystemMessage::StateTransferMessage(ArchivedStateTransferMessage::Chunk(_))
                | ArchivedSystemMessage::LogTransferMessage(ArchivedLogTransferMessage::Decided { .. }),
                DonorLie::StallTransfer,
            ) => None,
            _ => Some(message.clone()),
        }
    }
}

impl Interceptor for LyingDonor {
    fn say(&mut self, to: NodeId, message: &Bytes) -> Vec<(NodeId, Bytes, Duration)> {
        let said = self.change(message);
        said.into_iter()
            .map(|message| (to, message, Duration::ZERO))
            .collect()
    }
}
