//! The threads beside the log role, which may wait for the disk: the keeper, its helper for images, the shelf.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ReplicaError;
use super::host::Host;
use super::recovery::Recovered;
use super::wiring::KeeperLanes;
use crate::runtime::config::{PartConfigs, ReplicaConfig};
use crate::runtime::shard::Alarm;
use crate::runtime::shard::lanes::{LinkSender, Logged};
use crate::runtime::storage::keeper::{Keeper, Kept};
use crate::runtime::storage::shelf::{Shelf, Shelved};
use crate::smr::crypto::Digester;
use crate::smr::protocol::ImageEvent;

pub(super) fn keeper_name<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> String {
    format!("keeper-{}", config.node.id)
}

/// What the log role writes with, and to.
pub(super) type OpenLog<L> = (L, BTreeMap<u64, File>);

/// Who works beside the log role, and what that works with.
type Keepers<L> = ((Keeper, Shelf), OpenLog<L>);

pub(super) fn images_name<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> String {
    format!("images-{}", config.node.id)
}

pub(super) fn shelf_name<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> String {
    format!("shelf-{}", config.node.id)
}

/// Starts the keeper and the shelf of a recovered directory; what they do goes to the log and to consensus.
pub(super) fn start_keepers<P: PartConfigs, H: Host>(
    config: &ReplicaConfig<P, H>,
    recovered: Recovered<H::PersistentLog>,
    lanes: KeeperLanes,
    alarm: &Alarm,
) -> Result<Keepers<H::PersistentLog>, ReplicaError> {
    let KeeperLanes {
        kept: mut to_log,
        mut images,
        mut transfers,
    } = lanes;
    let (to_log, place) = (
        Arc::new(Mutex::new(move |kept| deliver(&mut to_log, kept))),
        (
            recovered.directory.images_path(),
            recovered.directory.superblock().seed,
            Digester::new(config.node.cluster.cluster_id()),
        ),
    );
    let log_path = recovered.directory.log_path();
    let tell_log = to_log.clone();
    let told = move |kept| match kept {
        Kept::Image(seq) => deliver(&mut images, Logged::Image(seq)),
        Kept::Adopted(seq) => deliver(&mut images, Logged::Transfer(ImageEvent::Completed(seq))),
        other => tell_log.lock().unwrap_or_else(PoisonError::into_inner)(other),
    };
    let keeper = Keeper::spawn(
        (keeper_name(config), images_name(config)),
        recovered.directory,
        recovered.spare,
        alarm,
        told,
    )
    .map_err(ReplicaError::Keeper)?;
    let told = move |shelved| match shelved {
        Shelved::Event(event) => deliver(&mut transfers, Logged::Transfer(event)),
        Shelved::Read(read) => deliver(&mut transfers, Logged::Read(read)),
        Shelved::Failed(error) => to_log.lock().unwrap_or_else(PoisonError::into_inner)(Kept::Failed(error)),
    };
    let log = (log_path, recovered.reader);
    let peers = config.node.cluster.quorum().n() - 1;
    let keeps = (keeper.handle(), peers);
    let shelf = Shelf::spawn(shelf_name(config), place, log, keeps, alarm, told);
    let shelf = shelf.map_err(ReplicaError::Keeper)?;
    Ok(((keeper, shelf), (recovered.writer, recovered.files)))
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
