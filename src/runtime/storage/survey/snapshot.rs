use std::path::PathBuf;

use super::Survey;
use crate::runtime::storage::StorageError;
use crate::runtime::storage::recovery::Found;
use crate::runtime::storage::snapshot::SnapshotFile;
use crate::smr::crypto::Digester;
use crate::smr::messages::{
    CheckpointClaim, PieceReader, SnapshotChunk, SnapshotError, SnapshotHead, SnapshotIndex,
};
use crate::smr::types::SeqNo;

/// A snapshot of a checkpoint, as far as it can be read.
#[derive(Debug)]
pub struct SurveyedSnapshot {
    /// The checkpoint, as the file's name says.
    pub seq: SeqNo,
    /// The file.
    pub path: PathBuf,
    /// Its size, in bytes.
    pub bytes: u64,
    /// What it begins with.
    pub head: Option<SnapshotHead>,
    /// What the contents amount to, if all of them are what the head covers.
    pub claim: Option<CheckpointClaim>,
    /// What is damaged.
    pub damage: Option<StorageError>,
}

/// How far a snapshot was read.
#[derive(Default)]
struct Reading {
    head: Option<SnapshotHead>,
    index: Option<SnapshotIndex>,
    pieces: PieceReader,
    found: Vec<bool>,
}

impl Survey {
    /// Verifies a whole snapshot: every chunk's checksum, and head, index and every piece against one
    /// another.
    #[must_use]
    pub fn snapshot(&self, found: &Found) -> SurveyedSnapshot {
        self.look(|_| {
            let seen = self.snapshot_now(found);
            let is_damaged = seen.damage.is_some();
            (seen, is_damaged)
        })
    }

    fn snapshot_now(&self, found: &Found) -> SurveyedSnapshot {
        let seq = SeqNo::new(found.index);
        let mut seen = SurveyedSnapshot {
            seq,
            path: found.path.clone(),
            bytes: found.path.metadata().map_or(0, |metadata| metadata.len()),
            head: None,
            claim: None,
            damage: None,
        };
        let mut reading = Reading::default();
        let read = self.read_snapshot(found, &mut reading, |_, _| {});
        seen.head = reading.head;
        let claim = seen.head.map(|head| head.claim(&self.digester));
        match read {
            Err(error) => seen.damage = Some(error),
            Ok(_) if claim.is_some_and(|claim| claim.seq == seq) => seen.claim = claim,
            Ok(_) => {
                let what = "its head is that of another checkpoint than its name says";
                seen.damage = Some(StorageError::damaged(&found.path, 0, what));
            }
        }
        seen
    }

    /// Hands every piece of a snapshot to `each`, in the order in which they lie, after it was checked. The
    /// index.
    ///
    /// # Errors
    /// When the snapshot cannot be read, or is damaged.
    pub fn pieces(
        &self,
        found: &Found,
        each: impl FnMut(usize, &[u8]),
    ) -> Result<SnapshotIndex, StorageError> {
        self.read_snapshot(found, &mut Reading::default(), each)
    }

    fn read_snapshot(
        &self,
        found: &Found,
        reading: &mut Reading,
        mut each: impl FnMut(usize, &[u8]),
    ) -> Result<SnapshotIndex, StorageError> {
        // As a restart reads it: a transfer that was interrupted may have written head and index again.
        let file = SnapshotFile::open(&found.path, self.superblock.seed)?;
        for number in 0..file.chunks() {
            let damaged = |error: SnapshotError| {
                StorageError::damaged(&found.path, file.offset(number), error.to_string())
            };
            let chunk = file.chunk(number)?;
            reading.take(&chunk, &self.digester, &mut each).map_err(damaged)?;
        }
        let end = found.path.metadata().map_or(0, |metadata| metadata.len());
        let incomplete = || StorageError::damaged(&found.path, end, "pieces of the checkpoint are missing");
        match reading.found.contains(&false) {
            true => Err(incomplete()),
            false => reading.index.take().ok_or_else(incomplete),
        }
    }
}

impl Reading {
    fn take(
        &mut self,
        chunk: &[u8],
        digester: &Digester,
        each: &mut impl FnMut(usize, &[u8]),
    ) -> Result<(), SnapshotError> {
        let chunk = SnapshotChunk::parse(chunk)?;
        let Some(head) = self.head else {
            let SnapshotChunk::Head(head) = chunk else {
                return Err(SnapshotError::Kind);
            };
            self.head = Some(head);
            return Ok(());
        };
        let Some(index) = &self.index else {
            let SnapshotChunk::Index(contents) = chunk else {
                return Err(SnapshotError::Kind);
            };
            self.index = Some(SnapshotIndex::read(head, contents, digester)?);
            self.found = vec![false; head.pieces()];
            return Ok(());
        };
        self.pieces.read(index, chunk, digester, |piece, bytes| {
            self.found[piece] = true;
            each(piece, bytes);
            Ok(())
        })
    }
}
