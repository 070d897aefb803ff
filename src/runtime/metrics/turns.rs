//! How long the turns of a data shard take, and each role's part of them.
//!
//! One turn of [`SAMPLED_EVERY`] is measured, with a look at the clock between roles: none for a message, and
//! none in other turns. A shard writes to memory of its own; who reads it takes nothing from it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::runtime::config::RoleKind;

/// One of so many turns is measured.
pub(crate) const SAMPLED_EVERY: u32 = 64;

/// How many bounds there are between buckets.
const BOUNDS: usize = 12;

/// The longest duration in each bucket but the last, in nanoseconds: from a microsecond on, each four times
/// the one before, to four seconds.
const BOUNDS_NS: [u64; BOUNDS] = {
    let mut bounds = [1000; BOUNDS];
    let mut index = 1;
    while index < BOUNDS {
        bounds[index] = 4 * bounds[index - 1];
        index += 1;
    }
    bounds
};

/// How often something took how long. One thread writes.
#[derive(Debug)]
pub struct DurationHistogram {
    buckets: [AtomicU64; BOUNDS + 1],
    sum_ns: AtomicU64,
}

/// A [`DurationHistogram`] as it was at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct DurationCounts {
    /// How many were measured.
    pub count: u64,
    /// How long they took together, in seconds.
    pub sum: f64,
    /// The longest duration of each bucket, in seconds, and how many are in it alone. What took longer than
    /// all is in none.
    pub buckets: Vec<(f64, u64)>,
}

impl DurationHistogram {
    fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BOUNDS + 1],
            sum_ns: AtomicU64::new(0),
        }
    }

    /// Of the one thread that writes: a load and a store are enough.
    fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < nanos);
        let add = |to: &AtomicU64, more: u64| {
            to.store(to.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        add(&self.sum_ns, nanos);
        add(&self.buckets[bucket], 1);
    }

    /// What was measured so far.
    #[must_use]
    pub fn read(&self) -> DurationCounts {
        let counts = self
            .buckets
            .each_ref()
            .map(|bucket| bucket.load(Ordering::Relaxed));
        let bounds = BOUNDS_NS.iter().map(|bound| *bound as f64 / 1e9);
        DurationCounts {
            count: counts.iter().sum(),
            sum: self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9,
            buckets: bounds.zip(counts).collect(),
        }
    }
}

/// The durations of one shard, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct TurnTimes {
    turn: DurationHistogram,
    roles: Vec<(RoleKind, DurationHistogram)>,
}

impl TurnTimes {
    /// Of a shard with these roles.
    #[must_use]
    pub fn new(roles: &[RoleKind]) -> Self {
        let roles = roles.iter().map(|role| (*role, DurationHistogram::new()));
        Self {
            turn: DurationHistogram::new(),
            roles: roles.collect(),
        }
    }

    /// A turn in which something was done.
    pub(crate) fn record_turn(&self, duration: Duration) {
        self.turn.record(duration);
    }

    /// A role's part of a turn in which it did something.
    pub(crate) fn record_role(&self, role: RoleKind, duration: Duration) {
        if let Some(times) = self.of_role(role) {
            times.record(duration);
        }
    }

    /// Whole turns.
    #[must_use]
    pub fn turn(&self) -> &DurationHistogram {
        &self.turn
    }

    /// A role's part of them; `None` if the role is on another shard.
    #[must_use]
    pub fn of_role(&self, role: RoleKind) -> Option<&DurationHistogram> {
        let found = self.roles.iter().find(|(own, _)| *own == role);
        found.map(|(_, times)| times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_first_bucket_that_is_long_enough() {
        let times = TurnTimes::new(&[RoleKind::Consensus]);
        for nanos in [0, 1000, 1001, 4000, 4_000_000_000, 100_000_000_000] {
            times.record_role(RoleKind::Consensus, Duration::from_nanos(nanos));
        }
        times.record_role(RoleKind::Log, Duration::from_nanos(1));
        assert!(times.of_role(RoleKind::Log).is_none());
        let read = times.of_role(RoleKind::Consensus).unwrap().read();
        assert_eq!(read.count, 6);
        assert!((read.sum - 104.000_006_001).abs() < 1e-6, "{}", read.sum);
        assert_eq!(read.buckets.len(), BOUNDS);
        let counts: Vec<u64> = read.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!((read.buckets[0].0 - 1e-6).abs() < 1e-12);
        assert!((read.buckets[11].0 - 4.194_304).abs() < 1e-9);
        assert_eq!(times.turn().read().count, 0);
    }
}
