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
pub(crate) use turns::SAMPLED_EVERY;
pub use turns::TurnTimes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use self::waiters::Waiters;
use crate::runtime::evidence::{Evidence, EvidenceReport};
use crate::runtime::net::framing::FramingError;
use crate::runtime::net::hello::HandshakeRefusal;
use crate::runtime::shard::control::ControlCounters;
use crate::smr::messages::{AdminReply, BatchError, CheckpointClaim, CheckpointTold};
use crate::smr::preprocessing::FrameRefusal;
use crate::smr::protocol::Rejection;
use crate::smr::replica::{ExecutionPhase, Participation, ReplicaCounters, TransferPhase};
use crate::smr::types::{Epoch, NodeId, SeqNo, View};

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

/// Where a replica stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplicaStatus {
    /// Its view.
    pub view: View,
    /// The last decision it executed.
    pub executed: SeqNo,
    /// The last decision it ordered.
    pub ordered: SeqNo,
    /// The last decision up to which all that it promised is on disk.
    pub durable: SeqNo,
    /// Its last stable checkpoint.
    pub stable: SeqNo,
    /// Which protocol orders.
    pub execution: ExecutionPhase,
    /// Which transfers run.
    pub transfer: TransferPhase,
    /// How far the state is, while one comes from others.
    pub progress: Option<TransferProgress>,
    /// Whether it takes part in votes.
    pub participation: Participation,
    /// Operations it executed since its start.
    pub operations: u64,
    /// Links with other replicas that are up.
    pub replica_links: u64,
    /// Links with clients that are up.
    pub client_links: u64,
    /// Its last checkpoint: taken, read back at its start, or come from others.
    pub checkpoint: Option<CheckpointClaim>,
}

impl ReplicaStatus {
    /// What it does, in words.
    #[must_use]
    pub fn phase(&self) -> String {
        let does = match (self.progress, self.transfer) {
            (Some(progress), _) => progress.to_string(),
            (None, TransferPhase::NotRunning) => self.execution.to_string(),
            (None, transfer) => transfer.to_string(),
        };
        match self.participation {
            Participation::Full => does,
            abstaining => format!("{abstaining}; {does}"),
        }
    }
}

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

    /// Where the replica stands.
    #[must_use]
    pub fn standing(&self) -> ReplicaStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let Phases {
            execution,
            transfer,
            participation,
            begin,
        } = *self
            .phases
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        ReplicaStatus {
            ordered: SeqNo::new(read(&self.ordered)),
            durable: SeqNo::new(read(&self.durable)),
            execution,
            transfer,
            progress: begin.and_then(|begin| begin.progress(transfer, Instant::now())),
            participation,
            view: self.view(),
            executed: SeqNo::new(read(&self.executed)),
            stable: SeqNo::new(read(&self.stable)),
            operations: read(&self.operations),
            replica_links: read(&counters.replica_links_up)
                .saturating_sub(read(&counters.replica_links_down)),
            client_links: read(&counters.client_links_up).saturating_sub(read(&counters.client_links_down)),
            checkpoint: self.checkpoints().back().copied(),
        }
    }

    /// What an operator is told.
    #[must_use]
    pub fn status(&self) -> AdminReply {
        use std::fmt::Write;
        let standing = self.standing();
        let mut counters = String::new();
        self.visit(|name, value| {
            // Writing to a string does not fail.
            let _ = writeln!(counters, "{name} {value}");
        });
        self.evidence.write_lines(&mut counters);
        let told = |claim: &CheckpointClaim| CheckpointTold {
            seq: claim.seq.get(),
            digest: *claim.digest.as_bytes(),
        };
        let checkpoints = self.checkpoints().iter().map(told).collect();
        AdminReply {
            node: self.node.get(),
            view: standing.view.get(),
            executed: standing.executed.get(),
            ordered: standing.ordered.get(),
            durable: standing.durable.get(),
            phase: standing.phase(),
            transfer_pieces: standing.progress.map_or(0, |progress| progress.pieces as u64),
            transfer_pieces_of: standing.progress.map_or(0, |progress| progress.of as u64),
            transfer_bytes: standing.progress.map_or(0, |progress| progress.bytes),
            transfer_donors: standing.progress.map_or(0, |progress| progress.donors as u64),
            transfer_bytes_per_second: standing
                .progress
                .map_or(0, |progress| progress.bytes_per_second as u64),
            transfer_milliseconds_left: standing
                .progress
                .and_then(|progress| progress.seconds_left)
                .map_or(0, |left| (left * 1e3) as u64),
            stable: standing.stable.get(),
            orders: standing.execution == ExecutionPhase::OrderProtocol,
            transfers: standing.transfer != TransferPhase::NotRunning,
            abstains: standing.participation != Participation::Full,
            waits_for_space: self.counters.log_waits_for_space.load(Ordering::Relaxed) > 0,
            checkpoints,
            operations: standing.operations,
            replica_links: standing.replica_links,
            client_links: standing.client_links,
            counters,
        }
    }

    /// What this replica holds against others, and how many strangers it refused.
    #[must_use]
    pub fn evidence_report(&self) -> EvidenceReport {
        let mut strangers = BTreeMap::new();
        self.visit_refusals(|of, name, count| {
            if of == "handshake" && count > 0 {
                strangers.insert(name, count);
            }
        });
        EvidenceReport {
            peers: self.evidence.rows(),
            strangers,
            missed: self.evidence.missed(),
            clients_forgotten: self.evidence.forgotten(),
        }
    }

    /// Every counter by name.
    pub fn visit(&self, mut visit: impl FnMut(&'static str, u64)) {
        self.visit_counters(&mut visit);
        self.visit_refusals(|_, name, value| visit(name, value));
    }

    /// Every counter by name, but those of refusals by their reasons.
    pub fn visit_counters(&self, mut visit: impl FnMut(&'static str, u64)) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        visit("operations_executed", read(&self.operations));
        visit("decisions", read(&self.decisions));
        visit("protocol_messages", self.measures.protocol_messages());
        visit("batches_proposed", read(&self.batches_proposed));
        visit("frames_queued", read(&self.frames_queued));
        visit("frames_refused_by_pool", read(&self.frames_refused));
        visit("batches_refused", read(&self.batches_refused));
        visit("batches_refused_over_budget", read(&self.batches_over_budget));
        let transfers = [
            "log_transfers",
            "decisions_transferred",
            "decisions_repaired",
            "states_transferred",
            "divergences",
            "chunks_refused",
            "pieces_reused",
        ];
        for (name, counter) in transfers.into_iter().zip(&self.transfers) {
            visit(name, read(counter));
        }
        for (name, counter) in NAMES.into_iter().zip(&self.others) {
            visit(name, read(counter));
        }
        self.counters.read(&mut visit);
    }

    /// Every refusal that is counted by its reason: of what, its name, how many.
    pub fn visit_refusals(&self, mut visit: impl FnMut(&'static str, &'static str, u64)) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for error in FramingError::ALL {
            visit("record", error.name(), read(&self.framing_errors[error.index()]));
        }
        for (name, counter) in FrameRefusal::NAMES.iter().zip(&self.frame_refusals) {
            visit("frame", name, read(counter));
        }
        for refusal in HandshakeRefusal::ALL {
            let count = self.control.get().map_or(0, |control| control.refused(refusal));
            visit("handshake", refusal.name(), count);
        }
        for reason in Rejection::ALL {
            visit("message", reason.name(), read(&self.rejections[reason.index()]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_the_orchestrator_counts_is_published() {
        let metrics = Metrics::new(NodeId::new(0));
        // Each its own number, so that none passes for another.
        let counters = ReplicaCounters {
            frames_queued: 101,
            frames_duplicate: 102,
            frames_refused: 103,
            batches_proposed: 104,
            votes_cast: 105,
            decisions: 106,
            operations_executed: 107,
            view_changes: 108,
            views_entered: 109,
            frames_forwarded: 110,
            log_transfers: 111,
            decisions_transferred: 112,
            decisions_repaired: 113,
            states_transferred: 114,
            chunks_refused: 115,
            pieces_reused: 116,
            divergences: 117,
            checkpoints_stable: 118,
            messages_backpressured: 119,
            ..ReplicaCounters::default()
        };
        let gauges = SequenceGauges {
            view: View::ZERO,
            ordered: SeqNo::ZERO,
            durable: SeqNo::ZERO,
            executed: SeqNo::ZERO,
            stable: SeqNo::ZERO,
        };
        metrics.publish(gauges, &counters);
        let mut published = BTreeMap::new();
        metrics.visit(|name, value| {
            assert!(published.insert(name, value).is_none(), "{name} twice");
        });
        for number in 101..=119 {
            let names = published.values().filter(|value| **value == number);
            assert_eq!(names.count(), 1, "counter {number}");
        }
        assert_eq!(published["votes_cast"], 105);
        assert_eq!(published["messages_backpressured"], 119);
    }
}
