use crate::runtime::net::framing::FramingError;
use crate::smr::messages::BatchError;
use crate::smr::preprocessing::{FrameRefusal, PeerRefusal};
use crate::smr::protocol::Rejection;
use crate::smr::types::Peer;

/// Why something of a peer was refused.
#[derive(Debug, Clone, Copy)]
pub enum EvidenceKind {
    /// A replica's message, by a protocol.
    Message(Rejection),
    /// A client's frame, by its own link or passed on by a replica.
    Frame(FrameRefusal),
    /// A record of the link, which ended by it.
    Record(FramingError),
    /// A replica's proposal or batch.
    Batch,
    /// A replica's proposal or batch, because it had so many signatures verified before.
    BatchOverBudget,
    /// Bytes that are no message.
    NoMessage,
    /// A message of a kind that its sender may not send.
    Kind,
    /// Two processes run with a replica's identity.
    RunsTwice,
    /// A client's MACs convinced some replicas and not others.
    MacsDisputed,
}

/// Where the reasons of protocols, of frames, of records, and all others begin, among the codes.
const FRAMES: usize = 32;
const RECORDS: usize = 64;
const OTHERS: usize = 80;

const ALL_OTHERS: [EvidenceKind; 6] = [
    EvidenceKind::Batch,
    EvidenceKind::BatchOverBudget,
    EvidenceKind::NoMessage,
    EvidenceKind::Kind,
    EvidenceKind::RunsTwice,
    EvidenceKind::MacsDisputed,
];

impl EvidenceKind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        let messages = Rejection::ALL.map(Self::Message).into_iter();
        let frames = FrameRefusal::ALL.map(Self::Frame);
        let records = FramingError::ALL.map(Self::Record);
        messages.chain(frames).chain(records).chain(ALL_OTHERS)
    }

    /// The reason of a replica's message with frames.
    #[must_use]
    pub fn of_refusal(refusal: PeerRefusal) -> Self {
        match refusal {
            PeerRefusal::Archive => Self::NoMessage,
            PeerRefusal::Message => Self::Kind,
            PeerRefusal::Frame(refusal) => Self::Frame(refusal),
            PeerRefusal::Batch(BatchError::OverBudget(_)) => Self::BatchOverBudget,
            PeerRefusal::Batch(_) => Self::Batch,
        }
    }

    /// Its number, for arrays and files. It stays the same in later releases.
    #[must_use]
    pub const fn code(self) -> u8 {
        let code = match self {
            Self::Message(reason) => reason.index(),
            Self::Frame(refusal) => FRAMES + refusal.index(),
            Self::Record(error) => RECORDS + error.index(),
            Self::Batch => OTHERS,
            Self::BatchOverBudget => OTHERS + 1,
            Self::NoMessage => OTHERS + 2,
            Self::Kind => OTHERS + 3,
            Self::RunsTwice => OTHERS + 4,
            Self::MacsDisputed => OTHERS + 5,
        };
        code as u8
    }

    /// The kind with this number, if it is one.
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        Self::all().find(|kind| kind.code() == code)
    }

    /// Its name: that of the counter of such refusals, where there is one.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message(reason) => reason.name(),
            Self::Frame(refusal) => FrameRefusal::NAMES[refusal.index()],
            Self::Record(error) => error.name(),
            Self::Batch => "batch_refused",
            Self::BatchOverBudget => "batch_refused_over_budget",
            Self::NoMessage => "message_refused_archive",
            Self::Kind => "message_refused_kind",
            Self::RunsTwice => "runs_twice",
            Self::MacsDisputed => "macs_disputed",
        }
    }

    /// Whether it is kept at all: what comes late, early or twice is nobody's fault.
    #[must_use]
    pub const fn is_kept(self) -> bool {
        match self {
            Self::Message(reason) => {
                reason.is_misbehaviour()
                    || matches!(reason, Rejection::OverBudget | Rejection::ClockOutOfBounds)
            }
            _ => true,
        }
    }

    /// Whether no correct peer causes it, however slow the network and whatever others do.
    #[must_use]
    pub const fn speaks_against(self, peer: Peer) -> bool {
        match self {
            Self::Message(reason) => reason.is_misbehaviour(),
            Self::Frame(refusal) => match refusal {
                FrameRefusal::MustSign | FrameRefusal::OverBudget | FrameRefusal::OrderedOnly => false,
                // A client can have it fail at one replica and hold at the one that passes it on.
                FrameRefusal::Mac => matches!(peer, Peer::Client(_)),
                _ => true,
            },
            Self::Record(error) => match error {
                // Inside a record that opened.
                FramingError::MessageOverrun => true,
                // Whoever is on the way can change bytes, and lengths.
                FramingError::RecordTooLong { .. }
                | FramingError::RecordTooShort(_)
                | FramingError::Forged => false,
            },
            Self::Batch | Self::NoMessage | Self::Kind | Self::RunsTwice => true,
            // A replica on the way may have arranged it.
            Self::BatchOverBudget | Self::MacsDisputed => false,
        }
    }
}
