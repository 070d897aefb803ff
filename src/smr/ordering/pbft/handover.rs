use crate::smr::messages::{CheckpointClaim, PlacedDigest, SignedCheckpoint};
use crate::smr::types::{Digest, SeqNo, View};

/// What ordering carries out of a view it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewEvidence {
    /// The last stable checkpoint.
    pub stable: CheckpointClaim,
    /// The quorum of signatures that proves it; empty at the beginning of time.
    pub proof: Vec<SignedCheckpoint>,
    /// P: the batch prepared last at each place, ascending by place.
    pub prepared: Vec<PlacedDigest>,
    /// Q: the batches pre-prepared at each place, ascending by place and digest.
    pub pre_prepared: Vec<PlacedDigest>,
}

/// What a view begins with: the same at every replica that enters it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewStart {
    /// The view.
    pub view: View,
    /// The checkpoint it starts after (min-s).
    pub stable: CheckpointClaim,
    /// What proves it.
    pub proof: Vec<SignedCheckpoint>,
    /// The batches of the places after it, without gaps; [`Digest::ZERO`] is the null request.
    pub chosen: Vec<Digest>,
}

impl ViewStart {
    /// The last place the view begins with (max-s).
    #[must_use]
    pub fn last(&self) -> SeqNo {
        self.stable.seq.plus(self.chosen.len() as u64)
    }
}
