//! The threads beside the log role, which may wait for the disk: the storage worker, its helper for
//! snapshots, the snapshot transfer.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ReplicaError;
use super::host::Host;
use super::recovery::Recovered;
use super::wiring::StorageLanes;
use crate::runtime::config::{PartConfigs, ReplicaConfig};
use crate::runtime::shard::Alarm;
use crate::runtime::shard::lanes::{LinkSender, Logged};
use crate::runtime::storage::snapshot_transfer::{SnapshotTransferEvent, SnapshotTransferWorker};
use crate::runtime::storage::storage_worker::{StorageEvent, StorageWorker};
use crate::smr::crypto::Digester;
use crate::smr::protocol::SnapshotEvent;

pub(super) fn storage_worker_name<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> String {
    format!("storage-{}", config.node.id)
}

/// What the log role writes with, and to.
pub(super) type OpenLog<L> = (L, BTreeMap<u64, File>);

/// Who works beside the log role, and what that works with.
type StorageWorkers<L> = ((StorageWorker, SnapshotTransferWorker), OpenLog<L>);

pub(super) fn snapshots_name<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> String {
    format!("snapshots-{}", config.node.id)
}

pub(super) fn snapshot_transfer_name<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> String {
    format!("transfer-{}", config.node.id)
}

/// Starts the storage worker and the snapshot transfer of a recovered directory; what they do goes to the log
/// and to consensus.
pub(super) fn start_storage_workers<P: PartConfigs, H: Host>(
    config: &ReplicaConfig<P, H>,
    recovered: Recovered<H::PersistentLog>,
    lanes: StorageLanes,
    alarm: &Alarm,
) -> Result<StorageWorkers<H::PersistentLog>, ReplicaError> {
    let StorageLanes {
        kept: mut to_log,
        mut snapshots,
        mut transfers,
    } = lanes;
    let (to_log, place) = (
        Arc::new(Mutex::new(move |event| deliver(&mut to_log, event))),
        (
            recovered.directory.snapshots_path(),
            recovered.directory.superblock().seed,
            Digester::new(config.node.cluster.cluster_id()),
        ),
    );
    let log_path = recovered.directory.log_path();
    let tell_log = to_log.clone();
    let on_stored = move |event| match event {
        StorageEvent::Snapshot(seq) => deliver(&mut snapshots, Logged::Snapshot(seq)),
        StorageEvent::Adopted(seq) => {
            deliver(&mut snapshots, Logged::Transfer(SnapshotEvent::Completed(seq)))
        }
        other => tell_log.lock().unwrap_or_else(PoisonError::into_inner)(other),
    };
    let storage_worker = StorageWorker::spawn(
        (storage_worker_name(config), snapshots_name(config)),
        recovered.directory,
        recovered.spare,
        alarm,
        on_stored,
    )
    .map_err(ReplicaError::StorageWorker)?;
    let on_transferred = move |event| match event {
        SnapshotTransferEvent::Snapshot(event) => deliver(&mut transfers, Logged::Transfer(event)),
        SnapshotTransferEvent::Read(read) => deliver(&mut transfers, Logged::Read(read)),
        SnapshotTransferEvent::Failed(error) => {
            to_log.lock().unwrap_or_else(PoisonError::into_inner)(StorageEvent::Failed(error))
        }
    };
    let log = (log_path, recovered.reader);
    let peers = config.node.cluster.quorum().n() - 1;
    let storage = (storage_worker.handle(), peers);
    let name = snapshot_transfer_name(config);
    let snapshot_transfer = SnapshotTransferWorker::spawn(name, place, log, storage, alarm, on_transferred);
    let snapshot_transfer = snapshot_transfer.map_err(ReplicaError::StorageWorker)?;
    Ok((
        (storage_worker, snapshot_transfer),
        (recovered.writer, recovered.files),
    ))
}

/// How long a thread that may wait looks away while a lane is full.
const LANE_PAUSE: Duration = Duration::from_micros(200);
/// How long it waits at most: a replica that ended takes nothing any more.
const LANE_PATIENCE: u32 = 50_000;

/// Puts an item into a lane, waiting for room.
fn deliver<T: Send>(lane: &mut LinkSender<T>, item: T) {
    lane.push(item);
    for _ in 0..LANE_PATIENCE {
        let is_full = lane.is_blocked();
        lane.ring();
        if !is_full {
            return;
        }
        std::thread::sleep(LANE_PAUSE);
    }
}
