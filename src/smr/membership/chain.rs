use super::encoding::{Reader, Writer};
use super::handover::{ForkProof, HandoverCertificate, HandoverRefused};
use super::head::MembershipHead;
use super::{Genesis, MalformedMembership, MembershipError};
use crate::smr::types::{ClusterId, Digest, Epoch};

/// The format of an encoded piece of a chain.
const CHAIN_FORMAT: u16 = 1;

/// The most certificates of one piece.
pub const PIECE_CERTIFICATES_MAX: usize = 1024;

/// The longest piece of a chain, in bytes: there is room for the longest certificate.
pub const PIECE_BYTES_MAX: usize = 256 << 10;

const _: () = assert!(PIECE_HEAD_BYTES + HandoverCertificate::BYTES_MAX <= PIECE_BYTES_MAX);

/// Format and number of certificates.
const PIECE_HEAD_BYTES: usize = 2 + 4;

/// What became of a certificate that a chain was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// The chain is longer by it.
    New,
    /// The chain has this link.
    Known,
}

/// Why a chain does not take a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Certificates in between are missing.
    #[error(
        "the chain ends in epoch {last}, and the certificate ends epoch {got}: those in between are missing"
    )]
    Gap {
        /// Where the chain ends.
        last: Epoch,
        /// What the certificate ends.
        got: Epoch,
    },
    /// It is about an epoch before the one that the chain begins with, which nothing is known of here.
    #[error("the chain begins with epoch {first}, and the certificate ends epoch {got}")]
    BeforePin {
        /// Where the chain begins.
        first: Epoch,
        /// What the certificate ends.
        got: Epoch,
    },
    /// It is no certificate of that epoch.
    #[error(transparent)]
    Refused(#[from] HandoverRefused),
    /// It holds, and so does another one of that epoch.
    #[error(
        "two quorums of epoch {} say different things: more than f of its members lied, or their keys are \
         stolen",
        .0.first.epoch()
    )]
    Fork(ForkProof),
    /// A membership that is to be pinned is not the one whose digest is known.
    #[error("the membership has digest {got}, the pinned one {pinned}")]
    NotThePinned {
        /// What it has.
        got: Digest,
        /// What is known.
        pinned: Digest,
    },
}

/// The memberships of a cluster, from one that is trusted to the newest that is known, each with the
/// certificate of the epoch before. What it is trusted for is at its beginning: the genesis, or a pinned
/// epoch.
///
/// Invariant: each link is certified by members of the epoch before it, and by nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipChain {
    /// The membership that is trusted without a certificate.
    first: MembershipHead,
    /// The end of each epoch from `first` on.
    links: Vec<HandoverCertificate>,
}

impl MembershipChain {
    /// The chain that begins with the birth of a cluster.
    ///
    /// # Errors
    /// When no cluster can be born like that.
    pub fn from_genesis(genesis: &Genesis) -> Result<Self, MembershipError> {
        Ok(Self::beginning_with(genesis.membership()?.head().clone()))
    }

    /// The chain that begins with a membership that is trusted for another reason.
    pub(super) fn beginning_with(first: MembershipHead) -> Self {
        Self {
            first,
            links: Vec::new(),
        }
    }

    /// The chain that begins with an epoch whose membership's digest the caller knows from elsewhere, and
    /// trusts: whatever earlier members sign from now on, it is not believed.
    ///
    /// # Errors
    /// When the membership has another digest.
    pub fn from_pinned(first: MembershipHead, pinned: Digest) -> Result<Self, ChainError> {
        match first.digest() {
            got if got == pinned => Ok(Self::beginning_with(first)),
            got => Err(ChainError::NotThePinned { got, pinned }),
        }
    }

    /// Takes certificates that somebody has, in order.
    ///
    /// # Errors
    /// At the first that is not taken; those before it are.
    pub fn verify<'a>(
        mut self,
        certificates: impl IntoIterator<Item = &'a HandoverCertificate>,
    ) -> Result<Self, ChainError> {
        for certificate in certificates {
            self.extend(certificate)?;
        }
        Ok(self)
    }

    /// Takes one more certificate. One of an epoch whose end is known is compared with what is known: if it
    /// says the same it changes nothing, whoever signed it; if not, and it holds, it is proof that more than
    /// f lied.
    ///
    /// # Errors
    /// Why the chain stays as it is.
    pub fn extend(&mut self, certificate: &HandoverCertificate) -> Result<Extension, ChainError> {
        let (got, first, last) = (certificate.epoch(), self.first.epoch(), self.newest().epoch());
        if certificate.next().cluster() != self.cluster() {
            return Err(HandoverRefused::OtherCluster(certificate.next().cluster()).into());
        }
        if got > last {
            return Err(ChainError::Gap { last, got });
        }
        let Some(ending) = self.head(got) else {
            return Err(ChainError::BeforePin { first, got });
        };
        let Some(known) = self.ended(got) else {
            certificate.verify(ending)?;
            self.links.push(certificate.clone());
            return Ok(Extension::New);
        };
        if known.statement() == certificate.statement() {
            return Ok(Extension::Known);
        }
        certificate.verify(ending)?;
        Err(ChainError::Fork(ForkProof {
            first: Box::new(known.clone()),
            second: Box::new(certificate.clone()),
        }))
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.first.cluster()
    }

    /// The membership that it begins with.
    #[must_use]
    pub fn first(&self) -> &MembershipHead {
        &self.first
    }

    /// The newest membership.
    #[must_use]
    pub fn newest(&self) -> &MembershipHead {
        self.links.last().map_or(&self.first, HandoverCertificate::next)
    }

    /// The place of an epoch: 0 is the first.
    fn place(&self, epoch: Epoch) -> Option<usize> {
        let place = epoch.get().checked_sub(self.first.epoch().get())?;
        usize::try_from(place).ok()
    }

    /// The membership of an epoch, if it is known.
    #[must_use]
    pub fn head(&self, epoch: Epoch) -> Option<&MembershipHead> {
        match self.place(epoch)?.checked_sub(1) {
            None => Some(&self.first),
            Some(link) => self.links.get(link).map(HandoverCertificate::next),
        }
    }

    /// The certificate that ended an epoch, if it is known.
    #[must_use]
    pub fn ended(&self, epoch: Epoch) -> Option<&HandoverCertificate> {
        self.links.get(self.place(epoch)?)
    }

    /// What somebody who knows the membership of `epoch` lacks: the certificates that ended it and later
    /// ones. None if it knows the newest; `None` if the chain begins later, and cannot help.
    #[must_use]
    pub fn since(&self, epoch: Epoch) -> Option<&[HandoverCertificate]> {
        let place = self.place(epoch)?;
        Some(self.links.get(place..).unwrap_or_default())
    }
}

/// As many of these certificates as one piece holds, from the first on, as bytes; and how many they are. At
/// least one if there is one.
#[must_use]
pub fn encode_piece(certificates: &[HandoverCertificate]) -> (Vec<u8>, usize) {
    let (mut bodies, mut count) = (Vec::new(), 0);
    for certificate in certificates.iter().take(PIECE_CERTIFICATES_MAX) {
        let body = certificate.encode();
        if PIECE_HEAD_BYTES + bodies.len() + body.len() > PIECE_BYTES_MAX {
            break;
        }
        bodies.extend_from_slice(&body);
        count += 1;
    }
    let mut out = Writer::with_capacity(PIECE_HEAD_BYTES + bodies.len());
    out.u16(CHAIN_FORMAT);
    out.count(count);
    out.bytes(&bodies);
    (out.finish(), count)
}

/// Reads a piece of a chain. None of the certificates is verified.
///
/// # Errors
/// When the bytes are not exactly a piece.
pub fn decode_piece(bytes: &[u8]) -> Result<Vec<HandoverCertificate>, MalformedMembership> {
    if bytes.len() > PIECE_BYTES_MAX {
        return Err(MalformedMembership::TooMany {
            what: "bytes of a piece",
            got: bytes.len(),
            max: PIECE_BYTES_MAX,
        });
    }
    let mut from = Reader::new(bytes);
    from.format("a piece of a chain", CHAIN_FORMAT)?;
    let count = from.count(
        "certificates",
        PIECE_CERTIFICATES_MAX,
        HandoverCertificate::BYTES_MIN,
    )?;
    let mut certificates = Vec::new();
    for _ in 0..count {
        certificates.push(HandoverCertificate::decode_from(&mut from)?);
    }
    from.finish()?;
    Ok(certificates)
}
