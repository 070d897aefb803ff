//! Judging a leader that works, but slowly or unfairly (Clement et al., Aardvark, NSDI 2009, §4.3).

use std::time::Duration;

use crate::smr::types::Time;

/// A leader must keep this share of the throughput seen before, in percent, while requests wait.
const SHARE_PERCENT: u64 = 50;
/// How many slow periods in a row are too many.
const SLOW_PERIODS_MAX: u32 = 3;

/// Operations executed per period, now and at best. Unlike Aardvark's, the bar is not raised in good times: a
/// leader that keeps up is kept.
#[derive(Debug)]
pub(super) struct LeaderMonitor {
    period: Duration,
    /// How long one request may wait while others are executed: two periods and a half at least. What has
    /// waited for one at the end of a period is passed on to the leader again, which may have refused to look
    /// at it before, and has the next one for it.
    fairness: Duration,
    operations: u64,
    /// The most operations of a period, fading by a sixteenth each period in which less was asked for or
    /// done.
    best: u64,
    slow_periods: u32,
    not_before: Time,
    /// There was something to execute when one looked last.
    is_executing: bool,
}

impl LeaderMonitor {
    pub(super) fn new(period: Duration, fairness: Duration) -> Self {
        Self {
            period,
            fairness: fairness.max(period * 5 / 2),
            operations: 0,
            best: 0,
            slow_periods: 0,
            not_before: Time::START,
            is_executing: false,
        }
    }

    pub(super) fn period(&self) -> Duration {
        self.period
    }

    pub(super) fn on_executed(&mut self, operations: usize) {
        self.operations += operations as u64;
        self.is_executing = false;
    }

    /// Decisions wait for execution: it is not the leader that is slow.
    pub(super) fn on_executing(&mut self) {
        self.is_executing = true;
    }

    /// A new leader has two periods to find its pace.
    pub(super) fn on_entered(&mut self, now: Time) {
        self.slow_periods = 0;
        self.not_before = now.after(self.period * 2);
    }

    /// Ends a period: whether the leader is to be replaced. `waiting` is how long a request has waited in the
    /// view that may be held against the leader; requests wait at a backup only when their client has given
    /// up on the leader once. `learnt` is how much longer than configured they have to wait here in good
    /// order: where replicas are far apart all wait for a period, whoever leads.
    ///
    /// Clients choose what their operations cost, and how many of them a frame has. So a leader is not slow
    /// while there is more to execute than was executed. And they choose whom they show a frame to: what
    /// waits here may be unknown to the leader until it is passed on, when it has waited for a period. So a
    /// leader is slow only if what was passed on at the end of the last period waits still: then it has waited
    /// for two.
    pub(super) fn end_period(&mut self, now: Time, waiting: Duration, learnt: Duration) -> bool {
        let done = std::mem::take(&mut self.operations);
        if now < self.not_before {
            return false;
        }
        let long = self.period * 2 + learnt;
        let demanded = waiting >= long && !std::mem::take(&mut self.is_executing);
        let slow = demanded && done * 100 < self.best * SHARE_PERCENT;
        self.slow_periods = if slow { self.slow_periods + 1 } else { 0 };
        self.best = done.max(self.best - self.best / 16);
        if self.slow_periods >= SLOW_PERIODS_MAX || waiting >= self.fairness {
            // Perhaps it is not the leader but the times: the next one is measured more gently.
            self.best /= 2;
            self.slow_periods = 0;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    #[test]
    fn a_leader_that_orders_what_it_is_passed_on_is_not_slow_and_one_that_does_not_is() {
        let periods = |waiting: Duration| {
            let mut review = LeaderMonitor::new(PERIOD, PERIOD * 5);
            review.on_executed(1000);
            let mut now = Time::START.after(PERIOD * 10);
            review.end_period(now, Duration::ZERO, Duration::ZERO);
            (0..10).find(|_| {
                now = now.after(PERIOD);
                review.on_executed(4);
                review.end_period(now, waiting, Duration::ZERO)
            })
        };
        assert_eq!(periods(PERIOD * 2 - Duration::from_nanos(1)), None);
        assert_eq!(periods(PERIOD * 2), Some(2));
    }

    #[test]
    fn a_leader_has_a_period_for_what_was_passed_on_to_it_again() {
        for (fairness, bound) in [(PERIOD / 2, PERIOD * 5 / 2), (PERIOD * 5, PERIOD * 5)] {
            let mut review = LeaderMonitor::new(PERIOD, fairness);
            let now = Time::START.after(PERIOD * 10);
            assert!(!review.end_period(now, bound - Duration::from_nanos(1), Duration::ZERO));
            assert!(review.end_period(now, bound, Duration::ZERO));
        }
    }
}
