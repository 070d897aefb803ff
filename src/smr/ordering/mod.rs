//! Ordering: replicas agree on one sequence of batches.
//!
//! [`OrderingProtocol`] is the contract; [`pbft`] is the protocol behind it.

pub mod pbft;

use std::sync::Arc;

use crate::smr::messages::{
    Archived, Batch, BatchRef, CheckpointClaim, Message, Proposal, SignedCheckpoint, Status,
};
use crate::smr::protocol::{OrderingProgress, Outbox, OwnRecord, Record, RestoreError, Timer};
use crate::smr::types::{Digest, NodeId, Quorum, SeqNo, Time, UnixTime, View};

/// A protocol that orders batches: a deterministic state machine (see [`crate::smr::protocol`]).
///
/// **What is its own** nobody else reads: its messages beside proposals, its records in the log, what it carries
/// out of a view and what it begins one with. Others carry them as bytes, or as these types. **What holds for
/// every such protocol:** a leader proposes batches for places in views, decisions come in the order of their
/// places without gaps, checkpoints are proved by a quorum of signatures, and who lacks something is given
/// it.
///
/// Its caller guarantees that `from` is the authenticated sender, that a [`Proposal`]'s frames are sound and
/// its digest is that of its frames, and that calls and effects happen in order.
pub trait OrderingProtocol {
    /// What its replicas say to each other, beside proposals. Those of one flush travel together
    /// ([`Outbox::send_together`]).
    type Message: Message;
    /// What it carries out of a view that it leaves.
    type Evidence: Clone + std::fmt::Debug;
    /// What a view begins with: the same at every replica that enters it.
    type Start: std::fmt::Debug;

    /// What one of its [own records](Record::Ordering) says, for those who look at a log; `None` if it is
    /// none.
    fn describe(contents: &[u8]) -> Option<OwnRecord>;

    /// The replica that leads a view: whom clients send to first, and the only one whose proposals for the
    /// view others look at.
    fn leader_of(view: View, quorum: Quorum) -> NodeId;

    /// How many places after its stable checkpoint a replica makes promises about at most: what one may have
    /// forgotten that lost its log lies no further.
    fn promise_span(&self) -> u64;

    /// The view this replica is in, or is changing to.
    fn view(&self) -> View;

    /// The replica that leads that view.
    fn leader(&self) -> NodeId;

    /// Whether this replica leads the current view and may propose.
    fn is_leading(&self) -> bool;

    /// How many batches may be proposed right now; zero for a replica that does not lead.
    fn free_slots(&self) -> usize;

    /// The host's clock shows this time of day. Said before anything is proposed or judged, and again now and
    /// then: between two readings the time goes on as `now` does.
    fn on_wall_clock(&mut self, now: Time, unix: UnixTime);

    /// The time that the next proposal carries.
    fn next_time(&self, now: Time) -> UnixTime;

    /// Proposes the next batch, whose time is the [next](Self::next_time). Only with a free slot.
    fn propose(&mut self, now: Time, batch: Arc<Batch>, out: &mut Outbox);

    /// A leader's proposal arrived.
    fn on_proposal(&mut self, now: Time, from: NodeId, proposal: Proposal, out: &mut Outbox);

    /// A message of its own arrived.
    fn on_message(&mut self, now: Time, from: NodeId, message: &Archived<Self::Message>, out: &mut Outbox);

    /// Another replica's checkpoint arrived.
    fn on_checkpoint(&mut self, now: Time, from: NodeId, checkpoint: SignedCheckpoint, out: &mut Outbox);

    /// Another replica says that a checkpoint is stable, with what is to prove it.
    fn on_stable(&mut self, now: Time, from: NodeId, proof: &[SignedCheckpoint], out: &mut Outbox);

    /// Our own execution took a checkpoint.
    fn on_own_checkpoint(&mut self, now: Time, claim: CheckpointClaim, out: &mut Outbox);

    /// A timer fired.
    fn on_timeout(&mut self, now: Time, timer: Timer, out: &mut Outbox);

    /// Stops voting until a view from `next` on begins, and hands out what this replica carries into it.
    fn leave_view(&mut self, next: View) -> Self::Evidence;

    /// A view begins. Its start was verified by the view transfer.
    fn enter_view(&mut self, now: Time, start: &Self::Start, out: &mut Outbox);

    /// Takes what waited for what the last effects changed, now that they are carried out and logged: what
    /// came before its view began, or before its place could be looked at. False when nothing changed.
    fn take_early(&mut self, now: Time, out: &mut Outbox) -> bool;

    /// A peer asks for batches.
    fn on_fetch(&mut self, now: Time, from: NodeId, wanted: &[BatchRef], out: &mut Outbox);

    /// A batch arrived that was asked for; its `view` means nothing.
    fn on_batch(&mut self, now: Time, from: NodeId, batch: Proposal, out: &mut Outbox);

    /// A peer says what was decided.
    fn on_decisions(&mut self, now: Time, from: NodeId, decisions: &[BatchRef], out: &mut Outbox);

    /// A peer says what it has: it is sent what it lacks of votes, proposals, decisions and checkpoints.
    fn on_status(&mut self, now: Time, from: NodeId, status: &Status, out: &mut Outbox);

    /// Where this replica stands, for its own status. Called after [`Timer::Status`] fired.
    fn standing(&mut self) -> OrderingProgress;

    /// What this replica carries out of the view it left; for a view change that is taken up again after a
    /// restart.
    fn evidence(&self) -> Self::Evidence;

    /// A restart begins: everything up to `seq` is part of the state that was restored.
    fn restore_base(&mut self, seq: SeqNo);

    /// The log holds this record. Records come in the order in which they were written, decisions and new
    /// views by methods of their own.
    ///
    /// # Errors
    /// When it is one of its own that cannot be read: the log is damaged.
    fn restore(&mut self, record: &Record) -> Result<(), RestoreError>;

    /// The log was read. The state that was restored is the one of this checkpoint: what was signed of
    /// another is disowned.
    fn restore_snapshot(&mut self, claim: CheckpointClaim);

    /// The log holds what this view started with.
    fn restore_view(&mut self, start: &Self::Start);

    /// The log holds this decision, the next one in order: its batch, if it is at hand.
    fn restore_decision(&mut self, seq: SeqNo, digest: Digest) -> Option<Arc<Proposal>>;

    /// The log was restored: takes every step that what was restored allows.
    fn resume(&mut self, now: Time, out: &mut Outbox);

    /// What has to be written again before the log is cut.
    fn base_records(&self) -> Vec<Record>;

    /// What of these signatures proves the claim, and nothing more: those of exactly a quorum of distinct
    /// replicas, in their order. `None` if they do not, or are more than there are replicas.
    fn certificate(
        &self,
        claim: CheckpointClaim,
        proof: &[SignedCheckpoint],
    ) -> Option<Vec<SignedCheckpoint>>;

    /// Goes on after a place beyond the last decision: the state after it comes from others. `stable` is the
    /// checkpoint there, or a later one, with its proof.
    fn jump(
        &mut self,
        now: Time,
        seq: SeqNo,
        stable: CheckpointClaim,
        proof: &[SignedCheckpoint],
        out: &mut Outbox,
    );

    /// The batch that f+1 replicas decided at the next place. Nothing happens while the window does not reach
    /// so far.
    fn on_transferred(&mut self, now: Time, decision: &Arc<Proposal>, out: &mut Outbox);

    /// While the log is read back: this place is the last of the epoch. What closes it is known by itself where it
    /// is [decided][`Effect::Decide`], or restored: see [`Batch::closes_epoch`].
    ///
    /// [`Effect::Decide`]: crate::smr::protocol::Effect::Decide
    fn restore_end(&mut self, last: SeqNo);

    /// The last decision given to execution.
    fn decided(&self) -> SeqNo;

    /// The last stable checkpoint.
    fn stable(&self) -> SeqNo;
}
