//! Replicas of services whose state is transferred as a whole.

use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use futures_lite::StreamExt;

use super::assembly::{Assembly, Ended, assemble};
use super::{ReplicaError, ReplicaHandle, check_application};
use crate::runtime::config::{
    Durability, ExecutorKind, MonolithicStateReplicaConfig, ReplicaConfig, StateTransferConfig,
};
use crate::runtime::shard::faults::Interceptor;
use crate::smr::crypto::Digester;
use crate::smr::decision_log::ChainedLog;
use crate::smr::execution::speculative::Helper;
use crate::smr::execution::{Application, MonolithicState, ScalableApp, SingleThreaded, Speculative};
use crate::smr::log_transfer::RangedLogTransfer;
use crate::smr::ordering::pbft::{Pbft, PbftConfig};
use crate::smr::replica::{
    DecisionLogOf, DefaultStack, ExecutorOf, LogTransferOf, OrderingOf, SpeculativeStack, Stack,
    StateTransferOf, ViewTransferOf,
};
use crate::smr::state_transfer::monolithic::PieceTransfer;
use crate::smr::view_transfer::pbft::{PbftViewChange, ViewChangeConfig};

/// The protocol components of a replica, made.
pub(super) struct Parts<S: Stack> {
    pub ordering: OrderingOf<S>,
    pub view_transfer: ViewTransferOf<S>,
    pub decision_log: DecisionLogOf<S>,
    pub log_transfer: LogTransferOf<S>,
    pub state_transfer: StateTransferOf<S>,
    pub executor: ExecutorOf<S>,
    /// The executor's workers beside its own thread.
    pub helpers: Vec<Box<dyn Helper>>,
}

/// A replica of service `A`, built from the stack `S`.
///
/// Its shards run from [`bootstrap`](Self::bootstrap) on; [`run`](Self::run) waits for their end. Both can be
/// awaited on any runtime.
pub struct MonReplica<A: Application, S: Stack = DefaultStack<A>> {
    assembly: Assembly,
    _types: PhantomData<fn() -> (A, S)>,
}

impl<A: Application> MonReplica<A> {
    /// Starts a replica: listens, dials, and takes part as soon as links are up.
    ///
    /// # Errors
    /// When the address, the topology or the kernel does not allow it.
    pub async fn bootstrap(config: MonolithicStateReplicaConfig<A>) -> Result<Self, ReplicaError> {
        Self::bootstrap_as(config, None).await
    }

    /// Starts a replica that says what `liar` makes of its words.
    pub(crate) async fn bootstrap_as(
        config: MonolithicStateReplicaConfig<A>,
        liar: Option<Box<dyn Interceptor>>,
    ) -> Result<Self, ReplicaError> {
        let MonolithicStateReplicaConfig {
            service,
            replica_config,
            st_config,
        } = config;
        check_application(&service, &replica_config.node.cluster)?;
        let assembly = assemble::<DefaultStack<A>>(&replica_config, &st_config, liar, |digester| Parts {
            ordering: Pbft::new(pbft_config(&replica_config), digester.clone()),
            view_transfer: PbftViewChange::new(view_change_config(&replica_config), digester.clone()),
            decision_log: decision_log(&replica_config, digester),
            log_transfer: log_transfer(&replica_config),
            state_transfer: state_transfer(&replica_config, &st_config, digester),
            executor: SingleThreaded::new(
                service,
                replica_config.node.cluster.clients.len(),
                digester.clone(),
                replica_config.node.cluster.epoch(),
                replica_config.node.cluster.checkpoint_rule(),
            ),
            helpers: Vec::new(),
        })?;
        Ok(Self {
            assembly,
            _types: PhantomData,
        })
    }
}

impl<A: ScalableApp> MonReplica<A, SpeculativeStack<A>> {
    /// As [`bootstrap`](MonReplica::bootstrap), with speculative execution on the configured number of
    /// workers.
    ///
    /// # Errors
    /// As there.
    pub async fn bootstrap_speculative(
        config: MonolithicStateReplicaConfig<A>,
    ) -> Result<Self, ReplicaError> {
        Self::bootstrap_speculative_as(config, None).await
    }

    /// Starts a replica that says what `liar` makes of its words.
    pub(crate) async fn bootstrap_speculative_as(
        config: MonolithicStateReplicaConfig<A>,
        liar: Option<Box<dyn Interceptor>>,
    ) -> Result<Self, ReplicaError> {
        let MonolithicStateReplicaConfig {
            service,
            replica_config,
            st_config,
        } = config;
        check_application(&service, &replica_config.node.cluster)?;
        let assembly = assemble::<SpeculativeStack<A>>(&replica_config, &st_config, liar, |digester| {
            let executor = Speculative::new(
                service,
                replica_config.node.cluster.clients.len(),
                digester.clone(),
                replica_config.node.cluster.epoch(),
                replica_config.node.cluster.checkpoint_rule(),
            );
            Parts {
                ordering: Pbft::new(pbft_config(&replica_config), digester.clone()),
                view_transfer: PbftViewChange::new(view_change_config(&replica_config), digester.clone()),
                decision_log: decision_log(&replica_config, digester),
                log_transfer: log_transfer(&replica_config),
                state_transfer: state_transfer(&replica_config, &st_config, digester),
                helpers: executor.helpers(replica_config.execution.helpers()),
                executor,
            }
        })?;
        Ok(Self {
            assembly,
            _types: PhantomData,
        })
    }
}

/// A replica of a scalable service with the execution model its configuration names: its handle, and its end.
///
/// # Errors
/// As [`MonReplica::bootstrap`].
pub async fn bootstrap_as_configured<A: ScalableApp>(
    config: MonolithicStateReplicaConfig<A>,
) -> Result<(ReplicaHandle, BoxedRun), ReplicaError> {
    bootstrap_with_faults(config, None).await
}

/// As [`bootstrap_as_configured`]; the replica says what `liar` makes of its words.
pub(crate) async fn bootstrap_with_faults<A: ScalableApp>(
    config: MonolithicStateReplicaConfig<A>,
    liar: Option<Box<dyn Interceptor>>,
) -> Result<(ReplicaHandle, BoxedRun), ReplicaError> {
    Ok(match config.replica_config.execution.executor {
        ExecutorKind::Single => {
            let replica = MonReplica::bootstrap_as(config, liar).await?;
            (replica.handle(), Box::pin(replica.run()))
        }
        ExecutorKind::Speculative => {
            let replica = MonReplica::bootstrap_speculative_as(config, liar).await?;
            (replica.handle(), Box::pin(replica.run()))
        }
    })
}

/// What waits for the end of a replica, whatever its stack.
pub type BoxedRun = Pin<Box<dyn Future<Output = Result<(), ReplicaError>> + Send>>;

impl<A: Application, S: Stack> MonReplica<A, S> {
    /// To look at the replica, and to shut it down, from anywhere.
    #[must_use]
    pub fn handle(&self) -> ReplicaHandle {
        self.assembly.handle.clone()
    }

    /// Waits until the replica was shut down or failed.
    ///
    /// # Errors
    /// The first failure of one of its threads; the others are shut down then.
    pub async fn run(self) -> Result<(), ReplicaError> {
        let Assembly {
            handle,
            control,
            keeper,
            mut ended,
            mut shards,
        } = self.assembly;
        let mut result = Ok(());
        while shards > 0 {
            let Some(end) = ended.next().await else { break };
            let error = match end {
                Ended::Shard(end) => {
                    shards -= 1;
                    end.err()
                }
                Ended::Died(error) => Some(error),
            };
            if let Some(error) = error {
                tracing::error!(%error, "the replica stops: one of its threads failed");
                result = result.and(Err(error.into()));
                handle.shutdown();
            }
        }
        let stopped = control.stop();
        drop(keeper);
        result.and(stopped.map_err(ReplicaError::from))
    }
}

fn decision_log(config: &ReplicaConfig, digester: &Digester) -> ChainedLog {
    ChainedLog::new(digester.clone())
        .keep_for_peers(config.dl_config.kept_decisions)
        .keep_bytes(config.dl_config.kept_bytes)
        .on_disk(config.durability != Durability::None)
}

fn log_transfer(config: &ReplicaConfig) -> RangedLogTransfer {
    let cluster = &config.node.cluster;
    RangedLogTransfer::new(
        config.node.id,
        cluster.quorum(),
        cluster.cluster_id(),
        cluster.epoch(),
    )
    .tuned(config.lt_config.tuning())
}

fn state_transfer<S: MonolithicState>(
    config: &ReplicaConfig,
    st_config: &StateTransferConfig,
    digester: &Digester,
) -> PieceTransfer<S> {
    let cluster = &config.node.cluster;
    PieceTransfer::new(
        config.node.id,
        cluster.quorum().n(),
        cluster.cluster_id(),
        cluster.epoch(),
        digester.clone(),
    )
    .tuned(st_config.tuning())
}

fn view_change_config(config: &ReplicaConfig) -> ViewChangeConfig {
    let PbftConfig {
        node,
        quorum,
        cluster,
        epoch,
        window,
        signing,
        verifying,
        ..
    } = pbft_config(config);
    ViewChangeConfig {
        node,
        quorum,
        cluster,
        epoch,
        window,
        signing,
        verifying,
        timings: config.vt_config.timings(),
    }
}

fn pbft_config(config: &ReplicaConfig) -> PbftConfig {
    let cluster = &config.node.cluster;
    PbftConfig {
        node: config.node.id,
        quorum: cluster.quorum(),
        cluster: cluster.cluster_id(),
        epoch: cluster.epoch(),
        window: cluster.agreement.window,
        pipeline: config.op_config.pipeline,
        undecided_bytes_max: PbftConfig::undecided_bytes_max(cluster.checker_limits().batch_bytes_max),
        clock_bound: Duration::from_millis(cluster.agreement.clock_bound_ms),
        signing: config.node.keys.signing.clone(),
        verifying: cluster
            .replicas
            .iter()
            .map(|replica| replica.signing_key)
            .collect(),
    }
}
