//! What a simulated replica is made of, from the settings of its run.

use crate::runtime::storage::DiskBudget;
use crate::sim::Knobs;
use crate::sim::keys::{CLUSTER, Keyring};
use crate::sim::stack::SimStack;
use crate::smr::crypto::Digester;
use crate::smr::decision_log::ChainedLog;
use crate::smr::execution::{Application, StateRule};
use crate::smr::log_transfer::RangedLogTransfer;
use crate::smr::ordering::pbft::{Pbft, PbftConfig};
use crate::smr::preprocessing::RequestPool;
use crate::smr::replica::{Protocols, Replica, ReplicaSettings};
use crate::smr::state_transfer::monolithic::PieceTransfer;
use crate::smr::types::{Epoch, Lsn, NodeId, Quorum};
use crate::smr::view_transfer::pbft::{PbftViewChange, ViewChangeConfig};

/// The protocols that it runs.
pub(super) fn make_replica<A: Application>(
    node: NodeId,
    knobs: &Knobs,
    digester: &Digester,
) -> Replica<SimStack<A>> {
    let keys = Keyring::get();
    let n = knobs.replicas;
    let quorum = Quorum::of(n).expect("a simulated cluster has a valid size");
    let config = PbftConfig {
        node,
        quorum,
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        window: knobs.window,
        pipeline: knobs.pipeline,
        undecided_bytes_max: knobs.undecided_bytes_max,
        clock_bound: knobs.clock_bound,
        signing: keys.replica(node).clone(),
        verifying: keys.verifying(n).to_vec(),
    };
    let settings = ReplicaSettings {
        node,
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        quorum,
        batch_bytes_max: knobs.limits.batch_bytes_max,
        batch_frames_max: knobs.limits.batch_frames_max,
        votes_max: knobs.votes_max,
        held_effects_max: knobs.held_effects_max(),
        must_sign_for: knobs.must_sign_for,
    };
    let view_change = ViewChangeConfig {
        node,
        quorum,
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        window: knobs.window,
        signing: keys.replica(node).clone(),
        verifying: keys.verifying(n).to_vec(),
        timings: knobs.timings,
    };
    Replica::new(
        settings,
        digester.clone(),
        Protocols {
            ordering: Pbft::new(config, digester.clone()),
            view_transfer: PbftViewChange::new(view_change, digester.clone()),
            decision_log: ChainedLog::new(digester.clone())
                .keep_for_peers(knobs.kept_for_peers)
                .keep_bytes(knobs.kept_bytes)
                .on_disk(true),
            log_transfer: RangedLogTransfer::new(node, quorum, CLUSTER, Epoch::ZERO),
            state_transfer: PieceTransfer::new(node, n, CLUSTER, Epoch::ZERO, digester.clone()),
        },
        RequestPool::new(knobs.clients(), knobs.pool),
        Lsn::ZERO,
    )
    .with_transfer_limits(knobs.donor)
}

/// How much disk the log may use: without bounds, or the least that production takes for these settings.
pub(super) fn disk_budget(knobs: &Knobs, segment_bytes: u64) -> DiskBudget {
    let decisions = knobs.checkpoint_decisions;
    // As in production: the last batch of a period may come on top.
    let checkpoint_bytes = (decisions + 1) * knobs.limits.batch_bytes_max as u64;
    let mut budget = DiskBudget {
        segment_bytes,
        log_bytes_max: u64::MAX,
        checkpoint_decisions: decisions,
        checkpoint_bytes,
        state_log_bytes: match knobs.state_rule {
            StateRule::ALWAYS => 0,
            rule => rule.log_bytes_max,
        },
        view_bytes: knobs.lengths().view_records() as u64,
        undecided_bytes: PbftConfig::undecided_bytes_max(knobs.limits.batch_bytes_max) as u64,
    };
    if knobs.log_is_least {
        budget.log_bytes_max = budget.required_bytes();
    }
    budget
}
