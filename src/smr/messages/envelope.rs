use crate::smr::types::{ClusterId, Epoch, PROTOCOL_VERSION};

/// The size of an [`Envelope`] on the wire, in bytes.
pub const ENVELOPE_BYTES: usize = 24;

/// The kind of a message: which room reads it, and which [`Family`] it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A [`SystemMessage`](super::SystemMessage) between replicas that consensus reads.
    System = 1,
    /// A [`SystemMessage`](super::SystemMessage) between replicas that carries client frames, so that
    /// preprocessing reads it first.
    SystemWithFrames = 2,
    /// A [`RequestFrame`](super::RequestFrame) from a client.
    Request = 3,
    /// A [`ClientReply`](super::ClientReply) to a client.
    Reply = 4,
    /// An [`AdminRequest`](super::AdminRequest) or [`AdminReply`](super::AdminReply).
    Admin = 5,
    /// A [`LinkMessage`](super::LinkMessage).
    Link = 6,
    /// As [`System`](Self::System), and part of a transfer: what is urgent is sent before it.
    Transfer = 7,
    /// As [`SystemWithFrames`](Self::SystemWithFrames), and part of a transfer.
    TransferWithFrames = 8,
    /// A [`ReconfigurationMessage`](crate::smr::reconfiguration::ReconfigurationMessage).
    Reconfiguration = 9,
}

impl Kind {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::System,
            2 => Self::SystemWithFrames,
            3 => Self::Request,
            4 => Self::Reply,
            5 => Self::Admin,
            6 => Self::Link,
            7 => Self::Transfer,
            8 => Self::TransferWithFrames,
            9 => Self::Reconfiguration,
            _ => return None,
        })
    }
}

/// What a message is about: each family waits in a line of its own on a link, with a budget of its own.
///
/// | family | kinds |
/// |---|---|
/// | reconfiguration | [`Kind::Link`], [`Kind::Reconfiguration`] |
/// | protocol | [`Kind::System`], [`Kind::SystemWithFrames`] |
/// | application | [`Kind::Request`], [`Kind::Reply`], [`Kind::Admin`]; frames that are passed on |
/// | state transfer | [`Kind::Transfer`], [`Kind::TransferWithFrames`] |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// Who speaks on a link, and in which life of its process.
    Reconfiguration,
    /// What replicas agree by: proposals, votes, views, checkpoints, statuses. Never dropped.
    Protocol,
    /// What clients asked, and are answered; frames passed on to the leader. Clients ask again.
    Application,
    /// What a peer catches up with: states, and decisions in bulk. It asks again.
    StateTransfer,
}

impl Family {
    /// Every family, in the order in which a link sends them.
    pub const ALL: [Self; 4] = [
        Self::Reconfiguration,
        Self::Protocol,
        Self::Application,
        Self::StateTransfer,
    ];

    /// The family of a whole message, as its envelope says it. Frames that are passed on are told apart from
    /// proposals by whoever passes them on.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        match message.get(2).copied().and_then(Kind::from_byte) {
            Some(Kind::Link | Kind::Reconfiguration) => Self::Reconfiguration,
            Some(Kind::Request | Kind::Reply | Kind::Admin) => Self::Application,
            Some(Kind::Transfer | Kind::TransferWithFrames) => Self::StateTransfer,
            Some(Kind::System | Kind::SystemWithFrames) | None => Self::Protocol,
        }
    }

    /// Whether the one who lacks a message asks for it again by itself: such a message may be dropped.
    #[must_use]
    pub const fn is_asked_for_again(self) -> bool {
        matches!(self, Self::Application | Self::StateTransfer)
    }
}

/// The fixed head of every message: who may read it and how.
///
/// Layout, little endian: protocol version u16, kind u8, zero u8, body length u32, cluster tag u64, epoch
/// u64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The family of the body.
    pub kind: Kind,
    /// The first eight bytes of the cluster's identity.
    pub cluster_tag: u64,
    /// The membership the sender speaks in.
    pub epoch: Epoch,
    /// The length of the body after the envelope, in bytes.
    pub body_bytes: u32,
}

/// Why an envelope is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Fewer bytes than an envelope has, or a body shorter or longer than it says.
    #[error("the message has {got} bytes where its envelope says {expected}")]
    Length {
        /// Bytes received.
        got: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// Another protocol version.
    #[error("protocol version {0}, expected {PROTOCOL_VERSION}")]
    Version(u16),
    /// A kind this version does not know.
    #[error("unknown message kind {0}")]
    Kind(u8),
    /// A byte that must be zero is not.
    #[error("reserved byte is {0}, expected 0")]
    Reserved(u8),
    /// A message of another cluster.
    #[error("cluster tag {theirs:#x}, ours is {ours:#x}")]
    Cluster {
        /// The tag in the message.
        theirs: u64,
        /// Our own tag.
        ours: u64,
    },
    /// A message of another epoch.
    #[error("epoch {theirs}, ours is {ours}")]
    Epoch {
        /// The epoch in the message.
        theirs: Epoch,
        /// Our own epoch.
        ours: Epoch,
    },
}

impl Envelope {
    /// The envelope for a message of `kind`; the length is filled in by [`encode`](super::encode).
    #[must_use]
    pub const fn new(kind: Kind, cluster: ClusterId, epoch: Epoch) -> Self {
        Self {
            kind,
            cluster_tag: cluster.tag(),
            epoch,
            body_bytes: 0,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        bytes[0..2].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        bytes[2] = self.kind as u8;
        bytes[4..8].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.cluster_tag.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.epoch.get().to_le_bytes());
        bytes
    }

    /// Reads the envelope of `message` and checks that it belongs here.
    ///
    /// # Errors
    /// A typed refusal; nothing is allocated on the way.
    pub fn open(message: &[u8], cluster: ClusterId, epoch: Epoch) -> Result<Self, EnvelopeError> {
        let envelope = Self::open_in_any_epoch(message, cluster)?;
        match envelope.epoch {
            theirs if theirs == epoch => Ok(envelope),
            theirs => Err(EnvelopeError::Epoch { theirs, ours: epoch }),
        }
    }

    /// As [`open`](Self::open), of a message whose sender may be in whatever epoch.
    ///
    /// # Errors
    /// As there, but for the epoch.
    pub fn open_in_any_epoch(message: &[u8], cluster: ClusterId) -> Result<Self, EnvelopeError> {
        let Some(head) = message.first_chunk::<ENVELOPE_BYTES>() else {
            return Err(EnvelopeError::Length {
                got: message.len(),
                expected: ENVELOPE_BYTES,
            });
        };
        let [v0, v1, kind, reserved, l0, l1, l2, l3, rest @ ..] = *head;
        let version = u16::from_le_bytes([v0, v1]);
        if version != PROTOCOL_VERSION {
            return Err(EnvelopeError::Version(version));
        }
        let Some(kind) = Kind::from_byte(kind) else {
            return Err(EnvelopeError::Kind(kind));
        };
        if reserved != 0 {
            return Err(EnvelopeError::Reserved(reserved));
        }
        let body_bytes = u32::from_le_bytes([l0, l1, l2, l3]);
        let expected = ENVELOPE_BYTES + body_bytes as usize;
        if message.len() != expected {
            return Err(EnvelopeError::Length {
                got: message.len(),
                expected,
            });
        }
        let [c @ .., _, _, _, _, _, _, _, _] = rest;
        let [_, _, _, _, _, _, _, _, e @ ..] = rest;
        let cluster_tag = u64::from_le_bytes(c);
        if cluster_tag != cluster.tag() {
            return Err(EnvelopeError::Cluster {
                theirs: cluster_tag,
                ours: cluster.tag(),
            });
        }
        Ok(Self {
            kind,
            cluster_tag,
            epoch: Epoch::new(u64::from_le_bytes(e)),
            body_bytes,
        })
    }
}
