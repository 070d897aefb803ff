//! A replica's data directory becomes a replica that goes on where it stopped.

use std::collections::BTreeMap;
use std::fs::File;

use super::ReplicaError;
use super::host::Host;
use super::repair::can_abstain;
use crate::runtime::config::{Durability, ReplicaConfig};
use crate::runtime::metrics::{Metrics, SequenceGauges};
use crate::runtime::shard::probe::is_in_memory;
use crate::runtime::storage::logged::LogReader;
use crate::runtime::storage::restart::{Continued, RestartSettings, Restored, restart, writer_settings};
use crate::runtime::storage::{DataDirectory, RecordReader, SmrPersistentLog};
use crate::smr::crypto::Digester;
use crate::smr::messages::CheckpointClaim;
use crate::smr::replica::{ExecutorOf, Replica, Stack};
use crate::smr::types::SeqNo;

/// What a replica starts from.
pub(super) struct Recovered<L> {
    pub directory: DataDirectory,
    pub writer: L,
    /// The segments that are written to next: the last one with records, and those prepared.
    pub files: BTreeMap<u64, File>,
    /// Segments of which nothing is needed any more.
    pub spare: Vec<u64>,
    /// Reads decisions back.
    pub reader: LogReader<File>,
}

/// Opens the data directory and restores what is in it.
pub(super) fn recover<S: Stack, H: Host>(
    config: &ReplicaConfig<S::Configs, H>,
    metrics: &Metrics,
    replica: &mut Replica<S>,
    executor: &mut ExecutorOf<S>,
) -> Result<Recovered<H::PersistentLog>, ReplicaError> {
    let cluster = &config.node.cluster;
    // First of all: with another application's file the cluster would be another one as well, which says
    // less.
    let application = cluster.application;
    DataDirectory::check_application(&config.db_path, application)?;
    let mut directory = DataDirectory::open(&config.db_path, cluster.cluster_id(), config.node.id)?;
    directory.update(|superblock| superblock.application = application)?;
    if config.durability == Durability::Sync && is_in_memory(&config.db_path) {
        tracing::warn!(
            directory = %config.db_path.display(),
            "durability = \"sync\", but the data directory lies in memory (tmpfs): nothing of it outlives this host"
        );
    }
    let budget = config.disk_budget();
    budget.check(&directory)?;
    let limits = cluster.checker_limits();
    let reader = RecordReader::new(Digester::new(cluster.cluster_id()), limits);
    let settings = RestartSettings {
        reader: reader.clone(),
        can_abstain: can_abstain(config),
        base: CheckpointClaim::NONE,
    };
    let restored = restart(&mut directory, &settings, replica, executor, &mut ())?;
    publish(metrics, replica, &restored);
    // Its start may have moved on.
    let superblock = *directory.superblock();
    if superblock.starts > 1 {
        tracing::info!(
            snapshot = %restored.snapshot.map_or(SeqNo::ZERO, |claim| claim.seq),
            records = restored.records,
            replayed = restored.replayed,
            torn = restored.tail.torn,
            executed = %replica.executed(),
            view = %replica.view(),
            "restored from disk"
        );
    }
    let settings = writer_settings(
        &superblock,
        budget.segment_bytes,
        budget.segments_max(),
        &cluster.lengths(),
    );
    let writer = H::PersistentLog::make(&config.pl_config, settings, &restored.tail);
    let Continued {
        writer,
        current,
        spare,
    } = restored.go_on(writer, &superblock);
    let mut files = BTreeMap::new();
    for index in current {
        files.insert(index, directory.open_segment(index, settings.segment_bytes)?);
    }
    Ok(Recovered {
        directory,
        writer,
        files,
        spare,
        reader: LogReader::new(reader, superblock.tag(), superblock.seed),
    })
}

/// Publishes where the replica stands, and the checkpoints it has: what is asked of it before its shards turn
/// is answered truly.
fn publish<S: Stack>(metrics: &Metrics, replica: &Replica<S>, restored: &Restored) {
    metrics.publish(SequenceGauges::of(replica), replica.counters());
    if let Some(claim) = restored.snapshot {
        metrics.publish_installed(claim);
    }
    for taken in &restored.claims {
        metrics.publish_checkpoint(taken.claim);
    }
}
