//! What flows between roles, and the two ends of each flow.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::runtime::ring::{Consumer, Doorbell, Producer, channel};
use crate::runtime::storage::StorageError;
use crate::smr::decision_log::LoggedDecisions;
use crate::smr::execution::SessionWindows;
use crate::smr::messages::{CheckpointClaim, Family, Frame, FrameId, FrameKey, Proposal, TakenCheckpoint};
use crate::smr::preprocessing::FromPeer;
use crate::smr::protocol::{Recipients, SnapshotEvent};
use crate::smr::types::{ClientId, Lsn, NodeId, SeqNo, Time};

/// Network → preprocessing, with when it came.
#[derive(Debug)]
pub(crate) enum Raw {
    /// A frame from the link of a client.
    Frame {
        client: ClientId,
        bytes: Bytes,
        received: Time,
    },
    /// A replica's message that carries client frames, envelope included.
    WithFrames {
        from: NodeId,
        message: Bytes,
        received: Time,
    },
}

/// Network → consensus: a replica's message without frames, envelope included.
#[derive(Debug)]
pub(crate) struct FromReplica {
    pub from: NodeId,
    pub message: Bytes,
}

/// Preprocessing → consensus.
#[derive(Debug)]
pub(crate) enum Checked {
    /// An ordered frame, authentic, by its client's link.
    Frame(Frame),
    /// Part of a replica's message with frames.
    FromPeer(NodeId, FromPeer),
    /// When what follows was verified: it is one of those that are timed.
    At(Verified),
}

/// When something was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verified {
    /// A client's frame, and when it had come.
    Frame {
        key: FrameKey,
        received: Time,
        verified: Time,
    },
    /// Another replica's proposal for this place.
    Proposal { seq: SeqNo, verified: Time },
}

/// What is timed of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecisionTimes {
    pub seq: SeqNo,
    /// Whether its batch is one that is timed.
    pub is_sampled: bool,
    /// When it was given to execution.
    pub released: Time,
    /// Whose frames of it are timed, and when each had come.
    pub requests: Vec<(ClientId, Time)>,
}

/// Consensus, preprocessing, execution → network.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A message to replicas.
    Replicas {
        family: Family,
        to: Recipients,
        message: Bytes,
    },
    /// A message to a session of a client; to all of them if it is 0.
    Client {
        to: ClientId,
        session: u64,
        message: Bytes,
    },
    /// The replies of a batch that is timed come before this; it was executed then.
    Replied { executed: Time },
    /// The reply to a frame that is timed comes before this; the frame had come then.
    Answered { received: Time },
}

/// Consensus and preprocessing → execution.
#[derive(Debug)]
pub(crate) enum Work {
    /// The next decision; with its times if it is timed, or has frames that are.
    Decision(Arc<Proposal>, Option<Box<DecisionTimes>>),
    /// Read-only operations.
    Unordered(Frame),
    /// Send a cached reply again, or say why there is none.
    ReplyAgain(FrameId),
    /// Answer reads from states after this place, and not at all while `None`.
    ServeReads(Option<SeqNo>),
    /// Replace the state by a snapshot, whose chunks come here.
    Install(std::sync::mpsc::Receiver<Result<Bytes, StorageError>>),
    /// Compute the digest of the state as it is, for tools.
    Digest(std::sync::mpsc::Sender<CheckpointClaim>),
}

/// Execution → consensus.
#[derive(Debug)]
pub(crate) enum Done {
    /// A decision was executed.
    Executed { seq: SeqNo, operations: usize },
    /// A checkpoint was taken.
    Checkpoint(TakenCheckpoint),
    /// The state was replaced by that of a checkpoint; what it includes of each client's frames.
    Installed {
        seq: SeqNo,
        windows: Vec<SessionWindows>,
    },
}

/// Log and storage worker → consensus.
#[derive(Debug)]
pub(crate) enum Logged {
    /// Everything before this position is on disk.
    Durable(Lsn),
    /// The contents of a checkpoint are on disk.
    Snapshot(SeqNo),
    /// Something was done with the snapshot of a checkpoint that is transferred.
    Transfer(SnapshotEvent),
    /// Decisions were read back.
    Read(LoggedDecisions),
}

/// The sending end of a lane: a ring, what did not fit into it, and the doorbell of the other side.
///
/// The overflow holds at most what one step of the owner makes: the owner takes no input while it
/// [is blocked](Self::is_blocked). So a full ring becomes back-pressure, and nothing is dropped.
#[derive(Debug)]
pub(crate) struct LinkSender<T: Send> {
    producer: Producer<T>,
    overflow: VecDeque<T>,
    /// `None` when both ends live on one shard, which is awake whenever it pushes.
    doorbell: Option<Doorbell>,
    rang: bool,
    /// How often this, or another lane of its kind, was found full.
    blocked: Arc<AtomicU64>,
}

/// The receiving end of a lane.
pub(crate) type LinkReceiver<T> = Consumer<T>;

/// A lane of this depth; `doorbell` wakes the receiving shard unless it is the sending one. `blocked` counts
/// how often it is found full.
pub(crate) fn lane<T: Send>(
    depth: usize,
    doorbell: Option<Doorbell>,
    blocked: Arc<AtomicU64>,
) -> (LinkSender<T>, LinkReceiver<T>) {
    let (producer, consumer) = channel(depth);
    (
        LinkSender {
            producer,
            overflow: VecDeque::new(),
            doorbell,
            rang: true,
            blocked,
        },
        consumer,
    )
}

impl<T: Send> LinkSender<T> {
    /// Sends an item, or keeps it until there is room.
    pub fn push(&mut self, item: T) {
        self.rang = false;
        if !self.overflow.is_empty() {
            return self.overflow.push_back(item);
        }
        if let Err(item) = self.producer.push(item) {
            self.overflow.push_back(item);
        }
    }

    /// Moves kept items on as far as there is room; true while some are left. A blocked owner takes no input.
    pub fn is_blocked(&mut self) -> bool {
        while let Some(item) = self.overflow.pop_front() {
            self.rang = false;
            if let Err(item) = self.producer.push(item) {
                self.overflow.push_front(item);
                // Several senders of a kind may count here at once.
                self.blocked.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        !self.overflow.is_empty()
    }

    /// Whether items are kept back.
    pub fn has_overflow(&self) -> bool {
        !self.overflow.is_empty()
    }

    /// Wakes the other side if something was sent since the last call.
    pub fn ring(&mut self) {
        if !self.rang {
            self.rang = true;
            if let Some(doorbell) = &self.doorbell {
                doorbell.ring_if_parked();
            }
        }
    }
}

/// Gives an answer to a frame to the network role of its client: its number mod their count.
pub(crate) fn answer(networks: &mut [LinkSender<Outgoing>], frame: FrameKey, message: Bytes) {
    let network = frame.client.get() as usize % networks.len();
    networks[network].push(Outgoing::Client {
        to: frame.client,
        session: frame.sequence.session(),
        message,
    });
}

/// Whether any of these is blocked; each moves on as far as it can, whatever the others do.
pub(crate) fn any_blocked<T: Send>(outlets: &mut [LinkSender<T>]) -> bool {
    outlets
        .iter_mut()
        .fold(false, |any, outlet| outlet.is_blocked() | any)
}
