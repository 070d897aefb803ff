use std::sync::Arc;

use bytes::Bytes;

use super::{ClientAuth, ClientDirectory};
use crate::crypto::{BatchVerifier, Digester, Domain};
use crate::messages::archived::ArchivedAuthenticator;
use crate::messages::{
    Batch, BatchError, Checked, Frame, FrameError, FrameKey, Mode, Proposal, RefusalReason, SystemMessage,
};
use crate::types::{ClientId, Digest, NodeId};

/// Sizes every replica of a cluster agrees on.
#[derive(Debug, Clone, Copy)]
pub struct CheckerLimits {
    /// The most bytes of one frame.
    pub frame_bytes_max: usize,
    /// The most operations of one frame.
    pub frame_operations_max: usize,
    /// The most bytes of frames in one batch.
    pub batch_bytes_max: usize,
    /// The most frames in one batch.
    pub batch_frames_max: usize,
}

/// Why a client's frame is refused. Each kind is counted, and told to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameRefusal {
    /// Its structure breaks a rule.
    #[error("{0}")]
    Structure(FrameError),
    /// It names another client than the one whose link it came by.
    #[error("the frame names another client than its link's")]
    WrongClient,
    /// The client is not in the configuration.
    #[error("the client is unknown")]
    UnknownClient,
    /// The authenticator is not the client's, or not of the cluster's kind.
    #[error("the authenticator does not prove the client")]
    NotAuthentic,
    /// This client has to sign and did not.
    #[error("the client has to sign")]
    MustSign,
}

impl FrameRefusal {
    /// The names of the counters, by [`index`](Self::index).
    pub const NAMES: [&'static str; 5] = [
        "frame_refused_structure",
        "frame_refused_wrong_client",
        "frame_refused_unknown_client",
        "frame_refused_not_authentic",
        "frame_refused_must_sign",
    ];

    /// The place of this kind in [`FrameRefusal::NAMES`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Structure(_) => 0,
            Self::WrongClient => 1,
            Self::UnknownClient => 2,
            Self::NotAuthentic => 3,
            Self::MustSign => 4,
        }
    }

    /// What the client is told.
    #[must_use]
    pub const fn reason(self) -> RefusalReason {
        match self {
            Self::Structure(_) => RefusalReason::Malformed,
            Self::WrongClient | Self::UnknownClient | Self::NotAuthentic => RefusalReason::NotAuthentic,
            Self::MustSign => RefusalReason::MustSign,
        }
    }
}

/// The digest of a batch: over the digests of its frames, in order. The null request's is [`Digest::ZERO`].
#[must_use]
pub fn batch_digest(digester: &Digester, frames: &[Frame]) -> Digest {
    match frames {
        [] => Digest::ZERO,
        frames => digester.digest_of_digests(Domain::Batch, frames.iter().map(Frame::digest)),
    }
}

/// What an authenticator says of its frame, before signatures are verified.
enum Verdict {
    Authentic,
    /// A signature waits in the batch verifier.
    Queued,
    /// A MAC for us that does not hold, or is not to be trusted any more.
    Disputed,
    Refused(FrameRefusal),
}

/// Judges frames: structure, sizes, client, authenticator; hashes each body once.
pub struct FrameChecker {
    node: NodeId,
    replicas: usize,
    auth: ClientAuth,
    limits: CheckerLimits,
    digester: Digester,
    directory: ClientDirectory,
    verifier: BatchVerifier,
    /// Frames whose signatures are queued, and whether they passed everything else.
    waiting: Vec<Frame>,
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
        let verifier = BatchVerifier::default();
        Self {
            node,
            replicas,
            auth,
            limits,
            digester,
            directory,
            verifier,
            waiting: Vec::new(),
        }
    }

    /// From now on this client has to sign.
    pub fn require_signature(&mut self, client: ClientId) {
        self.directory.require_signature(client);
    }

    /// Takes a frame that came by the link of `client`. Signed frames wait for [`verify`](Self::verify), which
    /// judges all of them together; the others are returned at once.
    ///
    /// # Errors
    /// Why the frame is refused, with its key where one could be read.
    pub fn take_frame(
        &mut self,
        client: ClientId,
        bytes: Bytes,
    ) -> Result<Option<Frame>, (Option<FrameKey>, FrameRefusal)> {
        let frame = self
            .check_structure(bytes)
            .map_err(|error| (None, FrameRefusal::Structure(error)))?;
        let key = frame.key();
        if key.client != client {
            return Err((None, FrameRefusal::WrongClient));
        }
        match self.judge(&frame) {
            Verdict::Authentic => Ok(Some(frame)),
            Verdict::Queued => {
                self.waiting.push(frame);
                Ok(None)
            }
            Verdict::Disputed => Err((Some(key), self.disputed(client))),
            Verdict::Refused(refusal) => Err((Some(key), refusal)),
        }
    }

    /// How many signed frames wait for [`verify`](Self::verify).
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Verifies the waiting frames' signatures together and gives each with its verdict, in order.
    pub fn verify(&mut self, mut verdict: impl FnMut(Frame, Result<(), FrameRefusal>)) {
        let mut frames = self.waiting.drain(..);
        self.verifier.verify(|valid| {
            if let Some(frame) = frames.next() {
                verdict(
                    frame,
                    if valid {
                        Ok(())
                    } else {
                        Err(FrameRefusal::NotAuthentic)
                    },
                );
            }
        });
    }

    /// Checks a received pre-prepare: every frame, and that its digest is theirs.
    ///
    /// # Errors
    /// The first rule that is broken; the leader that sent it is faulty then.
    pub fn check_proposal(
        &mut self,
        checked: &Checked<SystemMessage>,
        message: &Bytes,
    ) -> Option<Result<Proposal, BatchError>> {
        debug_assert!(self.waiting.is_empty(), "a caller verifies what it queued");
        let split = checked.pre_prepare(self.limits.batch_bytes_max)?;
        Some(split.and_then(|(head, parts)| {
            if parts.len() > self.limits.batch_frames_max {
                return Err(BatchError::TooLong {
                    got: parts.len(),
                    max: self.limits.batch_frames_max,
                });
            }
            let mut frames = Vec::with_capacity(parts.len());
            let (mut bytes, mut authentic) = (0, true);
            for (index, part) in parts.enumerate() {
                let frame = self
                    .check_structure(part)
                    .map_err(|error| BatchError::Frame { index, error });
                let verdict = frame.and_then(|frame| {
                    if frame.mode() != Mode::Ordered {
                        return Err(BatchError::Unordered(index));
                    }
                    Ok((self.judge(&frame), frame))
                });
                let (verdict, frame) = verdict.inspect_err(|_| self.forget())?;
                match verdict {
                    Verdict::Authentic | Verdict::Queued => {}
                    Verdict::Disputed => authentic = false,
                    Verdict::Refused(_) => {
                        self.forget();
                        return Err(BatchError::NotAuthentic(index));
                    }
                }
                bytes += frame.bytes().len();
                frames.push(frame);
            }
            let mut signed = true;
            if !self.verifier.is_empty() {
                self.verifier.verify(|valid| signed &= valid);
            }
            if !signed {
                return Err(BatchError::NotAuthentic(0));
            }
            let digest = batch_digest(&self.digester, &frames);
            if digest != head.digest() {
                return Err(BatchError::Digest);
            }
            let batch = Arc::new(Batch {
                digest,
                frames,
                bytes,
            });
            Ok(Proposal {
                view: head.view(),
                seq: head.seq(),
                batch,
                message: message.clone(),
                authentic,
            })
        }))
    }

    fn forget(&mut self) {
        self.verifier = BatchVerifier::default();
    }

    fn check_structure(&self, bytes: Bytes) -> Result<Frame, FrameError> {
        let digester = &self.digester;
        let frame = Frame::check(
            bytes,
            self.limits.frame_operations_max,
            self.limits.frame_bytes_max,
            |body| digester.digest(Domain::RequestFrame, body),
        )?;
        match &frame.archived().authenticator {
            ArchivedAuthenticator::Macs(macs) if macs.len() != self.replicas => Err(FrameError::MacCount {
                got: macs.len(),
                expected: self.replicas,
            }),
            _ => Ok(frame),
        }
    }

    fn judge(&mut self, frame: &Frame) -> Verdict {
        let Some(client) = self.directory.get(frame.key().client) else {
            return Verdict::Refused(FrameRefusal::UnknownClient);
        };
        match &frame.archived().authenticator {
            ArchivedAuthenticator::Signature(signature) => {
                self.verifier
                    .queue(&client.verifying, Domain::RequestFrame, frame.digest(), signature);
                Verdict::Queued
            }
            ArchivedAuthenticator::Macs(_) if self.auth == ClientAuth::Signature => {
                Verdict::Refused(FrameRefusal::NotAuthentic)
            }
            ArchivedAuthenticator::Macs(macs) => {
                let holds = match (&client.mac, macs.get(self.node.index())) {
                    (Some(key), Some(mac)) => key.verify(frame.digest(), mac),
                    _ => false,
                };
                if holds && !client.must_sign {
                    Verdict::Authentic
                } else {
                    Verdict::Disputed
                }
            }
        }
    }

    fn disputed(&self, client: ClientId) -> FrameRefusal {
        match self.directory.get(client) {
            Some(keys) if keys.must_sign => FrameRefusal::MustSign,
            _ => FrameRefusal::NotAuthentic,
        }
    }
}
