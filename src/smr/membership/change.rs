use std::fmt;
use std::num::NonZeroU32;

use super::encoding::{Reader, Writer, is_ascending};
use super::party::{
    ClientRights, Member, OPERATORS_MAX, Operators, RegisteredClient, decode_addresses, decode_rate,
    encode_addresses, encode_rate,
};
use super::{AgreementSetting, MalformedMembership};
use crate::smr::crypto::{
    Domain, LinkPublic, SIGNATURE_BYTES, Signature, SigningKey, VerifyingKey, lasting_digest,
};
use crate::smr::messages::Frame;
use crate::smr::types::{ClientId, ClusterId, Digest, Epoch, NodeId};

/// The format of an encoded request.
const CHANGE_FORMAT: u16 = 1;

/// The most changes that share an epoch.
pub const CHANGES_MAX: usize = 1024;

/// The longest request, in bytes. It is an operation like any other, so that the cluster's `frame_bytes_max`
/// bounds it as well.
pub const CHANGE_REQUEST_BYTES_MAX: usize = 256 << 10;

/// One change of a membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A member joins: it has the next number, and an address.
    AddMember(Member),
    /// A member leaves.
    RemoveMember(NodeId),
    /// A member leaves and another one joins, in one step.
    ReplaceMember {
        /// Who leaves.
        old: NodeId,
        /// Who joins, with the next number.
        new: Member,
    },
    /// A member has other keys. One of them may be the one it has.
    RotateMemberKeys {
        /// Whose.
        member: NodeId,
        /// What verifies it from now on.
        signing_key: VerifyingKey,
        /// What proves it from now on.
        link_key: LinkPublic,
    },
    /// A member is found elsewhere.
    SetAddresses {
        /// Who.
        member: NodeId,
        /// Where, the best first.
        addresses: Vec<String>,
    },
    /// A client is registered: it has the next number.
    AddClient(RegisteredClient),
    /// A client may do nothing any more.
    RevokeClient(ClientId),
    /// A client may do other things.
    LimitClient {
        /// Who.
        client: ClientId,
        /// What.
        rights: ClientRights,
        /// How many operations a second.
        operations_per_second: Option<NonZeroU32>,
    },
    /// A client has other keys. One of them may be the one it has.
    RotateClientKeys {
        /// Whose.
        client: ClientId,
        /// What verifies it from now on.
        signing_key: VerifyingKey,
        /// What proves it from now on.
        link_key: LinkPublic,
    },
    /// All members do something else alike.
    SetAgreement(AgreementSetting),
    /// Others may change the membership.
    SetOperators(Operators),
    /// Messages are of the next version.
    RaiseProtocolVersion(u16),
    /// The application is of a later version.
    ActivateApplication(u32),
}

impl Change {
    /// The fewest bytes of one.
    const BYTES_MIN: usize = 1 + 2;

    fn encode(&self, out: &mut Writer) {
        match self {
            Self::AddMember(member) => {
                out.u8(1);
                member.encode(out);
            }
            Self::RemoveMember(member) => {
                out.u8(2);
                out.u16(member.get());
            }
            Self::ReplaceMember { old, new } => {
                out.u8(3);
                out.u16(old.get());
                new.encode(out);
            }
            Self::RotateMemberKeys {
                member,
                signing_key,
                link_key,
            } => {
                out.u8(4);
                out.u16(member.get());
                encode_keys(signing_key, link_key, out);
            }
            Self::SetAddresses { member, addresses } => {
                out.u8(5);
                out.u16(member.get());
                encode_addresses(addresses, out);
            }
            Self::AddClient(_)
            | Self::RevokeClient(_)
            | Self::LimitClient { .. }
            | Self::RotateClientKeys { .. } => self.encode_client(out),
            Self::SetAgreement(setting) => {
                out.u8(10);
                setting.encode(out);
            }
            Self::SetOperators(operators) => {
                out.u8(11);
                operators.encode(out);
            }
            Self::RaiseProtocolVersion(version) => {
                out.u8(12);
                out.u16(*version);
            }
            Self::ActivateApplication(version) => {
                out.u8(13);
                out.u32(*version);
            }
        }
    }

    /// What is about clients.
    fn encode_client(&self, out: &mut Writer) {
        match self {
            Self::AddClient(client) => {
                out.u8(6);
                client.encode(out);
            }
            Self::RevokeClient(client) => {
                out.u8(7);
                out.u32(client.get());
            }
            Self::LimitClient {
                client,
                rights,
                operations_per_second,
            } => {
                out.u8(8);
                out.u32(client.get());
                rights.encode(out);
                encode_rate(*operations_per_second, out);
            }
            Self::RotateClientKeys {
                client,
                signing_key,
                link_key,
            } => {
                out.u8(9);
                out.u32(client.get());
                encode_keys(signing_key, link_key, out);
            }
            _ => {}
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, MalformedMembership> {
        const WHAT: &str = "a change";
        let node = |from: &mut Reader<'_>| from.u16(WHAT).map(NodeId::new);
        let client = |from: &mut Reader<'_>| from.u32(WHAT).map(ClientId::new);
        Ok(match from.u8(WHAT)? {
            1 => Self::AddMember(Member::decode(from)?),
            2 => Self::RemoveMember(node(from)?),
            3 => Self::ReplaceMember {
                old: node(from)?,
                new: Member::decode(from)?,
            },
            4 => Self::RotateMemberKeys {
                member: node(from)?,
                signing_key: from.verifying_key()?,
                link_key: from.link_key()?,
            },
            5 => Self::SetAddresses {
                member: node(from)?,
                addresses: decode_addresses(from)?,
            },
            6 => Self::AddClient(RegisteredClient::decode(from)?),
            7 => Self::RevokeClient(client(from)?),
            8 => Self::LimitClient {
                client: client(from)?,
                rights: ClientRights::decode(from)?,
                operations_per_second: decode_rate(from)?,
            },
            9 => Self::RotateClientKeys {
                client: client(from)?,
                signing_key: from.verifying_key()?,
                link_key: from.link_key()?,
            },
            10 => Self::SetAgreement(AgreementSetting::decode(from)?),
            11 => Self::SetOperators(Operators::decode(from)?),
            12 => Self::RaiseProtocolVersion(from.u16(WHAT)?),
            13 => Self::ActivateApplication(from.u32(WHAT)?),
            _ => return Err(MalformedMembership::Unknown(WHAT)),
        })
    }
}

fn encode_keys(signing_key: &VerifyingKey, link_key: &LinkPublic, out: &mut Writer) {
    out.bytes(signing_key.as_bytes());
    out.bytes(link_key.as_bytes());
}

fn rate(operations_per_second: Option<NonZeroU32>) -> String {
    operations_per_second.map_or_else(String::new, |most| {
        format!(", {most} operations a second at most")
    })
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddMember(new) => write!(f, "{} joins at {}", new.id, new.addresses.join(", ")),
            Self::RemoveMember(old) => write!(f, "{old} leaves"),
            Self::ReplaceMember { old, new } => {
                write!(f, "{} at {} replaces {old}", new.id, new.addresses.join(", "))
            }
            Self::RotateMemberKeys { member, .. } => write!(f, "{member} has other keys"),
            Self::SetAddresses { member, addresses } => {
                write!(f, "{member} is found at {}", addresses.join(", "))
            }
            Self::AddClient(new) => {
                let rate = rate(new.operations_per_second);
                write!(f, "{} is registered and may {}{rate}", new.id, new.rights)
            }
            Self::RevokeClient(client) => write!(f, "{client} is revoked"),
            Self::LimitClient {
                client,
                rights,
                operations_per_second,
            } => write!(f, "{client} may {rights}{}", rate(*operations_per_second)),
            Self::RotateClientKeys { client, .. } => write!(f, "{client} has other keys"),
            Self::SetAgreement(setting) => setting.fmt(f),
            Self::SetOperators(operators) => write!(
                f,
                "{} of {} operators have to sign",
                operators.threshold(),
                operators.keys().len()
            ),
            Self::RaiseProtocolVersion(version) => write!(f, "the protocol is of version {version}"),
            Self::ActivateApplication(version) => write!(f, "the application is of version {version}"),
        }
    }
}

/// An operator's signature of a [`ChangeRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorSignature {
    /// Whose.
    pub signer: VerifyingKey,
    /// Ed25519 over [`ChangeRequest::digest`].
    pub signature: Signature,
}

/// What operators ask to change: all of it, in this order, or nothing; and only the membership of
/// `base_epoch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeRequest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The epoch whose membership is changed. In another one the request means nothing: so two operators do
    /// not change at once what neither has seen, and a request is not carried out again.
    pub base_epoch: Epoch,
    /// What is changed.
    pub changes: Vec<Change>,
    /// Who asks for it, by ascending key.
    pub signatures: Vec<OperatorSignature>,
}

impl ChangeRequest {
    /// A request that nobody has signed.
    #[must_use]
    pub fn new(cluster: ClusterId, base_epoch: Epoch, changes: Vec<Change>) -> Self {
        Self {
            cluster,
            base_epoch,
            changes,
            signatures: Vec::new(),
        }
    }

    /// What operators sign: covers everything but their signatures.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut out = Writer::default();
        self.encode_unsigned(&mut out);
        lasting_digest(Domain::ChangeRequest, &out.finish())
    }

    /// Adds an operator's signature, in the place of an earlier one.
    pub fn sign(&mut self, key: &SigningKey) {
        let signer = key.verifying_key();
        let signature = key.sign(Domain::ChangeRequest, &self.digest());
        self.signatures.retain(|other| other.signer != signer);
        let at = self.signatures.partition_point(|other| other.signer < signer);
        self.signatures
            .insert(at, OperatorSignature { signer, signature });
    }

    fn encode_unsigned(&self, out: &mut Writer) {
        out.u16(CHANGE_FORMAT);
        out.bytes(self.cluster.as_bytes());
        out.u64(self.base_epoch.get());
        out.count(self.changes.len());
        self.changes.iter().for_each(|change| change.encode(out));
    }

    /// The request as bytes. It has one form if the signatures are in order, as [`sign`](Self::sign) keeps
    /// them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.encode_unsigned(&mut out);
        out.count(self.signatures.len());
        for signature in &self.signatures {
            out.bytes(signature.signer.as_bytes());
            out.bytes(&signature.signature);
        }
        out.finish()
    }

    /// What a frame asks for, if it is one request and nothing else.
    #[must_use]
    pub fn asked_in(frame: &Frame) -> Option<Self> {
        let mut operations = frame.body().operations();
        let (Some(operation), 0) = (operations.next(), operations.len()) else {
            return None;
        };
        Self::decode(operation).ok()
    }

    /// Reads a request. Whether it is one of this cluster, and may be carried out, is
    /// [`next`](super::Membership::next)'s to say.
    ///
    /// # Errors
    /// When the bytes are not exactly a request.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedMembership> {
        if bytes.len() > CHANGE_REQUEST_BYTES_MAX {
            return Err(MalformedMembership::TooMany {
                what: "bytes of a request",
                got: bytes.len(),
                max: CHANGE_REQUEST_BYTES_MAX,
            });
        }
        let mut from = Reader::new(bytes);
        from.format("a request", CHANGE_FORMAT)?;
        let (cluster, base_epoch) = (from.cluster()?, Epoch::new(from.u64("the epoch")?));
        let count = from.count("changes", CHANGES_MAX, Change::BYTES_MIN)?;
        // Not reserved at once: a change takes more memory than its fewest bytes.
        let mut changes = Vec::new();
        for _ in 0..count {
            changes.push(Change::decode(&mut from)?);
        }
        let count = from.count("signatures", OPERATORS_MAX, 32 + SIGNATURE_BYTES)?;
        let signatures = (0..count).map(|_| {
            Ok(OperatorSignature {
                signer: from.verifying_key()?,
                signature: from.signature()?,
            })
        });
        let signatures: Vec<_> = signatures.collect::<Result<_, MalformedMembership>>()?;
        from.finish()?;
        if !is_ascending(&signatures, |signature| signature.signer) {
            return Err(MalformedMembership::Unsorted("signatures"));
        }
        Ok(Self {
            cluster,
            base_epoch,
            changes,
            signatures,
        })
    }
}
