use super::shim::{AtomicBool, Ordering, fence};

/// Whether a consumer sleeps or is about to: the half of a doorbell that needs no system call.
///
/// Consumer: [`prepare_park`](Self::prepare_park), look at every ring once more, sleep only if all are empty,
/// [`unpark`](Self::unpark) in any case. Producer: push, then [`take_parked`](Self::take_parked), and wake
/// the consumer if that says so.
///
/// Invariant: no wake-up is lost. Of the two sequentially consistent fences one comes first. If it is the
/// consumer's, the producer reads the flag as set; if it is the producer's, the consumer's second look finds
/// the item. `tests/ring_loom.rs` checks it in every interleaving.
#[derive(Debug)]
pub struct ParkFlag {
    parked: AtomicBool,
}

impl ParkFlag {
    /// The flag of a consumer that is awake.
    #[must_use]
    pub fn new() -> Self {
        Self {
            parked: AtomicBool::new(false),
        }
    }

    /// The consumer is about to sleep. It must look at its rings after this.
    pub fn prepare_park(&self) {
        self.parked.store(true, Ordering::Relaxed);
        // Pairs with the fence in `take_parked`.
        fence(Ordering::SeqCst);
    }

    /// The consumer is awake, whether it slept or not.
    pub fn unpark(&self) {
        // Relaxed: who still reads the flag as set makes one wake-up too many.
        self.parked.store(false, Ordering::Relaxed);
    }

    /// Whether the caller must wake the consumer: true for one caller per sleep. Call after pushing.
    #[must_use]
    pub fn take_parked(&self) -> bool {
        // Pairs with the fence in `prepare_park`.
        fence(Ordering::SeqCst);
        // The load keeps the line shared between producers while the consumer is awake.
        self.parked.load(Ordering::Relaxed)
            // Relaxed: the ring passes the item, this only elects who wakes. Who loses writes nothing.
            && self
                .parked
                .compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl Default for ParkFlag {
    fn default() -> Self {
        Self::new()
    }
}
