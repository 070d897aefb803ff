//! What a simulated disk holds when the power goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::runtime::storage::received::Received;
use crate::runtime::storage::restart::StorageBackend;
use crate::runtime::storage::snapshot::{SnapshotFile, claim_of};
use crate::runtime::storage::{BLOCK_BYTES, Found, StorageError, Superblock};
use crate::sim::SimRng;
use crate::smr::crypto::Digester;
use crate::smr::membership::EpochHistory;
use crate::smr::messages::CheckpointClaim;
use crate::smr::types::{ClusterId, Epoch, NodeId, SeqNo, View};

/// What a flipped bit has hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Rot {
    /// Nothing that anybody reads.
    Nothing,
    /// A block of the log that a later one follows.
    Log,
    /// The last block of the log. Nobody can tell it from one that was being written.
    LogEnd,
    /// A snapshot of a checkpoint.
    Snapshot,
    /// One of the two copies of the superblock.
    Superblock,
}

impl Rot {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "bit rot of nothing",
            Self::Log => "bit rot of the log",
            Self::LogEnd => "bit rot of the log's last group",
            Self::Snapshot => "bit rot of a snapshot",
            Self::Superblock => "bit rot of the superblock",
        }
    }
}

/// The files of a data directory.
#[derive(Debug, Clone)]
pub(in crate::sim) struct DiskState {
    path: PathBuf,
    /// `None` when the directory is empty.
    pub superblock_file: Option<Vec<u8>>,
    /// As the running process knows it.
    pub superblock: Superblock,
    /// Contents as far as they were ever written; zeros follow.
    pub segments: BTreeMap<u64, Vec<u8>>,
    pub snapshots: BTreeMap<SeqNo, Bytes>,
    /// A snapshot that comes from others.
    pub partial: Option<Received<Vec<u8>>>,
    /// Promises may be forgotten; the last view that may have been asked for, if it is known.
    pub mark: Option<Option<View>>,
    /// The epochs that have ended, as [`EpochHistory::encode`] writes them; empty while none has.
    pub history: Vec<u8>,
    /// Where the last group of the log was written.
    pub log_end: (u64, usize),
    pub unreadable: Unreadable,
}

/// Decisions that are not given back when the log is read beside the writing.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Unreadable {
    percent: u64,
    seed: u64,
}

impl Unreadable {
    /// So many of a hundred.
    pub const fn of(percent: u64, seed: u64) -> Self {
        Self { percent, seed }
    }

    pub fn hides(self, seq: SeqNo) -> bool {
        SimRng::new(self.seed ^ seq.get()).chance(self.percent)
    }
}

impl DiskState {
    /// A directory that was made and never used.
    pub fn format(name: &str, cluster: ClusterId, node: NodeId, seed: u64) -> Self {
        let superblock = Superblock::first(cluster, node, Epoch::ZERO, seed);
        Self {
            path: name.into(),
            superblock_file: Some(superblock.first_file()),
            superblock,
            segments: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            partial: None,
            mark: None,
            history: Vec::new(),
            log_end: (0, 0),
            unreadable: Unreadable::of(0, 0),
        }
    }

    /// Opens the directory as a process that starts does.
    ///
    /// # Errors
    /// When it is not this replica's.
    pub fn open(&mut self, cluster: ClusterId, node: NodeId) -> Result<(), StorageError> {
        let name = self.path.join("superblock");
        self.superblock = Superblock::open(&name, self.superblock_file.as_deref(), cluster, node)?;
        if self.superblock_file.is_none() {
            self.superblock_file = Some(self.superblock.first_file());
        }
        self.update(|superblock| superblock.starts += 1);
        Ok(())
    }

    /// Changes the superblock, in its older copy.
    pub fn update(&mut self, change: impl FnOnce(&mut Superblock)) {
        change(&mut self.superblock);
        self.superblock.generation += 1;
        let at = self.superblock.offset() as usize;
        if let Some(file) = &mut self.superblock_file {
            file[at..at + BLOCK_BYTES].copy_from_slice(&self.superblock.to_block());
        }
    }

    /// Writes to a segment.
    pub fn write(&mut self, segment: u64, offset: usize, bytes: &[u8]) {
        let contents = self.segments.entry(segment).or_default();
        let end = offset + bytes.len();
        if contents.len() < end {
            contents.resize(end, 0);
        }
        contents[offset..end].copy_from_slice(bytes);
    }

    /// Everything is gone.
    pub fn wipe(&mut self) {
        self.superblock_file = None;
        self.segments.clear();
        self.snapshots.clear();
        self.partial = None;
        self.mark = None;
        self.history.clear();
    }

    /// The epoch has ended: another one begins, with a log of its own.
    pub fn begin_epoch(&mut self, history: &EpochHistory) {
        self.history = history.encode();
        self.partial = None;
        self.log_end = (0, 0);
        let epoch = history.membership().head().epoch();
        let last = self.segments.keys().last().copied().unwrap_or(0);
        self.update(|superblock| superblock.begin_epoch(epoch, last));
    }

    /// An operator makes a new, marked directory in the place of a lost one.
    pub fn replace(&mut self, cluster: ClusterId, node: NodeId, seed: u64) {
        self.superblock = Superblock::first(cluster, node, Epoch::ZERO, seed);
        self.superblock_file = Some(self.superblock.first_file());
        self.mark = Some(None);
        self.log_end = (0, 0);
    }

    /// Flips one bit.
    pub fn rot(&mut self, rng: &mut SimRng) -> Rot {
        let flip = |bytes: &mut [u8], rng: &mut SimRng| {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
            at
        };
        match rng.below(10) {
            0 => match &mut self.superblock_file {
                Some(file) => {
                    flip(file, rng);
                    Rot::Superblock
                }
                None => Rot::Nothing,
            },
            1..4 if !self.snapshots.is_empty() => {
                // Mostly the newest, with which a restart begins.
                let at = rng.below(self.snapshots.len() as u64) as usize;
                let at = if rng.chance(70) {
                    self.snapshots.len() - 1
                } else {
                    at
                };
                let Some((_, snapshot)) = self.snapshots.iter_mut().nth(at) else {
                    return Rot::Nothing;
                };
                let mut bytes = snapshot.to_vec();
                flip(&mut bytes, rng);
                *snapshot = bytes.into();
                Rot::Snapshot
            }
            _ => {
                let first = self.superblock.log_start;
                let (last, end) = self.log_end;
                let count = self.segments.range(first..=last.max(first)).count() as u64;
                let Some((index, contents)) = self
                    .segments
                    .range_mut(first..=last.max(first))
                    .nth(rng.below(count) as usize)
                else {
                    return Rot::Nothing;
                };
                if contents.is_empty() {
                    return Rot::Nothing;
                }
                let at = flip(contents, rng);
                match *index == last && at >= end {
                    true => Rot::LogEnd,
                    false => Rot::Log,
                }
            }
        }
    }

    /// Flips one bit of the log, before its last group.
    pub fn rot_log(&mut self, rng: &mut SimRng) -> Rot {
        let (first, (last, end)) = (self.superblock.log_start, self.log_end);
        let count = self.segments.range(first..=last.max(first)).count() as u64;
        let place = rng.below(count) as usize;
        let Some((index, contents)) = self.segments.range_mut(first..=last.max(first)).nth(place) else {
            return Rot::Nothing;
        };
        let until = match *index == last {
            true => end.min(contents.len()),
            false => contents.len(),
        };
        if until == 0 {
            return Rot::Nothing;
        }
        let at = rng.below(until as u64) as usize;
        contents[at] ^= 1 << rng.below(8);
        Rot::Log
    }

    pub fn snapshot_path(&self, seq: SeqNo) -> PathBuf {
        self.path.join(format!("images/{:016}", seq.get()))
    }
}

impl StorageBackend for DiskState {
    type Snapshot = Bytes;

    fn path(&self) -> &Path {
        &self.path
    }

    fn superblock(&self) -> Superblock {
        self.superblock
    }

    fn segments(&self) -> Result<Vec<Found>, StorageError> {
        let found = self.segments.keys().map(|index| Found {
            index: *index,
            path: self.path.join(format!("log/{index:016}")),
        });
        Ok(found.collect())
    }

    fn read_segment(&self, segment: &Found, bytes: &mut Vec<u8>) -> Result<(), StorageError> {
        bytes.clear();
        bytes.extend_from_slice(self.segments.get(&segment.index).map_or(&[], Vec::as_slice));
        Ok(())
    }

    fn snapshots(&self) -> Result<Vec<SeqNo>, StorageError> {
        Ok(self.snapshots.keys().copied().collect())
    }

    fn open_snapshot(&self, seq: SeqNo) -> Result<SnapshotFile<Bytes>, StorageError> {
        let path = self.snapshot_path(seq);
        let bytes = self.snapshots.get(&seq).cloned().unwrap_or_default();
        SnapshotFile::of(&path, bytes, self.superblock.seed)
    }

    fn snapshot_claim(&self, seq: SeqNo, digester: &Digester) -> Result<CheckpointClaim, StorageError> {
        let bytes = self.snapshots.get(&seq).cloned().unwrap_or_default();
        claim_of(&self.snapshot_path(seq), &bytes, self.superblock.seed, digester)
    }

    fn forget_snapshots_after(&mut self, seq: SeqNo) -> Result<(), StorageError> {
        self.snapshots.retain(|kept, _| *kept <= seq);
        Ok(())
    }

    fn set_snapshot_aside(&mut self, seq: SeqNo) -> Result<(), StorageError> {
        self.snapshots.remove(&seq);
        Ok(())
    }

    fn abstention(&self) -> Option<Option<View>> {
        self.mark
    }

    fn set_log_aside(&mut self, _: &StorageError, view: Option<View>) -> Result<(), StorageError> {
        self.mark = Some(view);
        self.segments.clear();
        self.log_end = (0, 0);
        self.update(|superblock| superblock.view = View::ZERO);
        Ok(())
    }
}
