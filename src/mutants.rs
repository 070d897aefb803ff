//! Faults planted in the protocol, to prove that the simulator finds faults.
//!
//! A mutant is a line `if active(Mutant::X)` in the protocol's code. Without the feature `mutants` that is a constant
//! `false`, which the compiler removes; with it, [`plant`] switches one mutant on for the calling thread.

#[cfg(feature = "mutants")]
use std::cell::Cell;

/// The planted faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A batch is prepared with one prepare less than it takes.
    PrepareQuorumMinusOne,
    /// A batch is committed with one commit less than a quorum.
    CommitQuorumMinusOne,
    /// A checkpoint is stable with one signature less than a quorum.
    CheckpointQuorumMinusOne,
    /// A checkpoint's signature is not verified.
    CheckpointSignatureUnchecked,
    /// A replica's checkpoint in another's name counts as the other's.
    CheckpointSignerUnchecked,
    /// Votes are counted by messages, not by signers.
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
    /// A proposal is prepared without being logged.
    AcceptedUnlogged,
    /// Votes leave before they are on disk.
    VoteBeforeDurable,
    /// Proposals, checkpoints and view changes leave before they are on disk.
    PromiseBeforeDurable,
    /// Decisions are executed before our own commit is on disk.
    DecisionBeforeDurable,
    /// A proposal whose MACs do not convince us is accepted at once.
    UnauthenticAccepted,
    /// Nobody sends again what a peer lacks.
    StatusUnanswered,
    /// One replica's word that a batch was decided is enough.
    OneDecisionBelieved,
    /// Batches known by digest only are not asked for.
    FetchSkipped,
    /// A replica that asks for a view goes on voting in the old one.
    OldViewVoted,
    /// View changes do not say what was prepared.
    PreparedForgotten,
    /// View changes do not say what was pre-prepared.
    PrePreparedForgotten,
    /// A new view chooses any batch that somebody prepared, whatever a quorum says.
    NewViewSkipsA1,
    /// A new view believes one replica that a batch was prepared.
    NewViewSkipsA2,
    /// A new view fills every place with null requests.
    NewViewForgets,
    /// A view begins with one view change less than a quorum.
    NewViewQuorumMinusOne,
    /// The signatures of view changes are not verified.
    ViewChangeSignatureUnchecked,
    /// The checkpoint in a view change needs no proof.
    StableProofUnchecked,
    /// A new view is not sent again to those that lack it.
    NewViewUnsent,
    /// Nobody suspects a leader that does nothing.
    ProgressTimerSkipped,
    /// Nobody suspects a leader that does not begin its view.
    ViewTimerSkipped,
    /// Frames that were executed are executed again.
    DedupSkipped,
    /// A frame's number is not remembered when it lies below the newest.
    GapsForgotten,
    /// A proposal's digest is not compared with its frames.
    BatchDigestUnchecked,
    /// Signatures of frames in proposals are not verified.
    FrameSignatureUnchecked,
    /// The order of frames in a batch is not covered by the batch's digest.
    FrameOrderUncovered,
    /// Clients fill the pool as they like.
    QuotaUnchecked,
    /// Decided frames stay in the pool.
    PoolKeepsDecided,
    /// Backups do not pass frames on to the leader.
    ForwardSkipped,
    /// Clients whose MACs are disputed need not sign.
    DisputesIgnored,
    /// Effects wait for a full disk without limit.
    DiskRoomIgnored,
    /// A frame sent again after its decision is not answered.
    ReplyAgainSkipped,
    /// A client believes one replica.
    OneReplyBelieved,
    /// A client never asks again.
    RetransmissionSkipped,
    /// What one replica says was decided is transferred.
    LogTailFromOne,
    /// The pieces of a transferred state are not checked.
    ChunkUnchecked,
    /// A state is transferred that no quorum signed.
    StateTargetUncertified,
    /// Beside linearizable reads out of order, ordered operations end with f+1 equal answers.
    OrderedAnswersWeak,
    /// A restart forgets the votes in the log.
    VoteRecordForgotten,
    /// A restart forgets the views that were left.
    ViewRecordForgotten,
    /// A restarted leader forgets what it proposed.
    ProposalRecordForgotten,
    /// The log is cut without writing again what is about no place.
    BaseRecordsForgotten,
    /// A restart forgets that it went on after a checkpoint of others.
    JumpRecordForgotten,
    /// A group of the log is believed whatever its checksum says.
    TornTailAccepted,
    /// A restarted log numbers its groups from the last one, not after it.
    GroupNumberReused,
    /// A group of the log counts as durable when it is written, not when it is synced.
    DurableBeforeSync,
    /// The image of a checkpoint is believed whatever its checksums and digests say.
    ImageUnchecked,
    /// The log is cut at a stable checkpoint whose contents are not on disk.
    CutBeforeImageKept,
    /// A replica whose disk is empty starts as if it had never run.
    WipedDiskVotes,
    /// The log is cut at a stable checkpoint that does not include the state.
    CutAtLight,
    /// The last stable checkpoint is offered to those that need a state, whether it includes one or not.
    LightOffered,
    /// Who starts from another's state goes on counting towards the next where it was itself.
    StateCountKept,
    /// Decisions that are not in memory any more are promised to peers, and never sent.
    LoggedUnsent,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Self; 63] = [
        Self::PrepareQuorumMinusOne,
        Self::CommitQuorumMinusOne,
        Self::CheckpointQuorumMinusOne,
        Self::CheckpointSignatureUnchecked,
        Self::CheckpointSignerUnchecked,
        Self::MessagesCounted,
        Self::EquivocationAccepted,
        Self::NotLeaderAccepted,
        Self::LeaderPrepareCounted,
        Self::WatermarkUnchecked,
        Self::WindowStuck,
        Self::AcceptedUnlogged,
        Self::VoteBeforeDurable,
        Self::PromiseBeforeDurable,
        Self::DecisionBeforeDurable,
        Self::UnauthenticAccepted,
        Self::StatusUnanswered,
        Self::OneDecisionBelieved,
        Self::FetchSkipped,
        Self::OldViewVoted,
        Self::PreparedForgotten,
        Self::PrePreparedForgotten,
        Self::NewViewSkipsA1,
        Self::NewViewSkipsA2,
        Self::NewViewForgets,
        Self::NewViewQuorumMinusOne,
        Self::ViewChangeSignatureUnchecked,
        Self::StableProofUnchecked,
        Self::NewViewUnsent,
        Self::ProgressTimerSkipped,
        Self::ViewTimerSkipped,
        Self::DedupSkipped,
        Self::GapsForgotten,
        Self::BatchDigestUnchecked,
        Self::FrameSignatureUnchecked,
        Self::FrameOrderUncovered,
        Self::QuotaUnchecked,
        Self::PoolKeepsDecided,
        Self::ForwardSkipped,
        Self::DisputesIgnored,
        Self::DiskRoomIgnored,
        Self::ReplyAgainSkipped,
        Self::OneReplyBelieved,
        Self::RetransmissionSkipped,
        Self::LogTailFromOne,
        Self::ChunkUnchecked,
        Self::StateTargetUncertified,
        Self::OrderedAnswersWeak,
        Self::VoteRecordForgotten,
        Self::ViewRecordForgotten,
        Self::ProposalRecordForgotten,
        Self::BaseRecordsForgotten,
        Self::JumpRecordForgotten,
        Self::TornTailAccepted,
        Self::GroupNumberReused,
        Self::DurableBeforeSync,
        Self::ImageUnchecked,
        Self::CutBeforeImageKept,
        Self::WipedDiskVotes,
        Self::CutAtLight,
        Self::LightOffered,
        Self::StateCountKept,
        Self::LoggedUnsent,
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
