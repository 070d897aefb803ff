//! From a configuration to running shards: the protocols, the lanes and the threads.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_channel::mpsc as async_mpsc;

use super::ReplicaError;
use super::handle::{HandleShared, ReplicaHandle};
use super::host::Host;
use super::listen::listen;
use super::recovery::{Recovered, recover};
use super::roles::{OnDisk, Roles};
use super::storage_workers::{
    snapshot_transfer_name, snapshots_name, start_storage_workers, storage_worker_name,
};
use super::watched::{Watched, admin_name, control_name, shard_name};
use super::wiring::{RolePlacement, make_lanes};
use crate::runtime::admin::{AdminEndpoint, BoundEndpoint};
use crate::runtime::config::{Durability, PartConfigs, ReplicaConfig, Topology};
use crate::runtime::flight::{FlightEvent, FlightKind};
use crate::runtime::metrics::{LogContext, Metrics, TurnTimes, for_same_replica};
use crate::runtime::net::handshake::Identity;
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::control::{
    BackoffLimits, ConnectionLimits, ControlConfig, ControlHandle, ControlLimits, ControlShard, DialTarget,
    EstablishedLink,
};
use crate::runtime::shard::cores::Cores;
use crate::runtime::shard::crew::HelperThreads;
use crate::runtime::shard::data::{self, ShardContext};
use crate::runtime::shard::faults::Interceptor;
use crate::runtime::shard::lanes::LinkSender;
use crate::runtime::shard::memory::allow_huge_pages;
use crate::runtime::shard::roles::Role;
use crate::runtime::shard::{Alarm, ShardError, panicked};
use crate::runtime::storage::snapshot_transfer::SnapshotTransferWorker;
use crate::runtime::storage::storage_worker::StorageWorker;
use crate::smr::crypto::{Digester, MacKey};
use crate::smr::execution::{ExecutorPart, ExecutorSettings, ResultLimits};
use crate::smr::messages::lengths::VOTES_MAX;
use crate::smr::ordering::OrderingProtocol;
use crate::smr::preprocessing::{
    ClientAuth, ClientDirectory, ClientKeys, PoolLimits, RequestPool, RequireSignature,
};
use crate::smr::protocol::ConfigOf;
use crate::smr::replica::{MUST_SIGN_FOR, Protocols, Replica, ReplicaSettings, Stack, StateTransferOf};
use crate::smr::state_transfer::StateTransferPartConfig;
use crate::smr::types::{Lsn, Peer};

/// How a stack's state transfer is configured.
pub(super) type StateTransferConfigOf<S> = ConfigOf<StateTransferOf<S>>;

/// What was started.
pub(super) struct Assembly {
    pub handle: ReplicaHandle,
    pub control: ControlHandle,
    /// Ends with the replica: it has the data directory open.
    pub storage_worker: Option<(StorageWorker, SnapshotTransferWorker)>,
    /// Ends with the replica.
    pub admin: Option<AdminEndpoint>,
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

fn client_directory<P: PartConfigs, H: Host>(
    config: &ReplicaConfig<P, H>,
) -> Result<ClientDirectory, ReplicaError> {
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
            must_sign: RequireSignature::default(),
        })
    });
    Ok(ClientDirectory::new(keys.collect::<Result<_, ReplicaError>>()?))
}

fn start_control<P: PartConfigs, H: Host>(
    config: &ReplicaConfig<P, H>,
    topology: &Topology,
    listener: TcpListener,
    mut links: Vec<LinkSender<EstablishedLink>>,
    (alarm, watched): (Alarm, &Watched),
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
            slots: ConnectionLimits {
                connections_max: usize::from(limits.connections_max),
                replicas_reserved: (2 * cluster.replicas.len()).min(usize::from(limits.connections_max) / 2),
                ..ConnectionLimits::default()
            },
            backoff: BackoffLimits {
                initial: Duration::from_millis(limits.reconnect_min_ms),
                max: Duration::from_millis(limits.reconnect_max_ms),
            },
            ..ControlLimits::default()
        },
        seed: u64::from(config.node.id.get()),
        alarm,
        beat: Some(watched.beat(config)),
        pen: watched.flight.control_pen(),
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

/// Where a replica runs: its cores, its address, and what wakes its shards.
struct Site {
    topology: Topology,
    listener: TcpListener,
    address: SocketAddr,
    admin: Option<BoundEndpoint>,
    doorbells: Vec<Doorbell>,
}

impl Site {
    fn of<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> Result<Self, ReplicaError> {
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
        let doorbells = topology.shards.iter().map(|_| Doorbell::new());
        Ok(Self {
            address,
            listener,
            admin: BoundEndpoint::of(&config.admin)?,
            doorbells: doorbells
                .collect::<Result<_, _>>()
                .map_err(ReplicaError::Doorbell)?,
            topology,
        })
    }
}

/// What clients may have pending.
pub(super) fn pool_limits<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> PoolLimits {
    PoolLimits {
        frames_per_client: config.node.cluster.frames_per_client(),
        bytes_per_client: config.limits.pool_bytes_per_client,
        bytes_max: config.limits.pool_bytes_max,
    }
}

/// The protocols of a replica, composed, at the beginning of time.
fn compose<S: Stack, H: Host>(
    config: &ReplicaConfig<S::Configs, H>,
    st_config: &StateTransferConfigOf<S>,
) -> Replica<S> {
    let (cluster, context) = (&config.node.cluster, config.part_context());
    let settings = ReplicaSettings {
        node: config.node.id,
        cluster: context.cluster,
        epoch: context.epoch,
        base: context.base,
        quorum: context.quorum,
        batch_bytes_max: cluster.agreement.batch_bytes_max,
        batch_frames_max: cluster.agreement.batch_frames_max,
        votes_max: VOTES_MAX,
        held_effects_max: cluster.lengths().held_effects(),
        must_sign_for: MUST_SIGN_FOR,
    };
    let pool = RequestPool::new(cluster.clients.len(), pool_limits(config));
    let protocols = Protocols::make(&config.parts(st_config), &context);
    Replica::new(settings, context.digester, protocols, pool, Lsn::ZERO)
        .with_transfer_limits(st_config.limits())
}

/// The executor, at the application's initial state.
fn make_executor<S: Stack, H: Host>(
    service: S::Application,
    config: &ReplicaConfig<S::Configs, H>,
) -> S::Executor {
    let cluster = &config.node.cluster;
    let settings = ExecutorSettings {
        clients: cluster.clients.len(),
        digester: Digester::new(cluster.cluster_id()),
        epoch: cluster.epoch(),
        rule: cluster.checkpoint_rule(),
        results: ResultLimits::default(),
    };
    S::Executor::make(service, &settings)
}

/// What is on disk is restored, and whoever starts the replica knew where that ends.
fn restore<S: Stack, H: Host>(
    config: &ReplicaConfig<S::Configs, H>,
    metrics: &Metrics,
    replica: &mut Replica<S>,
    executor: &mut S::Executor,
) -> Result<Option<Recovered<H::PersistentLog>>, ReplicaError> {
    let recovered = match config.durability {
        Durability::None => None,
        Durability::Sync | Durability::Async => Some(recover(config, metrics, replica, executor)?),
    };
    let found = replica.ordering().decided().next();
    match config.next_consensus_seq.filter(|expected| *expected != found) {
        Some(expected) => Err(ReplicaError::NextSeq { expected, found }),
        None => Ok(recovered),
    }
}

/// How the threads of a replica tell that they ended.
struct Ends {
    tell: async_mpsc::UnboundedSender<Ended>,
    /// Rung by those whose end by a panic is the replica's.
    alarm: Alarm,
}

impl Ends {
    fn new() -> (Self, async_mpsc::UnboundedReceiver<Ended>) {
        let (tell, ended) = async_mpsc::unbounded();
        let died = tell.clone();
        let alarm = Alarm::new(move |error| {
            // Nobody waiting any more is fine.
            let _ = died.unbounded_send(Ended::Died(error));
        });
        (Self { tell, alarm }, ended)
    }
}

/// Starts what an executor has run beside its shard, on cores of its own. The threads' names.
fn start_crew<S: Stack, H: Host>(
    config: &ReplicaConfig<S::Configs, H>,
    executor: &S::Executor,
    site: &Site,
    owner: &Doorbell,
    alarm: &Alarm,
) -> Result<(Option<HelperThreads>, Vec<String>), ReplicaError> {
    let helpers = executor.helpers(config.execution.helpers());
    let name = format!("atlas-{}-e", config.node.id);
    let cores = site.topology.helper_cores.clone();
    let helpers: Vec<_> = helpers.into_iter().zip(cores).collect();
    let threads = (0..helpers.len()).map(|number| format!("{name}{number}"));
    let threads = threads.collect();
    let crew = match helpers.is_empty() {
        true => None,
        false => Some(HelperThreads::start(&name, helpers, owner, alarm)?),
    };
    Ok((crew, threads))
}

/// Starts the data shards, each with the roles that live on it.
fn start_shards<S: Stack, H: Host>(
    config: &ReplicaConfig<S::Configs, H>,
    topology: &Topology,
    mut roles: Roles<'_, S, H>,
    watched: &Watched,
    ends: &Ends,
) -> Result<(), ReplicaError> {
    let times = topology
        .shards
        .iter()
        .map(|shard| Arc::new(TurnTimes::new(&shard.roles)));
    let times: Vec<Arc<TurnTimes>> = times.collect();
    watched.metrics.show_turns(times.clone());
    for ((index, shard), times) in topology.shards.iter().enumerate().zip(times) {
        let context = ShardContext {
            name: shard_name(config, index),
            core: shard.core,
            doorbell: watched.doorbells[index].clone(),
            lifecycle: watched.lifecycle.clone(),
            started: watched.flight.started(),
            spin: Duration::from_micros(topology.spin_us),
            files: u32::from(config.limits.connections_max),
            receive_buffers: config.limits.receive_buffers,
            receive_buffer_bytes: config.limits.receive_buffer_bytes,
            pulse: watched.vitals.of_shard(index),
            metrics: watched.metrics.clone(),
            times,
            pen: watched.flight.pen(index),
        };
        let mut roles = roles.of_shard(&shard.roles);
        roles
            .iter_mut()
            .for_each(|role| role.record_with(context.pen.clone()));
        spawn(context, roles, ends.tell.clone())?;
    }
    Ok(())
}

/// The threads of a replica that runs, as the kernel names them.
fn thread_names<P: PartConfigs, H: Host>(
    config: &ReplicaConfig<P, H>,
    helpers: Vec<String>,
    shards: usize,
) -> Vec<String> {
    let mut threads = vec![
        control_name(config),
        storage_worker_name(config),
        snapshots_name(config),
        snapshot_transfer_name(config),
        admin_name(config),
    ];
    threads.extend(helpers);
    threads.extend((0..shards).map(|index| shard_name(config, index)));
    threads
}

/// Where a replica counts. The calling thread is its own from now on, and all others of it come from there.
fn begin_counting<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> Arc<Metrics> {
    let cluster = &config.node.cluster;
    let metrics = Arc::new(Metrics::of_cluster(config.node.id, cluster.quorum().n()));
    metrics.publish_epoch(cluster.epoch());
    LogContext::new(metrics.clone()).enter();
    metrics
}

/// Starts every shard of one replica.
pub(super) fn assemble<S: Stack, H: Host>(
    service: S::Application,
    config: &ReplicaConfig<S::Configs, H>,
    st_config: &StateTransferConfigOf<S>,
    liar: Option<Box<dyn Interceptor>>,
) -> Result<Assembly, ReplicaError> {
    config.validate(st_config)?;
    let metrics = begin_counting(config);
    let site = Site::of(config)?;
    let homes = RolePlacement::of(&site.topology);
    let mut lanes = make_lanes(&homes, &site.doorbells, &metrics.measures);
    let directory = client_directory(config)?;
    let mut replica = compose::<S, H>(config, st_config);
    let mut executor = make_executor::<S, H>(service, config);
    let (ends, ended) = Ends::new();
    let recovered = restore(config, &metrics, &mut replica, &mut executor)?;
    if recovered.is_none() {
        lanes.roles.consensus.log = None;
    }
    let start = |recovered| start_storage_workers(config, recovered, lanes.storage_workers, &ends.alarm);
    let (storage_worker, log) = recovered.map(start).transpose()?.unzip();
    let owner = &site.doorbells[homes.execution];
    let (crew, helpers) = start_crew::<S, H>(config, &executor, &site, owner, &ends.alarm)?;
    let roles = Roles::new(
        config,
        (replica, executor),
        lanes.roles,
        OnDisk::of(storage_worker.as_ref(), log),
        (directory, crew, liar),
        &metrics,
    );
    let watched = Watched::new(config, metrics, site.doorbells);
    let beside = (ends.alarm.clone(), &watched);
    let control = start_control(config, &site.topology, site.listener, lanes.links, beside)?;
    watched.metrics.show_control(control.counters().clone());
    let admin_address = site.admin.as_ref().map(BoundEndpoint::address);
    let admin_token = site.admin.as_ref().map(BoundEndpoint::token);
    let admin = site
        .admin
        .map(|endpoint| endpoint.start(admin_name(config), watched.subject(config)));
    let admin = admin.transpose()?;
    start_shards(config, &site.topology, roles, &watched, &ends)?;
    let shards = site.topology.shards.len();
    let shared = HandleShared {
        metrics: watched.metrics,
        address: site.address,
        admin_address,
        admin_token,
        core_map: site.topology.to_string(),
        topology: site.topology.summary(),
        lifecycle: watched.lifecycle,
        doorbells: watched.doorbells,
        supervisor: config.supervisor.clone(),
        vitals: watched.vitals,
        flight: watched.flight,
        questions: Mutex::new(lanes.questions),
        threads: thread_names(config, helpers, shards),
        quorum: config.node.cluster.quorum(),
    };
    Ok(Assembly {
        handle: ReplicaHandle {
            shared: Arc::new(shared),
        },
        control,
        storage_worker,
        admin,
        ended,
        shards,
    })
}

fn spawn(
    context: ShardContext,
    mut roles: Vec<Box<dyn Role>>,
    ended: async_mpsc::UnboundedSender<Ended>,
) -> Result<(), ReplicaError> {
    let name = context.name.clone();
    let shard = for_same_replica(move || {
        let run = std::panic::AssertUnwindSafe(|| data::run(&context, &mut roles));
        let result = std::panic::catch_unwind(run)
            .unwrap_or_else(|panic| Err(panicked(context.name.clone(), &*panic)));
        if result.is_err() {
            let event = FlightEvent::of(FlightKind::ShardFailed);
            context.pen.record_now(event);
        }
        context.pulse.end();
        // Nobody waiting any more is fine.
        let _ = ended.unbounded_send(Ended::Shard(result));
    });
    let thread = std::thread::Builder::new().name(name.clone()).spawn(shard);
    thread
        .map(|_| ())
        .map_err(|source| ReplicaError::Shard(ShardError::Thread { shard: name, source }))
}
