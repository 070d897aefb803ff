use std::sync::Arc;

use bytes::Bytes;

use crate::smr::decision_log::LoggedRange;
use crate::smr::membership::EpochHistory;
use crate::smr::messages::{CheckpointClaim, FrameId, Proposal, RefusalReason};
use crate::smr::protocol::{LogCut, Recipients, Record, SnapshotTask};
use crate::smr::types::{ClientId, Lsn, SeqNo};

/// What the shell does for the orchestrator, in order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send a whole message to replicas.
    ToReplicas {
        /// To whom.
        to: Recipients,
        /// The message, envelope included.
        message: Bytes,
    },
    /// Pass clients' frames on to replicas: a whole message, which agreement does not wait for.
    PassOn {
        /// To whom.
        to: Recipients,
        /// The message, envelope included.
        message: Bytes,
    },
    /// Tell a client that its frame is not taken.
    Refuse {
        /// The frame.
        frame: FrameId,
        /// Why.
        reason: RefusalReason,
    },
    /// Execute the next decision.
    Execute(Arc<Proposal>),
    /// Send the cached reply of an executed frame again, or say why there is none.
    ReplyAgain(FrameId),
    /// Append a record to the log; [`on_durable`](super::Replica::on_durable) follows when it is on disk.
    Log {
        /// Its position.
        lsn: Lsn,
        /// The record.
        record: Record,
    },
    /// From now on a client has to sign, because f+1 replicas name it as one whose MACs cost them a view; or
    /// it does not have to any more.
    RequireSignature {
        /// The client.
        client: ClientId,
        /// Whether it has to.
        must_sign: bool,
    },
    /// A checkpoint became stable.
    Stable(CheckpointClaim),
    /// These records are not needed any more.
    CutLog(LogCut),
    /// Our state is not the one a quorum signed: stop serving, raise an alarm.
    Diverged {
        /// What the quorum signed.
        stable: CheckpointClaim,
        /// What we have.
        ours: CheckpointClaim,
    },
    /// What this replica had forgotten does not matter any more, and the log holds why: it takes part in
    /// votes again.
    AbstentionOver,
    /// Something to do for the disk, or for execution, with the snapshot of a checkpoint;
    /// [`on_snapshot`](super::Replica::on_snapshot) follows.
    Snapshot(SnapshotTask),
    /// Read decisions from the log; [`on_logged`](super::Replica::on_logged) follows. They are durable.
    ReadLog(LoggedRange),
    /// Reads beside the order are answered from states after this place, and not at all while `None`.
    ServeReads(Option<SeqNo>),
    /// The epoch has ended, and that is on disk. The next ones are known: this replica is of no more use.
    EpochEnded(Box<EpochHistory>),
    /// The others have forgotten what we lack.
    FellBehind {
        /// The checkpoint to reach.
        stable: SeqNo,
    },
}
