//! The time of day that batches carry: the leader's, near each backup's own, or the proposal is refused.
//!
//! - *The leader* proposes what its clock shows, or the latest time that it knows of a proposal, if that is
//!   later: times do not go back while its proposals are decided in order.
//! - *A backup* refuses a fresh proposal ([`Rejection::ClockOutOfBounds`]) whose time is further than the
//!   bound from what its own clock shows: earlier; or later, unless it has accepted one as late before. So no
//!   leader makes time jump, or stand still for longer than the bound. The leader may be honest and have a bad
//!   clock: it is not blamed.
//! - *What a view begins with*, and what others decided, is taken whatever its time is: a correct replica
//!   accepted it as fresh before (A2), so that it was near its clock then.
//!
//! Invariant: what is known of times here is no more than what correct replicas accepted. That execution's
//! times never go back is execution's own doing; nothing of this has to survive a restart.

use std::time::Duration;

use crate::smr::messages::Batch;
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::Rejection;
use crate::smr::types::{Time, UnixTime};

/// What this replica knows of the time of day.
#[derive(Debug)]
pub(super) struct Clock {
    bound: Duration,
    /// What the host's clock showed, and when; `None` before anybody said so, and then nothing is judged.
    reading: Option<(Time, UnixTime)>,
    /// The latest time of a batch that was accepted or decided here.
    latest: UnixTime,
}

impl Clock {
    pub fn new(bound: Duration) -> Self {
        Self {
            bound,
            reading: None,
            latest: UnixTime::EPOCH,
        }
    }

    /// The host's clock shows this.
    pub fn set(&mut self, now: Time, unix: UnixTime) {
        self.reading = Some((now, unix));
    }

    fn shows(&self, now: Time) -> Option<UnixTime> {
        let (at, unix) = self.reading?;
        Some(unix.after(now.since(at)))
    }

    /// The time of the next proposal.
    pub fn next(&self, now: Time) -> UnixTime {
        self.latest.max(self.shows(now).unwrap_or_default())
    }

    /// Whether a fresh proposal may have this time.
    pub fn judge(&self, now: Time, time: UnixTime) -> Result<(), Rejection> {
        let Some(shows) = self.shows(now).filter(|_| !active(Mutant::ClockBoundUnchecked)) else {
            return Ok(());
        };
        let is_late = time > self.latest && time.since(shows) > self.bound;
        let is_early = shows.since(time) > self.bound;
        match is_late || is_early {
            true => Err(Rejection::ClockOutOfBounds),
            false => Ok(()),
        }
    }

    /// A batch was accepted, or decided.
    pub fn note(&mut self, batch: &Batch) {
        self.latest = self.latest.max(batch.time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> UnixTime {
        UnixTime::EPOCH.after(Duration::from_secs(seconds))
    }

    fn now(seconds: u64) -> Time {
        Time::START.after(Duration::from_secs(seconds))
    }

    fn batch(time: UnixTime) -> Batch {
        Batch {
            time,
            ..Batch::null()
        }
    }

    #[test]
    fn a_time_within_the_bound_of_the_own_clock_may_be_proposed_and_no_other() {
        let mut clock = Clock::new(BOUND);
        assert_eq!(clock.judge(now(0), at(5)), Ok(()), "nobody said what time it is");
        clock.set(now(100), at(1000));
        let judged = [989, 990, 1000, 1010, 1011].map(|time| clock.judge(now(100), at(time)).is_ok());
        assert_eq!(judged, [false, true, true, true, false]);
        assert_eq!(
            clock.judge(now(101), at(1011)),
            Ok(()),
            "the clock goes on by itself"
        );
    }

    #[test]
    fn the_own_proposal_is_no_earlier_than_what_was_accepted() {
        let mut clock = Clock::new(BOUND);
        clock.set(now(0), at(1000));
        assert_eq!(clock.next(now(3)), at(1003));
        clock.note(&batch(at(1009)));
        assert_eq!(clock.next(now(3)), at(1009));
        assert_eq!(clock.next(now(10)), at(1010));
        // The null request has no time.
        clock.note(&Batch::null());
        assert_eq!(clock.next(now(3)), at(1009));
    }

    #[test]
    fn a_clock_that_was_set_back_accepts_what_was_accepted_and_nothing_later() {
        let mut clock = Clock::new(BOUND);
        clock.set(now(0), at(5000));
        clock.note(&batch(at(5000)));
        clock.set(now(1), at(1000));
        assert_eq!(clock.next(now(1)), at(5000));
        assert_eq!(clock.judge(now(1), at(5000)), Ok(()));
        assert_eq!(clock.judge(now(1), at(5001)), Err(Rejection::ClockOutOfBounds));
        assert_eq!(clock.judge(now(1), at(10)), Err(Rejection::ClockOutOfBounds));
    }
}
