//! What holds for every ordering protocol: checkpoints, and what a replica lacks.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use super::checked::encode;
use super::envelope::{Envelope, Kind};
use super::ordering::{PrePrepare, SignedCheckpoint};
use super::system::SystemMessage;
use super::{ArchivedSystemMessage, Batch, Checked};
use crate::smr::types::{ClusterId, Digest, Epoch, REPLICAS_MAX, SeqNo, View};

/// How many places a [`Status`] describes, and how many decisions answer it.
pub const STATUS_SLOTS: usize = 64;

/// How many clients a [`Status`] names.
pub const STATUS_DISPUTES: usize = 64;

/// A batch at a place: what is asked for, or what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct BatchRef {
    /// The place.
    pub seq: u64,
    /// The batch's digest.
    pub digest: [u8; 32],
}

/// What a replica has: periodic, small. Peers send what it lacks.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Status {
    /// The sender's view.
    pub view: u64,
    /// Whether that view has begun for the sender.
    pub active: bool,
    /// Its last stable checkpoint.
    pub stable: u64,
    /// Its last decision.
    pub decided: u64,
    /// By replica: the latest view whose view change of that replica it holds, zero for none.
    pub view_changes: Vec<u64>,
    /// Whether it has decided nothing since its last status: it asks to be sent what it lacks.
    pub asks: bool,
    /// What it has of the places after `decided`, at most [`STATUS_SLOTS`]; see [`SlotStatus`](super::SlotStatus). Empty
    /// unless it asks.
    pub slots: Vec<u8>,
    /// Clients whose MACs failed here in a leader's proposal, at most [`STATUS_DISPUTES`].
    pub disputed: Vec<u32>,
    /// The view that it complains for ([`ViewTransferMessage::Complaint`](super::ViewTransferMessage::Complaint)); zero if it does not, and takes
    /// back what it said.
    pub complaint: u64,
}

/// Checkpoints, and what a replica has and lacks.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum SyncMessage {
    /// "My state after this decision has this digest", signed.
    Checkpoint(SignedCheckpoint),
    /// "This checkpoint is stable": a quorum's signatures of one claim. Those of the replicas that answer may
    /// be too few, when others are silent.
    Stable(Vec<SignedCheckpoint>),
    /// What a replica has.
    Status(Status),
    /// Asks for batches by digest.
    FetchBatches(Vec<BatchRef>),
    /// A batch that was asked for.
    BatchResponse(PrePrepare),
    /// "This was decided": f+1 equal ones are believed.
    Decisions(Vec<BatchRef>),
}

impl BatchRef {
    /// The reference to a batch at a place.
    #[must_use]
    pub fn new(seq: SeqNo, digest: &Digest) -> Self {
        Self {
            seq: seq.get(),
            digest: *digest.as_bytes(),
        }
    }

    /// The place.
    #[must_use]
    pub fn seq(&self) -> SeqNo {
        SeqNo::new(self.seq)
    }

    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.digest)
    }
}

impl ArchivedStatus {
    /// The status, out of the received bytes; lists that are too long are cut off.
    #[must_use]
    pub fn to_status(&self) -> Status {
        Status {
            view: self.view.to_native(),
            active: self.active,
            stable: self.stable.to_native(),
            decided: self.decided.to_native(),
            view_changes: self
                .view_changes
                .iter()
                .map(|view| view.to_native())
                .take(REPLICAS_MAX)
                .collect(),
            asks: self.asks,
            slots: self.slots.iter().copied().take(STATUS_SLOTS).collect(),
            disputed: self
                .disputed
                .iter()
                .map(|client| client.to_native())
                .take(STATUS_DISPUTES)
                .collect(),
            complaint: self.complaint.to_native(),
        }
    }
}

impl ArchivedBatchRef {
    /// The reference, out of the received bytes.
    #[must_use]
    pub fn to_ref(&self) -> BatchRef {
        BatchRef {
            seq: self.seq.to_native(),
            digest: self.digest,
        }
    }
}

impl SyncMessage {
    /// The whole message.
    #[must_use]
    pub fn encode(self, cluster: ClusterId, epoch: Epoch) -> Bytes {
        let (kind, hint) = match &self {
            Self::Checkpoint(_) => (Kind::System, 160),
            Self::Stable(proof) => (Kind::System, 112 * proof.len()),
            Self::Status(message) => {
                let lists = message.slots.len() + 4 * message.disputed.len();
                let hint = lists + 8 * message.view_changes.len() + 64;
                (Kind::System, hint)
            }
            Self::FetchBatches(list) | Self::Decisions(list) => (Kind::System, 40 * list.len()),
            Self::BatchResponse(message) => (
                Kind::TransferWithFrames,
                message.frames.len() + 4 * message.ends.len(),
            ),
        };
        let message = SystemMessage::SyncMessage(self);
        encode(Envelope::new(kind, cluster, epoch), &message, hint)
    }

    /// The whole message that answers a fetch: the batch at its place, in the form of a proposal.
    #[must_use]
    pub fn batch(cluster: ClusterId, epoch: Epoch, view: View, seq: SeqNo, batch: &Batch) -> Bytes {
        Self::BatchResponse(PrePrepare::new(view, seq, batch)).encode(cluster, epoch)
    }
}

impl Checked<SystemMessage> {
    /// Whether the frames in this message are those of a fetched batch, which promises nothing.
    #[must_use]
    pub fn is_batch_response(&self) -> bool {
        matches!(
            &**self,
            ArchivedSystemMessage::SyncMessage(ArchivedSyncMessage::BatchResponse(_))
        )
    }
}
