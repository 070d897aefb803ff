use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::liars::over_links;
use super::{DonorLie, States};
use crate::runtime::config::{
    Agreement, AppKind, ClientConfig, ClientEntry, ClientTuning, ClusterConfig, DecisionLogConfig,
    Durability, ExecutionConfig, MonolithicStateReplicaConfig, OrderingConfig, PartyKeys,
    PersistentLogConfig, ReplicaConfig, ReplicaEntry, RoleKind, ShardSpec, StateTransferConfig, TopologyFile,
};
use crate::runtime::server::monolithic_server::bootstrap_with_faults;
use crate::runtime::server::{ReplicaError, ReplicaHandle};
use crate::runtime::shard::faults::Interceptor;
use crate::runtime::storage::{DataDirectory, StorageError};
use crate::sim::ByzantineStrategy;
use crate::smr::execution::ScalableApp;
use crate::smr::execution::apps::{bank::Bank, compute::Compute, counter::Counter, kv::Kv, null::Null};
use crate::smr::types::{ClientId, NodeId, PROTOCOL_VERSION};
use crate::tools::scratch::Scratch;

/// What a local cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Replicas.
    pub replicas: usize,
    /// Clients listed in its configuration.
    pub clients: usize,
    /// The service.
    pub app: AppKind,
    /// What the replicas agree on.
    pub agreement: Agreement,
    /// How clients behave.
    pub tuning: ClientTuning,
    /// Whether shards are pinned to cores.
    pub pin: bool,
    /// Proposals under way at once.
    pub pipeline: usize,
    /// What is on disk before a vote or a reply leaves.
    pub durability: Durability,
    /// How the replicas execute.
    pub execution: ExecutionConfig,
    /// Processor time that each operation costs beside what the service does, in microseconds.
    pub compute_us: f64,
    /// Where the replicas' data directories are made; a temporary directory if left out.
    pub data: Option<PathBuf>,
    /// What replica 0, the first leader, does to what it says.
    pub lie: Option<ByzantineStrategy>,
    /// Replicas that lie when others catch up from them, and how.
    pub donor_lies: Vec<(NodeId, DonorLie)>,
    /// The persistent log of each replica.
    pub pl_config: PersistentLogConfig,
    /// What each replica keeps for its peers.
    pub dl_config: DecisionLogConfig,
    /// How each replica transfers states.
    pub st_config: StateTransferConfig,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            replicas: 4,
            clients: 4,
            app: AppKind::Kv,
            agreement: Agreement::default(),
            tuning: ClientTuning::default(),
            pin: true,
            pipeline: OrderingConfig::default().pipeline,
            durability: Durability::None,
            execution: ExecutionConfig::default(),
            compute_us: 0.0,
            data: None,
            lie: None,
            donor_lies: Vec::new(),
            pl_config: PersistentLogConfig::default(),
            dl_config: DecisionLogConfig::default(),
            st_config: StateTransferConfig::default(),
        }
    }
}

/// Why a local cluster does not come up.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No port could be bound.
    #[error("cannot listen on the loopback: {0}")]
    Listen(#[from] std::io::Error),
    /// A data directory cannot be made.
    #[error("data directory {0}")]
    Storage(#[from] StorageError),
    /// A replica does not start.
    #[error("replica {node}: {source}")]
    Replica {
        /// The replica.
        node: NodeId,
        /// Why.
        source: ReplicaError,
    },
    /// The links did not come up in time.
    #[error("the replicas did not link up within {0:?}")]
    NotLinked(Duration),
}

/// Replicas of one cluster in this process, over loopback TCP: each as it runs alone, with its own shards.
pub struct LocalCluster {
    cluster: Arc<ClusterConfig>,
    client_keys: Vec<PartyKeys>,
    tuning: ClientTuning,
    options: ClusterOptions,
    /// What each replica is started with, whether it runs or not.
    configs: Vec<ReplicaConfig>,
    /// What an operation costs beside what the service does.
    rounds: u64,
    replicas: Vec<(ReplicaHandle, JoinHandle<Result<(), ReplicaError>>)>,
    /// Removed with the cluster.
    _data: Option<Scratch>,
}

/// A cluster that is not started yet.
struct Blueprint {
    cluster: ClusterConfig,
    keys: Vec<PartyKeys>,
    client_keys: Vec<PartyKeys>,
    listeners: Vec<TcpListener>,
}

/// The configuration of a cluster on the loopback: keys and free ports are made for it.
fn configure(options: &ClusterOptions) -> Result<Blueprint, LocalError> {
    let keys: Vec<PartyKeys> = (0..options.replicas).map(|_| PartyKeys::generate()).collect();
    let client_keys: Vec<PartyKeys> = (0..options.clients).map(|_| PartyKeys::generate()).collect();
    let listeners: Vec<TcpListener> = keys
        .iter()
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let replicas = keys
        .iter()
        .zip(&listeners)
        .enumerate()
        .map(|(id, (keys, listener))| {
            Ok(ReplicaEntry {
                id: id as u16,
                address: listener.local_addr()?.to_string(),
                signing_key: keys.signing.verifying_key(),
                link_key: keys.link.public(),
            })
        });
    let clients = client_keys.iter().enumerate().map(|(id, keys)| ClientEntry {
        id: id as u32,
        signing_key: keys.signing.verifying_key(),
        link_key: keys.link.public(),
    });
    let cluster = ClusterConfig {
        format: 1,
        name: "local".to_owned(),
        application: options.app.id(),
        genesis: hex::encode(rand::random::<[u8; 8]>()),
        epoch: 0,
        protocol_version: PROTOCOL_VERSION,
        operators_threshold: 0,
        agreement: options.agreement.clone(),
        replicas: replicas.collect::<Result<_, std::io::Error>>()?,
        clients: clients.collect(),
        operators: Vec::new(),
    };
    Ok(Blueprint {
        cluster,
        keys,
        client_keys,
        listeners,
    })
}

/// What each replica is started with. Where something is kept, its data directory is made in `directory`.
fn configs_of(
    options: &ClusterOptions,
    cluster: &Arc<ClusterConfig>,
    replicas: impl Iterator<Item = (PartyKeys, TcpListener)>,
    directory: &Path,
) -> Result<Vec<ReplicaConfig>, LocalError> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let configs = replicas.enumerate().map(|(id, (keys, listener))| {
        let node = NodeId::new(id as u16);
        let path = directory.join(node.to_string());
        let mut config = ReplicaConfig::new(cluster.clone(), node, keys, path);
        config.durability = options.durability;
        if options.durability != Durability::None {
            DataDirectory::format(&config.db_path, cluster.cluster_id(), node, cluster.epoch())?;
        }
        config.node.listener = Some(Arc::new(listener));
        config.op_config.pipeline = options.pipeline;
        config.pl_config = options.pl_config.clone();
        config.dl_config = options.dl_config.clone();
        config.execution = options.execution;
        // Several replicas share the machine: each is folded into one shard, and they take the cores in turn.
        let core = cores.get(id % cores.len().max(1)).map(|core| core.id);
        config.topology = TopologyFile {
            pin: options.pin,
            spin_us: 0,
            huge_pages: false,
            shards: vec![ShardSpec {
                roles: vec![
                    RoleKind::Network,
                    RoleKind::Preprocess,
                    RoleKind::Consensus,
                    RoleKind::Execution,
                    RoleKind::Log,
                ],
                core: core.filter(|_| options.pin),
            }],
        };
        Ok(config)
    });
    configs.collect()
}

impl LocalCluster {
    /// Starts a cluster and waits until all its replicas are linked.
    ///
    /// # Errors
    /// When a replica does not start, or links do not come up within ten seconds.
    pub fn start(options: &ClusterOptions) -> Result<Self, LocalError> {
        Self::start_staggered(options, |_| Duration::ZERO)
    }

    /// As [`start`](Self::start), but replica i starts only after `delay(i)`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_staggered(
        options: &ClusterOptions,
        delay: impl Fn(usize) -> Duration,
    ) -> Result<Self, LocalError> {
        let blueprint = configure(options)?;
        let rounds = match options.compute_us > 0.0 {
            true => (options.compute_us * super::calibrate::rounds_per_us()) as u64,
            false => 0,
        };
        let temporary = match (&options.data, options.durability) {
            (None, Durability::Sync | Durability::Async) => {
                let name = &mut tempfile::Builder::new();
                Some(Scratch::new(name.prefix("atlas-"), &std::env::temp_dir())?)
            }
            _ => None,
        };
        let directory = temporary.as_ref().map(|temporary| temporary.path().to_owned());
        let directory = options.data.clone().or(directory).unwrap_or_default();
        let Blueprint {
            cluster,
            keys,
            client_keys,
            listeners,
        } = blueprint;
        let cluster = Arc::new(cluster);
        let replicas = keys.into_iter().zip(listeners);
        let configs = configs_of(options, &cluster, replicas, &directory)?;
        let mut this = Self {
            cluster,
            client_keys,
            tuning: options.tuning.clone(),
            options: options.clone(),
            configs,
            rounds,
            replicas: Vec::new(),
            _data: temporary,
        };
        let mut order: Vec<usize> = (0..options.replicas).collect();
        order.sort_by_key(|id| delay(*id));
        let begin = Instant::now();
        for id in order {
            if let Some(pause) = delay(id).checked_sub(begin.elapsed()) {
                std::thread::sleep(pause);
            }
            this.run_replica(NodeId::new(id as u16))?;
        }
        this.wait_linked(Duration::from_secs(10))?;
        Ok(this)
    }

    fn run_replica(&mut self, node: NodeId) -> Result<(), LocalError> {
        let (options, cluster, rounds) = (&self.options, &self.cluster, self.rounds);
        let config = self.configs[node.index()].clone();
        let lie = options.lie.filter(|_| node.index() == 0);
        let donor_lie = options.donor_lies.iter().find(|(donor, _)| *donor == node);
        let liar = match (lie, donor_lie) {
            (Some(lie), _) => Some(over_links(lie, node, options.replicas, cluster.cluster_id())),
            (None, Some((_, lie))) => Some(lie.over_links(cluster.cluster_id(), cluster.epoch())),
            (None, None) => None,
        };
        let st_config = options.st_config.clone();
        let replica = match options.app {
            AppKind::Kv => run(Compute::new(Kv, rounds), config, st_config, liar),
            AppKind::Bank => run(Compute::new(Bank, rounds), config, st_config, liar),
            AppKind::Counter => run(Compute::new(Counter, rounds), config, st_config, liar),
            AppKind::Null => run(Compute::new(Null, rounds), config, st_config, liar),
        };
        self.replicas
            .push(replica.map_err(|source| LocalError::Replica { node, source })?);
        self.replicas.sort_by_key(|(handle, _)| handle.node());
        Ok(())
    }

    /// Starts a replica again that was [stopped](Self::stop), with what is in its data directory.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self, node: NodeId) -> Result<(), LocalError> {
        if self.replicas.iter().any(|(handle, _)| handle.node() == node) {
            return Ok(());
        }
        self.run_replica(node)
    }

    /// Where a replica's files are.
    ///
    /// # Panics
    /// When there is no such replica.
    #[must_use]
    pub fn data_path(&self, node: NodeId) -> &Path {
        &self.configs[node.index()].db_path
    }

    /// A replica that runs.
    #[must_use]
    pub fn replica(&self, node: NodeId) -> Option<&ReplicaHandle> {
        self.handles().find(|handle| handle.node() == node)
    }

    fn wait_linked(&self, timeout: Duration) -> Result<(), LocalError> {
        let deadline = Instant::now() + timeout;
        let others = self.replicas.len() as u64 - 1;
        while self
            .handles()
            .any(|replica| replica.standing().replica_links < others)
        {
            if Instant::now() > deadline {
                return Err(LocalError::NotLinked(timeout));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    }

    /// The replicas that run, in order.
    pub fn handles(&self) -> impl Iterator<Item = &ReplicaHandle> {
        self.replicas.iter().map(|(handle, _)| handle)
    }

    /// The cluster's configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<ClusterConfig> {
        &self.cluster
    }

    /// The configuration of one of its replicas, to start it again after the cluster ended: its listener is
    /// in it.
    ///
    /// # Panics
    /// When there is no such replica.
    #[must_use]
    pub fn replica_config(&self, node: NodeId) -> ReplicaConfig {
        self.configs[node.index()].clone()
    }

    /// The configuration of one of its clients.
    ///
    /// # Panics
    /// When there is no such client.
    #[must_use]
    pub fn client(&self, number: usize) -> ClientConfig {
        ClientConfig {
            cluster: self.cluster.clone(),
            client: ClientId::new(number as u32),
            keys: self.client_keys[number].clone(),
            tuning: self.tuning.clone(),
        }
    }

    /// Ends one replica in good order; the others go on.
    ///
    /// # Errors
    /// When the replica had failed.
    pub fn stop(&mut self, node: NodeId) -> Result<(), ReplicaError> {
        let at = self.replicas.iter().position(|(handle, _)| handle.node() == node);
        let Some(at) = at else { return Ok(()) };
        let (handle, thread) = self.replicas.remove(at);
        handle.shutdown();
        thread.join().unwrap_or(Ok(()))
    }

    /// The replicas that neither lie nor were killed.
    pub fn correct(&self) -> impl Iterator<Item = &ReplicaHandle> {
        self.handles()
            .filter(|replica| !replica.is_killed())
            .filter(|replica| self.options.lie.is_none() || replica.node().index() != 0)
    }

    /// Waits until all correct replicas have executed the same decisions, or two that have have different
    /// states, or for `timeout`.
    #[must_use]
    pub fn states(&self, timeout: Duration) -> States {
        let deadline = Instant::now() + timeout;
        loop {
            let mut executed = self.correct().map(|replica| replica.standing().executed);
            let first = executed.next();
            let (is_even, is_late) = (
                executed.all(|other| Some(other) == first),
                Instant::now() > deadline,
            );
            if is_even || is_late {
                // Each is asked at a moment of its own.
                let claims = self.correct().map(|replica| (replica.node(), replica.digest()));
                let states = States::of(&claims.collect::<Vec<_>>());
                if !matches!(states, States::Apart(_)) || is_late {
                    return states;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.handles().for_each(ReplicaHandle::shutdown);
        for (_, thread) in self.replicas.drain(..) {
            // A failure was logged where it happened.
            let _ = thread.join();
        }
    }
}

type Started = (ReplicaHandle, JoinHandle<Result<(), ReplicaError>>);

fn run<A: ScalableApp>(
    service: A,
    replica_config: ReplicaConfig,
    st_config: StateTransferConfig,
    liar: Option<Box<dyn Interceptor>>,
) -> Result<Started, ReplicaError> {
    let config = MonolithicStateReplicaConfig {
        service,
        replica_config,
        st_config,
    };
    let (handle, run) = futures_lite::future::block_on(bootstrap_with_faults(config, liar))?;
    let thread = std::thread::spawn(move || futures_lite::future::block_on(run));
    Ok((handle, thread))
}
