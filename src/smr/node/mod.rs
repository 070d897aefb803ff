//! What a host decides for its replica, without sockets, threads, files or clocks: one copy, which the shards
//! and the simulator both run.
//!
//! A part takes inputs one at a time, and says what is to be done through its port, at once and in order. A
//! port moves things and decides nothing: the shards' put them into lanes, the simulator's into its world.
//!
//! | part | takes | tells |
//! |---|---|---|
//! | [`route`] | a message of a link | whose it is |
//! | [`Preprocessing`] | clients' frames, replicas' messages that carry frames | [`PreprocessingPort`] |
//! | [`Consensus`] | what passed; what execution and the disk did; time | [`ConsensusPort`] |
//! | [`Execution`] | decisions, reads, chunks of a snapshot | [`ExecutionPort`] |
//! | [`CheckpointHistory`], [`Replay`] | the log of an earlier life | which snapshot may be believed; a replica that goes on |
//! | [`Log`] | records, cuts, what is to be read back; segments | [`LogPort`], [`GroupWriter`] |
//! | [`serve_snapshot_task`] | what transfers of snapshots ask of the disk | [`SnapshotTransferPort`] |
//! | [`StorageWork`] | segments and snapshots that are made, replaced or not needed | the next [`StorageStep`] on disk |
//! | [`SnapshotTrust`] | that the state is wrong, or another one | which snapshots are believed |
//!
//! A frame's way: [`route`] → [`Preprocessing::take_frame`] → [`PreprocessingPort::ordered`] →
//! [`Consensus::on_frame`] → [`ConsensusPort::execute`] → [`Execution::execute`] →
//! [`ExecutionPort::answer`].

mod consensus;
mod execution;
mod log;
mod preprocessing;
mod restart;
mod routing;
mod snapshot_transfer;
mod snapshots;
mod storage;

pub use consensus::{Consensus, ConsensusPort};
pub use execution::{Execution, ExecutionPort};
pub use log::{GroupWriter, Log, LogEntry, LogPort};
pub use preprocessing::{Preprocessing, PreprocessingPort};
pub use restart::{CheckpointHistory, Replay, Replayed};
pub use routing::{Route, Unroutable, route};
pub use snapshot_transfer::{SnapshotTransferPort, serve_snapshot_task};
pub use snapshots::SnapshotTrust;
pub use storage::{Released, StorageDone, StorageOutcome, StorageStep, StorageTask, StorageWork};
