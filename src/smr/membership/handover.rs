use super::encoding::{Reader, Writer, is_ascending};
use super::head::MembershipHead;
use super::{MalformedMembership, UnlikelySuccessor};
use crate::smr::crypto::{Domain, SIGNATURE_BYTES, Signature, SigningKey, lasting_digest};
use crate::smr::messages::CheckpointClaim;
use crate::smr::types::{ClusterId, Digest, Epoch, NodeId, REPLICAS_MAX, SeqNo};

/// The format of an encoded certificate.
const HANDOVER_FORMAT: u16 = 1;

/// What members sign when their epoch ends. It is no checkpoint's signature: the domain is another one, and
/// so is what is covered, so that neither passes for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandoverStatement {
    /// The cluster.
    pub cluster: ClusterId,
    /// The epoch that ends.
    pub epoch: Epoch,
    /// Its last decision, and the digest of the checkpoint after it. It covers the chain of decisions, and
    /// the state, or the last checkpoint that has one.
    pub closing: CheckpointClaim,
    /// The digest of the membership of the next epoch.
    pub next: Digest,
}

impl HandoverStatement {
    /// What the signatures cover.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut out = Writer::default();
        out.u16(HANDOVER_FORMAT);
        out.bytes(self.cluster.as_bytes());
        out.u64(self.epoch.get());
        out.u64(self.closing.seq.get());
        out.bytes(self.closing.digest.as_bytes());
        out.bytes(self.next.as_bytes());
        lasting_digest(Domain::Handover, &out.finish())
    }

    /// A member's signature of it.
    #[must_use]
    pub fn sign(&self, member: NodeId, key: &SigningKey) -> HandoverSignature {
        HandoverSignature {
            signer: member,
            signature: key.sign(Domain::Handover, &self.digest()),
        }
    }
}

/// A member's signature of a [`HandoverStatement`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandoverSignature {
    /// Who.
    pub signer: NodeId,
    /// Ed25519 over [`HandoverStatement::digest`].
    pub signature: Signature,
}

/// Why a certificate certifies nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandoverRefused {
    /// It is about another cluster.
    #[error("the certificate is about cluster {0}")]
    OtherCluster(ClusterId),
    /// It is about another epoch.
    #[error("the certificate ends epoch {got}, not {expected}")]
    OtherEpoch {
        /// What it ends.
        got: Epoch,
        /// What should end.
        expected: Epoch,
    },
    /// More signatures than there are members. None was verified.
    #[error("{got} signatures of {members} members")]
    TooManySignatures {
        /// How many.
        got: usize,
        /// How many members there are.
        members: usize,
    },
    /// Somebody signed who is no member of the epoch that ends.
    #[error("{0} is no member of the epoch that ends")]
    NotAMember(NodeId),
    /// A signature does not hold.
    #[error("the signature of {0} is not valid")]
    BadSignature(NodeId),
    /// Not exactly a quorum signed.
    #[error("{got} members signed, a quorum is {quorum}")]
    NoQuorum {
        /// How many did.
        got: usize,
        /// How many are a quorum.
        quorum: usize,
    },
    /// What should follow cannot.
    #[error(transparent)]
    Successor(#[from] UnlikelySuccessor),
}

/// A quorum of an epoch says where it ends and who follows: the link from one epoch to the next.
///
/// Invariant: signatures stand in the order of slots, each member's once. Whether they hold and are a quorum
/// is for who knows the epoch's members: [`verify`](Self::verify).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoverCertificate {
    closing: CheckpointClaim,
    /// The next membership, but its clients, whom it names by their digest.
    next: MembershipHead,
    signatures: Vec<HandoverSignature>,
}

impl HandoverCertificate {
    /// No encoded certificate has more bytes.
    pub const BYTES_MAX: usize =
        Self::BYTES_MIN + MembershipHead::BYTES_MAX + REPLICAS_MAX * (2 + SIGNATURE_BYTES);

    /// Format, cluster, claim, number of signatures.
    pub(super) const BYTES_MIN: usize = 2 + 16 + 8 + 32 + 4;

    /// The certificate of an end and a successor that is in `signatures`: exactly a quorum of signatures that
    /// hold, of distinct members of `ending`, those of the lowest slots. What is in it beside them is
    /// dropped: strangers, forgeries, and what is one too many, as whoever handed it on would look like a
    /// liar.
    ///
    /// # Errors
    /// When there is no quorum, or when there are more signatures than members: then none is verified.
    pub fn gather(
        ending: &MembershipHead,
        closing: CheckpointClaim,
        next: MembershipHead,
        signatures: &[HandoverSignature],
    ) -> Result<Self, HandoverRefused> {
        let (members, quorum) = (ending.members().len(), ending.quorum().quorum());
        if signatures.len() > members {
            let got = signatures.len();
            return Err(HandoverRefused::TooManySignatures { got, members });
        }
        let mut certificate = Self {
            closing,
            next,
            signatures: Vec::with_capacity(quorum),
        };
        let digest = certificate.statement().digest();
        let mut offered = signatures.to_vec();
        offered.sort_unstable();
        for one in offered {
            let kept = &mut certificate.signatures;
            let is_new = kept.last().is_none_or(|last| last.signer < one.signer);
            let holds = || {
                let member = ending.member(one.signer);
                member.is_some_and(|member| {
                    let verified = member
                        .signing_key
                        .verify(Domain::Handover, &digest, &one.signature);
                    verified.is_ok()
                })
            };
            if kept.len() < quorum && is_new && holds() {
                kept.push(one);
            }
        }
        certificate.check_ending(ending)?;
        match certificate.signatures.len() {
            got if got == quorum => Ok(certificate),
            got => Err(HandoverRefused::NoQuorum { got, quorum }),
        }
    }

    /// Whether members of `ending`, which is the epoch that ends, certify it: exactly a quorum of them.
    ///
    /// # Errors
    /// Why they do not.
    pub fn verify(&self, ending: &MembershipHead) -> Result<(), HandoverRefused> {
        self.check_ending(ending)?;
        let (got, quorum) = (self.signatures.len(), ending.quorum().quorum());
        if got != quorum {
            return Err(HandoverRefused::NoQuorum { got, quorum });
        }
        let digest = self.statement().digest();
        for one in &self.signatures {
            let member = ending.member(one.signer);
            let member = member.ok_or(HandoverRefused::NotAMember(one.signer))?;
            let verified = member
                .signing_key
                .verify(Domain::Handover, &digest, &one.signature);
            verified.map_err(|_| HandoverRefused::BadSignature(one.signer))?;
        }
        Ok(())
    }

    /// Whether it is about the end of this epoch, and what follows can.
    fn check_ending(&self, ending: &MembershipHead) -> Result<(), HandoverRefused> {
        if self.next.cluster() != ending.cluster() {
            return Err(HandoverRefused::OtherCluster(self.next.cluster()));
        }
        if self.next.epoch() != ending.epoch().next() || ending.epoch() == ending.epoch().next() {
            let (got, expected) = (self.epoch(), ending.epoch());
            return Err(HandoverRefused::OtherEpoch { got, expected });
        }
        Ok(self.next.check_follows(ending)?)
    }

    /// The epoch that ends.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.next.epoch().minus(1)
    }

    /// Its last decision, and the checkpoint after it.
    #[must_use]
    pub fn closing(&self) -> CheckpointClaim {
        self.closing
    }

    /// The membership that follows.
    #[must_use]
    pub fn next(&self) -> &MembershipHead {
        &self.next
    }

    /// Who signed, in the order of slots.
    #[must_use]
    pub fn signatures(&self) -> &[HandoverSignature] {
        &self.signatures
    }

    /// What they signed.
    #[must_use]
    pub fn statement(&self) -> HandoverStatement {
        HandoverStatement {
            cluster: self.next.cluster(),
            epoch: self.epoch(),
            closing: self.closing,
            next: self.next.digest(),
        }
    }

    /// The certificate as bytes: the one form it has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(2048);
        self.encode_into(&mut out);
        out.finish()
    }

    pub(super) fn encode_into(&self, out: &mut Writer) {
        out.u16(HANDOVER_FORMAT);
        out.bytes(self.next.cluster().as_bytes());
        out.u64(self.closing.seq.get());
        out.bytes(self.closing.digest.as_bytes());
        self.next.encode_into(out);
        out.count(self.signatures.len());
        for one in &self.signatures {
            out.u16(one.signer.get());
            out.bytes(&one.signature);
        }
    }

    /// Reads a certificate, of whatever cluster and epoch.
    ///
    /// # Errors
    /// When the bytes are not exactly one.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedMembership> {
        let mut from = Reader::new(bytes);
        let certificate = Self::decode_from(&mut from)?;
        from.finish()?;
        Ok(certificate)
    }

    pub(super) fn decode_from(from: &mut Reader<'_>) -> Result<Self, MalformedMembership> {
        from.format("a certificate", HANDOVER_FORMAT)?;
        let cluster = from.cluster()?;
        let closing = CheckpointClaim {
            seq: SeqNo::new(from.u64("the last decision")?),
            digest: from.digest("the closing checkpoint")?,
        };
        let next = MembershipHead::decode_from(cluster, from)?;
        if next.epoch() == Epoch::ZERO {
            return Err(MalformedMembership::Unknown("the epoch that ends"));
        }
        let count = from.count("signatures", REPLICAS_MAX, 2 + SIGNATURE_BYTES)?;
        let signatures = (0..count).map(|_| {
            Ok(HandoverSignature {
                signer: NodeId::new(from.u16("a signer")?),
                signature: from.signature()?,
            })
        });
        let signatures: Vec<_> = signatures.collect::<Result<_, MalformedMembership>>()?;
        if !is_ascending(&signatures, |one| one.signer) {
            return Err(MalformedMembership::Unsorted("signatures"));
        }
        Ok(Self {
            closing,
            next,
            signatures,
        })
    }
}

/// Two certificates of one epoch that say different things: other successors, or another end. Two quorums
/// share f+1 members, so more than f of the epoch lied, or their keys are in other hands. No rule says which
/// is right then: whoever finds this stops believing either, and shows it to people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkProof {
    /// One of them.
    pub first: Box<HandoverCertificate>,
    /// The other.
    pub second: Box<HandoverCertificate>,
}

impl ForkProof {
    /// Whether it is one, about the end of this epoch.
    ///
    /// # Errors
    /// When one of the certificates does not hold.
    pub fn verify(&self, ending: &MembershipHead) -> Result<bool, HandoverRefused> {
        self.first.verify(ending)?;
        self.second.verify(ending)?;
        Ok(self.first.statement() != self.second.statement())
    }

    /// The members that signed both, in the order of slots: at least f+1 if the proof holds.
    pub fn liars(&self) -> impl Iterator<Item = NodeId> + '_ {
        let signed = |node: NodeId| self.second.signatures.iter().any(|one| one.signer == node);
        let first = self.first.signatures.iter().map(|one| one.signer);
        first.filter(move |node| signed(*node))
    }
}
