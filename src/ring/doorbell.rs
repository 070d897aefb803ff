use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use super::shim::{Arc, AtomicBool, Ordering, fence};

/// Wakes one shard. Every producer of the shard holds a clone.
///
/// Parking, so that no wake-up is lost: the consumer calls [`prepare_park`](Self::prepare_park), looks at all its rings once
/// more, and sleeps until [`fd`](Self::fd) is readable only if they are empty. A producer pushes, then calls
/// [`ring_if_parked`](Self::ring_if_parked). Of the consumer's flag and the producer's item, the two sequentially consistent fences
/// let at least one side see the other's.
#[derive(Clone, Debug)]
pub struct Doorbell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    parked: AtomicBool,
    event: File,
}

impl Doorbell {
    /// A doorbell nobody waits at yet.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nothing else owns.
        let event = unsafe { File::from_raw_fd(fd) };
        Ok(Self {
            shared: Arc::new(Shared {
                parked: AtomicBool::new(false),
                event,
            }),
        })
    }

    /// The event's descriptor: readable after a ring.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }

    /// The consumer is about to sleep. It must look at its rings after this.
    pub fn prepare_park(&self) {
        self.shared.parked.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring_if_parked`.
        fence(Ordering::SeqCst);
    }

    /// The consumer is awake, for whatever reason.
    pub fn unpark(&self) {
        self.shared.parked.store(false, Ordering::Relaxed);
    }

    /// Makes the descriptor unreadable again until the next ring.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // Nothing to read is as good as read.
        let _ = (&self.shared.event).read(&mut count);
    }

    /// Wakes the consumer if it sleeps or is about to. Call after pushing.
    pub fn ring_if_parked(&self) {
        // Pairs with the fence in `prepare_park`: either the consumer sees what we pushed, or we see its flag.
        fence(Ordering::SeqCst);
        if self.shared.parked.load(Ordering::Relaxed) && self.shared.parked.swap(false, Ordering::AcqRel) {
            self.ring();
        }
    }

    /// Wakes the consumer in any case.
    pub fn ring(&self) {
        // Fails only when the count is at its maximum, and then the descriptor is readable already.
        let _ = (&self.shared.event).write(&1u64.to_ne_bytes());
    }
}
