//! Configuration: what a cluster agrees on, what one replica or client decides for itself.
//!
//! | file | type | who reads it |
//! |---|---|---|
//! | `cluster.toml` | [`ClusterConfig`] | everybody; must be the same everywhere |
//! | `rN.toml` | [`ReplicaFile`] | replica N |
//! | `cN.toml` | [`ClientFile`] | client N |
//! | `rN.key`, `cN.key` | [`KeyFile`] | its owner; readable by nobody else |
//! | `oN.key` | [`OperatorKeyFile`] | operator N; neither replicas nor clients need it |
//!
//! Every error names the file, the line, the key, and what would be right.

mod admin;
mod client;
mod cluster;
mod error;
mod flight;
mod keys;
mod limits;
mod logging;
mod loopback;
mod reconfiguration;
mod replica;
mod replica_file;
mod topology;

pub use admin::AdminConfig;
pub use client::{ClientConfig, ClientFile, ClientTuning, ReadLevel};
pub use cluster::{ClientEntry, ClusterConfig, OperatorEntry, ReplicaEntry};
pub use error::{ConfigError, Whose, load};
pub use flight::FlightConfig;
pub use keys::{KeyFile, OperatorKey, OperatorKeyFile, PartyKeys};
pub use limits::{
    Limits, REPLICA_MESSAGE_CHANNEL, REPLICA_WAIT_TIME, RESPONSE_CHANNEL_SIZE, WORK_CHANNEL_SIZE,
};
pub use logging::{LogFilterError, LogFormat, LoggingConfig, check_log_filter};
pub use loopback::LoopbackCluster;
pub use reconfiguration::ReconfigurationConfig;
pub use replica::{
    AppKind, DivisibleStateReplicaConfig, Durability, ExecutionConfig, ExecutorKind, LoadedReplica,
    MonolithicStateReplicaConfig, NetworkConfig, ReplicaConfig,
};
pub use replica_file::ReplicaFile;
pub use topology::{RoleKind, ShardSpec, Topology, TopologyError, TopologyFile};

pub use crate::runtime::shard::network_node::NetworkNodeConfig;
pub use crate::runtime::storage::PersistentLogConfig;
pub use crate::smr::decision_log::DecisionLogConfig;
pub use crate::smr::log_transfer::LogTransferConfig;
pub use crate::smr::membership::{Agreement, CHECKPOINT_PERIOD};
pub use crate::smr::ordering::pbft::OrderingConfig;
pub use crate::smr::protocol::{InvalidSetting, PartConfig};
pub use crate::smr::replica::{DefaultConfigs, PartConfigs, PartSettings};
pub use crate::smr::state_transfer::StateTransferConfig;
pub use crate::smr::view_transfer::pbft::ViewTransferConfig;

#[cfg(test)]
mod tests;
