use std::time::Duration;

use crate::smr::types::Time;

/// So many at once, and so many a second after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many at once, after a pause.
    pub burst: u64,
    /// How many a second in the long run.
    pub per_second: u64,
}

/// What a peer may still cost this replica: it fills up with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    rate: Rate,
    /// Below zero after more was used than there was.
    left: i64,
    /// Up to when what is left was earned.
    at: Time,
}

impl Allowance {
    /// One of which nothing was used yet.
    #[must_use]
    pub fn full(rate: Rate) -> Self {
        Self {
            rate,
            left: clamped(rate.burst),
            at: Time::START,
        }
    }

    /// What may be used now; zero or less when it is used up.
    pub fn left(&mut self, now: Time) -> i64 {
        let Rate { burst, per_second } = self.rate;
        let nanos = now.since(self.at).as_nanos();
        let earned = nanos * u128::from(per_second) / NANOS_PER_SECOND;
        let missing = clamped(burst).saturating_sub(self.left).max(0);
        if earned >= u128::from(missing.unsigned_abs()) {
            self.left = self.left.max(clamped(burst));
            self.at = self.at.max(now);
        } else if earned > 0 {
            self.left += i64::try_from(earned).unwrap_or(i64::MAX);
            // The part of the next one that was earned is not lost.
            let spent = earned * NANOS_PER_SECOND / u128::from(per_second.max(1));
            let spent = u64::try_from(spent).unwrap_or(u64::MAX);
            self.at = Time::from_nanos(self.at.as_nanos().saturating_add(spent));
        }
        self.left
    }

    /// From now on it fills up at this rate; what is beyond its burst is lost.
    pub fn set_rate(&mut self, rate: Rate) {
        self.rate = rate;
        self.left = self.left.min(clamped(rate.burst));
    }

    /// How long it takes until so many are left, if nothing is used meanwhile. More than a burst never are.
    pub fn wait_for(&mut self, now: Time, count: u64) -> Duration {
        let missing = clamped(count).saturating_sub(self.left(now)).max(0);
        let nanos = u128::from(missing.unsigned_abs()) * NANOS_PER_SECOND;
        let nanos = nanos.div_ceil(u128::from(self.rate.per_second.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Uses so many, if there are as many; whether there were.
    pub fn take(&mut self, now: Time, count: u64) -> bool {
        let may = self.left(now) >= clamped(count);
        if may {
            self.charge(count);
        }
        may
    }

    /// So many more may be used, as far as there is room for them.
    pub fn earn(&mut self, count: u64) {
        let most = clamped(self.rate.burst).max(self.left);
        self.left = self.left.saturating_add(clamped(count)).min(most);
    }

    /// So many were used, perhaps more than there were: then nothing is left until they are earned.
    pub fn charge(&mut self, count: u64) {
        self.left = self.left.saturating_sub(clamped(count));
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 10,
        per_second: 4,
    };

    fn at_ms(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_burst_may_be_used_at_once_and_then_as_much_as_is_earned() {
        let mut allowance = Allowance::full(RATE);
        assert!(!allowance.take(at_ms(0), 11), "more than there ever is");
        assert!(allowance.take(at_ms(0), 10));
        assert!(!allowance.take(at_ms(249), 1));
        assert!(allowance.take(at_ms(250), 1));
        assert!(!allowance.take(at_ms(250), 1));
        assert_eq!(
            allowance.left(at_ms(60_000)),
            10,
            "it does not fill up beyond a burst"
        );
    }

    #[test]
    fn parts_of_what_is_earned_are_not_lost_however_often_it_is_looked_at() {
        let mut allowance = Allowance::full(RATE);
        allowance.charge(10);
        let used = (1..=1000).filter(|ms| allowance.take(at_ms(*ms), 1)).count();
        assert_eq!(used, 4);
    }

    #[test]
    fn what_was_used_beyond_it_is_earned_before_there_is_more() {
        let mut allowance = Allowance::full(RATE);
        allowance.charge(18);
        assert_eq!(allowance.left(at_ms(0)), -8);
        assert_eq!(allowance.left(at_ms(2000)), 0);
        assert!(allowance.take(at_ms(2250), 1));
        allowance.charge(u64::MAX);
        assert!(allowance.left(at_ms(3000)) < 0, "however huge it is");
    }

    #[test]
    fn a_clock_that_stands_still_earns_nothing() {
        let mut allowance = Allowance::full(RATE);
        assert!(allowance.take(at_ms(5000), 10));
        assert!(!allowance.take(at_ms(5000), 1));
        assert!(!allowance.take(at_ms(4000), 1), "nor does an earlier moment");
    }
}
