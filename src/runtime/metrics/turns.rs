//! How long the turns of a data shard take, and each role's part of them.
//!
//! One turn of [`SAMPLED_EVERY`] is measured, with a look at the clock between roles: none for a message, and
//! none in other turns. A shard writes to memory of its own; who reads it takes nothing from it.

use std::time::Duration;

use super::histogram::{Histogram, Scale};
use crate::runtime::config::RoleKind;

/// One of so many turns is measured.
pub(crate) const SAMPLED_EVERY: u32 = 64;

/// The durations of one shard, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct TurnTimes {
    turn: Histogram,
    roles: Vec<(RoleKind, Histogram)>,
}

impl TurnTimes {
    /// Of a shard with these roles.
    #[must_use]
    pub fn new(roles: &[RoleKind]) -> Self {
        let roles = roles.iter().map(|role| (*role, Histogram::new(Scale::TURNS)));
        Self {
            turn: Histogram::new(Scale::TURNS),
            roles: roles.collect(),
        }
    }

    /// A turn in which something was done.
    pub(crate) fn record_turn(&self, duration: Duration) {
        self.turn.record_duration(duration);
    }

    /// A role's part of a turn in which it did something.
    pub(crate) fn record_role(&self, role: RoleKind, duration: Duration) {
        if let Some(times) = self.of_role(role) {
            times.record_duration(duration);
        }
    }

    /// Whole turns.
    #[must_use]
    pub fn turn(&self) -> &Histogram {
        &self.turn
    }

    /// A role's part of them; `None` if the role is on another shard.
    #[must_use]
    pub fn of_role(&self, role: RoleKind) -> Option<&Histogram> {
        let found = self.roles.iter().find(|(own, _)| *own == role);
        found.map(|(_, times)| times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_measures_the_roles_that_it_has() {
        let times = TurnTimes::new(&[RoleKind::Consensus]);
        times.record_role(RoleKind::Consensus, Duration::from_nanos(7));
        times.record_role(RoleKind::Log, Duration::from_nanos(1));
        assert!(times.of_role(RoleKind::Log).is_none());
        assert_eq!(times.of_role(RoleKind::Consensus).unwrap().read().count, 1);
        assert_eq!(times.turn().read().count, 0);
    }
}
