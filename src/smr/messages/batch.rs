//! A batch in memory: the received bytes, and what was learnt of them once.

use std::sync::Arc;

use bytes::Bytes;

use super::archived::ArchivedAuthenticator;
use super::checked::check;
use super::request::{
    ArchivedRequestBody, ArchivedRequestFrame, FrameError, Mode, RequestBody, RequestFrame,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{ClientId, Digest, FrameSeq, SeqNo, UnixTime, View};

/// Which frame: a client never uses a sequence number for two of them, or only one is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKey {
    /// The client.
    pub client: ClientId,
    /// Its number for the frame.
    pub sequence: FrameSeq,
}

/// Exactly which frame: two frames of one key have different digests, and only one of them is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameId {
    /// Client and sequence number.
    pub key: FrameKey,
    /// The digest of the body: of what the client asks.
    pub digest: Digest,
}

/// A client's frame after its structure was checked and its body hashed.
///
/// Invariant: `bytes` is a sound archive of a [`RequestFrame`] whose body is a sound [`RequestBody`] with a
/// sound table of ends; `digest` is its body's digest; `counted_bytes` follows from the body and the cluster
/// alone.
#[derive(Debug, Clone)]
pub struct Frame {
    bytes: Bytes,
    key: FrameKey,
    digest: Digest,
    operation_count: u32,
    counted_bytes: u32,
    mode: Mode,
}

/// What a frame's archive has beside its body and its MACs: a signature has room in it.
const FRAME_HEAD_BYTES: usize = size_of::<ArchivedRequestFrame>();

impl Frame {
    /// Checks the structure of a frame and hashes its body with `digest_of`. It [counts](Self::counted_bytes)
    /// as one that is signed, where no other authenticator is [allowed for](Self::allowing_for).
    ///
    /// # Errors
    /// The first rule that is broken; nothing was hashed then.
    pub fn check(
        bytes: Bytes,
        operations_max: usize,
        bytes_max: usize,
        digest_of: impl FnOnce(&[u8]) -> Digest,
    ) -> Result<Self, FrameError> {
        if bytes.len() > bytes_max {
            return Err(FrameError::TooLong {
                got: bytes.len(),
                max: bytes_max,
            });
        }
        let frame = check::<RequestFrame>(&bytes).map_err(|_| FrameError::Malformed)?;
        let body = frame.open_body()?;
        body.check(operations_max)?;
        let key = FrameKey {
            client: body.client(),
            sequence: body.sequence(),
        };
        let (mode, operation_count) = (body.mode(), body.ends.len() as u32);
        let digest = digest_of(frame.body.as_slice());
        let counted_bytes = (frame.body.len() + FRAME_HEAD_BYTES) as u32;
        Ok(Self {
            bytes,
            key,
            digest,
            operation_count,
            counted_bytes,
            mode,
        })
    }

    /// The same frame in a cluster whose frames may have so many MACs: each counts as if it had them.
    #[must_use]
    pub fn allowing_for(mut self, macs: usize) -> Self {
        self.counted_bytes = match active(Mutant::AuthenticatorsCounted) {
            true => self.bytes.len() as u32,
            false => self
                .counted_bytes
                .saturating_add((size_of::<[u8; 16]>() * macs) as u32),
        };
        self
    }

    /// What the frame counts as wherever replicas have to agree, in bytes: the size of its body, which its
    /// digest covers, and of the longest proof of who sent it. The frame as it is has at most so many; how
    /// many depends on the proof, and so on who sends it.
    #[must_use]
    pub fn counted_bytes(&self) -> usize {
        self.counted_bytes as usize
    }

    /// The frame's bytes as the client sent them: an archive of a [`RequestFrame`].
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Client and sequence number.
    #[must_use]
    pub fn key(&self) -> FrameKey {
        self.key
    }

    /// Its key and the digest of its body.
    #[must_use]
    pub fn id(&self) -> FrameId {
        FrameId {
            key: self.key,
            digest: self.digest,
        }
    }

    /// The digest of the body.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How many operations the frame holds.
    #[must_use]
    pub fn operation_count(&self) -> usize {
        self.operation_count as usize
    }

    /// Whether it reads or writes, and where.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether it proves itself to everybody, and not only to whom its MACs convince.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        matches!(self.archived().authenticator, ArchivedAuthenticator::Signature(_))
    }

    /// The archived frame: body bytes and authenticator.
    #[must_use]
    pub fn archived(&self) -> &ArchivedRequestFrame {
        // SAFETY: `check` accepted these very bytes; `Bytes` never changes or moves them.
        unsafe { rkyv::access_unchecked::<ArchivedRequestFrame>(&self.bytes) }
    }

    /// The archived body: the operations.
    #[must_use]
    pub fn body(&self) -> &ArchivedRequestBody {
        // SAFETY: `check` accepted the body inside these very bytes as well.
        unsafe { rkyv::access_unchecked::<rkyv::Archived<RequestBody>>(self.archived().body.as_slice()) }
    }
}

/// What a message that carries a batch has beside frames and their table of ends, about.
const MESSAGE_HEAD_BYTES: usize = 256;

/// What one consensus instance orders: a list of frames. Empty for a null request.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The digest over the time and the frames' digests, in order ([`Digest::ZERO`] for the null request).
    pub digest: Digest,
    /// What the leader's clock showed: see [`crate::smr::ordering::pbft`]. The null request has none.
    pub time: UnixTime,
    /// The frames, in the order in which they are executed.
    pub frames: Vec<Frame>,
    /// What they count as together: see [`Frame::counted_bytes`]. Equal wherever the digest is, so that
    /// replicas may agree on what follows from it. What is kept, logged or sent is counted by what it really
    /// takes: see [`Proposal::kept_bytes`].
    pub bytes: usize,
}

impl Batch {
    /// The batch of these frames at this time, with the digest over both.
    #[must_use]
    pub fn new(digest: Digest, time: UnixTime, frames: Vec<Frame>) -> Self {
        let bytes = frames.iter().map(Frame::counted_bytes).sum();
        Self {
            digest,
            time,
            frames,
            bytes,
        }
    }

    /// The bytes of the frames as they are, end to end.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frames.iter().map(|frame| frame.bytes().len()).sum()
    }

    /// About how many bytes a message with this batch has.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.frame_bytes() + size_of::<u32>() * self.frames.len() + MESSAGE_HEAD_BYTES
    }

    /// Whether it closes its epoch: it has a change of the membership, and nothing else. That it is one that the
    /// membership allows was checked with its frames.
    #[must_use]
    pub fn closes_epoch(&self) -> bool {
        self.change().is_some()
    }

    /// The frame that asks for a change, if that is what the batch is.
    #[must_use]
    pub fn change(&self) -> Option<&Frame> {
        match &self.frames[..] {
            [frame] if frame.mode() == Mode::Change => Some(frame),
            _ => None,
        }
    }

    /// The null request that fills a gap: it executes nothing.
    #[must_use]
    pub fn null() -> Self {
        Self {
            digest: Digest::ZERO,
            time: UnixTime::EPOCH,
            frames: Vec::new(),
            bytes: 0,
        }
    }

    /// How many operations the batch holds.
    #[must_use]
    pub fn operation_count(&self) -> usize {
        self.frames.iter().map(Frame::operation_count).sum()
    }
}

/// A pre-prepare whose frames were checked: what the leader proposes, or a backup received.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The view it is proposed in.
    pub view: View,
    /// The place it is proposed for.
    pub seq: SeqNo,
    /// What is proposed.
    pub batch: Arc<Batch>,
    /// The whole message, envelope included, as sent or received: what is logged and retransmitted.
    pub message: Bytes,
    /// Whether this replica could check every frame's authenticator itself. False only for MACs that fail
    /// for us: then f+1 others' prepares must vouch for the clients (DESIGN §4).
    pub authentic: bool,
}

impl Proposal {
    /// What it takes to keep it in memory, in bytes. Frames are slices of the message, but for those of what
    /// this replica proposed itself.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        let is_of_message = |frame: &Frame| {
            let message = self.message.as_ptr_range();
            message.contains(&frame.bytes().as_ptr())
        };
        let apart = match self.batch.frames.first() {
            Some(first) if !is_of_message(first) => self.batch.frame_bytes(),
            _ => 0,
        };
        let frames = size_of::<Frame>() * self.batch.frames.len();
        size_of::<Self>() + size_of::<Batch>() + frames + self.message.len() + apart
    }
}

/// Why the frames of a pre-prepare are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BatchError {
    /// The table of frame ends does not describe the frames.
    #[error("the table of frame ends is not sound")]
    Ends,
    /// More bytes than a batch may have.
    #[error("the batch has {got} bytes, at most {max} are allowed")]
    TooLong {
        /// Bytes found.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// A frame in it is not sound.
    #[error("frame {index}: {error}")]
    Frame {
        /// The frame's place in the batch.
        index: usize,
        /// What is wrong with it.
        error: FrameError,
    },
    /// A frame asks not to be ordered.
    #[error("frame {0} is unordered and has no place in a batch")]
    Unordered(usize),
    /// The digest is not that of the time and the frames.
    #[error("the digest is not that of the time and the frames")]
    Digest,
    /// A pre-prepare for a view that its sender does not lead.
    #[error("its sender does not lead the view that it proposes for")]
    NotLeader,
    /// Nobody asked for it, and its sender had so many signatures verified already that these are not.
    #[error("its sender may not have {0} more signatures verified now")]
    OverBudget(usize),
    /// A frame's client is unknown or did not authenticate it.
    #[error("frame {0} is not authentic")]
    NotAuthentic(usize),
    /// A frame asks for a change of the membership that is not possible, or is not alone.
    #[error("frame {0} asks for a change of the membership that is not possible, or is not alone")]
    Change(usize),
}
