//! The roles of a replica, made from its parts, and dealt out to the shards.

use std::sync::Arc;
use std::time::Duration;
use std::vec;

use super::assembly::pool_limits;
use super::host::Host;
use super::storage_workers::OpenLog;
use super::wiring::RoleLanes;
use crate::runtime::config::{Durability, ReplicaConfig, RoleKind};
use crate::runtime::metrics::Metrics;
use crate::runtime::shard::crew::HelperThreads;
use crate::runtime::shard::faults::{Faults, Interceptor};
use crate::runtime::shard::network_node::{NetworkContext, SmrReplicaNetworkNode};
use crate::runtime::shard::roles::{
    ConsensusRole, ExecutionRole, LogLanes, LogRole, NetworkLanes, NetworkRole, PreprocessLanes,
    PreprocessRole, Role,
};
use crate::runtime::storage::AbstentionMark;
use crate::runtime::storage::snapshot_transfer::{SnapshotTransferHandle, SnapshotTransferWorker};
use crate::runtime::storage::storage_worker::{StorageWorker, StorageWorkerHandle};
use crate::smr::crypto::Digester;
use crate::smr::execution::{Executor, ReadGate, ReadLimits};
use crate::smr::node::{Consensus, Execution, Preprocessing};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::preprocessing::{ClientDirectory, ExpectedTraffic, FrameChecker, PeerVerifyGate, PoolLimits};
use crate::smr::replica::{OrderingOf, Replica, Stack};

/// Who works at the disk; nobody, if nothing is kept.
pub(super) struct OnDisk<L> {
    pub storage_worker: Option<StorageWorkerHandle>,
    pub snapshot_transfer: Option<SnapshotTransferHandle>,
    pub log: Option<OpenLog<L>>,
}

impl<L> OnDisk<L> {
    pub fn of(
        storage_workers: Option<&(StorageWorker, SnapshotTransferWorker)>,
        log: Option<OpenLog<L>>,
    ) -> Self {
        Self {
            storage_worker: storage_workers.map(|(storage_worker, _)| storage_worker.handle()),
            snapshot_transfer: storage_workers.map(|(_, snapshot_transfer)| snapshot_transfer.handle()),
            log,
        }
    }
}

/// The roles that no shard has yet.
pub(super) struct Roles<'a, S: Stack, H: Host> {
    config: &'a ReplicaConfig<S::Configs, H>,
    networks: vec::IntoIter<NetworkLanes>,
    preprocessors: vec::IntoIter<PreprocessLanes>,
    consensus: Option<ConsensusRole<S>>,
    execution: Option<ExecutionRole<S::Executor>>,
    log: Option<(
        OpenLog<H::PersistentLog>,
        StorageWorkerHandle,
        SnapshotTransferHandle,
        LogLanes,
    )>,
    directory: ClientDirectory,
    expectations: ExpectedTraffic,
    /// Of this life of the process.
    instance: u64,
    metrics: Arc<Metrics>,
}

impl<'a, S: Stack, H: Host> Roles<'a, S, H> {
    pub fn new(
        config: &'a ReplicaConfig<S::Configs, H>,
        (replica, executor): (Replica<S>, S::Executor),
        lanes: RoleLanes,
        disk: OnDisk<H::PersistentLog>,
        (directory, crew, liar): (
            ClientDirectory,
            Option<HelperThreads>,
            Option<Box<dyn Interceptor>>,
        ),
        metrics: &Arc<Metrics>,
    ) -> Self {
        let cluster = &config.node.cluster;
        let identity = (cluster.cluster_id(), cluster.epoch());
        let expectations = ExpectedTraffic::default();
        let reads = ReadGate::new(replica.reads_from(), executor.executed());
        let trusts_memory = config.durability != Durability::Sync;
        let consensus = ConsensusRole::new(
            Consensus::new(replica, expectations.clone(), identity, trusts_memory),
            lanes.consensus,
            directory.clone(),
            (
                disk.snapshot_transfer.clone(),
                AbstentionMark::of(&config.db_path),
            ),
            liar.map(|liar| Faults::new(config.node.id, cluster.replicas.len(), liar)),
            (metrics.clone(), cluster.replicas.len()),
        );
        let execution = Execution::new(
            (executor, reads),
            (cluster.clients.len(), read_limits(&pool_limits(config))),
            identity,
        );
        let storage_worker = disk.storage_worker.clone();
        let execution = ExecutionRole::new(execution, lanes.execution, storage_worker, crew, metrics.clone());
        let files = disk.log.zip(disk.storage_worker.zip(disk.snapshot_transfer));
        Self {
            config,
            networks: lanes.network.into_iter(),
            preprocessors: lanes.preprocess.into_iter(),
            consensus: Some(consensus),
            execution: Some(execution),
            log: files.map(|(log, (storage_worker, snapshot_transfer))| {
                (log, storage_worker, snapshot_transfer, lanes.log)
            }),
            directory,
            expectations,
            instance: rand::random(),
            metrics: metrics.clone(),
        }
    }

    /// The roles of the next shard. Each is dealt out once.
    pub fn of_shard(&mut self, kinds: &[RoleKind]) -> Vec<Box<dyn Role>> {
        let mut roles: Vec<Box<dyn Role>> = Vec::new();
        for kind in kinds {
            let owner = u8::try_from(roles.len()).unwrap_or(u8::MAX - 1);
            roles.extend(match kind {
                RoleKind::Network => self.network(owner),
                RoleKind::Preprocess => self.preprocess(),
                RoleKind::Consensus => self.consensus.take().map(boxed),
                RoleKind::Log => self.log(owner),
                RoleKind::Execution => self.execution.take().map(boxed),
            });
        }
        roles
    }

    fn network(&mut self, owner: u8) -> Option<Box<dyn Role>> {
        let (config, cluster) = (self.config, &self.config.node.cluster);
        let lanes = self.networks.next()?;
        let context = NetworkContext {
            owner,
            links_max: config.limits.connections_max,
            lengths: cluster.lengths(),
            silence_max: Duration::from_millis(config.limits.link_silence_ms),
        };
        let role = NetworkRole::new(
            H::Network::make(&config.net_config, &context),
            lanes,
            (cluster.cluster_id(), cluster.epoch(), self.instance),
            (cluster.replicas.len(), cluster.clients.len()),
            self.metrics.clone(),
        );
        Some(boxed(role))
    }

    fn preprocess(&mut self) -> Option<Box<dyn Role>> {
        let (config, cluster) = (self.config, &self.config.node.cluster);
        let lanes = self.preprocessors.next()?;
        let checker = FrameChecker::new(
            config.node.id,
            cluster.replicas.len(),
            cluster.agreement.client_auth,
            cluster.checker_limits(),
            Digester::new(cluster.cluster_id()),
            self.directory.clone(),
        )
        .with_reads(cluster.agreement.unordered);
        let gate = PeerVerifyGate::new(
            cluster.quorum(),
            OrderingOf::<S>::leader_of,
            self.expectations.clone(),
        );
        let identity = (cluster.cluster_id(), cluster.epoch());
        let preprocessing = Preprocessing::new(checker, gate, identity);
        Some(boxed(PreprocessRole::new(
            preprocessing,
            lanes,
            self.metrics.clone(),
        )))
    }

    fn log(&mut self, owner: u8) -> Option<Box<dyn Role>> {
        let ((writer, files), storage_worker, snapshot_transfer, lanes) = self.log.take()?;
        let metrics = self.metrics.clone();
        Some(boxed(LogRole::new(
            owner,
            writer,
            files,
            (storage_worker, snapshot_transfer),
            lanes,
            metrics,
        )))
    }
}

fn boxed(role: impl Role + 'static) -> Box<dyn Role> {
    Box::new(role)
}

/// What clients may have waiting of reads beside the order, as it follows from what they may have of the
/// others.
fn read_limits(pool: &PoolLimits) -> ReadLimits {
    ReadLimits::of_pool(pool.frames_per_client, pool.bytes_per_client, pool.bytes_max)
}
