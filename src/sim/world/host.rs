use std::collections::BTreeMap;

use crate::sim::SimRng;
use crate::sim::byzantine::Liar;
use crate::sim::checker::{Answered, Budget, Charges, Donors, Efforts, VoteAudit};
use crate::sim::disk::DiskState;
use crate::sim::keys::CLUSTER;
use crate::sim::plan::Plan;
use crate::sim::replica::{Durable, SimReplica};
use crate::sim::stack::PartsMaker;
use crate::smr::protocol::Rejection;
use crate::smr::replica::Stack;
use crate::smr::types::{Lsn, NodeId, Time, UnixTime};

/// What a fault did to a disk while its host was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Tampering {
    /// Nothing: it holds what was acknowledged.
    None,
    /// A bit is another. The replica refuses to start, or repairs it.
    Rotten,
    /// What was acknowledged is gone, and nobody can see it on this disk.
    Forgetful,
    /// It is empty.
    Wiped,
}

/// A host's clock: what it shows at the start of the process, and how much too fast it is.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Clock {
    /// When the process started, in the world's time.
    pub origin: Time,
    /// What the clock showed then.
    pub offset: u64,
    /// Parts per million too fast.
    pub ppm: i64,
}

/// What every host's time of day starts from, about: some day in 2026.
const DAY: u64 = 1_780_000_000_000_000_000;

/// A host's time of day. It goes on while the host is down.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct DayClock {
    /// By how many nanoseconds it is ahead at the start.
    pub ahead: i64,
    /// Parts per million too fast.
    pub ppm: i64,
    /// Whether it is near enough to the world's.
    pub is_sound: bool,
}

impl DayClock {
    /// What it shows.
    pub(super) fn shows(self, now: Time) -> UnixTime {
        let passed = now.as_nanos() as i128;
        let drift = passed * i128::from(self.ppm) / 1_000_000;
        let shows = i128::from(DAY) + passed + drift + i128::from(self.ahead);
        UnixTime::from_nanos(u64::try_from(shows).unwrap_or(0))
    }
}

/// A machine with a replica on it.
pub(in crate::sim) struct Host<S: Stack> {
    pub node: NodeId,
    /// Follows the protocol, with a key that nobody else has, and remembers what it said.
    pub is_correct: bool,
    pub is_up: bool,
    /// The process that runs, or the one that ran last.
    pub sim: SimReplica<S>,
    /// What a restart begins with, while the host is down.
    pub(super) disk_state: Option<DiskState>,
    /// What was acknowledged before.
    pub(super) acknowledged: Lsn,
    pub(super) tampering: Tampering,
    /// When it comes back after a failed sync.
    pub(super) back: Option<Time>,
    /// How often the host lost power.
    pub(super) life: u64,
    /// A copy of the disk as it was some time ago.
    pub(super) copy: Option<DiskState>,
    pub(super) ledger: VoteAudit,
    pub(super) efforts: Efforts,
    pub(super) charges: Charges,
    pub(super) donors: Donors,
    pub(super) answered: Answered,
    pub(super) budget: Budget,
    /// Its state is wrong: what it answers and which checkpoints it takes says nothing about correct
    /// replicas.
    pub(super) is_wrong: bool,
    /// It was so at some time: others remember what it said of that state.
    pub(super) was_wrong: bool,
    pub(super) liar: Option<Liar>,
    pub(super) clock: Clock,
    pub(super) day: DayClock,
    pub(super) turn_at: Option<Time>,
    pub(super) durable: Durable,
    /// What goes on here, as of the last turn.
    pub(super) busy: u8,
    /// Until when a restart counts as going on.
    pub(super) fresh_until: Time,
    /// What its earlier lives counted.
    pub(super) past: BTreeMap<&'static str, u64>,
}

impl<S: Stack> Host<S> {
    /// The host at this place of a plan, with a new disk.
    pub(super) fn start(
        host: usize,
        plan: &Plan,
        parts: (&dyn PartsMaker<S>, bool),
        rng: &mut SimRng,
    ) -> Self {
        let config = &plan.config;
        let node = NodeId::new(plan.node_of(host) as u16);
        let lies = plan.liars.iter().find(|(liar, _)| *liar == host);
        let mut disk_state = DiskState::format(&format!("host {host}"), CLUSTER, node, rng.throw());
        let (sim, ..) = SimReplica::start(node, config, parts, &mut disk_state, rng.split())
            .expect("a directory that was just made is sound");
        let (offset, ppm) = plan.clocks.get(host).copied().unwrap_or((0, 0));
        Self {
            node,
            is_correct: plan.is_correct(host),
            is_up: true,
            sim,
            disk_state: None,
            acknowledged: Lsn::ZERO,
            tampering: Tampering::None,
            back: None,
            life: 0,
            copy: None,
            ledger: VoteAudit::new(node.index(), config).steady_from(plan.steady_from),
            efforts: Efforts::new(config),
            charges: Charges::new(config),
            donors: Donors::new(node.index(), config.replicas),
            answered: Answered::default(),
            budget: Budget::new(config),
            is_wrong: false,
            was_wrong: false,
            liar: lies.map(|(_, lies)| Liar::new(node, lies, config, rng.split())),
            clock: Clock {
                origin: Time::START,
                offset,
                ppm,
            },
            day: DayClock {
                ahead: plan.days.get(host).copied().unwrap_or(0),
                ppm,
                is_sound: plan.is_correct(host),
            },
            turn_at: None,
            durable: Durable::default(),
            busy: 0,
            fresh_until: Time::START,
            past: BTreeMap::new(),
        }
    }

    pub(super) fn local(&self, now: Time) -> Time {
        let Clock { origin, offset, ppm } = self.clock;
        let since = now.since(origin).as_nanos() as i128;
        let drift = since * i128::from(ppm) / 1_000_000;
        Time::from_nanos((since + drift) as u64 + offset)
    }

    /// A moment of the world at which the host's clock shows at least `local`.
    pub(super) fn world(&self, local: Time) -> Time {
        let Clock { origin, offset, ppm } = self.clock;
        let since = i128::from(local.as_nanos().saturating_sub(offset));
        let since = (since * 1_000_000 / i128::from(1_000_000 + ppm)) as u64 + 2;
        Time::from_nanos(origin.as_nanos() + since)
    }

    /// Adds up what the process counted, before it is gone.
    pub(super) fn counted(&self) -> BTreeMap<&'static str, u64> {
        let mut counted = self.past.clone();
        let counters = self.sim.replica().counters();
        for (name, count) in [
            ("decision transferred", counters.decisions_transferred),
            ("unreadable decision sent by a peer", counters.decisions_repaired),
            ("state transferred", counters.states_transferred),
            ("piece taken out of an own snapshot", counters.pieces_reused),
            ("frames beyond a peer's allowance", self.sim.over_budget),
            ("frame crowded out by a lower one", counters.frames_crowded_out),
            ("waiting frame passed on again", counters.frames_urged),
            ("signature asked for a waiting frame", counters.proofs_asked),
            ("read refused", self.sim.reads_refused),
            (
                "read refused by a replica that catches up",
                self.sim.reads_unanswered(),
            ),
            (
                "proposal from another time refused",
                counters.rejected[Rejection::ClockOutOfBounds.index()],
            ),
            (
                "words beyond a peer's allowance",
                counters.rejected[Rejection::OverBudget.index()],
            ),
        ] {
            *counted.entry(name).or_default() += count;
        }
        for (name, count) in &self.sim.disk.hits {
            *counted.entry(name).or_default() += count;
        }
        counted
    }
}
