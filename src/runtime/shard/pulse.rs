//! Signs of life of a replica's threads, so that one that hangs is noticed by another.
//!
//! A shard that has nothing to do sleeps, and gives no sign. So the control shard rings every doorbell at
//! each of its beats: who is well turns once soon after. Whoever looks compares how long ago a thread gave
//! its last sign with its own patience.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::runtime::ring::Doorbell;

/// The thread has not begun yet.
const NOT_BEGUN: u64 = 0;
/// The thread has come to its end, and need not give signs any more.
const ENDED: u64 = u64::MAX;

/// When one thread gave its last sign of life. Clones are equal.
#[derive(Debug, Clone)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds since `started`, and one: [`NOT_BEGUN`] and [`ENDED`] are others.
    last: Arc<AtomicU64>,
}

impl Pulse {
    /// Of a thread that is about to begin.
    #[must_use]
    pub fn new() -> Self {
        Self::since(Instant::now())
    }

    fn since(started: Instant) -> Self {
        Self {
            started,
            last: Arc::new(AtomicU64::new(NOT_BEGUN)),
        }
    }

    /// The thread is alive: one relaxed store beside a look at the clock.
    pub fn beat(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(ENDED - 2);
        self.last.store(now + 1, Ordering::Relaxed);
    }

    /// The thread ends, and nobody has to worry.
    pub fn end(&self) {
        self.last.store(ENDED, Ordering::Relaxed);
    }

    /// How long ago the last sign was; since it was made, for a thread that has not begun; zero for one that
    /// ended.
    #[must_use]
    pub fn silence(&self) -> Duration {
        match self.last.load(Ordering::Relaxed) {
            ENDED => Duration::ZERO,
            last => self
                .started
                .elapsed()
                .saturating_sub(Duration::from_millis(last.saturating_sub(1))),
        }
    }

    fn has_begun(&self) -> bool {
        self.last.load(Ordering::Relaxed) != NOT_BEGUN
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

/// The pulses of a replica's shards. Clones are equal.
#[derive(Debug, Clone)]
pub struct Vitals(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    control: (String, Pulse),
    shards: Vec<(String, Pulse, Doorbell)>,
}

impl Vitals {
    /// Of the control shard and data shards with these names; the latter hear these doorbells.
    #[must_use]
    pub fn new(control: String, shards: impl IntoIterator<Item = (String, Doorbell)>) -> Self {
        let shards = shards.into_iter();
        Self(Arc::new(Inner {
            control: (control, Pulse::new()),
            shards: shards
                .map(|(name, doorbell)| (name, Pulse::new(), doorbell))
                .collect(),
        }))
    }

    /// The pulse of a data shard, by its number.
    #[must_use]
    pub fn of_shard(&self, index: usize) -> Pulse {
        self.0.shards[index].1.clone()
    }

    /// The control shard is alive, and wants a sign of everybody else. It blocks for nobody.
    pub fn beat(&self) {
        self.0.control.1.beat();
        self.0
            .shards
            .iter()
            .for_each(|(_, _, doorbell)| doorbell.ring_if_parked());
    }

    /// Whether every data shard has turned once: its ring is made.
    #[must_use]
    pub fn have_begun(&self) -> bool {
        self.0.shards.iter().all(|(_, pulse, _)| pulse.has_begun())
    }

    /// How long ago each thread gave its last sign.
    pub fn silences(&self) -> impl Iterator<Item = (&str, Duration)> {
        let control = std::iter::once((&self.0.control.0, &self.0.control.1));
        let shards = self.0.shards.iter().map(|(name, pulse, _)| (name, pulse));
        let threads = control.chain(shards);
        threads.map(|(name, pulse)| (name.as_str(), pulse.silence()))
    }

    /// The threads that gave no sign for longer than this. It should be some beats long.
    #[must_use]
    pub fn silent_for(&self, patience: Duration) -> Vec<String> {
        let silent = self.silences().filter(|(_, silence)| *silence > patience);
        silent.map(|(name, _)| name.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gives_no_sign_is_named_until_it_gives_one_or_ends() {
        // All was made an hour ago.
        let hour = Duration::from_secs(3600);
        let pulse = || Pulse::since(Instant::now().checked_sub(hour).unwrap());
        let shard = |name: &str| (name.to_owned(), pulse(), Doorbell::new().unwrap());
        let vitals = Vitals(Arc::new(Inner {
            control: ("control".to_owned(), pulse()),
            shards: vec![shard("d0"), shard("d1")],
        }));
        let (first, second) = (vitals.of_shard(0), vitals.of_shard(1));
        let silent = || vitals.silent_for(hour / 2);
        assert!(!vitals.have_begun());
        assert_eq!(silent(), ["control", "d0", "d1"]);
        assert_eq!(vitals.silent_for(2 * hour), [""; 0]);
        first.beat();
        assert!(!vitals.have_begun());
        assert_eq!(silent(), ["control", "d1"]);
        second.end();
        assert!(vitals.have_begun());
        vitals.beat();
        assert_eq!(silent(), [""; 0]);
        // A sign of the first millisecond is an old one.
        first.last.store(1, Ordering::Relaxed);
        assert_eq!(silent(), ["d0"]);
    }

    #[test]
    fn a_beat_wakes_those_that_sleep() {
        let bell = Doorbell::new().unwrap();
        let vitals = Vitals::new("control".to_owned(), [("d0".to_owned(), bell.clone())]);
        bell.prepare_park();
        vitals.beat();
        assert!(bell.wait(Some(Duration::ZERO)).unwrap());
        assert_eq!(vitals.silent_for(Duration::from_secs(3600)), [""; 0]);
    }
}
