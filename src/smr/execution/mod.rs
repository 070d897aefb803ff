//! Execution: decided batches become state and replies.
//!
//! An [`Application`] is deterministic code over a [`MonolithicState`]; one that says what its parts are is a
//! [`DivisibleState`], and any type that serde writes is one as [`Plain`]. A [`TypedApplication`] has types
//! for its requests and replies too. An [`Executor`] runs it: it takes decisions in order, executes each
//! frame once ([`ClientTable`]), answers per frame, and takes checkpoints at places that follow from the
//! decisions alone, so that every replica takes the same ones. Every executor gives byte-identical replies
//! and digests for the same decisions.

mod application;
pub mod apps;
mod client_table;
mod columns;
mod context;
mod crud;
mod divisible;
mod encoding;
mod execution_ledger;
#[cfg(test)]
pub(crate) mod fixtures;
mod guard;
mod keyed_part;
mod part_buffers;
mod partitioned;
mod parts;
mod plain;
mod read_gate;
mod read_queue;
mod resends;
mod result;
mod sessions;
mod single;
mod snapshot;
pub mod speculative;
mod typed;
mod undo;
mod window;

pub use application::{
    Application, CheckpointHelp, MonolithicState, PREPARED_OPERATIONS, ScalableApp, application_id,
};
pub use client_table::ClientTable;
pub use columns::Columns;
pub use context::{DecisionContext, OperationContext};
pub use crud::{Column, CrudState, Direct, KeyedState};
pub use divisible::{DivisibleState, StatePart};
pub use encoding::{EncodingError, REQUEST_DEPTH_MAX};
pub use execution_ledger::{CheckpointRule, StateRule};
pub use guard::StateFault;
pub use keyed_part::KeyedPart;
pub use part_buffers::Room;
pub use partitioned::{PARTS, Partitioned, PartitionedStore};
pub use parts::{Parts, PartsSnapshot};
pub use plain::{Plain, PlainSnapshot};
pub use read_gate::ReadGate;
pub use read_queue::{READ_SHARE_PERCENT, ReadLimits, ReadQueue};
pub use resends::Resends;
pub use result::{FRAME_RESULT_BYTES_MAX, RESULT_BYTES_MAX, ResultLimits, ResultWriter};
pub use sessions::{SESSION_STEP_MAX, SESSIONS_MAX, SessionWindows, Sessions};
pub use single::SingleThreaded;
pub use snapshot::CheckpointSnapshot;
pub use speculative::{Helper, Speculative};
pub use typed::{TypedApplication, TypedError, decode_error, decode_reply, encode_request};
pub use window::{CLIENT_WINDOW, FrameStatus, SequenceWindow};

/// What an application meets of a checkpoint's format.
pub use crate::smr::messages::{
    PartDescription, PieceReader, PieceWriter, SnapshotChunk, SnapshotError, SnapshotHead, SnapshotIndex,
    StateDescriptor, StateRead, state_digest,
};

use std::sync::Arc;

use bytes::Bytes;

use crate::smr::crypto::{Chain, Digester};
use crate::smr::messages::{
    CheckpointClaim, Frame, FrameId, FrameKey, Proposal, RefusalReason, TakenCheckpoint,
};
use crate::smr::types::{Epoch, SeqNo, UnixTime, View};

/// What execution tells the rest of the replica.
#[derive(Debug)]
pub enum ExecutionEvent {
    /// Answer a client.
    Reply {
        /// The frame that is answered.
        key: FrameKey,
        /// The view in which it was decided, or the latest one known.
        view: View,
        /// The state it was answered from, if it is a read beside the order.
        read: StateRead,
        /// The archive of a [`ReplyBody`](crate::smr::messages::ReplyBody).
        body: Bytes,
    },
    /// Tell a client why there are no results for a frame.
    Refused {
        /// The frame.
        frame: FrameId,
        /// The latest view known.
        view: View,
        /// Why.
        reason: RefusalReason,
    },
    /// A decision was executed.
    Executed {
        /// Its place.
        seq: SeqNo,
        /// Its [agreed time](OperationContext::time).
        time: UnixTime,
        /// Operations executed; frames executed before do not count.
        operations: usize,
    },
    /// A checkpoint was taken, and its digest is known.
    Checkpoint(TakenCheckpoint),
    /// A checkpoint whose contents will be kept on disk is being digested, or one with a large state comes
    /// nearer: a thread that has the time may help.
    Help(CheckpointHelp),
    /// The contents of the checkpoint whose digest was just told, to be kept on disk.
    Snapshot(Box<dyn CheckpointSnapshot>),
}

/// Runs an application over decisions. Deterministic: the same calls give the same events.
pub trait Executor: Send {
    /// Takes the next decision. Decisions come in order, without gaps. Its events come at once, or with later
    /// [steps](Self::step).
    fn execute(&mut self, decision: &Arc<Proposal>, events: &mut Vec<ExecutionEvent>);

    /// Whether the next decision can be taken without waiting for earlier ones.
    fn has_room(&self) -> bool {
        true
    }

    /// Goes on with decisions that were taken; true if there was anything to do. An executor that executes at
    /// once has nothing to go on with.
    fn step(&mut self, _events: &mut Vec<ExecutionEvent>) -> bool {
        false
    }

    /// Whether a [`step`](Self::step) would do something now.
    fn has_work(&self) -> bool {
        false
    }

    /// Whether every decision taken was executed and answered.
    fn is_settled(&self) -> bool {
        true
    }

    /// Whether helpers would find something to do.
    fn wants_help(&self) -> bool {
        false
    }

    /// Goes on until everything that was taken is executed and answered.
    fn settle(&mut self, events: &mut Vec<ExecutionEvent>) {
        while !self.is_settled() {
            self.step(events);
        }
    }

    /// How many executions were of no use and repeated. Differs from replica to replica.
    fn aborts(&self) -> u64 {
        0
    }

    /// Executes a frame of read-only operations on the current state, or tells its client which of its
    /// sessions are known ([`Mode::Session`](crate::smr::messages::Mode::Session)).
    fn execute_unordered(&mut self, frame: &Frame, events: &mut Vec<ExecutionEvent>);

    /// Sends the cached reply of an executed frame once more, or says why there is none. Says nothing of a
    /// frame that may still be executed.
    fn reply_again(&mut self, frame: &FrameId, events: &mut Vec<ExecutionEvent>);

    /// Does about `budget_bytes` of pending checkpoint work; true while some is left. Called between
    /// decisions, so that a checkpoint never stops execution.
    fn background_step(&mut self, budget_bytes: usize, events: &mut Vec<ExecutionEvent>) -> bool;

    /// The checkpoint claim for the state as it is now, computed at once: for tools and tests, not for load.
    /// Everything must be [settled](Self::settle).
    fn digest_now(&mut self) -> CheckpointClaim;

    /// Whether checkpoints give [snapshots](ExecutionEvent::Snapshot) from the next one on.
    fn keep_snapshots(&mut self, keep: bool);

    /// Takes one chunk of a snapshot in; the first one empties the state and the client table.
    ///
    /// # Errors
    /// When it is no chunk of a snapshot of this service and this cluster.
    fn read_snapshot_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError>;

    /// All chunks of a snapshot were read: what the contents amount to, if they are those the snapshot's head
    /// promised.
    ///
    /// # Errors
    /// When they are not.
    fn finish_snapshot(&mut self) -> Result<CheckpointClaim, SnapshotError>;

    /// The chain of the decisions that were executed.
    fn chain(&self) -> Chain;

    /// What was executed of each client's frames.
    fn client_windows(&self) -> Vec<SessionWindows>;

    /// The last decision executed.
    fn executed(&self) -> SeqNo;

    /// How many operations panicked, at every replica alike.
    fn panics(&self) -> u64;
}

/// What an executor is made with beside its application: what the cluster agreed on.
#[derive(Debug, Clone)]
pub struct ExecutorSettings {
    /// Clients are `0..clients`.
    pub clients: usize,
    /// Digests of this cluster.
    pub digester: Digester,
    /// The membership.
    pub epoch: Epoch,
    /// When checkpoints are due.
    pub rule: CheckpointRule,
    /// How long results may be.
    pub results: ResultLimits,
}

/// An executor as a part of a [`Stack`](crate::smr::replica::Stack): it can be made for the application.
pub trait ExecutorPart<A: Application>: Executor + Sized {
    /// An executor at the application's initial state.
    fn make(application: A, settings: &ExecutorSettings) -> Self;

    /// What so many threads beside its own would run; none, if it has no use for them.
    fn helpers(&self, _threads: usize) -> Vec<Box<dyn Helper>> {
        Vec::new()
    }
}

#[cfg(test)]
mod epoch_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
