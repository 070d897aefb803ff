//! The log's state machine: records in, writes and syncs out.

use std::collections::VecDeque;

use super::buffer::AlignedBuffer;
use super::group::{GroupHeader, HEADER_BYTES};
use super::persistent_log::LogWrite;
use super::{StorageError, codec, files};
use crate::smr::mutants::{Mutant, active};
use crate::smr::node::Released;
use crate::smr::protocol::{LogCut, Record};
use crate::smr::types::{Lsn, SeqNo};

/// How many bytes are gathered in one group at most, unless one record is longer.
const GATHERED_BYTES: usize = 1 << 20;

/// In how many segments a batch is looked for.
const SEARCHED_SEGMENTS: usize = 8;

/// How many groups may be gathered, under way, or wait.
const BUFFERS: u16 = 4;

/// What a writer starts with: who it writes for, and where the log ends.
#[derive(Debug, Clone, Copy)]
pub struct WriterSettings {
    /// Marks the groups of this log; see [`Superblock`](super::Superblock).
    pub tag: u64,
    /// Keys the checksums.
    pub seed: u64,
    /// The size of a segment; a multiple of [`BLOCK_BYTES`](super::BLOCK_BYTES).
    pub segment_bytes: u64,
    /// How many segments there may be at once.
    pub segments_max: usize,
    /// The longest record, in bytes.
    pub record_bytes_max: usize,
}

/// What is to be done on disk. One operation is under way at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOperation {
    /// Write [`LogWriter::bytes`] to a segment.
    Write {
        /// The segment.
        segment: u64,
        /// Where in it.
        offset: u64,
    },
    /// Have everything written to a segment reach the disk.
    Sync {
        /// The segment.
        segment: u64,
    },
}

/// How an operation ended: a count of bytes for a write, or an errno.
pub type Outcome = Result<usize, i32>;

/// A segment that holds records.
#[derive(Debug, Clone, Copy)]
struct Segment {
    index: u64,
    /// The last place its records are about.
    last_place: SeqNo,
    /// The position after its last record.
    end: Lsn,
}

#[derive(Debug)]
struct Group {
    buffer: AlignedBuffer,
    bytes: usize,
    records: u32,
    first_lsn: Lsn,
    last_place: SeqNo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// To be written from this byte of the group on.
    Write(usize),
    Writing(usize),
    Sync,
    Syncing,
}

#[derive(Debug)]
struct InFlightGroup {
    group: Group,
    segment: u64,
    offset: u64,
    step: Step,
}

/// Gathers records into groups and has them written, one group at a time.
///
/// Invariants: `durable` only grows; a record counts as durable only after its group, and every group before
/// it, was written whole and synced; a sealed group is never changed.
#[derive(Debug)]
pub struct LogWriter {
    settings: WriterSettings,
    next_lsn: Lsn,
    durable: Lsn,
    number: u64,
    previous: u128,
    open: Group,
    sealed: VecDeque<Group>,
    flight: Option<InFlightGroup>,
    spare: Vec<AlignedBuffer>,
    /// Those that hold records, the oldest first; the last is written to.
    segments: VecDeque<Segment>,
    /// Where in the last of them the next group goes.
    offset: u64,
    /// Filled with zeros, to be used next.
    ready: VecDeque<u64>,
    /// The segment to begin with.
    first_segment: u64,
    is_full: bool,
    /// The disk had no space for the last write.
    is_short_of_space: bool,
}

impl LogWriter {
    /// A writer for an empty log whose first segment will be `first_segment`.
    ///
    /// # Panics
    /// When a segment cannot hold the longest record.
    #[must_use]
    pub fn new(settings: WriterSettings, first_segment: u64) -> Self {
        let longest = HEADER_BYTES + settings.record_bytes_max;
        let capacity = longest.max(GATHERED_BYTES.min(settings.segment_bytes as usize / 2));
        assert!(
            longest.next_multiple_of(super::BLOCK_BYTES) as u64 <= settings.segment_bytes,
            "a segment holds the longest record"
        );
        let mut spare: Vec<AlignedBuffer> = (0..BUFFERS)
            .map(|number| AlignedBuffer::new(number, capacity))
            .collect();
        let open = spare.pop().map(|buffer| Group::new(buffer, Lsn::ZERO));
        Self {
            settings,
            next_lsn: Lsn::ZERO,
            durable: Lsn::ZERO,
            number: 1,
            previous: 0,
            open: open.expect("there is more than one buffer"),
            sealed: VecDeque::new(),
            flight: None,
            spare,
            segments: VecDeque::new(),
            // The first group takes a new segment.
            offset: settings.segment_bytes,
            ready: VecDeque::new(),
            first_segment,
            is_full: false,
            is_short_of_space: false,
        }
    }

    /// A writer that goes on after what a [scan](super::scan) found.
    #[must_use]
    pub fn resume(settings: WriterSettings, tail: &super::Tail) -> Self {
        let mut this = Self::new(settings, tail.first_segment);
        this.next_lsn = tail.next_lsn;
        this.durable = tail.next_lsn;
        this.open.first_lsn = tail.next_lsn;
        this.number = tail.next_number - u64::from(active(Mutant::GroupNumberReused) && tail.next_number > 1);
        this.previous = tail.previous;
        this.segments = tail
            .segments
            .iter()
            .map(|(index, last_place)| Segment {
                index: *index,
                last_place: *last_place,
                end: tail.next_lsn,
            })
            .collect();
        this.offset = tail.offset;
        if this.segments.is_empty() {
            this.offset = settings.segment_bytes;
        }
        this
    }

    /// Whether a record of this length can be taken now. If not, the log is behind: nothing is voted until it
    /// caught up.
    #[must_use]
    pub fn has_room(&self, record: &Record) -> bool {
        self.fits(codec::encoded_bytes(record)) || !self.spare.is_empty()
    }

    fn fits(&self, bytes: usize) -> bool {
        self.open.records == 0 || HEADER_BYTES + self.open.bytes + bytes <= self.open.buffer.len()
    }

    /// Takes a record. Only when there [is room](Self::has_room).
    ///
    /// # Panics
    /// When there is no room, or the record is longer than the settings say.
    pub fn append(&mut self, record: &Record) -> Lsn {
        let bytes = codec::encoded_bytes(record);
        if !self.fits(bytes) {
            let buffer = self.spare.pop().expect("asked whether there is room");
            let next = Group::new(buffer, self.next_lsn);
            self.sealed.push_back(std::mem::replace(&mut self.open, next));
        }
        let group = &mut self.open;
        let start = HEADER_BYTES + group.bytes;
        assert!(
            start + bytes <= group.buffer.len(),
            "records are no longer than the settings say"
        );
        group.bytes += codec::encode(record, &mut group.buffer[start..]);
        group.records += 1;
        group.last_place = group.last_place.max(record.seq().unwrap_or(SeqNo::ZERO));
        let lsn = self.next_lsn;
        self.next_lsn = lsn.next();
        lsn
    }

    /// Everything before this position is on disk.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Whether everything that was appended is on disk.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.durable == self.next_lsn
    }

    /// Whether the next group waits for a segment, or for space to write it.
    #[must_use]
    pub fn waits_for_space(&self) -> bool {
        self.is_full || self.is_short_of_space
    }

    /// Whether the disk had no space for the last write, though the segment was filled before: file systems
    /// that copy on write, and thin volumes, may have none. The [next operation](Self::next_operation) tries
    /// again.
    #[must_use]
    pub fn is_short_of_space(&self) -> bool {
        self.is_short_of_space
    }

    /// The segment that should be filled with zeros next, if one is needed and may exist.
    #[must_use]
    pub fn wanted_segment(&self) -> Option<u64> {
        let next = self
            .segments
            .back()
            .map_or(self.first_segment, |segment| segment.index + 1);
        (self.ready.is_empty() && self.segments.len() < self.settings.segments_max).then_some(next)
    }

    /// A segment was filled with zeros, or was there already.
    pub fn add_segment(&mut self, index: u64) {
        self.ready.push_back(index);
        self.is_full = false;
    }

    /// The next operation, if none is under way and there is something to write.
    pub fn next_operation(&mut self) -> Option<LogOperation> {
        if self.flight.is_none() {
            self.start_next_group()?;
        }
        let flight = self.flight.as_mut()?;
        self.is_short_of_space = false;
        match flight.step {
            Step::Write(from) => {
                flight.step = Step::Writing(from);
                Some(LogOperation::Write {
                    segment: flight.segment,
                    offset: flight.offset + from as u64,
                })
            }
            Step::Sync => {
                flight.step = Step::Syncing;
                Some(LogOperation::Sync {
                    segment: flight.segment,
                })
            }
            Step::Writing(_) | Step::Syncing => None,
        }
    }

    /// What the write under way writes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match &self.flight {
            Some(InFlightGroup {
                group,
                step: Step::Writing(from),
                ..
            }) => &group.buffer[*from..group.disk_bytes()],
            _ => &[],
        }
    }

    /// The memory that groups are gathered in and written from, by its number: to be registered with a ring.
    /// It stays where it is as long as the writer lives.
    #[must_use]
    pub fn buffers(&self) -> Vec<&AlignedBuffer> {
        let flight = self.flight.iter().map(|flight| &flight.group.buffer);
        let groups = self.sealed.iter().chain([&self.open]).map(|group| &group.buffer);
        let mut all: Vec<&AlignedBuffer> = flight.chain(groups).chain(&self.spare).collect();
        all.sort_unstable_by_key(|buffer| buffer.number());
        all
    }

    /// The number of the buffer that holds what the write under way writes.
    #[must_use]
    pub fn buffer(&self) -> u16 {
        self.flight
            .as_ref()
            .map_or(0, |flight| flight.group.buffer.number())
    }

    /// The next write, with the memory that it writes from: until it is [written](Self::on_lent_written).
    pub(super) fn lend_write(&mut self) -> Option<LogWrite> {
        let LogOperation::Write { segment, offset } = self.next_operation()? else {
            return None;
        };
        let flight = self.flight.as_mut()?;
        let Step::Writing(from) = flight.step else {
            return None;
        };
        let bytes = from..flight.group.disk_bytes();
        let nothing = AlignedBuffer::nothing(flight.group.buffer.number());
        Some(LogWrite {
            segment,
            offset,
            buffer: std::mem::replace(&mut flight.group.buffer, nothing),
            bytes,
        })
    }

    /// A write ended whose memory was lent. What was written is on disk: there is no sync of its own.
    pub(super) fn on_lent_written(
        &mut self,
        buffer: AlignedBuffer,
        outcome: Outcome,
    ) -> Result<(), StorageError> {
        if let Some(flight) = &mut self.flight {
            flight.group.buffer = buffer;
        }
        self.on_complete(outcome)?;
        match &mut self.flight {
            Some(flight) if flight.step == Step::Sync => {
                flight.step = Step::Syncing;
                self.on_complete(Ok(0))
            }
            _ => Ok(()),
        }
    }

    /// Seals the next group and gives it its place.
    fn start_next_group(&mut self) -> Option<()> {
        if self.sealed.is_empty() && self.open.records == 0 {
            return None;
        }
        let disk_bytes = self.sealed.front().unwrap_or(&self.open).disk_bytes() as u64;
        if self.offset + disk_bytes > self.settings.segment_bytes {
            let Some(index) = self.ready.pop_front() else {
                self.is_full = true;
                return None;
            };
            self.segments.push_back(Segment {
                index,
                last_place: SeqNo::ZERO,
                end: Lsn::ZERO,
            });
            self.offset = 0;
        }
        let mut group = match self.sealed.pop_front() {
            Some(group) => group,
            None => {
                let buffer = self.spare.pop()?;
                std::mem::replace(&mut self.open, Group::new(buffer, self.next_lsn))
            }
        };
        let segment = self.segments.back_mut()?;
        segment.last_place = segment.last_place.max(group.last_place);
        segment.end = group.first_lsn.plus(u64::from(group.records));
        let header = GroupHeader {
            tag: self.settings.tag,
            segment: segment.index,
            number: self.number,
            first_lsn: group.first_lsn,
            records: group.records,
            bytes: group.bytes as u32,
            previous: self.previous,
        };
        let end = group.disk_bytes();
        self.previous = header.seal(&mut group.buffer[..end], self.settings.seed);
        self.number += 1;
        self.flight = Some(InFlightGroup {
            segment: segment.index,
            offset: self.offset,
            group,
            step: Step::Write(0),
        });
        self.offset += disk_bytes;
        Some(())
    }

    /// The operation under way ended. A write that was cut short is continued by the next operation.
    ///
    /// # Errors
    /// When it failed: what is on disk is not known, and this writer is of no use any more.
    pub fn on_complete(&mut self, outcome: Outcome) -> Result<(), StorageError> {
        let Some(flight) = &mut self.flight else {
            return Ok(());
        };
        let failed = |doing, errno| StorageError::Log {
            doing,
            source: std::io::Error::from_raw_os_error(errno),
        };
        match (flight.step, outcome) {
            // Interrupted before anything was done: once more.
            (Step::Writing(from), Err(libc::EINTR | libc::EAGAIN)) => flight.step = Step::Write(from),
            // Nothing was written, and nothing promised: it can wait.
            (Step::Writing(from), Err(errno)) if files::is_space_errno(errno) => {
                flight.step = Step::Write(from);
                self.is_short_of_space = true;
            }
            (Step::Writing(_), Err(errno)) => return Err(failed("a write", errno)),
            (Step::Writing(_), Ok(0)) => return Err(failed("a write of nothing", libc::EIO)),
            (Step::Writing(from), Ok(count)) => {
                // Whole blocks count; the rest of a block is written again.
                let to = from + count;
                if active(Mutant::DurableBeforeSync) {
                    self.durable = flight.group.first_lsn.plus(u64::from(flight.group.records));
                }
                flight.step = match to >= flight.group.disk_bytes() {
                    true => Step::Sync,
                    false => Step::Write(to / super::BLOCK_BYTES * super::BLOCK_BYTES),
                };
            }
            (Step::Syncing, Err(errno)) => return Err(failed("a sync", errno)),
            (Step::Syncing, Ok(_)) => {
                if let Some(InFlightGroup { group, .. }) = self.flight.take() {
                    self.durable = group.first_lsn.plus(u64::from(group.records));
                    self.spare.push(group.buffer);
                }
            }
            (Step::Write(_) | Step::Sync, _) => {}
        }
        Ok(())
    }

    /// These records are not needed any more: the segments that go, each with nothing else in it, if any do.
    pub fn cut(&mut self, cut: LogCut) -> Option<Released> {
        let mut gone = Vec::new();
        let is_over = |segment: &Segment| segment.last_place <= cut.seq && segment.end <= cut.before;
        while self.segments.len() > 1 && is_over(&self.segments[0]) {
            gone.extend(self.segments.pop_front().map(|segment| segment.index));
        }
        let log_start = self.first_segment().filter(|_| !gone.is_empty())?;
        Some(Released {
            log_start,
            view: cut.view,
            gone,
        })
    }

    /// The first segment that is needed.
    #[must_use]
    pub fn first_segment(&self) -> Option<u64> {
        self.segments.front().map(|segment| segment.index)
    }

    /// The segments that may hold the batch of a decision at this place, in order. A batch is logged before
    /// its decision, when later ones may have been: not many, the window is bounded.
    #[must_use]
    pub fn segments_from(&self, seq: SeqNo) -> Vec<u64> {
        let later = self
            .segments
            .iter()
            .skip_while(|segment| segment.last_place < seq);
        later
            .map(|segment| segment.index)
            .take(SEARCHED_SEGMENTS)
            .collect()
    }

    /// The size of a segment, in bytes.
    pub(super) const fn segment_bytes(&self) -> u64 {
        self.settings.segment_bytes
    }

    /// How many bytes of segments hold records.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.segments.len() as u64 * self.settings.segment_bytes
    }
}

impl Group {
    fn new(buffer: AlignedBuffer, first_lsn: Lsn) -> Self {
        Self {
            buffer,
            bytes: 0,
            records: 0,
            first_lsn,
            last_place: SeqNo::ZERO,
        }
    }

    fn disk_bytes(&self) -> usize {
        GroupHeader::disk_bytes(self.bytes)
    }
}
