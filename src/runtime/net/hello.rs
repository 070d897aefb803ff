//! The first block of a link, in clear, and the typed reasons to end it there.

use crate::smr::types::PROTOCOL_VERSION;
pub use crate::smr::types::Peer;
use crate::smr::types::{ApplicationId, ClientId, ClusterId, Epoch, NodeId};

/// The size of a hello, in bytes.
pub const HELLO_BYTES: usize = 40 + ApplicationId::BYTES;

/// The size of the responder's verdict, in bytes: the refusal's code (zero for none), three zeros, then the
/// responder's application if that is why, or zeros.
pub const VERDICT_BYTES: usize = 4 + ApplicationId::BYTES;

const MAGIC: [u8; 4] = *b"ATLS";

/// What the initiator says first.
///
/// Layout, little endian: magic, version u16, role u8, zero u8, cluster 16 bytes, own id u32, dialled replica
/// u16, zero u16, epoch u64, application 36 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// The cluster the initiator belongs to.
    pub cluster: ClusterId,
    /// The application it knows the cluster to serve.
    pub application: ApplicationId,
    /// The membership it knows.
    pub epoch: Epoch,
    /// Who it claims to be; proven later.
    pub claimed: Peer,
    /// The replica it means to dial.
    pub dialled: NodeId,
}

/// Why a link is refused before it exists. Each kind is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeRefusal {
    /// The first bytes are not a hello of this protocol.
    #[error("the first bytes are not those of an Atlas link")]
    NotAtlas,
    /// Another protocol version.
    #[error("protocol version {theirs}, expected {PROTOCOL_VERSION}")]
    ProtocolVersion {
        /// The version in the hello; zero when told by the other end.
        theirs: u16,
    },
    /// Another cluster.
    #[error("the two ends belong to different clusters: their cluster.toml files differ")]
    WrongCluster,
    /// Another epoch.
    #[error("the two ends know different memberships")]
    WrongEpoch,
    /// The hello means another replica: addresses are mixed up.
    #[error("another replica was meant: the addresses in cluster.toml are mixed up")]
    WrongReplica,
    /// The claimed replica or client is not in the configuration, or is the responder itself.
    #[error("the claimed identity is not in the cluster's configuration")]
    UnknownPeer,
    /// The proven key is not the configured one.
    #[error("the proven key is not the one the cluster's configuration lists")]
    WrongKey,
    /// A handshake message is forged, replayed or cut.
    #[error("a handshake message is not authentic")]
    BadHandshake,
    /// The exchange took longer than the deadline.
    #[error("the handshake was not finished in time")]
    Timeout,
    /// No place is left for this kind of peer.
    #[error("no place is left for another connection")]
    Capacity,
    /// The connection ended in the middle.
    #[error("the connection ended during the handshake")]
    Disconnected,
    /// Another application, or another version of it.
    #[error(
        "this end is of {ours}, the other one of {theirs}: their cluster.toml files name different applications"
    )]
    WrongApplication {
        /// This end's.
        ours: ApplicationId,
        /// The other end's.
        theirs: ApplicationId,
    },
    /// The identity has as many links as one may have.
    #[error("this identity has as many links as one may have: too many processes use its keys")]
    IdentityInUse,
}

impl HandshakeRefusal {
    /// Every kind, for counters.
    pub const ALL: [Self; 13] = [
        Self::NotAtlas,
        Self::ProtocolVersion { theirs: 0 },
        Self::WrongCluster,
        Self::WrongEpoch,
        Self::WrongReplica,
        Self::UnknownPeer,
        Self::WrongKey,
        Self::BadHandshake,
        Self::Timeout,
        Self::Capacity,
        Self::Disconnected,
        Self::WrongApplication {
            ours: ApplicationId::NONE,
            theirs: ApplicationId::NONE,
        },
        Self::IdentityInUse,
    ];

    /// The place of this kind in [`HandshakeRefusal::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::NotAtlas => 0,
            Self::ProtocolVersion { .. } => 1,
            Self::WrongCluster => 2,
            Self::WrongEpoch => 3,
            Self::WrongReplica => 4,
            Self::UnknownPeer => 5,
            Self::WrongKey => 6,
            Self::BadHandshake => 7,
            Self::Timeout => 8,
            Self::Capacity => 9,
            Self::Disconnected => 10,
            Self::WrongApplication { .. } => 11,
            Self::IdentityInUse => 12,
        }
    }

    /// The name of this kind's counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAtlas => "handshake_refused_not_atlas",
            Self::ProtocolVersion { .. } => "handshake_refused_protocol_version",
            Self::WrongCluster => "handshake_refused_wrong_cluster",
            Self::WrongEpoch => "handshake_refused_wrong_epoch",
            Self::WrongReplica => "handshake_refused_wrong_replica",
            Self::UnknownPeer => "handshake_refused_unknown_peer",
            Self::WrongKey => "handshake_refused_wrong_key",
            Self::BadHandshake => "handshake_refused_bad_handshake",
            Self::Timeout => "handshake_refused_timeout",
            Self::Capacity => "handshake_refused_capacity",
            Self::Disconnected => "handshake_refused_disconnected",
            Self::WrongApplication { .. } => "handshake_refused_wrong_application",
            Self::IdentityInUse => "handshake_refused_identity_in_use",
        }
    }

    /// What the responder writes before it closes.
    #[must_use]
    pub fn verdict(self) -> [u8; VERDICT_BYTES] {
        let mut verdict = [0; VERDICT_BYTES];
        verdict[0] = self.index() as u8 + 1;
        if let Self::WrongApplication { ours, .. } = self {
            verdict[4..].copy_from_slice(&ours.to_bytes());
        }
        verdict
    }

    /// Reads a verdict that came to an end of `ours`: `Ok` to go on, or the other end's refusal.
    pub(super) fn from_verdict(bytes: [u8; VERDICT_BYTES], ours: ApplicationId) -> Result<(), Self> {
        let ([code, zeros @ ..], application) = bytes.split_first_chunk::<4>().ok_or(Self::NotAtlas)?;
        if *zeros != [0; 3] {
            return Err(Self::NotAtlas);
        }
        let Some(refusal) = usize::from(*code).checked_sub(1) else {
            return match application.iter().all(|byte| *byte == 0) {
                true => Ok(()),
                false => Err(Self::NotAtlas),
            };
        };
        let theirs = application
            .first_chunk()
            .map_or(ApplicationId::NONE, ApplicationId::from_bytes);
        Err(match Self::ALL.get(refusal) {
            Some(Self::WrongApplication { .. }) => Self::WrongApplication { ours, theirs },
            Some(refusal) => *refusal,
            None => Self::NotAtlas,
        })
    }
}

impl Hello {
    /// The block as it is sent.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HELLO_BYTES] {
        let (role, id) = match self.claimed {
            Peer::Replica(node) => (0, u32::from(node.get())),
            Peer::Client(client) => (1, client.get()),
        };
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        bytes[6] = role;
        bytes[8..24].copy_from_slice(self.cluster.as_bytes());
        bytes[24..28].copy_from_slice(&id.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.dialled.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.epoch.get().to_le_bytes());
        bytes[40..].copy_from_slice(&self.application.to_bytes());
        bytes
    }

    /// Reads a received block.
    ///
    /// # Errors
    /// When it is not a hello of this version.
    pub fn parse(bytes: &[u8; HELLO_BYTES]) -> Result<Self, HandshakeRefusal> {
        let field = |at: usize, length: usize| &bytes[at..at + length];
        if field(0, 4) != MAGIC || bytes[7] != 0 || field(30, 2) != [0, 0] {
            return Err(HandshakeRefusal::NotAtlas);
        }
        let theirs = u16::from_le_bytes([bytes[4], bytes[5]]);
        if theirs != PROTOCOL_VERSION {
            return Err(HandshakeRefusal::ProtocolVersion { theirs });
        }
        let mut cluster = [0; 16];
        cluster.copy_from_slice(field(8, 16));
        let id = u32::from_le_bytes([bytes[24], bytes[25], bytes[26], bytes[27]]);
        let claimed = match bytes[6] {
            0 => Peer::Replica(NodeId::new(
                u16::try_from(id).map_err(|_| HandshakeRefusal::UnknownPeer)?,
            )),
            1 => Peer::Client(ClientId::new(id)),
            _ => return Err(HandshakeRefusal::NotAtlas),
        };
        let mut epoch = [0; 8];
        epoch.copy_from_slice(field(32, 8));
        let application = bytes[40..].first_chunk();
        let application = application.map_or(ApplicationId::NONE, ApplicationId::from_bytes);
        // A hello has one form: what is no application is none.
        if application.to_bytes() != bytes[40..] {
            return Err(HandshakeRefusal::NotAtlas);
        }
        Ok(Self {
            cluster: ClusterId::from_bytes(cluster),
            application,
            epoch: Epoch::new(u64::from_le_bytes(epoch)),
            claimed,
            dialled: NodeId::new(u16::from_le_bytes([bytes[28], bytes[29]])),
        })
    }
}
