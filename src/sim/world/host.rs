use crate::execution::Application;
use crate::sim::byzantine::Liar;
use crate::sim::checker::Ledger;
use crate::sim::disk::SimDisk;
use crate::sim::replica::{Durable, SimReplica};
use crate::types::{NodeId, Time};

/// A machine with a replica on it.
pub(in crate::sim) struct Host<A: Application> {
    pub node: NodeId,
    /// Follows the protocol, with a key that nobody else has.
    pub is_correct: bool,
    pub is_up: bool,
    /// It was told that the others have forgotten what it lacks.
    pub sim: SimReplica<A>,
    pub(super) disk: SimDisk,
    pub(super) ledger: Ledger,
    pub(super) liar: Option<Liar>,
    /// Nanoseconds ahead of the world, and parts per million too fast.
    pub(super) clock: (u64, i64),
    pub(super) turn_at: Option<Time>,
    pub(super) durable: Durable,
}

impl<A: Application> Host<A> {
    pub(super) fn local(&self, now: Time) -> Time {
        let (offset, ppm) = self.clock;
        let drift = i128::from(now.as_nanos()) * i128::from(ppm) / 1_000_000;
        Time::from_nanos((i128::from(now.as_nanos()) + drift) as u64 + offset)
    }

    /// A moment of the world at which the host's clock shows at least `local`.
    pub(super) fn world(&self, local: Time) -> Time {
        let (offset, ppm) = self.clock;
        let since = i128::from(local.as_nanos().saturating_sub(offset));
        Time::from_nanos((since * 1_000_000 / i128::from(1_000_000 + ppm)) as u64 + 2)
    }
}
