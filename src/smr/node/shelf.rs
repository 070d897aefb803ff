use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::KeeperTask;
use crate::smr::messages::{ImageIndex, PieceRange};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{ImageEvent, ImageTask};
use crate::smr::types::SeqNo;

/// The disk as transfers of images see it. What failed can be done again.
pub trait ShelfPort {
    /// Why something cannot be done.
    type Error;

    /// Opens the image that is to come at `seq`, after the sound chunks that an earlier attempt kept; what
    /// other attempts kept is removed.
    ///
    /// # Errors
    /// When the disk fails, or has no room.
    fn receive(&mut self, seq: SeqNo, found: impl FnMut(&[u8])) -> Result<(), Self::Error>;

    /// Opens the newest own image beside this index: what both have, as it seems. Every piece of it is checked
    /// before it is [copied](Self::copy).
    fn compare(&mut self, index: &Arc<ImageIndex>) -> Option<Vec<Range<usize>>>;

    /// Adds a chunk to the image that comes.
    ///
    /// # Errors
    /// When the disk fails, or has no room.
    fn add(&mut self, chunk: &[u8]) -> Result<(), Self::Error>;

    /// Adds pieces of the own image that was [opened](Self::compare): those that are not in it after all;
    /// `None` when none is open.
    ///
    /// # Errors
    /// When the disk fails, or has no room.
    fn copy(&mut self, pieces: &Range<usize>) -> Result<Option<Vec<usize>>, Self::Error>;

    /// Ends the image that comes, if it is this one, and has all of it be there for good: whether that is so.
    ///
    /// # Errors
    /// When the disk fails, or has no room.
    fn close(&mut self, seq: SeqNo) -> Result<bool, Self::Error>;

    /// Reads pieces of an image for a peer, as far as they are there.
    fn read(&mut self, range: PieceRange, bytes_max: usize) -> Vec<Bytes>;

    /// Has the [keeper](super::Keeper) do something, after what it was asked before.
    fn keeper(&mut self, task: KeeperTask);
}

/// Does what consensus asks of the disk for a transfer of images, but for installing; `tell` is told what came
/// of it. Done again after an error, it tells again.
///
/// What changes which image a restart begins with is the keeper's: it puts the image that came in its place
/// after the own images that it was given before. One of a state that is wrong would take its place else. That
/// it did so is told by it.
///
/// # Errors
/// What the port says.
pub fn shelve<P: ShelfPort>(
    task: &ImageTask,
    port: &mut P,
    mut tell: impl FnMut(ImageEvent),
) -> Result<(), P::Error> {
    match task {
        ImageTask::Open { seq, index } => {
            let seq = *seq;
            port.receive(seq, |chunk| {
                tell(ImageEvent::Found(Bytes::copy_from_slice(chunk)));
            })?;
            if let Some(pieces) = port.compare(index) {
                tell(ImageEvent::Reusable { seq, pieces });
            }
            tell(ImageEvent::Opened(seq));
        }
        ImageTask::Keep(chunk) => {
            port.add(chunk)?;
            tell(ImageEvent::Kept(chunk.len()));
        }
        ImageTask::Copy(pieces) => {
            let pieces = pieces.clone();
            let missing = port.copy(&pieces)?;
            let missing = missing.unwrap_or_else(|| pieces.clone().collect());
            tell(ImageEvent::Copied { pieces, missing });
        }
        ImageTask::Complete(seq) => {
            if port.close(*seq)? {
                port.keeper(KeeperTask::Adopt(*seq));
                if active(Mutant::AdoptionUnawaited) {
                    tell(ImageEvent::Completed(*seq));
                }
            }
        }
        ImageTask::Read { to, range, bytes_max } => {
            let mut chunks = port.read(*range, *bytes_max);
            if chunks.is_empty() {
                // Says that it is not there.
                chunks.push(Bytes::new());
            }
            let (to, seq, count) = (*to, SeqNo::new(range.seq), chunks.len());
            for (number, bytes) in (1..).zip(chunks) {
                let last = number == count;
                tell(ImageEvent::Chunk { to, seq, last, bytes });
            }
        }
        ImageTask::Forget { before, but } => port.keeper(KeeperTask::Forget(*before, but.clone())),
        ImageTask::Disown => port.keeper(KeeperTask::Disown),
        ImageTask::Install(_) => {}
    }
    Ok(())
}
