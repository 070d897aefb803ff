//! From a configuration to running shards: makes the lanes, the roles and the threads.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_channel::mpsc as async_mpsc;

use super::handle::{HandleShared, ReplicaHandle};
use super::keepers::{images_name, keeper_name, shelf_name, start_keepers};
use super::listen::listen;
use super::recovery::recover;
use super::wiring::{Homes, make_lanes};
use super::{ReplicaError, monolithic_server::Parts};
use crate::runtime::config::{
    ClusterConfig, Durability, ReplicaConfig, RoleKind, StateTransferConfig, Topology,
};
use crate::runtime::metrics::Metrics;
use crate::runtime::net::handshake::Identity;
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::control::{
    BackoffLimits, Beat, ControlConfig, ControlHandle, ControlLimits, ControlShard, DialTarget,
    EstablishedLink, PlaceLimits,
};
use crate::runtime::shard::cores::Cores;
use crate::runtime::shard::crew::Crew;
use crate::runtime::shard::data::{self, Lifecycle, ShardContext};
use crate::runtime::shard::faults::{Faults, Interceptor};
use crate::runtime::shard::lanes::Outlet;
use crate::runtime::shard::memory::allow_huge_pages;
use crate::runtime::shard::pulse::Vitals;
use crate::runtime::shard::roles::{
    ConsensusRole, ExecutionRole, LogRole, NetworkRole, PreprocessRole, Role,
};
use crate::runtime::shard::wires::WireLimits;
use crate::runtime::shard::{Alarm, ShardError, panicked};
use crate::runtime::storage::AbstentionMark;
use crate::runtime::storage::keeper::Keeper;
use crate::runtime::storage::shelf::Shelf;
use crate::smr::crypto::{Digester, MacKey};
use crate::smr::execution::{Executor, ReadGate, ReadLimits};
use crate::smr::messages::lengths::VOTES_MAX;
use crate::smr::node::{Consensus, Execution, Preprocessing};
use crate::smr::preprocessing::{
    ClientAuth, ClientDirectory, ClientKeys, Expectations, FrameChecker, PoolLimits, ProposalGate,
    RequestPool, SigningDuty,
};
use crate::smr::replica::{MUST_SIGN_FOR, Protocols, Replica, ReplicaSettings, Stack};
use crate::smr::types::{Lsn, Peer};

/// How many full queues of clients are held for all together at a shard that serves sockets; each client has its share beside.
const CLIENT_QUEUES: usize = 8;

/// What was started.
pub(super) struct Assembly {
    pub handle: ReplicaHandle,
    pub control: ControlHandle,
    /// Ends with the replica: it has the data directory open.
    pub keeper: Option<(Keeper, Shelf)>,
    /// What ended.
    pub ended: async_mpsc::UnboundedReceiver<Ended>,
    pub shards: usize,
}

/// The end of one of a replica's threads.
pub(super) enum Ended {
    /// A data shard's; each ends once.
    Shard(Result<(), ShardError>),
    /// Another thread's, by a panic: without it the replica is a shell of itself.
    Died(ShardError),
}

fn client_directory(config: &ReplicaConfig) -> Result<ClientDirectory, ReplicaError> {
    let cluster = &config.node.cluster;
    let auth = cluster.agreement.client_auth;
    let keys = cluster.clients.iter().map(|client| {
        let mac = match auth {
            ClientAuth::Signature => None,
            ClientAuth::Mac => {
                let key = MacKey::between(&config.node.keys.link, &client.link_key, cluster.cluster_id());
                Some(key.ok_or(ReplicaError::ClientKey {
                    client: client.id,
                    auth,
                })?)
            }
        };
        Ok(ClientKeys {
            verifying: client.signing_key,
            mac,
            must_sign: SigningDuty::default(),
        })
    });
    Ok(ClientDirectory::new(keys.collect::<Result<_, ReplicaError>>()?))
}

fn wire_limits(config: &ReplicaConfig) -> (WireLimits, WireLimits) {
    let lengths = config.node.cluster.lengths();
    let silence_max = Duration::from_millis(config.limits.link_silence_ms);
    let replica = WireLimits {
        record_bytes_max: lengths.replica_record(),
        queue_bytes_max: config.limits.replica_queue_bytes_max,
        queues_bytes_max: usize::MAX,
        backlog_bytes_max: 16 << 20,
        silence_max,
    };
    let client = WireLimits {
        record_bytes_max: lengths.request_record(),
        queue_bytes_max: config.limits.client_queue_bytes_max,
        queues_bytes_max: CLIENT_QUEUES * config.limits.client_queue_bytes_max,
        backlog_bytes_max: 1 << 20,
        silence_max,
    };
    (replica, client)
}

/// What clients may have waiting of reads beside the order, as it follows from what they may have of the others.
fn read_limits(pool: &PoolLimits) -> ReadLimits {
    ReadLimits::of_pool(pool.frames_per_client, pool.bytes_per_client, pool.bytes_max)
}

fn start_control(
    config: &ReplicaConfig,
    topology: &Topology,
    listener: TcpListener,
    mut links: Vec<Outlet<EstablishedLink>>,
    alarm: Alarm,
    beat: Beat,
) -> Result<ControlHandle, ReplicaError> {
    let cluster = &config.node.cluster;
    let limits = &config.limits;
    let replicas = cluster.replicas.iter().map(|replica| DialTarget {
        node: crate::smr::types::NodeId::new(replica.id),
        address: replica.address.clone(),
    });
    let control = ControlConfig {
        identity: Identity {
            cluster: cluster.cluster_id(),
            application: cluster.application,
            epoch: cluster.epoch(),
            own: Peer::Replica(config.node.id),
            secret: config.node.keys.link.clone(),
        },
        directory: cluster.clone(),
        listener: Some(listener),
        replicas: replicas.collect(),
        cpu: topology.control_core,
        limits: ControlLimits {
            handshakes_max: limits.handshakes_max,
            handshake_deadline: Duration::from_millis(limits.handshake_timeout_ms),
            places: PlaceLimits {
                connections_max: usize::from(limits.connections_max),
                replicas_reserved: (2 * cluster.replicas.len()).min(usize::from(limits.connections_max) / 2),
                ..PlaceLimits::default()
            },
            backoff: BackoffLimits {
                initial: Duration::from_millis(limits.reconnect_min_ms),
                max: Duration::from_millis(limits.reconnect_max_ms),
            },
            ..ControlLimits::default()
        },
        seed: u64::from(config.node.id.get()),
        alarm,
        beat: Some(beat),
    };
    let on_link = move |link: EstablishedLink| {
        let network = match link.established.peer {
            Peer::Replica(node) => node.index() % links.len(),
            Peer::Client(client) => client.get() as usize % links.len(),
        };
        let outlet = &mut links[network];
        // A shard that takes no new links is overloaded or gone: the link is dropped, and dialled again.
        if !outlet.is_blocked() {
            outlet.push(link);
        }
        outlet.ring();
    };
    Ok(ControlShard::spawn(control, on_link)?)
}

/// Starts every shard of one replica.
pub(super) fn assemble<S: Stack>(
    config: &ReplicaConfig,
    st_config: &StateTransferConfig,
    liar: Option<Box<dyn Interceptor>>,
    parts: impl FnOnce(&Digester) -> Parts<S>,
) -> Result<Assembly, ReplicaError> {
    let cluster: &Arc<ClusterConfig> = &config.node.cluster;
    let (cores, threads, node) = (Cores::of_process(), config.preprocessor_threads, config.node.id);
    let topology = Topology::of_replica(&config.topology, &cores, threads, node)?
        .with_helpers(config.execution.helpers(), cores.usable());
    if let Err(error) = allow_huge_pages(config.topology.huge_pages) {
        tracing::warn!(%error, "the kernel does not let this process choose between small and huge pages");
    }
    super::descriptors::provide_for(config)?;
    let listen_error = |source| ReplicaError::Listen {
        address: config.node.listen.clone(),
        source,
    };
    let listener = match &config.node.listener {
        Some(listener) => listener.try_clone(),
        None => listen(&config.node.listen),
    };
    let listener = listener.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    let doorbells: Vec<Doorbell> = topology
        .shards
        .iter()
        .map(|_| Doorbell::new())
        .collect::<Result<_, _>>()
        .map_err(ReplicaError::Doorbell)?;

    let homes = Homes::of(&topology);
    let mut lanes = make_lanes(&homes, &doorbells);
    let metrics = Arc::new(Metrics::new(config.node.id));
    let identity = (cluster.cluster_id(), cluster.epoch());
    let digester = Digester::new(identity.0);
    let directory = client_directory(config)?;
    let (replica_limits, client_limits) = wire_limits(config);
    let mut parts = parts(&digester);
    let settings = ReplicaSettings {
        node: config.node.id,
        cluster: identity.0,
        epoch: identity.1,
        quorum: cluster.quorum(),
        batch_bytes_max: cluster.agreement.batch_bytes_max,
        batch_frames_max: cluster.agreement.batch_frames_max,
        votes_max: VOTES_MAX,
        held_effects_max: cluster.lengths().held_effects(),
        must_sign_for: MUST_SIGN_FOR,
    };
    let pool_limits = PoolLimits {
        frames_per_client: cluster.frames_per_client(),
        bytes_per_client: config.limits.pool_bytes_per_client,
        bytes_max: config.limits.pool_bytes_max,
    };
    let pool = RequestPool::new(cluster.clients.len(), pool_limits);
    let protocols = Protocols {
        ordering: parts.ordering,
        view_transfer: parts.view_transfer,
        decision_log: parts.decision_log,
        log_transfer: parts.log_transfer,
        state_transfer: parts.state_transfer,
    };
    let mut replica = Replica::<S>::new(settings, digester.clone(), protocols, pool, Lsn::ZERO)
        .with_transfer_limits(st_config.limits());
    let (ended_tx, ended) = async_mpsc::unbounded();
    let died = ended_tx.clone();
    let alarm = Alarm::new(move |error| {
        // Nobody waiting any more is fine.
        let _ = died.unbounded_send(Ended::Died(error));
    });
    let on_disk = match config.durability {
        Durability::None => {
            lanes.consensus.log = None;
            None
        }
        Durability::Sync | Durability::Async => {
            let recovered = recover(config, &digester, &mut replica, &mut parts.executor)?;
            Some(start_keepers(
                config,
                recovered,
                lanes.kept,
                lanes.images,
                lanes.transfers,
                &alarm,
            )?)
        }
    };
    let (keeper, log) = on_disk.unzip();
    let keeper_handle = keeper.as_ref().map(|(keeper, _)| keeper.handle());
    let shelf = keeper.as_ref().map(|(_, shelf)| shelf.handle());
    let mut log = log.map(|(writer, files)| (writer, files, lanes.log));
    let reads = ReadGate::new(replica.reads_from(), parts.executor.executed());
    let expectations = Expectations::default();
    let trusts_memory = config.durability != Durability::Sync;
    let mut consensus = Some(ConsensusRole::new(
        Consensus::new(replica, expectations.clone(), identity, trusts_memory),
        lanes.consensus,
        directory.clone(),
        (shelf.clone(), AbstentionMark::of(&config.db_path)),
        liar.map(|liar| Faults::new(config.node.id, cluster.replicas.len(), liar)),
        metrics.clone(),
    ));
    let mut threads = vec![
        format!("control-{}", config.node.id),
        keeper_name(config),
        images_name(config),
        shelf_name(config),
    ];
    let crew_name = format!("atlas-{}-e", config.node.id);
    let helpers: Vec<_> = parts
        .helpers
        .into_iter()
        .zip(topology.helper_cores.clone())
        .collect();
    threads.extend((0..helpers.len()).map(|number| format!("{crew_name}{number}")));
    let crew = match helpers.is_empty() {
        true => None,
        false => Some(Crew::start(
            &crew_name,
            helpers,
            &doorbells[homes.execution],
            &alarm,
        )?),
    };
    let execution = Execution::new(
        (parts.executor, reads),
        (cluster.clients.len(), read_limits(&pool_limits)),
        identity,
    );
    let mut execution = Some(ExecutionRole::new(
        execution,
        lanes.execution,
        keeper_handle.clone(),
        crew,
        metrics.clone(),
    ));
    let links = std::mem::take(&mut lanes.links);
    let (lifecycle, started) = (Lifecycle::default(), Instant::now());
    let shard_name = |index: usize| format!("atlas-{}-d{index}", config.node.id);
    let bells = doorbells.iter().enumerate();
    let vitals = Vitals::new(
        format!("control-{}", config.node.id),
        bells.map(|(index, bell)| (shard_name(index), bell.clone())),
    );
    let beat = super::supervisor::beat(
        config.supervisor.clone(),
        vitals.clone(),
        lifecycle.clone(),
        metrics.clone(),
        cluster.quorum().quorum(),
    );
    let control = start_control(config, &topology, listener, links, alarm, beat)?;

    metrics.show_control(control.counters().clone());

    let instance = rand::random();
    let (mut networks, mut checkers) = (lanes.network.into_iter(), lanes.preprocess.into_iter());
    for (index, shard) in topology.shards.iter().enumerate() {
        let mut roles: Vec<Box<dyn Role>> = Vec::new();
        for role in &shard.roles {
            let owner = u8::try_from(roles.len()).unwrap_or(u8::MAX - 1);
            match role {
                RoleKind::Network => roles.extend(networks.next().map(|lanes| {
                    let replicas = (cluster.replicas.len(), replica_limits);
                    let clients = (cluster.clients.len(), client_limits);
                    let connections = config.limits.connections_max;
                    let role = NetworkRole::new(
                        owner,
                        connections,
                        lanes,
                        (identity.0, identity.1, instance),
                        replicas,
                        clients,
                        metrics.clone(),
                    );
                    Box::new(role) as Box<dyn Role>
                })),
                RoleKind::Preprocess => roles.extend(checkers.next().map(|lanes| {
                    let checker = FrameChecker::new(
                        config.node.id,
                        cluster.replicas.len(),
                        cluster.agreement.client_auth,
                        cluster.checker_limits(),
                        digester.clone(),
                        directory.clone(),
                    )
                    .with_reads(cluster.agreement.unordered);
                    let gate = ProposalGate::new(cluster.replicas.len(), expectations.clone());
                    let preprocessing = Preprocessing::new(checker, gate, identity);
                    let role = PreprocessRole::new(preprocessing, lanes, metrics.clone());
                    Box::new(role) as Box<dyn Role>
                })),
                RoleKind::Consensus => {
                    roles.extend(consensus.take().map(|role| Box::new(role) as Box<dyn Role>))
                }
                RoleKind::Log => {
                    if let (Some((writer, files, lanes)), Some(keeper), Some(shelf)) =
                        (log.take(), &keeper_handle, &shelf)
                    {
                        roles.push(Box::new(LogRole::new(
                            owner,
                            writer,
                            files,
                            (keeper.clone(), shelf.clone()),
                            lanes,
                            metrics.clone(),
                        )));
                    }
                }
                RoleKind::Execution => {
                    roles.extend(execution.take().map(|role| Box::new(role) as Box<dyn Role>))
                }
            }
        }
        let context = ShardContext {
            name: shard_name(index),
            core: shard.core,
            doorbell: doorbells[index].clone(),
            lifecycle: lifecycle.clone(),
            started,
            spin: Duration::from_micros(topology.spin_us),
            files: u32::from(config.limits.connections_max),
            receive_buffers: config.limits.receive_buffers,
            receive_buffer_bytes: config.limits.receive_buffer_bytes,
            pulse: vitals.of_shard(index),
            metrics: metrics.clone(),
        };
        threads.push(context.name.clone());
        spawn(context, roles, ended_tx.clone())?;
    }
    let shared = HandleShared {
        metrics,
        address,
        core_map: topology.to_string(),
        topology: topology.summary(),
        lifecycle,
        doorbells,
        supervisor: config.supervisor.clone(),
        vitals,
        questions: Mutex::new(lanes.questions),
        threads,
    };
    let handle = ReplicaHandle {
        shared: Arc::new(shared),
    };
    Ok(Assembly {
        handle,
        control,
        keeper,
        ended,
        shards: topology.shards.len(),
    })
}

fn spawn(
    context: ShardContext,
    mut roles: Vec<Box<dyn Role>>,
    ended: async_mpsc::UnboundedSender<Ended>,
) -> Result<(), ReplicaError> {
    let name = context.name.clone();
    let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
        let run = std::panic::AssertUnwindSafe(|| data::run(&context, &mut roles));
        let result = std::panic::catch_unwind(run)
            .unwrap_or_else(|panic| Err(panicked(context.name.clone(), &*panic)));
        context.pulse.end();
        // Nobody waiting any more is fine.
        let _ = ended.unbounded_send(Ended::Shard(result));
    });
    thread
        .map(|_| ())
        .map_err(|source| ReplicaError::Shard(ShardError::Thread { shard: name, source }))
}
