use super::{Protocols, Stack};
use crate::smr::crypto::Digester;
use crate::smr::decision_log::ChainedLog;
use crate::smr::execution::MonolithicState;
use crate::smr::log_transfer::RangedLogTransfer;
use crate::smr::ordering::pbft::{Pbft, PbftConfig};
use crate::smr::state_transfer::monolithic::PieceTransfer;
use crate::smr::view_transfer::pbft::{PbftViewChange, ViewChangeConfig, ViewTimings};

/// The view change that belongs to an ordering protocol: it speaks of the same places of the same cluster, and
/// signs with the same key.
#[must_use]
pub fn view_change_of(ordering: &PbftConfig, timings: ViewTimings) -> ViewChangeConfig {
    let PbftConfig {
        node,
        quorum,
        cluster,
        epoch,
        window,
        ref signing,
        ref verifying,
        ..
    } = *ordering;
    ViewChangeConfig {
        node,
        quorum,
        cluster,
        epoch,
        window,
        signing: signing.clone(),
        verifying: verifying.clone(),
        timings,
    }
}

impl<S, T: MonolithicState> Protocols<S>
where
    S: Stack<
            Ordering = Pbft,
            ViewTransfer = PbftViewChange,
            DecisionLog = ChainedLog,
            LogTransfer = RangedLogTransfer,
            StateTransfer = PieceTransfer<T>,
        >,
{
    /// PBFT and all that goes with it, as they are where nothing else is configured.
    #[must_use]
    pub fn pbft(ordering: PbftConfig, timings: ViewTimings, digester: &Digester) -> Self {
        let PbftConfig {
            node,
            quorum,
            cluster,
            epoch,
            ..
        } = ordering;
        let view_change = view_change_of(&ordering, timings);
        Self {
            view_transfer: PbftViewChange::new(view_change, digester.clone()),
            decision_log: ChainedLog::new(digester.clone()),
            log_transfer: RangedLogTransfer::new(node, quorum, cluster, epoch),
            state_transfer: PieceTransfer::new(node, quorum.n(), cluster, epoch, digester.clone()),
            ordering: Pbft::new(ordering, digester.clone()),
        }
    }
}
