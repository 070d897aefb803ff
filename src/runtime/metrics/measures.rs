//! What roles measure beside their turns: how long things take, how large they are, how much waits between
//! roles, and what passes the links with each peer.
//!
//! Each role writes to a [`Recorder`] of its own, and to what is about peers that it alone serves: a load and
//! a store of memory that no other core writes. Whoever reads adds the recorders up.
//!
//! What is timed on its way is sampled, so that a look at the clock is paid for by many operations: batches
//! by their place, which is the same at every replica, so that what one measured can be held beside what
//! another did; clients' frames by their number, as far as they come by their client's own link.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::histogram::{Histogram, HistogramCounts, Scale, add};
use crate::smr::messages::FrameKey;
use crate::smr::types::{NodeId, SeqNo, Time};

/// One batch of so many is timed on its way.
const BATCHES_SAMPLED: u64 = 16;
/// One frame of so many is timed on its way.
const FRAMES_SAMPLED: u64 = 64;

/// Whether the batch at this place is timed. The same at every replica.
pub(crate) const fn is_sampled_batch(seq: SeqNo) -> bool {
    seq.get().is_multiple_of(BATCHES_SAMPLED)
}

/// The place of a sampled batch among those that are sampled.
pub(crate) const fn sample_of(seq: SeqNo) -> u64 {
    seq.get() / BATCHES_SAMPLED
}

/// Whether this frame is timed.
pub(crate) const fn is_sampled_frame(key: FrameKey) -> bool {
    key.sequence.number().is_multiple_of(FRAMES_SAMPLED)
}

/// Declares what there is of a kind, each at the place its number tells.
macro_rules! kinds {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $kind:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$doc])* $kind,)*
        }

        impl $name {
            /// Every one.
            pub const ALL: [Self; [$(Self::$kind),*].len()] = [$(Self::$kind),*];
        }
    };
}

kinds!(
    /// What is measured, each with a histogram.
    Measure {
        /// A client's frame was received, and is verified.
        FrameVerified,
        /// It is in a batch that is proposed.
        FrameProposed,
        /// A client's frame was received, and its reply is given to its link.
        Request,
        /// Another replica's proposal was received, and is verified.
        BatchVerified,
        /// It is accepted, and its record given to the log.
        BatchProposed,
        /// This replica cast its last vote on the batch.
        BatchPrepared,
        /// The batch is decided.
        BatchCommitted,
        /// What its decision rests on is on disk.
        BatchDurable,
        /// It is executed.
        BatchExecuted,
        /// Its replies are given to their links.
        BatchReplied,
        /// A decision was taken by execution, and is executed.
        Execution,
        /// Timers that were due, all that were together.
        Timeouts,
        /// What ordering answered to what it heard in a turn, carried out.
        Responses,
        /// A group of records was given to the kernel, and is on disk.
        LogSync,
        /// Frames of a batch.
        BatchFrames,
        /// Operations of a batch.
        BatchOperations,
        /// Bytes of a batch.
        BatchBytes,
        /// Bytes of a group of records, as written.
        LogSyncBytes,
    }
);

impl Measure {
    const fn scale(self) -> Scale {
        match self {
            Self::BatchFrames | Self::BatchOperations => Scale::COUNTS,
            Self::BatchBytes | Self::LogSyncBytes => Scale::BYTES,
            _ => Scale::LATENCIES,
        }
    }
}

kinds!(
    /// What flows from one role to another.
    Lane {
        /// Clients' frames that are not verified.
        ClientFrames,
        /// Replicas' messages with frames that are not verified.
        ReplicaFrames,
        /// Replicas' other messages.
        ReplicaMessages,
        /// What is verified, to ordering.
        Verified,
        /// Reads beside the order.
        Reads,
        /// Decisions, to execution.
        Decisions,
        /// What was executed, to ordering.
        Executed,
        /// Records, to the log.
        Records,
        /// What is on disk, to ordering.
        Durable,
        /// Messages of ordering, to links.
        Outgoing,
        /// Replies, to links.
        Replies,
        /// Refusals of preprocessing, to links.
        Refusals,
    }
);

impl Lane {
    /// Its name, as labels have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientFrames => "client_frames",
            Self::ReplicaFrames => "replica_frames",
            Self::ReplicaMessages => "replica_messages",
            Self::Verified => "verified",
            Self::Reads => "reads",
            Self::Decisions => "decisions",
            Self::Executed => "executed",
            Self::Records => "records",
            Self::Durable => "durable",
            Self::Outgoing => "outgoing",
            Self::Replies => "replies",
            Self::Refusals => "refusals",
        }
    }
}

/// What one role measures, on cache lines of its own: it alone writes.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Recorder {
    measures: [Histogram; Measure::ALL.len()],
    depths: [Histogram; Lane::ALL.len()],
    /// Messages that the protocols took.
    pub protocol_messages: AtomicU64,
    /// With clients.
    pub clients: Traffic,
}

impl Recorder {
    fn new() -> Self {
        Self {
            measures: Measure::ALL.map(|measure| Histogram::new(measure.scale())),
            depths: [const { Histogram::new(Scale::DEPTHS) }; Lane::ALL.len()],
            protocol_messages: AtomicU64::new(0),
            clients: Traffic::default(),
        }
    }

    /// Something has this size.
    pub fn record(&self, measure: Measure, size: usize) {
        self.measures[measure as usize].record(size as u64);
    }

    /// Something took so long.
    pub fn record_time(&self, measure: Measure, duration: Duration) {
        self.measures[measure as usize].record_duration(duration);
    }

    /// So much waits in a lane that this role receives from.
    pub fn record_depth(&self, lane: Lane, waiting: usize) {
        self.depths[lane as usize].record(waiting as u64);
    }

    /// What was measured so far.
    pub fn read(&self, measure: Measure) -> HistogramCounts {
        self.measures[measure as usize].read()
    }
}

/// Bytes of messages that passed links. One thread writes.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// A message of this length was given to a link.
    pub fn sent(&self, bytes: usize) {
        add(&self.sent, bytes as u64);
    }

    /// A message of this length came.
    pub fn received(&self, bytes: usize) {
        add(&self.received, bytes as u64);
    }

    /// Bytes sent, and received.
    pub fn read(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.sent), read(&self.received))
    }
}

/// Another replica. The traffic is the network role's that has its link, the rest is ordering's.
#[derive(Debug, Default)]
pub(crate) struct PeerMeasures {
    pub traffic: Traffic,
    lag: AtomicU64,
}

impl PeerMeasures {
    /// Publishes how far it is.
    pub fn publish_lag(&self, decisions: u64) {
        self.lag.store(decisions, Ordering::Relaxed);
    }

    /// Decisions that it was behind this replica when it last said how far it is.
    pub fn lag(&self) -> u64 {
        self.lag.load(Ordering::Relaxed)
    }
}

/// What waits within ordering.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Frames that are not decided.
    pub pool_frames: usize,
    /// Bytes of them.
    pub pool_bytes: usize,
    /// Effects that wait for the disk.
    pub held_effects: usize,
}

/// All that the roles of a replica measure.
#[derive(Debug)]
pub(crate) struct Measures {
    started: Instant,
    recorders: Mutex<Vec<Arc<Recorder>>>,
    /// By lane: how often a role took no input because it was full.
    blocked: [Arc<AtomicU64>; Lane::ALL.len()],
    peers: Box<[PeerMeasures]>,
    backlog: [AtomicU64; 3],
}

impl Measures {
    /// Nothing measured, of a cluster with so many replicas.
    pub fn new(replicas: usize) -> Self {
        Self {
            started: Instant::now(),
            recorders: Mutex::default(),
            blocked: Lane::ALL.map(|_| Arc::default()),
            peers: (0..replicas).map(|_| PeerMeasures::default()).collect(),
            backlog: Default::default(),
        }
    }

    /// The moment that [`now`](Self::now) counts from.
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// Looks at the clock. Shards count from the same moment.
    pub fn now(&self) -> Time {
        Time::from_nanos(self.started.elapsed().as_nanos() as u64)
    }

    /// A recorder for one role.
    pub fn recorder(&self) -> Arc<Recorder> {
        let recorder = Arc::new(Recorder::new());
        self.lock().push(recorder.clone());
        recorder
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Recorder>>> {
        self.recorders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all roles measured so far.
    pub fn read(&self, measure: Measure) -> HistogramCounts {
        let none = Histogram::new(measure.scale()).read();
        let recorders = self.lock();
        let all = recorders.iter().map(|recorder| recorder.read(measure));
        all.fold(none, |sum, one| sum.and(&one))
    }

    /// How much waited in a lane, in one turn of its receiver of 64.
    pub fn depth(&self, lane: Lane) -> HistogramCounts {
        let none = Histogram::new(Scale::DEPTHS).read();
        let recorders = self.lock();
        let all = recorders
            .iter()
            .map(|recorder| recorder.depths[lane as usize].read());
        all.fold(none, |sum, one| sum.and(&one))
    }

    /// Counts how often a role took no input because this lane was full. It is written while it is, when
    /// there is time for it: senders may share it.
    pub const fn blocked(&self, lane: Lane) -> &Arc<AtomicU64> {
        &self.blocked[lane as usize]
    }

    /// Messages that the protocols took.
    pub fn protocol_messages(&self) -> u64 {
        let recorders = self.lock();
        let counters = recorders.iter().map(|recorder| &recorder.protocol_messages);
        counters.map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    /// Bytes sent to clients, and received from them.
    pub fn clients(&self) -> (u64, u64) {
        let recorders = self.lock();
        let all = recorders.iter().map(|recorder| recorder.clients.read());
        all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Another replica, if there is one of this number.
    pub fn peer(&self, node: NodeId) -> Option<&PeerMeasures> {
        self.peers.get(node.index())
    }

    /// The replicas of the cluster.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + Clone {
        NodeId::all(self.peers.len())
    }

    /// Publishes what waits within ordering.
    pub fn publish_backlog(&self, backlog: Backlog) {
        let Backlog {
            pool_frames,
            pool_bytes,
            held_effects,
        } = backlog;
        for (shared, own) in self.backlog.iter().zip([pool_frames, pool_bytes, held_effects]) {
            shared.store(own as u64, Ordering::Relaxed);
        }
    }

    /// What waits within ordering.
    pub fn backlog(&self) -> Backlog {
        let read = |index: usize| self.backlog[index].load(Ordering::Relaxed) as usize;
        Backlog {
            pool_frames: read(0),
            pool_bytes: read(1),
            held_effects: read(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::types::{ClientId, FrameSeq};

    #[test]
    fn every_kind_is_at_the_place_its_number_tells() {
        for (place, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(measure as usize, place);
        }
        for (place, lane) in Lane::ALL.into_iter().enumerate() {
            assert_eq!(lane as usize, place);
        }
    }

    #[test]
    fn what_roles_measured_is_added_up() {
        let measures = Measures::new(4);
        let (one, other) = (measures.recorder(), measures.recorder());
        one.record(Measure::BatchBytes, 100);
        other.record(Measure::BatchBytes, 50);
        other.record_time(Measure::LogSync, Duration::from_millis(3));
        one.record_depth(Lane::Replies, 5);
        one.clients.sent(10);
        other.clients.sent(20);
        other.clients.received(1);
        let bytes = measures.read(Measure::BatchBytes);
        assert_eq!((bytes.count, bytes.sum), (2, 150.0));
        let sync = measures.read(Measure::LogSync);
        assert_eq!(sync.count, 1);
        assert!((sync.sum - 0.003).abs() < 1e-9, "it is in seconds");
        assert_eq!(measures.depth(Lane::Replies).sum, 5.0);
        assert_eq!(measures.depth(Lane::Records).count, 0);
        assert_eq!(measures.clients(), (30, 1));
        assert!(measures.peer(NodeId::new(3)).is_some());
        assert!(measures.peer(NodeId::new(4)).is_none());
    }

    #[test]
    fn batches_are_sampled_by_their_place_and_frames_by_their_number() {
        let sampled: Vec<u64> = (1..50)
            .filter(|place| is_sampled_batch(SeqNo::new(*place)))
            .collect();
        assert_eq!(sampled, [16, 32, 48]);
        assert_eq!(sample_of(SeqNo::new(48)), sample_of(SeqNo::new(32)) + 1);
        let key = |session, number| FrameKey {
            client: ClientId::new(1),
            sequence: FrameSeq::of(session, number),
        };
        assert!(is_sampled_frame(key(3, 128)));
        assert!(!is_sampled_frame(key(64, 1)), "a session has no part in it");
    }
}
