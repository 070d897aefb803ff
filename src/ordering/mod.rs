//! Ordering: replicas agree on one sequence of batches.
//!
//! [`OrderingProtocol`] is the contract; [`pbft`] is the protocol behind it.

pub mod pbft;

use std::sync::Arc;

use crate::messages::{Batch, CheckpointClaim, Proposal, SignedCheckpoint, Vote};
use crate::protocol::{Outbox, Timer};
use crate::types::{NodeId, SeqNo, Time, View};

/// A protocol that orders batches: a deterministic state machine (see [`crate::protocol`]).
///
/// Its caller guarantees that `from` is the authenticated sender, that a [`Proposal`]'s frames are sound and
/// its digest is that of its frames, and that calls and effects happen in order.
pub trait OrderingProtocol {
    /// The view this replica is in.
    fn view(&self) -> View;

    /// The replica that leads the current view.
    fn leader(&self) -> NodeId;

    /// Whether this replica leads the current view and may propose.
    fn is_leading(&self) -> bool;

    /// How many batches may be proposed right now; zero for a replica that does not lead.
    fn free_slots(&self) -> usize;

    /// Proposes the next batch. Only with a free slot.
    fn propose(&mut self, now: Time, batch: Arc<Batch>, out: &mut Outbox);

    /// A pre-prepare arrived.
    fn on_proposal(&mut self, now: Time, from: NodeId, proposal: Proposal, out: &mut Outbox);

    /// A prepare or commit arrived.
    fn on_vote(&mut self, now: Time, from: NodeId, vote: Vote, out: &mut Outbox);

    /// Another replica's checkpoint arrived.
    fn on_checkpoint(&mut self, now: Time, from: NodeId, checkpoint: SignedCheckpoint, out: &mut Outbox);

    /// Our own execution took a checkpoint.
    fn on_own_checkpoint(&mut self, now: Time, claim: CheckpointClaim, out: &mut Outbox);

    /// A timer fired.
    fn on_timeout(&mut self, now: Time, timer: Timer, out: &mut Outbox);

    /// The last decision given to execution.
    fn decided(&self) -> SeqNo;

    /// The last stable checkpoint.
    fn stable(&self) -> SeqNo;
}
