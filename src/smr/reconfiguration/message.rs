use bytes::Bytes;

use crate::smr::crypto::Signature;
use crate::smr::membership::encoding::{Reader, Writer};
use crate::smr::membership::{
    CHANGE_REQUEST_BYTES_MAX, ChangeRequest, HandoverCertificate, HandoverSignature, HandoverStatement,
    MalformedMembership, PIECE_BYTES_MAX, decode_piece, encode_piece,
};
use crate::smr::messages::{CheckpointClaim, Envelope, Kind, encode_bytes};
use crate::smr::protocol::OwnRecord;
use crate::smr::types::{ClusterId, Epoch, NodeId, SeqNo};

/// The format of an encoded message.
const FORMAT: u16 = 1;

const HANDOVER: u8 = 1;
const FETCH_CHAIN: u8 = 2;
const CHAIN: u8 = 3;
const FETCH_CHANGE: u8 = 4;
const CHANGE: u8 = 5;
const CLOSING: u8 = 6;

/// What is said about epochs. Who reads it may be of an epoch long ago, or of another release: the encoding
/// is one of those that last ([`membership`](crate::smr::membership)), and no protocol version's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReconfigurationMessage {
    /// "This is where our epoch ends, and who follows."
    Handover(SignedHandover),
    /// "This is the newest epoch that I know": asks for the certificates of its end and of later ones.
    FetchChain(Epoch),
    /// Certificates, in order: as many as a [piece](encode_piece) has.
    Chain(Vec<HandoverCertificate>),
    /// "What ended this epoch?": asked by a member that knows its end alone.
    FetchChange(Epoch),
    /// What ended the epoch that it builds on.
    Change(ChangeRequest),
    /// Said to nobody but the own log: this change was decided at this place, which is the last of the epoch.
    Closing(SeqNo, ChangeRequest),
}

const _: () = assert!(
    CHANGE_REQUEST_BYTES_MAX <= PIECE_BYTES_MAX,
    "a change fits a message"
);

/// A member's signature of the end of its epoch, with what it signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedHandover {
    /// What was signed. Its cluster is the message's.
    pub statement: HandoverStatement,
    /// By whom, and how.
    pub signature: HandoverSignature,
}

impl ReconfigurationMessage {
    /// No encoded message has more bytes.
    pub const BYTES_MAX: usize = 3 + 8 + PIECE_BYTES_MAX;

    /// The message that tells as many of these certificates as it holds, from the first on.
    #[must_use]
    pub fn piece(certificates: &[HandoverCertificate]) -> Self {
        let (_, count) = encode_piece(certificates);
        Self::Chain(certificates[..count].to_vec())
    }

    /// The message as bytes: the one form it has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(FORMAT);
        match self {
            Self::Handover(signed) => {
                out.u8(HANDOVER);
                signed.encode(&mut out);
            }
            Self::FetchChain(epoch) => {
                out.u8(FETCH_CHAIN);
                out.u64(epoch.get());
            }
            Self::Chain(certificates) => {
                let (piece, count) = encode_piece(certificates);
                debug_assert_eq!(count, certificates.len(), "a message has one piece");
                out.u8(CHAIN);
                out.bytes(&piece);
            }
            Self::FetchChange(epoch) => {
                out.u8(FETCH_CHANGE);
                out.u64(epoch.get());
            }
            Self::Change(request) => {
                out.u8(CHANGE);
                out.bytes(&request.encode());
            }
            Self::Closing(seq, request) => {
                out.u8(CLOSING);
                out.u64(seq.get());
                out.bytes(&request.encode());
            }
        }
        out.finish()
    }

    /// The whole message, envelope included, of a sender whose newest epoch is this one.
    #[must_use]
    pub fn to_message(&self, cluster: ClusterId, epoch: Epoch) -> Bytes {
        encode_bytes(
            Envelope::new(Kind::Reconfiguration, cluster, epoch),
            &self.encode(),
        )
    }

    /// What a record with this body says, for those who look at a log; `None` if it is none.
    #[must_use]
    pub fn describe(body: &[u8]) -> Option<OwnRecord> {
        // Which cluster it is about stands elsewhere.
        let message = Self::decode(ClusterId::from_bytes([0; 16]), body);
        let told = |kind, digest, signers| OwnRecord {
            kind,
            view: None,
            digest,
            signers,
        };
        match message {
            Ok(Self::Handover(signed)) => {
                let digest = Some(signed.statement.closing.digest);
                Some(told("end of an epoch", digest, vec![signed.signature.signer]))
            }
            Ok(Self::Chain(certificates)) => {
                let last = certificates.last()?;
                let signers = last.signatures().iter().map(|one| one.signer);
                Some(told(
                    "certificates",
                    Some(last.closing().digest),
                    signers.collect(),
                ))
            }
            Ok(Self::Closing(..)) => Some(told("last decision of an epoch", None, Vec::new())),
            Ok(Self::FetchChain(_) | Self::FetchChange(_) | Self::Change(_)) | Err(_) => None,
        }
    }

    /// Reads a message of a cluster. No signature in it is verified.
    ///
    /// # Errors
    /// When the bytes are not exactly one.
    pub fn decode(cluster: ClusterId, bytes: &[u8]) -> Result<Self, MalformedMembership> {
        if bytes.len() > Self::BYTES_MAX {
            return Err(MalformedMembership::TooMany {
                what: "bytes of a message",
                got: bytes.len(),
                max: Self::BYTES_MAX,
            });
        }
        let mut from = Reader::new(bytes);
        from.format("a message about epochs", FORMAT)?;
        let message = match from.u8("the kind of a message")? {
            HANDOVER => Self::Handover(SignedHandover::decode(cluster, &mut from)?),
            FETCH_CHAIN => Self::FetchChain(Epoch::new(from.u64("an epoch")?)),
            CHAIN => return Ok(Self::Chain(decode_piece(from.rest())?)),
            FETCH_CHANGE => Self::FetchChange(Epoch::new(from.u64("an epoch")?)),
            CHANGE => return Ok(Self::Change(ChangeRequest::decode(from.rest())?)),
            CLOSING => {
                let seq = SeqNo::new(from.u64("the last decision")?);
                return Ok(Self::Closing(seq, ChangeRequest::decode(from.rest())?));
            }
            _ => return Err(MalformedMembership::Unknown("the kind of a message")),
        };
        from.finish()?;
        Ok(message)
    }
}

impl SignedHandover {
    fn encode(&self, out: &mut Writer) {
        let HandoverStatement {
            epoch, closing, next, ..
        } = &self.statement;
        out.u64(epoch.get());
        out.u64(closing.seq.get());
        out.bytes(closing.digest.as_bytes());
        out.bytes(next.as_bytes());
        out.u16(self.signature.signer.get());
        out.bytes(&self.signature.signature);
    }

    fn decode(cluster: ClusterId, from: &mut Reader<'_>) -> Result<Self, MalformedMembership> {
        let statement = HandoverStatement {
            cluster,
            epoch: Epoch::new(from.u64("an epoch")?),
            closing: CheckpointClaim {
                seq: SeqNo::new(from.u64("the last decision")?),
                digest: from.digest("the closing checkpoint")?,
            },
            next: from.digest("the next membership")?,
        };
        let signer = NodeId::new(from.u16("a signer")?);
        let signature: Signature = from.signature()?;
        Ok(Self {
            statement,
            signature: HandoverSignature { signer, signature },
        })
    }
}
