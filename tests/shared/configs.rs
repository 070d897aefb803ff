//! Configurations of clusters in one process, for the tests that bootstrap replicas themselves.

use std::path::Path;

use atlas_smr_replica::config::{Agreement, ClientConfig, LoopbackCluster, ReplicaConfig};
use atlas_smr_replica::storage::DataDirectory;
use atlas_smr_replica::types::ApplicationId;

/// [`configure_for`] the key-value store.
pub fn configure(data: &Path, agreement: Agreement, clients: u32) -> (Vec<ReplicaConfig>, Vec<ClientConfig>) {
    configure_for("kv", data, agreement, clients)
}

/// Four replicas of an application that are not pinned and listen already, with formatted directories in
/// `data`, and so many clients.
pub fn configure_for(
    application: &str,
    data: &Path,
    agreement: Agreement,
    clients: u32,
) -> (Vec<ReplicaConfig>, Vec<ClientConfig>) {
    let application = ApplicationId::new(application, 1).unwrap();
    let LoopbackCluster {
        cluster,
        mut replicas,
        clients,
    } = LoopbackCluster::new(application, agreement, (4, clients as usize), data).unwrap();
    for config in &mut replicas {
        DataDirectory::format(
            &config.db_path,
            cluster.cluster_id(),
            config.node.id,
            cluster.epoch(),
        )
        .unwrap();
        config.topology.pin = false;
    }
    (replicas, clients)
}
