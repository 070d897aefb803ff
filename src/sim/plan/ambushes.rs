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
    pub(super) fn plan_ambushes(&mut self, dice: &mut SimRng) {
        let is_open = matches!(self.profile, Profile::Byzantine | Profile::Crash | Profile::Disk);
        let plots = self
            .liars
            .iter()
            .any(|(_, lies)| lies.contains(&ByzantineStrategy::OmittingNewView));
        if !is_open || plots || !dice.chance(25) {
            return;
        }
        self.knobs.unordered = true;
        self.reads_installed = true;
        if self.profile == Profile::Disk {
            self.plan_wrong_state(dice);
        }
        // The fewer keys, the more is read of what was just written.
        let keys = self.keys.min(dice.between(1, 3));
        self.operations = self.operations / self.keys as usize * keys as usize;
        self.keys = keys;
        for _ in 0..dice.between(1, 4) {
            let from = self.moment(dice);
            let hosts = match self.profile {
                Profile::Byzantine => self.ambush_one(dice, from),
                _ => self.ambush_many(dice),
            };
            let later = match dice.chance(60) {
                true => Duration::ZERO,
                false => dice.micros(0, 2 * self.knobs.sync_us.1),
            };
            let hosts = hosts.into_iter().map(|host| (host, pause(dice))).collect();
            let reads = (0..dice.between(2, 6)).map(|_| soon(dice)).collect();
            self.ambushes.push(Ambush {
                from,
                later,
                hosts,
                reads,
            });
        }
        if self.profile == Profile::Byzantine {
            for (_, lies) in &mut self.liars {
                if dice.chance(70) {
                    lies.push(ByzantineStrategy::StaleReads);
                }
            }
        }
    }

    /// One of those that lose something may have a wrong state found out. The right one is older then, and
    /// its own log does not say what to execute on it.
    fn plan_wrong_state(&mut self, dice: &mut SimRng) {
        let is_wrong = |(_, fault): &(Time, Fault)| match fault {
            Fault::WrongState { host } => Some(*host),
            _ => None,
        };
        if let Some(host) = self.faults.iter().find_map(is_wrong) {
            self.keep_few_states(dice);
            let percent = dice.pick(&[50, 100]);
            self.faults
                .push((Time::START, Fault::UnreadableLog { host, percent }));
        }
    }

    /// One, some or all at once.
    fn ambush_many(&self, dice: &mut SimRng) -> Vec<usize> {
        let hosts = 0..self.knobs.replicas;
        match dice.below(4) {
            0 => vec![dice.below(self.knobs.replicas as u64) as usize],
            1 => hosts.filter(|_| dice.chance(60)).collect(),
            _ => hosts.collect(),
        }
    }

    /// A correct one. As many liars as may be answer with it, and another one that lags behind.
    fn ambush_one(&mut self, dice: &mut SimRng, from: Time) -> Vec<usize> {
        let correct: Vec<usize> = (0..self.knobs.replicas)
            .filter(|host| self.is_correct(*host))
            .collect();
        let host = dice.pick(&correct);
        let lags: Vec<usize> = correct.into_iter().filter(|other| *other != host).collect();
        let lagging = dice.pick(&lags);
        let since = dice.millis(0, 100);
        let at = Time::from_nanos(from.as_nanos().saturating_sub(since.as_nanos() as u64));
        let until = from.after(dice.millis(50, 400)).min(self.calm_from);
        let fault = Fault::Partition {
            from: vec![lagging],
            to: (0..self.knobs.replicas)
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
fn pause(dice: &mut SimRng) -> Duration {
    match dice.chance(70) {
        true => dice.micros(0, 2000),
        false => dice.millis(0, 300),
    }
}

/// Many come before what the others have to say.
fn soon(dice: &mut SimRng) -> Duration {
    match dice.below(10) {
        0..5 => Duration::ZERO,
        5..8 => dice.micros(0, 2000),
        _ => dice.millis(0, 100),
    }
}
