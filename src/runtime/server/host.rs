//! What meets the machine, as parts of a replica: its log on disk and its links.

use crate::runtime::shard::network_node::{
    NetworkNodeConfig, NetworkPartConfig, SealedLinks, SmrReplicaNetworkNode,
};
use crate::runtime::storage::{LogWriter, PersistentLogConfig, PersistentLogPartConfig, SmrPersistentLog};

/// What a replica meets the machine with: swapping one is changing one associated type, and its
/// configuration.
///
/// The protocols of a [`Stack`](crate::smr::replica::Stack) know nothing of it: any stack runs on any host,
/// and the simulator has disks and links of its own.
pub trait Host: Sized + std::fmt::Debug + Clone + PartialEq + Eq + Send + Sync + 'static {
    /// `[log]`
    type LogConfig: PersistentLogPartConfig;
    /// How records get to the disk.
    type PersistentLog: SmrPersistentLog<Config = Self::LogConfig>;
    /// `[network]`
    type NetworkConfig: NetworkPartConfig;
    /// How messages get to peers; one for each shard that serves sockets.
    type Network: SmrReplicaNetworkNode<Config = Self::NetworkConfig>;
}

/// The production host: segments written in groups, sealed links over TCP, both on io_uring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultHost;

impl Host for DefaultHost {
    type LogConfig = PersistentLogConfig;
    type PersistentLog = LogWriter;
    type NetworkConfig = NetworkNodeConfig;
    type Network = SealedLinks;
}
