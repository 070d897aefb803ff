//! When a link is looked at, and for how long nothing has come on it. Time is handed in.

use std::time::Duration;

use crate::smr::types::Time;

/// How often links are looked at: an end that said nothing since the last look says that it is there.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// When links were looked at last.
#[derive(Debug, Default)]
pub(crate) struct Keepalive {
    last: Option<Time>,
}

impl Keepalive {
    /// If it is time to look at the links: the time that passed, as far as it counts. A thread that was held
    /// up for longer heard nothing, whatever was said: no more than one interval counts.
    pub fn look(&mut self, now: Time) -> Option<Duration> {
        let Some(last) = self.last else {
            self.last = Some(now);
            return None;
        };
        if now < last.after(LOOK_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(LOOK_EVERY)
    }

    /// When it is time again.
    pub fn next_look(&self) -> Time {
        self.last.map_or(Time::START, |last| last.after(LOOK_EVERY))
    }
}

/// For how long a link is silent.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Duration);

impl Quiet {
    /// How long nothing has come, after another interval.
    pub fn after(&mut self, interval: Duration, was_heard: bool) -> Duration {
        self.0 = match was_heard {
            true => Duration::ZERO,
            false => self.0 + interval,
        };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::START.after(Duration::from_millis(ms))
    }

    #[test]
    fn links_are_looked_at_once_in_an_interval_and_a_pause_of_ones_own_counts_as_one() {
        let mut keepalive = Keepalive::default();
        assert_eq!(keepalive.look(at(500)), None, "the first look only begins");
        assert_eq!(keepalive.next_look(), at(1500));
        assert_eq!(keepalive.look(at(1499)), None);
        assert_eq!(keepalive.look(at(1500)), Some(LOOK_EVERY));
        assert_eq!(keepalive.look(at(1501)), None);
        assert_eq!(
            keepalive.look(at(60_000)),
            Some(LOOK_EVERY),
            "a thread that was held up heard nothing"
        );
        assert_eq!(keepalive.next_look(), at(61_000));
    }

    #[test]
    fn silence_adds_up_until_something_comes() {
        let mut quiet = Quiet::default();
        assert_eq!(quiet.after(LOOK_EVERY, false), LOOK_EVERY);
        assert_eq!(quiet.after(LOOK_EVERY, false), 2 * LOOK_EVERY);
        assert_eq!(quiet.after(LOOK_EVERY, true), Duration::ZERO);
        assert_eq!(quiet.after(LOOK_EVERY, false), LOOK_EVERY);
    }
}
