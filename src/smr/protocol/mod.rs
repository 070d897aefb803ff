//! The contract all protocols share: events in, effects out, time handed in.
//!
//! A protocol is a struct that owns its state and answers each event with effects in an [`Outbox`]. It reads
//! no clock, opens no socket and knows no thread; the shells carry its effects out, in order. The
//! same code therefore runs on the shards and in the simulator.
//!
//! **What waits for the disk.** Anything a replica says that binds it later (a proposal, a vote, a signed
//! claim) must be on disk before it leaves. The rule is a type: the methods that send a promise take a
//! [`Persisted`], and only [`Outbox::persist`] makes one. Each such effect then carries
//! [`When::Durable`], and the orchestrator alone holds it back until the log has reached that position.

mod allowance;
mod outbox;
mod part;
mod record;
mod snapshot;
pub mod units;
mod view;

pub use allowance::{Allowance, Rate};
pub use outbox::{Effect, Outbox, Persisted, Recipients, When};
pub use part::{ConfigOf, InvalidSetting, Part, PartConfig, PartContext, in_range};
pub use record::{LogCut, OwnRecord, Record, RestoreError};
pub use snapshot::{SnapshotEvent, SnapshotTask};
pub use view::{LeaderRule, OrderingProgress};

use crate::smr::types::{NodeId, SeqNo, View};

/// The timers of all protocols. A replica has at most one of each running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Set while a request this replica knows of is not executed; when it fires, the leader is suspected.
    Progress,
    /// Set while a view change runs; when it fires, the next view is asked for.
    ViewChange,
    /// Periodic: says what we have, so that peers resend what we lack.
    Status,
    /// Periodic: judges the leader's throughput and fairness against what was seen before.
    LeaderReview,
    /// Set while decisions are transferred.
    LogTransfer,
    /// Set while a state is transferred.
    StateTransfer,
    /// Set while a peer is owed more than its allowance covers.
    Donor,
    /// Set while a peer is asked for decisions that the own log does not give back.
    Repair,
}

impl Timer {
    /// Every timer, for arrays that hold one entry each.
    pub const ALL: [Self; 8] = [
        Self::Progress,
        Self::ViewChange,
        Self::Status,
        Self::LeaderReview,
        Self::LogTransfer,
        Self::StateTransfer,
        Self::Donor,
        Self::Repair,
    ];

    /// The place of this timer in such an array.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a replica's message was refused. A refusal is counted and never changes state; only those that
/// [break the protocol](Rejection::is_misbehaviour) speak against the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Rejection {
    /// Speaks of a view before ours: late, not wrong.
    #[error("speaks of a view that is over")]
    OldView,
    /// Speaks of a view that we have not reached.
    #[error("speaks of a view to come")]
    FutureView,
    /// Lies at or below the stable checkpoint: late, not wrong.
    #[error("lies below the low watermark")]
    BelowWindow,
    /// Lies above the high watermark: a window's worth ahead of us, or a memory bomb.
    #[error("lies above the high watermark")]
    AboveWindow,
    /// A pre-prepare from a replica that does not lead its view.
    #[error("is proposed by a replica that does not lead")]
    NotLeader,
    /// A second, different proposal for the same view and place: the leader lies.
    #[error("contradicts the leader's first proposal")]
    Equivocation,
    /// A second, different vote of one replica for the same phase, view and place: it lies.
    #[error("contradicts the sender's first vote")]
    ConflictingVote,
    /// The same message once more.
    #[error("was received before")]
    Duplicate,
    /// A prepare from the leader, whose pre-prepare is its vote.
    #[error("is a prepare of the leader")]
    LeaderPrepare,
    /// The signature is not the signer's, or the signer is not the sender.
    #[error("is not signed by its sender")]
    BadSignature,
    /// A checkpoint at a place where none is due.
    #[error("is a checkpoint where none is due")]
    BadCheckpoint,
    /// Breaks a rule of the view change.
    #[error("breaks a rule of the view change")]
    BadViewChange,
    /// Its sender had so much verified or kept already that this is not: a flood, or haste.
    #[error("asks for more than its sender may have verified or kept now")]
    OverBudget,
    /// A fresh proposal whose time is further from our clock than the bound: one of the two clocks is off.
    #[error("carries a time that is not near that of our clock")]
    ClockOutOfBounds,
    /// Speaks in another epoch than ours: early, or late.
    #[error("speaks in another epoch")]
    OtherEpoch,
}

impl Rejection {
    /// Every reason, for counters.
    pub const ALL: [Self; 15] = [
        Self::OldView,
        Self::FutureView,
        Self::BelowWindow,
        Self::AboveWindow,
        Self::NotLeader,
        Self::Equivocation,
        Self::ConflictingVote,
        Self::Duplicate,
        Self::LeaderPrepare,
        Self::BadSignature,
        Self::BadCheckpoint,
        Self::BadViewChange,
        Self::OverBudget,
        Self::ClockOutOfBounds,
        Self::OtherEpoch,
    ];

    /// The place of this reason in [`Rejection::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name of this reason's counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OldView => "rejected_old_view",
            Self::FutureView => "rejected_future_view",
            Self::BelowWindow => "rejected_below_window",
            Self::AboveWindow => "rejected_above_window",
            Self::NotLeader => "rejected_not_leader",
            Self::Equivocation => "rejected_equivocation",
            Self::ConflictingVote => "rejected_conflicting_vote",
            Self::Duplicate => "rejected_duplicate",
            Self::LeaderPrepare => "rejected_leader_prepare",
            Self::BadSignature => "rejected_bad_signature",
            Self::BadCheckpoint => "rejected_bad_checkpoint",
            Self::BadViewChange => "rejected_bad_view_change",
            Self::OverBudget => "rejected_over_budget",
            Self::ClockOutOfBounds => "rejected_clock_out_of_bounds",
            Self::OtherEpoch => "rejected_other_epoch",
        }
    }

    /// Whether no correct replica sends such a message, however slow the network.
    #[must_use]
    pub const fn is_misbehaviour(self) -> bool {
        !matches!(
            self,
            Self::OldView
                | Self::FutureView
                | Self::BelowWindow
                | Self::AboveWindow
                | Self::Duplicate
                | Self::OverBudget
                | Self::ClockOutOfBounds
                | Self::OtherEpoch
        )
    }
}

/// A refused message, as the protocols report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rejected {
    /// Who sent it.
    pub from: NodeId,
    /// The view it spoke of.
    pub view: View,
    /// The place it spoke of.
    pub seq: SeqNo,
    /// Why it was refused.
    pub reason: Rejection,
}
