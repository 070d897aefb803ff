//! Reading a log back.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::directory::numbered;
use super::group::{BLOCK_BYTES, GroupHeader};
use super::{StorageError, Superblock, codec};
use crate::smr::types::{Lsn, SeqNo};

/// Where a log ends, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The position of the next record.
    pub next_lsn: Lsn,
    /// The number of the next group.
    pub next_number: u64,
    /// The checksum of the last group.
    pub previous: u128,
    /// The segments that hold records, with the last place each is about.
    pub segments: Vec<(u64, SeqNo)>,
    /// Where in the last of them the next group goes.
    pub offset: u64,
    /// The segment to begin with when there are none.
    pub first_segment: u64,
    /// Whether something was cut off: what was being written when the replica stopped.
    pub torn: bool,
}

/// One record as it lies in the log.
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    /// Its position.
    pub lsn: Lsn,
    /// The segment that holds it.
    pub path: &'a Path,
    /// Where in the segment its group begins.
    pub offset: u64,
    /// The number of its group.
    pub group: u64,
    /// Kind and contents; [`RecordReader`](super::RecordReader) makes a record of them.
    pub bytes: &'a [u8],
}

impl RawRecord<'_> {
    /// A word for its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        codec::kind_name(self.bytes)
    }

    /// The place it is about.
    #[must_use]
    pub fn place(&self) -> Option<SeqNo> {
        codec::place_of(self.bytes)
    }

    /// Whether it says that a checkpoint is stable.
    #[must_use]
    pub fn is_stable(&self) -> bool {
        codec::is_stable(self.bytes)
    }

    /// Whether it says that a checkpoint is stable, or that this replica signed one.
    #[must_use]
    pub fn is_about_checkpoint(&self) -> bool {
        codec::is_about_checkpoint(self.bytes)
    }

    /// Whether it says what was decided, or that places were passed over.
    #[must_use]
    pub fn is_about_execution(&self) -> bool {
        codec::is_about_execution(self.bytes)
    }
}

/// A segment's file.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its number.
    pub index: u64,
    /// Where it is.
    pub path: PathBuf,
}

/// Reads every record of the log whose segments are `files`, in order of their numbers, and finds its end.
///
/// # Errors
/// When a file is missing or cannot be read, when what was durable is damaged, or what `each` says.
pub fn scan(
    superblock: &Superblock,
    files: &[Found],
    each: impl FnMut(RawRecord<'_>) -> Result<(), StorageError>,
) -> Result<Tail, StorageError> {
    scan_with(
        superblock,
        files,
        |file, bytes| read_segment(&file.path, bytes),
        each,
    )
}

/// As [`scan`]; `read` puts the contents of a segment into a buffer, in place of what is there.
///
/// # Errors
/// As there.
pub fn scan_with(
    superblock: &Superblock,
    files: &[Found],
    mut read: impl FnMut(&Found, &mut Vec<u8>) -> Result<(), StorageError>,
    mut each: impl FnMut(RawRecord<'_>) -> Result<(), StorageError>,
) -> Result<Tail, StorageError> {
    let mut tail = Tail {
        next_lsn: Lsn::ZERO,
        next_number: 0,
        previous: 0,
        segments: Vec::new(),
        offset: 0,
        first_segment: superblock.log_start,
        torn: false,
    };
    check_end(superblock, files)?;
    let files = files.iter().filter(|file| file.index >= superblock.log_start);
    let mut end: Option<(PathBuf, u64)> = None;
    // One for all segments: to touch memory for the first time costs as much as to read it.
    let mut bytes = Vec::new();
    for (file, expected) in files.zip(superblock.log_start..) {
        if file.index != expected {
            return Err(StorageError::damaged(
                &file.path,
                0,
                format!("the segment before it, {expected}, is missing"),
            ));
        }
        read(file, &mut bytes)?;
        bytes.truncate(bytes.len() / BLOCK_BYTES * BLOCK_BYTES);
        let mut offset = 0;
        while let Some((header, checksum, records)) =
            next_group(&bytes[offset..], superblock, file.index, &tail)
        {
            if offset == 0 {
                tail.segments.push((file.index, SeqNo::ZERO));
            }
            let last_place = give(&file.path, offset, &header, records, &mut each)?;
            if let Some((_, place)) = tail.segments.last_mut() {
                *place = (*place).max(last_place);
            }
            tail.next_lsn = header.first_lsn.plus(u64::from(header.records));
            tail.next_number = header.number + 1;
            tail.previous = checksum;
            offset += GroupHeader::disk_bytes(header.bytes as usize);
            tail.offset = offset as u64;
            end = Some((file.path.clone(), tail.offset));
        }
        // The next group may be the first of the next segment, for want of room here.
        let rest = &bytes[offset.min(bytes.len())..];
        if holds_later_group(rest, superblock, file.index, &tail) {
            let (path, at) = end.unwrap_or_else(|| (file.path.clone(), offset as u64));
            return Err(StorageError::damaged(
                &path,
                at,
                "a group that had been durable is not sound",
            ));
        }
        let is_last = tail.segments.last().is_some_and(|(last, _)| *last == file.index);
        // What lies there otherwise is zeros, or of an earlier life of the segment.
        let next = tail.next_number.max(1);
        tail.torn |= is_last && GroupHeader::is_of(rest, superblock.tag(), file.index, next);
    }
    tail.next_number = tail.next_number.max(1);
    Ok(tail)
}

/// Whether the last segment that was made is there.
fn check_end(superblock: &Superblock, files: &[Found]) -> Result<(), StorageError> {
    if files.last().map_or(0, |file| file.index) >= superblock.log_end {
        return Ok(());
    }
    let log = files.last().and_then(|file| file.path.parent());
    let path = numbered(log.unwrap_or(Path::new("log")), superblock.log_end);
    Err(StorageError::damaged(&path, 0, "the segment is missing"))
}

fn next_group<'a>(
    bytes: &'a [u8],
    superblock: &Superblock,
    segment: u64,
    tail: &Tail,
) -> Option<(GroupHeader, u128, &'a [u8])> {
    let group = GroupHeader::read(bytes, superblock.seed)?;
    let is_ours = group.0.tag == superblock.tag() && group.0.segment == segment;
    (is_ours && follows(tail, &group.0)).then_some(group)
}

/// Whether a group goes on where the log has come to. The first group that is found may have any number:
/// those before it were cut off.
fn follows(tail: &Tail, header: &GroupHeader) -> bool {
    match tail.next_number {
        0 => true,
        number => {
            header.number == number && header.previous == tail.previous && header.first_lsn == tail.next_lsn
        }
    }
}

/// Whether a group of this log that comes after the last one lies in `bytes`.
fn holds_later_group(bytes: &[u8], superblock: &Superblock, segment: u64, tail: &Tail) -> bool {
    (0..bytes.len()).step_by(BLOCK_BYTES).any(|at| {
        GroupHeader::read(&bytes[at..], superblock.seed).is_some_and(|(header, ..)| {
            header.tag == superblock.tag()
                && header.segment == segment
                && header.number >= tail.next_number.max(1)
        })
    })
}

fn give(
    path: &Path,
    offset: usize,
    header: &GroupHeader,
    mut records: &[u8],
    each: &mut impl FnMut(RawRecord<'_>) -> Result<(), StorageError>,
) -> Result<SeqNo, StorageError> {
    let mut last_place = SeqNo::ZERO;
    for number in 0..u64::from(header.records) {
        let bytes = codec::split_record(&mut records)
            .map_err(|error| StorageError::damaged(path, offset as u64, error.to_string()))?;
        let record = RawRecord {
            lsn: header.first_lsn.plus(number),
            path,
            offset: offset as u64,
            group: header.number,
            bytes,
        };
        last_place = last_place.max(record.place().unwrap_or(SeqNo::ZERO));
        each(record)?;
    }
    Ok(last_place)
}

pub(super) fn read_segment(path: &Path, bytes: &mut Vec<u8>) -> Result<(), StorageError> {
    let mut file = File::open(path).map_err(StorageError::io(path, "cannot be opened"))?;
    bytes.clear();
    file.read_to_end(bytes)
        .map_err(StorageError::io(path, "cannot be read"))?;
    Ok(())
}
