use std::time::Duration;

use crate::smr::messages::CheckpointClaim;
use crate::smr::types::{ClusterId, Epoch, NodeId, Quorum};

/// What the orchestrator needs to know of its cluster and of its limits.
#[derive(Debug, Clone)]
pub struct ReplicaSettings {
    /// This replica.
    pub node: NodeId,
    /// The cluster's identity.
    pub cluster: ClusterId,
    /// The membership's number.
    pub epoch: Epoch,
    /// The checkpoint that it begins with.
    pub base: CheckpointClaim,
    /// The cluster's arithmetic.
    pub quorum: Quorum,
    /// The most bytes of frames in one batch, as they [count](crate::smr::messages::Frame::counted_bytes).
    pub batch_bytes_max: usize,
    /// The most frames in one batch.
    pub batch_frames_max: usize,
    /// The most votes in one message; at least one.
    pub votes_max: usize,
    /// While so many effects wait for the disk, other replicas are not listened to: what they say leads to
    /// more. They say it again when this replica tells them what it lacks.
    pub held_effects_max: usize,
    /// How long a client is named at first whose MACs cost this replica a view.
    pub must_sign_for: Duration,
}

/// How long that is in production.
pub const MUST_SIGN_FOR: Duration = Duration::from_secs(60);

/// Which protocol is at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutionPhase {
    /// Batches are ordered in a view that has begun.
    OrderProtocol,
    /// A view was left, and the next has not begun.
    ViewTransferProtocol,
}

impl std::fmt::Display for ExecutionPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OrderProtocol => "ordering",
            Self::ViewTransferProtocol => "changing the view",
        })
    }
}
