//! As many open files and sockets as a replica's configuration may need.

use super::ReplicaError;
use crate::runtime::config::{Durability, PartConfigs, ReplicaConfig};
use crate::runtime::shard::descriptors::{RESERVE, provide};

/// Segments that are expected to be open at most: a checkpoint closes most of them, whatever the log may grow
/// to.
const SEGMENTS_OPEN: usize = 512;

/// Makes sure that connections, the log and everything else never run out of descriptors together.
pub(super) fn provide_for<P: PartConfigs>(config: &ReplicaConfig<P>) -> Result<(), ReplicaError> {
    let limits = &config.limits;
    let replicas = config.node.cluster.replicas.len() as u64;
    let segments = match config.durability {
        Durability::None => 0,
        Durability::Sync | Durability::Async => config.disk_budget().segments_max().min(SEGMENTS_OPEN) as u64,
    };
    // Each other replica may be dialled, looked up, and read an image.
    let connections = u64::from(limits.connections_max) + limits.handshakes_max as u64;
    let needed = connections + 3 * replicas + segments + RESERVE;
    provide(needed).map_err(|source| ReplicaError::Descriptors {
        connections_max: limits.connections_max,
        source,
    })
}
