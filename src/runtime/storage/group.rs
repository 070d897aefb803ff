use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::smr::mutants::{Mutant, active};
use crate::smr::types::Lsn;

/// What the disk writes at once: groups begin and end at multiples of it.
pub const BLOCK_BYTES: usize = 4096;

/// Before a group's records.
pub(super) const HEADER_BYTES: usize = 96;

/// More than the records of any group have.
const GROUP_BYTES_MAX: usize = 1 << 30;

const MAGIC: u32 = 0x474c_5441;

/// What a group's header says besides its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupHeader {
    /// Whose log this is: made from cluster and node.
    pub tag: u64,
    /// The segment it was written to.
    pub segment: u64,
    /// Its number; the first of a log is 1.
    pub number: u64,
    /// The position of its first record.
    pub first_lsn: Lsn,
    /// How many records it holds.
    pub records: u32,
    /// How many bytes they have.
    pub bytes: u32,
    /// The checksum of the group before.
    pub previous: u128,
}

/// Where a header's fields lie; the checksum comes first, so that it covers one stretch of bytes.
const CHECKSUM: usize = 0;
const COVERED: usize = 16;

impl GroupHeader {
    /// How many bytes a group with this many bytes of records takes on disk.
    pub(super) fn disk_bytes(bytes: usize) -> usize {
        (HEADER_BYTES + bytes).next_multiple_of(BLOCK_BYTES)
    }

    /// How many bytes a group takes on disk that begins with this block, if one does; nothing is checked yet.
    pub(super) fn disk_bytes_of(block: &[u8]) -> Option<usize> {
        let word = |at: usize| Some(u32::from_le_bytes(block.get(at..at + 4)?.try_into().ok()?));
        let bytes = (word(16)? == MAGIC).then_some(word(60)? as usize)?;
        (bytes <= GROUP_BYTES_MAX).then(|| Self::disk_bytes(bytes))
    }

    /// Whether this block begins a group of this log and segment with at least this number, sound or not.
    pub(super) fn is_of(block: &[u8], tag: u64, segment: u64, number: u64) -> bool {
        let long = |at: usize| Some(u64::from_le_bytes(block.get(at..at + 8)?.try_into().ok()?));
        Self::disk_bytes_of(block).is_some()
            && long(24) == Some(tag)
            && long(32) == Some(segment)
            && long(40).is_some_and(|found| found >= number)
    }

    /// Writes the header before the records that lie in `group` already. The checksum.
    pub(super) fn seal(&self, group: &mut [u8], seed: u64) -> u128 {
        let end = HEADER_BYTES + self.bytes as usize;
        group[end..].fill(0);
        group[16..20].copy_from_slice(&MAGIC.to_le_bytes());
        group[20..24].copy_from_slice(&u32::from(super::FORMAT_VERSION).to_le_bytes());
        group[24..32].copy_from_slice(&self.tag.to_le_bytes());
        group[32..40].copy_from_slice(&self.segment.to_le_bytes());
        group[40..48].copy_from_slice(&self.number.to_le_bytes());
        group[48..56].copy_from_slice(&self.first_lsn.get().to_le_bytes());
        group[56..60].copy_from_slice(&self.records.to_le_bytes());
        group[60..64].copy_from_slice(&self.bytes.to_le_bytes());
        group[64..80].copy_from_slice(&self.previous.to_le_bytes());
        group[80..HEADER_BYTES].fill(0);
        let checksum = xxh3_128_with_seed(&group[COVERED..end], seed);
        group[CHECKSUM..COVERED].copy_from_slice(&checksum.to_le_bytes());
        checksum
    }

    /// The sound group that `bytes` begins with: header, checksum and records. `None` if there is none.
    pub(super) fn read(bytes: &[u8], seed: u64) -> Option<(Self, u128, &[u8])> {
        let header = bytes.get(..HEADER_BYTES)?;
        let word = |at: usize| Some(u32::from_le_bytes(header[at..at + 4].try_into().ok()?));
        let long = |at: usize| Some(u64::from_le_bytes(header[at..at + 8].try_into().ok()?));
        let sum = |at: usize| Some(u128::from_le_bytes(header[at..at + 16].try_into().ok()?));
        if word(16)? != MAGIC || word(20)? != u32::from(super::FORMAT_VERSION) {
            return None;
        }
        let this = Self {
            tag: long(24)?,
            segment: long(32)?,
            number: long(40)?,
            first_lsn: Lsn::new(long(48)?),
            records: word(56)?,
            bytes: word(60)?,
            previous: sum(64)?,
        };
        let end = HEADER_BYTES.checked_add(this.bytes as usize)?;
        let covered = bytes.get(COVERED..end)?;
        let checksum = sum(CHECKSUM)?;
        let is_sound = xxh3_128_with_seed(covered, seed) == checksum || active(Mutant::TornTailAccepted);
        is_sound.then(|| (this, checksum, &bytes[HEADER_BYTES..end]))
    }
}
