/// Commits between two decisions about how far to speculate.
const PERIOD: u64 = 64;
/// How far ahead speculation is tried again, and for how many commits before it is judged: helpers have to
/// wake.
const PROBE: u64 = 8;
const PROBE_COMMITS: u64 = 256;
/// Commits without speculation before it is tried again: doubled each time it was tried in vain.
const REST: u64 = 1024;
const REST_MOST: u64 = 32 * REST;

/// How far ahead of the committed operations others are executed. Where more of these executions are wasted
/// than are used, speculation only takes processors from others: it stops, and is tried again now and then.
/// The share of waste alone would say little: with few workers it is small even when every operation
/// conflicts with the one before.
#[derive(Debug)]
pub(super) struct Throttle {
    ahead: u64,
    most: u64,
    /// Commits until the next decision.
    left: u64,
    /// Commits between this decision and the next.
    period: u64,
    aborts_before: u64,
    /// Operations committed since the last decision as they were executed ahead of their turn.
    used: u64,
    /// How long the next rest is.
    rest: u64,
}

impl Throttle {
    pub fn new(most: u64) -> Self {
        Self {
            ahead: most,
            most,
            left: PERIOD,
            period: PERIOD,
            aborts_before: 0,
            used: 0,
            rest: REST,
        }
    }

    /// One more operation was committed, as it was executed ahead of its turn if `was_early`; `aborts` so
    /// far. How far ahead from now on, if that changes.
    pub fn on_commit(&mut self, was_early: bool, aborts: u64) -> Option<u64> {
        self.used += u64::from(was_early);
        self.left -= 1;
        if self.left > 0 {
            return None;
        }
        let wasted = aborts - self.aborts_before;
        let used = std::mem::take(&mut self.used);
        let before = self.ahead;
        self.period = PERIOD;
        if before == 1 {
            self.ahead = PROBE.min(self.most);
            self.period = PROBE_COMMITS;
        } else if wasted > used {
            self.ahead = (before / 8).max(1);
            if self.ahead == 1 {
                self.period = self.rest;
                self.rest = (2 * self.rest).min(REST_MOST);
            }
        } else if 4 * wasted < used {
            self.ahead = (before * 4).min(self.most);
            if self.ahead == self.most {
                self.rest = REST;
            }
        }
        self.left = self.period;
        self.aborts_before = aborts;
        (self.ahead != before).then_some(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(throttle: &mut Throttle, commits: u64, aborts: &mut u64, aborts_each: u64) -> u64 {
        let is_used = aborts_each == 0;
        let mut ahead = throttle.ahead;
        for _ in 0..commits {
            *aborts += aborts_each;
            ahead = throttle.on_commit(is_used, *aborts).unwrap_or(ahead);
        }
        ahead
    }

    #[test]
    fn speculation_ends_where_it_is_of_no_use_and_returns_when_it_is() {
        let (mut throttle, mut aborts) = (Throttle::new(1024), 0);
        assert_eq!(run(&mut throttle, 10 * PERIOD, &mut aborts, 1), 1);
        assert_eq!(
            run(&mut throttle, REST + PROBE_COMMITS + 8 * PERIOD, &mut aborts, 0),
            1024
        );
    }

    #[test]
    fn little_waste_is_too_much_where_nothing_is_used() {
        let (mut throttle, mut ahead) = (Throttle::new(1024), 1024);
        for commit in 0..5 * PERIOD {
            ahead = throttle.on_commit(false, commit / 5).unwrap_or(ahead);
        }
        assert_eq!(ahead, 1);
    }

    #[test]
    fn speculation_that_was_tried_in_vain_is_tried_less_and_less_often() {
        let (mut throttle, mut ahead, mut aborts, mut tries) = (Throttle::new(1024), 1024, 0, Vec::new());
        for commit in 0..100 * REST {
            // Everything that is executed ahead is of no use.
            aborts += u64::from(ahead > 1);
            let before = ahead;
            ahead = throttle.on_commit(false, aborts).unwrap_or(ahead);
            if before == 1 && ahead > 1 {
                tries.push(commit);
            }
        }
        let rests: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(rests.windows(2).all(|pair| pair[1] >= pair[0]), "{rests:?}");
        assert!(*rests.last().unwrap() >= REST_MOST, "{rests:?}");
    }
}
