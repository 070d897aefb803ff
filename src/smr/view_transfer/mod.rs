//! View transfer: replicas agree that a leader is replaced, and on what its successor begins with.
//!
//! [`ViewTransferProtocol`] is the contract; [`pbft`] is the protocol behind it. It never calls ordering: it
//! asks the orchestrator, by effect, to have a view left
//! ([`Effect::LeaveView`](crate::smr::protocol::Effect::LeaveView)) or begun
//! ([`Effect::EnterView`](crate::smr::protocol::Effect::EnterView)), and is given what ordering hands out.

pub mod pbft;

use crate::smr::messages::{Archived, Message, Status};
use crate::smr::protocol::{OrderingProgress, Outbox, OwnRecord, Record, RestoreError, Timer};
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
///
/// It goes with ordering protocols that carry [`Evidence`](Self::Evidence) out of a view and begin one with a
/// [`Start`](Self::Start).
pub trait ViewTransferProtocol {
    /// What its replicas say to each other.
    type Message: Message;
    /// What ordering carries out of a view.
    type Evidence;
    /// What ordering begins a view with.
    type Start;

    /// How many signatures are verified for a message at most: its sender is charged for them.
    fn signatures(message: &Archived<Self::Message>) -> usize;

    /// Whether a message asks for something: what answers it is charged to its sender.
    fn is_question(message: &Archived<Self::Message>) -> bool;

    /// What one of its [own records](Record::ViewTransfer) says, for those who look at a log; `None` if it is
    /// none.
    fn describe(contents: &[u8]) -> Option<OwnRecord>;

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
    fn on_status_due(&mut self, now: Time, standing: OrderingProgress, out: &mut Outbox);

    /// Ordering left its view for `view`, as asked.
    fn on_view_left(&mut self, now: Time, view: View, evidence: Self::Evidence, out: &mut Outbox);

    /// A message of its own arrived.
    fn on_message(&mut self, now: Time, from: NodeId, message: &Archived<Self::Message>, out: &mut Outbox);

    /// What the view begins with that the next
    /// [`Effect::EnterView`](crate::smr::protocol::Effect::EnterView) is about.
    fn take_start(&mut self) -> Option<Self::Start>;

    /// The log holds this record. What a view began with, if it is the record that says so; `None` also when
    /// the log was cut inside of what says so: then all of it is there once more further on, if the view
    /// matters still.
    ///
    /// # Errors
    /// When it is one of its own that cannot be read: the log is damaged.
    fn restore(&mut self, record: &Record) -> Result<Option<Self::Start>, RestoreError>;

    /// What has to be written again before the log is cut.
    fn base_records(&self) -> Vec<Record>;

    /// A peer's status arrived: it is sent what it lacks of view changes and new views.
    fn on_status(&mut self, now: Time, from: NodeId, status: &Status, out: &mut Outbox);
}
