//! Records as bytes. What carries a batch keeps the message it came in, byte for byte.

use std::sync::Arc;

use bytes::Bytes;

use crate::smr::crypto::{Chain, Digester, Domain};
use crate::smr::messages::lengths::LOG_HEAD_BYTES;
use crate::smr::messages::{
    Batch, Checked, CheckpointClaim, Frame, FrameError, Proposal, SignedCheckpoint, SystemMessage,
};
use crate::smr::preprocessing::{CheckerLimits, batch_digest, has_time_alone};
use crate::smr::protocol::Record;
use crate::smr::types::{Digest, SeqNo, View};

const PROPOSAL: u8 = 1;
const BATCH: u8 = 2;
const ORDERING: u8 = 3;
const DECISION: u8 = 5;
const CHECKPOINT: u8 = 6;
const STABLE: u8 = 7;
const VIEW: u8 = 8;
const VIEW_TRANSFER: u8 = 9;
const JUMP: u8 = 10;
const RECONFIGURATION: u8 = 11;

/// Before a record's contents: length of kind and contents, kind.
const FRAME_BYTES: usize = 5;
const CHECKPOINT_BYTES: usize = 8 + 32 + 2 + 64;
/// Before the message of a proposal: view, place, digest.
const PLACE_BYTES: usize = 8 + 8 + 32;

const _: () = assert!(
    FRAME_BYTES + PLACE_BYTES == LOG_HEAD_BYTES,
    "the longest record is worked out with what is written here"
);

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A kind there is not, or too few bytes for it.
    #[error("a record is of no known kind, or cut short")]
    Malformed,
    /// The batch of a record is not the one it names.
    #[error("the batch of a record is not the one that the record names")]
    Batch,
}

/// How many bytes [`encode`] writes.
pub(crate) fn encoded_bytes(record: &Record) -> usize {
    FRAME_BYTES
        + match record {
            Record::Proposal(proposal) | Record::Batch(proposal) => PLACE_BYTES + proposal.message.len(),
            Record::Ordering { contents, .. } => 8 + contents.len(),
            Record::Decision { .. } => 8 + 32 + 32,
            Record::Jump { .. } => 8 + 32,
            Record::Checkpoint(_) => CHECKPOINT_BYTES,
            Record::Stable { proof, .. } => 8 + 32 + proof.len() * CHECKPOINT_BYTES,
            Record::View(_) => 8,
            Record::ViewTransfer(contents) | Record::Reconfiguration(contents) => contents.len(),
        }
}

struct Sink<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Sink<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn number(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    fn checkpoint(&mut self, checkpoint: &SignedCheckpoint) {
        self.number(checkpoint.seq);
        self.put(&checkpoint.digest);
        self.put(&checkpoint.signer.to_le_bytes());
        self.put(&checkpoint.signature);
    }
}

/// Writes a record to the start of `out`, which has room for it. How many bytes it took.
pub(crate) fn encode(record: &Record, out: &mut [u8]) -> usize {
    let bytes = encoded_bytes(record);
    let kind = match record {
        Record::Proposal(_) => PROPOSAL,
        Record::Batch(_) => BATCH,
        Record::Ordering { .. } => ORDERING,
        Record::Decision { .. } => DECISION,
        Record::Jump { .. } => JUMP,
        Record::Checkpoint(_) => CHECKPOINT,
        Record::Stable { .. } => STABLE,
        Record::View(_) => VIEW,
        Record::ViewTransfer(_) => VIEW_TRANSFER,
        Record::Reconfiguration(_) => RECONFIGURATION,
    };
    let mut sink = Sink { out, at: 0 };
    sink.put(&((bytes - 4) as u32).to_le_bytes());
    sink.put(&[kind]);
    match record {
        Record::Proposal(proposal) | Record::Batch(proposal) => {
            sink.number(proposal.view.get());
            sink.number(proposal.seq.get());
            sink.put(proposal.batch.digest.as_bytes());
            sink.put(&proposal.message);
        }
        Record::Ordering { seq, contents } => {
            sink.number(seq.map_or(0, SeqNo::get));
            sink.put(contents);
        }
        Record::Decision { seq, digest, chain } => {
            sink.number(seq.get());
            sink.put(digest.as_bytes());
            sink.put(chain.head().as_bytes());
        }
        Record::Jump { seq, chain } => {
            sink.number(seq.get());
            sink.put(chain.head().as_bytes());
        }
        Record::Checkpoint(checkpoint) => sink.checkpoint(checkpoint),
        Record::Stable { claim, proof } => {
            sink.number(claim.seq.get());
            sink.put(claim.digest.as_bytes());
            proof.iter().for_each(|checkpoint| sink.checkpoint(checkpoint));
        }
        Record::View(view) => sink.number(view.get()),
        Record::ViewTransfer(contents) | Record::Reconfiguration(contents) => sink.put(contents),
    }
    debug_assert_eq!(sink.at, bytes);
    bytes
}

/// Takes the first record off `bytes`: its kind and contents.
pub(super) fn split_record<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], CodecError> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(CodecError::Malformed)?;
    let (record, rest) = rest
        .split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or(CodecError::Malformed)?;
    *bytes = rest;
    Ok(record)
}

struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(CodecError::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u64, CodecError> {
        self.take().map(u64::from_le_bytes)
    }

    fn digest(&mut self) -> Result<Digest, CodecError> {
        self.take().map(Digest::from_bytes)
    }

    fn checkpoint(&mut self) -> Result<SignedCheckpoint, CodecError> {
        Ok(SignedCheckpoint {
            seq: self.number()?,
            digest: self.take()?,
            signer: u16::from_le_bytes(self.take()?),
            signature: self.take()?,
        })
    }

    fn end(self) -> Result<(), CodecError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(CodecError::Malformed),
        }
    }
}

/// The place a record is about, without reading the rest of it.
pub(super) fn place_of(record: &[u8]) -> Option<SeqNo> {
    let at = match *record.first()? {
        PROPOSAL | BATCH => 9,
        DECISION | CHECKPOINT | JUMP | ORDERING => 1,
        _ => return None,
    };
    let number = record.get(at..at + 8)?.try_into().ok()?;
    Some(SeqNo::new(u64::from_le_bytes(number))).filter(|seq| *seq > SeqNo::ZERO)
}

/// The place and the digest of the batch that a record carries, without reading the batch.
pub(super) fn batch_of(record: &[u8]) -> Option<(SeqNo, [u8; 32])> {
    if !matches!(*record.first()?, PROPOSAL | BATCH) {
        return None;
    }
    let digest = record.get(17..49)?.try_into().ok()?;
    Some((place_of(record)?, digest))
}

/// Whether a record says that a checkpoint is stable.
pub(super) fn is_stable(record: &[u8]) -> bool {
    record.first() == Some(&STABLE)
}

/// Whether a record is about a checkpoint: that this replica signed it, or that it is stable.
pub(super) fn is_about_checkpoint(record: &[u8]) -> bool {
    is_stable(record) || record.first() == Some(&CHECKPOINT)
}

/// Whether a record is about what execution has to do: a decision, or that places were passed over.
pub(super) fn is_about_execution(record: &[u8]) -> bool {
    matches!(record.first(), Some(&(DECISION | JUMP)))
}

/// A word for the kind of a record, for tools.
pub(super) fn kind_name(record: &[u8]) -> &'static str {
    match record.first() {
        Some(&PROPOSAL) => "proposal",
        Some(&BATCH) => "batch",
        Some(&ORDERING) => "ordering",
        Some(&DECISION) => "decision",
        Some(&CHECKPOINT) => "checkpoint",
        Some(&STABLE) => "stable",
        Some(&VIEW) => "view",
        Some(&VIEW_TRANSFER) => "view-transfer",
        Some(&JUMP) => "jump",
        _ => "unknown",
    }
}

/// Reads records back. Batches are checked and hashed again: a record names the digest its batch must have.
#[derive(Debug, Clone)]
pub struct RecordReader {
    digester: Digester,
    limits: CheckerLimits,
}

impl RecordReader {
    /// A reader for the records of a cluster with these limits.
    #[must_use]
    pub fn new(digester: Digester, limits: CheckerLimits) -> Self {
        Self { digester, limits }
    }

    /// The record in these bytes.
    ///
    /// # Errors
    /// When they are none.
    pub fn read(&self, record: &[u8]) -> Result<Record, CodecError> {
        let (kind, contents) = record.split_first().ok_or(CodecError::Malformed)?;
        let mut source = Source(contents);
        let record = match *kind {
            PROPOSAL => return self.batch(source).map(Record::Proposal),
            BATCH => return self.batch(source).map(Record::Batch),
            ORDERING => {
                let seq = Some(SeqNo::new(source.number()?)).filter(|seq| *seq > SeqNo::ZERO);
                let contents = Bytes::copy_from_slice(source.0);
                return Ok(Record::Ordering { seq, contents });
            }
            DECISION => Record::Decision {
                seq: SeqNo::new(source.number()?),
                digest: source.digest()?,
                chain: Chain::from_head(source.digest()?),
            },
            JUMP => Record::Jump {
                seq: SeqNo::new(source.number()?),
                chain: Chain::from_head(source.digest()?),
            },
            CHECKPOINT => Record::Checkpoint(source.checkpoint()?),
            STABLE => {
                let claim = CheckpointClaim {
                    seq: SeqNo::new(source.number()?),
                    digest: source.digest()?,
                };
                let mut proof = Vec::with_capacity(source.0.len() / CHECKPOINT_BYTES);
                while !source.0.is_empty() {
                    proof.push(source.checkpoint()?);
                }
                Record::Stable { claim, proof }
            }
            VIEW => Record::View(View::new(source.number()?)),
            VIEW_TRANSFER => return Ok(Record::ViewTransfer(Bytes::copy_from_slice(contents))),
            RECONFIGURATION => return Ok(Record::Reconfiguration(Bytes::copy_from_slice(contents))),
            _ => return Err(CodecError::Malformed),
        };
        source.end()?;
        Ok(record)
    }

    fn batch(&self, mut source: Source<'_>) -> Result<Arc<Proposal>, CodecError> {
        let (view, seq, digest) = (source.number()?, source.number()?, source.digest()?);
        let message = Bytes::copy_from_slice(source.0);
        let checked = Checked::<SystemMessage>::body_of(&message).map_err(|_| CodecError::Batch)?;
        let parts = checked.pre_prepare(self.limits.batch_bytes_max);
        let (head, parts) = parts.ok_or(CodecError::Batch)?.map_err(|_| CodecError::Batch)?;
        let time = head.time();
        let hash = |body: &[u8]| self.digester.digest(Domain::RequestFrame, body);
        let (operations_max, bytes_max) = (self.limits.frame_operations_max, self.limits.frame_bytes_max);
        let frames = parts.map(|part| Frame::check(part, operations_max, bytes_max, hash));
        let frames = frames.map(|frame| Ok(frame?.allowing_for(self.limits.frame_macs)));
        let frames: Result<Vec<Frame>, FrameError> = frames.collect();
        let frames = frames.map_err(|_| CodecError::Batch)?;
        if batch_digest(&self.digester, time, &frames) != digest || has_time_alone(time, &frames) {
            return Err(CodecError::Batch);
        }
        let batch = Arc::new(Batch::new(digest, time, frames));
        Ok(Arc::new(Proposal {
            view: View::new(view),
            seq: SeqNo::new(seq),
            batch,
            message,
            authentic: true,
        }))
    }
}
