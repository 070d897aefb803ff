use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use super::{Agreement, ClientConfig, ClusterConfig, PartyKeys, ReplicaConfig};
use crate::smr::types::{ApplicationId, ClientId, NodeId};

/// A cluster whose replicas are to run in this process, over loopback TCP: for demonstrations, benches and
/// tests. Keys are made for everybody, and ports found that are free.
#[derive(Debug)]
pub struct LoopbackCluster {
    /// The cluster.
    pub cluster: Arc<ClusterConfig>,
    /// What each replica is started with. It listens already, so that none is ever refused a connection.
    pub replicas: Vec<ReplicaConfig>,
    /// Its clients.
    pub clients: Vec<ClientConfig>,
}

impl LoopbackCluster {
    /// So many replicas and clients of an application. Each replica's data directory is one in `data`, named
    /// by its number; none is made.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new(
        application: ApplicationId,
        agreement: Agreement,
        (replicas, clients): (usize, usize),
        data: &Path,
    ) -> io::Result<Self> {
        let keys: Vec<_> = (0..replicas).map(|_| PartyKeys::generate()).collect();
        let client_keys: Vec<_> = (0..clients).map(|_| PartyKeys::generate()).collect();
        let listeners = (0..replicas).map(|_| TcpListener::bind("127.0.0.1:0"));
        let listeners: Vec<_> = listeners.collect::<io::Result<_>>()?;
        let addresses = listeners
            .iter()
            .map(|listener| Ok(listener.local_addr()?.to_string()));
        let addresses: Vec<_> = addresses.collect::<io::Result<_>>()?;
        let cluster = Arc::new(ClusterConfig::of(
            "loopback",
            application,
            agreement,
            addresses.into_iter().zip(&keys),
            &client_keys,
        ));
        let parties = NodeId::all(replicas).zip(keys).zip(listeners);
        let replicas = parties.map(|((node, keys), listener)| {
            let path = data.join(node.to_string());
            let mut config = ReplicaConfig::new(cluster.clone(), node, keys, path);
            config.node.listener = Some(Arc::new(listener));
            config
        });
        let clients = (0..).zip(client_keys);
        Ok(Self {
            replicas: replicas.collect(),
            clients: clients
                .map(|(id, keys)| ClientConfig::new(cluster.clone(), ClientId::new(id), keys))
                .collect(),
            cluster,
        })
    }
}
