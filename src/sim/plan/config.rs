use std::time::Duration;

use crate::sim::SimRng;
use crate::smr::execution::{FRAME_RESULT_BYTES_MAX, ResultLimits, StateRule};
use crate::smr::messages::Lengths;
use crate::smr::messages::lengths::VOTES_MAX;
use crate::smr::preprocessing::{CheckerLimits, ClientAuth, GateLimits, PoolLimits};
use crate::smr::protocol::Rate;
use crate::smr::replica::TransferLimits;
use crate::smr::view_transfer::pbft::ViewTimings;

/// The settings of the cluster and its clients in one run.
#[derive(Debug, Clone)]
pub struct SimConfig {
    /// Replicas.
    pub replicas: usize,
    /// Clients that follow the protocol.
    pub honest_clients: usize,
    /// Clients that do not.
    pub faulty_clients: usize,
    /// Sequence numbers after the stable checkpoint that are accepted.
    pub window: u64,
    /// Undecided proposals of the leader.
    pub pipeline: usize,
    /// Decisions between checkpoints.
    pub checkpoint_decisions: u64,
    /// Bytes of batches between them, if they come first.
    pub checkpoint_bytes: u64,
    /// Which of them include the state.
    pub state_rule: StateRule,
    /// Sizes of frames and batches.
    pub limits: CheckerLimits,
    /// Bounds of the request pool.
    pub pool: PoolLimits,
    /// Whether reads beside the order are linearizable: they, and ordered operations, take a quorum of equal
    /// answers.
    pub unordered: bool,
    /// Whether clients ask for reads beside the order that may be old.
    pub relaxed: bool,
    /// How clients prove their frames.
    pub auth: ClientAuth,
    /// Frames of one client under way.
    pub frames_in_flight: usize,
    /// Microseconds from a message's arrival to the turn that looks at it.
    pub turn_us: (u64, u64),
    /// Microseconds of a disk's sync.
    pub sync_us: (u64, u64),
    /// The size of a segment of the log, if it holds the longest record.
    pub segment_bytes: u64,
    /// Whether the log may use no more disk than production asks for at least.
    pub log_is_least: bool,
    /// Whether a write to the log is on the disk when it ends, as in production, or waits for a sync.
    pub write_syncs: bool,
    /// How many decisions before a stable checkpoint replicas keep for peers.
    pub kept_for_peers: usize,
    /// What replicas give to peers that catch up.
    pub donor: TransferLimits,
    /// How many bytes of decisions are kept in memory.
    pub kept_bytes: usize,
    /// How many bytes of proposals a leader may have undecided at once.
    pub undecided_bytes_max: usize,
    /// How far the time of a proposal may be from a replica's clock.
    pub clock_bound: Duration,
    /// How many signatures of frames replicas verify for each other.
    pub gate: GateLimits,
    /// How long replicas wait for a leader and a view.
    pub timings: ViewTimings,
    /// How long a client is named at first whose MACs cost a replica a view.
    pub must_sign_for: Duration,
    /// How long clients wait before they ask everybody.
    pub retransmit: Duration,
    /// How many votes share a message.
    pub votes_max: usize,
    /// How long results may be.
    pub results: ResultLimits,
    /// Whether the membership changes.
    pub has_epochs: bool,
}

impl SimConfig {
    /// The settings of a small, quiet cluster.
    #[must_use]
    pub fn calm(replicas: usize, honest_clients: usize) -> Self {
        Self {
            replicas,
            honest_clients,
            faulty_clients: 0,
            window: 64,
            pipeline: 4,
            checkpoint_decisions: 8,
            checkpoint_bytes: u64::MAX,
            state_rule: StateRule::ALWAYS,
            limits: CheckerLimits {
                frame_bytes_max: 4096,
                frame_operations_max: 16,
                batch_bytes_max: 16 << 10,
                batch_frames_max: 64,
                frame_macs: replicas,
            },
            pool: PoolLimits {
                frames_per_client: 64,
                bytes_per_client: 64 << 10,
                bytes_max: 256 << 10,
            },
            unordered: false,
            relaxed: false,
            auth: ClientAuth::Mac,
            frames_in_flight: 8,
            turn_us: (1, 20),
            sync_us: (10, 200),
            segment_bytes: 1 << 20,
            log_is_least: false,
            write_syncs: true,
            kept_for_peers: 4096,
            donor: TransferLimits::default(),
            kept_bytes: 64 << 20,
            undecided_bytes_max: 256 << 10,
            clock_bound: Duration::from_secs(10),
            gate: GateLimits {
                unasked: rate(32_768, 10_000),
                forwarded: rate(32_768, 10_000),
                lies: rate(4096, 256),
            },
            timings: ViewTimings {
                timeout_max: Duration::from_secs(5),
                ..ViewTimings::default()
            },
            must_sign_for: Duration::from_millis(250),
            retransmit: Duration::from_millis(200),
            votes_max: VOTES_MAX,
            results: ResultLimits::default(),
            has_epochs: false,
        }
    }

    pub(super) fn of(rng: &mut SimRng) -> Self {
        let replicas = rng.pick(&[4, 4, 4, 4, 4, 7, 7, 10]);
        let checkpoint_decisions = rng.between(2, 12);
        Self {
            window: checkpoint_decisions * rng.between(2, 4) + rng.below(5),
            pipeline: rng.between(1, 8) as usize,
            checkpoint_decisions,
            limits: CheckerLimits {
                batch_frames_max: rng.pick(&[1, 2, 8, 64]),
                frame_macs: replicas,
                frame_operations_max: rng.pick(&[1, 4, 16]),
                ..Self::calm(1, 1).limits
            },
            unordered: rng.chance(35),
            auth: rng.pick(&[ClientAuth::Mac, ClientAuth::Mac, ClientAuth::Signature]),
            frames_in_flight: rng.pick(&[1, 4, 16]),
            turn_us: rng.pick(&[(0, 0), (1, 20), (50, 500)]),
            sync_us: rng.pick(&[(1, 20), (50, 800), (1000, 12_000)]),
            segment_bytes: rng.pick(&[0, 0, 1 << 17]),
            kept_for_peers: rng.pick(&[0, 0, 20, 4096]),
            timings: ViewTimings {
                timeout: rng.millis(300, 1500),
                timeout_max: Duration::from_secs(5),
                status_period: match rng.chance(50) {
                    true => rng.millis(100, 500),
                    false => rng.millis(500, 2000),
                },
                ..ViewTimings::default()
            },
            retransmit: rng.millis(50, 400),
            votes_max: rng.pick(&[1, 4, 16, VOTES_MAX]),
            ..Self::calm(replicas, rng.between(2, 4) as usize)
        }
    }

    /// In some runs there are as many replicas as no three times f and one more, and in a few there are many.
    pub(super) fn resize(&mut self, rng: &mut SimRng) {
        self.replicas = match rng.below(1000) {
            0..2 => 64,
            2..7 => 31,
            7..32 => 13,
            32..87 => 6,
            87..142 => 5,
            _ => return,
        };
        // A frame counts with as many MACs as there are replicas.
        self.limits.frame_macs = self.replicas;
        if self.is_large() {
            // Each tells each.
            self.timings.status_period = self.timings.status_period.max(Duration::from_secs(1));
            self.honest_clients = self.honest_clients.min(2);
        }
    }

    /// Disks as small as they may be, and as production writes to them, in half of the runs each.
    pub(super) fn shrink_disks(&mut self, rng: &mut SimRng) {
        self.log_is_least = rng.chance(50);
        self.write_syncs = rng.chance(50);
    }

    /// Whether a round of messages among all replicas is a thousand.
    pub(super) const fn is_large(&self) -> bool {
        self.replicas > 20
    }

    /// Checkpoints come seldom: view after view speaks of the same places.
    pub(super) fn remember_long(&mut self, rng: &mut SimRng) {
        if rng.chance(70) {
            self.checkpoint_decisions = rng.between(20, 80);
            self.window = self.checkpoint_decisions * 2;
        }
    }

    /// In half of the runs not every checkpoint includes the state, and memory holds few decisions.
    pub(super) fn lighten(&mut self, rng: &mut SimRng) {
        if rng.chance(50) {
            return;
        }
        // The state has some hundred bytes, a decision counts as more than sixteen thousand.
        let periods = rng.pick(&[2, 5, 20, 100]);
        self.state_rule = StateRule {
            small_bytes: rng.pick(&[0, 64]),
            factor: rng.pick(&[200, 2000, u64::MAX]),
            log_bytes_max: periods * self.checkpoint_decisions * StateRule::DECISION_BYTES,
        };
        self.kept_bytes = rng.pick(&[0, 0, 4096, 64 << 20]);
    }

    /// In a third of the runs replies end early.
    pub(super) fn answer_little(&mut self, rng: &mut SimRng) {
        if rng.chance(33) {
            self.results.frame_bytes = rng.pick(&[1, 2, 20]);
        }
    }

    /// In half of the runs others may have so few signatures verified that honest traffic goes beyond it now
    /// and then.
    pub(super) fn verify_little(&mut self, rng: &mut SimRng) {
        if rng.chance(50) {
            self.gate = GateLimits {
                unasked: rate(rng.pick(&[128, 512]), 500),
                forwarded: rate(rng.pick(&[4, 32, 256]), rng.pick(&[50, 500])),
                lies: rate(rng.pick(&[1, 64]), 16),
            };
        }
    }

    /// Clients, honest or not.
    #[must_use]
    pub const fn clients(&self) -> usize {
        self.honest_clients + self.faulty_clients
    }

    /// How many effects may wait for the disk: room for every place of the window, several times.
    #[must_use]
    pub const fn held_effects_max(&self) -> usize {
        self.lengths().held_effects()
    }

    /// How long messages and records are at most, as in production.
    #[must_use]
    pub const fn lengths(&self) -> Lengths {
        Lengths {
            replicas: self.replicas,
            window: self.window,
            frame_bytes_max: self.limits.frame_bytes_max,
            frame_operations_max: self.limits.frame_operations_max,
            frame_result_bytes_max: FRAME_RESULT_BYTES_MAX,
            batch_bytes_max: self.limits.batch_bytes_max,
            batch_frames_max: self.limits.batch_frames_max,
        }
    }

    /// How many replicas may be faulty.
    #[must_use]
    pub const fn faulty_max(&self) -> usize {
        (self.replicas - 1) / 3
    }
}

const fn rate(burst: u64, per_second: u64) -> Rate {
    Rate { burst, per_second }
}
