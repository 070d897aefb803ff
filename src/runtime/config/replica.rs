use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cluster::is_host_and_port;
use super::error::{Broken, ConfigError, Validate, Whose, in_range, load};
use super::topology::TopologyFile;
use super::transfer::{DecisionLogConfig, LogTransferConfig, StateTransferConfig};
use super::{ClusterConfig, Limits, PartyKeys};
use crate::runtime::server::Supervisor;
use crate::runtime::storage::DiskBudget;
use crate::smr::execution::application_id;
use crate::smr::execution::apps::{bank::Bank, counter::Counter, kv::Kv, null::Null};
use crate::smr::ordering::pbft::PbftConfig;
use crate::smr::types::{ApplicationId, NodeId};
use crate::smr::view_transfer::pbft::ViewTimings;

/// What is on disk before a vote or reply leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
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

/// The persistent log.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct PersistentLogConfig {
    /// The size of one segment, in bytes: a multiple of 1 MiB.
    #[serde(deserialize_with = "super::units::bytes")]
    pub segment_bytes: u64,
    /// How much disk the log may use, in bytes. When it is used up nothing is voted until a checkpoint frees
    /// some.
    #[serde(deserialize_with = "super::units::bytes")]
    pub log_bytes_max: u64,
}

impl Default for PersistentLogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            log_bytes_max: 16 << 30,
        }
    }
}

impl PersistentLogConfig {
    fn validate(&self) -> Result<(), Broken> {
        in_range("segment_bytes", self.segment_bytes, 16 << 20..=4 << 30)?;
        if !self.segment_bytes.is_multiple_of(1 << 20) {
            return Err(Broken {
                key: "segment_bytes",
                value: self.segment_bytes.to_string(),
                rule: "must be a multiple of 1 MiB".into(),
            });
        }
        in_range(
            "log_bytes_max",
            self.log_bytes_max,
            4 * self.segment_bytes..=1 << 44,
        )
    }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
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

/// What the ordering protocol may decide for itself at one replica.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct OrderingConfig {
    /// How many proposals this replica has undecided at once while it leads.
    pub pipeline: usize,
}

impl Default for OrderingConfig {
    fn default() -> Self {
        Self { pipeline: 8 }
    }
}

/// How long a replica waits before it asks for another leader, and how often it tells where it stands.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ViewTransferConfig {
    /// How long requests may wait without any execution before the leader is suspected, and how long a view
    /// may take to begin, in milliseconds: at least. What proves necessary is learnt.
    #[serde(deserialize_with = "super::units::milliseconds")]
    pub timeout_ms: u64,
    /// The cap of that, when views do not work out one after the other, in milliseconds.
    #[serde(deserialize_with = "super::units::milliseconds")]
    pub timeout_max_ms: u64,
    /// The time between two statuses, in milliseconds.
    #[serde(deserialize_with = "super::units::milliseconds")]
    pub status_period_ms: u64,
    /// The time between two reviews of the leader's throughput, in milliseconds.
    #[serde(deserialize_with = "super::units::milliseconds")]
    pub review_period_ms: u64,
    /// How long one request may wait in a view while others are executed, in milliseconds; two review periods
    /// and a half at least.
    #[serde(deserialize_with = "super::units::milliseconds")]
    pub fairness_ms: u64,
}

impl Default for ViewTransferConfig {
    fn default() -> Self {
        let timings = ViewTimings::default();
        Self {
            timeout_ms: timings.timeout.as_millis() as u64,
            timeout_max_ms: timings.timeout_max.as_millis() as u64,
            status_period_ms: timings.status_period.as_millis() as u64,
            review_period_ms: timings.review_period.as_millis() as u64,
            fairness_ms: timings.fairness.as_millis() as u64,
        }
    }
}

impl ViewTransferConfig {
    /// The same, as the protocol takes it.
    #[must_use]
    pub fn timings(&self) -> ViewTimings {
        ViewTimings {
            timeout: Duration::from_millis(self.timeout_ms),
            timeout_max: Duration::from_millis(self.timeout_max_ms),
            status_period: Duration::from_millis(self.status_period_ms),
            review_period: Duration::from_millis(self.review_period_ms),
            fairness: Duration::from_millis(self.fairness_ms),
        }
    }

    fn validate(&self) -> Result<(), Broken> {
        in_range("timeout_ms", self.timeout_ms, 20..=600_000)?;
        in_range("timeout_max_ms", self.timeout_max_ms, self.timeout_ms..=3_600_000)?;
        in_range("status_period_ms", self.status_period_ms, 100..=60_000)?;
        in_range("review_period_ms", self.review_period_ms, 100..=600_000)?;
        in_range("fairness_ms", self.fairness_ms, self.timeout_ms..=3_600_000)
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

/// Everything a replica needs but its service.
#[derive(Debug, Clone)]
pub struct ReplicaConfig {
    /// Where its files lie.
    pub db_path: PathBuf,
    /// Its place in the network.
    pub node: NetworkConfig,
    /// The ordering protocol's own choices.
    pub op_config: OrderingConfig,
    /// The view transfer's patience.
    pub vt_config: ViewTransferConfig,
    /// The decision log: what is kept for peers.
    pub dl_config: DecisionLogConfig,
    /// The transfer of decisions.
    pub lt_config: LogTransferConfig,
    /// The persistent log.
    pub pl_config: PersistentLogConfig,
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
    /// Who is told how the replica is. Nobody, unless the program says otherwise; `atlas run` has the
    /// environment's.
    pub supervisor: Supervisor,
}

/// A replica of a service whose state is transferred as a whole.
#[derive(Debug, Clone)]
pub struct MonolithicStateReplicaConfig<A> {
    /// The service.
    pub service: A,
    /// Everything but the service and its state.
    pub replica_config: ReplicaConfig,
    /// The transfer of the state.
    pub st_config: StateTransferConfig,
}

/// A replica of a service whose state is in parts
/// ([`DivisibleState`](crate::smr::execution::DivisibleState)).
#[derive(Debug, Clone)]
pub struct DivisibleStateReplicaConfig<A> {
    /// The service.
    pub service: A,
    /// Everything but the service and its state.
    pub replica_config: ReplicaConfig,
    /// The transfer of the state.
    pub st_config: StateTransferConfig,
}

/// What a replica's file and those it names say.
#[derive(Debug, Clone)]
pub struct LoadedReplica {
    /// Everything but the service and its state.
    pub replica_config: ReplicaConfig,
    /// The transfer of the state.
    pub st_config: StateTransferConfig,
}

impl LoadedReplica {
    /// The configuration of a replica of this service, whatever the file names.
    #[must_use]
    pub fn serving<A>(self, service: A) -> MonolithicStateReplicaConfig<A> {
        MonolithicStateReplicaConfig {
            service,
            replica_config: self.replica_config,
            st_config: self.st_config,
        }
    }

    /// The same, of a service whose state is in parts.
    #[must_use]
    pub fn serving_parts<A>(self, service: A) -> DivisibleStateReplicaConfig<A> {
        DivisibleStateReplicaConfig {
            service,
            replica_config: self.replica_config,
            st_config: self.st_config,
        }
    }
}

/// A replica's own file.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ReplicaFile {
    /// Which replica this is.
    pub node: u16,
    /// The cluster's file, relative to this one.
    pub cluster: PathBuf,
    /// The key file, relative to this one.
    pub keys: PathBuf,
    /// Where to listen; by default where the cluster's file says.
    #[serde(default)]
    pub listen: Option<String>,
    /// Where the replica's files lie, relative to this one.
    pub db_path: PathBuf,
    /// What is on disk before a vote leaves.
    #[serde(default)]
    pub durability: Durability,
    /// How decisions are executed.
    #[serde(default = "default_executor")]
    pub executor: ExecutorKind,
    /// Threads that execute, of the speculative executor.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// Shards that check client frames, in the automatic topology.
    #[serde(default = "default_preprocessors")]
    pub preprocessor_threads: usize,
    /// The ordering protocol's own choices.
    #[serde(default)]
    pub ordering: OrderingConfig,
    /// The view transfer's patience.
    #[serde(default)]
    pub view_transfer: ViewTransferConfig,
    /// The persistent log.
    #[serde(default)]
    pub log: PersistentLogConfig,
    /// What is kept for peers.
    #[serde(default)]
    pub decision_log: DecisionLogConfig,
    /// The transfer of decisions.
    #[serde(default)]
    pub log_transfer: LogTransferConfig,
    /// The transfer of states.
    #[serde(default)]
    pub state_transfer: StateTransferConfig,
    /// Shards and cores.
    #[serde(default)]
    pub topology: TopologyFile,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}

fn default_executor() -> ExecutorKind {
    ExecutorKind::Single
}

fn default_workers() -> usize {
    2
}

fn default_preprocessors() -> usize {
    2
}

impl ReplicaConfig {
    /// The configuration of one replica with every choice at its default.
    #[must_use]
    pub fn new(cluster: Arc<ClusterConfig>, id: NodeId, keys: PartyKeys, db_path: PathBuf) -> Self {
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
            op_config: OrderingConfig::default(),
            vt_config: ViewTransferConfig::default(),
            dl_config: DecisionLogConfig::default(),
            lt_config: LogTransferConfig::default(),
            pl_config: PersistentLogConfig::default(),
            execution: ExecutionConfig::default(),
            topology: TopologyFile::default(),
            limits: Limits::default(),
            durability: Durability::default(),
            preprocessor_threads: default_preprocessors(),
            supervisor: Supervisor::default(),
        }
    }

    /// How much disk the log may use, and needs.
    #[must_use]
    pub fn disk_budget(&self) -> DiskBudget {
        let agreement = &self.node.cluster.agreement;
        let lengths = self.node.cluster.lengths();
        DiskBudget {
            segment_bytes: self.pl_config.segment_bytes.max(lengths.segment_bytes_min()),
            log_bytes_max: self.pl_config.log_bytes_max,
            checkpoint_decisions: agreement.checkpoint_decisions,
            checkpoint_bytes: agreement
                .checkpoint_bytes
                .saturating_add(agreement.batch_bytes_max as u64),
            state_log_bytes: agreement.state_log_bytes_max,
            view_bytes: lengths.view_records() as u64,
            undecided_bytes: PbftConfig::undecided_bytes_max(
                self.node.cluster.checker_limits().batch_bytes_max,
            ) as u64,
        }
    }

    /// Whether what this replica chose for itself fits what its cluster agreed on.
    fn check_against_cluster(&self) -> Result<(), Broken> {
        let cluster = &self.node.cluster;
        let (lengths, limits) = (cluster.lengths(), &self.limits);
        let at_least = |key, value: u64, least: u64, what: &str| match value >= least {
            true => Ok(()),
            false => Err(Broken {
                key,
                value: value.to_string(),
                rule: format!("must be at least {least}, {what} of this cluster"),
            }),
        };
        at_least(
            "replica_queue_bytes_max",
            limits.replica_queue_bytes_max as u64,
            lengths.burst() as u64,
            "what one message of a peer may have this replica send back at once, with the limits",
        )?;
        at_least(
            "client_queue_bytes_max",
            limits.client_queue_bytes_max as u64,
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

    /// Reads a replica's file and those it names.
    ///
    /// # Errors
    /// Naming the file and line at fault.
    pub fn load(path: &Path) -> Result<LoadedReplica, ConfigError> {
        let file: ReplicaFile = load(path)?;
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
        let mut config = Self::new(
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
        config.execution = ExecutionConfig {
            executor: file.executor,
            workers: file.workers,
        };
        config.topology = file.topology;
        config.limits = file.limits;
        config.durability = file.durability;
        config.preprocessor_threads = file.preprocessor_threads;
        config
            .check_against_cluster()
            .map_err(|broken| broken.in_file(path))?;
        Ok(LoadedReplica {
            replica_config: config,
            st_config: file.state_transfer,
        })
    }
}

impl Validate for ReplicaFile {
    const WHOSE: Whose = Whose::Replica;

    fn validate(&self) -> Result<(), Broken> {
        if let Some(listen) = self.listen.as_ref().filter(|listen| !is_host_and_port(listen)) {
            return Err(Broken {
                key: "listen",
                value: listen.clone(),
                rule: "must be host:port".into(),
            });
        }
        in_range("pipeline", self.ordering.pipeline, 1..=1024)?;
        self.view_transfer.validate()?;
        in_range("workers", self.workers, 1..=64)?;
        in_range("preprocessor_threads", self.preprocessor_threads, 1..=16)?;
        self.log.validate()?;
        self.decision_log.validate()?;
        self.log_transfer.validate()?;
        self.state_transfer.validate()?;
        self.topology.validate()?;
        self.limits.validate()
    }
}
