use crate::smr::protocol::Timer;
use crate::smr::types::Time;

/// The running timers: at most one of each kind.
#[derive(Debug, Default)]
pub(super) struct Timers {
    at: [Option<Time>; Timer::ALL.len()],
}

impl Timers {
    pub(super) fn set(&mut self, timer: Timer, at: Time) {
        self.at[timer.index()] = Some(at);
    }

    pub(super) fn cancel(&mut self, timer: Timer) {
        self.at[timer.index()] = None;
    }

    /// When the next timer fires.
    pub(super) fn next(&self) -> Option<Time> {
        self.at.iter().flatten().min().copied()
    }

    /// The timers that are due.
    pub(super) fn due(&self, now: Time) -> impl Iterator<Item = Timer> {
        let is_due = move |timer: &Timer| self.at[timer.index()].is_some_and(|at| at <= now);
        Timer::ALL.into_iter().filter(is_due)
    }

    /// Takes one timer that is due, the earliest first.
    pub(super) fn take_due(&mut self, now: Time) -> Option<Timer> {
        let due = |timer: &Timer| self.at[timer.index()].filter(|at| *at <= now);
        let timer = Timer::ALL
            .into_iter()
            .filter(|timer| due(timer).is_some())
            .min_by_key(|timer| due(timer))?;
        self.at[timer.index()] = None;
        Some(timer)
    }
}
