use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{Broken, ConfigError, Validate, in_range, load};
use super::topology::TopologyFile;
use super::{ClusterConfig, Limits, PartyKeys};
use crate::types::NodeId;

/// What is on disk before a vote or reply leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Nothing is kept on disk.
    None,
}

impl std::fmt::Display for Durability {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("none")
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

/// How decisions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutorKind {
    /// One operation after the other.
    Single,
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
    /// Shards and cores.
    pub topology: TopologyFile,
    /// Bounds.
    pub limits: Limits,
    /// What is on disk before a vote leaves.
    pub durability: Durability,
    /// How many shards check and hash client frames, in the automatic topology of eight cores or more.
    pub preprocessor_threads: usize,
}

/// A replica of a service whose state is transferred as a whole.
#[derive(Debug, Clone)]
pub struct MonolithicStateReplicaConfig<A> {
    /// The service.
    pub service: A,
    /// Everything else.
    pub replica_config: ReplicaConfig,
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
    #[serde(default = "default_durability")]
    pub durability: Durability,
    /// The service.
    pub app: AppKind,
    /// How decisions are executed.
    #[serde(default = "default_executor")]
    pub executor: ExecutorKind,
    /// Shards that check client frames, in the automatic topology.
    #[serde(default = "default_preprocessors")]
    pub preprocessor_threads: usize,
    /// The ordering protocol's own choices.
    #[serde(default)]
    pub ordering: OrderingConfig,
    /// Shards and cores.
    #[serde(default)]
    pub topology: TopologyFile,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}

fn default_durability() -> Durability {
    Durability::None
}

fn default_executor() -> ExecutorKind {
    ExecutorKind::Single
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
            topology: TopologyFile::default(),
            limits: Limits::default(),
            durability: default_durability(),
            preprocessor_threads: default_preprocessors(),
        }
    }

    /// Reads a replica's file and those it names; also tells which service it names.
    ///
    /// # Errors
    /// Naming the file and line at fault.
    pub fn load(path: &Path) -> Result<(Self, AppKind), ConfigError> {
        let file: ReplicaFile = load(path)?;
        let beside = |name: &Path| path.parent().unwrap_or(Path::new("")).join(name);
        let cluster_path = beside(&file.cluster);
        let cluster: ClusterConfig = load(&cluster_path)?;
        let key_path = beside(&file.keys);
        let keys = PartyKeys::load(&key_path)?;
        let listed = cluster.replicas.get(usize::from(file.node)).is_some_and(|entry| {
            entry.signing_key == keys.signing.verifying_key() && entry.link_key == keys.link.public()
        });
        if !listed {
            let owner = format!("replica {}", file.node);
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
        config.topology = file.topology;
        config.limits = file.limits;
        config.durability = file.durability;
        config.preprocessor_threads = file.preprocessor_threads;
        Ok((config, file.app))
    }
}

impl Validate for ReplicaFile {
    fn validate(&self) -> Result<(), Broken> {
        in_range("pipeline", self.ordering.pipeline, 1..=1024)?;
        in_range("preprocessor_threads", self.preprocessor_threads, 1..=16)?;
        self.topology.validate()?;
        self.limits.validate()
    }
}
