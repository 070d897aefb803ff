//! How long to wait before the next attempt.

use std::time::Duration;

use crate::smr::types::SplitMix64;

/// The bounds of an exponential back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffLimits {
    /// The first delay, before jitter.
    pub initial: Duration,
    /// No delay is longer, and a link that lived this long begins at `initial` again.
    pub max: Duration,
}

impl Default for BackoffLimits {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(20),
            max: Duration::from_secs(1),
        }
    }
}

/// The delays between the attempts at one peer: doubling up to a cap, each shortened by up to a half.
///
/// The jitter keeps replicas that lost the same peer from dialling it in step. It comes from the seed alone,
/// so one seed gives one sequence of delays.
#[derive(Debug)]
pub struct Backoff {
    limits: BackoffLimits,
    next: Duration,
    random: SplitMix64,
}

impl Backoff {
    /// The delays of one peer.
    #[must_use]
    pub fn new(limits: BackoffLimits, seed: u64) -> Self {
        Self {
            limits,
            next: limits.initial.min(limits.max),
            random: SplitMix64::new(seed),
        }
    }

    /// The delay before the next attempt: between a half and the whole of the present step.
    pub fn delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.limits.max);
        let half = whole / 2;
        let share = (self.random.any() >> 40) as u32; // 24 bits
        half + half.mul_f64(f64::from(share) / f64::from(1u32 << 24))
    }

    /// Begins again at the shortest delay.
    pub fn reset(&mut self) {
        self.next = self.limits.initial.min(self.limits.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BackoffLimits = BackoffLimits {
        initial: Duration::from_millis(20),
        max: Duration::from_secs(1),
    };

    #[test]
    fn delays_double_up_to_the_cap_and_stay_within_half_of_it() {
        let mut backoff = Backoff::new(LIMITS, 7);
        for whole_ms in [20, 40, 80, 160, 320, 640, 1000, 1000, 1000] {
            let whole = Duration::from_millis(whole_ms);
            let delay = backoff.delay();
            assert!(whole / 2 <= delay && delay <= whole, "{delay:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= LIMITS.initial);
    }

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let delays = |seed| {
            let mut backoff = Backoff::new(LIMITS, seed);
            [(); 8].map(|()| backoff.delay())
        };
        assert_eq!(delays(1), delays(1));
        assert_ne!(delays(1), delays(2));
    }

    #[test]
    fn an_initial_delay_over_the_cap_is_cut_to_the_cap() {
        let limits = BackoffLimits {
            initial: Duration::from_secs(9),
            ..LIMITS
        };
        assert!(Backoff::new(limits, 3).delay() <= LIMITS.max);
    }
}
