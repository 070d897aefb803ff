//! What is PBFT's own and both its halves share, ordering and view change: what their replicas say to each other,
//! as bytes that others carry and do not read ([`SystemMessage`]), and what one half hands to the other.

use bytes::Bytes;
use rkyv::rancor::Failure;
use rkyv::{Archive, Deserialize, Serialize};

use super::checked::{Checked, Malformed, archive, check};
use super::ordering::{CheckpointClaim, SignedCheckpoint};
use super::system::{ArchivedSystemMessage, SystemMessage};
use crate::smr::types::{ClusterId, Digest, Epoch, NodeId, SeqNo, View};

/// Which of the two voting phases a vote belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq))]
#[repr(u8)]
pub enum Phase {
    /// "I accept this batch for this place in this view."
    Prepare,
    /// "A quorum accepted it: I will not accept another."
    Commit,
}

/// One prepare or commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct Vote {
    /// Prepare or commit.
    pub phase: Phase,
    /// The view voted in.
    pub view: u64,
    /// The sequence number voted on.
    pub seq: u64,
    /// The digest of the batch voted for.
    pub digest: [u8; 32],
}

/// A batch that was prepared or pre-prepared at a place, with the latest view in which it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct SlotDigest {
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
    pub prepared: Vec<SlotDigest>,
    /// Q: by place and digest, the batches pre-prepared.
    pub pre_prepared: Vec<SlotDigest>,
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

/// What a replica has of one place: the bits of a byte in [`Status::slots`](super::Status::slots).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotStatus(pub u8);

impl SlotStatus {
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

/// What ordering by PBFT writes to its replica's log, beside what every ordering protocol does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum PbftRecord {
    /// A prepare or commit that this replica cast.
    Vote(Vote),
    /// A batch that a new view of this replica's own chose: it counts as pre-prepared by it. Written when the
    /// log is cut, if nothing else about its place says so.
    Announced(SlotDigest),
}

/// What replicas say to each other about views, by PBFT's view change.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ViewTransferMessage {
    /// A replica left its view.
    ViewChange(ViewChange),
    /// A view begins.
    NewView(NewView),
    /// "I want this view, one after mine": soft, repeated while it holds, and withdrawn by zero. A view is
    /// left when a quorum complains.
    Complaint(u64),
    /// Asks for view changes that a new view names, by digest. Each comes as a message of its own.
    FetchViewChanges(Vec<NamedViewChange>),
}

/// What ordering carries out of a view it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewEvidence {
    /// The last stable checkpoint.
    pub stable: CheckpointClaim,
    /// The quorum of signatures that proves it; empty at the beginning of time.
    pub proof: Vec<SignedCheckpoint>,
    /// P: the batch prepared last at each place, ascending by place.
    pub prepared: Vec<SlotDigest>,
    /// Q: the batches pre-prepared at each place, ascending by place and digest.
    pub pre_prepared: Vec<SlotDigest>,
}

/// What a view begins with: the same at every replica that enters it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewStart {
    /// The view.
    pub view: View,
    /// The checkpoint it starts after (min-s).
    pub stable: CheckpointClaim,
    /// What proves it.
    pub proof: Vec<SignedCheckpoint>,
    /// The batches of the places after it, without gaps; [`Digest::ZERO`] is the null request.
    pub chosen: Vec<Digest>,
}

impl ViewStart {
    /// The last place the view begins with (max-s).
    #[must_use]
    pub fn last(&self) -> SeqNo {
        self.stable.seq.plus(self.chosen.len() as u64)
    }
}

impl Phase {
    /// A word for a vote of this phase.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Commit => "commit",
        }
    }
}

impl Vote {
    /// The view voted in.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(self.view)
    }

    /// The sequence number voted on.
    #[must_use]
    pub fn seq(&self) -> SeqNo {
        SeqNo::new(self.seq)
    }

    /// The digest voted for.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.digest)
    }
}

impl ArchivedVote {
    /// The vote, out of the received bytes.
    #[must_use]
    pub fn to_vote(&self) -> Vote {
        Vote {
            phase: match self.phase {
                ArchivedPhase::Prepare => Phase::Prepare,
                ArchivedPhase::Commit => Phase::Commit,
            },
            view: self.view.to_native(),
            seq: self.seq.to_native(),
            digest: self.digest,
        }
    }
}

impl PbftRecord {
    /// The place it is about.
    #[must_use]
    pub fn seq(&self) -> SeqNo {
        SeqNo::new(match self {
            Self::Vote(vote) => vote.seq,
            Self::Announced(placed) => placed.seq,
        })
    }

    /// As it was written.
    ///
    /// # Errors
    /// When it was not.
    pub fn read(contents: &[u8]) -> Result<Self, Malformed> {
        let archived = check::<Self>(contents)?;
        Ok(rkyv::deserialize::<Self, Failure>(archived).expect("a checked archive deserialises"))
    }
}

impl SlotDigest {
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

impl ViewTransferMessage {
    /// The whole message.
    #[must_use]
    pub fn encode(&self, cluster: ClusterId, epoch: Epoch) -> Bytes {
        let hint = match self {
            Self::ViewChange(message) => message.bytes_hint(),
            Self::NewView(message) => 34 * message.view_changes.len(),
            Self::FetchViewChanges(list) => 34 * list.len(),
            Self::Complaint(_) => 16,
        };
        SystemMessage::view_transfer(cluster, epoch, archive(self, hint + 128))
    }
}

impl SystemMessage {
    /// The whole message that carries `votes`.
    #[must_use]
    pub fn votes(cluster: ClusterId, epoch: Epoch, votes: Vec<Vote>) -> Bytes {
        let archives: Vec<Vec<u8>> = votes.iter().map(|vote| archive(vote, 64)).collect();
        Self::protocol(cluster, epoch, archives.iter().map(Vec::as_slice))
    }
}

impl Checked<SystemMessage> {
    /// The votes in this message; none if it has others, or is another message.
    #[must_use]
    pub fn votes(&self) -> Vec<Vote> {
        let Some(Ok(archives)) = self.protocol_messages() else {
            return Vec::new();
        };
        let votes = archives.map(|archive| Checked::<Vote>::new(archive).map(|vote| vote.to_vote()));
        votes.collect::<Result<_, _>>().unwrap_or_default()
    }

    /// The message about views in this one.
    #[must_use]
    pub fn of_views(&self) -> Option<Checked<ViewTransferMessage>> {
        match &**self {
            ArchivedSystemMessage::ViewTransferMessage(message) => {
                Checked::new(self.slice_of(message.as_slice())).ok()
            }
            _ => None,
        }
    }
}
