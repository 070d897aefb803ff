//! Reconfiguration: the members of an epoch agree on where it ends and who follows, and whoever was elsewhere
//! meanwhile learns of it.
//!
//! [`ReconfigurationProtocol`] is the contract; [`EpochHandover`] is the protocol behind it. What a
//! membership is, and what proves one, is in [`membership`](crate::smr::membership).
//!
//! ```text
//!   execution            EpochHandover                         the other members
//!   ─ on_closed ───────► own end, signed ─ logged ─ Handover ─────────────────►
//!                        ends of others, by slot ◄──────────────── Handover ───
//!                        a quorum signed the same: certificate ─ logged
//!   ◄─ take_ended ─────  the chain is longer by it
//!                        ─ FetchChain ────────► who speaks of a later epoch
//!                        ◄─────────────── Chain, certificate by certificate ───
//!                        ─ FetchChange ───────► who told it
//!   ◄─ take_ended ─────  ◄─────────────────── Change: what ended that epoch ───
//! ```
//!
//! | event | what it causes |
//! |---|---|
//! | [`on_decided`](ReconfigurationProtocol::on_decided) | logs which decision is the last: after a restart nothing is ordered behind it |
//! | [`on_closed`](ReconfigurationProtocol::on_closed) | signs the end, once an epoch, logs it, and tells the others once it is durable |
//! | a [`Handover`](ReconfigurationMessage::Handover) of this epoch | verified and kept, one of each member; with a quorum of the own end the epoch has ended |
//! | one of an earlier epoch | its sender is given the certificates that it lacks |
//! | one of a later epoch | its sender is asked for the certificates that we lack |
//! | [`FetchChain`](ReconfigurationMessage::FetchChain) | a piece of the chain, at most one in [`ANSWER_PAUSE`] to each peer |
//! | a [`Chain`](ReconfigurationMessage::Chain) | each certificate verified against the epoch before; what is new is logged; what ended the epoch is asked for, unless it was executed here |
//! | [`FetchChange`](ReconfigurationMessage::FetchChange) | what ended that epoch, or ends it, if it is known; in the same measure |
//! | a [`Change`](ReconfigurationMessage::Change) | held against what was certified: an epoch has ended |
//! | [`on_other_epoch`](ReconfigurationProtocol::on_other_epoch) | as a handover of that epoch |
//! | [`on_status_due`](ReconfigurationProtocol::on_status_due) | the own end is told again; if a quorum ended without us, or a change is lacking, one of them is asked |
//!
//! # Invariants
//! - **One end each.** A member signs one end of an epoch, whatever happens to it: what it signed is logged
//!   before it is said, and read before anything is signed after a restart.
//! - **By value.** Members are counted for what they signed, cluster, epoch, last decision, checkpoint and
//!   successor alike; one counts once, for the first that it signed.
//! - **Nothing on one's word.** An epoch has ended when a quorum of its members signed its end, and not
//!   before, whoever says so. What is certified and not what was executed here is a state that went wrong.
//! - **Forks are proven, not followed.** Two certified ends of one epoch leave the chain as it is.
//! - **Bounded.** A peer costs no more than one answer in a while, one verification for each member and
//!   epoch, and so many certificates as it is allowed, or was asked for.

mod epoch_handover;
mod message;
mod peers;

pub use epoch_handover::{ANSWER_PAUSE, EpochHandover};
pub use message::{ReconfigurationMessage, SignedHandover};

use crate::smr::membership::{ChangeRequest, EndedEpoch, EpochHistory, ForkProof};
use crate::smr::messages::CheckpointClaim;
use crate::smr::protocol::{Outbox, Persisted, Record, RestoreError};
use crate::smr::types::{Epoch, NodeId, SeqNo, Time};

/// A protocol that ends epochs: a deterministic state machine (see [`crate::smr::protocol`]).
///
/// Peers are members of whatever epoch, or nobody's: they have their [`NodeId`]s here, not slots.
pub trait ReconfigurationProtocol {
    /// The memberships that are known, what made them, and what proves them.
    fn history(&self) -> &EpochHistory;

    /// A change was decided at this place, which is the last of the epoch: it must not be executed before the log
    /// holds this. `None` if that is certified already, or the change is not possible there, and ends nothing.
    fn on_decided(&mut self, seq: SeqNo, request: &ChangeRequest, out: &mut Outbox) -> Option<Persisted>;

    /// What was decided at the place that was executed last, if f+1 members say that it was the last of the epoch:
    /// its state came from others, and it was not decided here.
    fn take_learned(&mut self, executed: SeqNo) -> Option<ChangeRequest>;

    /// The last place of the epoch, once it is known.
    fn closing(&self) -> Option<SeqNo>;

    /// What was decided there was executed: `closing` is the checkpoint after it.
    fn on_closed(&mut self, now: Time, closing: CheckpointClaim, out: &mut Outbox);

    /// A message arrived.
    fn on_message(&mut self, now: Time, from: NodeId, message: ReconfigurationMessage, out: &mut Outbox);

    /// A peer said something, whatever it was, in another epoch than the newest that is known here.
    fn on_other_epoch(&mut self, now: Time, from: NodeId, epoch: Epoch, out: &mut Outbox);

    /// [`Timer::Status`](crate::smr::protocol::Timer::Status) fired.
    fn on_status_due(&mut self, now: Time, out: &mut Outbox);

    /// The next epoch that has ended, in their order: of each it is said once, when it is known what follows.
    /// Its certificate is in the log before anything that is logged from now on.
    fn take_ended(&mut self) -> Option<EndedEpoch>;

    /// Proof that more members than may lie have signed two ends of an epoch, if there is one.
    fn fork(&self) -> Option<&ForkProof>;

    /// The log holds this record. Epochs whose end it says [have ended](Self::take_ended), once it is known
    /// what ended them.
    ///
    /// # Errors
    /// When it is one of its own that cannot be read: the log is damaged.
    fn restore(&mut self, record: &Record) -> Result<(), RestoreError>;

    /// The log of an epoch is empty: it begins with what proves the epoch, if it is not the first.
    fn begin_log(&mut self, out: &mut Outbox);

    /// What has to be written again before the log is cut. What the history that this began with has is kept
    /// elsewhere.
    fn base_records(&self) -> Vec<Record>;
}

#[cfg(test)]
mod tests;
