use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::smr::messages::{PieceRange, SnapshotIndex};
use crate::smr::types::{NodeId, SeqNo};

/// What is asked of the disk. Answers come as [`SnapshotEvent`]s.
#[derive(Debug, Clone)]
pub enum SnapshotTask {
    /// Makes room for this checkpoint, or finds what an earlier attempt kept of it, and what an own snapshot
    /// has of it; other attempts are forgotten.
    Open {
        /// The checkpoint.
        seq: SeqNo,
        /// Covers its pieces.
        index: Arc<SnapshotIndex>,
    },
    /// Adds a chunk.
    Keep(Bytes),
    /// Adds these pieces out of the own snapshot that has them.
    Copy(Range<usize>),
    /// All chunks were added: makes them the snapshot that a restart begins with.
    Complete(SeqNo),
    /// Has execution read the snapshot, in place of the state it has.
    Install(SeqNo),
    /// The state that execution has is wrong: no snapshot of it is kept any more, until another one was
    /// installed.
    Invalidate,
    /// Snapshots before a checkpoint are not needed any more.
    Forget {
        /// The checkpoint.
        before: SeqNo,
        /// Those that are, because peers read them or were offered them.
        but: Vec<SeqNo>,
    },
    /// Reads pieces of a snapshot for a peer, not many more bytes than these.
    Read {
        /// The peer.
        to: NodeId,
        /// The pieces.
        range: PieceRange,
        /// About how many bytes.
        bytes_max: usize,
    },
}

/// What the disk, or execution, has done.
#[derive(Debug, Clone)]
pub enum SnapshotEvent {
    /// Of the checkpoint that was opened, an earlier attempt had kept this chunk. Comes before `Opened`.
    Found(Bytes),
    /// An own snapshot has pieces of the checkpoint that was opened, as it seems. Comes before `Opened`.
    Reusable {
        /// The checkpoint.
        seq: SeqNo,
        /// The pieces, in rows.
        pieces: Vec<Range<usize>>,
    },
    /// The checkpoint's file is ready.
    Opened(SeqNo),
    /// These pieces were added out of the own snapshot.
    Copied {
        /// Those that were asked for.
        pieces: Range<usize>,
        /// Of them, those that are not in it after all.
        missing: Vec<usize>,
    },
    /// This many bytes were added.
    StorageEvent(usize),
    /// The checkpoint is whole and on disk, and a restart begins with it.
    Completed(SeqNo),
    /// A chunk that was read for a peer; empty if the snapshot is not there.
    Chunk {
        /// The peer.
        to: NodeId,
        /// The checkpoint.
        seq: SeqNo,
        /// Whether it ends the answer.
        last: bool,
        /// The chunk.
        bytes: Bytes,
    },
}
