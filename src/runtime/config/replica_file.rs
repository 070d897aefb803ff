use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::{Validate, Whose};
use super::topology::TopologyFile;
use super::{
    AdminConfig, Durability, ExecutorKind, FlightConfig, Limits, LoggingConfig, ReconfigurationConfig,
};
use crate::runtime::server::{DefaultHost, Host};
use crate::smr::membership::is_host_and_port;
use crate::smr::protocol::{InvalidSetting, PartConfig, in_range};
use crate::smr::replica::{DefaultConfigs, PartConfigs, PartSettings};

/// A replica's own file.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, bound = "")]
pub struct ReplicaFile<P: PartConfigs = DefaultConfigs, H: Host = DefaultHost> {
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
    /// The sequence number of the next decision, if it is known: the replica refuses to start on other files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_consensus_seq: Option<u64>,
    /// The ordering protocol's own choices.
    #[serde(default)]
    pub ordering: P::Ordering,
    /// The view transfer's patience.
    #[serde(default)]
    pub view_transfer: P::ViewTransfer,
    /// The persistent log.
    #[serde(default)]
    pub log: H::LogConfig,
    /// The budgets of links.
    #[serde(default)]
    pub network: H::NetworkConfig,
    /// Which memberships are taken for the cluster's.
    #[serde(default)]
    pub reconfiguration: ReconfigurationConfig,
    /// What is kept for peers.
    #[serde(default)]
    pub decision_log: P::DecisionLog,
    /// The transfer of decisions.
    #[serde(default)]
    pub log_transfer: P::LogTransfer,
    /// The transfer of states.
    #[serde(default)]
    pub state_transfer: P::StateTransfer,
    /// Shards and cores.
    #[serde(default)]
    pub topology: TopologyFile,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// The endpoint for monitoring, probes and operators.
    #[serde(default)]
    pub admin: AdminConfig,
    /// What is logged, and how.
    #[serde(default)]
    pub logging: LoggingConfig,
    /// The recorder of its last events.
    #[serde(default)]
    pub flight: FlightConfig,
}

fn default_executor() -> ExecutorKind {
    ExecutorKind::Single
}

pub(super) fn default_workers() -> usize {
    2
}

pub(super) fn default_preprocessors() -> usize {
    2
}

/// Whether what one replica chose for itself is within bounds, as a file says it or as a program does.
pub(super) fn check_choices<P: PartConfigs>(
    parts: &PartSettings<P>,
    (workers, preprocessors): (usize, usize),
    (log, network): (&impl PartConfig, &impl PartConfig),
    (admin, logging, flight): (&AdminConfig, &LoggingConfig, &FlightConfig),
    topology: &TopologyFile,
    limits: &Limits,
) -> Result<(), InvalidSetting> {
    parts.validate()?;
    in_range("workers", workers, 1..=64)?;
    in_range("preprocessor_threads", preprocessors, 1..=16)?;
    log.validate()?;
    network.validate()?;
    admin.validate()?;
    logging.validate()?;
    flight.validate()?;
    topology.validate()?;
    limits.validate()
}

impl<P: PartConfigs, H: Host> ReplicaFile<P, H> {
    fn parts(&self) -> PartSettings<P> {
        PartSettings {
            ordering: self.ordering.clone(),
            view_transfer: self.view_transfer.clone(),
            decision_log: self.decision_log.clone(),
            log_transfer: self.log_transfer.clone(),
            state_transfer: self.state_transfer.clone(),
        }
    }
}

impl<P: PartConfigs, H: Host> Validate for ReplicaFile<P, H> {
    const WHOSE: Whose = Whose::Replica;

    fn validate(&self) -> Result<(), InvalidSetting> {
        if let Some(listen) = self.listen.as_ref().filter(|listen| !is_host_and_port(listen)) {
            return Err(InvalidSetting {
                key: "listen",
                value: listen.clone(),
                rule: "must be host:port".into(),
            });
        }
        check_choices(
            &self.parts(),
            (self.workers, self.preprocessor_threads),
            (&self.log, &self.network),
            (&self.admin, &self.logging, &self.flight),
            &self.topology,
            &self.limits,
        )
    }
}
