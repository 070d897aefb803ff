use std::sync::Arc;

use super::host::Host;
use super::supervisor;
use crate::runtime::admin::{DataDisk, Subject};
use crate::runtime::config::{Durability, PartConfigs, ReplicaConfig};
use crate::runtime::flight::{FlightIdentity, FlightRecorder};
use crate::runtime::metrics::Metrics;
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::control::Beat;
use crate::runtime::shard::data::Lifecycle;
use crate::runtime::shard::pulse::Vitals;

/// What every data shard shares, and whoever watches over it looks at.
pub(super) struct Watched {
    pub doorbells: Vec<Doorbell>,
    pub metrics: Arc<Metrics>,
    pub lifecycle: Lifecycle,
    pub vitals: Vitals,
    pub flight: FlightRecorder,
}

impl Watched {
    pub fn new<P: PartConfigs, H: Host>(
        config: &ReplicaConfig<P, H>,
        metrics: Arc<Metrics>,
        doorbells: Vec<Doorbell>,
    ) -> Self {
        let cluster = &config.node.cluster;
        let identity = FlightIdentity {
            cluster: cluster.cluster_id(),
            node: config.node.id,
            epoch: cluster.epoch(),
        };
        let directory = config.db_path.clone();
        // Shards and the recorder count time from the same moment as roles, which look at the clock by their
        // metrics.
        let started = metrics.measures.started();
        let flight = FlightRecorder::new(identity, &config.flight, doorbells.len(), directory, started);
        let bells = doorbells.iter().enumerate();
        let vitals = Vitals::new(
            control_name(config),
            bells.map(|(index, bell)| (shard_name(config, index), bell.clone())),
        );
        Self {
            doorbells,
            metrics,
            lifecycle: Lifecycle::default(),
            vitals,
            flight,
        }
    }

    /// What the admin endpoint sees.
    pub fn subject<P: PartConfigs, H: Host>(&self, config: &ReplicaConfig<P, H>) -> Subject {
        Subject {
            metrics: self.metrics.clone(),
            vitals: self.vitals.clone(),
            lifecycle: self.lifecycle.clone(),
            cluster: config.node.cluster.cluster_id(),
            quorum: config.node.cluster.quorum(),
            disk: (config.durability != Durability::None).then(|| DataDisk {
                path: config.db_path.clone(),
                log_bytes_max: config.disk_budget().log_bytes_max,
            }),
            log_filter: config.log_filter.clone(),
            flight: self.flight.clone(),
        }
    }

    /// What the control shard does at every beat.
    pub fn beat<P: PartConfigs, H: Host>(&self, config: &ReplicaConfig<P, H>) -> Beat {
        supervisor::beat(
            config.supervisor.clone(),
            self.vitals.clone(),
            self.lifecycle.clone(),
            self.metrics.clone(),
            config.node.cluster.quorum().quorum(),
        )
    }
}

pub(super) fn control_name<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> String {
    format!("control-{}", config.node.id)
}

pub(super) fn admin_name<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> String {
    format!("admin-{}", config.node.id)
}

pub(super) fn shard_name<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>, index: usize) -> String {
    format!("atlas-{}-d{index}", config.node.id)
}
