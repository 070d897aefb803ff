//! A socket during its handshake: plain non-blocking calls, awaited through the executor's ring.
//!
//! Reads ask for exactly the bytes of one handshake message. What a peer sends right behind its last message
//! stays in the kernel for the data shard.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use glommio::io::PollableFd;

use crate::runtime::net::hello::HandshakeRefusal;

/// The options of every link's socket. `TCP_NODELAY` is always set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketOptions {
    /// Fixed send and receive buffers, in bytes (the kernel doubles them and caps them at
    /// `net.core.{r,w}mem_max`). `None` leaves the sizing to the kernel, which follows the link's bandwidth
    /// and delay.
    pub buffer_bytes: Option<usize>,
    /// After how long without a sign of life the kernel gives a link up, while data is unacknowledged
    /// (`TCP_USER_TIMEOUT`) as well as on an idle link (keep-alive).
    pub dead_after: Duration,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            buffer_bytes: None,
            dead_after: Duration::from_secs(10),
        }
    }
}

impl SocketOptions {
    /// Sets the options on a connected socket and makes it non-blocking.
    ///
    /// # Errors
    /// What the kernel refused; the connection is of no use then.
    pub(super) fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.set_on(stream)
    }

    /// Sets the options on a connected socket, and leaves it blocking if it is.
    ///
    /// # Errors
    /// What the kernel refused; the connection is of no use then.
    pub fn set_on(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if let Some(bytes) = self.buffer_bytes {
            let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
            set(stream, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
            set(stream, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
        }
        let seconds = libc::c_int::try_from(self.dead_after.as_secs()).unwrap_or(i32::MAX / 1000);
        let millis = libc::c_int::try_from(self.dead_after.as_millis()).unwrap_or(libc::c_int::MAX);
        // Half of the time idle, then five probes in the other half. The kernel counts both in whole seconds.
        set(stream, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        set(
            stream,
            libc::IPPROTO_TCP,
            libc::TCP_KEEPIDLE,
            (seconds / 2).max(1),
        )?;
        set(
            stream,
            libc::IPPROTO_TCP,
            libc::TCP_KEEPINTVL,
            (seconds / 10).max(1),
        )?;
        set(stream, libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 5)?;
        set(stream, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, millis.max(1))
    }
}

/// Lets so many connections wait to be accepted, as far as `net.core.somaxconn` allows: the standard
/// library's 128 are few when a cluster's clients come back all at once, or strangers crowd in.
pub(super) fn widen_backlog(listener: &TcpListener, connections: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `listener` is borrowed; on a socket that listens, the
    // call changes its backlog.
    match unsafe { libc::listen(listener.as_raw_fd(), connections) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set(stream: &TcpStream, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and the kernel reads exactly one
    // int from a pointer to one.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads exactly `wanted` bytes and not one more.
///
/// # Errors
/// [`HandshakeRefusal::Disconnected`] when the connection ends before that.
pub(super) async fn read_exactly(
    stream: &PollableFd<TcpStream>,
    wanted: usize,
) -> Result<Vec<u8>, HandshakeRefusal> {
    let mut bytes = vec![0; wanted];
    let mut filled = 0;
    while filled < wanted {
        match stream.get_ref().read(&mut bytes[filled..]) {
            Ok(0) => return Err(HandshakeRefusal::Disconnected),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stream
                    .readable()
                    .await
                    .map_err(|_| HandshakeRefusal::Disconnected)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(HandshakeRefusal::Disconnected),
        }
    }
    Ok(bytes)
}

/// Writes all of `bytes`.
///
/// # Errors
/// [`HandshakeRefusal::Disconnected`] when the connection ends before that.
pub(super) async fn write_all(
    stream: &PollableFd<TcpStream>,
    mut bytes: &[u8],
) -> Result<(), HandshakeRefusal> {
    while !bytes.is_empty() {
        match stream.get_ref().write(bytes) {
            Ok(0) => return Err(HandshakeRefusal::Disconnected),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stream
                    .writable()
                    .await
                    .map_err(|_| HandshakeRefusal::Disconnected)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(HandshakeRefusal::Disconnected),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(stream: &TcpStream, option: libc::c_int) -> libc::c_int {
        let (mut value, mut length) = (0, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the descriptor is open, and the kernel writes at most one int to a pointer to one.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0);
        value
    }

    #[test]
    fn a_link_whose_packets_vanish_is_given_up_by_the_kernel_idle_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        widen_backlog(&listener, 4096).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        SocketOptions::default().set_on(&stream).unwrap();
        assert_eq!(get(&stream, libc::TCP_USER_TIMEOUT), 10_000);
        assert_eq!(get(&stream, libc::TCP_KEEPIDLE), 5);
        assert_eq!(get(&stream, libc::TCP_KEEPINTVL), 1);
        assert_eq!(get(&stream, libc::TCP_KEEPCNT), 5);
        assert_eq!(get(&stream, libc::TCP_NODELAY), 1);
    }
}
