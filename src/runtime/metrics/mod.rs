//! Counters and gauges of one replica, written by its shards and read by anybody at any time.
//!
//! Writing is one relaxed store or add: a reader never slows a shard, and losing every reader changes
//! nothing.

mod histogram;
mod log_context;
mod measures;
mod progress;
mod row;
mod sequence_gauges;
mod told;
mod turns;
mod waiters;

pub(crate) use histogram::add;
pub use histogram::{Histogram, HistogramCounts};
pub use log_context::LogContext;
pub(crate) use log_context::for_same_replica;
pub(crate) use measures::{
    Backlog, Lane, Measure, Measures, PeerMeasures, Recorder, is_sampled_batch, is_sampled_frame, sample_of,
};
pub use progress::TransferProgress;
pub use row::{CheckpointRow, ReplicaRow, TransferRow};
pub use sequence_gauges::SequenceGauges;
pub use told::ReplicaStatus;
pub(crate) use turns::SAMPLED_EVERY;
pub use turns::TurnTimes;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use self::waiters::Waiters;
use crate::runtime::evidence::Evidence;
use crate::runtime::net::framing::FramingError;
use crate::runtime::shard::control::ControlCounters;
use crate::smr::messages::{BatchError, CheckpointClaim};
use crate::smr::preprocessing::FrameRefusal;
use crate::smr::protocol::Rejection;
use crate::smr::replica::{ExecutionPhase, Participation, ReplicaCounters, TransferPhase};
use crate::smr::types::{Epoch, NodeId, View};

/// How many of its last checkpoints a replica tells operators.
const CHECKPOINTS_TOLD: usize = 8;

/// Declares the plain counters: each a name and what it counts.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The plain counters of a replica.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl Counters {
            fn read(&self, mut visit: impl FnMut(&'static str, u64)) {
                $(visit(stringify!($name), self.$name.load(Ordering::Relaxed));)*
            }
        }
    };
}

counters!(
    /// Links with replicas that came up.
    replica_links_up,
    /// Links with replicas that ended.
    replica_links_down,
    /// Links with clients that came up.
    client_links_up,
    /// Links with clients that ended.
    client_links_down,
    /// Links ended because the peer took messages too slowly.
    links_closed_slow,
    /// Messages of a kind the peer may not send, or whose envelope or archive is not sound.
    messages_refused,
    /// Messages for a replica with no link.
    messages_unsent,
    /// Replies for a client with no link.
    replies_unsent,
    /// Messages received from replicas.
    messages_from_replicas,
    /// Messages received from clients.
    messages_from_clients,
    /// Operations of applications that panicked.
    application_panics,
    /// Executions that were of no use and repeated, of the speculative executor.
    executions_repeated,
    /// Bytes of log segments that hold records.
    log_bytes,
    /// Bytes of the last checkpoint's snapshot on disk.
    snapshot_bytes,
    /// 1 while nothing is logged, hence nothing voted, because the disk or the log's budget is full; else 0.
    log_waits_for_space,
    /// Groups of records that reached the disk.
    log_syncs,
    /// Turns of data shards (summed over a replica's shards).
    shard_turns,
    /// Times a data shard went to sleep.
    shard_parks,
    /// Frames of reads beside the order that were not answered because this replica may have answered from a
    /// later state before.
    reads_refused,
    /// Links ended because nothing came on them for too long.
    links_closed_silent,
    /// Times another replica was found to run twice, with one identity.
    peers_running_twice,
    /// Times another replica said that a second process runs with this one's identity.
    identity_used_twice,
    /// Reads beside the order that were refused: their client, or all together, had too many waiting.
    reads_over_quota,
    /// Cached replies that were not sent again: their client had asked for too many.
    resends_refused,
    /// Questions of operators that were not answered: their client had asked too often.
    questions_refused,
    /// Replies dropped because their client took messages too slowly; it asks again.
    replies_dropped,
    /// Messages with clients' frames dropped because the replica they were passed on to took them too slowly.
    forwards_dropped,
    /// Messages of transfers dropped because a replica took them too slowly; it asks again.
    transfers_dropped,
    /// Requests that the admin endpoint answered.
    admin_requests,
    /// Requests that the admin endpoint refused, or that did not come in time.
    admin_requests_refused,
    /// What went wrong with the admin endpoint itself.
    admin_failures,
);

/// What the orchestrator counts beside transfers and operations.
const NAMES: [&str; 12] = [
    "frames_duplicate",
    "frames_forwarded",
    "votes_cast",
    "view_changes",
    "views_entered",
    "checkpoints_stable",
    "messages_backpressured",
    "frames_crowded_out",
    "frames_urged",
    "proofs_asked",
    "frames_disputed",
    "signatures_required",
];

/// What a replica does right now.
#[derive(Debug, Clone, Copy)]
struct Phases {
    execution: ExecutionPhase,
    transfer: TransferPhase,
    participation: Participation,
    /// When the state that comes from others began to come.
    begin: Option<progress::Begin>,
}

/// Everything one replica counts.
#[derive(Debug)]
pub struct Metrics {
    /// The replica.
    pub node: NodeId,
    /// Plain counters.
    pub counters: Counters,
    framing_errors: [AtomicU64; FramingError::ALL.len()],
    frame_refusals: [AtomicU64; FrameRefusal::NAMES.len()],
    rejections: [AtomicU64; Rejection::ALL.len()],
    batches_refused: AtomicU64,
    batches_over_budget: AtomicU64,
    epoch: AtomicU64,
    view: AtomicU64,
    executed: AtomicU64,
    ordered: AtomicU64,
    durable: AtomicU64,
    stable: AtomicU64,
    phases: Mutex<Phases>,
    transfers: [AtomicU64; 7],
    /// What else the orchestrator counts: [`NAMES`].
    others: [AtomicU64; NAMES.len()],
    operations: AtomicU64,
    decisions: AtomicU64,
    batches_proposed: AtomicU64,
    frames_queued: AtomicU64,
    frames_refused: AtomicU64,
    /// The last ones taken one after the other.
    checkpoints: Mutex<VecDeque<CheckpointClaim>>,
    control: OnceLock<Arc<ControlCounters>>,
    /// Of each data shard, by its number.
    turn_times: OnceLock<Vec<Arc<TurnTimes>>>,
    /// What was refused of each peer.
    pub evidence: Evidence,
    /// What its roles measure beside their turns.
    pub(crate) measures: Measures,
    /// Those who wait for links with other replicas.
    pub(crate) links_waiters: Waiters,
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    [const { AtomicU64::new(0) }; N]
}

impl Metrics {
    /// All zero; of a replica that knows no others.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self::of_cluster(node, 0)
    }

    /// All zero; of one of so many replicas.
    #[must_use]
    pub fn of_cluster(node: NodeId, replicas: usize) -> Self {
        Self {
            node,
            counters: Counters::default(),
            framing_errors: zeros(),
            frame_refusals: zeros(),
            rejections: zeros(),
            batches_refused: AtomicU64::new(0),
            batches_over_budget: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            view: AtomicU64::new(0),
            executed: AtomicU64::new(0),
            ordered: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            phases: Mutex::new(Phases {
                execution: ExecutionPhase::OrderProtocol,
                transfer: TransferPhase::NotRunning,
                participation: Participation::Full,
                begin: None,
            }),
            transfers: zeros(),
            others: zeros(),
            stable: AtomicU64::new(0),
            operations: AtomicU64::new(0),
            decisions: AtomicU64::new(0),
            batches_proposed: AtomicU64::new(0),
            frames_queued: AtomicU64::new(0),
            frames_refused: AtomicU64::new(0),
            checkpoints: Mutex::default(),
            control: OnceLock::new(),
            turn_times: OnceLock::new(),
            evidence: Evidence::default(),
            measures: Measures::new(replicas),
            links_waiters: Waiters::default(),
        }
    }

    /// Counts a link ended by its framing.
    pub fn refuse_record(&self, error: FramingError) {
        count(&self.framing_errors[error.index()]);
    }

    /// Counts a refused client frame.
    pub fn refuse_frame(&self, refusal: FrameRefusal) {
        count(&self.frame_refusals[refusal.index()]);
    }

    /// Counts a refused proposal.
    pub fn refuse_batch(&self, error: BatchError) {
        count(match error {
            BatchError::OverBudget(_) => &self.batches_over_budget,
            _ => &self.batches_refused,
        });
    }

    /// Shows what the control shard counts as well. Set once, when it runs.
    pub(crate) fn show_control(&self, counters: Arc<ControlCounters>) {
        let _ = self.control.set(counters);
    }

    /// Shows how long the turns of data shards take as well. Set once, when they are about to run.
    pub(crate) fn show_turns(&self, times: Vec<Arc<TurnTimes>>) {
        let _ = self.turn_times.set(times);
    }

    /// How long the turns of each data shard take, by its number; nothing before they run.
    #[must_use]
    pub fn turn_times(&self) -> &[Arc<TurnTimes>] {
        self.turn_times.get().map_or(&[], Vec::as_slice)
    }

    /// Publishes the epoch of the replica's membership.
    pub fn publish_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.get(), Ordering::Relaxed);
    }

    /// The epoch of the replica's membership.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.epoch.load(Ordering::Relaxed))
    }

    /// The replica's view.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(self.view.load(Ordering::Relaxed))
    }

    /// Publishes what the orchestrator counted.
    pub fn publish(&self, gauges: SequenceGauges, counters: &ReplicaCounters) {
        self.view.store(gauges.view.get(), Ordering::Relaxed);
        self.executed.store(gauges.executed.get(), Ordering::Relaxed);
        self.ordered.store(gauges.ordered.get(), Ordering::Relaxed);
        self.durable.store(gauges.durable.get(), Ordering::Relaxed);
        self.stable.store(gauges.stable.get(), Ordering::Relaxed);
        let transfers = [
            counters.log_transfers,
            counters.decisions_transferred,
            counters.decisions_repaired,
            counters.states_transferred,
            counters.divergences,
            counters.chunks_refused,
            counters.pieces_reused,
        ];
        for (shared, own) in self.transfers.iter().zip(transfers) {
            shared.store(own, Ordering::Relaxed);
        }
        let others = [
            counters.frames_duplicate,
            counters.frames_forwarded,
            counters.votes_cast,
            counters.view_changes,
            counters.views_entered,
            counters.checkpoints_stable,
            counters.messages_backpressured,
            counters.frames_crowded_out,
            counters.frames_urged,
            counters.proofs_asked,
            counters.frames_disputed,
            counters.signatures_required,
        ];
        for (shared, own) in self.others.iter().zip(others) {
            shared.store(own, Ordering::Relaxed);
        }
        self.operations
            .store(counters.operations_executed, Ordering::Relaxed);
        self.decisions.store(counters.decisions, Ordering::Relaxed);
        self.batches_proposed
            .store(counters.batches_proposed, Ordering::Relaxed);
        self.frames_queued
            .store(counters.frames_queued, Ordering::Relaxed);
        self.frames_refused
            .store(counters.frames_refused, Ordering::Relaxed);
        for (shared, own) in self.rejections.iter().zip(&counters.rejected) {
            shared.store(*own, Ordering::Relaxed);
        }
    }

    /// Publishes which protocols are at work; only when that changed.
    pub fn publish_phases(
        &self,
        execution: ExecutionPhase,
        transfer: TransferPhase,
        participation: Participation,
    ) {
        let mut phases = self
            .phases
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *phases = Phases {
            execution,
            transfer,
            participation,
            begin: progress::Begin::of(transfer, phases.begin, Instant::now()),
        };
    }

    /// Publishes a checkpoint that was taken.
    pub fn publish_checkpoint(&self, claim: CheckpointClaim) {
        let mut checkpoints = self.checkpoints();
        if checkpoints.back().is_some_and(|last| last.seq >= claim.seq) {
            // Of a state that was replaced meanwhile.
            checkpoints.clear();
        }
        while checkpoints.len() >= CHECKPOINTS_TOLD {
            checkpoints.pop_front();
        }
        checkpoints.push_back(claim);
    }

    /// Publishes a checkpoint that this replica goes on from, of others or of its disk: what it took before is
    /// of another state.
    pub fn publish_installed(&self, claim: CheckpointClaim) {
        let mut checkpoints = self.checkpoints();
        checkpoints.clear();
        checkpoints.push_back(claim);
    }

    fn checkpoints(&self) -> MutexGuard<'_, VecDeque<CheckpointClaim>> {
        self.checkpoints
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
