//! View transfer: replicas agree that a leader is replaced, and on what its successor begins with.
//!
//! [`ViewTransferProtocol`] is the contract; [`pbft`] is the protocol behind it. It never calls ordering: it
//! asks the orchestrator, by effect, to have a view left
//! ([`Effect::LeaveView`](crate::smr::protocol::Effect::LeaveView)) or begun
//! ([`Effect::EnterView`](crate::smr::protocol::Effect::EnterView)), and is given what ordering hands out.

pub mod pbft;

use bytes::Bytes;

use crate::smr::messages::{NamedViewChange, NewView, Status, ViewChange};
use crate::smr::protocol::{Outbox, Record, RestoreError, Standing, Timer, ViewEvidence, ViewStart};
use crate::smr::types::{NodeId, Time, View};

/// Since when clients wait for a leader, by the rule of
/// [`RequestPool`](crate::smr::preprocessing::RequestPool).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// The client that waits longest.
    pub oldest: Option<Time>,
    /// A client with a request that proves itself to everybody: the one whose has done so longest.
    pub proven: Option<Proven>,
}

/// A request that may be held against the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Since when its client waits for it.
    pub since: Time,
    /// Since when it proves itself to everybody.
    pub at: Time,
}

impl Waiting {
    /// A request that has proven itself from the beginning.
    #[must_use]
    pub fn since(since: Option<Time>) -> Self {
        Self {
            oldest: since,
            proven: since.map(|since| Proven { since, at: since }),
        }
    }
}

/// A protocol that replaces leaders: a deterministic state machine (see [`crate::smr::protocol`]).
pub trait ViewTransferProtocol {
    /// The view this replica is in, or is changing to.
    fn view(&self) -> View;

    /// Whether that view has begun here.
    fn is_active(&self) -> bool;

    /// Since when requests wait at this replica. Cheap: called every turn.
    fn on_pending_changed(&mut self, now: Time, waiting: Waiting, out: &mut Outbox);

    /// Decisions are at hand that are not executed yet: whatever waits, waits for execution.
    fn on_executing(&mut self, now: Time);

    /// A decision was executed, with this many operations that had not been executed before.
    fn on_executed(&mut self, now: Time, operations: usize);

    /// A timer other than [`Timer::Status`] fired.
    fn on_timeout(&mut self, now: Time, timer: Timer, out: &mut Outbox);

    /// [`Timer::Status`] fired: tells the peers where this replica stands.
    fn on_status_due(&mut self, now: Time, standing: Standing, out: &mut Outbox);

    /// Ordering left its view for `view`, as asked.
    fn on_view_left(&mut self, now: Time, view: View, evidence: ViewEvidence, out: &mut Outbox);

    /// Another replica complains: it wants `view`, or nothing any more ([`View::ZERO`]).
    fn on_complaint(&mut self, from: NodeId, view: View, out: &mut Outbox);

    /// A view change arrived, from its signer or passed on.
    fn on_view_change(&mut self, now: Time, from: NodeId, view_change: ViewChange, out: &mut Outbox);

    /// A new view arrived, from its leader or passed on.
    fn on_new_view(&mut self, now: Time, from: NodeId, new_view: NewView, out: &mut Outbox);

    /// A peer asks for view changes that a new view names.
    fn on_fetch(&mut self, now: Time, from: NodeId, wanted: &[NamedViewChange], out: &mut Outbox);

    /// The log holds this record: a view that was left for, or a view change of a new view that follows.
    fn restore(&mut self, record: &Record);

    /// The log holds this new-view message: what the view began with. `None` when the log was cut between it
    /// and the view changes that it names; then both are there once more further on, if the view matters
    /// still.
    ///
    /// # Errors
    /// When the message cannot be read.
    fn restore_new_view(&mut self, message: &Bytes) -> Result<Option<ViewStart>, RestoreError>;

    /// What has to be written again before the log is cut.
    fn base_records(&self) -> Vec<Record>;

    /// A peer's status arrived: it is sent what it lacks of view changes and new views.
    fn on_status(&mut self, now: Time, from: NodeId, status: &Status, out: &mut Outbox);
}
