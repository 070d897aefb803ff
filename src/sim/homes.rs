//! In which profile each planted fault is looked for first.

use super::Profile;
use crate::smr::mutants::Mutant::{self, *};

const NET: &[Mutant] = &[
    PrepareQuorumMinusOne,
    CommitQuorumMinusOne,
    CheckpointQuorumMinusOne,
    MessagesCounted,
    WindowStuck,
    AcceptedUnlogged,
    VoteBeforeDurable,
    PromiseBeforeDurable,
    DecisionBeforeDurable,
    TimeoutForgotten,
    PoolKeepsDecided,
    ForwardSkipped,
    ReplyAgainSkipped,
    RetransmissionSkipped,
    LeavesAlone,
    VotesUnsplit,
    ReplyDigestUnchecked,
    NumberReuseAnswered,
    ReadUpdates,
];

const BYZANTINE: &[Mutant] = &[
    ViewsWalked,
    CheckpointSignatureUnchecked,
    CheckpointSignerUnchecked,
    NotLeaderAccepted,
    LeaderPrepareCounted,
    UnauthenticAccepted,
    OldViewVoted,
    PreparedForgotten,
    PrePreparedForgotten,
    NewViewSkipsA2,
    NewViewQuorumMinusOne,
    ViewChangeSignatureUnchecked,
    StableProofUnchecked,
    StableWordBelieved,
    ViewJoinedByTooFew,
    GapsForgotten,
    BatchDigestUnchecked,
    FrameSignatureUnchecked,
    QuotaUnchecked,
    DisputesIgnored,
    ChunkUnchecked,
    StateTargetUncertified,
    LogBatchUnchecked,
    StatusFloodAnswered,
    DonationsUnlimited,
    RepairedUnchecked,
    GateUnlimited,
    LiesUncounted,
    VerificationsUnlimited,
    PaddingAccepted,
    AuthenticatorsCounted,
    ProofKeptAsReceived,
    UndecidedUnlimited,
    PassedOnAnswered,
    RepeatsAnswered,
    OneAccuserBelieved,
    SigningNeverEnds,
    PanicKept,
    ViewChangesUnpassed,
    NamedViewChangeUnchecked,
    ProcessUncovered,
    SessionFromOne,
    ClockBoundUnchecked,
    AgreedTimeForgotten,
];

const CRASH: &[Mutant] = &[
    StatusUnanswered,
    OneDecisionBelieved,
    FetchSkipped,
    NewViewForgets,
    ViewChangeUnsent,
    ProgressTimerSkipped,
    ViewTimerSkipped,
    DedupSkipped,
    OneReplyBelieved,
    LogTailFromOne,
    VoteRecordForgotten,
    ViewRecordForgotten,
    ProposalRecordForgotten,
    BaseRecordsForgotten,
    JumpRecordForgotten,
    TornTailAccepted,
    DurableBeforeSync,
    CutBeforeSnapshotKept,
    CutAtLight,
    StateCountKept,
    LoansIgnored,
    HoldSkipped,
    ReadsUngated,
    ReadsAtOnce,
    ViewChangesUnlogged,
];

const DISK: &[Mutant] = &[
    WatermarkUnchecked,
    DiskRoomIgnored,
    CopyBelieved,
    GroupNumberReused,
    SnapshotUnchecked,
    WipedDiskVotes,
    AbstentionIgnored,
    AbstentionSlotsForgotten,
    LightOffered,
    UnreadUnrepaired,
    LoggedUnsent,
    LaterSnapshotsLeft,
    ContradictedSnapshotBelieved,
    WholeLogUnused,
    WrongClaimsKept,
    AbstentionMarkEarly,
    ReadsWhileAbstaining,
    AdoptionUnawaited,
];

const TWINS: &[Mutant] = &[
    EquivocationAccepted,
    NewViewSkipsA1,
    FrameOrderUncovered,
    OrderedAnswersWeak,
    WithdrawnAtOnce,
];

const CLIENTS: &[Mutant] = &[QuotaBlamed, MacsBlamed, ReadsUnlimited, ReadsUnfair, ReadsUnasked];

const SCENES: &[Mutant] = &[StatesMixed, AnnouncedForgotten, ReplacedClaimsKept];

const EPOCHS: &[Mutant] = &[
    OrderedBeyondEnd,
    ChangeUnchecked,
    ChangesMixed,
    ClosingUnlogged,
    ClosingForgotten,
    ClosingLight,
    EndUnawaited,
    ChangeUntold,
];

const HOMES: [(Profile, &[Mutant]); 8] = [
    (Profile::Net, NET),
    (Profile::Byzantine, BYZANTINE),
    (Profile::Crash, CRASH),
    (Profile::Disk, DISK),
    (Profile::Twins, TWINS),
    (Profile::Clients, CLIENTS),
    (Profile::Scenes, SCENES),
    (Profile::Epochs, EPOCHS),
];

impl Mutant {
    /// Where it is looked for first.
    ///
    /// # Panics
    /// When it is in no list here: a test sees to it that each is in one.
    #[must_use]
    pub fn home(self) -> Profile {
        let home = HOMES.iter().find(|(_, faults)| faults.contains(&self));
        home.map_or_else(
            || panic!("{self:?} is looked for nowhere"),
            |(profile, _)| *profile,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_planted_fault_has_one_home() {
        for fault in Mutant::ALL {
            let homes = HOMES.iter().filter(|(_, faults)| faults.contains(fault));
            assert_eq!(homes.count(), 1, "{fault:?}");
        }
    }
}
