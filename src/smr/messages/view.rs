use bytes::Bytes;
use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};

use super::checked::encode;
use super::envelope::{Envelope, Kind};
use super::ordering::{CheckpointClaim, PrePrepare, SignedCheckpoint};
use super::system::SystemMessage;
use super::{ArchivedSystemMessage, Batch, Checked};
use crate::smr::types::{ClusterId, Digest, Epoch, NodeId, REPLICAS_MAX, SeqNo, View};

/// How many places a [`Status`] describes, and how many decisions answer it.
pub const STATUS_PLACES: usize = 64;

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

/// A batch that was prepared or pre-prepared at a place, with the latest view in which it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct PlacedDigest {
    /// The place.
    pub seq: u64,
    /// The batch's digest.
    pub digest: [u8; 32],
    /// The latest view.
    pub view: u64,
}

/// "I left for this view, and this is what I carry into it" (TOCS 2002, §4.4), signed.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ViewChange {
    /// The view the signer asks for.
    pub view: u64,
    /// h: the signer's last stable checkpoint.
    pub stable_seq: u64,
    /// Its digest.
    pub stable_digest: [u8; 32],
    /// The quorum of signatures that proves it; empty at the beginning of time.
    pub stable_proof: Vec<SignedCheckpoint>,
    /// P: by place, the batch prepared last. At most one per place.
    pub prepared: Vec<PlacedDigest>,
    /// Q: by place and digest, the batches pre-prepared.
    pub pre_prepared: Vec<PlacedDigest>,
    /// The replica that signed.
    pub signer: u16,
    /// Ed25519 over all of the above.
    pub signature: [u8; 64],
}

/// A view change by its signer and its digest, as [`NewView`]s name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct NamedViewChange {
    /// The replica that signed it.
    pub signer: u16,
    /// The digest that it signed: of all but the signature.
    pub digest: [u8; 32],
}

/// The leader's proof that a view may begin: a quorum of view changes, by their digests (§4.5). They travel
/// on their own. What the view begins with follows from them, so it is not said again.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct NewView {
    /// The view that begins.
    pub view: u64,
    /// The view changes the leader chose from, of distinct replicas, ascending.
    pub view_changes: Vec<NamedViewChange>,
    /// The leader.
    pub signer: u16,
    /// Ed25519 over all of the above.
    pub signature: [u8; 64],
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
    /// What it has of the places after `decided`, at most [`STATUS_PLACES`]; see [`PlaceStatus`]. Empty
    /// unless it asks.
    pub places: Vec<u8>,
    /// Clients whose MACs failed here in a leader's proposal, at most [`STATUS_DISPUTES`].
    pub disputed: Vec<u32>,
    /// The view that it complains for ([`ViewTransferMessage::Complaint`]); zero if it does not, and takes
    /// back what it said.
    pub complaint: u64,
}

/// What a replica has of one place: the bits of a byte in [`Status::places`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceStatus(pub u8);

impl PlaceStatus {
    /// It has the proposal of its view.
    pub const PROPOSED: u8 = 1;
    /// It needs no more prepares.
    pub const PREPARED: u8 = 2;
    /// It needs no more commits.
    pub const COMMITTED: u8 = 4;

    /// Whether the bit is set.
    #[must_use]
    pub const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// Everything about views, and about what a replica lacks.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ViewTransferMessage {
    /// A replica left its view.
    ViewChange(ViewChange),
    /// A view begins.
    NewView(NewView),
    /// What a replica has.
    Status(Status),
    /// Asks for batches by digest.
    FetchBatches(Vec<BatchRef>),
    /// A batch that was asked for.
    BatchResponse(PrePrepare),
    /// "This was decided": f+1 equal ones are believed.
    Decisions(Vec<BatchRef>),
    /// "This checkpoint is stable": a quorum's signatures of one claim. Those of the replicas that answer may
    /// be too few, when others are silent.
    Stable(Vec<SignedCheckpoint>),
    /// "I want this view, one after mine": soft, repeated while it holds, and withdrawn by zero. A view is
    /// left when a quorum complains.
    Complaint(u64),
    /// Asks for view changes that a new view names, by digest. Each comes as a message of its own.
    FetchViewChanges(Vec<NamedViewChange>),
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

impl PlacedDigest {
    /// The digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.digest)
    }

    /// A batch at a place, in a view.
    #[must_use]
    pub fn new(seq: SeqNo, digest: &Digest, view: View) -> Self {
        Self {
            seq: seq.get(),
            digest: *digest.as_bytes(),
            view: view.get(),
        }
    }
}

impl ViewChange {
    /// The view asked for.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(self.view)
    }

    /// Who signed it.
    #[must_use]
    pub fn signer(&self) -> NodeId {
        NodeId::new(self.signer)
    }

    /// The stable checkpoint it starts from.
    #[must_use]
    pub fn stable(&self) -> CheckpointClaim {
        CheckpointClaim {
            seq: SeqNo::new(self.stable_seq),
            digest: Digest::from_bytes(self.stable_digest),
        }
    }

    /// Feeds everything but the signature into a hasher, each list after its length.
    pub fn hash_into(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.view.to_le_bytes());
        hasher.update(&self.signer.to_le_bytes());
        hasher.update(&self.stable_seq.to_le_bytes());
        hasher.update(&self.stable_digest);
        hasher.update(&(self.stable_proof.len() as u64).to_le_bytes());
        for checkpoint in &self.stable_proof {
            hasher.update(&checkpoint.seq.to_le_bytes());
            hasher.update(&checkpoint.digest);
            hasher.update(&checkpoint.signer.to_le_bytes());
            hasher.update(&checkpoint.signature);
        }
        for list in [&self.prepared, &self.pre_prepared] {
            hasher.update(&(list.len() as u64).to_le_bytes());
            for placed in list {
                hasher.update(&placed.seq.to_le_bytes());
                hasher.update(&placed.digest);
                hasher.update(&placed.view.to_le_bytes());
            }
        }
    }

    /// This view change as a new view names it. `digest` is what it signed.
    #[must_use]
    pub fn named(&self, digest: &Digest) -> NamedViewChange {
        NamedViewChange {
            signer: self.signer,
            digest: *digest.as_bytes(),
        }
    }

    fn bytes_hint(&self) -> usize {
        256 + 128 * self.stable_proof.len() + 64 * (self.prepared.len() + self.pre_prepared.len())
    }
}

impl NewView {
    /// The view that begins.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(self.view)
    }

    /// Feeds everything but the signature into a hasher.
    pub fn hash_into(&self, hasher: &mut blake3::Hasher) {
        hasher.update(&self.view.to_le_bytes());
        hasher.update(&self.signer.to_le_bytes());
        hasher.update(&(self.view_changes.len() as u64).to_le_bytes());
        for named in &self.view_changes {
            hasher.update(&named.signer.to_le_bytes());
            hasher.update(&named.digest);
        }
    }
}

impl NamedViewChange {
    /// Who signed it.
    #[must_use]
    pub fn signer(&self) -> NodeId {
        NodeId::new(self.signer)
    }
}

impl ArchivedNamedViewChange {
    /// The name, out of the received bytes.
    #[must_use]
    pub fn to_named(&self) -> NamedViewChange {
        NamedViewChange {
            signer: self.signer.to_native(),
            digest: self.digest,
        }
    }
}

impl ArchivedViewChange {
    /// The view change, out of the received bytes.
    #[must_use]
    pub fn to_view_change(&self) -> ViewChange {
        rkyv::deserialize::<ViewChange, Failure>(self).expect("a checked archive deserialises")
    }
}

impl ArchivedNewView {
    /// The new view, out of the received bytes.
    #[must_use]
    pub fn to_new_view(&self) -> NewView {
        rkyv::deserialize::<NewView, Failure>(self).expect("a checked archive deserialises")
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
            places: self.places.iter().copied().take(STATUS_PLACES).collect(),
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

impl ViewTransferMessage {
    /// The whole message.
    #[must_use]
    pub fn encode(self, cluster: ClusterId, epoch: Epoch) -> Bytes {
        let (kind, hint) = match &self {
            Self::ViewChange(message) => (Kind::System, message.bytes_hint()),
            Self::NewView(message) => (Kind::System, 34 * message.view_changes.len()),
            Self::FetchViewChanges(list) => (Kind::System, 34 * list.len()),
            Self::Status(message) => {
                let lists = message.places.len() + 4 * message.disputed.len();
                let hint = lists + 8 * message.view_changes.len() + 64;
                (Kind::System, hint)
            }
            Self::FetchBatches(list) | Self::Decisions(list) => (Kind::System, 40 * list.len()),
            Self::Stable(proof) => (Kind::System, 112 * proof.len()),
            Self::Complaint(_) => (Kind::System, 16),
            Self::BatchResponse(message) => (
                Kind::SystemWithFrames,
                message.frames.len() + 4 * message.ends.len(),
            ),
        };
        let message = SystemMessage::ViewTransferMessage(self);
        encode(Envelope::new(kind, cluster, epoch), &message, hint)
    }

    /// The whole message that answers a fetch: the batch at its place, in the form of a pre-prepare.
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
            ArchivedSystemMessage::ViewTransferMessage(ArchivedViewTransferMessage::BatchResponse(_))
        )
    }
}
