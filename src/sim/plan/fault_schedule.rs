//! The faults of a run: who lies and how, what is cut off, lost, slow or full, and when.

use std::time::Duration;

use super::{Fault, Plan, Profile, SimConfig};
use crate::runtime::config::ClientTuning;
use crate::sim::SimRng;
use crate::sim::byzantine::ByzantineStrategy;
use crate::sim::clients::FaultyClient;
use crate::sim::network::NetworkProfile;
use crate::smr::execution::StateRule;
use crate::smr::preprocessing::ClientAuth;
use crate::smr::types::Time;
use crate::smr::view_transfer::pbft::ViewTimings;

/// So long after the network has healed every view change has come to its end.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// How far the times of day of correct replicas are from the world's at most, when it begins. An hour at five
/// hundred millionths too fast or too slow adds two seconds: any two are within the bound still.
const CLOCK_SPREAD: Duration = Duration::from_millis(2500);

impl Plan {
    /// At least one replica lies, and at most so many; clients with them.
    pub(super) fn plan_lies(&mut self, rng: &mut SimRng, most: usize) {
        let most = most as u64;
        let colludes = most > 1 && rng.chance(25);
        let count = if colludes { most } else { rng.between(1, most) };
        let mut candidates: Vec<usize> = (0..self.config.replicas).collect();
        // The first leader lies in half of the runs, the second in a quarter: leaders have more to lie about.
        let first = rng.pick(&[Some(0), Some(0), Some(1), None]);
        for index in 0..count {
            let place = match (index, first) {
                (0, Some(first)) => first,
                _ => rng.below(candidates.len() as u64) as usize,
            };
            let lies = match colludes {
                true => vec![ByzantineStrategy::Collude],
                false => (0..rng.between(1, 3))
                    .map(|_| rng.pick(&ByzantineStrategy::PICKED))
                    .collect(),
            };
            self.liars.push((candidates.swap_remove(place), lies));
        }
        let faulty_clients = rng.pick(&[0, 0, 1, 2]);
        self.faulty_clients = (0..faulty_clients)
            .map(|_| rng.pick(&FaultyClient::ALL))
            .collect();
    }

    /// In some of the runs about crashes and disks some of those that may be faulty lie. What they leave of f
    /// may be lost.
    pub(super) fn plan_few_lies(&mut self, rng: &mut SimRng) {
        if rng.chance(30) {
            let most = rng.between(1, self.config.faulty_max() as u64) as usize;
            self.plan_lies(rng, most);
        }
    }

    /// With MACs, in some runs one of the liars has clients blamed, beside its other lies.
    pub(super) fn plan_blame(&mut self, rng: &mut SimRng, auth: ClientAuth) {
        if rng.chance(30) && auth == ClientAuth::Mac && !self.liars.is_empty() {
            let liar = rng.below(self.liars.len() as u64) as usize;
            let lie = rng.pick(&[
                ByzantineStrategy::SpoilMacs,
                ByzantineStrategy::SpoilMacs,
                ByzantineStrategy::FalseBlame,
            ]);
            self.liars[liar].1.push(lie);
        }
    }

    /// Everything is in order but some clients, and so long that every patience would have ended.
    pub(super) fn plan_faulty_clients(&mut self, rng: &mut SimRng, config: &mut SimConfig) {
        self.network = NetworkProfile {
            delay_us: rng.pick(&[(20, 100), (100, 3000)]),
            ..NetworkProfile::calm()
        };
        let faulty_clients = rng.between(1, 4);
        self.faulty_clients = (0..faulty_clients)
            .map(|_| rng.pick(&FaultyClient::BLAMELESS))
            .collect();
        self.steady_from = Some(Time::START);
        self.views_max = Some(config.replicas as u64);
        if config.auth == ClientAuth::Mac && rng.chance(30) {
            // It costs views, and no more than one each time it has signed for a while, or two: the next
            // leader may not have heard of it.
            self.faulty_clients[0] = FaultyClient::BadMacs;
            config.must_sign_for = Duration::from_secs(120);
            self.steady_from = None;
        }
        config.faulty_clients = self.faulty_clients.len();
        config.timings.fairness = config.timings.timeout + rng.millis(500, 3000);
        self.busy_until = Time::START.after(rng.millis(5000, 20_000));
        self.calm_from = self.busy_until;
        self.speculative = (0..self.hosts()).filter(|_| rng.chance(40)).collect();
        if self.faulty_clients.contains(&FaultyClient::QuotaGame) && rng.chance(60) {
            // The leader has never ordered all that a client has pending before there is more.
            config.limits.batch_frames_max = 1;
            config.pipeline = rng.between(1, 2) as usize;
            config.sync_us = (1000, 12_000);
        }
    }

    /// In some runs one of the liars floods the others, beside its other lies.
    pub(super) fn plan_flood(&mut self, rng: &mut SimRng) {
        if rng.chance(30) && !self.liars.is_empty() {
            let liar = rng.below(self.liars.len() as u64) as usize;
            self.liars[liar].1.push(ByzantineStrategy::Flood);
        }
        if rng.chance(15) && !self.liars.is_empty() {
            let liar = rng.below(self.liars.len() as u64) as usize;
            self.liars[liar].1.push(ByzantineStrategy::ReplayReplies);
        }
    }

    /// In some runs one of the liars lies about nothing that agreement covers, but about what is counted and
    /// kept; early leaders mostly. Bytes then bring checkpoints about, not decisions alone.
    pub(super) fn plan_waste(&mut self, rng: &mut SimRng) {
        if self.liars.is_empty() || !rng.chance(30) {
            return;
        }
        let lie = rng.pick(&ByzantineStrategy::OF_BYTES);
        let early = rng.pick(&[0, 0, 1]);
        let liar = self.liars.iter_mut().min_by_key(|(host, _)| host.abs_diff(early));
        if let Some((_, lies)) = liar {
            match rng.chance(70) {
                true => *lies = vec![lie],
                false => lies.push(lie),
            }
        }
        if lie == ByzantineStrategy::Pad || rng.chance(50) {
            self.config.checkpoint_bytes = rng.pick(&[1500, 4000, 12_000]);
        }
        match lie {
            ByzantineStrategy::Pad if self.faulty_clients.is_empty() && rng.chance(80) => {
                self.faulty_clients =
                    vec![rng.pick(&[FaultyClient::Replay, FaultyClient::Replay, FaultyClient::Flood])];
                self.config.faulty_clients = self.faulty_clients.len();
            }
            ByzantineStrategy::Bloat => {
                // There is much to fill, and little that may be filled.
                self.config.limits.batch_frames_max = 64;
                self.config.undecided_bytes_max = 4 * self.config.limits.batch_bytes_max;
                self.config.window = self.config.window.max(48);
            }
            _ => {}
        }
    }

    /// Correct replicas do not have the same time of day; in some runs a liar's clock shows another day, and in
    /// some an early leader proposes whatever times it likes.
    pub(super) fn plan_times(&mut self, rng: &mut SimRng) {
        let spread = CLOCK_SPREAD.as_nanos() as u64;
        self.days = (0..self.hosts())
            .map(|_| rng.between(0, 2 * spread) as i64 - spread as i64)
            .collect();
        if self.liars.is_empty() {
            return;
        }
        if rng.chance(15) {
            let liars: Vec<usize> = self.liars.iter().map(|(host, _)| *host).collect();
            let host = rng.pick(&liars);
            let far = rng.millis(60_000, 86_400_000).as_nanos() as i64;
            self.days[host] = if rng.chance(50) { far } else { -far };
        }
        if rng.chance(20) {
            let early = rng.pick(&[0, 0, 1]);
            let liar = self.liars.iter_mut().min_by_key(|(host, _)| host.abs_diff(early));
            if let Some((_, lies)) = liar {
                match rng.chance(70) {
                    true => *lies = vec![ByzantineStrategy::FalseTimes],
                    false => lies.push(ByzantineStrategy::FalseTimes),
                }
            }
        }
    }

    /// Up to f replicas lie about what was prepared whenever a leader is replaced, and early leaders are
    /// among them.
    pub(super) fn plan_plot(&mut self, rng: &mut SimRng) {
        let mut candidates: Vec<usize> = (0..self.config.replicas).collect();
        for _ in 0..self.config.faulty_max() {
            let place = rng.pick(&[0, 1, 1, 1, 2]);
            let both = &ByzantineStrategy::OF_VIEWS[..];
            let long = &ByzantineStrategy::OF_VIEWS_AT_LENGTH[..];
            let mut lies = rng
                .pick(&[both, both, both, &both[..1], &both[1..], long, &long[..1]])
                .to_vec();
            if rng.chance(25) {
                lies.push(rng.pick(&ByzantineStrategy::PICKED));
            }
            self.liars.push((candidates.swap_remove(place), lies));
        }
    }

    /// A correct replica is cut off for most of the run: what it lacks then comes from others, liars among
    /// them.
    pub(super) fn plan_straggler(&mut self, rng: &mut SimRng) {
        let correct: Vec<usize> = (0..self.config.replicas)
            .filter(|host| self.is_correct(*host))
            .collect();
        for (_, lies) in &mut self.liars {
            if rng.chance(60) && *lies != [ByzantineStrategy::Collude] {
                lies.push(rng.pick(&[
                    ByzantineStrategy::FalseTransfers,
                    ByzantineStrategy::InventedState,
                ]));
            }
        }
        let straggler = rng.pick(&correct);
        let sides = (0..self.config.replicas).partition(|host| *host == straggler);
        let at = Time::from_nanos(self.busy_until.as_nanos() / rng.between(4, 20));
        let until = Time::from_nanos(self.busy_until.as_nanos() / 10 * rng.between(5, 9));
        self.cut(at, until, sides, true);
    }

    /// Operations come all the time while so many timeouts pass, twice as many as else.
    pub(super) fn make_busy(&mut self, rng: &mut SimRng, timeouts: (u64, u64)) {
        let busy = self.config.timings.timeout * rng.between(timeouts.0, timeouts.1) as u32;
        self.busy_until = Time::START.after(busy);
        self.calm_from = self.busy_until;
        self.operations *= 2;
    }

    /// Up to f replicas, less those that lie, are lost, at some moment: they crash for good, or their disks
    /// forget or rot.
    pub(super) fn plan_losses(&mut self, rng: &mut SimRng, only_crashes: bool) -> Vec<usize> {
        let most = (self.config.faulty_max() - self.liars.len()) as u64;
        let count = match only_crashes {
            true => rng.pick(&[0, 0, 1.min(most), most]),
            false => rng.between(1.min(most), most),
        };
        let mut candidates: Vec<usize> = (0..self.config.replicas)
            .filter(|host| self.is_correct(*host))
            .collect();
        let mut lost = Vec::new();
        for index in 0..count {
            // The first leader often, and its successor with it: view changes that fail.
            let place = match rng.chance(50) {
                true => (index as usize).min(candidates.len() - 1),
                false => rng.below(candidates.len() as u64) as usize,
            };
            let host = candidates.swap_remove(place);
            lost.push(host);
            let at = self.moment(rng);
            let back = self.spell(rng, at);
            let kind = if only_crashes {
                rng.below(2)
            } else {
                rng.between(1, 6)
            };
            let fault = match kind {
                0 => Fault::Crash { host, back: None },
                1 => Fault::FailedSync { host, back: None },
                2 => Fault::Wipe { host, back },
                3 => {
                    let copied = Time::from_nanos(rng.below(at.as_nanos()));
                    self.faults.push((copied, Fault::CopyDisk { host }));
                    Fault::RollBack { host, back }
                }
                _ => Fault::Rot { host, back },
            };
            self.faults.push((at, fault));
        }
        lost
    }

    /// Some of the disks that would rot belong to hosts whose state goes wrong instead, or lose all, or a
    /// part of the log that votes are in. Whoever lost something may lose power again while it comes back,
    /// just when it is there, or later.
    pub(super) fn plan_aftermath(&mut self, rng: &mut SimRng, lost: &[usize]) {
        let (mut later, mut forgetful) = (Vec::new(), Vec::new());
        for (at, fault) in &mut self.faults {
            if let Fault::Rot { host, back } = *fault {
                *fault = match rng.below(10) {
                    0..3 => Fault::WrongState { host },
                    3..6 => Fault::RotLog { host, back },
                    6 => Fault::Wipe { host, back },
                    _ => Fault::Rot { host, back },
                };
            }
            let host = match *fault {
                Fault::RotLog { host, back } | Fault::Wipe { host, back } => {
                    forgetful.push((*at, host, back));
                    host
                }
                Fault::WrongState { host } | Fault::Rot { host, .. } | Fault::RollBack { host, .. } => host,
                _ => continue,
            };
            if lost.contains(&host) && rng.chance(50) {
                later.push((*at, host));
            }
        }
        for (at, host, back) in forgetful {
            self.plan_forgetting(rng, at, host, back);
        }
        for (from, host) in later {
            for _ in 0..rng.between(0, 2) {
                let pause = rng.millis(1, 300);
                self.relapses.push((host, pause));
            }
            let mut at = from;
            for _ in 0..rng.between(0, 3) {
                let left = self.busy_until.since(at).as_millis() as u64;
                at = at.after(rng.millis(1, left.max(2)));
                let back = Some(at.after(rng.millis(1, 300)).min(self.calm_from));
                self.faults.push((at, Fault::Crash { host, back }));
            }
        }
    }

    /// What a host forgets matters most if it said it to nobody else, or if those that it hears of first
    /// afterwards know least.
    fn plan_forgetting(&mut self, rng: &mut SimRng, at: Time, host: usize, back: Time) {
        let timeouts = |count: u64| self.config.timings.timeout * count as u32;
        let before = |long: Duration| Time::from_nanos(at.as_nanos().saturating_sub(long.as_nanos() as u64));
        match rng.below(3) {
            0 => {
                // It asks for a view that nobody else asks for.
                let from = before(timeouts(rng.between(2, 6)));
                let sides = (0..self.config.replicas).partition(|other| *other == host);
                self.cut(from, at, sides, true);
            }
            1 => {
                let straggler =
                    (host + rng.between(1, self.config.replicas as u64 - 1) as usize) % self.config.replicas;
                let from = match rng.chance(50) {
                    true => Time::START,
                    false => before(timeouts(rng.between(2, 20))),
                };
                let sides = (0..self.config.replicas).partition(|other| *other == straggler);
                self.cut(from, back, sides, true);
                let until = back
                    .after(2 * self.config.timings.status_period)
                    .min(self.calm_from);
                let few = [host, straggler];
                let sides = (0..self.config.replicas).partition(|other| few.contains(other));
                self.cut(back, until, sides, true);
            }
            _ => {}
        }
    }

    /// Hosts crash and come back: one, some or all at once, now and then one again and again.
    pub(super) fn plan_outages(&mut self, rng: &mut SimRng, gone: &[usize]) {
        let hosts: Vec<usize> = (0..self.config.replicas)
            .filter(|host| !gone.contains(host))
            .collect();
        for _ in 0..rng.between(1, 4) {
            let at = self.moment(rng);
            let share = rng.pick(&[20, 20, 50, 100]);
            let one = rng.below(hosts.len() as u64) as usize;
            let is_one = rng.chance(40);
            for (place, host) in hosts.iter().copied().enumerate() {
                if (is_one && place != one) || (!is_one && !rng.chance(share)) {
                    continue;
                }
                let at = match rng.chance(50) {
                    true => at,
                    false => at.after(rng.micros(0, 20_000)).min(self.calm_from),
                };
                let back = Some(self.outage_end(rng, at));
                let fault = match rng.chance(85) {
                    true => Fault::Crash { host, back },
                    false => Fault::FailedSync { host, back },
                };
                self.faults.push((at, fault));
            }
        }
        if rng.chance(40) {
            let host = rng.pick(&hosts);
            let mut at = self.moment(rng);
            if rng.chance(50) {
                // So long that it lacks a state when it comes back.
                let back = self.spell(rng, at);
                let back_at = Some(back);
                self.faults.push((at, Fault::Crash { host, back: back_at }));
                at = back.after(rng.millis(1, 200)).min(self.calm_from);
            }
            for _ in 0..rng.between(2, 8) {
                let back = Some(at.after(rng.millis(1, 100)).min(self.calm_from));
                self.faults.push((at, Fault::Crash { host, back }));
                at = at.after(rng.millis(2, 600)).min(self.calm_from);
            }
        }
    }

    /// Most outages are short.
    fn outage_end(&self, rng: &mut SimRng, at: Time) -> Time {
        match rng.chance(60) {
            true => at.after(rng.millis(0, 400)).min(self.calm_from),
            false => self.spell(rng, at),
        }
    }

    /// A moment while clients are busy.
    pub(super) fn moment(&self, rng: &mut SimRng) -> Time {
        Time::from_nanos(rng.below(self.busy_until.as_nanos()))
    }

    /// How long a fault that heals lasts.
    fn spell(&self, rng: &mut SimRng, at: Time) -> Time {
        let most = (self.busy_until.as_nanos() / 3_000_000).clamp(1500, 30_000);
        at.after(rng.millis(1, most)).min(self.calm_from)
    }

    /// Rounds of partitions, each about as long as a leader is given: now one splits the hosts anew, now one
    /// cuts off no more than may be faulty, so that the others go on, now one lets messages reach few. So
    /// leaders fail one after the other, and leave at the same places what only some have prepared.
    pub(super) fn plan_rounds(&mut self, rng: &mut SimRng, timeout: Duration, rounds: (u64, u64)) {
        let hosts = self.hosts();
        let mut at = Time::START.after(rng.millis(0, 200));
        let mut few: Vec<usize> = Vec::new();
        for _ in 0..rng.between(rounds.0, rounds.1) {
            let long = timeout.mul_f64(rng.between(5, 25) as f64 / 10.0);
            let until = at.after(long).min(self.calm_from);
            if few.is_empty() || rng.chance(50) {
                few = self.few_correct(rng);
            }
            let is_few = |host: &usize| few.contains(host);
            match rng.below(5) {
                0 => {
                    let (from, to) = (0..hosts).partition(is_few);
                    self.cut(at, until, (from, to), true);
                }
                1 | 2 => {
                    // What is under way to the others is lost: only these learn of it, and are cut off with
                    // it at once.
                    let heard = at.after(rng.micros(200, long.as_micros() as u64 / 4));
                    let others = (0..hosts).filter(|host| !few.contains(host)).collect();
                    self.cut(at, until.min(heard), ((0..hosts).collect(), others), false);
                    let (from, to) = (0..hosts).partition(is_few);
                    self.cut(until.min(heard), until, (from, to), true);
                    if rng.chance(50) {
                        // And others after them.
                        few = self.few_correct(rng);
                    }
                }
                _ => self.split(rng, at, until),
            }
            at = until;
        }
    }

    /// As many correct hosts as may be faulty.
    fn few_correct(&self, rng: &mut SimRng) -> Vec<usize> {
        let mut correct: Vec<usize> = (0..self.hosts()).filter(|host| self.is_correct(*host)).collect();
        let count = rng.between(1, self.config.faulty_max() as u64) as usize;
        while correct.len() > count {
            correct.swap_remove(rng.below(correct.len() as u64) as usize);
        }
        correct
    }

    fn split(&mut self, rng: &mut SimRng, at: Time, until: Time) {
        let hosts = self.hosts();
        let sets = rng.between(2, 3);
        let side: Vec<u64> = (0..hosts).map(|_| rng.below(sets)).collect();
        for set in 0..sets {
            let inside = |host: &usize| side[*host] == set;
            let sides = (0..hosts).filter(|host| side[*host] >= set).partition(inside);
            let both = rng.chance(85);
            self.cut(at, until, sides, both);
        }
    }

    /// Has a partition between these hosts and those last from one moment until another.
    pub(super) fn cut(&mut self, at: Time, until: Time, (from, to): (Vec<usize>, Vec<usize>), both: bool) {
        let fault = Fault::Partition {
            from,
            to,
            both,
            until,
        };
        self.faults.push((at, fault));
    }

    pub(super) fn plan_partitions(&mut self, rng: &mut SimRng) {
        let hosts = self.hosts();
        for _ in 0..rng.pick(&[0, 0, 1, 2, 3, 6]) {
            let at = self.moment(rng);
            let until = self.spell(rng, at);
            let sides = (0..hosts).partition(|_| rng.chance(50));
            let both = rng.chance(60);
            self.cut(at, until, sides, both);
        }
        if rng.chance(20) {
            let (host, by) = (rng.below(hosts as u64) as usize, rng.millis(1, 60));
            self.faults.push((Time::START, Fault::SlowLink { host, by }));
        }
    }

    /// Now and then all disks are full at once, for long.
    pub(super) fn plan_full_disks(&mut self, rng: &mut SimRng) {
        if self.profile != Profile::Disk || !rng.chance(15) {
            return;
        }
        let at = self.moment(rng);
        let until = at.after(rng.millis(5000, 40_000)).min(self.calm_from);
        for host in 0..self.config.replicas {
            self.faults.push((at, Fault::FullDisk { host, until }));
        }
    }

    /// Some disks do not give back what was logged, when it is read beside the writing: as many as may be
    /// faulty. Memory holds nothing that the log has, and states are few: whoever gets one has much to read.
    pub(super) fn plan_unreadable_logs(&mut self, rng: &mut SimRng) {
        let has_disks = !matches!(self.profile, Profile::Net | Profile::Twins);
        if !has_disks || !rng.chance(30) {
            return;
        }
        self.keep_few_states(rng);
        let percent = rng.pick(&[10, 50, 100]);
        if self.profile == Profile::Byzantine && self.straggler().is_none() {
            self.plan_straggler(rng);
        }
        let mut hosts = self.few_correct(rng);
        if let (Some(host), Some(straggler)) = (hosts.first_mut(), self.straggler()) {
            *host = straggler;
        }
        for host in hosts {
            self.faults
                .push((Time::START, Fault::UnreadableLog { host, percent }));
            if self.profile != Profile::Byzantine {
                let at = self.moment(rng);
                let back = self.spell(rng, at);
                self.faults.push((
                    at,
                    Fault::Crash {
                        host,
                        back: Some(back),
                    },
                ));
                if rng.chance(50) {
                    // What comes of a state, and of what is decided meanwhile, is long on its way to the
                    // disk.
                    let until = self.spell(rng, back);
                    let factor = rng.pick(&[10, 100]);
                    self.faults.push((back, Fault::SlowDisk { host, factor, until }));
                }
            }
        }
    }

    /// Memory holds nothing that the log has, and few checkpoints include the state.
    pub(super) fn keep_few_states(&mut self, rng: &mut SimRng) {
        let periods = rng.pick(&[2, 3, 5]);
        self.config.state_rule = StateRule {
            small_bytes: 0,
            factor: u64::MAX,
            log_bytes_max: periods * self.config.checkpoint_decisions * StateRule::DECISION_BYTES,
        };
        (self.config.kept_bytes, self.config.kept_for_peers) = (0, 0);
    }

    /// A correct host that is cut off from all others at some time.
    fn straggler(&self) -> Option<usize> {
        self.faults.iter().find_map(|(_, fault)| match fault {
            Fault::Partition { from, both: true, .. } if from.len() == 1 => {
                from.first().copied().filter(|host| self.is_correct(*host))
            }
            _ => None,
        })
    }

    /// Where nothing but the network is at fault, and links are short, some runs have a client that reaches
    /// no more than f+1 replicas once all else has healed; no leader is replaced because of it.
    pub(super) fn plan_steady(&mut self, rng: &mut SimRng) {
        let is_far = self.network.delay_us.1 > 3000;
        let is_slow = |(_, fault): &(Time, Fault)| matches!(fault, Fault::SlowLink { .. });
        if self.profile != Profile::Net
            || self.config.unordered
            || is_far
            || self.faults.iter().any(is_slow)
            || !rng.chance(50)
        {
            return;
        }
        let mut hosts: Vec<usize> = (0..self.config.replicas).collect();
        for _ in 0..=self.config.faulty_max() {
            hosts.swap_remove(rng.below(hosts.len() as u64) as usize);
        }
        self.dead_links = hosts.into_iter().map(|host| (0, host)).collect();
        self.steady_from = Some(self.calm_from.after(STEADY_AFTER));
    }

    /// Clients whose identity several processes use, at once or one after the other.
    pub(super) fn plan_processes(&mut self, rng: &mut SimRng) {
        let clients = self.config.honest_clients as u64;
        if rng.chance(40) {
            let more = rng.between(1, 2);
            self.more_processes = (0..more).map(|_| rng.below(clients) as u32).collect();
        }
        if rng.chance(40) {
            let processes = clients + self.more_processes.len() as u64;
            for _ in 0..rng.between(1, 4) {
                let (at, process) = (self.moment(rng), rng.below(processes) as usize);
                self.faults.push((at, Fault::RestartClient { process }));
            }
        }
    }

    /// In a few runs all is in order, but replicas are so far apart that each decision takes longer than
    /// leaders are given at first. That is learnt by replacing a few.
    pub(super) fn plan_far(&mut self, rng: &mut SimRng) {
        if self.profile == Profile::Net && !self.config.is_large() && rng.chance(4) {
            self.move_apart(rng);
        }
    }

    /// All is in order, and a message takes a third of a second; timeouts are those of production. Clients
    /// ask all the time, and what they ask waits for what was proposed before: three messages, one after the
    /// other, are more than a leader is given at first.
    pub(in crate::sim) fn move_apart(&mut self, rng: &mut SimRng) {
        self.network = NetworkProfile {
            delay_us: (310_000, 370_000),
            ..NetworkProfile::calm()
        };
        (self.faults, self.dead_links, self.more_processes) = Default::default();
        let config = &mut self.config;
        config.timings = ViewTimings::default();
        config.retransmit = Duration::from_millis(ClientTuning::default().retransmit_timeout_ms);
        (config.auth, config.frames_in_flight) = (ClientAuth::Signature, 16);
        (config.pipeline, config.limits.batch_frames_max) = (rng.pick(&[1, 1, 2]), 64);
        let seconds = rng.between(60, 90);
        (self.operations, self.keys) = (4 * seconds as usize, seconds / 2);
        self.busy_until = Time::START.after(Duration::from_secs(seconds));
        self.calm_from = self.busy_until;
        // Each doubles what leaders are given, and what was learnt is kept.
        self.steady_from = None;
        self.views_max = Some(self.config.replicas as u64);
    }

    pub(super) fn plan_clocks_and_disks(&mut self, rng: &mut SimRng) {
        let hosts = self.hosts() as u64;
        if rng.chance(25) {
            for _ in 0..rng.between(1, 3) {
                let (at, host) = (self.moment(rng), rng.below(hosts) as usize);
                let by = rng.millis(1, 20_000);
                self.faults.push((at, Fault::ClockJump { host, by }));
            }
        }
        if matches!(self.profile, Profile::Crash | Profile::Disk) || rng.chance(10) {
            for _ in 0..rng.between(0, 2) {
                let (at, host) = (self.moment(rng), rng.below(hosts) as usize);
                let until = self.spell(rng, at);
                let factor = rng.pick(&[10, 100]);
                self.faults.push((at, Fault::SlowDisk { host, factor, until }));
            }
            for _ in 0..rng.between(0, 2) {
                let (at, host) = (self.moment(rng), rng.below(hosts) as usize);
                let until = self.spell(rng, at);
                self.faults.push((at, Fault::FullDisk { host, until }));
            }
        }
    }
}

pub(super) fn network_profile(rng: &mut SimRng) -> NetworkProfile {
    // Now and then between continents.
    let usual = [(20, 100), (100, 3000), (5000, 40_000)];
    let delay_us = match rng.chance(7) {
        true => (150_000, 220_000),
        false => rng.pick(&usual),
    };
    let loses = rng.chance(25);
    NetworkProfile {
        delay_us,
        late_percent: rng.pick(&[0, 1, 10]),
        late_ms: rng.between(1, 500),
        doubled_percent: rng.pick(&[0, 2, 20]),
        replica_loss_percent: if loses { rng.between(1, 15) } else { 0 },
        client_loss_percent: rng.pick(&[0, 0, 2, 20]),
        in_order: rng.chance(50),
        partitions_lose: loses,
    }
}
