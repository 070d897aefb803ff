//! State transfer: the contents of a checkpoint, from other replicas.
//!
//! [`StateTransferProtocol`] is the contract; [`monolithic`] is the protocol for states that are digested in
//! pieces.

mod config;
pub mod monolithic;

pub use config::{StateTransferConfig, StateTransferPartConfig, TransferLimits};

use bytes::Bytes;

use crate::smr::crypto::Chain;
use crate::smr::messages::{CheckpointClaim, CheckpointOffer};
use crate::smr::protocol::Outbox;
use crate::smr::types::{NodeId, SeqNo, Time};

pub use crate::smr::protocol::{SnapshotEvent, SnapshotTask};

/// How far a state transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateTransferState {
    /// There is none.
    Idle,
    /// Others are asked which checkpoint they have.
    Asking,
    /// Its head and index are on their way.
    Opening {
        /// The checkpoint.
        seq: SeqNo,
    },
    /// Its pieces come in.
    Receiving {
        /// The checkpoint.
        seq: SeqNo,
        /// Pieces checked and handed to the disk.
        pieces: usize,
        /// Pieces there are.
        of: usize,
        /// Bytes received.
        bytes: u64,
        /// Replicas that send them.
        donors: usize,
    },
    /// Everything is on disk, and execution reads it.
    Installing {
        /// The checkpoint.
        seq: SeqNo,
    },
}

/// The head of the checkpoint is known and proved: ordering may go on from there before the state has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The checkpoint.
    pub claim: CheckpointClaim,
    /// Covers the decisions up to it.
    pub chain: Chain,
}

/// A protocol that brings the state of a checkpoint from other replicas: a deterministic state machine (see
/// [`crate::smr::protocol`]). Its tasks are effects; see
/// [`Effect::Snapshot`](crate::smr::protocol::Effect::Snapshot).
pub trait StateTransferProtocol {
    /// Starts to look for a checkpoint after this place, or goes on with one that is on its way, unless it is
    /// no later.
    fn begin(&mut self, now: Time, after: SeqNo, out: &mut Outbox);

    /// Ends whatever runs: the state is not needed. Only while nothing is being kept yet.
    fn end(&mut self, out: &mut Outbox);

    /// Whether an offer of this replica would be looked at now: judging its proof costs many signatures.
    fn wants_offer(&self, from: NodeId, seq: SeqNo) -> bool;

    /// A peer offers a checkpoint. `certified` says whether its proof convinces us.
    fn on_offer(
        &mut self,
        now: Time,
        from: NodeId,
        offer: &CheckpointOffer,
        certified: bool,
        out: &mut Outbox,
    );

    /// A chunk of this checkpoint arrived; empty if the donor does not have it any more. `last` says that it
    /// ends the answer.
    fn on_chunk(&mut self, now: Time, from: NodeId, of: (SeqNo, bool), bytes: Bytes, out: &mut Outbox);

    /// The disk has done something.
    fn on_snapshot(&mut self, now: Time, event: &SnapshotEvent, out: &mut Outbox);

    /// Execution has read the snapshot of this checkpoint.
    fn on_installed(&mut self, seq: SeqNo, out: &mut Outbox);

    /// [`Timer::StateTransfer`](crate::smr::protocol::Timer::StateTransfer) fired.
    fn on_timeout(&mut self, now: Time, out: &mut Outbox);

    /// The checkpoint that is being brought, once its head was checked. Given once.
    fn take_target(&mut self) -> Option<Target>;

    /// How far it is.
    fn state(&self) -> StateTransferState;

    /// How many chunks were refused so far: a donor lied.
    fn lies(&self) -> u64;

    /// How many pieces were taken out of own snapshots so far.
    fn reused(&self) -> u64;
}
