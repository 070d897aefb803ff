use bytes::Bytes;

use super::changes::ChangeCheck;
use super::{ClientAuth, ClientDirectory};
use crate::smr::crypto::{BatchVerifier, Digester, Domain};
use crate::smr::membership::Membership;
use crate::smr::messages::archived::ArchivedAuthenticator;
use crate::smr::messages::{Frame, FrameError, FrameId, FrameKey, Mode, RefusalReason};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{ClientId, NodeId};

/// The sizes that every replica of a cluster agrees on: what one accepts, all accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckerLimits {
    /// The most bytes of one frame, as it [counts](Frame::counted_bytes). Not more than `batch_bytes_max`, or
    /// such a frame is never proposed.
    pub frame_bytes_max: usize,
    /// The most operations of one frame.
    pub frame_operations_max: usize,
    /// The most bytes of frames in one batch, as they [count](Frame::counted_bytes).
    pub batch_bytes_max: usize,
    /// The most frames in one batch.
    pub batch_frames_max: usize,
    /// How many MACs a frame counts as if it had them: one for each replica where clients may prove their
    /// frames so, else none.
    pub frame_macs: usize,
}

/// By which link a frame came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameSource {
    /// The link of this client, whose handshake proved it.
    Client(ClientId),
    /// Passed on by another replica, for whichever client it names.
    Replica(NodeId),
}

/// Why a frame is refused. Each kind is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameRefusal {
    /// Not a sound archive of a frame.
    #[error("the frame is not a sound archive")]
    Malformed,
    /// More bytes than a frame may have.
    #[error("the frame is too long")]
    TooLong,
    /// No operation, or too many.
    #[error("the frame has no operation or too many")]
    OperationCount,
    /// The table of ends does not describe the operations.
    #[error("the table of operation ends is not sound")]
    Ends,
    /// Not one MAC for each replica.
    #[error("the frame does not have one MAC for each replica")]
    MacCount,
    /// It names another client than the one whose link it came by.
    #[error("the frame names another client than its link's")]
    WrongClient,
    /// The client is not in the configuration.
    #[error("the client is unknown")]
    UnknownClient,
    /// The signature is not the client's over this frame.
    #[error("the signature is not the client's")]
    Signature,
    /// The MAC for this replica is not the client's over this frame.
    #[error("the MAC is not the client's")]
    Mac,
    /// It carries MACs where the cluster, or this client since a dispute, has to sign.
    #[error("the client has to sign")]
    MustSign,
    /// The replica that passed it on had so many signatures verified already that this one is not.
    #[error("the replica that passed it on may not have more signatures verified now")]
    OverBudget,
    /// A read beside the order, where none are answered.
    #[error("the cluster answers no reads beside the order")]
    OrderedOnly,
    /// A change of the membership that is not possible, or that its client may not hand in.
    #[error("the membership does not allow the change")]
    Change,
}

impl FrameRefusal {
    /// Every kind, each at the place [`index`](Self::index) tells.
    pub const ALL: [Self; 13] = [
        Self::Malformed,
        Self::TooLong,
        Self::OperationCount,
        Self::Ends,
        Self::MacCount,
        Self::WrongClient,
        Self::UnknownClient,
        Self::Signature,
        Self::Mac,
        Self::MustSign,
        Self::OverBudget,
        Self::OrderedOnly,
        Self::Change,
    ];

    /// The names of the counters, by [`index`](Self::index).
    pub const NAMES: [&'static str; Self::ALL.len()] = [
        "frame_refused_malformed",
        "frame_refused_too_long",
        "frame_refused_operation_count",
        "frame_refused_ends",
        "frame_refused_mac_count",
        "frame_refused_wrong_client",
        "frame_refused_unknown_client",
        "frame_refused_signature",
        "frame_refused_mac",
        "frame_refused_must_sign",
        "frame_refused_over_budget",
        "frame_refused_ordered_only",
        "frame_refused_change",
    ];

    /// The place of this kind in [`FrameRefusal::ALL`] and [`FrameRefusal::NAMES`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What the client is told.
    #[must_use]
    pub const fn reason(self) -> RefusalReason {
        match self {
            Self::Malformed | Self::TooLong | Self::OperationCount | Self::Ends | Self::MacCount => {
                RefusalReason::Malformed
            }
            Self::WrongClient | Self::UnknownClient | Self::Signature | Self::Mac => {
                RefusalReason::NotAuthentic
            }
            Self::MustSign => RefusalReason::MustSign,
            Self::OverBudget => RefusalReason::Overloaded,
            Self::OrderedOnly => RefusalReason::OrderedOnly,
            Self::Change => RefusalReason::ChangeRefused,
        }
    }
}

impl From<FrameError> for FrameRefusal {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Malformed => Self::Malformed,
            FrameError::OperationCount { .. } => Self::OperationCount,
            FrameError::TooLong { .. } => Self::TooLong,
            FrameError::Ends => Self::Ends,
            FrameError::MacCount { .. } => Self::MacCount,
        }
    }
}

/// A frame that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedFrame {
    /// Why.
    pub refusal: FrameRefusal,
    /// The frame to name in an answer to the client. `None` when no sequence number could be read, when the
    /// frame names another client, and for every forwarded frame: a faulty replica could spoil a client's
    /// frame and pass it to all, and the client would believe the refusals of f+1 correct replicas.
    pub answer: Option<FrameId>,
}

/// What this replica can tell of a frame that no replica has to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Authenticity {
    /// The client vouches for it.
    Verified,
    /// The MAC for this replica fails. Others may find theirs good: a faulty client, or a faulty replica on
    /// the way, can arrange that. In a proposal, f+1 prepares of others then have to vouch (DESIGN §4).
    Unverifiable,
}

/// What an authenticator tells before signatures are verified.
pub(super) enum Judgement {
    Decided(Authenticity),
    /// Its signature is the next in the batch verifier.
    SignatureQueued,
}

/// A frame on its way through [`FrameChecker::check_frames`].
#[derive(Debug)]
struct Slot {
    source: FrameSource,
    result: Result<Frame, RefusedFrame>,
    signature_queued: bool,
}

/// What the signatures of one message have cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// How many were verified.
    pub verified: usize,
    /// How many of those are not the client's.
    pub invalid: usize,
}

/// Judges frames and proposals: structure, sizes, client, authenticator; hashes each body once.
///
/// Invariant: the queued signatures are those of `waiting`, in order; all other working vectors are empty
/// between calls, and only their memory stays.
#[derive(Debug)]
pub struct FrameChecker {
    node: NodeId,
    replicas: usize,
    auth: ClientAuth,
    /// Whether reads beside the order are answered.
    reads: bool,
    pub(super) changes: ChangeCheck,
    pub(super) limits: CheckerLimits,
    pub(super) digester: Digester,
    directory: ClientDirectory,
    pub(super) verifier: BatchVerifier,
    /// Frames taken one by one whose signatures are queued.
    waiting: Vec<Frame>,
    slots: Vec<Slot>,
    /// The frames of a proposal by key, to find duplicates.
    pub(super) keys: Vec<(FrameKey, usize)>,
    /// The frames of a proposal whose signatures are queued.
    pub(super) signed: Vec<usize>,
    /// The frames whose MACs failed in the proposal checked last.
    pub(super) disputed: Vec<FrameKey>,
    /// Of the proposal, or of the frames passed on, that were checked last.
    pub(super) effort: Effort,
}

impl FrameChecker {
    /// The checker of replica `node` among `replicas`.
    #[must_use]
    pub fn new(
        node: NodeId,
        replicas: usize,
        auth: ClientAuth,
        limits: CheckerLimits,
        digester: Digester,
        directory: ClientDirectory,
    ) -> Self {
        Self {
            node,
            replicas,
            auth,
            reads: false,
            changes: ChangeCheck::default(),
            limits,
            digester,
            directory,
            verifier: BatchVerifier::default(),
            waiting: Vec::new(),
            slots: Vec::new(),
            keys: Vec::new(),
            signed: Vec::new(),
            disputed: Vec::new(),
            effort: Effort::default(),
        }
    }

    /// Lets reads beside the order pass if the cluster answers them.
    #[must_use]
    pub fn with_reads(mut self, reads: bool) -> Self {
        self.reads = reads;
        self
    }

    /// Lets changes of this membership pass; without one none is possible.
    #[must_use]
    pub fn with_membership(mut self, membership: Membership) -> Self {
        self.changes = ChangeCheck::of(membership);
        self
    }

    /// What the proposal, or the frames passed on, that were checked last have cost.
    #[must_use]
    pub fn effort(&self) -> Effort {
        self.effort
    }

    /// How many clients there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.directory.len()
    }

    /// The most bytes of frames in one message of a replica.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        self.limits.batch_bytes_max
    }

    /// From now on frames that this client sends here need a signature, or do not any more, at every checker
    /// that shares the directory.
    pub fn require_signature(&self, client: ClientId, must_sign: bool) {
        self.directory.require_signature(client, must_sign);
    }

    /// Takes a frame that came by the link of `client`. `None` for a signed one: it waits for
    /// [`verify`](Self::verify), which judges all of a turn together.
    ///
    /// # Errors
    /// Why the frame is refused, with its name where the client is to be told.
    pub fn take_frame(
        &mut self,
        client: ClientId,
        bytes: Bytes,
    ) -> Result<Option<Frame>, (Option<FrameId>, FrameRefusal)> {
        match self.check_arrived(FrameSource::Client(client), bytes, &mut |_| true) {
            Ok((frame, false)) => Ok(Some(frame)),
            Ok((frame, true)) => {
                self.waiting.push(frame);
                Ok(None)
            }
            Err(RefusedFrame { refusal, answer }) => Err((answer, refusal)),
        }
    }

    /// How many signed frames wait for [`verify`](Self::verify).
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Verifies the signatures of the waiting frames together and gives each with its verdict, in order. Each
    /// verdict is the one that single verification gives.
    pub fn verify(&mut self, mut verdict: impl FnMut(Frame, Result<(), FrameRefusal>)) {
        if self.waiting.is_empty() {
            return;
        }
        let mut frames = self.waiting.drain(..);
        self.verifier.verify(|valid| {
            if let Some(frame) = frames.next() {
                verdict(frame, valid.then_some(()).ok_or(FrameRefusal::Signature));
            }
        });
    }

    /// A verdict would go to the wrong frame: a bug of the caller that must not pass for authentication.
    pub(super) fn assert_nothing_queued(&self) {
        assert!(self.verifier.is_empty(), "frames were taken and not verified");
    }

    /// Checks the frames that arrived since the last turn and calls `verdict` for each, in order. Signatures
    /// are verified all together; each verdict is the one that single verification gives.
    ///
    /// Forwarded frames are copied out of the message they came in, so that a small frame never keeps a large
    /// message of a faulty replica in memory.
    ///
    /// # Panics
    /// When frames [taken](Self::take_frame) before were not [verified](Self::verify).
    pub fn check_frames(
        &mut self,
        frames: impl IntoIterator<Item = (FrameSource, Bytes)>,
        verdict: impl FnMut(FrameSource, Result<Frame, RefusedFrame>),
    ) {
        self.check_frames_within(frames, |_| true, verdict);
    }

    /// As [`check_frames`](Self::check_frames), and the signature of a known client's frame is verified only
    /// if `admit` says so of the client; else the frame is refused as [over
    /// budget](FrameRefusal::OverBudget).
    ///
    /// # Panics
    /// As there.
    pub fn check_frames_within(
        &mut self,
        frames: impl IntoIterator<Item = (FrameSource, Bytes)>,
        mut admit: impl FnMut(ClientId) -> bool,
        mut verdict: impl FnMut(FrameSource, Result<Frame, RefusedFrame>),
    ) {
        self.assert_nothing_queued();
        let mut slots = std::mem::take(&mut self.slots);
        slots.extend(
            frames
                .into_iter()
                .map(|(source, bytes)| self.slot(source, bytes, &mut admit)),
        );
        self.effort = Effort {
            verified: self.verifier.len(),
            invalid: 0,
        };
        let invalid = &mut self.effort.invalid;
        let mut rest = slots.drain(..);
        if !self.verifier.is_empty() {
            self.verifier.verify(|valid| {
                for slot in rest.by_ref() {
                    if !slot.signature_queued {
                        verdict(slot.source, slot.result);
                        continue;
                    }
                    *invalid += usize::from(!valid);
                    let result = slot.result.and_then(|frame| match valid {
                        true => Ok(frame),
                        false => Err(refused(slot.source, frame.id(), FrameRefusal::Signature)),
                    });
                    verdict(slot.source, result);
                    break;
                }
            });
        }
        rest.for_each(|slot| verdict(slot.source, slot.result));
        self.slots = slots;
    }

    fn slot(&mut self, source: FrameSource, bytes: Bytes, admit: &mut impl FnMut(ClientId) -> bool) -> Slot {
        let (result, signature_queued) = match self.check_arrived(source, bytes, admit) {
            Ok((frame, signature_queued)) => (Ok(frame), signature_queued),
            Err(refused) => (Err(refused), false),
        };
        Slot {
            source,
            result,
            signature_queued,
        }
    }

    /// Everything but the verdict on a signature; tells whether one is queued.
    fn check_arrived(
        &mut self,
        source: FrameSource,
        bytes: Bytes,
        admit: &mut impl FnMut(ClientId) -> bool,
    ) -> Result<(Frame, bool), RefusedFrame> {
        let bytes = match source {
            FrameSource::Replica(_) if bytes.len() <= self.limits.frame_bytes_max => {
                Bytes::copy_from_slice(&bytes)
            }
            _ => bytes,
        };
        let frame = self.check_structure(bytes).map_err(|error| RefusedFrame {
            refusal: error.into(),
            answer: None,
        })?;
        let key = frame.key();
        let id = frame.id();
        let refuse = |refusal| Err(refused(source, id, refusal));
        if let FrameSource::Client(client) = source
            && key.client != client
        {
            return refuse(FrameRefusal::WrongClient);
        }
        if frame.mode() == Mode::Unordered && !self.reads && !active(Mutant::ReadsUnasked) {
            return refuse(FrameRefusal::OrderedOnly);
        }
        let has_macs = matches!(frame.archived().authenticator, ArchivedAuthenticator::Macs(_));
        if let Some(keys) = self.directory.get(key.client) {
            if has_macs && keys.must_sign.is_set() {
                return refuse(FrameRefusal::MustSign);
            }
            if !has_macs && !admit(key.client) {
                return refuse(FrameRefusal::OverBudget);
            }
        }
        if frame.mode() == Mode::Change {
            // Whoever has it verified pays for the operators' signatures as well.
            if !(0..self.changes.signatures(&frame)).all(|_| admit(key.client)) {
                return refuse(FrameRefusal::OverBudget);
            }
            if !self.changes.allows(&frame) {
                return refuse(FrameRefusal::Change);
            }
        }
        match self.authenticate(&frame) {
            Ok(Judgement::Decided(Authenticity::Verified)) => Ok((frame, false)),
            Ok(Judgement::Decided(Authenticity::Unverifiable)) => refuse(FrameRefusal::Mac),
            Ok(Judgement::SignatureQueued) => Ok((frame, true)),
            Err(refusal) => refuse(refusal),
        }
    }

    /// Checks a frame's structure and sizes, and hashes its body.
    pub(super) fn check_structure(&self, bytes: Bytes) -> Result<Frame, FrameError> {
        let CheckerLimits {
            frame_operations_max,
            frame_bytes_max,
            ..
        } = self.limits;
        let digest_of = |body: &[u8]| self.digester.digest(Domain::RequestFrame, body);
        let frame = Frame::check(bytes, frame_operations_max, frame_bytes_max, digest_of)?;
        let frame = frame.allowing_for(self.limits.frame_macs);
        if frame.counted_bytes() > frame_bytes_max {
            return Err(FrameError::TooLong {
                got: frame.counted_bytes(),
                max: frame_bytes_max,
            });
        }
        match &frame.archived().authenticator {
            ArchivedAuthenticator::Macs(macs) if macs.len() != self.replicas => Err(FrameError::MacCount {
                got: macs.len(),
                expected: self.replicas,
            }),
            _ => Ok(frame),
        }
    }

    /// Judges a frame's authenticator. A refusal is one that every correct replica gives.
    pub(super) fn authenticate(&mut self, frame: &Frame) -> Result<Judgement, FrameRefusal> {
        let keys = self
            .directory
            .get(frame.key().client)
            .ok_or(FrameRefusal::UnknownClient)?;
        match &frame.archived().authenticator {
            ArchivedAuthenticator::Signature(signature) => {
                self.verifier
                    .queue(&keys.verifying, Domain::RequestFrame, frame.digest(), signature);
                Ok(Judgement::SignatureQueued)
            }
            ArchivedAuthenticator::Macs(_) if self.auth == ClientAuth::Signature => {
                Err(FrameRefusal::MustSign)
            }
            ArchivedAuthenticator::Macs(macs) => {
                let ours = macs.get(self.node.index());
                let holds = keys
                    .mac
                    .as_ref()
                    .zip(ours)
                    .is_some_and(|(key, mac)| key.verify(frame.digest(), mac));
                Ok(Judgement::Decided(match holds {
                    true => Authenticity::Verified,
                    false => Authenticity::Unverifiable,
                }))
            }
        }
    }
}

fn refused(source: FrameSource, frame: FrameId, refusal: FrameRefusal) -> RefusedFrame {
    let answer = match source {
        FrameSource::Client(client) if client == frame.key.client => Some(frame),
        FrameSource::Client(_) | FrameSource::Replica(_) => None,
    };
    RefusedFrame { refusal, answer }
}
