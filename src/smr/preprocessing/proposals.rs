use std::sync::Arc;

use bytes::Bytes;

use super::FrameChecker;
use super::frames::{Authenticity, Effort, Judgement};
use crate::smr::crypto::{BatchVerifier, Digester, Domain};
use crate::smr::messages::archived::ArchivedPrePrepare;
use crate::smr::messages::lengths::batch_message_bytes;
use crate::smr::messages::{Batch, BatchError, Checked, Frame, FrameKey, Mode, Proposal, SystemMessage};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{Digest, UnixTime};

/// How many digests are hashed in one go: 4 KiB, so that BLAKE3 works on four chunks side by side.
const DIGESTS_PER_UPDATE: usize = 128;

/// The digest of a batch: over its time and the digests of its frames, in order. The null request's is
/// [`Digest::ZERO`]: it has neither.
#[must_use]
pub fn batch_digest(digester: &Digester, time: UnixTime, frames: &[Frame]) -> Digest {
    if frames.is_empty() {
        return Digest::ZERO;
    }
    if active(Mutant::FrameOrderUncovered) && !frames.is_sorted_by_key(Frame::key) {
        let mut sorted = frames.to_vec();
        sorted.sort_by_key(Frame::key);
        return batch_digest(digester, time, &sorted);
    }
    let mut hasher = digester.hasher(Domain::Batch);
    hasher.update(&time.as_nanos().to_le_bytes());
    let mut buffer = [0; 32 * DIGESTS_PER_UPDATE];
    for run in frames.chunks(DIGESTS_PER_UPDATE) {
        for (place, frame) in buffer.chunks_exact_mut(32).zip(run) {
            place.copy_from_slice(frame.digest().as_bytes());
        }
        hasher.update(&buffer[..32 * run.len()]);
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// Whether it is no batch: the null request has no time, and its digest covers none.
pub(crate) fn has_time_alone(time: UnixTime, frames: &[Frame]) -> bool {
    frames.is_empty() && time != UnixTime::EPOCH
}

fn counted_bytes(frames: &[Frame]) -> usize {
    frames.iter().map(Frame::counted_bytes).sum()
}

impl FrameChecker {
    /// Checks a received pre-prepare: every frame's structure and authenticator, that no frame is in it
    /// twice, and that its digest is that of its frames. `message` is the whole message that `checked` is the
    /// body of.
    ///
    /// The proposal is not `authentic` when a MAC for this replica fails; whose is told by
    /// [`drain_disputed`](Self::drain_disputed).
    ///
    /// `None` when the message is no pre-prepare.
    ///
    /// # Errors
    /// A rule that is broken: all correct replicas refuse the proposal alike, and the leader that sent it is
    /// faulty. Nothing is remembered of the message. A frame whose key an earlier one has is
    /// [`BatchError::NotAuthentic`]: its client vouches for one frame of a number, once.
    ///
    /// # Panics
    /// When frames [taken](Self::take_frame) before were not [verified](Self::verify).
    pub fn check_proposal(
        &mut self,
        checked: &Checked<SystemMessage>,
        message: &Bytes,
    ) -> Option<Result<Proposal, BatchError>> {
        self.check_proposal_within(checked, message, usize::MAX)
    }

    /// As [`check_proposal`](Self::check_proposal), and no signature is verified if there are more than
    /// these.
    ///
    /// # Errors
    /// [`BatchError::OverBudget`] as well.
    ///
    /// # Panics
    /// As there.
    pub fn check_proposal_within(
        &mut self,
        checked: &Checked<SystemMessage>,
        message: &Bytes,
        signatures_max: usize,
    ) -> Option<Result<Proposal, BatchError>> {
        self.assert_nothing_queued();
        self.disputed.clear();
        self.signed.clear();
        self.effort = Effort::default();
        let longest = batch_message_bytes(self.limits.batch_bytes_max, self.limits.batch_frames_max);
        let split = checked.pre_prepare(self.limits.batch_bytes_max)?;
        let split = match message.len() > longest {
            // It would be logged as it is.
            true => Err(BatchError::TooLong {
                got: message.len(),
                max: longest,
            }),
            false => split,
        };
        let result = split.and_then(|(head, parts)| {
            let frames = self.judge_frames(head, parts, signatures_max)?;
            self.verify_proposed()?;
            Ok(self.proposal(head, frames, message))
        });
        if result.is_err() {
            self.disputed.clear();
            if !self.verifier.is_empty() {
                self.verifier = BatchVerifier::default();
            }
        }
        Some(result)
    }

    /// The frames whose MACs for this replica failed in the proposal checked last. Either the client is
    /// faulty or a replica spoilt its frame; [signing](Self::require_signature) settles it for the future.
    pub fn drain_disputed(&mut self) -> std::vec::Drain<'_, FrameKey> {
        self.disputed.drain(..)
    }

    /// All that can be checked without verifying a signature.
    fn judge_frames(
        &mut self,
        head: &ArchivedPrePrepare,
        parts: impl ExactSizeIterator<Item = Bytes>,
        signatures_max: usize,
    ) -> Result<Vec<Frame>, BatchError> {
        let (got, max) = (parts.len(), self.limits.batch_frames_max);
        if got > max {
            return Err(BatchError::TooLong { got, max });
        }
        let mut frames = Vec::with_capacity(got);
        for (index, part) in parts.enumerate() {
            frames.push(self.judge_proposed(index, part)?);
        }
        self.judge_change(&frames)?;
        // As the leader counted them: what was a batch with MACs is one with signatures.
        let (got, max) = (counted_bytes(&frames), self.limits.batch_bytes_max);
        if got > max {
            return Err(BatchError::TooLong { got, max });
        }
        self.refuse_duplicates(&frames)?;
        let digest = batch_digest(&self.digester, head.time(), &frames);
        let is_covered = digest == head.digest() && !has_time_alone(head.time(), &frames);
        if !is_covered && !active(Mutant::BatchDigestUnchecked) {
            return Err(BatchError::Digest);
        }
        match self.signed.len() {
            signatures if signatures > signatures_max => Err(BatchError::OverBudget(signatures)),
            _ => Ok(frames),
        }
    }

    fn proposal(&self, head: &ArchivedPrePrepare, frames: Vec<Frame>, message: &Bytes) -> Proposal {
        Proposal {
            view: head.view(),
            seq: head.seq(),
            batch: Arc::new(Batch::new(head.digest(), head.time(), frames)),
            message: message.clone(),
            authentic: self.disputed.is_empty(),
        }
    }

    fn judge_proposed(&mut self, index: usize, part: Bytes) -> Result<Frame, BatchError> {
        let frame = self
            .check_structure(part)
            .map_err(|error| BatchError::Frame { index, error })?;
        if !frame.mode().is_ordered() {
            return Err(BatchError::Unordered(index));
        }
        match self
            .authenticate(&frame)
            .map_err(|_| BatchError::NotAuthentic(index))?
        {
            // A client that has to sign may still be ordered by MACs that hold: others need not know of the
            // dispute yet, and a good MAC is proof enough for the replica it is for.
            Judgement::Decided(Authenticity::Verified) => {}
            Judgement::Decided(Authenticity::Unverifiable) => self.disputed.push(frame.key()),
            Judgement::SignatureQueued => self.signed.push(index),
        }
        Ok(frame)
    }

    /// A change of the membership is alone, and possible.
    fn judge_change(&mut self, frames: &[Frame]) -> Result<(), BatchError> {
        let is_change = |frame: &Frame| frame.mode() == Mode::Change;
        match frames.iter().position(is_change) {
            None => Ok(()),
            Some(0) if frames.len() == 1 && self.changes.allows(&frames[0]) => Ok(()),
            Some(index) => Err(BatchError::Change(index)),
        }
    }

    fn refuse_duplicates(&mut self, frames: &[Frame]) -> Result<(), BatchError> {
        self.keys.clear();
        self.keys.extend(
            frames
                .iter()
                .enumerate()
                .map(|(index, frame)| (frame.key(), index)),
        );
        self.keys.sort_unstable();
        match self.keys.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(BatchError::NotAuthentic(pair[1].1)),
            None => Ok(()),
        }
    }

    fn verify_proposed(&mut self) -> Result<(), BatchError> {
        if self.verifier.is_empty() {
            return Ok(());
        }
        if active(Mutant::FrameSignatureUnchecked) {
            self.verifier = BatchVerifier::default();
            return Ok(());
        }
        let (mut signed, mut first_invalid) = (self.signed.iter(), None);
        let mut effort = Effort {
            verified: self.verifier.len(),
            invalid: 0,
        };
        self.verifier.verify(|valid| {
            let index = signed.next().copied();
            if !valid {
                effort.invalid += 1;
                first_invalid = first_invalid.or(index);
            }
        });
        self.effort = effort;
        first_invalid.map_or(Ok(()), |index| Err(BatchError::NotAuthentic(index)))
    }
}
