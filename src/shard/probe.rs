//! What this machine allows, found by trying it.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::reactor::{Reactor, Token};

/// Makes a data shard's ring and receives a few bytes by it.
///
/// # Errors
/// What the kernel lacks or forbids.
pub fn ring() -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut reactor = Reactor::new(8, 8, 4096).map_err(|error| error.to_string())?;
    let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let mut sender = TcpStream::connect(listener.local_addr().map_err(text)?).map_err(text)?;
    let (receiver, _) = listener.accept().map_err(text)?;
    reactor.set_file(0, receiver.as_raw_fd()).map_err(text)?;
    reactor.receive(
        0,
        Token {
            owner: 0,
            operation: 0,
            slot: 0,
            generation: 0,
        },
    );
    sender.write_all(b"probe").map_err(text)?;
    let completions = reactor.wait(Some(Duration::from_secs(2))).map_err(text)?;
    let outcome = match completions.first() {
        Some(completion) if completion.result == 5 && completion.buffer.is_some() => Ok(()),
        Some(completion) => Err(format!("multishot receive failed: errno {}", -completion.result)),
        None => Err("multishot receive did not complete".to_owned()),
    };
    reactor.cancel_all();
    outcome
}

/// A resource limit of this process (the soft one); `u64::MAX` for unlimited.
#[must_use]
pub fn limit(resource: libc::__rlimit_resource_t) -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the struct it is given.
    let result = unsafe { libc::getrlimit(resource, &raw mut limit) };
    if result == 0 { limit.rlim_cur } else { 0 }
}
