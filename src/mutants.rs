//! Faults planted in the protocol, to prove that the simulator finds faults.
//!
//! A mutant is a line `if active(Mutant::X)` in the protocol's code. Without the feature `mutants` that is a
//! constant `false`, which the compiler removes; with it, `plant` switches one mutant on for the calling
//! thread.

#[cfg(feature = "mutants")]
use std::cell::Cell;

use crate::sim::Profile;

/// Names every mutant once, with what it breaks and the simulator's profile in which it is looked for first:
/// its home.
macro_rules! planted {
    ($($(#[doc = $doc:literal])+ $name:ident at $home:ident,)+) => {
        /// The planted faults.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Where it is looked for first.
            #[must_use]
            pub const fn home(self) -> Profile {
                match self {
                    $(Self::$name => Profile::$home,)+
                }
            }
        }
    };
}

planted! {
    /// A batch is prepared with one prepare less than it takes.
    PrepareQuorumMinusOne at Net,
    /// A batch is committed with one commit less than a quorum.
    CommitQuorumMinusOne at Net,
    /// A checkpoint is stable with one signature less than a quorum.
    CheckpointQuorumMinusOne at Net,
    /// A checkpoint's signature is not verified.
    CheckpointSignatureUnchecked at Byzantine,
    /// A replica's checkpoint in another's name counts as the other's.
    CheckpointSignerUnchecked at Byzantine,
    /// Votes are counted by messages, not by signers.
    MessagesCounted at Net,
    /// A second proposal for a place replaces the first.
    EquivocationAccepted at Twins,
    /// Anybody proposes.
    NotLeaderAccepted at Byzantine,
    /// The leader's prepare counts beside its pre-prepare.
    LeaderPrepareCounted at Byzantine,
    /// Places above the high watermark are accepted.
    WatermarkUnchecked at Disk,
    /// The window never moves.
    WindowStuck at Net,
    /// A proposal is prepared without being logged.
    AcceptedUnlogged at Net,
    /// Votes leave before they are on disk.
    VoteBeforeDurable at Net,
    /// Proposals, checkpoints and view changes leave before they are on disk.
    PromiseBeforeDurable at Net,
    /// Decisions are executed before our own commit is on disk.
    DecisionBeforeDurable at Net,
    /// A proposal whose MACs do not convince us is accepted at once.
    UnauthenticAccepted at Byzantine,
    /// Nobody sends again what a peer lacks.
    StatusUnanswered at Crash,
    /// One replica's word that a batch was decided is enough.
    OneDecisionBelieved at Crash,
    /// Batches known by digest only are not asked for.
    FetchSkipped at Crash,
    /// A replica that asks for a view goes on voting in the old one.
    OldViewVoted at Byzantine,
    /// View changes do not say what was prepared.
    PreparedForgotten at Byzantine,
    /// View changes do not say what was pre-prepared.
    PrePreparedForgotten at Byzantine,
    /// A new view chooses any batch that somebody prepared, whatever a quorum says.
    NewViewSkipsA1 at Twins,
    /// A new view believes one replica that a batch was prepared.
    NewViewSkipsA2 at Byzantine,
    /// A new view fills every place with null requests.
    NewViewForgets at Crash,
    /// A view begins with one view change less than a quorum.
    NewViewQuorumMinusOne at Byzantine,
    /// The signatures of view changes are not verified.
    ViewChangeSignatureUnchecked at Byzantine,
    /// The checkpoint in a view change needs no proof.
    StableProofUnchecked at Byzantine,
    /// A peer's word that a checkpoint is stable needs no proof.
    StableWordBelieved at Byzantine,
    /// A view change is not sent again to those that lack it.
    ViewChangeUnsent at Crash,
    /// A replica asks for a view that f others ask for, not f+1.
    ViewJoinedByTooFew at Byzantine,
    /// Nobody suspects a leader that does nothing.
    ProgressTimerSkipped at Crash,
    /// Whatever is executed sets the timeout of a view back to what is configured.
    TimeoutForgotten at Net,
    /// Nobody suspects a leader that does not begin its view.
    ViewTimerSkipped at Crash,
    /// Frames that were executed are executed again.
    DedupSkipped at Crash,
    /// A frame's number is not remembered when it lies below the newest.
    GapsForgotten at Byzantine,
    /// A proposal's digest is not compared with its frames.
    BatchDigestUnchecked at Byzantine,
    /// Signatures of frames in proposals are not verified.
    FrameSignatureUnchecked at Byzantine,
    /// The order of frames in a batch is not covered by the batch's digest.
    FrameOrderUncovered at Twins,
    /// Clients fill the pool as they like.
    QuotaUnchecked at Byzantine,
    /// Decided frames stay in the pool.
    PoolKeepsDecided at Net,
    /// Backups do not pass frames on to the leader.
    ForwardSkipped at Net,
    /// Clients whose MACs are disputed need not sign.
    DisputesIgnored at Byzantine,
    /// Effects wait for a full disk without limit.
    DiskRoomIgnored at Disk,
    /// A frame sent again after its decision is not answered.
    ReplyAgainSkipped at Net,
    /// A client believes one replica.
    OneReplyBelieved at Crash,
    /// A client never asks again.
    RetransmissionSkipped at Net,
    /// What one replica says was decided is transferred.
    LogTailFromOne at Crash,
    /// The pieces of a transferred state are not checked.
    ChunkUnchecked at Byzantine,
    /// What an own image seems to have of another counts as copied whether it was there or not.
    CopyBelieved at Disk,
    /// A state is transferred that no quorum signed.
    StateTargetUncertified at Byzantine,
    /// Beside linearizable reads out of order, ordered operations end with f+1 equal answers.
    OrderedAnswersWeak at Twins,
    /// A restart forgets the votes in the log.
    VoteRecordForgotten at Crash,
    /// A restart forgets the views that were left.
    ViewRecordForgotten at Crash,
    /// A restarted leader forgets what it proposed.
    ProposalRecordForgotten at Crash,
    /// The log is cut without writing again what is about no place.
    BaseRecordsForgotten at Crash,
    /// A restart forgets that it went on after a checkpoint of others.
    JumpRecordForgotten at Crash,
    /// A group of the log is believed whatever its checksum says.
    TornTailAccepted at Crash,
    /// A restarted log numbers its groups from the last one, not after it.
    GroupNumberReused at Disk,
    /// A group of the log counts as durable when it is written, not when it is synced.
    DurableBeforeSync at Crash,
    /// The image of a checkpoint is believed whatever its checksums and digests say.
    ImageUnchecked at Disk,
    /// The log is cut at a stable checkpoint whose contents are not on disk.
    CutBeforeImageKept at Crash,
    /// A replica whose disk is empty starts as if it had never run.
    WipedDiskVotes at Disk,
    /// A replica votes although it may have forgotten what it said.
    AbstentionIgnored at Disk,
    /// It votes again before a stable checkpoint has passed the places of which it may have spoken.
    AbstentionPlacesForgotten at Disk,
    /// A transferred decision is not compared with what f+1 donors named.
    LogBatchUnchecked at Byzantine,
    /// Who asks often is answered as often.
    StatusFloodAnswered at Byzantine,
    /// Peers that fetch a state are sent as much as they ask for.
    DonationsUnlimited at Byzantine,
    /// The log is cut at a stable checkpoint that does not include the state.
    CutAtLight at Crash,
    /// The last stable checkpoint is offered to those that need a state, whether it includes one or not.
    LightOffered at Disk,
    /// Who starts from another's state goes on counting towards the next where it was itself.
    StateCountKept at Crash,
    /// Decisions that the own log does not give back are not asked for.
    UnreadUnmended at Disk,
    /// Nor are they compared with what was decided, when they are.
    MendedUnchecked at Byzantine,
    /// Decisions that are not in memory any more are promised to peers, and never sent.
    LoggedUnsent at Disk,
    /// The signatures of all frames that a peer sends are verified, however many there are.
    GateUnlimited at Byzantine,
    /// False signatures of frames do not count against who sends them.
    LiesUncounted at Byzantine,
    /// The signatures of all checkpoints, view changes and proofs that a peer sends are verified.
    JudgementsUnlimited at Byzantine,
    /// An image goes although a peer reads it.
    LoansIgnored at Crash,
    /// An image that was offered is not kept until the peer asks.
    HoldSkipped at Crash,
    /// A restart leaves images later than the one that it begins with.
    LaterImagesLeft at Disk,
    /// A restart begins with a state that a quorum has contradicted.
    ContradictedImageBelieved at Disk,
    /// What a replica said of a wrong state is held against the right one.
    WrongClaimsKept at Disk,
    /// The mark that has it abstain goes before the log holds why.
    AbstentionMarkEarly at Disk,
    /// A replica leaves its view when its own timer fires, whatever the others say.
    LeavesAlone at Net,
    /// A complaint is withdrawn the moment it does not hold: words of one replica set off those of all.
    WithdrawnAtOnce at Twins,
    /// A restart believes what it signed of a state that others' replaced.
    ReplacedClaimsKept at Disk,
    /// Reads beside the order are answered from any state.
    ReadsUngated at Crash,
    /// A restart answers reads before execution has passed what its log shows.
    ReadsAtOnce at Crash,
    /// Reads are answered by a replica that may have forgotten what it answered.
    ReadsWhileAbstaining at Disk,
    /// A state that came is installed before a restart begins with it.
    AdoptionUnawaited at Disk,
    /// Bytes that nothing in a message points to are let pass.
    PaddingAccepted at Byzantine,
    /// Frames count as they are written, authenticators and all.
    AuthenticatorsCounted at Byzantine,
    /// What proves a checkpoint is kept as it came.
    ProofKeptAsReceived at Byzantine,
    /// A leader proposes as much at once as the window has places for.
    UndecidedUnlimited at Byzantine,
    /// A leader is blamed for a frame while it serves the same client's lower ones.
    QuotaBlamed at Clients,
    /// A leader is blamed for frames that prove themselves to others only.
    MacsBlamed at Clients,
    /// Frames that a replica passes on are answered again.
    PassedOnAnswered at Byzantine,
    /// Frames that are proposed again are answered again.
    RepeatsAnswered at Byzantine,
    /// A client has to sign because one replica names it.
    OneAccuserBelieved at Byzantine,
    /// Who had to sign once has to sign for ever.
    SigningNeverEnds at Byzantine,
    /// Clients have as many reads wait as they like.
    ReadsUnlimited at Clients,
    /// One client's reads go before all others'.
    ReadsUnfair at Clients,
    /// Reads beside the order are answered whether they are enabled or not.
    ReadsUnasked at Clients,
    /// An operation that panicked keeps what it had done, where one is executed after the other.
    PanicKept at Byzantine,
    /// View changes that a new view names are not given to those that lack them.
    ViewChangesUnpassed at Byzantine,
    /// A view change counts as the one that a new view names whatever its digest.
    NamedViewChangeUnchecked at Byzantine,
    /// The log holds new views without the view changes that they name.
    ViewChangesUnlogged at Crash,
    /// What a new view of its own chose is forgotten when the log is cut after that view.
    AnnouncedForgotten at Crash,
    /// The votes of a turn leave in one message, however many there are.
    VotesUnsplit at Net,
    /// A client counts answers to another frame of the same number as answers to its own.
    ReplyDigestUnchecked at Net,
    /// A replica answers a frame whose number was used with the results of the frame that used it.
    NumberReuseAnswered at Net,
    /// A read that is executed in the order updates.
    ReadUpdates at Net,
    /// Two processes' frames that ask for the same under one number are one.
    ProcessUncovered at Byzantine,
    /// A client believes one replica which sessions there were.
    SessionFromOne at Byzantine,
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
