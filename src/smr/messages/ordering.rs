use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use super::checked::{Checked, encode};
use super::envelope::{Envelope, Kind};
use super::request::ends_are_sound;
use super::sync::ArchivedSyncMessage;
use super::system::{ArchivedSystemMessage, SystemMessage};
use super::{Batch, BatchError};
use crate::smr::crypto::{Chain, Digester, Domain};
use crate::smr::types::{ClusterId, Digest, Epoch, SeqNo, UnixTime, View};

/// A batch proposed for a sequence number, with the frames as the clients sent them.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PrePrepare {
    /// The view it is proposed in.
    pub view: u64,
    /// The sequence number it is proposed for.
    pub seq: u64,
    /// The digest over the time and the frames' digests.
    pub digest: [u8; 32],
    /// What the leader's clock shows, in nanoseconds since 1970.
    pub time: u64,
    /// Where each frame ends in `frames`.
    pub ends: Vec<u32>,
    /// The frames, end to end, each an archive of a [`RequestFrame`](super::RequestFrame).
    pub frames: Vec<u8>,
}

/// What a checkpoint claims: the digest of state, client table and membership after a decision; or, if it is
/// a [light](LightCheckpoint) one, of the decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointClaim {
    /// The last decision the state includes.
    pub seq: SeqNo,
    /// The digest of all of it.
    pub digest: Digest,
}

/// What a light checkpoint consists of: the decisions, and the last checkpoint whose state was digested.
/// Whoever has signatures of its claim has them of that checkpoint as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LightCheckpoint {
    /// The last decision it covers.
    pub seq: SeqNo,
    /// The membership.
    pub epoch: Epoch,
    /// Covers every decision up to `seq`.
    pub chain: Chain,
    /// The last checkpoint with a state; all zero if there is none.
    pub state: CheckpointClaim,
}

/// A checkpoint that execution took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakenCheckpoint {
    /// What is claimed.
    pub claim: CheckpointClaim,
    /// What it consists of, if it is a light one. The others include the state.
    pub light: Option<LightCheckpoint>,
}

/// A checkpoint claim under its replica's signature: it must convince third parties later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SignedCheckpoint {
    /// The last decision the state includes.
    pub seq: u64,
    /// The digest of state, client table and membership.
    pub digest: [u8; 32],
    /// The replica that signed.
    pub signer: u16,
    /// Ed25519 over the claim's digest.
    pub signature: [u8; 64],
}

impl ArchivedSignedCheckpoint {
    /// The checkpoint, out of the received bytes.
    #[must_use]
    pub fn to_checkpoint(&self) -> SignedCheckpoint {
        SignedCheckpoint {
            seq: self.seq.to_native(),
            digest: self.digest,
            signer: self.signer.to_native(),
            signature: self.signature,
        }
    }
}

impl SignedCheckpoint {
    /// What is claimed.
    #[must_use]
    pub fn claim(&self) -> CheckpointClaim {
        CheckpointClaim {
            seq: SeqNo::new(self.seq),
            digest: Digest::from_bytes(self.digest),
        }
    }
}

impl LightCheckpoint {
    /// What the checkpoint amounts to: a digest that no checkpoint with a state has.
    #[must_use]
    pub fn claim(&self, digester: &Digester) -> CheckpointClaim {
        let mut hasher = digester.hasher(Domain::LightCheckpoint);
        hasher.update(&self.seq.get().to_le_bytes());
        hasher.update(&self.epoch.get().to_le_bytes());
        hasher.update(self.chain.head().as_bytes());
        hasher.update(&self.state.seq.get().to_le_bytes());
        hasher.update(self.state.digest.as_bytes());
        CheckpointClaim {
            seq: self.seq,
            digest: Digest::from_bytes(*hasher.finalize().as_bytes()),
        }
    }
}

impl CheckpointClaim {
    /// What there is before the first checkpoint.
    pub const NONE: Self = Self {
        seq: SeqNo::ZERO,
        digest: Digest::ZERO,
    };

    /// What the signature of a [`SignedCheckpoint`] covers.
    #[must_use]
    pub fn signed_digest(&self, digester: &Digester) -> Digest {
        let mut hasher = digester.hasher(Domain::Checkpoint);
        hasher.update(b"claim");
        hasher.update(&self.seq.get().to_le_bytes());
        hasher.update(self.digest.as_bytes());
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }
}

impl PrePrepare {
    /// The proposal of `batch`: the frames' bytes are copied once, as they are.
    #[must_use]
    pub fn new(view: View, seq: SeqNo, batch: &Batch) -> Self {
        let frames = batch.frames.iter().map(|frame| &frame.bytes()[..]);
        let (ends, frames) = join_parts(frames, batch.frame_bytes());
        Self {
            view: view.get(),
            seq: seq.get(),
            digest: *batch.digest.as_bytes(),
            time: batch.time.as_nanos(),
            ends,
            frames,
        }
    }

    /// The whole message that proposes `batch`.
    #[must_use]
    pub fn encode(cluster: ClusterId, epoch: Epoch, view: View, seq: SeqNo, batch: &Batch) -> Bytes {
        let message = Self::new(view, seq, batch);
        let hint = message.frames.len() + 4 * message.ends.len();
        let message = SystemMessage::ProposalMessage(message);
        encode(
            Envelope::new(Kind::SystemWithFrames, cluster, epoch),
            &message,
            hint,
        )
    }
}

impl ArchivedPrePrepare {
    /// The view it is proposed in.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(self.view.to_native())
    }

    /// The sequence number it is proposed for.
    #[must_use]
    pub fn seq(&self) -> SeqNo {
        SeqNo::new(self.seq.to_native())
    }

    /// The time it carries.
    #[must_use]
    pub fn time(&self) -> UnixTime {
        UnixTime::from_nanos(self.time.to_native())
    }

    /// The digest it claims.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::from_bytes(self.digest)
    }
}

/// Archives end to end, about so many bytes of them, and where each ends: what [`split_parts`] reads.
pub(super) fn join_parts<'a>(
    parts: impl Iterator<Item = &'a [u8]>,
    bytes_hint: usize,
) -> (Vec<u32>, Vec<u8>) {
    let mut ends = Vec::with_capacity(parts.size_hint().0);
    let mut joined = Vec::with_capacity(bytes_hint);
    for part in parts {
        joined.extend_from_slice(part);
        ends.push(u32::try_from(joined.len()).expect("a message is under 4 GiB"));
    }
    (ends, joined)
}

/// The bytes of each of several archives that lie end to end, as slices of the received message.
pub(super) fn split_parts<'a>(
    message: &'a Checked<SystemMessage>,
    ends: &'a [rkyv::Archived<u32>],
    frames: &'a [u8],
    bytes_max: usize,
) -> Result<impl ExactSizeIterator<Item = Bytes> + 'a, BatchError> {
    if frames.len() > bytes_max {
        return Err(BatchError::TooLong {
            got: frames.len(),
            max: bytes_max,
        });
    }
    if !ends_are_sound(ends.iter().map(|end| end.to_native()), frames.len()) {
        return Err(BatchError::Ends);
    }
    let mut start = 0;
    Ok(ends.iter().map(move |end| {
        let end = end.to_native() as usize;
        let frame = message.slice_of(&frames[start..end]);
        start = end;
        frame
    }))
}

impl Checked<SystemMessage> {
    /// The head of a proposal, or of a batch that answers a question; `None` when the message is neither.
    #[must_use]
    pub fn pre_prepare_head(&self) -> Option<&ArchivedPrePrepare> {
        match &**self {
            ArchivedSystemMessage::ProposalMessage(message)
            | ArchivedSystemMessage::SyncMessage(ArchivedSyncMessage::BatchResponse(message)) => {
                Some(message)
            }
            _ => None,
        }
    }

    /// The frames of the proposal or fetched batch in this message, or `None` when it is another message.
    ///
    /// # Errors
    /// [`BatchError::Ends`] or [`BatchError::TooLong`] when the table of ends does not describe them.
    pub fn pre_prepare(
        &self,
        bytes_max: usize,
    ) -> Option<Result<(&ArchivedPrePrepare, impl ExactSizeIterator<Item = Bytes> + '_), BatchError>> {
        match &**self {
            ArchivedSystemMessage::ProposalMessage(message)
            | ArchivedSystemMessage::SyncMessage(ArchivedSyncMessage::BatchResponse(message)) => {
                let frames = split_parts(
                    self,
                    message.ends.as_slice(),
                    message.frames.as_slice(),
                    bytes_max,
                );
                Some(frames.map(|frames| (message, frames)))
            }
            _ => None,
        }
    }
}
