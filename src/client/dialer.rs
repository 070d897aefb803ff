//! Dials replicas for an engine: one thread per replica, so that an unreachable one holds up no other.

use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use std::io::{Read, Write};

use crate::runtime::net::handshake::{Established, Identity, Initiator, Then};
use crate::runtime::net::hello::HandshakeRefusal;
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::control::SocketOptions;
use crate::smr::crypto::LinkPublic;
use crate::smr::types::NodeId;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A link that came up, on its way to the engine.
pub(super) struct Dialled {
    pub session: usize,
    pub socket: OwnedFd,
    pub established: Established,
    pub lease: DialLease,
}

/// Held while a link is up; its drop has the replica dialled again.
#[derive(Debug)]
pub(super) struct DialLease {
    session: usize,
    node: NodeId,
    redial: Sender<usize>,
    progress: Arc<Progress>,
}

impl Drop for DialLease {
    fn drop(&mut self) {
        self.progress.set(
            self.session,
            self.node,
            LinkState::Down("the link ended".to_owned()),
        );
        // A dialer that is gone has nothing to redial for.
        let _ = self.redial.send(self.session);
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkState {
    Up,
    Down(String),
    /// The replica takes no more links of this identity: waiting is of no use while other processes have
    /// them.
    Refused(String),
}

/// Which links are up, for those who wait for it.
#[derive(Debug)]
pub(super) struct Progress {
    /// By session, then by replica.
    links: Mutex<Vec<Vec<LinkState>>>,
    changed: Condvar,
    /// Why the engine ended early.
    failure: OnceLock<String>,
    /// The engine is gone: nothing more is dialled.
    closed: AtomicBool,
}

impl Progress {
    pub(super) fn new(sessions: usize, replicas: usize) -> Self {
        let not_yet = LinkState::Down("not tried yet".to_owned());
        Self {
            links: Mutex::new(vec![vec![not_yet; replicas]; sessions]),
            changed: Condvar::new(),
            failure: OnceLock::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Has the dialers end.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn set(&self, session: usize, node: NodeId, state: LinkState) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)[session][node.index()] = state;
        self.changed.notify_all();
    }

    /// The engine ended early: nobody need wait any more.
    pub(super) fn fail(&self, why: String) {
        let _links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.failure.set(why);
        self.changed.notify_all();
    }

    /// Waits until every session has `enough` links, or says who is missing and why.
    pub(super) fn wait(&self, enough: usize, timeout: Duration) -> Result<(), String> {
        let deadline = Instant::now() + timeout;
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(why) = self.failure.get() {
                return Err(why.clone());
            }
            let up = |states: &Vec<LinkState>| states.iter().filter(|state| **state == LinkState::Up).count();
            let Some(lacking) = links.iter().find(|states| up(states) < enough) else {
                return Ok(());
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let refused = |state: &&LinkState| matches!(state, LinkState::Refused(_));
            let can_come = lacking.len() - lacking.iter().filter(refused).count();
            if left.is_zero() || can_come < enough {
                let reasons = lacking
                    .iter()
                    .enumerate()
                    .filter_map(|(index, state)| match state {
                        LinkState::Up => None,
                        LinkState::Down(reason) | LinkState::Refused(reason) => {
                            Some(format!("r{index}: {reason}"))
                        }
                    });
                return Err(reasons.collect::<Vec<_>>().join("; "));
            }
            links = self
                .changed
                .wait_timeout(links, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// One replica to dial, for every session.
pub(super) struct Target {
    pub node: NodeId,
    pub address: String,
    pub key: LinkPublic,
}

/// Starts the thread that keeps all sessions linked with one replica. It ends when the engine is gone.
pub(super) fn spawn(
    target: Target,
    identities: Arc<Vec<Identity>>,
    dialled: Sender<Dialled>,
    doorbell: Doorbell,
    progress: Arc<Progress>,
) -> std::io::Result<()> {
    let (redial, requests) = channel();
    for session in 0..identities.len() {
        // The receiver is right here.
        let _ = redial.send(session);
    }
    let name = format!("dial-{}", target.node);
    let dialer = Dialer {
        target,
        identities,
        dialled,
        doorbell,
        progress,
        redial,
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(move || dialer.run(&requests))
        .map(|_| ())
}

struct Dialer {
    target: Target,
    identities: Arc<Vec<Identity>>,
    dialled: Sender<Dialled>,
    doorbell: Doorbell,
    progress: Arc<Progress>,
    redial: Sender<usize>,
}

impl Dialer {
    fn run(&self, requests: &Receiver<usize>) {
        /// How often an idle dialer looks whether its engine is still there.
        const LOOK: Duration = Duration::from_secs(1);
        let mut waiting: Vec<(Instant, Duration, usize)> = Vec::new();
        loop {
            let due = waiting.iter().map(|(at, ..)| *at).min();
            let pause = due.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
            match requests.recv_timeout(pause) {
                Ok(session) => waiting.push((Instant::now(), RETRY_FIRST, session)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.progress.closed.load(Ordering::Acquire) {
                return;
            }
            let now = Instant::now();
            for (at, pause, session) in std::mem::take(&mut waiting) {
                if at > now {
                    waiting.push((at, pause, session));
                    continue;
                }
                match self.dial(session) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(reason) => {
                        tracing::debug!(replica = %self.target.node, %reason, "dial failed");
                        let state = match &reason {
                            DialError::Refused(HandshakeRefusal::IdentityInUse) => LinkState::Refused,
                            _ => LinkState::Down,
                        };
                        let state = state(reason.to_string());
                        self.progress.set(session, self.target.node, state);
                        waiting.push((Instant::now() + pause, (pause * 2).min(RETRY_MAX), session));
                    }
                }
            }
        }
    }

    /// Dials once; false when the engine is gone.
    fn dial(&self, session: usize) -> Result<bool, DialError> {
        let (socket, established) = connect(&self.target, &self.identities[session])?;
        let node = self.target.node;
        let lease = DialLease {
            session,
            node,
            redial: self.redial.clone(),
            progress: self.progress.clone(),
        };
        self.progress.set(session, node, LinkState::Up);
        let sent = self
            .dialled
            .send(Dialled {
                session,
                socket,
                established,
                lease,
            })
            .is_ok();
        self.doorbell.ring();
        Ok(sent)
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("{address}: {source}")]
    Unreachable { address: String, source: std::io::Error },
    #[error("{0}")]
    Refused(HandshakeRefusal),
}

pub(super) fn connect(target: &Target, identity: &Identity) -> Result<(OwnedFd, Established), DialError> {
    let unreachable = |source| DialError::Unreachable {
        address: target.address.clone(),
        source,
    };
    let mut stream = reach(&target.address).map_err(unreachable)?;
    // As replicas' links: a link whose packets vanish on the way is given up, and made again.
    SocketOptions::default().set_on(&stream).map_err(unreachable)?;
    stream
        .set_read_timeout(Some(HANDSHAKE_TIMEOUT))
        .map_err(unreachable)?;
    stream
        .set_write_timeout(Some(HANDSHAKE_TIMEOUT))
        .map_err(unreachable)?;
    let lost = |error: std::io::Error| {
        DialError::Refused(match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => HandshakeRefusal::Timeout,
            _ => HandshakeRefusal::Disconnected,
        })
    };
    let (mut initiator, mut progress) =
        Initiator::start(identity, target.node, &target.key).map_err(DialError::Refused)?;
    loop {
        stream.write_all(&progress.write).map_err(lost)?;
        match progress.then {
            Then::Established(established) => return Ok((OwnedFd::from(stream), *established)),
            Then::Read(wanted) => {
                let mut bytes = vec![0; wanted];
                stream.read_exact(&mut bytes).map_err(lost)?;
                progress = initiator.on_bytes(&bytes).map_err(DialError::Refused)?;
            }
        }
    }
}

/// Connects to the first address of a name that answers.
fn reach(name: &str) -> std::io::Result<TcpStream> {
    let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
    for address in name.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_links_of_an_engine_that_failed_is_told_why_at_once() {
        let progress = Arc::new(Progress::new(1, 4));
        let waiting = progress.clone();
        // Without the failure, this would take longer than the test may.
        let waits = std::thread::spawn(move || waiting.wait(2, Duration::from_secs(3600)));
        progress.fail("the ring is forbidden".to_owned());
        assert_eq!(waits.join().unwrap(), Err("the ring is forbidden".to_owned()));
    }
}
