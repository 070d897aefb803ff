use std::time::Duration;

use crate::smr::crypto::{SigningKey, VerifyingKey};
use crate::smr::types::{ClusterId, Epoch, NodeId, Quorum};

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
