/// Commits between two decisions about how far to speculate.
const PERIOD: u64 = 64;
/// Periods without speculation before it is tried again.
const RESTED: u64 = 16;
/// How far ahead it is tried then.
const PROBE: u64 = 4;

/// How far ahead of the committed operations others are executed. Where most executions are of no use, speculation
/// only takes processors from others: it stops, and is tried again now and then.
#[derive(Debug)]
pub(super) struct Throttle {
    ahead: u64,
    most: u64,
    commits: u64,
    aborts_before: u64,
    rested: u64,
}

impl Throttle {
    pub fn new(most: u64) -> Self {
        Self {
            ahead: most,
            most,
            commits: 0,
            aborts_before: 0,
            rested: 0,
        }
    }

    /// One more operation was committed; `aborts` so far. How far ahead from now on, if that changes.
    pub fn on_commit(&mut self, aborts: u64) -> Option<u64> {
        self.commits += 1;
        if self.commits < PERIOD {
            return None;
        }
        let recent = aborts - self.aborts_before;
        self.commits = 0;
        self.aborts_before = aborts;
        let before = self.ahead;
        if self.ahead == 1 {
            self.rested += 1;
            if self.rested >= RESTED {
                self.ahead = PROBE.min(self.most);
            }
        } else if 2 * recent > PERIOD {
            self.ahead = (self.ahead / 8).max(1);
            self.rested = 0;
        } else if 8 * recent < PERIOD {
            self.ahead = (self.ahead * 4).min(self.most);
        }
        (self.ahead != before).then_some(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(throttle: &mut Throttle, commits: u64, aborts: &mut u64, aborts_each: u64) -> u64 {
        let mut ahead = throttle.ahead;
        for _ in 0..commits {
            *aborts += aborts_each;
            ahead = throttle.on_commit(*aborts).unwrap_or(ahead);
        }
        ahead
    }

    #[test]
    fn speculation_ends_where_it_is_of_no_use_and_returns_when_it_is() {
        let (mut throttle, mut aborts) = (Throttle::new(1024), 0);
        assert_eq!(run(&mut throttle, 10 * PERIOD, &mut aborts, 1), 1);
        assert_eq!(run(&mut throttle, (RESTED + 8) * PERIOD, &mut aborts, 0), 1024);
    }
}
