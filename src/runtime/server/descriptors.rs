//! As many open files and sockets as a replica's configuration may need.

use super::ReplicaError;
use super::host::Host;
use crate::runtime::config::{Durability, Limits, PartConfigs, ReplicaConfig};
use crate::runtime::shard::descriptors::{RESERVE, provide};

/// Segments that are expected to be open at most: a checkpoint closes most of them, whatever the log may grow
/// to.
const SEGMENTS_OPEN: usize = 512;

/// What a replica of a small cluster with the configuration that `atlas init` makes has.
#[cfg(feature = "tools")]
const USUAL_REPLICAS: u64 = 4;

/// Makes sure that connections, the log and everything else never run out of descriptors together.
pub(super) fn provide_for<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> Result<(), ReplicaError> {
    let segments = match config.durability {
        Durability::None => 0,
        Durability::Sync | Durability::Async => config.disk_budget().segments_max(),
    };
    provide_counted(
        &config.limits,
        config.node.cluster.replicas.len() as u64,
        segments,
        config.admin.descriptors(),
    )
}

/// Whether a replica as `atlas init` makes it, one of four, would be refused for too few descriptors.
///
/// # Errors
/// As its start would say it.
#[cfg(feature = "tools")]
pub(crate) fn expect_usual() -> Result<(), ReplicaError> {
    let log = crate::runtime::config::PersistentLogConfig::default();
    let segments = log.log_bytes_max / log.segment_bytes;
    provide_counted(&Limits::default(), USUAL_REPLICAS, segments as usize, 0)
}

fn provide_counted(limits: &Limits, replicas: u64, segments: usize, admin: u64) -> Result<(), ReplicaError> {
    // Each other replica may be dialled, looked up, and read a snapshot.
    let connections = u64::from(limits.connections_max) + limits.handshakes_max as u64;
    let needed = connections + 3 * replicas + segments.min(SEGMENTS_OPEN) as u64 + admin + RESERVE;
    provide(needed).map_err(|source| ReplicaError::Descriptors {
        connections_max: limits.connections_max,
        source,
    })
}
