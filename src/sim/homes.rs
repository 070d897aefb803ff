//! In which profile each planted fault is looked for first.

use super::Profile;
use crate::smr::mutants::Mutant;

impl Mutant {
    /// Where it is looked for first.
    #[must_use]
    pub const fn home(self) -> Profile {
        match self {
            Self::PrepareQuorumMinusOne
            | Self::CommitQuorumMinusOne
            | Self::CheckpointQuorumMinusOne
            | Self::MessagesCounted
            | Self::WindowStuck
            | Self::AcceptedUnlogged
            | Self::VoteBeforeDurable
            | Self::PromiseBeforeDurable
            | Self::DecisionBeforeDurable
            | Self::TimeoutForgotten
            | Self::PoolKeepsDecided
            | Self::ForwardSkipped
            | Self::ReplyAgainSkipped
            | Self::RetransmissionSkipped
            | Self::LeavesAlone
            | Self::VotesUnsplit
            | Self::ReplyDigestUnchecked
            | Self::NumberReuseAnswered
            | Self::ReadUpdates => Profile::Net,
            Self::CheckpointSignatureUnchecked
            | Self::CheckpointSignerUnchecked
            | Self::NotLeaderAccepted
            | Self::LeaderPrepareCounted
            | Self::UnauthenticAccepted
            | Self::OldViewVoted
            | Self::PreparedForgotten
            | Self::PrePreparedForgotten
            | Self::NewViewSkipsA2
            | Self::NewViewQuorumMinusOne
            | Self::ViewChangeSignatureUnchecked
            | Self::StableProofUnchecked
            | Self::StableWordBelieved
            | Self::ViewJoinedByTooFew
            | Self::GapsForgotten
            | Self::BatchDigestUnchecked
            | Self::FrameSignatureUnchecked
            | Self::QuotaUnchecked
            | Self::DisputesIgnored
            | Self::ChunkUnchecked
            | Self::StateTargetUncertified
            | Self::LogBatchUnchecked
            | Self::StatusFloodAnswered
            | Self::DonationsUnlimited
            | Self::MendedUnchecked
            | Self::GateUnlimited
            | Self::LiesUncounted
            | Self::JudgementsUnlimited
            | Self::PaddingAccepted
            | Self::AuthenticatorsCounted
            | Self::ProofKeptAsReceived
            | Self::UndecidedUnlimited
            | Self::PassedOnAnswered
            | Self::RepeatsAnswered
            | Self::OneAccuserBelieved
            | Self::SigningNeverEnds
            | Self::PanicKept
            | Self::ViewChangesUnpassed
            | Self::NamedViewChangeUnchecked
            | Self::ProcessUncovered
            | Self::SessionFromOne
            | Self::ClockBoundUnchecked
            | Self::AgreedTimeForgotten => Profile::Byzantine,
            Self::StatusUnanswered
            | Self::OneDecisionBelieved
            | Self::FetchSkipped
            | Self::NewViewForgets
            | Self::ViewChangeUnsent
            | Self::ProgressTimerSkipped
            | Self::ViewTimerSkipped
            | Self::DedupSkipped
            | Self::OneReplyBelieved
            | Self::LogTailFromOne
            | Self::VoteRecordForgotten
            | Self::ViewRecordForgotten
            | Self::ProposalRecordForgotten
            | Self::BaseRecordsForgotten
            | Self::JumpRecordForgotten
            | Self::TornTailAccepted
            | Self::DurableBeforeSync
            | Self::CutBeforeImageKept
            | Self::CutAtLight
            | Self::StateCountKept
            | Self::LoansIgnored
            | Self::HoldSkipped
            | Self::ReadsUngated
            | Self::ReadsAtOnce
            | Self::ViewChangesUnlogged
            | Self::LaterUnasked
            | Self::AnnouncedForgotten => Profile::Crash,
            Self::WatermarkUnchecked
            | Self::DiskRoomIgnored
            | Self::CopyBelieved
            | Self::GroupNumberReused
            | Self::ImageUnchecked
            | Self::WipedDiskVotes
            | Self::AbstentionIgnored
            | Self::AbstentionPlacesForgotten
            | Self::LightOffered
            | Self::UnreadUnmended
            | Self::LoggedUnsent
            | Self::LaterImagesLeft
            | Self::ContradictedImageBelieved
            | Self::WholeLogUnused
            | Self::WrongClaimsKept
            | Self::AbstentionMarkEarly
            | Self::ReplacedClaimsKept
            | Self::ReadsWhileAbstaining
            | Self::AdoptionUnawaited => Profile::Disk,
            Self::EquivocationAccepted
            | Self::NewViewSkipsA1
            | Self::FrameOrderUncovered
            | Self::OrderedAnswersWeak
            | Self::StatesMixed
            | Self::WithdrawnAtOnce => Profile::Twins,
            Self::QuotaBlamed
            | Self::MacsBlamed
            | Self::ReadsUnlimited
            | Self::ReadsUnfair
            | Self::ReadsUnasked => Profile::Clients,
        }
    }
}
