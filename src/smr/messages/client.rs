use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use super::batch::{FrameId, FrameKey};
use super::checked::{archive, encode};
use super::envelope::{Envelope, Kind};
use super::request::ends_are_sound;
use crate::smr::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, SeqNo, View};

/// The results of one frame: equal at all correct replicas, byte for byte.
///
/// There may be fewer results than operations. What follows the last was not executed and will not be under
/// this frame: the results had become as long as those of one frame may be.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ReplyBody {
    /// The client that asked.
    pub client: u32,
    /// Its session.
    pub session: u64,
    /// The frame that is answered.
    pub sequence: u64,
    /// The digest of what was asked: nothing else is answered by this.
    pub request: [u8; 32],
    /// The operations that gave no value, in order.
    pub failures: Vec<FailedOperation>,
    /// Where each result ends in `results`, one per operation that was executed.
    pub ends: Vec<u32>,
    /// The results, end to end.
    pub results: Vec<u8>,
}

/// Why an operation gave no value. The same at every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq))]
#[repr(u8)]
pub enum Failure {
    /// The application said so; the result is what it says about it.
    Application,
    /// The operation took effect, and its result was longer than one may be.
    TooLong,
    /// The application panicked.
    Panicked,
}

/// An operation that gave no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq))]
pub struct FailedOperation {
    /// Its place in the frame.
    pub operation: u32,
    /// Why.
    pub failure: Failure,
}

/// What became of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationResult<'a> {
    /// What the application answered.
    Value(&'a [u8]),
    /// What the application said when it refused the operation.
    Error(&'a [u8]),
    /// The operation took effect, and its result was longer than one may be.
    TooLong,
    /// The application panicked.
    Panicked,
}

/// Why a replica does not take a frame, or has no results for it. A client believes a refusal only from f+1
/// replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
#[rkyv(derive(Debug, Clone, Copy, PartialEq, Eq))]
#[repr(u8)]
pub enum RefusalReason {
    /// The frame's structure or size breaks a rule.
    Malformed,
    /// The authenticator does not prove the client.
    NotAuthentic,
    /// The client's pending frames fill its quota; try again later.
    Overloaded,
    /// The sequence number lies before its session's window: it was answered long ago or never will be.
    Stale,
    /// After a disputed MAC this client has to sign.
    MustSign,
    /// Of a read beside the order: this replica may have answered from a later state than it has now, before
    /// it restarted or its state was replaced.
    CatchingUp,
    /// The leader does not order this frame, and only a signature is held against a leader: it is to be sent
    /// once more, signed.
    Unproven,
    /// The cluster does not answer reads beside the order.
    OrderedOnly,
    /// Another frame was executed under this number: this one never is.
    NumberUsed,
    /// Newer sessions of the same identity have ended this one: what of it was not executed never is.
    SessionEnded,
    /// The frame was executed, and its results are not kept any more.
    ResultsForgotten,
    /// It asks for a change that the membership does not allow: nobody signed it who may, it builds on another
    /// epoch, or its client may not hand it in.
    ChangeRefused,
}

impl std::fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the request breaks a rule of its structure or size",
            Self::NotAuthentic => "the request is not proven to be this client's",
            Self::Overloaded => "this client's pending requests fill its quota",
            Self::Stale => {
                "another process went on with this session's numbers: it was executed long ago or never will be"
            }
            Self::MustSign => "this client has to sign its requests",
            Self::CatchingUp => "the replica catches up with what it may have answered before it restarted",
            Self::Unproven => "the leader does not order it, and only a signature is held against a leader",
            Self::OrderedOnly => "the cluster does not answer reads beside the order",
            Self::NumberUsed => "its number was used for another request: it is not executed",
            Self::SessionEnded => {
                "too many newer sessions of the same identity have ended this one: it was executed before or never \
                 will be"
            }
            Self::ResultsForgotten => "it was executed, and its results are not kept any more",
            Self::ChangeRefused => {
                "the membership does not allow this change now: look at who signed it, and which epoch it builds on"
            }
        })
    }
}

/// Which state a read beside the order was answered from: one that includes all of the decisions up to one,
/// and nothing of those after another. They are the same where nothing is being executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StateRead {
    /// The last decision that is wholly included.
    pub whole: SeqNo,
    /// The last of which anything is.
    pub begun: SeqNo,
}

/// What a replica answers to a client.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ClientReply {
    /// The results of a frame.
    Results {
        /// The replica's view: f+1 equal ones tell the client who leads.
        view: u64,
        /// The state that a read beside the order was answered from ([`StateRead`]); zero for what was
        /// executed in order.
        whole: u64,
        /// See `whole`.
        begun: u64,
        /// The archive of a [`ReplyBody`].
        body: Vec<u8>,
    },
    /// The frame was not taken.
    Refused {
        /// The replica's view.
        view: u64,
        /// The session of the frame that was refused.
        session: u64,
        /// Its number.
        sequence: u64,
        /// The digest of what was asked: no other frame is refused by this.
        request: [u8; 32],
        /// Why.
        reason: RefusalReason,
    },
}

/// What an operator asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum AdminRequest {
    /// Where this replica stands.
    Status,
}

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct AdminReply {
    /// The replica that answers.
    pub node: u16,
    /// Its view.
    pub view: u64,
    /// The last decision it executed.
    pub executed: u64,
    /// The last decision it ordered.
    pub ordered: u64,
    /// The last decision up to which all that it promised is on disk.
    pub durable: u64,
    /// What it does, in a few words.
    pub phase: String,
    /// Pieces of a state from others that are here; zero while none comes, as all that follows about it.
    pub transfer_pieces: u64,
    /// Pieces there are.
    pub transfer_pieces_of: u64,
    /// Bytes received.
    pub transfer_bytes: u64,
    /// Replicas that send them.
    pub transfer_donors: u64,
    /// Bytes a second.
    pub transfer_bytes_per_second: u64,
    /// How long the rest takes at that rate, in milliseconds; zero if that is not known.
    pub transfer_milliseconds_left: u64,
    /// The last stable checkpoint.
    pub stable: u64,
    /// Whether it is in a view, not between two.
    pub orders: bool,
    /// Whether decisions or a state come from others.
    pub transfers: bool,
    /// Whether it votes for nothing, because it may have forgotten what it promised.
    pub abstains: bool,
    /// Whether nothing is logged, hence nothing voted, for lack of space.
    pub waits_for_space: bool,
    /// The last checkpoints that it took one after the other, in order: those of replicas with equal states
    /// are at the same places, and equal.
    pub checkpoints: Vec<CheckpointTold>,
    /// Operations it executed.
    pub operations: u64,
    /// Links with other replicas that are up.
    pub replica_links: u64,
    /// Links with clients that are up.
    pub client_links: u64,
    /// Counters by name, one `name value` per line.
    pub counters: String,
}

impl ArchivedAdminReply {
    /// The answer, out of the received bytes.
    ///
    /// # Panics
    /// Never: they were checked.
    #[must_use]
    pub fn to_reply(&self) -> AdminReply {
        rkyv::deserialize::<AdminReply, rkyv::rancor::Failure>(self).expect("a checked archive deserialises")
    }
}

/// A checkpoint that a replica took, as it tells an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct CheckpointTold {
    /// Its place.
    pub seq: u64,
    /// Its digest.
    pub digest: [u8; 32],
}

/// What one end of a link tells the other about the link itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum LinkMessage {
    /// This end is shutting down in good order.
    Goodbye,
    /// This end is there, and has nothing else to say.
    Ping,
    /// The first message on a link between replicas: which start of the sender's process this is, by a random
    /// number.
    Instance(u64),
    /// Another process speaks with your identity: it and you take turns in having a link with this end.
    Twin,
    /// A client: this link serves this one of its sessions from now on. Other sessions' replies need not come
    /// here.
    Session(u64),
}

impl ArchivedReplyBody {
    /// Whether the tables describe the results.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let places = || self.failures.iter().map(|failed| failed.operation.to_native());
        ends_are_sound(self.ends.iter().map(|end| end.to_native()), self.results.len())
            && places().is_sorted_by(|a, b| a < b)
            && places().all(|place| (place as usize) < self.ends.len())
    }

    /// Which frame is answered.
    #[must_use]
    pub fn frame(&self) -> FrameId {
        FrameId {
            key: FrameKey {
                client: ClientId::new(self.client.to_native()),
                sequence: FrameSeq::of(self.session.to_native(), self.sequence.to_native()),
            },
            digest: Digest::from_bytes(self.request),
        }
    }

    /// The results, in the order of the operations. Only after [`is_sound`](Self::is_sound).
    pub fn results(&self) -> impl ExactSizeIterator<Item = OperationResult<'_>> {
        let (mut start, mut failures) = (0, self.failures.iter().peekable());
        self.ends.iter().enumerate().map(move |(operation, end)| {
            let end = end.to_native() as usize;
            let result = &self.results[start..end];
            start = end;
            let failed = failures.next_if(|failed| failed.operation.to_native() as usize == operation);
            match failed.map(|failed| failed.failure) {
                None => OperationResult::Value(result),
                Some(ArchivedFailure::Application) => OperationResult::Error(result),
                Some(ArchivedFailure::TooLong) => OperationResult::TooLong,
                Some(ArchivedFailure::Panicked) => OperationResult::Panicked,
            }
        })
    }
}

/// Collects the results of one frame's operations into a reply body. Reused from frame to frame.
#[derive(Debug, Default)]
pub struct ReplyBuilder {
    failures: Vec<FailedOperation>,
    ends: Vec<u32>,
    results: Vec<u8>,
}

impl ReplyBuilder {
    /// Where the next result is to be appended; [`end_result`](Self::end_result) closes it.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.results
    }

    /// Closes the result of one operation, which is a value or not.
    ///
    /// # Panics
    /// When the results of the frame pass 4 GiB; executors cap them far below.
    pub fn end_result(&mut self, failure: Option<Failure>) {
        self.end_result_at(self.results.len(), failure);
    }

    /// As [`end_result`](Self::end_result), for who keeps the results elsewhere meanwhile.
    ///
    /// # Panics
    /// As there.
    pub fn end_result_at(&mut self, end: usize, failure: Option<Failure>) {
        self.failures.extend(failure.map(|failure| FailedOperation {
            operation: self.ends.len() as u32,
            failure,
        }));
        self.ends
            .push(u32::try_from(end).expect("the results of a frame are under 4 GiB"));
    }

    /// How many results are closed.
    #[must_use]
    pub fn results(&self) -> usize {
        self.ends.len()
    }

    /// The archive of the body; the builder is empty afterwards.
    #[must_use]
    pub fn finish(&mut self, frame: &FrameId) -> Bytes {
        let body = ReplyBody {
            client: frame.key.client.get(),
            session: frame.key.sequence.session(),
            sequence: frame.key.sequence.number(),
            request: *frame.digest.as_bytes(),
            failures: std::mem::take(&mut self.failures),
            ends: std::mem::take(&mut self.ends),
            results: std::mem::take(&mut self.results),
        };
        let bytes = archive(
            &body,
            body.results.len() + 4 * body.ends.len() + 8 * body.failures.len() + 128,
        );
        self.failures = body.failures;
        self.ends = body.ends;
        self.results = body.results;
        self.failures.clear();
        self.ends.clear();
        self.results.clear();
        Bytes::from(bytes)
    }
}

impl ClientReply {
    /// The whole message that carries a reply body to its client.
    #[must_use]
    pub fn results(cluster: ClusterId, epoch: Epoch, view: View, body: &[u8]) -> Bytes {
        Self::read_results(cluster, epoch, view, StateRead::default(), body)
    }

    /// The whole message that carries the reply body of a read beside the order, which was answered from this
    /// state.
    #[must_use]
    pub fn read_results(
        cluster: ClusterId,
        epoch: Epoch,
        view: View,
        state: StateRead,
        body: &[u8],
    ) -> Bytes {
        let reply = Self::Results {
            view: view.get(),
            whole: state.whole.get(),
            begun: state.begun.get(),
            body: body.to_vec(),
        };
        encode(
            Envelope::new(Kind::Reply, cluster, epoch),
            &reply,
            body.len() + 32,
        )
    }

    /// The whole message that refuses a frame.
    #[must_use]
    pub fn refusal(
        cluster: ClusterId,
        epoch: Epoch,
        view: View,
        frame: &FrameId,
        reason: RefusalReason,
    ) -> Bytes {
        let reply = Self::Refused {
            view: view.get(),
            session: frame.key.sequence.session(),
            sequence: frame.key.sequence.number(),
            request: *frame.digest.as_bytes(),
            reason,
        };
        encode(Envelope::new(Kind::Reply, cluster, epoch), &reply, 128)
    }
}

impl From<ArchivedRefusalReason> for RefusalReason {
    fn from(reason: ArchivedRefusalReason) -> Self {
        match reason {
            ArchivedRefusalReason::Malformed => Self::Malformed,
            ArchivedRefusalReason::NotAuthentic => Self::NotAuthentic,
            ArchivedRefusalReason::Overloaded => Self::Overloaded,
            ArchivedRefusalReason::Stale => Self::Stale,
            ArchivedRefusalReason::MustSign => Self::MustSign,
            ArchivedRefusalReason::CatchingUp => Self::CatchingUp,
            ArchivedRefusalReason::Unproven => Self::Unproven,
            ArchivedRefusalReason::OrderedOnly => Self::OrderedOnly,
            ArchivedRefusalReason::NumberUsed => Self::NumberUsed,
            ArchivedRefusalReason::SessionEnded => Self::SessionEnded,
            ArchivedRefusalReason::ResultsForgotten => Self::ResultsForgotten,
            ArchivedRefusalReason::ChangeRefused => Self::ChangeRefused,
        }
    }
}
