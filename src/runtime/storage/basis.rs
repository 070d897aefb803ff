//! What an own snapshot has of one that is to come from others: pieces with the same digests need not be
//! sent.

use std::ops::Range;
use std::sync::Arc;

use super::StorageError;
use super::snapshot::{ReadAt, SnapshotFile};
use crate::smr::crypto::Digester;
use crate::smr::messages::{PieceReader, PieceWriter, SnapshotChunk, SnapshotIndex};
use crate::smr::mutants::{Mutant, active};

/// An own snapshot, beside the index of the one to come.
pub(crate) struct LocalSnapshotDelta<F> {
    snapshot: SnapshotFile<F>,
    index: Arc<SnapshotIndex>,
    /// The pieces that have the same digests in both.
    common: Vec<Range<usize>>,
}

impl<F: ReadAt> LocalSnapshotDelta<F> {
    /// Compares both indexes; `None` when they have nothing in common. What the own one says is only believed
    /// once the [piece itself](Self::copy) was looked at.
    ///
    /// # Errors
    /// When the own snapshot cannot be read.
    pub fn of(snapshot: SnapshotFile<F>, index: Arc<SnapshotIndex>) -> Result<Option<Self>, StorageError> {
        let (head, own) = (snapshot.chunk(0)?, snapshot.chunk(1)?);
        let common = match (SnapshotChunk::parse(&head), SnapshotChunk::parse(&own)) {
            // Pieces are compared number by number, and those of the state come after the clients'.
            (Ok(SnapshotChunk::Head(head)), Ok(SnapshotChunk::Index(own)))
                if head.client_count == index.head.client_count =>
            {
                index.descriptor().common(&SnapshotIndex::peek(own))
            }
            _ => Vec::new(),
        };
        Ok((!common.is_empty()).then_some(Self {
            snapshot,
            index,
            common,
        }))
    }

    /// The pieces that need not be sent, in rows.
    pub fn pieces(&self) -> &[Range<usize>] {
        &self.common
    }

    /// Hands those of these pieces to `keep` that are what the index covers, as chunks. Which were missing:
    /// their place cannot be read, or holds something else.
    ///
    /// # Errors
    /// What `keep` says.
    pub fn copy(
        &self,
        pieces: Range<usize>,
        digester: &Digester,
        mut keep: impl FnMut(&[u8]) -> Result<(), StorageError>,
    ) -> Result<Vec<usize>, StorageError> {
        let mut copied = vec![false; pieces.len()];
        let mut slices = PieceReader::default();
        for number in self.snapshot.chunks_from(pieces.start, 0) {
            // What is damaged comes from others.
            let Ok(chunk) = self.snapshot.chunk(number) else {
                continue;
            };
            let Ok(parsed) = SnapshotChunk::parse(&chunk) else {
                continue;
            };
            if parsed.range().is_some_and(|(first, _)| first >= pieces.end) {
                break;
            }
            let mut writer = PieceWriter::default();
            let mut take = |piece: usize, bytes: &[u8], is_covered: bool| {
                let place = piece
                    .checked_sub(pieces.start)
                    .and_then(|place| copied.get_mut(place));
                if let Some(copied) = place.filter(|copied| !**copied && is_covered) {
                    *copied = true;
                    writer.write(piece, bytes);
                }
            };
            match parsed {
                SnapshotChunk::Pieces(found) => {
                    let wanted = found.filter(|(piece, _)| pieces.contains(piece));
                    wanted.for_each(|(piece, bytes)| {
                        let is_covered =
                            self.index.covers(piece, bytes, digester) || active(Mutant::SnapshotUnchecked);
                        take(piece, bytes, is_covered);
                    });
                }
                SnapshotChunk::Slice(slice) if pieces.contains(&slice.piece) => {
                    let each = |piece: usize, bytes: &[u8]| {
                        take(piece, bytes, true);
                        Ok(())
                    };
                    if slices
                        .read(&self.index, SnapshotChunk::Slice(slice), digester, each)
                        .is_err()
                    {
                        slices = PieceReader::default();
                    }
                }
                _ => {}
            }
            writer.finish().iter().try_for_each(|chunk| keep(chunk))?;
        }
        let missing = pieces.zip(copied).filter(|(_, copied)| !copied);
        Ok(missing.map(|(piece, _)| piece).collect())
    }
}
