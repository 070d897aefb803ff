use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use super::park::ParkFlag;

/// Wakes one shard. Every producer of the shard holds a clone.
///
/// Parking, so that no wake-up is lost: the consumer calls [`prepare_park`](Self::prepare_park), looks at all
/// its rings once more, and sleeps until [`fd`](Self::fd) is readable only if they are empty. Awake again, it
/// calls [`unpark`](Self::unpark) and [`clear`](Self::clear), and only then looks at its rings. A producer
/// pushes, then calls [`ring_if_parked`](Self::ring_if_parked), which costs a fence and a load while the
/// consumer is awake.
#[derive(Clone, Debug)]
pub struct Doorbell {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    flag: ParkFlag,
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
                flag: ParkFlag::new(),
                event,
            }),
        })
    }

    /// The event's descriptor: readable after a ring, until [`clear`](Self::clear).
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }

    /// The consumer is about to sleep. It must look at its rings after this.
    pub fn prepare_park(&self) {
        self.shared.flag.prepare_park();
    }

    /// The consumer is awake, for whatever reason.
    pub fn unpark(&self) {
        self.shared.flag.unpark();
    }

    /// Makes the descriptor unreadable again until the next ring. The consumer must look at its rings between
    /// this and the next sleep: a ring that is cleared here announced an item.
    pub fn clear(&self) {
        let mut count = [0; 8];
        // Nothing to read is as good as read.
        let _ = (&self.shared.event).read(&mut count);
    }

    /// Sleeps until a ring or for `timeout` (`None`: for ever), for a consumer without an event loop; true
    /// after a ring. To be called between [`prepare_park`](Self::prepare_park) and [`unpark`](Self::unpark);
    /// a signal starts the timeout again.
    ///
    /// # Errors
    /// When the kernel refuses to wait: out of memory.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let timeout_ms = timeout.map_or(-1, |timeout| {
            i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let mut event = libc::pollfd {
            fd: self.fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        loop {
            // SAFETY: one pollfd, which lives across the call.
            let ready = unsafe { libc::poll(&raw mut event, 1, timeout_ms) };
            if ready >= 0 {
                return Ok(ready > 0);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Wakes the consumer if it sleeps or is about to. Call after pushing.
    pub fn ring_if_parked(&self) {
        if self.shared.flag.take_parked() {
            self.ring();
        }
    }

    /// Wakes the consumer in any case.
    pub fn ring(&self) {
        // Fails only when the count is at its maximum, and then the descriptor is readable already.
        let _ = (&self.shared.event).write(&1u64.to_ne_bytes());
    }
}
