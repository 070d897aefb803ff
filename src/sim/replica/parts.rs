//! What a simulated replica is made of, from the settings of its run.

use crate::runtime::storage::DiskBudget;
use crate::sim::SimConfig;
use crate::sim::keys::{CLUSTER, Keyring};
use crate::sim::stack::PartsMaker;
use crate::smr::crypto::Digester;
use crate::smr::execution::StateRule;
use crate::smr::membership::EpochHistory;
use crate::smr::messages::CheckpointClaim;
use crate::smr::ordering::pbft::undecided_bytes_max;
use crate::smr::preprocessing::RequestPool;
use crate::smr::protocol::PartContext;
use crate::smr::reconfiguration::EpochHandover;
use crate::smr::replica::{Replica, ReplicaSettings, Stack};
use crate::smr::types::{Epoch, Lsn, NodeId, Quorum};

/// What its parts are made with.
fn context(node: NodeId, config: &SimConfig, (epoch, base): (Epoch, CheckpointClaim)) -> PartContext {
    let (keys, n) = (Keyring::get(), config.replicas);
    PartContext {
        node,
        quorum: Quorum::of(n).expect("a simulated cluster has a valid size"),
        cluster: CLUSTER,
        epoch,
        base,
        digester: Digester::new(CLUSTER),
        window: config.window,
        undecided_bytes_max: config.undecided_bytes_max,
        clock_bound: config.clock_bound,
        signing: keys.replica(node).clone(),
        verifying: keys.verifying(n).to_vec(),
        has_log: true,
    }
}

/// The protocols that it runs.
pub(super) fn make_replica<S: Stack>(
    node: NodeId,
    config: &SimConfig,
    maker: &dyn PartsMaker<S>,
    history: Option<&EpochHistory>,
) -> Replica<S> {
    let context = context(node, config, epoch_of(history));
    let settings = ReplicaSettings {
        node,
        cluster: CLUSTER,
        epoch: context.epoch,
        base: context.base,
        quorum: context.quorum,
        batch_bytes_max: config.limits.batch_bytes_max,
        batch_frames_max: config.limits.batch_frames_max,
        votes_max: config.votes_max,
        held_effects_max: config.held_effects_max(),
        must_sign_for: config.must_sign_for,
    };
    let protocols = maker.protocols(config, &context);
    let pool = RequestPool::new(config.clients(), config.pool);
    let replica = Replica::new(settings, context.digester, protocols, pool, Lsn::ZERO);
    let replica = replica.with_transfer_limits(config.donor);
    match history {
        Some(history) => replica.with_epochs(EpochHandover::new(node, context.signing, history.clone())),
        None => replica,
    }
}

/// The epoch that a replica is in, and what it begins with.
pub(super) fn epoch_of(history: Option<&EpochHistory>) -> (Epoch, CheckpointClaim) {
    history.map_or((Epoch::ZERO, CheckpointClaim::NONE), |history| {
        (history.membership().head().epoch(), history.base())
    })
}

/// The epochs that a disk knows of, where the membership changes.
pub(super) fn read_history(config: &SimConfig, bytes: &[u8]) -> Option<EpochHistory> {
    let founding = config
        .has_epochs
        .then(|| Keyring::get().founding(config.replicas, config.clients()))?;
    Some(match bytes {
        [] => EpochHistory::new(founding),
        bytes => EpochHistory::decode(founding, bytes).expect("it was verified before it was written"),
    })
}

/// How much disk the log may use: without bounds, or the least that production takes for these settings.
pub(super) fn disk_budget(config: &SimConfig, segment_bytes: u64) -> DiskBudget {
    let decisions = config.checkpoint_decisions;
    // As in production: the last batch of a period may come on top.
    let checkpoint_bytes = (decisions + 1) * config.limits.batch_bytes_max as u64;
    let mut budget = DiskBudget {
        segment_bytes,
        log_bytes_max: u64::MAX,
        checkpoint_decisions: decisions,
        checkpoint_bytes,
        state_log_bytes: match config.state_rule {
            StateRule::ALWAYS => 0,
            rule => rule.log_bytes_max,
        },
        view_bytes: config.lengths().view_records() as u64,
        undecided_bytes: undecided_bytes_max(config.limits.batch_bytes_max) as u64,
    };
    if config.log_is_least {
        budget.log_bytes_max = budget.required_bytes();
    }
    budget
}
