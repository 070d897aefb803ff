//! What replicas say when one of them lacks decisions or state.

use bytes::Bytes;
use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};

use super::checked::encode;
use super::envelope::{Envelope, Kind};
use super::ordering::{CheckpointClaim, LightCheckpoint, SignedCheckpoint};
use super::system::SystemMessage;
use crate::smr::crypto::Chain;
use crate::smr::types::{ClusterId, Digest, Epoch, SeqNo};

/// How many decisions one [`LogTransferMessage::Decided`] names.
pub const DECIDED_MAX: usize = 2048;

/// Log transfer: decisions that a replica lacks.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum LogTransferMessage {
    /// "What was decided after this place?"
    AskDecided {
        /// The asker's last decision.
        after: u64,
    },
    /// The batches decided from a place on, without gaps. A first place further on than the one that was
    /// asked for says that the decisions before it are forgotten. It may name none: then there is nothing
    /// more.
    Decided {
        /// What was asked: an earlier question's answer may come after a later question was sent.
        after: u64,
        /// The place of the first.
        first: u64,
        /// Their digests, at most [`DECIDED_MAX`].
        digests: Vec<[u8; 32]>,
    },
    /// "Send me the batches of these places."
    FetchDecisions {
        /// The first.
        first: u64,
        /// How many.
        count: u32,
    },
}

/// A checkpoint that a replica can hand out, with its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CheckpointOffer {
    /// The last decision it includes.
    pub seq: u64,
    /// Its digest.
    pub digest: [u8; 32],
    /// The later light checkpoint that was signed and names it; `None` when it was signed itself.
    pub cover: Option<CoveringCheckpoint>,
    /// The quorum of signatures that proves it.
    pub proof: Vec<SignedCheckpoint>,
}

/// What makes a [`LightCheckpoint`] of the checkpoint that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CoveringCheckpoint {
    /// The last decision it covers.
    pub seq: u64,
    /// The head of the chain of decisions up to it.
    pub chain: [u8; 32],
}

/// What is asked for of a checkpoint's contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PieceRange {
    /// The checkpoint.
    pub seq: u64,
    /// The first piece; `u32::MAX` for the head and the index.
    pub piece: u32,
    /// Where in this piece, or in the index, to start, in bytes. The head comes before the start of the
    /// index.
    pub offset: u64,
    /// The piece to stop before. Fewer may come.
    pub until: u32,
}

impl PieceRange {
    /// The piece number that stands for head and index.
    pub const HEAD: u32 = u32::MAX;
}

/// A chunk of a checkpoint's contents.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ChunkOf {
    /// The checkpoint.
    pub seq: u64,
    /// Whether it ends the answer.
    pub last: bool,
    /// The chunk; empty when the checkpoint is not there any more.
    pub bytes: Vec<u8>,
}

/// State transfer: the contents of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum StateTransferMessage {
    /// "Which checkpoint after this place can you hand out?"
    AskOffer {
        /// The place the asker has reached.
        after: u64,
    },
    /// The newest one there is.
    Offer(CheckpointOffer),
    /// "Send me these pieces."
    Fetch(PieceRange),
    /// An answer, one chunk of several.
    Chunk(ChunkOf),
}

impl LogTransferMessage {
    /// The whole message.
    #[must_use]
    pub fn encode(self, cluster: ClusterId, epoch: Epoch) -> Bytes {
        let hint = match &self {
            Self::Decided { digests, .. } => 32 * digests.len() + 72,
            Self::AskDecided { .. } | Self::FetchDecisions { .. } => 64,
        };
        let message = SystemMessage::LogTransferMessage(self);
        encode(Envelope::new(Kind::Transfer, cluster, epoch), &message, hint)
    }
}

impl StateTransferMessage {
    /// The whole message.
    #[must_use]
    pub fn encode(self, cluster: ClusterId, epoch: Epoch) -> Bytes {
        let hint = match &self {
            Self::Chunk(chunk) => chunk.bytes.len() + 64,
            Self::Offer(offer) => 128 * (offer.proof.len() + 1),
            Self::AskOffer { .. } | Self::Fetch(_) => 64,
        };
        let message = SystemMessage::StateTransferMessage(self);
        encode(Envelope::new(Kind::Transfer, cluster, epoch), &message, hint)
    }
}

impl CheckpointOffer {
    /// What is offered.
    #[must_use]
    pub fn claim(&self) -> CheckpointClaim {
        CheckpointClaim {
            seq: SeqNo::new(self.seq),
            digest: Digest::from_bytes(self.digest),
        }
    }

    /// What the proof has to be of: the offered checkpoint, or the light one that names it.
    #[must_use]
    pub fn light(&self, epoch: Epoch) -> Option<LightCheckpoint> {
        self.cover.map(|cover| LightCheckpoint {
            seq: SeqNo::new(cover.seq),
            epoch,
            chain: Chain::from_head(Digest::from_bytes(cover.chain)),
            state: self.claim(),
        })
    }
}

impl ArchivedCheckpointOffer {
    /// The offer, out of the received bytes.
    #[must_use]
    pub fn to_offer(&self) -> CheckpointOffer {
        rkyv::deserialize::<CheckpointOffer, Failure>(self).expect("a checked archive deserialises")
    }
}

impl ArchivedPieceRange {
    /// The range, out of the received bytes.
    #[must_use]
    pub fn to_range(&self) -> PieceRange {
        PieceRange {
            seq: self.seq.to_native(),
            piece: self.piece.to_native(),
            offset: self.offset.to_native(),
            until: self.until.to_native(),
        }
    }
}
