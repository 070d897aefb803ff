use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::StorageTask;
use crate::smr::messages::{PieceRange, SnapshotIndex};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{SnapshotEvent, SnapshotTask};
use crate::smr::types::SeqNo;

/// The disk as transfers of snapshots see it. What failed can be done again.
pub trait SnapshotTransferPort {
    /// Why something cannot be done.
    type Error;

    /// Opens the snapshot that is to come at `seq`, after the sound chunks that an earlier attempt kept; what
    /// other attempts kept is removed.
    ///
    /// # Errors
    /// When the disk fails, or has no room.
    fn receive(&mut self, seq: SeqNo, found: impl FnMut(&[u8])) -> Result<(), Self::Error>;

    /// Opens the newest own snapshot beside this index: what both have, as it seems. Every piece of it is
    /// checked before it is [copied](Self::copy).
    fn compare(&mut self, index: &Arc<SnapshotIndex>) -> Option<Vec<Range<usize>>>;

    /// Adds a chunk to the snapshot that comes.
    ///
    /// # Errors
    /// When the disk fails, or has no room.
    fn add(&mut self, chunk: &[u8]) -> Result<(), Self::Error>;

    /// Adds pieces of the own snapshot that was [opened](Self::compare): those that are not in it after all;
    /// `None` when none is open.
    ///
    /// # Errors
    /// When the disk fails, or has no room.
    fn copy(&mut self, pieces: &Range<usize>) -> Result<Option<Vec<usize>>, Self::Error>;

    /// Ends the snapshot that comes, if it is this one, and has all of it be there for good: whether that is
    /// so.
    ///
    /// # Errors
    /// When the disk fails, or has no room.
    fn close(&mut self, seq: SeqNo) -> Result<bool, Self::Error>;

    /// Reads pieces of a snapshot for a peer, as far as they are there.
    fn read(&mut self, range: PieceRange, bytes_max: usize) -> Vec<Bytes>;

    /// Has the [storage worker](super::StorageWork) do something, after what it was asked before.
    fn storage(&mut self, task: StorageTask);
}

/// Does what consensus asks of the disk for a transfer of snapshots, but for installing; `tell` is told what
/// came of it. Done again after an error, it tells again.
///
/// What changes which snapshot a restart begins with is the storage worker's: it puts the snapshot that came
/// in its place after the own snapshots that it was given before. One of a state that is wrong would take its
/// place else. That it did so is told by it.
///
/// # Errors
/// What the port says.
pub fn serve_snapshot_task<P: SnapshotTransferPort>(
    task: &SnapshotTask,
    port: &mut P,
    mut tell: impl FnMut(SnapshotEvent),
) -> Result<(), P::Error> {
    match task {
        SnapshotTask::Open { seq, index } => {
            let seq = *seq;
            port.receive(seq, |chunk| {
                tell(SnapshotEvent::Found(Bytes::copy_from_slice(chunk)));
            })?;
            if let Some(pieces) = port.compare(index) {
                tell(SnapshotEvent::Reusable { seq, pieces });
            }
            tell(SnapshotEvent::Opened(seq));
        }
        SnapshotTask::Keep(chunk) => {
            port.add(chunk)?;
            tell(SnapshotEvent::StorageEvent(chunk.len()));
        }
        SnapshotTask::Copy(pieces) => {
            let pieces = pieces.clone();
            let missing = port.copy(&pieces)?;
            let missing = missing.unwrap_or_else(|| pieces.clone().collect());
            tell(SnapshotEvent::Copied { pieces, missing });
        }
        SnapshotTask::Complete(seq) => {
            if port.close(*seq)? {
                port.storage(StorageTask::InstallBase(*seq));
                if active(Mutant::AdoptionUnawaited) {
                    tell(SnapshotEvent::Completed(*seq));
                }
            }
        }
        SnapshotTask::Read { to, range, bytes_max } => {
            let mut chunks = port.read(*range, *bytes_max);
            if chunks.is_empty() {
                // Says that it is not there.
                chunks.push(Bytes::new());
            }
            let (to, seq, count) = (*to, SeqNo::new(range.seq), chunks.len());
            for (number, bytes) in (1..).zip(chunks) {
                let last = number == count;
                tell(SnapshotEvent::Chunk { to, seq, last, bytes });
            }
        }
        SnapshotTask::Forget { before, but } => port.storage(StorageTask::Forget(*before, but.clone())),
        SnapshotTask::Invalidate => port.storage(StorageTask::Invalidate),
        SnapshotTask::Install(_) => {}
    }
    Ok(())
}
