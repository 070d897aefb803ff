//! Waiting for several descriptors at once, for threads without a ring.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// What a thread waits for at one descriptor, and whether it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awaited(libc::pollfd);

impl Awaited {
    /// Something to read, or a connection to take.
    pub fn input(descriptor: RawFd) -> Self {
        Self::new(descriptor, libc::POLLIN)
    }

    /// Room to write.
    pub fn room(descriptor: RawFd) -> Self {
        Self::new(descriptor, libc::POLLOUT)
    }

    /// Nothing.
    pub fn nothing() -> Self {
        // The kernel passes over negative ones.
        Self::new(-1, 0)
    }

    fn new(fd: RawFd, events: libc::c_short) -> Self {
        let revents = 0;
        Self(libc::pollfd { fd, events, revents })
    }

    /// Whether it came; or an end of the connection or an error, which the next operation tells.
    pub fn is_ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// Sleeps until one of these is ready, or for `timeout` (`None`: for ever). A signal ends it early.
///
/// # Errors
/// When the kernel refuses to wait: out of memory.
pub(crate) fn poll(awaited: &mut [Awaited], timeout: Option<Duration>) -> io::Result<()> {
    let timeout_ms = timeout.map_or(-1, |timeout| {
        i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    });
    let mut descriptors: Vec<libc::pollfd> = awaited.iter().map(|awaited| awaited.0).collect();
    let count = descriptors.len() as libc::nfds_t;
    // SAFETY: `count` pollfds, which live across the call.
    let ready = unsafe { libc::poll(descriptors.as_mut_ptr(), count, timeout_ms) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        };
    }
    for (awaited, descriptor) in awaited.iter_mut().zip(descriptors) {
        awaited.0 = descriptor;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_ready_is_told_apart_from_what_is_not() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut awaited = [
            Awaited::input(far.as_raw_fd()),
            Awaited::room(near.as_raw_fd()),
            Awaited::nothing(),
        ];
        let mut ready = || {
            poll(&mut awaited, None).unwrap();
            awaited.map(|one| one.is_ready())
        };
        assert_eq!(ready(), [false, true, false]);
        near.write_all(b"x").unwrap();
        assert_eq!(ready(), [true, true, false]);
        let mut nobody = [Awaited::input(near.as_raw_fd())];
        poll(&mut nobody, Some(Duration::ZERO)).unwrap();
        assert!(!nobody[0].is_ready());
    }
}
