//! Faults planted in the protocol, to prove that the simulator finds faults.
//!
//! A mutant is a line `if active(Mutant::X)` in the protocol's code. Without the feature `mutants` it is a constant
//! `false` that the compiler removes; with it, [`plant`] switches one mutant on for the calling thread.

#[cfg(feature = "mutants")]
use std::cell::Cell;

/// The planted faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A batch is prepared with one prepare less than a quorum.
    PrepareQuorumMinusOne,
    /// A batch is committed with one commit less than a quorum.
    CommitQuorumMinusOne,
    /// A checkpoint is stable with one signature less than a quorum.
    CheckpointQuorumMinusOne,
    /// Signatures of different states count together for a stable checkpoint.
    CheckpointDigestIgnored,
    /// A checkpoint's signature is not verified.
    CheckpointSignatureUnchecked,
    /// A replica's second vote counts as another replica's.
    MessagesCounted,
    /// A second proposal for a place replaces the first.
    EquivocationAccepted,
    /// Anybody proposes.
    NotLeaderAccepted,
    /// The leader's prepare counts beside its pre-prepare.
    LeaderPrepareCounted,
    /// Places above the high watermark are accepted.
    WatermarkUnchecked,
    /// The window never moves.
    WindowStuck,
    /// Votes leave before they are on disk.
    VoteBeforeDurable,
    /// Decisions are executed before our own commit is on disk.
    DecisionBeforeDurable,
    /// Records are logged, and forgotten to be waited for by checkpoints.
    CheckpointBeforeDurable,
    /// The last vote of a turn is lost.
    VoteForgotten,
    /// Frames that were executed are executed again.
    DedupSkipped,
    /// A frame's number is not recorded as executed when it lies below the newest.
    GapsForgotten,
    /// A proposal's digest is not compared with its frames.
    BatchDigestUnchecked,
    /// A proposal whose MACs do not convince us is accepted at once.
    UnauthenticAccepted,
    /// Signatures of frames in proposals are not verified.
    FrameSignatureUnchecked,
    /// Clients fill the pool as they like.
    QuotaUnchecked,
    /// Decided frames stay in the pool.
    PoolKeepsDecided,
    /// A frame sent again after its decision is not answered.
    ReplyAgainSkipped,
    /// A client believes one replica.
    OneReplyBelieved,
    /// A client never asks again.
    RetransmissionSkipped,
    /// The order of frames in a batch is not covered by the batch's digest.
    FrameOrderUncovered,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Self; 26] = [
        Self::PrepareQuorumMinusOne,
        Self::CommitQuorumMinusOne,
        Self::CheckpointQuorumMinusOne,
        Self::CheckpointDigestIgnored,
        Self::CheckpointSignatureUnchecked,
        Self::MessagesCounted,
        Self::EquivocationAccepted,
        Self::NotLeaderAccepted,
        Self::LeaderPrepareCounted,
        Self::WatermarkUnchecked,
        Self::WindowStuck,
        Self::VoteBeforeDurable,
        Self::DecisionBeforeDurable,
        Self::CheckpointBeforeDurable,
        Self::VoteForgotten,
        Self::DedupSkipped,
        Self::GapsForgotten,
        Self::BatchDigestUnchecked,
        Self::UnauthenticAccepted,
        Self::FrameSignatureUnchecked,
        Self::QuotaUnchecked,
        Self::PoolKeepsDecided,
        Self::ReplyAgainSkipped,
        Self::OneReplyBelieved,
        Self::RetransmissionSkipped,
        Self::FrameOrderUncovered,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Switches a mutant on, or all off, for the calling thread.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.with(|planted| planted.set(mutant));
}

/// Whether a mutant is switched on.
#[cfg(feature = "mutants")]
#[must_use]
pub fn active(mutant: Mutant) -> bool {
    PLANTED.with(|planted| planted.get() == Some(mutant))
}

/// Whether a mutant is switched on: never, without the feature.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn active(_: Mutant) -> bool {
    false
}
