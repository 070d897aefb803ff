//! Dialling: one task per peer, which brings its link up, waits until it is down, and begins again.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use glommio::io::PollableFd;
use glommio::timer::sleep;

use super::backoff::Backoff;
use super::counters::LogGate;
use super::socket::{read_exactly, write_all};
use super::{DialTarget, EstablishedLink, LinkLease, Shard};
use crate::runtime::net::handshake::{Established, Initiator, Then};
use crate::runtime::net::hello::{HandshakeRefusal, Peer};
use crate::smr::crypto::LinkPublic;

/// Log lines about one unreachable peer: at most one per this interval.
const DIAL_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why an attempt at a peer brought no link. It is tried again, whatever the reason: an operator may be about
/// to correct it.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("the peer has no link key in the cluster's configuration")]
    NoKey,
    #[error("its address does not resolve: {0}")]
    Unresolved(#[source] io::Error),
    #[error("it does not answer: {0}")]
    Unreachable(#[source] io::Error),
    #[error(transparent)]
    Refused(#[from] HandshakeRefusal),
}

/// Keeps a link to `target` up until it is cancelled.
pub(super) async fn keep_linked(shard: Rc<Shard>, target: DialTarget) {
    let peer = target.node;
    let limits = shard.limits.backoff;
    let mut backoff = Backoff::new(limits, shard.seed.rotate_left(32) ^ u64::from(peer.get()));
    let failure_log = LogGate::new(DIAL_LOG_INTERVAL);
    for attempt in 0.. {
        match dial(&shard, &target, attempt).await {
            Ok((stream, established)) => {
                let (lease, down) = LinkLease::new();
                let since = Instant::now();
                tracing::info!(%peer, address = target.address, "link up");
                shard.hand_out(EstablishedLink {
                    socket: stream.into(),
                    established,
                    dialled: true,
                    lease,
                });
                let _ = down.await;
                tracing::info!(%peer, address = target.address, "link down");
                // A link that breaks as soon as it is up is no reason to dial at full speed.
                if since.elapsed() >= limits.max {
                    backoff.reset();
                }
            }
            Err(error) => {
                match &error {
                    DialError::NoKey | DialError::Unresolved(_) => shard.counters.on_unresolved(),
                    DialError::Unreachable(_) => shard.counters.on_unreachable(),
                    DialError::Refused(refusal) => shard.counters.on_refused_by_peer(*refusal),
                }
                if let Some(held_back) = failure_log.pass(Instant::now()) {
                    tracing::warn!(%peer, address = target.address, held_back, "no link: {error}");
                }
            }
        }
        sleep(backoff.delay()).await;
    }
}

/// One attempt. Each takes the next address the name has, and has the deadline for connecting and shaking
/// hands.
async fn dial(
    shard: &Shard,
    target: &DialTarget,
    attempt: usize,
) -> Result<(TcpStream, Box<Established>), DialError> {
    let key = shard
        .directory
        .link_key(Peer::Replica(target.node))
        .ok_or(DialError::NoKey)?;
    let addresses = resolve(&target.address).await.map_err(DialError::Unresolved)?;
    let address = addresses[attempt % addresses.len()];
    glommio::future::timeout(shard.limits.handshake_deadline, async {
        let stream = connect(address).await.map_err(DialError::Unreachable)?;
        shard
            .limits
            .socket
            .apply(&stream)
            .map_err(DialError::Unreachable)?;
        let stream = PollableFd::new(stream).map_err(|error| DialError::Unreachable(error.into()))?;
        let established = initiate(shard, target, &key, &stream).await?;
        Ok((stream.into_inner(), established))
    })
    .await
    .unwrap_or(Err(DialError::Refused(HandshakeRefusal::Timeout)))
}

/// Connects through the executor's ring.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = glommio::net::TcpStream::connect(address).await?;
    // SAFETY: `into_raw_fd` gives up the open descriptor, which nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) };
    Ok(TcpStream::from(socket))
}

/// The initiator's side of the exchange.
async fn initiate(
    shard: &Shard,
    target: &DialTarget,
    key: &LinkPublic,
    stream: &PollableFd<TcpStream>,
) -> Result<Box<Established>, HandshakeRefusal> {
    let (mut initiator, mut progress) = Initiator::start(&shard.identity, target.node, key)?;
    loop {
        write_all(stream, &progress.write).await?;
        match progress.then {
            Then::Read(wanted) => {
                let bytes = read_exactly(stream, wanted).await?;
                progress = initiator.on_bytes(&bytes)?;
            }
            Then::Established(established) => return Ok(established),
        }
    }
}

/// The addresses of `host:port`, never empty.
///
/// A name is looked up on a thread made for it: a resolver that hangs then delays only this peer, and neither
/// the executor nor its end. At most one per peer is under way.
async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let (answer, answered) = oneshot::channel();
    let name = address.to_owned();
    thread::Builder::new().name("resolve".to_owned()).spawn(move || {
        let addresses = name.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        let _ = answer.send(addresses);
    })?;
    let addresses = answered
        .await
        .unwrap_or_else(|_| Err(io::Error::other("the lookup ended without an answer")))?;
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}
