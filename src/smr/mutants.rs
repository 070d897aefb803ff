//! Faults planted in the protocol, to prove that the simulator finds faults.
//!
//! A mutant is a line `if active(Mutant::X)` in the protocol's code. Without the feature `mutants` that is a
//! constant `false`, which the compiler removes; with it, `plant` switches one mutant on for the calling
//! thread.

#[cfg(feature = "mutants")]
use std::cell::Cell;

/// Names every mutant once, with what it breaks.
macro_rules! planted {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The planted faults.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];
        }
    };
}

planted! {
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
    /// A peer's word that a checkpoint is stable needs no proof.
    StableWordBelieved,
    /// A view change is not sent again to those that lack it.
    ViewChangeUnsent,
    /// A replica asks for a view that f others ask for, not f+1.
    ViewJoinedByTooFew,
    /// Nobody suspects a leader that does nothing.
    ProgressTimerSkipped,
    /// Whatever is executed sets the timeout of a view back to what is configured.
    TimeoutForgotten,
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
    /// What an own snapshot seems to have of another counts as copied whether it was there or not.
    CopyBelieved,
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
    /// The snapshot of a checkpoint is believed whatever its checksums and digests say.
    SnapshotUnchecked,
    /// The log is cut at a stable checkpoint whose contents are not on disk.
    CutBeforeSnapshotKept,
    /// A replica whose disk is empty starts as if it had never run.
    WipedDiskVotes,
    /// A replica votes although it may have forgotten what it said.
    AbstentionIgnored,
    /// It votes again before a stable checkpoint has passed the places of which it may have spoken.
    AbstentionSlotsForgotten,
    /// A transferred decision is not compared with what f+1 donors named.
    LogBatchUnchecked,
    /// Who asks often is answered as often.
    StatusFloodAnswered,
    /// Peers that fetch a state are sent as much as they ask for.
    DonationsUnlimited,
    /// The log is cut at a stable checkpoint that does not include the state.
    CutAtLight,
    /// The last stable checkpoint is offered to those that need a state, whether it includes one or not.
    LightOffered,
    /// Who starts from another's state goes on counting towards the next where it was itself.
    StateCountKept,
    /// Decisions that the own log does not give back are not asked for.
    UnreadUnrepaired,
    /// Nor are they compared with what was decided, when they are.
    RepairedUnchecked,
    /// Decisions that are not in memory any more are promised to peers, and never sent.
    LoggedUnsent,
    /// The signatures of all frames that a peer sends are verified, however many there are.
    GateUnlimited,
    /// False signatures of frames do not count against who sends them.
    LiesUncounted,
    /// The signatures of all checkpoints, view changes and proofs that a peer sends are verified.
    VerificationsUnlimited,
    /// A snapshot goes although a peer reads it.
    LoansIgnored,
    /// A snapshot that was offered is not kept until the peer asks.
    HoldSkipped,
    /// A restart leaves snapshots later than the one that it begins with.
    LaterSnapshotsLeft,
    /// A restart begins with a state that a quorum has contradicted.
    ContradictedSnapshotBelieved,
    /// A restart without a snapshot waits for one of others, although its log is whole.
    WholeLogUnused,
    /// What a replica said of a wrong state is held against the right one.
    WrongClaimsKept,
    /// The mark that has it abstain goes before the log holds why.
    AbstentionMarkEarly,
    /// A replica leaves its view when its own timer fires, whatever the others say.
    LeavesAlone,
    /// A replica that fell behind goes through every view that the others have left.
    ViewsWalked,
    /// A complaint is withdrawn the moment it does not hold: words of one replica set off those of all.
    WithdrawnAtOnce,
    /// A restart believes what it signed of a state that others' replaced.
    ReplacedClaimsKept,
    /// Equal values end a read beside the order, whatever states they are of.
    StatesMixed,
    /// Reads beside the order are answered from any state.
    ReadsUngated,
    /// A restart answers reads before execution has passed what its log shows.
    ReadsAtOnce,
    /// Reads are answered by a replica that may have forgotten what it answered.
    ReadsWhileAbstaining,
    /// A state that came is installed before a restart begins with it.
    AdoptionUnawaited,
    /// Bytes that nothing in a message points to are let pass.
    PaddingAccepted,
    /// Frames count as they are written, authenticators and all.
    AuthenticatorsCounted,
    /// What proves a checkpoint is kept as it came.
    ProofKeptAsReceived,
    /// A leader proposes as much at once as the window has places for.
    UndecidedUnlimited,
    /// A leader is blamed for a frame while it serves the same client's lower ones.
    QuotaBlamed,
    /// A leader is blamed for frames that prove themselves to others only.
    MacsBlamed,
    /// Frames that a replica passes on are answered again.
    PassedOnAnswered,
    /// Frames that are proposed again are answered again.
    RepeatsAnswered,
    /// A client has to sign because one replica names it.
    OneAccuserBelieved,
    /// Who had to sign once has to sign for ever.
    SigningNeverEnds,
    /// Clients have as many reads wait as they like.
    ReadsUnlimited,
    /// One client's reads go before all others'.
    ReadsUnfair,
    /// Reads beside the order are answered whether they are enabled or not.
    ReadsUnasked,
    /// An operation that panicked keeps what it had done, where one is executed after the other.
    PanicKept,
    /// View changes that a new view names are not given to those that lack them.
    ViewChangesUnpassed,
    /// A view change counts as the one that a new view names whatever its digest.
    NamedViewChangeUnchecked,
    /// The log holds new views without the view changes that they name.
    ViewChangesUnlogged,
    /// What a new view of its own chose is forgotten when the log is cut after that view.
    AnnouncedForgotten,
    /// The votes of a turn leave in one message, however many there are.
    VotesUnsplit,
    /// A client counts answers to another frame of the same number as answers to its own.
    ReplyDigestUnchecked,
    /// A replica answers a frame whose number was used with the results of the frame that used it.
    NumberReuseAnswered,
    /// A read that is executed in the order updates.
    ReadUpdates,
    /// Two processes' frames that ask for the same under one number are one.
    ProcessUncovered,
    /// A client believes one replica which sessions there were.
    SessionFromOne,
    /// Proposals are accepted whatever time they carry.
    ClockBoundUnchecked,
    /// Who starts from another's state, or a restart, forgets how late it was.
    AgreedTimeForgotten,
    /// What is decided after the last decision of an epoch is decided all the same.
    OrderedBeyondEnd,
    /// Whatever has the form of a change is ordered.
    ChangeUnchecked,
    /// A change shares its batch with other frames.
    ChangesMixed,
    /// The last decision of an epoch is executed before the log says that it is the last.
    ClosingUnlogged,
    /// The log is cut without what says that the epoch has its last decision.
    ClosingForgotten,
    /// The checkpoint that closes an epoch has a state only where one is due.
    ClosingLight,
    /// An epoch ends before the state that the next one begins with is on disk.
    EndUnawaited,
    /// Nobody tells what ended an epoch.
    ChangeUntold,
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
