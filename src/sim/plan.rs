//! What a seed decides before a run begins: config, network, faults and who lies.

mod ambushes;
mod changes;
mod config;
mod fault_schedule;
mod scenes;

use std::time::Duration;

use super::SimRng;
use super::byzantine::ByzantineStrategy;
use super::clients::FaultyClient;
use super::network::{MessageKind, NetworkProfile};
use crate::smr::types::Time;
pub use ambushes::Ambush;
pub use config::SimConfig;
use fault_schedule::network_profile;
pub use scenes::PlannedCall;

/// Which kinds of faults a run may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Only the network and the clocks are faulty.
    Net,
    /// Up to f replicas and two clients lie; in some runs correct replicas crash and come back meanwhile.
    Byzantine,
    /// Replicas crash and come back, one, some or all at once; up to f stay down, or lie.
    Crash,
    /// One replica runs twice with one key, and partitions split the copies.
    Twins,
    /// Up to f replicas lie, or have disks that lose what they acknowledged, or rot; all may crash, be slow
    /// or full.
    Disk,
    /// Nothing is faulty but clients: no leader is replaced because of what they do.
    Clients,
    /// Rare orders of events, set up on purpose.
    Scenes,
    /// As [`Crash`](Self::Crash), and the membership changes meanwhile.
    Epochs,
}

impl Profile {
    /// Every profile, in the order of a run over all of them.
    pub const ALL: [Self; 8] = [
        Self::Net,
        Self::Byzantine,
        Self::Crash,
        Self::Twins,
        Self::Disk,
        Self::Clients,
        Self::Scenes,
        Self::Epochs,
    ];

    /// The profile's name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Byzantine => "byzantine",
            Self::Crash => "crash",
            Self::Twins => "twins",
            Self::Disk => "disk",
            Self::Clients => "clients",
            Self::Scenes => "scenes",
            Self::Epochs => "epochs",
        }
    }
}

/// Something that goes wrong at a moment.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Messages of these hosts to these hosts do not pass until a moment; and back, if `both`.
    Partition {
        /// One side.
        from: Vec<usize>,
        /// The other side.
        to: Vec<usize>,
        /// Whether neither direction passes.
        both: bool,
        /// When it heals.
        until: Time,
    },
    /// Messages of one kind of these hosts to these hosts are lost until a moment.
    Lost {
        /// Which.
        kind: MessageKind,
        /// Whose.
        from: Vec<usize>,
        /// To whom.
        to: Vec<usize>,
        /// Until then.
        until: Time,
    },
    /// All that a host sends takes longer.
    SlowLink {
        /// The host.
        host: usize,
        /// By how much.
        by: Duration,
    },
    /// A host loses power.
    Crash {
        /// The host.
        host: usize,
        /// When it comes back; `None` for good.
        back: Option<Time>,
    },
    /// A host's disk fails to sync: the replica stops, as it must.
    FailedSync {
        /// The host.
        host: usize,
        /// When it comes back; `None` for good.
        back: Option<Time>,
    },
    /// A host loses power, and a bit of its disk flips.
    Rot {
        /// The host.
        host: usize,
        /// When it comes back, if it can.
        back: Time,
    },
    /// A host loses power, and a bit of what its log has held for long flips.
    RotLog {
        /// The host.
        host: usize,
        /// When it comes back, if it can.
        back: Time,
    },
    /// A host loses power, and everything on its disk.
    Wipe {
        /// The host.
        host: usize,
        /// When it tries to come back.
        back: Time,
    },
    /// A host's disk is copied, to be put in its place later.
    CopyDisk {
        /// The host.
        host: usize,
    },
    /// A host loses power, and its disk is replaced by the copy that was made of it.
    RollBack {
        /// The host.
        host: usize,
        /// When it comes back.
        back: Time,
    },
    /// A host executes a decision wrongly: its state is another from then on.
    WrongState {
        /// The host.
        host: usize,
    },
    /// A host's disk is slow for a while.
    SlowDisk {
        /// The host.
        host: usize,
        /// How many times as long a sync takes.
        factor: u64,
        /// Until then.
        until: Time,
    },
    /// From then on a host's disk does not give back some of what its log holds when it is read beside the
    /// writing.
    UnreadableLog {
        /// The host.
        host: usize,
        /// So many of a hundred decisions.
        percent: u64,
    },
    /// A host's disk has no room for a while.
    FullDisk {
        /// The host.
        host: usize,
        /// Until then.
        until: Time,
    },
    /// A host's clock jumps ahead.
    ClockJump {
        /// The host.
        host: usize,
        /// By how much.
        by: Duration,
    },
    /// A process of a client ends, and another one begins with its identity.
    RestartClient {
        /// The process.
        process: usize,
    },
}

/// How the hosts of an exhaustive twins run are split in one view: bit `i` says on which side host `i + 1`
/// is, host 0 being on side 0.
pub type TwoSets = u8;

/// How many such splits there are of the five hosts of four replicas with one twin.
pub const TWO_SETS: u64 = 16;

/// One run, decided.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of it all.
    pub seed: u64,
    /// Its kind.
    pub profile: Profile,
    /// Settings.
    pub config: SimConfig,
    /// Links.
    pub network: NetworkProfile,
    /// The faults and when they strike.
    pub faults: Vec<(Time, Fault)>,
    /// Hosts that lose power when they vote again, or have a state from others, and for how long. Once for
    /// each time they are named.
    pub relapses: Vec<(usize, Duration)>,
    /// Hosts that lose power just after an acknowledgement.
    pub ambushes: Vec<Ambush>,
    /// Clients read as soon as a host has a state from others.
    pub reads_installed: bool,
    /// Replicas that lie, and how.
    pub liars: Vec<(usize, Vec<ByzantineStrategy>)>,
    /// The replica that runs twice.
    pub twin: Option<usize>,
    /// What the faulty clients do.
    pub faulty_clients: Vec<FaultyClient>,
    /// Hosts that execute speculatively; the others one operation after the other.
    pub speculative: Vec<usize>,
    /// Links from a client to a host on which nothing arrives once everything else is in order.
    pub dead_links: Vec<(usize, usize)>,
    /// From then on everything is in order, the first client asks for a little more, and leaders stay.
    pub steady_from: Option<Time>,
    /// No correct replica gets into a later view than this: no more leaders are replaced for what is no fault
    /// of theirs.
    pub views_max: Option<u64>,
    /// Clock of each host: offset in nanoseconds and rate in parts per million too fast.
    pub clocks: Vec<(u64, i64)>,
    /// By how many nanoseconds the time of day that each host reads is ahead.
    pub days: Vec<i64>,
    /// Processes of honest clients beside the first one of each, by client.
    pub more_processes: Vec<u32>,
    /// Operations of all honest clients at any moment.
    pub operations: usize,
    /// Operations beside these.
    pub calls: Vec<PlannedCall>,
    /// When operators ask for changes of the membership.
    pub changes: Vec<Time>,
    /// Keys that they touch.
    pub keys: u64,
    /// They are submitted until then.
    pub busy_until: Time,
    /// All faults but crashes and lies have healed by then.
    pub calm_from: Time,
}

/// After the faults have healed, everything pending completes within this.
pub const PROGRESS_BOUND: Duration = Duration::from_secs(60);

impl Plan {
    /// A run in which nothing happens.
    #[must_use]
    pub fn quiet(profile: Profile, seed: u64, config: SimConfig) -> Self {
        Self {
            seed,
            profile,
            config,
            network: NetworkProfile::calm(),
            faults: Vec::new(),
            relapses: Vec::new(),
            ambushes: Vec::new(),
            reads_installed: false,
            liars: Vec::new(),
            twin: None,
            faulty_clients: Vec::new(),
            more_processes: Vec::new(),
            dead_links: Vec::new(),
            steady_from: None,
            views_max: None,
            clocks: Vec::new(),
            days: Vec::new(),
            speculative: Vec::new(),
            operations: 0,
            calls: Vec::new(),
            changes: Vec::new(),
            keys: 1,
            busy_until: Time::START,
            calm_from: Time::START,
        }
    }

    /// One of the runs that together cover every split of the hosts into two sets in each of three views, for
    /// four replicas of which the first runs twice (Bano et al., Twins, OPODIS 2021).
    #[must_use]
    pub fn of_twins_pattern(twin: usize, pattern: [TwoSets; 3]) -> Self {
        let mut seed = twin as u64;
        let round = Duration::from_millis(400);
        let mut config = SimConfig::calm(4, 2);
        config.timings.timeout = Duration::from_millis(300);
        config.retransmit = Duration::from_millis(100);
        for sides in pattern {
            seed = seed << 4 | u64::from(sides);
        }
        let calm_from = Time::START.after(round * 3);
        let mut plan = Self {
            network: NetworkProfile {
                partitions_lose: true,
                ..NetworkProfile::calm()
            },
            twin: Some(twin),
            operations: 24,
            keys: 2,
            busy_until: calm_from,
            calm_from,
            ..Self::quiet(Profile::Twins, seed, config)
        };
        for (number, sides) in (0u32..).zip(pattern) {
            let at = Time::START.after(round * number);
            let sides = (0..5).partition(|host| *host == 0 || sides >> (host - 1) & 1 == 0);
            plan.cut(at, at.after(round), sides, true);
        }
        plan
    }

    /// The run of a seed.
    #[must_use]
    pub fn of(profile: Profile, seed: u64) -> Self {
        if profile == Profile::Scenes {
            return Self::of_scene(seed);
        }
        let mut rng = SimRng::new(seed ^ (profile as u64) << 56);
        let mut config = SimConfig::of(&mut rng);
        // Dice of their own: what is added here changes no other run.
        config.resize(&mut SimRng::new(seed.rotate_left(48) ^ profile as u64));
        config.shrink_disks(&mut SimRng::new(seed.rotate_left(8) ^ !(profile as u64)));
        config.lighten(&mut SimRng::new(!seed));
        let mut others = SimRng::new(seed.rotate_left(32) ^ !(profile as u64));
        config.verify_little(&mut others);
        config.relaxed = others.chance(30);
        let mut users = SimRng::new(seed.rotate_left(16) ^ 0x7573_6572 ^ profile as u64);
        config.answer_little(&mut users);
        // Some runs are dense, and some are long with much quiet in between.
        let busy_ms = rng.pick(&[(200, 4000), (200, 4000), (4000, 60_000), (60_000, 3_600_000)]);
        let busy_ms = if config.is_large() { (200, 4000) } else { busy_ms };
        let busy_until = Time::START.after(rng.millis(busy_ms.0, busy_ms.1));
        let calm_from = busy_until.after(rng.millis(0, 1000));
        let network = network_profile(&mut rng);
        let keys = rng.between(1, 5);
        // Between continents each operation takes a second, and whoever runs such a cluster gives leaders
        // longer.
        let is_far = network.is_far();
        if is_far {
            config.timings.timeout += Duration::from_millis(1500);
            config.retransmit += Duration::from_millis(800);
        }
        let mut plan = Self {
            network,
            operations: keys as usize * if is_far || config.is_large() { 8 } else { 30 },
            keys,
            busy_until,
            calm_from,
            ..Self::quiet(profile, seed, config.clone())
        };
        let has_plot = profile == Profile::Byzantine && rng.chance(40);
        // Dice of their own as well: who crashes among liars, and who lies among those that crash.
        let mut company = SimRng::new(seed.rotate_left(16) ^ !(profile as u64) ^ 0xc0c);
        if profile == Profile::Clients {
            plan.plan_faulty_clients(&mut rng, &mut config);
            plan.config = config;
            return plan;
        }
        plan.plan_theme(&mut config, has_plot, &mut rng, (&mut company, &mut others));
        config.faulty_clients = plan.faulty_clients.len();
        plan.config = config;
        plan.plan_flood(&mut others);
        if matches!(profile, Profile::Byzantine | Profile::Twins) && company.chance(35) {
            let faulty: Vec<usize> = (0..plan.config.replicas)
                .filter(|host| !plan.is_correct(*host))
                .collect();
            plan.plan_outages(&mut company, &faulty);
        }
        plan.plan_waste(&mut SimRng::new(seed.rotate_left(32) ^ 0x7a57e));
        plan.plan_times(&mut SimRng::new(seed.rotate_left(40) ^ 0x71_3e5));
        plan.plan_hosts(&mut rng);
        if profile != Profile::Twins && !has_plot {
            plan.plan_partitions(&mut rng);
        }
        plan.plan_clocks_and_disks(&mut rng);
        plan.plan_full_disks(&mut rng);
        plan.plan_steady(&mut rng);
        plan.plan_unreadable_logs(&mut rng);
        plan.plan_ambushes(&mut SimRng::new(seed.rotate_left(16) ^ 0xa3b5));
        plan.plan_processes(&mut users);
        plan.plan_far(&mut SimRng::new(seed.rotate_left(24) ^ 0xfa4));
        plan
    }

    /// What each host executes with, and how its clock goes.
    fn plan_hosts(&mut self, rng: &mut SimRng) {
        let hosts = self.hosts();
        self.speculative = (0..hosts).filter(|_| rng.chance(40)).collect();
        self.clocks = (0..hosts)
            .map(|_| (rng.below(3_600_000_000_000), rng.between(0, 1000) as i64 - 500))
            .collect();
    }

    /// What the profile is about. `config` are those that the run will have.
    fn plan_theme(
        &mut self,
        config: &mut SimConfig,
        has_plot: bool,
        rng: &mut SimRng,
        (company, others): (&mut SimRng, &mut SimRng),
    ) {
        match self.profile {
            Profile::Byzantine if has_plot => {
                self.plan_plot(rng);
                self.make_busy(rng, (2, 12));
                config.remember_long(rng);
                self.plan_rounds(rng, config.timings.timeout, (2, 8));
            }
            Profile::Byzantine => {
                self.plan_lies(rng, config.faulty_max());
                if rng.chance(30) {
                    self.plan_straggler(rng);
                }
                self.plan_blame(others, config.auth);
                if rng.chance(50) {
                    config.donor.donor_bytes_per_second = 1 << 20;
                    config.donor.donor_bytes_per_second_serving = 1 << 20;
                    config.donor.donor_burst_bytes = 64 << 10;
                }
            }
            Profile::Crash | Profile::Epochs => {
                if rng.chance(30) {
                    // Leaders are not judged by their pace: only timers find out that one is gone.
                    config.timings.review_period = Duration::from_secs(3600);
                    config.timings.fairness = Duration::from_secs(3600);
                }
                if self.profile == Profile::Crash {
                    self.plan_few_lies(company);
                } else {
                    config.change_membership();
                    self.plan_changes(company);
                }
                let gone = self.plan_losses(rng, true);
                self.plan_outages(rng, &gone);
            }
            Profile::Disk => {
                self.plan_few_lies(company);
                let gone = self.plan_losses(rng, false);
                self.plan_outages(rng, &gone);
                self.plan_aftermath(&mut SimRng::new(self.seed.rotate_left(32) ^ 0xaf7e), &gone);
            }
            Profile::Twins => {
                let early = rng.pick(&[0, 1, 2, config.replicas - 1]);
                self.twin = Some(early);
                if rng.chance(50) {
                    self.make_busy(rng, (2, 12));
                    config.remember_long(rng);
                }
                self.plan_rounds(rng, config.timings.timeout, (1, 8));
            }
            Profile::Net | Profile::Clients | Profile::Scenes => {}
        }
    }

    /// How many hosts run replicas: one more than replicas if one runs twice.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.config.replicas + usize::from(self.twin.is_some())
    }

    /// The replica that a host runs.
    #[must_use]
    pub fn node_of(&self, host: usize) -> usize {
        match self.twin {
            Some(twin) if host == self.config.replicas => twin,
            _ => host,
        }
    }

    /// How long a message may be on its way because of a partition: what does not lose messages holds them.
    pub(super) fn held_for(&self) -> Duration {
        let held = self.faults.iter().filter_map(|(at, fault)| match fault {
            Fault::Partition { until, .. } if !self.network.partitions_lose => Some(until.since(*at)),
            _ => None,
        });
        held.max().unwrap_or(Duration::ZERO)
    }

    /// How long a leader that proposes just before the others lose patience may make clients wait beside: for one
    /// batch a timeout, in which there may be one operation, of faulty clients as well. Nobody has seen it do
    /// better.
    pub(super) fn kept_waiting(&self) -> Duration {
        let is_slow =
            |(_, lies): &(usize, Vec<ByzantineStrategy>)| lies.contains(&ByzantineStrategy::JustInTime);
        match self.liars.iter().any(is_slow) {
            true => self.config.timings.timeout * 2 * u32::try_from(self.operations).unwrap_or(u32::MAX),
            false => Duration::ZERO,
        }
    }

    /// Whether a host executes speculatively.
    #[must_use]
    pub fn speculates(&self, host: usize) -> bool {
        self.speculative.contains(&host)
    }

    /// Whether a host follows the protocol with a key that nobody else has.
    #[must_use]
    pub fn is_correct(&self, host: usize) -> bool {
        self.twin != Some(self.node_of(host)) && self.liars.iter().all(|(liar, _)| *liar != host)
    }
}

#[cfg(test)]
mod tests;
