//! The control shard: one mostly idle glommio executor per party that accepts, dials, shakes hands and
//! reconnects. A link that is up leaves it at once: its socket and keys go to a data shard.
//!
//! ```text
//!  listening socket ─► accept ─► Noise responder ─► place? ─┐
//!                                                           ├─► EstablishedLink { socket, keys, lease } ─► data shard
//!  peers to dial ─► resolve ─► connect ─► Noise initiator ──┘                                    │
//!        ▲                                                                                       │
//!        └────────── back-off ◄────────── the lease is dropped: the link is down ◄───────────────┘
//! ```
//!
//! # Which glommio
//! `glommio-ng` 0.12.0, renamed. Under stress (5 executors, 2,000 connections, half broken off) `glommio`
//! 0.9.0 leaked a descriptor per executor and lost up to 2 of 1,000 connections when accepts were dropped as
//! they completed; it needs `lockfree`, unsound by advisory, and cannot await descriptors it did not make, as
//! `PollableFd` does for the plain sockets here. ng had none of these faults. Other threads wake it through a
//! future's waker: no slower than a pipe (13 µs), with nothing standing by. Neither reads a byte too many;
//! both are silent when idle.
//!
//! # Invariants
//! - Every wait for a stranger has an end: handshakes as a whole have a deadline, and a bounded number may be
//!   under way at once. When all places are taken, those who said nothing go first, then those of the address
//!   that has most.
//! - A pair of replicas is linked by the higher one dialling the lower one, never both ways.
//! - An accepted link holds a place until its lease is dropped; a dialled one is dialled again from then on.

mod backoff;
mod connection_slots;
mod connector;
mod counters;
mod handshakes;
mod listener;
mod socket;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, Task};

use crate::runtime::flight::FlightPen;
use crate::runtime::net::handshake::{Directory, Established, Identity};
use crate::runtime::shard::Alarm;
use crate::runtime::shard::probe;
use crate::runtime::shard::reactor::{Reactor, ReactorError, remedy};
use crate::smr::types::NodeId;
use crate::smr::types::Peer;

pub use backoff::BackoffLimits;
pub use connection_slots::ConnectionLimits;
pub use counters::ControlCounters;
pub use socket::SocketOptions;

/// The executor's own I/O buffers: the least it takes. Handshakes use none of it.
const IO_MEMORY_BYTES: usize = 64 * 1024;
/// With less memory to lock glommio makes no executor.
const LOCKED_BYTES: u64 = 512 << 10;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Log lines about refusals: at most one per this interval, the others are counted in it.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A replica this party may have to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialTarget {
    /// The replica.
    pub node: NodeId,
    /// Where it listens, as `host:port`. A name is looked up again at every attempt.
    pub address: String,
}

/// The bounds a control shard keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlLimits {
    /// How many accepted connections may be in their handshake at once.
    pub handshakes_max: usize,
    /// How long one handshake may take as a whole, from the accept or the dialling on.
    pub handshake_deadline: Duration,
    /// How long a handshake whose hello has come is safe from being ended in favour of a connection that
    /// waits to be accepted, when `handshakes_max` are under way. It shrinks while strangers crowd in and
    /// nobody comes through.
    pub handshake_grace: Duration,
    /// How long who has said nothing yet is safe from it: longer than a first packet takes that follows its
    /// connection's.
    pub silent_grace: Duration,
    /// How long accepting pauses when the process is out of descriptors or the kernel out of memory.
    pub accept_pause: Duration,
    /// Who may have a link.
    pub slots: ConnectionLimits,
    /// The delays between attempts at a peer.
    pub backoff: BackoffLimits,
    /// The options of every socket.
    pub socket: SocketOptions,
}

impl Default for ControlLimits {
    fn default() -> Self {
        Self {
            handshakes_max: 256,
            handshake_deadline: Duration::from_secs(5),
            handshake_grace: Duration::from_millis(500),
            silent_grace: Duration::from_millis(100),
            accept_pause: Duration::from_millis(50),
            slots: ConnectionLimits::default(),
            backoff: BackoffLimits::default(),
            socket: SocketOptions::default(),
        }
    }
}

/// What a control shard is made of.
pub struct ControlConfig {
    /// Who we are in handshakes.
    pub identity: Identity,
    /// The listed keys of everybody else.
    pub directory: Arc<dyn Directory + Send + Sync>,
    /// Where to accept: a bound, listening socket. `None` for a party that only dials.
    pub listener: Option<TcpListener>,
    /// The cluster's replicas. Of these a replica dials those with lower ids; a client dials all.
    pub replicas: Vec<DialTarget>,
    /// The core to be pinned to. `None` leaves the thread where the scheduler puts it.
    pub cpu: Option<usize>,
    /// The bounds.
    pub limits: ControlLimits,
    /// Makes the back-off's jitter.
    pub seed: u64,
    /// Told when the shard's thread panics.
    pub alarm: Alarm,
    /// What it does now and then beside its work; `None` for nothing.
    pub beat: Option<Beat>,
    /// Records what is refused.
    pub pen: FlightPen,
}

/// What a control shard does at regular times: proof that it lives, for whoever supervises it.
pub struct Beat {
    /// The time between two.
    pub every: Duration,
    /// Called on the shard's thread, which it must not block.
    pub call: Box<dyn FnMut() + Send>,
}

/// A link that is up, on its way to the data shard that will serve it.
///
/// A peer that restarted comes back before its old link is known to be dead: whoever takes a second link with
/// one replica should drop the first.
#[derive(Debug)]
pub struct EstablishedLink {
    /// The connected socket: non-blocking, `TCP_NODELAY`, and no byte behind the handshake has been read from
    /// it.
    pub socket: OwnedFd,
    /// The proven peer, and the keys of both directions.
    pub established: Box<Established>,
    /// Whether we dialled it.
    pub dialled: bool,
    /// To be held for as long as the link is up.
    pub lease: LinkLease,
}

/// Stands for one link that is up. Dropping it, from any thread, tells the control shard that the link is
/// down: a place is free again, or the peer is dialled again.
#[derive(Debug)]
pub struct LinkLease(#[expect(dead_code, reason = "its drop is the message")] oneshot::Sender<()>);

/// Completes when the lease is dropped.
type LinkDown = oneshot::Receiver<()>;

impl LinkLease {
    fn new() -> (Self, LinkDown) {
        let (lease, down) = oneshot::channel();
        (Self(lease), down)
    }
}

/// Why there is no control shard, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No thread could be made.
    #[error("the control shard's thread does not start")]
    Thread(#[source] io::Error),
    /// No ring could be made: io_uring is forbidden or too old.
    #[error("the control shard's ring cannot be set up{}: {source}", on_core(*cpu))]
    Ring {
        /// The core it was to be pinned to.
        cpu: Option<usize>,
        /// What a ring of a data shard lacks here.
        #[source]
        source: ReactorError,
    },
    /// No executor could be made, though a ring can: the core is not ours, or descriptors are lacking.
    #[error("the control shard's ring cannot be set up{}: {source}; {}", on_core(*cpu), remedy(source))]
    Executor {
        /// The core it was to be pinned to.
        cpu: Option<usize>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The process may lock too little memory for the executor.
    #[error(
        "this process may lock {} KiB of memory, and the control shard's ring takes {} KiB; raise the limit: ulimit -l 65536, \
         LimitMEMLOCK=64M in the unit, --ulimit memlock=67108864 for a container",
        limit >> 10, needed >> 10
    )]
    LockedMemory {
        /// How much it may lock, in bytes.
        limit: u64,
        /// How much is needed.
        needed: u64,
    },
    /// The listening socket is of no use.
    #[error("the listening socket cannot be used")]
    Listener(#[source] io::Error),
    /// The shard's thread panicked: a bug, here or in the taker of its links.
    #[error("the control shard panicked")]
    Panicked,
}

/// Starts control shards.
#[derive(Debug)]
pub struct ControlShard;

impl ControlShard {
    /// Starts one on a thread of its own, named `control-` and the party's name.
    ///
    /// `on_link` is called on that thread with each link that comes up, and must not block. A link it drops
    /// is closed and, if we dialled it, tried again after a delay.
    ///
    /// # Errors
    /// When the thread or its executor does not start, or the listening socket cannot be used.
    pub fn spawn(
        config: ControlConfig,
        on_link: impl FnMut(EstablishedLink) + Send + 'static,
    ) -> Result<ControlHandle, ControlError> {
        let local_addr = match &config.listener {
            Some(listener) => {
                listener.set_nonblocking(true).map_err(ControlError::Listener)?;
                socket::widen_backlog(listener, BACKLOG).map_err(ControlError::Listener)?;
                Some(listener.local_addr().map_err(ControlError::Listener)?)
            }
            None => None,
        };
        let counters = Arc::new(ControlCounters::default());
        let (stop, stopped) = oneshot::channel();
        let (started, start) = mpsc::sync_channel(1);
        let thread = config
            .alarm
            .clone()
            .spawn(format!("control-{}", config.identity.own), {
                let counters = Arc::clone(&counters);
                move || match executor(config.cpu) {
                    Ok(executor) => {
                        let _ = started.send(Ok(()));
                        executor.run(run(config, counters, Box::new(on_link), stopped));
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })
            .map_err(ControlError::Thread)?;
        match start.recv() {
            Ok(Ok(())) => Ok(ControlHandle {
                stop: Some(stop),
                thread: Some(thread),
                counters,
                local_addr,
            }),
            Ok(Err(error)) => {
                let _ = thread.join();
                Err(error)
            }
            Err(mpsc::RecvError) => {
                let _ = thread.join();
                Err(ControlError::Panicked)
            }
        }
    }
}

/// Whether a control shard could start here.
///
/// # Errors
/// As its start would say it.
pub fn expect_startable() -> Result<(), ControlError> {
    let probe = thread::spawn(|| executor(None).map(drop));
    probe.join().map_err(|_| ControlError::Panicked)?
}

fn on_core(cpu: Option<usize>) -> String {
    cpu.map_or_else(String::new, |cpu| format!(" on core {cpu}"))
}

fn executor(cpu: Option<usize>) -> Result<LocalExecutor, ControlError> {
    LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
        .io_memory(IO_MEMORY_BYTES)
        .spin_before_park(Duration::ZERO)
        .make()
        .map_err(|error| match probe::limit(libc::RLIMIT_MEMLOCK) {
            limit if limit < LOCKED_BYTES => ControlError::LockedMemory {
                limit,
                needed: LOCKED_BYTES,
            },
            // The executor's own words name no remedy.
            _ => match Reactor::new(8, 8, 4096) {
                Err(source) => ControlError::Ring { cpu, source },
                Ok(_) => ControlError::Executor {
                    cpu,
                    source: error.into(),
                },
            },
        })
}

/// A running control shard. Dropping it stops the shard as [`ControlHandle::stop`] does.
#[derive(Debug)]
pub struct ControlHandle {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
    counters: Arc<ControlCounters>,
    local_addr: Option<SocketAddr>,
}

impl ControlHandle {
    /// The address it listens at, if it does.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// What it has counted so far.
    #[must_use]
    pub fn counters(&self) -> &Arc<ControlCounters> {
        &self.counters
    }

    /// Whether its thread is alive. It ends by itself only by a panic.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Stops listening and dialling, ends the handshakes under way, closes their sockets and joins the
    /// thread. Links that were handed out stay with whoever took them.
    ///
    /// # Errors
    /// When the shard had panicked.
    pub fn stop(mut self) -> Result<(), ControlError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ControlError> {
        drop(self.stop.take());
        match self.thread.take() {
            Some(thread) => thread.join().map_err(|_| ControlError::Panicked),
            None => Ok(()),
        }
    }
}

impl Drop for ControlHandle {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// What the tasks of one control shard share.
struct Shard {
    identity: Identity,
    directory: Arc<dyn Directory + Send + Sync>,
    limits: ControlLimits,
    seed: u64,
    counters: Arc<ControlCounters>,
    slots: Rc<connection_slots::ConnectionSlots>,
    on_link: RefCell<Box<dyn FnMut(EstablishedLink)>>,
    refusal_log: counters::LogGate,
    handshakes: handshakes::Handshakes,
    /// The tasks of accepted connections, until they are found in `ended`.
    tasks: RefCell<BTreeMap<u64, Task<()>>>,
    ended: RefCell<Vec<u64>>,
    next_task: Cell<u64>,
    pen: FlightPen,
}

impl Shard {
    fn hand_out(&self, link: EstablishedLink) {
        self.counters.on_link(link.dialled);
        (self.on_link.borrow_mut())(link);
    }
}

async fn run(
    config: ControlConfig,
    counters: Arc<ControlCounters>,
    on_link: Box<dyn FnMut(EstablishedLink)>,
    stopped: oneshot::Receiver<()>,
) {
    let own = config.identity.own;
    let shard = Rc::new(Shard {
        identity: config.identity,
        directory: config.directory,
        limits: config.limits,
        seed: config.seed,
        counters,
        slots: connection_slots::ConnectionSlots::new(config.limits.slots),
        on_link: RefCell::new(on_link),
        refusal_log: counters::LogGate::new(REFUSAL_LOG_INTERVAL),
        handshakes: handshakes::Handshakes::default(),
        tasks: RefCell::default(),
        ended: RefCell::default(),
        next_task: Cell::new(0),
        pen: config.pen,
    });
    let mut tasks = Vec::new();
    if let Some(Beat { every, mut call }) = config.beat {
        tasks.push(glommio::spawn_local(async move {
            loop {
                call();
                glommio::timer::sleep(every).await;
            }
        }));
    }
    if let Some(listener) = config.listener {
        tasks.push(glommio::spawn_local(listener::accept_all(
            Rc::clone(&shard),
            listener,
        )));
    }
    for target in config.replicas {
        if dials(own, target.node) {
            tasks.push(glommio::spawn_local(connector::keep_linked(
                Rc::clone(&shard),
                target,
            )));
        }
    }
    let _ = stopped.await;
    for task in tasks {
        task.cancel().await;
    }
    let accepted = shard.tasks.take();
    for task in accepted.into_values() {
        task.cancel().await;
    }
}

/// Whether `own` is the one that dials, of itself and replica `other`.
fn dials(own: Peer, other: NodeId) -> bool {
    match own {
        Peer::Replica(node) => other < node,
        Peer::Client(_) => true,
    }
}
