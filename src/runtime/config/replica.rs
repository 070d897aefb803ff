use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, in_file, load};
use super::replica_file::{ReplicaFile, check_choices, default_preprocessors, default_workers};
use super::topology::TopologyFile;
use super::{
    AdminConfig, ClusterConfig, FlightConfig, Limits, LoggingConfig, PartyKeys, ReconfigurationConfig,
};
use crate::runtime::admin::LogFilter;
use crate::runtime::server::{DefaultHost, Host, Supervisor};
use crate::runtime::shard::network_node::NetworkPartConfig;
use crate::runtime::storage::{DiskBudget, PersistentLogPartConfig};
use crate::smr::crypto::Digester;
use crate::smr::execution::application_id;
use crate::smr::execution::apps::{bank::Bank, counter::Counter, kv::Kv, null::Null};
use crate::smr::messages::CheckpointClaim;
use crate::smr::ordering::pbft::undecided_bytes_max;
use crate::smr::protocol::{InvalidSetting, PartContext};
use crate::smr::replica::{DefaultConfigs, PartConfigs, PartSettings};
use crate::smr::types::{ApplicationId, NodeId, SeqNo};

/// What is on disk before a vote or reply leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "tools", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Everything it promises: a restart loses nothing.
    #[default]
    Sync,
    /// Nothing is waited for; everything is written soon after. For comparison: after a power cut the replica
    /// may contradict itself.
    Async,
    /// Nothing is kept on disk. For comparison: a replica that stops cannot come back.
    None,
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sync => "sync",
            Self::Async => "async",
            Self::None => "none",
        })
    }
}

/// The built-in applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "tools", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum AppKind {
    /// A key-value store.
    Kv,
    /// One number.
    Counter,
    /// Accounts with transfers.
    Bank,
    /// Nothing, for measuring.
    Null,
}

impl AppKind {
    /// Every one.
    const ALL: [Self; 4] = [Self::Kv, Self::Counter, Self::Bank, Self::Null];

    /// Its name and version, as a cluster's file has them.
    ///
    /// # Panics
    /// Never: the names are good ones.
    #[must_use]
    pub fn id(self) -> ApplicationId {
        let id = match self {
            Self::Kv => application_id(&Kv),
            Self::Counter => application_id(&Counter),
            Self::Bank => application_id(&Bank),
            Self::Null => application_id(&Null),
        };
        id.expect("the built-in applications have good names")
    }

    /// The built-in application that a cluster serves, if it is one.
    ///
    /// # Errors
    /// In words, when it is none of them.
    pub fn of(id: ApplicationId) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.id() == id);
        found.ok_or_else(|| {
            let own = Self::ALL.map(|kind| kind.id().to_string()).join(", ");
            format!("the cluster serves {id}, according to cluster.toml; this program has {own}: start the one that has it")
        })
    }
}

impl std::fmt::Display for AppKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.id().name())
    }
}

/// How decisions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "tools", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// One operation after the other.
    Single,
    /// Several operations at once, ahead of their turn, with the same outcome.
    Speculative,
}

impl std::fmt::Display for ExecutorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Single => "single",
            Self::Speculative => "speculative",
        })
    }
}

/// How one replica executes. Replicas of one cluster may differ: the outcome is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecutionConfig {
    /// The execution model.
    pub executor: ExecutorKind,
    /// Threads that execute, the execution shard's own included. The single-threaded executor has one.
    pub workers: usize,
}

impl Default for ExecutionConfig {
    fn default() -> Self {
        Self {
            executor: ExecutorKind::Single,
            workers: default_workers(),
        }
    }
}

impl ExecutionConfig {
    /// Threads beside the execution shard's own.
    #[must_use]
    pub fn helpers(&self) -> usize {
        match self.executor {
            ExecutorKind::Single => 0,
            ExecutorKind::Speculative => self.workers.saturating_sub(1),
        }
    }
}

/// Where a replica stands in its network.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Which replica this is.
    pub id: NodeId,
    /// The cluster it belongs to.
    pub cluster: Arc<ClusterConfig>,
    /// Its secrets.
    pub keys: PartyKeys,
    /// Where it listens, as `host:port`.
    pub listen: String,
    /// A socket that listens there already, handed over by whoever started the process.
    pub listener: Option<Arc<TcpListener>>,
}

/// Everything a replica needs but its service. `P` says how the parts of its
/// [`Stack`](crate::smr::replica::Stack) are configured, `H` what it meets the machine with.
#[derive(Debug, Clone)]
pub struct ReplicaConfig<P: PartConfigs = DefaultConfigs, H: Host = DefaultHost> {
    /// Where its files lie.
    pub db_path: PathBuf,
    /// Its place in the network.
    pub node: NetworkConfig,
    /// The ordering protocol's own choices.
    pub op_config: P::Ordering,
    /// The view transfer's patience.
    pub vt_config: P::ViewTransfer,
    /// The decision log: what is kept for peers.
    pub dl_config: P::DecisionLog,
    /// The transfer of decisions.
    pub lt_config: P::LogTransfer,
    /// The persistent log.
    pub pl_config: H::LogConfig,
    /// The budgets of links.
    pub net_config: H::NetworkConfig,
    /// Which memberships are taken for the cluster's.
    pub reconfig_node: ReconfigurationConfig,
    /// How decisions are executed.
    pub execution: ExecutionConfig,
    /// Shards and cores.
    pub topology: TopologyFile,
    /// Bounds.
    pub limits: Limits,
    /// What is on disk before a vote leaves.
    pub durability: Durability,
    /// How many shards check and hash client frames, in the automatic topology of eight cores or more.
    pub preprocessor_threads: usize,
    /// The sequence number of the next decision, if whoever starts the replica knows it: it refuses to start
    /// on files that end elsewhere.
    pub next_consensus_seq: Option<SeqNo>,
    /// Who is told how the replica is. Nobody, unless the program says otherwise; `atlas run` has the
    /// environment's.
    pub supervisor: Supervisor,
    /// The endpoint for monitoring, probes and operators.
    pub admin: AdminConfig,
    /// What its file says of logs. Whether a program heeds it is its own choice: `atlas run` does.
    pub logging: LoggingConfig,
    /// The recorder of its last events.
    pub flight: FlightConfig,
    /// What the program logs, which that endpoint shows and changes. Nothing, unless the program says
    /// otherwise; `atlas run` has its own.
    pub log_filter: LogFilter,
}

/// A replica of a service whose state is transferred as a whole.
#[derive(Debug, Clone)]
pub struct MonolithicStateReplicaConfig<A, P: PartConfigs = DefaultConfigs, H: Host = DefaultHost> {
    /// The service.
    pub service: A,
    /// Everything but the service and its state.
    pub replica_config: ReplicaConfig<P, H>,
    /// The transfer of the state.
    pub st_config: P::StateTransfer,
}

/// A replica of a service whose state is in parts
/// ([`DivisibleState`](crate::smr::execution::DivisibleState)).
#[derive(Debug, Clone)]
pub struct DivisibleStateReplicaConfig<A, P: PartConfigs = DefaultConfigs, H: Host = DefaultHost> {
    /// The service.
    pub service: A,
    /// Everything but the service and its state.
    pub replica_config: ReplicaConfig<P, H>,
    /// The transfer of the state.
    pub st_config: P::StateTransfer,
}

/// What a replica's file and those it names say.
#[derive(Debug, Clone)]
pub struct LoadedReplica<P: PartConfigs = DefaultConfigs, H: Host = DefaultHost> {
    /// Everything but the service and its state.
    pub replica_config: ReplicaConfig<P, H>,
    /// The transfer of the state.
    pub st_config: P::StateTransfer,
}

impl<P: PartConfigs, H: Host> LoadedReplica<P, H> {
    /// The configuration of a replica of this service, whatever the file names.
    #[must_use]
    pub fn serving<A>(self, service: A) -> MonolithicStateReplicaConfig<A, P, H> {
        MonolithicStateReplicaConfig {
            service,
            replica_config: self.replica_config,
            st_config: self.st_config,
        }
    }

    /// The same, of a service whose state is in parts.
    #[must_use]
    pub fn serving_parts<A>(self, service: A) -> DivisibleStateReplicaConfig<A, P, H> {
        DivisibleStateReplicaConfig {
            service,
            replica_config: self.replica_config,
            st_config: self.st_config,
        }
    }
}

impl ReplicaConfig {
    /// The configuration of one replica with every choice at its default.
    #[must_use]
    pub fn new(cluster: Arc<ClusterConfig>, id: NodeId, keys: PartyKeys, db_path: PathBuf) -> Self {
        Self::of_parts(cluster, id, keys, db_path)
    }

    /// Reads a replica's file and those it names.
    ///
    /// # Errors
    /// Naming the file and line at fault.
    pub fn load(path: &Path) -> Result<LoadedReplica, ConfigError> {
        Self::load_parts(path)
    }
}

impl<P: PartConfigs, H: Host> ReplicaConfig<P, H> {
    /// As [`new`](ReplicaConfig::new), for parts of one's own.
    #[must_use]
    pub fn of_parts(cluster: Arc<ClusterConfig>, id: NodeId, keys: PartyKeys, db_path: PathBuf) -> Self {
        let listen = cluster
            .replicas
            .get(id.index())
            .map(|r| r.address.clone())
            .unwrap_or_default();
        Self {
            db_path,
            node: NetworkConfig {
                id,
                cluster,
                keys,
                listen,
                listener: None,
            },
            op_config: P::Ordering::default(),
            vt_config: P::ViewTransfer::default(),
            dl_config: P::DecisionLog::default(),
            lt_config: P::LogTransfer::default(),
            pl_config: H::LogConfig::default(),
            net_config: H::NetworkConfig::default(),
            reconfig_node: ReconfigurationConfig::default(),
            execution: ExecutionConfig::default(),
            topology: TopologyFile::default(),
            limits: Limits::default(),
            durability: Durability::default(),
            preprocessor_threads: default_preprocessors(),
            next_consensus_seq: None,
            supervisor: Supervisor::default(),
            admin: AdminConfig::default(),
            logging: LoggingConfig::default(),
            flight: FlightConfig::default(),
            log_filter: LogFilter::default(),
        }
    }

    /// How much disk the log may use, and needs.
    #[must_use]
    pub fn disk_budget(&self) -> DiskBudget {
        let agreement = &self.node.cluster.agreement;
        let lengths = self.node.cluster.lengths();
        DiskBudget {
            segment_bytes: self.pl_config.segment_bytes().max(lengths.segment_bytes_min()),
            log_bytes_max: self.pl_config.log_bytes_max(),
            checkpoint_decisions: agreement.checkpoint_decisions,
            checkpoint_bytes: agreement
                .checkpoint_bytes
                .saturating_add(agreement.batch_bytes_max as u64),
            state_log_bytes: agreement.state_log_bytes_max,
            view_bytes: lengths.view_records() as u64,
            undecided_bytes: undecided_bytes_max(self.node.cluster.checker_limits().batch_bytes_max) as u64,
        }
    }

    /// Whether what this replica chose for itself fits what its cluster agreed on.
    fn check_against_cluster(&self) -> Result<(), InvalidSetting> {
        let cluster = &self.node.cluster;
        self.reconfig_node.check(cluster.epoch())?;
        let (lengths, limits) = (cluster.lengths(), &self.limits);
        let at_least = |key, value: u64, least: u64, what: &str| match value >= least {
            true => Ok(()),
            false => Err(InvalidSetting {
                key,
                value: value.to_string(),
                rule: format!("must be at least {least}, {what} of this cluster"),
            }),
        };
        let (replica_queues, client_queues) =
            (self.net_config.replica_queues(), self.net_config.client_queues());
        at_least(
            "protocol_queue_bytes_max",
            replica_queues.protocol as u64,
            lengths.burst() as u64,
            "what one message of a peer may have this replica send back at once, with the limits",
        )?;
        at_least(
            "state_transfer_queue_bytes_max",
            replica_queues.state_transfer as u64,
            lengths.transfer_burst() as u64,
            "what one question of a lagging peer may have this replica answer at once, with the limits",
        )?;
        at_least(
            "client_queue_bytes_max",
            client_queues.application as u64,
            lengths.reply() as u64,
            "the longest answer to a frame",
        )?;
        at_least(
            "pool_bytes_per_client",
            limits.pool_bytes_per_client as u64,
            cluster.agreement.frame_bytes_max as u64,
            "the longest frame",
        )?;
        if self.durability == Durability::None {
            return Ok(());
        }
        let budget = self.disk_budget();
        at_least(
            "log_bytes_max",
            budget.log_bytes_max,
            budget.required_bytes(),
            "what the log has to hold until a checkpoint frees some, with the limits",
        )
    }

    /// What the parts decide for themselves.
    #[must_use]
    pub fn parts(&self, st_config: &P::StateTransfer) -> PartSettings<P> {
        PartSettings {
            ordering: self.op_config.clone(),
            view_transfer: self.vt_config.clone(),
            decision_log: self.dl_config.clone(),
            log_transfer: self.lt_config.clone(),
            state_transfer: st_config.clone(),
        }
    }

    /// What every part of this replica is made with.
    #[must_use]
    pub fn part_context(&self) -> PartContext {
        let cluster = &self.node.cluster;
        PartContext {
            node: self.node.id,
            quorum: cluster.quorum(),
            cluster: cluster.cluster_id(),
            epoch: cluster.epoch(),
            base: CheckpointClaim::NONE,
            digester: Digester::new(cluster.cluster_id()),
            window: cluster.agreement.window,
            undecided_bytes_max: undecided_bytes_max(cluster.checker_limits().batch_bytes_max),
            clock_bound: Duration::from_millis(cluster.agreement.clock_bound_ms),
            signing: self.node.keys.signing.clone(),
            verifying: cluster
                .replicas
                .iter()
                .map(|replica| replica.signing_key)
                .collect(),
            has_log: self.durability != Durability::None,
        }
    }

    /// Whether a replica can be run with this.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self, st_config: &P::StateTransfer) -> Result<(), InvalidSetting> {
        check_choices(
            &self.parts(st_config),
            (self.execution.workers, self.preprocessor_threads),
            (&self.pl_config, &self.net_config),
            (&self.admin, &self.logging, &self.flight),
            &self.topology,
            &self.limits,
        )?;
        self.check_against_cluster()
    }

    /// As [`load`](ReplicaConfig::load), for parts of one's own.
    ///
    /// # Errors
    /// Naming the file and line at fault.
    pub fn load_parts(path: &Path) -> Result<LoadedReplica<P, H>, ConfigError> {
        let file: ReplicaFile<P, H> = load(path)?;
        let beside = |name: &Path| path.parent().unwrap_or(Path::new("")).join(name);
        let cluster_path = beside(&file.cluster);
        let cluster: ClusterConfig = load(&cluster_path)?;
        let key_path = beside(&file.keys);
        let keys = PartyKeys::load(&key_path)?;
        let owner = format!("replica {}", file.node);
        let Some(entry) = cluster.replicas.get(usize::from(file.node)) else {
            return Err(ConfigError::NotListed {
                path: path.to_owned(),
                cluster: cluster_path,
                owner,
                listed: cluster.replicas.len(),
            });
        };
        if entry.signing_key != keys.signing.verifying_key() || entry.link_key != keys.link.public() {
            return Err(ConfigError::KeyMismatch {
                path: key_path,
                cluster: cluster_path,
                owner,
            });
        }
        let mut config = Self::of_parts(
            Arc::new(cluster),
            NodeId::new(file.node),
            keys,
            beside(&file.db_path),
        );
        if let Some(listen) = file.listen {
            config.node.listen = listen;
        }
        config.op_config = file.ordering;
        config.vt_config = file.view_transfer;
        config.dl_config = file.decision_log;
        config.lt_config = file.log_transfer;
        config.pl_config = file.log;
        config.net_config = file.network;
        config.reconfig_node = file.reconfiguration;
        config.execution = ExecutionConfig {
            executor: file.executor,
            workers: file.workers,
        };
        config.topology = file.topology;
        config.limits = file.limits;
        config.admin = file.admin;
        config.logging = file.logging;
        config.flight = file.flight;
        if let Some(token) = &mut config.admin.bearer_token_file {
            *token = beside(token);
        }
        config.durability = file.durability;
        config.preprocessor_threads = file.preprocessor_threads;
        config.next_consensus_seq = file.next_consensus_seq.map(SeqNo::new);
        config
            .check_against_cluster()
            .map_err(|broken| in_file(broken, path))?;
        Ok(LoadedReplica {
            replica_config: config,
            st_config: file.state_transfer,
        })
    }
}
