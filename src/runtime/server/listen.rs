use std::net::TcpListener;
use std::time::{Duration, Instant};

/// How long an address may be taken by a replica that was killed a moment ago.
const LISTEN_PATIENCE: Duration = Duration::from_secs(3);

/// Listens at an address. The kernel closes the sockets of a killed process's rings some time after the
/// process is gone; until then the address is taken.
pub(super) fn listen(address: &str) -> std::io::Result<TcpListener> {
    let deadline = Instant::now() + LISTEN_PATIENCE;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}
