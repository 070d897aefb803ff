use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;

use super::Tally;

/// How long the intervals of a run's latencies are.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// What ended in one part of the measured time.
#[derive(Debug, Clone)]
pub struct Interval {
    /// When it began, since measuring began.
    pub start: Duration,
    /// How long it was.
    pub length: Duration,
    /// Latencies in nanoseconds, from the intended send time.
    pub latency_ns: Histogram<u64>,
}

/// The latencies of a run.
#[derive(Debug, Clone)]
pub struct Latencies {
    /// When measuring began.
    pub begin: SystemTime,
    /// All of them, in nanoseconds, from the intended send time.
    pub all_ns: Histogram<u64>,
    /// The same, second by second.
    pub intervals: Vec<Interval>,
}

impl Latencies {
    pub(super) fn new(tally: &Tally) -> Self {
        Self {
            begin: SystemTime::now(),
            all_ns: tally.latency_ns.clone(),
            intervals: Vec::new(),
        }
    }

    /// Ends an interval at `now`, since measuring began.
    pub(super) fn cut(&mut self, now: Duration, tally: Tally) {
        let start = self
            .intervals
            .last()
            .map_or(Duration::ZERO, |last| last.start + last.length);
        let mut latency_ns = tally.latency_ns.clone();
        latency_ns
            .subtract(&self.all_ns)
            .expect("a later histogram of the same run holds the earlier one");
        let length = now.saturating_sub(start);
        self.all_ns = tally.latency_ns;
        self.intervals.push(Interval {
            start,
            length,
            latency_ns,
        });
    }
}
