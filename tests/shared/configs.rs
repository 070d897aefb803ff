//! Configurations of clusters in one process, for the tests that bootstrap replicas themselves.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use atlas_smr_replica::config::{
    Agreement, ClientConfig, ClientEntry, ClientTuning, ClusterConfig, PartyKeys, ReplicaConfig, ReplicaEntry,
};
use atlas_smr_replica::storage::DataDirectory;
use atlas_smr_replica::types::{ApplicationId, ClientId, NodeId, PROTOCOL_VERSION};

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
    let keys: Vec<PartyKeys> = (0..4).map(|_| PartyKeys::generate()).collect();
    let client_keys: Vec<PartyKeys> = (0..clients).map(|_| PartyKeys::generate()).collect();
    let listeners: Vec<TcpListener> = keys
        .iter()
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let cluster = Arc::new(ClusterConfig {
        format: 1,
        name: "test".into(),
        genesis: "00".into(),
        application: ApplicationId::new(application, 1).unwrap(),
        epoch: 0,
        protocol_version: PROTOCOL_VERSION,
        operators_threshold: 0,
        agreement,
        replicas: (0..4)
            .map(|id| ReplicaEntry {
                id: id as u16,
                address: listeners[id].local_addr().unwrap().to_string(),
                signing_key: keys[id].signing.verifying_key(),
                link_key: keys[id].link.public(),
            })
            .collect(),
        clients: (0..)
            .zip(&client_keys)
            .map(|(id, keys)| ClientEntry {
                id,
                signing_key: keys.signing.verifying_key(),
                link_key: keys.link.public(),
            })
            .collect(),
        operators: Vec::new(),
    });
    let parties = keys.into_iter().zip(listeners).enumerate();
    let replicas = parties.map(|(id, (keys, listener))| {
        let node = NodeId::new(id as u16);
        let path = data.join(format!("r{id}"));
        DataDirectory::format(&path, cluster.cluster_id(), node, cluster.epoch()).unwrap();
        let mut config = ReplicaConfig::new(cluster.clone(), node, keys, path);
        config.node.listener = Some(Arc::new(listener));
        config.topology.pin = false;
        config
    });
    let replicas = replicas.collect();
    let clients = (0..).zip(client_keys).map(|(id, keys)| ClientConfig {
        cluster: cluster.clone(),
        client: ClientId::new(id),
        keys,
        tuning: ClientTuning::default(),
    });
    (replicas, clients.collect())
}
