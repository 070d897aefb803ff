use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Pbft;
use crate::smr::crypto::{SigningKey, VerifyingKey};
use crate::smr::protocol::{InvalidSetting, Part, PartConfig, PartContext, in_range};
use crate::smr::types::{ClusterId, Epoch, NodeId, Quorum};

/// What the ordering protocol may decide for itself at one replica.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct OrderingConfig {
    /// How many proposals this replica has undecided at once while it leads.
    pub pipeline: usize,
}

impl Default for OrderingConfig {
    fn default() -> Self {
        Self { pipeline: 8 }
    }
}

impl PartConfig for OrderingConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("pipeline", self.pipeline, 1..=1024)
    }
}

impl Part for Pbft {
    type Config = OrderingConfig;

    fn make(config: &OrderingConfig, context: &PartContext) -> Self {
        Self::new(PbftConfig::of(config, context), context.digester.clone())
    }
}

/// What a replica must know to take part.
#[derive(Debug, Clone)]
pub struct PbftConfig {
    /// This replica.
    pub node: NodeId,
    /// The cluster's arithmetic.
    pub quorum: Quorum,
    /// The cluster.
    pub cluster: ClusterId,
    /// The membership.
    pub epoch: Epoch,
    /// How many sequence numbers after the stable checkpoint are accepted (k of §4.3).
    pub window: u64,
    /// How many proposals of the leader may be undecided at once.
    pub pipeline: usize,
    /// How many bytes of a leader's proposals may be undecided at once, as they are logged: a leader that
    /// proposes for all places but the next fills no more of the log and of memory. At least twice the
    /// longest proposal; see [`undecided_bytes_max`](Self::undecided_bytes_max).
    pub undecided_bytes_max: usize,
    /// How far the time of a fresh proposal may be from what this replica's clock shows.
    pub clock_bound: Duration,
    /// Signs checkpoints.
    pub signing: SigningKey,
    /// Everybody's public signing keys, by replica.
    pub verifying: Vec<VerifyingKey>,
}

impl PbftConfig {
    fn of(config: &OrderingConfig, context: &PartContext) -> Self {
        Self {
            node: context.node,
            quorum: context.quorum,
            cluster: context.cluster,
            epoch: context.epoch,
            window: context.window,
            pipeline: config.pipeline,
            undecided_bytes_max: context.undecided_bytes_max,
            clock_bound: context.clock_bound,
            signing: context.signing.clone(),
            verifying: context.verifying.clone(),
        }
    }

    /// What the other parts of the same replica are made with.
    #[cfg(test)]
    pub(crate) fn context(&self) -> PartContext {
        PartContext {
            node: self.node,
            quorum: self.quorum,
            cluster: self.cluster,
            epoch: self.epoch,
            digester: crate::smr::crypto::Digester::new(self.cluster),
            window: self.window,
            undecided_bytes_max: self.undecided_bytes_max,
            clock_bound: self.clock_bound,
            signing: self.signing.clone(),
            verifying: self.verifying.clone(),
            has_log: false,
        }
    }

    /// The usual limit on undecided bytes for batches of at most so many: some dozens of the usual ones, a
    /// few of very long ones.
    #[must_use]
    pub const fn undecided_bytes_max(batch_bytes_max: usize) -> usize {
        let few = 4 * (batch_bytes_max + UNDECIDED_BYTES);
        if few > UNDECIDED_BYTES_MAX {
            few
        } else {
            UNDECIDED_BYTES_MAX
        }
    }
}

/// See [`PbftConfig::undecided_bytes_max`].
const UNDECIDED_BYTES_MAX: usize = 64 << 20;

/// What an undecided proposal counts as beside its message: a group of the log of its own.
pub(super) const UNDECIDED_BYTES: usize = 4096;
