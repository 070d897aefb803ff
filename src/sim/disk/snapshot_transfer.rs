//! The snapshot transfer's tasks, done at once.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::SimDisk;
use crate::runtime::storage::StorageError;
use crate::runtime::storage::basis::LocalSnapshotDelta;
use crate::runtime::storage::logged::LogReader;
use crate::runtime::storage::received::{Gathered, Received};
use crate::runtime::storage::restart::StorageBackend;
use crate::runtime::storage::snapshot::SnapshotFile;
use crate::smr::crypto::Digester;
use crate::smr::decision_log::{LoggedDecisions, LoggedRange};
use crate::smr::messages::{PieceRange, Proposal, SnapshotIndex};
use crate::smr::node::{SnapshotTransferPort, StorageTask, serve_snapshot_task};
use crate::smr::protocol::{SnapshotEvent, SnapshotTask};
use crate::smr::types::{SeqNo, Time};

/// In so many of a hundred own snapshots that are to be copied from a bit is wrong.
const ROTTEN_PERCENT: u64 = 10;

impl SimDisk {
    /// Does anything but installing; what came of it.
    pub fn serve_snapshot_task(&mut self, now: Time, task: &SnapshotTask) -> Vec<SnapshotEvent> {
        let mut events = Vec::new();
        serve_snapshot_task(task, self, |event| events.push(event)).expect("memory takes everything");
        self.keep_going(now);
        events
    }

    /// Reads decisions back from the log: those that were synced are on the disk_state.
    pub(super) fn read_log(&self, range: LoggedRange, segments: &[u64]) -> LoggedDecisions {
        let superblock = &self.disk_state.superblock;
        let contents = |index| self.disk_state.segments.get(&index).cloned().map(Bytes::from);
        let mut reader = LogReader::new(self.reader.clone(), superblock.tag(), superblock.seed);
        let mut read = reader.read(range, segments, contents);
        let is_lost = |decision: &Arc<Proposal>| self.disk_state.unreadable.hides(decision.seq);
        if let Some(first) = read.decisions.iter().position(is_lost) {
            read.decisions.truncate(first);
        }
        read
    }

    /// The newest own snapshot, whatever its contents. It may have rotted since it was written.
    fn find_basis(&mut self, index: Arc<SnapshotIndex>) -> Option<LocalSnapshotDelta<Bytes>> {
        let (newest, bytes) = self.disk_state.snapshots.iter().next_back()?;
        let (path, mut bytes) = (self.disk_state.snapshot_path(*newest), bytes.to_vec());
        if self.rng.chance(ROTTEN_PERCENT) {
            self.hit("own snapshot rots before it is copied");
            let at = self.rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.rng.below(8);
        }
        let snapshot = SnapshotFile::of(&path, Bytes::from(bytes), self.disk_state.superblock.seed);
        LocalSnapshotDelta::of(snapshot.ok()?, index).ok()?
    }

    /// The chunks of a snapshot, in the order of its pieces.
    pub fn snapshot_chunks(&self, seq: SeqNo) -> Vec<Bytes> {
        let Ok(snapshot) = self.disk_state.open_snapshot(seq) else {
            return Vec::new();
        };
        let chunks = (0..snapshot.chunks()).map_while(|number| snapshot.chunk(number).ok());
        chunks.map(Bytes::from).collect()
    }
}

impl SnapshotTransferPort for SimDisk {
    type Error = StorageError;

    fn receive(&mut self, seq: SeqNo, found: impl FnMut(&[u8])) -> Result<(), StorageError> {
        let disk_state = &mut self.disk_state;
        let kept = disk_state.partial.take().filter(|kept| kept.seq == seq);
        let bytes = kept.map(|kept| kept.file).unwrap_or_default();
        let (path, seed) = (disk_state.snapshot_path(seq), disk_state.superblock.seed);
        disk_state.partial = Some(Received::open((seq, &path), bytes, seed, found)?);
        Ok(())
    }

    fn compare(&mut self, index: &Arc<SnapshotIndex>) -> Option<Vec<Range<usize>>> {
        self.basis = self.find_basis(index.clone());
        self.basis.as_ref().map(|basis| basis.pieces().to_vec())
    }

    fn add(&mut self, chunk: &[u8]) -> Result<(), StorageError> {
        let partial = self.disk_state.partial.as_mut();
        partial.map_or(Ok(()), |partial| partial.add(chunk))
    }

    fn copy(&mut self, pieces: &Range<usize>) -> Result<Option<Vec<usize>>, StorageError> {
        let digester = Digester::new(self.disk_state.superblock.cluster);
        let (Some(basis), Some(partial)) = (&self.basis, &mut self.disk_state.partial) else {
            return Ok(None);
        };
        let missing = basis.copy(pieces.clone(), &digester, |chunk| partial.add(chunk))?;
        Ok(Some(missing))
    }

    fn close(&mut self, seq: SeqNo) -> Result<bool, StorageError> {
        self.basis = None;
        let came = self.disk_state.partial.as_mut().filter(|came| came.seq == seq);
        came.map_or(Ok(false), |came| came.close().map(|()| true))
    }

    fn read(&mut self, range: PieceRange, bytes_max: usize) -> Vec<Bytes> {
        let snapshot = self.disk_state.open_snapshot(SeqNo::new(range.seq));
        let read = snapshot.and_then(|snapshot| snapshot.read_range(range, bytes_max));
        read.unwrap_or_default()
    }

    fn storage(&mut self, task: StorageTask) {
        self.tasks.push_back(task);
    }
}

impl Gathered for Vec<u8> {
    fn reader(&self) -> impl Read {
        self.as_slice()
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.truncate(offset as usize);
        self.extend_from_slice(bytes);
        Ok(())
    }

    fn cut_to(&mut self, length: u64) -> io::Result<()> {
        self.truncate(length as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
