//! Losses of power at the moment that matters most to reads: just after a client was told that its write is
//! done.

use std::time::Duration;

use super::{Fault, Plan, Profile};
use crate::sim::SimRng;
use crate::sim::byzantine::ByzantineStrategy;
use crate::smr::types::Time;

/// Hosts that lose power just after a client learns that what it wrote is done; and reads of it as soon as
/// they are back.
#[derive(Debug, Clone)]
pub struct Ambush {
    /// The first such moment from then on.
    pub from: Time,
    /// So much later.
    pub later: Duration,
    /// The hosts, and how long each is down.
    pub hosts: Vec<(usize, Duration)>,
    /// So long after the last one is back clients read.
    pub reads: Vec<Duration>,
}

impl Plan {
    /// In some runs with hosts that crash, or with liars, reads are answered beside the order and hosts lose
    /// power just after an acknowledgement.
    pub(super) fn plan_ambushes(&mut self, rng: &mut SimRng) {
        let is_open = matches!(self.profile, Profile::Byzantine | Profile::Crash | Profile::Disk);
        let plots = self
            .liars
            .iter()
            .any(|(_, lies)| lies.contains(&ByzantineStrategy::OmittingNewView));
        if !is_open || plots || !rng.chance(25) {
            return;
        }
        self.config.unordered = true;
        self.reads_installed = true;
        if self.profile == Profile::Disk {
            self.plan_wrong_state(rng);
        }
        // The fewer keys, the more is read of what was just written.
        let keys = self.keys.min(rng.between(1, 3));
        self.operations = self.operations / self.keys as usize * keys as usize;
        self.keys = keys;
        for _ in 0..rng.between(1, 4) {
            let from = self.moment(rng);
            let hosts = match self.profile {
                Profile::Byzantine => self.ambush_one(rng, from),
                _ => self.ambush_many(rng),
            };
            let later = match rng.chance(60) {
                true => Duration::ZERO,
                false => rng.micros(0, 2 * self.config.sync_us.1),
            };
            let hosts = hosts.into_iter().map(|host| (host, pause(rng))).collect();
            let reads = (0..rng.between(2, 6)).map(|_| soon(rng)).collect();
            self.ambushes.push(Ambush {
                from,
                later,
                hosts,
                reads,
            });
        }
        if self.profile == Profile::Byzantine {
            for (_, lies) in &mut self.liars {
                if rng.chance(70) {
                    lies.push(ByzantineStrategy::StaleReads);
                }
            }
        }
    }

    /// One of those that lose something may have a wrong state found out. The right one is older then, and
    /// its own log does not say what to execute on it.
    fn plan_wrong_state(&mut self, rng: &mut SimRng) {
        let is_wrong = |(_, fault): &(Time, Fault)| match fault {
            Fault::WrongState { host } => Some(*host),
            _ => None,
        };
        if let Some(host) = self.faults.iter().find_map(is_wrong) {
            self.keep_few_states(rng);
            let percent = rng.pick(&[50, 100]);
            self.faults
                .push((Time::START, Fault::UnreadableLog { host, percent }));
        }
    }

    /// One, some or all at once.
    fn ambush_many(&self, rng: &mut SimRng) -> Vec<usize> {
        let hosts = 0..self.config.replicas;
        match rng.below(4) {
            0 => vec![rng.below(self.config.replicas as u64) as usize],
            1 => hosts.filter(|_| rng.chance(60)).collect(),
            _ => hosts.collect(),
        }
    }

    /// A correct one. As many liars as may be answer with it, and another one that lags behind.
    fn ambush_one(&mut self, rng: &mut SimRng, from: Time) -> Vec<usize> {
        let correct: Vec<usize> = (0..self.config.replicas)
            .filter(|host| self.is_correct(*host))
            .collect();
        let host = rng.pick(&correct);
        let lags: Vec<usize> = correct.into_iter().filter(|other| *other != host).collect();
        let lagging = rng.pick(&lags);
        let since = rng.millis(0, 100);
        let at = Time::from_nanos(from.as_nanos().saturating_sub(since.as_nanos() as u64));
        let until = from.after(rng.millis(50, 400)).min(self.calm_from);
        let fault = Fault::Partition {
            from: vec![lagging],
            to: (0..self.config.replicas)
                .filter(|other| *other != lagging)
                .collect(),
            both: true,
            until,
        };
        self.faults.push((at, fault));
        vec![host]
    }
}

/// Most are back at once.
fn pause(rng: &mut SimRng) -> Duration {
    match rng.chance(70) {
        true => rng.micros(0, 2000),
        false => rng.millis(0, 300),
    }
}

/// Many come before what the others have to say.
fn soon(rng: &mut SimRng) -> Duration {
    match rng.below(10) {
        0..5 => Duration::ZERO,
        5..8 => rng.micros(0, 2000),
        _ => rng.millis(0, 100),
    }
}
