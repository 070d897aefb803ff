//! When operators ask for changes of the membership.

use std::time::Duration;

use super::{Fault, Plan, SimConfig};
use crate::sim::SimRng;
use crate::sim::network::MessageKind;
use crate::smr::types::Time;

/// The longest request that is made here, with what a frame has around it.
const REQUEST_BYTES: usize = 2048;

impl SimConfig {
    /// The membership changes.
    pub(super) fn change_membership(&mut self) {
        self.has_epochs = true;
        let limits = &mut self.limits;
        limits.frame_bytes_max = limits.frame_bytes_max.max(2 * REQUEST_BYTES);
        limits.batch_bytes_max = limits.batch_bytes_max.max(limits.frame_bytes_max);
        self.pool.bytes_per_client = self.pool.bytes_per_client.max(2 * limits.frame_bytes_max);
        self.pool.bytes_max = self.pool.bytes_max.max(4 * limits.frame_bytes_max);
        self.undecided_bytes_max = self.undecided_bytes_max.max(4 * limits.batch_bytes_max);
    }
}

impl Plan {
    /// A few changes while clients are busy; some at one moment, as two operators ask for them.
    pub(super) fn plan_changes(&mut self, rng: &mut SimRng) {
        for _ in 0..rng.between(1, 4) {
            let at = Time::from_nanos(rng.below(self.busy_until.as_nanos()));
            self.changes.push(at);
            if rng.chance(25) {
                self.changes
                    .push(at.after(Duration::from_micros(rng.below(2000))));
            }
        }
        match rng.below(10) {
            0 => self.plan_delayed_end(rng),
            1 => self.plan_end_without_room(rng),
            _ => {}
        }
    }

    /// What is said about epochs is lost for a while, so that one stays closed; meanwhile all lose power, with logs
    /// that were cut where it ends.
    fn plan_delayed_end(&mut self, rng: &mut SimRng) {
        let all: Vec<usize> = (0..self.config.replicas).collect();
        let at = Time::from_nanos(rng.below(self.busy_until.as_nanos() / 2 + 1));
        let (outage, until) = (at.after(rng.millis(100, 400)), at.after(rng.millis(500, 900)));
        self.changes.push(at);
        let lost = Fault::Lost {
            kind: MessageKind::Reconfiguration,
            from: all.clone(),
            to: all.clone(),
            until,
        };
        self.faults.push((at, lost));
        for host in all {
            let back = Some(outage.after(rng.millis(1, 50)));
            self.faults.push((outage, Fault::Crash { host, back }));
        }
        self.calm_from = self.calm_from.max(until);
    }

    /// There is no room for the state that the next epoch begins with, anywhere.
    fn plan_end_without_room(&mut self, rng: &mut SimRng) {
        let at = Time::from_nanos(rng.below(self.busy_until.as_nanos() / 2 + 1));
        let until = at.after(rng.millis(300, 900));
        self.changes.push(at.after(rng.micros(0, 20_000)));
        for host in 0..self.config.replicas {
            self.faults.push((at, Fault::FullDisk { host, until }));
        }
        self.calm_from = self.calm_from.max(until);
    }
}
