//! Runs sessions on a thread with a ring of its own: the client's data shard.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::authenticator::Authentication;
use super::config::{AnswerRule, SessionConfig};
use super::dialer::{self, Dialled, Progress, Target};
use super::outcome::{Outcome, Output};
use super::session::Session;
use crate::runtime::config::{ClientConfig, ClusterConfig};
use crate::runtime::flight::FlightPen;
use crate::runtime::metrics::{Metrics, TurnTimes};
use crate::runtime::net::handshake::Identity;
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::data::{self, Lifecycle, ShardContext};
use crate::runtime::shard::pulse::Pulse;
use crate::runtime::shard::reactor::{Completion as RingCompletion, Reactor};
use crate::runtime::shard::roles::{Role, STEP_MESSAGES};
use crate::runtime::shard::wires::{QueueBudgets, WireId, WireLimits, Wires};
use crate::runtime::shard::{ShardError, panicked};
use crate::smr::crypto::MacKey;
use crate::smr::messages::lengths::operations_room;
use crate::smr::messages::{Envelope, Family, Kind, LinkMessage, encode};
use crate::smr::preprocessing::ClientAuth;
use crate::smr::types::Peer;
use crate::smr::types::{NodeId, Time};

/// How long a replica may say nothing, not even that it is there, before its link is made again.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What may wait to be sent to one replica, in bytes: of frames, and of what is about the link.
const FRAMES_QUEUE_BYTES: usize = 256 << 20;
const LINK_QUEUE_BYTES: usize = 1 << 20;

/// The end of some operations of one session.
#[derive(Debug)]
pub struct Completion {
    /// The session's number.
    pub session: usize,
    /// The operations' names.
    pub tokens: Vec<u64>,
    /// How they ended.
    pub outcome: Outcome,
}

/// What makes an engine's operations: an application's calls, or a load generator. Runs on the engine's
/// thread.
pub trait Driver: Send + 'static {
    /// Submits what there is to submit; true if there was anything.
    fn step(&mut self, now: Time, sessions: &mut [Session]) -> bool;

    /// Operations ended.
    fn on_ended(&mut self, now: Time, completion: Completion);

    /// Whether a step would submit something. Asked before the engine sleeps.
    fn has_input(&self) -> bool;

    /// When a step is due even without input.
    fn next_timeout(&self) -> Option<Time>;
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No client was given.
    #[error("an engine needs at least one client")]
    NoClient,
    /// A replica's link key makes no MAC key.
    #[error("replica r{0}: its link key is of small order")]
    ReplicaKey(u16),
    /// The process is out of descriptors or threads.
    #[error("cannot start the client's threads: {0}")]
    Resources(#[source] std::io::Error),
}

/// Starts engines.
pub struct Engine;

/// A running engine. Dropping it stops it.
pub struct EngineHandle {
    progress: Arc<Progress>,
    doorbell: Doorbell,
    lifecycle: Lifecycle,
    thread: Option<JoinHandle<()>>,
    thread_name: String,
    failure: Arc<Mutex<Option<ShardError>>>,
    started: Instant,
}

impl EngineHandle {
    /// Waits until every session has links with `enough` replicas.
    ///
    /// # Errors
    /// After `timeout`: who is missing, and why.
    pub fn wait_connected(&self, enough: usize, timeout: Duration) -> Result<(), String> {
        self.progress.wait(enough, timeout)
    }

    /// Wakes the engine: its driver has input.
    pub fn wake(&self) {
        self.doorbell.ring_if_parked();
    }

    /// The engine's clock, as its driver sees it.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::from_nanos(self.started.elapsed().as_nanos() as u64)
    }

    /// CPU time of the engine's thread so far.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        crate::runtime::server::thread_cpu_time(|name| name == self.thread_name)
    }

    /// Why the engine ended early, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(ToString::to_string)
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.progress.close();
        self.lifecycle.drain();
        self.doorbell.ring();
        if let Some(thread) = self.thread.take() {
            // Its failure was recorded.
            let _ = thread.join();
        }
    }
}

impl Engine {
    /// Starts an engine for these clients of one cluster, driven by `driver`. `name` names its thread (at
    /// most 15 bytes).
    ///
    /// # Errors
    /// When there is no client, a key is bad, or the process is out of resources.
    pub fn start(
        name: &str,
        configs: &[ClientConfig],
        core: Option<usize>,
        driver: Box<dyn Driver>,
    ) -> Result<EngineHandle, EngineError> {
        let first = configs.first().ok_or(EngineError::NoClient)?;
        let cluster = &first.cluster;
        let replicas = cluster.replicas.len();
        let sessions = configs
            .iter()
            .map(|config| session_config(config).map(Session::new))
            .collect::<Result<Vec<_>, _>>()?;
        let progress = Arc::new(Progress::new(configs.len(), replicas));
        let doorbell = Doorbell::new().map_err(EngineError::Resources)?;
        let links = dial(configs, cluster, &doorbell, &progress)?;
        let capacity = u16::try_from(configs.len() * replicas + 16).unwrap_or(u16::MAX);
        let envelope = Envelope::new(Kind::Link, cluster.cluster_id(), cluster.epoch());
        let role = EngineRole {
            wires: Wires::new(0, capacity),
            limits: wire_limits(cluster),
            ping: encode(envelope, &LinkMessage::Ping, 8),
            links,
            slots: vec![0; usize::from(capacity)],
            wire_of: vec![vec![None; replicas]; sessions.len()],
            sessions,
            driver,
        };
        let lifecycle = Lifecycle::default();
        let started = Instant::now();
        let context = ShardContext {
            name: name.to_owned(),
            core,
            doorbell: doorbell.clone(),
            lifecycle: lifecycle.clone(),
            started,
            spin: Duration::ZERO,
            files: u32::from(capacity),
            receive_buffers: 64,
            pulse: Pulse::new(),
            receive_buffer_bytes: 64 << 10,
            metrics: Arc::new(Metrics::new(NodeId::new(0))),
            times: Arc::new(TurnTimes::new(&[])),
            pen: FlightPen::default(),
        };
        let failure = Arc::new(Mutex::new(None));
        let thread = spawn(context, role, failure.clone(), progress.clone())?;
        let thread_name = name.to_owned();
        Ok(EngineHandle {
            progress,
            doorbell,
            lifecycle,
            thread: Some(thread),
            thread_name,
            failure,
            started,
        })
    }
}

/// Has every replica dialled by every client of this cluster; their links come out of the receiver.
fn dial(
    configs: &[ClientConfig],
    cluster: &ClusterConfig,
    doorbell: &Doorbell,
    progress: &Arc<Progress>,
) -> Result<Receiver<Dialled>, EngineError> {
    let identities = configs.iter().map(|config| Identity {
        cluster: cluster.cluster_id(),
        application: cluster.application,
        epoch: cluster.epoch(),
        own: Peer::Client(config.client),
        secret: config.keys.link.clone(),
    });
    let identities: Arc<Vec<Identity>> = Arc::new(identities.collect());
    let (dialled, links) = channel();
    for replica in &cluster.replicas {
        let target = Target {
            node: NodeId::new(replica.id),
            address: replica.address.clone(),
            key: replica.link_key,
        };
        dialer::spawn(
            target,
            identities.clone(),
            dialled.clone(),
            doorbell.clone(),
            progress.clone(),
        )
        .map_err(EngineError::Resources)?;
    }
    Ok(links)
}

fn wire_limits(cluster: &ClusterConfig) -> WireLimits {
    WireLimits {
        record_bytes_max: cluster.lengths().reply_record(),
        queues: QueueBudgets {
            reconfiguration: LINK_QUEUE_BYTES,
            protocol: 0,
            application: FRAMES_QUEUE_BYTES,
            state_transfer: 0,
        },
        queues_bytes_max: usize::MAX,
        backlog_bytes_max: 16 << 20,
        silence_max: SILENCE_MAX,
    }
}

/// Runs the engine on a thread of its own. Why it ends early is kept in `failed`, and told to whoever waits
/// for `progress`.
fn spawn(
    context: ShardContext,
    role: EngineRole,
    failed: Arc<Mutex<Option<ShardError>>>,
    progress: Arc<Progress>,
) -> Result<JoinHandle<()>, EngineError> {
    let thread = std::thread::Builder::new().name(context.name.clone());
    let thread = thread.spawn(move || {
        let mut roles: [Box<dyn Role>; 1] = [Box::new(role)];
        let run = std::panic::AssertUnwindSafe(|| data::run(&context, &mut roles));
        let ended = std::panic::catch_unwind(run)
            .unwrap_or_else(|panic| Err(panicked(context.name.clone(), &*panic)));
        if let Err(error) = ended {
            progress.fail(format!("the client's engine failed: {error}"));
            tracing::error!(%error, "the client's engine failed");
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    });
    thread.map_err(EngineError::Resources)
}

fn session_config(config: &ClientConfig) -> Result<SessionConfig, EngineError> {
    let cluster = &config.cluster;
    let id = cluster.cluster_id();
    let signing = config.keys.signing.clone();
    let authentication = match cluster.agreement.client_auth {
        ClientAuth::Signature => Authentication::Signature(signing),
        ClientAuth::Mac => {
            let keys = cluster.replicas.iter().map(|replica| {
                MacKey::between(&config.keys.link, &replica.link_key, id)
                    .ok_or(EngineError::ReplicaKey(replica.id))
            });
            Authentication::Macs(keys.collect::<Result<_, _>>()?, signing)
        }
    };
    let room = operations_room(cluster.agreement.frame_bytes_max, cluster.replicas.len());
    // Their table takes half of the room at most.
    let operations_max = config
        .tuning
        .frame_operations_max
        .min(cluster.agreement.frame_operations_max)
        .min(room / 8)
        .max(1);
    Ok(SessionConfig {
        cluster: id,
        epoch: cluster.epoch(),
        client: config.client,
        quorum: cluster.quorum(),
        leaders: config.leaders,
        answers: AnswerRule::new(cluster.quorum(), cluster.agreement.unordered, config.tuning.reads),
        authentication,
        frame_operations_max: operations_max,
        frame_bytes_max: room - 4 * operations_max,
        frames_in_flight_max: config.tuning.frames_in_flight_max,
        operations_max: config.tuning.operations_max,
        retransmit_timeout: Duration::from_millis(config.tuning.retransmit_timeout_ms),
        seed: rand::random(),
        process: rand::random(),
    })
}

struct EngineRole {
    wires: Wires,
    limits: WireLimits,
    ping: Bytes,
    links: Receiver<Dialled>,
    /// The session of each wire's slot.
    slots: Vec<usize>,
    /// By session, then by replica.
    wire_of: Vec<Vec<Option<WireId>>>,
    sessions: Vec<Session>,
    driver: Box<dyn Driver>,
}

impl EngineRole {
    fn take_links(&mut self, now: Time, reactor: &mut Reactor) {
        while let Ok(Dialled {
            session,
            socket,
            established,
            lease,
        }) = self.links.try_recv()
        {
            let Peer::Replica(node) = established.peer else {
                continue;
            };
            let id = self
                .wires
                .add(reactor, socket, established, Box::new(lease), self.limits);
            self.wire_of[session][node.index()] = id;
            if let Some(id) = id {
                self.slots[id.slot()] = session;
                self.sessions[session].on_link_down(node);
                self.sessions[session].on_link_up(now, node);
            }
        }
    }

    fn take_messages(&mut self) -> bool {
        let mut any = false;
        for _ in 0..4 * STEP_MESSAGES {
            let Some((id, peer, message)) = self.wires.next_message(true) else {
                break;
            };
            any = true;
            if let Peer::Replica(from) = peer {
                self.sessions[self.slots[id.slot()]].on_message(from, &message);
            }
        }
        any
    }

    /// Carries out what the sessions want; true if there was anything.
    fn take_outputs(&mut self, now: Time) -> bool {
        let mut any = false;
        for (number, session) in self.sessions.iter_mut().enumerate() {
            for output in session.drain_outputs() {
                any = true;
                match output {
                    Output::Send { to, message } => {
                        // A lost message is asked again on the session's timeout.
                        if let Some(id) = self.wire_of[number][to.index()] {
                            let _ = self.wires.queue(id, Family::of(&message), message);
                        }
                    }
                    Output::Ended { tokens, outcome } => {
                        self.driver.on_ended(
                            now,
                            Completion {
                                session: number,
                                tokens,
                                outcome,
                            },
                        );
                    }
                }
            }
        }
        any
    }
}

impl Role for EngineRole {
    fn step(&mut self, now: Time, reactor: &mut Reactor) -> bool {
        self.take_links(now, reactor);
        let messages = self.take_messages();
        self.sessions.iter_mut().for_each(|session| session.on_time(now));
        let ended = self.take_outputs(now);
        let submitted = self.driver.step(now, &mut self.sessions);
        messages || ended || submitted
    }

    fn finish(&mut self, now: Time, reactor: &mut Reactor) -> bool {
        self.sessions.iter_mut().for_each(|session| session.flush(now));
        let any = self.take_outputs(now);
        self.wires.keep_alive(now, &self.ping);
        self.wires.flush(reactor);
        for (id, _, _) in self.wires.take_closed() {
            let session = self.slots[id.slot()];
            for (node, wire) in NodeId::all(self.wire_of[session].len()).zip(&mut self.wire_of[session]) {
                if *wire == Some(id) {
                    *wire = None;
                    self.sessions[session].on_link_down(node);
                }
            }
        }
        any
    }

    fn on_completion(&mut self, reactor: &mut Reactor, completion: RingCompletion) {
        self.wires.on_completion(reactor, completion);
    }

    fn has_input(&self) -> bool {
        self.wires.has_messages() || self.driver.has_input()
    }

    fn next_timeout(&self) -> Option<Time> {
        let sessions = self.sessions.iter().filter_map(Session::next_timeout);
        let others = self
            .driver
            .next_timeout()
            .into_iter()
            .chain(self.wires.next_look());
        sessions.chain(others).min()
    }

    fn drain(&mut self, _: bool) -> bool {
        true
    }

    fn is_settled(&self) -> bool {
        true
    }
}
