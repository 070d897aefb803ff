use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{BLOCK_BYTES, FORMAT_VERSION, StorageError};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{ApplicationId, ClusterId, Epoch, NodeId, SeqNo, View};

const MAGIC: &[u8; 8] = b"ATLAS\0SB";
/// Where in a block the application is: behind the eight numbers.
const APPLICATION_AT: usize = 40 + 8 * 8;

/// Who a data directory belongs to, and where its log starts. Two copies, each in a block of its own: one is
/// always whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// The cluster.
    pub cluster: ClusterId,
    /// The application whose operations and state are in it; none before its first start.
    pub application: ApplicationId,
    /// The replica.
    pub node: NodeId,
    /// The membership under which it was written last.
    pub epoch: Epoch,
    /// How often the superblock was written; the copy with the higher number counts.
    pub generation: u64,
    /// How often a process has started with this directory.
    pub starts: u64,
    /// The view that the log was in when it was cut last. It says of this one or a later one, or something is
    /// lost.
    pub view: View,
    /// The first segment of the log.
    pub log_start: u64,
    /// The last segment that was made; zero before the first. It and those back to `log_start` are missed
    /// when they are gone.
    pub log_end: u64,
    /// The last checkpoint whose snapshot is kept; zero for none.
    pub snapshot: SeqNo,
    /// Keys the checksums of the log.
    pub seed: u64,
}

impl Superblock {
    /// The number of a log's first segment.
    pub const FIRST_SEGMENT: u64 = 1;

    /// The superblock of a directory that was never used.
    #[must_use]
    pub fn first(cluster: ClusterId, node: NodeId, epoch: Epoch, seed: u64) -> Self {
        Self {
            cluster,
            application: ApplicationId::NONE,
            node,
            epoch,
            generation: 0,
            starts: 0,
            view: View::ZERO,
            log_start: Self::FIRST_SEGMENT,
            log_end: 0,
            snapshot: SeqNo::ZERO,
            seed,
        }
    }

    /// What the superblock's file at `path` holds as long as the directory was never used.
    #[must_use]
    pub fn first_file(&self) -> Vec<u8> {
        let mut file = self.to_block().to_vec();
        file.resize(2 * BLOCK_BYTES, 0);
        file
    }

    /// The newest sound copy in the file at `path`, whose contents are `bytes`.
    ///
    /// # Errors
    /// When there is none, or it is another version's.
    pub fn newest(path: &Path, bytes: &[u8]) -> Result<Self, StorageError> {
        let copies = bytes.chunks(BLOCK_BYTES).filter_map(Self::from_block);
        let newest = copies.max_by_key(|copy| copy.ok().map(|copy| copy.generation));
        match newest {
            Some(Ok(superblock)) => Ok(superblock),
            Some(Err(version)) => Err(StorageError::Foreign {
                path: path.parent().unwrap_or(path).to_owned(),
                what: "format version",
                found: version.to_string(),
                expected: FORMAT_VERSION.to_string(),
            }),
            None => Err(StorageError::damaged(
                path,
                0,
                "neither copy of the superblock is sound",
            )),
        }
    }

    /// The superblock in the file at `path`, for a replica that starts with it. `bytes` is what the file
    /// holds, if it is there.
    ///
    /// # Errors
    /// When it is not there, damaged, somebody else's or another version's.
    pub fn open(
        path: &Path,
        bytes: Option<&[u8]>,
        cluster: ClusterId,
        node: NodeId,
    ) -> Result<Self, StorageError> {
        let directory = path.parent().unwrap_or(path);
        let Some(bytes) = bytes else {
            if active(Mutant::WipedDiskVotes) {
                return Ok(Self::first(cluster, node, Epoch::ZERO, 0));
            }
            return Err(StorageError::NotFormatted {
                path: directory.to_owned(),
                node,
            });
        };
        let mut superblock = Self::newest(path, bytes)?;
        if superblock.starts == 0 {
            // Never used: the cluster's file may have been edited since the directory was made.
            superblock.cluster = cluster;
        }
        let foreign = |what, found: String, expected: String| StorageError::Foreign {
            path: directory.to_owned(),
            what,
            found,
            expected,
        };
        if superblock.cluster != cluster {
            let found = superblock.cluster.to_string();
            return Err(foreign("cluster", found, cluster.to_string()));
        }
        if superblock.node != node {
            let found = superblock.node.to_string();
            return Err(foreign("node", found, node.to_string()));
        }
        Ok(superblock)
    }

    /// Whether a replica that serves `application` may use the directory at `path`: it does, or the directory
    /// was never used.
    ///
    /// # Errors
    /// When it is another's.
    pub fn check_application(&self, path: &Path, application: ApplicationId) -> Result<(), StorageError> {
        let is_own =
            self.starts == 0 || self.application == ApplicationId::NONE || self.application == application;
        if is_own {
            return Ok(());
        }
        Err(StorageError::Foreign {
            path: path.to_owned(),
            what: "application",
            found: self.application.to_string(),
            expected: application.to_string(),
        })
    }

    /// The copy's place in the file: they are written in turn.
    pub(crate) fn offset(&self) -> u64 {
        (self.generation % 2) * BLOCK_BYTES as u64
    }

    pub(crate) fn to_block(self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[8..16].copy_from_slice(MAGIC);
        block[16..18].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        block[18..20].copy_from_slice(&self.node.get().to_le_bytes());
        block[24..40].copy_from_slice(self.cluster.as_bytes());
        let numbers = [
            self.epoch.get(),
            self.generation,
            self.starts,
            self.log_start,
            self.snapshot.get(),
            self.seed,
            self.log_end,
            self.view.get(),
        ];
        for (place, number) in numbers.into_iter().enumerate() {
            block[40 + 8 * place..48 + 8 * place].copy_from_slice(&number.to_le_bytes());
        }
        block[APPLICATION_AT..][..ApplicationId::BYTES].copy_from_slice(&self.application.to_bytes());
        let checksum = xxh3_64_with_seed(&block[8..], 0);
        block[..8].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// The copy in a block; the format version if it is another than ours. One after which no number is left
    /// was never written: the next one could not replace it.
    pub(super) fn from_block(block: &[u8]) -> Option<Result<Self, u16>> {
        let block: &[u8; BLOCK_BYTES] = block.try_into().ok()?;
        let (checksum, rest) = block.split_first_chunk::<8>()?;
        if !rest.starts_with(MAGIC) || u64::from_le_bytes(*checksum) != xxh3_64_with_seed(rest, 0) {
            return None;
        }
        let half = |at: usize| Some(u16::from_le_bytes(block[at..at + 2].try_into().ok()?));
        let version = half(16)?;
        if version != FORMAT_VERSION {
            return Some(Err(version));
        }
        let number = |place: usize| {
            let at = 40 + 8 * place;
            Some(u64::from_le_bytes(block[at..at + 8].try_into().ok()?))
        };
        let counted = |place: usize| number(place).filter(|count| *count < u64::MAX);
        Some(Ok(Self {
            node: NodeId::new(half(18)?),
            cluster: ClusterId::from_bytes(block[24..40].try_into().ok()?),
            application: ApplicationId::from_bytes(block[APPLICATION_AT..].first_chunk()?),
            epoch: Epoch::new(number(0)?),
            generation: counted(1)?,
            starts: counted(2)?,
            log_start: number(3)?,
            snapshot: SeqNo::new(number(4)?),
            seed: number(5)?,
            log_end: number(6)?,
            view: View::new(number(7)?),
        }))
    }

    /// The log was cut: it starts at this segment, in this view.
    pub(crate) fn cut(&mut self, log_start: u64, view: View) {
        (self.log_start, self.view) = (log_start, self.view.max(view));
    }

    /// Another epoch begins, with a log of its own behind the last segment there is: nothing of the one before is
    /// needed any more.
    pub(crate) fn begin_epoch(&mut self, epoch: Epoch, last_segment: u64) {
        self.epoch = epoch;
        self.view = View::ZERO;
        self.log_start = self.log_end.max(self.log_start).max(last_segment) + 1;
    }

    /// What marks the groups of this log.
    pub(crate) fn tag(&self) -> u64 {
        self.cluster.tag() ^ (u64::from(self.node.get()) << 48)
    }
}
