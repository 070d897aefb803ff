//! What every persistent log has to keep: for who writes one. Scenes are played on a disk in memory, from seeds:
//! records of all lengths, writes that are cut short or find no space, cuts, and losses of power, each of which
//! leaves some sectors of the write under way.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;

use super::recovery::{Found, Tail, scan_with};
use super::{BLOCK_BYTES, LogWrite, SmrPersistentLog, StorageError, Superblock, WriterSettings, codec};
use crate::smr::crypto::Chain;
use crate::smr::protocol::{LogCut, Record};
use crate::smr::types::{ClusterId, Digest, Epoch, Lsn, NodeId, SeqNo, SplitMix64, View};

const SEGMENT_BYTES: u64 = 64 << 10;
const SEGMENTS_MAX: usize = 16;
const RECORD_BYTES_MAX: usize = 24 << 10;
/// Steps of a scene, and those after which a log that has nothing more to do has to be idle.
const STEPS: u64 = 1500;
const IDLE_AFTER: u64 = 10_000;
/// What survives of a write under way, at once.
const SECTOR_BYTES: usize = 512;

/// A scene in which a log did not keep the contract.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}, step {step}: {broken}")]
pub struct LogContractError {
    /// The scene.
    pub seed: u64,
    /// How far it had come.
    pub step: u64,
    /// What was not kept.
    #[source]
    pub broken: BrokenLogRule,
}

/// What a log did not keep.
#[derive(Debug, thiserror::Error)]
pub enum BrokenLogRule {
    /// Positions have gaps, or come twice.
    #[error("a record's position is {found}, not {expected}")]
    Position {
        /// The next one.
        expected: Lsn,
        /// What it was.
        found: Lsn,
    },
    /// It promised what is not on disk.
    #[error("everything before {durable} counts as durable, and a restart finds what comes before {found}")]
    Promised {
        /// What it says.
        durable: Lsn,
        /// What is there.
        found: Lsn,
    },
    /// It took a promise back.
    #[error("everything before {before} was durable, and now what comes before {now}")]
    TakenBack {
        /// What it said.
        before: Lsn,
        /// What it says.
        now: Lsn,
    },
    /// A restart reads another record than was appended.
    #[error("record {0} is another one after a restart")]
    Changed(Lsn),
    /// A restart cannot read what is on disk.
    #[error("a restart cannot read the log: {0}")]
    Unreadable(StorageError),
    /// A second write began while one was under way.
    #[error("two writes at once")]
    TwoWrites,
    /// A write is not of whole blocks of lent memory, or not inside a segment that it was given.
    #[error("a write to segment {segment} at {offset} that cannot be made")]
    Misplaced {
        /// The segment.
        segment: u64,
        /// Where in it.
        offset: u64,
    },
    /// It let go of the segment that is written to, or of a record that was not cut.
    #[error("a segment is let go of that is needed")]
    Released,
    /// It ended over a write that may be tried again.
    #[error("it does not go on after a write that may be tried again: {0}")]
    GaveUp(StorageError),
    /// Every write succeeds, and it is not idle.
    #[error("it is never idle")]
    Stuck,
}

/// Plays the scenes of these seeds with logs of this configuration.
///
/// # Errors
/// The first rule that is broken, with the seed that plays it again.
pub fn check_log_contract<L: SmrPersistentLog>(
    config: &L::Config,
    seeds: Range<u64>,
) -> Result<(), LogContractError> {
    for seed in seeds {
        let mut scene = Scene::<L>::new(config, seed);
        scene.play().map_err(|broken| LogContractError {
            seed,
            step: scene.step,
            broken,
        })?;
    }
    Ok(())
}

struct Scene<'a, L: SmrPersistentLog> {
    config: &'a L::Config,
    rng: SplitMix64,
    log: L,
    superblock: Superblock,
    disk: BTreeMap<u64, Vec<u8>>,
    under_way: Option<LogWrite>,
    /// Where the memory lies that may be lent, and how long it is, by number.
    memory: Vec<(usize, usize)>,
    /// Every record that was appended, as it lies in the log.
    appended: Vec<Vec<u8>>,
    /// What may be let go of.
    cut: Lsn,
    durable: Lsn,
    step: u64,
}

impl<'a, L: SmrPersistentLog> Scene<'a, L> {
    fn new(config: &'a L::Config, seed: u64) -> Self {
        let cluster = ClusterId::from_bytes([7; 16]);
        let superblock = Superblock::first(cluster, NodeId::new(0), Epoch::ZERO, seed);
        let empty = Tail {
            next_lsn: Lsn::ZERO,
            next_number: 1,
            previous: 0,
            segments: Vec::new(),
            offset: 0,
            first_segment: superblock.log_start,
            torn: false,
        };
        let log = L::make(config, settings(&superblock), &empty);
        let mut this = Self {
            config,
            rng: SplitMix64::new(seed),
            log,
            superblock,
            disk: BTreeMap::new(),
            under_way: None,
            memory: Vec::new(),
            appended: Vec::new(),
            cut: Lsn::ZERO,
            durable: Lsn::ZERO,
            step: 0,
        };
        this.note_memory();
        this
    }

    fn note_memory(&mut self) {
        let memory = self.log.memory();
        self.memory = memory
            .iter()
            .map(|buffer| (buffer.as_ptr() as usize, buffer.len()))
            .collect();
    }

    fn play(&mut self) -> Result<(), BrokenLogRule> {
        for _ in 0..STEPS {
            self.step += 1;
            match self.rng.below(100) {
                0..45 => self.append()?,
                45..65 => self.begin_write()?,
                65..85 => self.end_write()?,
                85..93 => self.make_segment(),
                93..96 => self.cut()?,
                96..99 => {
                    self.restart(false)?;
                }
                _ => self.lose_power()?,
            }
            self.check_durable()?;
        }
        self.come_to_rest()
    }

    fn append(&mut self) -> Result<(), BrokenLogRule> {
        let place = self.appended.len() as u64;
        let record = match self.rng.below(4) {
            0 => {
                let bytes = self.rng.below(RECORD_BYTES_MAX as u64 - 64) as usize;
                Record::ViewTransfer(Bytes::from(vec![place as u8; bytes]))
            }
            _ => Record::Decision {
                seq: SeqNo::new(place),
                digest: Digest::from_bytes([place as u8; 32]),
                chain: Chain::START,
            },
        };
        if !self.log.has_room(&record) {
            return Ok(());
        }
        let (expected, found) = (Lsn::new(place), self.log.append(&record));
        let mut bytes = vec![0; codec::encoded_bytes(&record)];
        codec::encode(&record, &mut bytes);
        // Its length comes before it.
        self.appended.push(bytes.split_off(4));
        match found == expected {
            true => Ok(()),
            false => Err(BrokenLogRule::Position { expected, found }),
        }
    }

    fn begin_write(&mut self) -> Result<(), BrokenLogRule> {
        let Some(write) = self.log.next_write() else {
            return Ok(());
        };
        if self.under_way.is_some() {
            return Err(BrokenLogRule::TwoWrites);
        }
        let (segment, offset) = (write.segment, write.offset);
        let memory = (write.buffer.as_ptr() as usize, write.buffer.len());
        let is_lent = self.memory.get(usize::from(write.buffer.number())) == Some(&memory);
        let bytes = &write.bytes;
        let end = offset.saturating_add(bytes.len() as u64);
        let is_whole = [bytes.start, bytes.len(), offset as usize]
            .iter()
            .all(|number| number.is_multiple_of(BLOCK_BYTES));
        let fits = !bytes.is_empty() && bytes.end <= write.buffer.len() && end <= SEGMENT_BYTES;
        if !(is_lent && is_whole && fits && self.disk.contains_key(&segment)) {
            return Err(BrokenLogRule::Misplaced { segment, offset });
        }
        self.under_way = Some(write);
        Ok(())
    }

    fn end_write(&mut self) -> Result<(), BrokenLogRule> {
        let Some(write) = self.under_way.take() else {
            return Ok(());
        };
        let outcome = match self.rng.below(10) {
            0 => Err(libc::EINTR),
            1 => Err(libc::ENOSPC),
            2..4 => Ok(1 + self.rng.below(write.bytes.len() as u64) as usize),
            _ => Ok(write.bytes.len()),
        };
        if let (Ok(count), Some(file)) = (outcome, self.disk.get_mut(&write.segment)) {
            let (from, at) = (write.bytes.start, write.offset as usize);
            file[at..at + count].copy_from_slice(&write.buffer[from..from + count]);
        }
        let ended = self.log.on_written(write.buffer, outcome);
        ended.map_err(BrokenLogRule::GaveUp)
    }

    fn make_segment(&mut self) {
        if let Some((index, bytes)) = self.log.wanted_segment()
            && !self.disk.contains_key(&index)
        {
            self.disk.insert(index, vec![0; bytes as usize]);
            self.superblock.log_end = self.superblock.log_end.max(index);
            self.log.add_segment(index);
        }
    }

    fn cut(&mut self) -> Result<(), BrokenLogRule> {
        let seq = self.log.durable().get().saturating_sub(1 + self.rng.below(8));
        self.cut = self.cut.max(Lsn::new(seq));
        let cut = LogCut {
            seq: SeqNo::new(seq),
            before: self.cut,
            view: View::ZERO,
        };
        let Some(released) = self.log.cut(cut) else {
            return Ok(());
        };
        let writing = self.under_way.as_ref().map(|write| write.segment);
        self.superblock.log_start = released.log_start;
        for index in released.gone {
            if writing == Some(index) || index >= released.log_start {
                return Err(BrokenLogRule::Released);
            }
            self.disk.remove(&index);
        }
        Ok(())
    }

    /// What it says is on disk is there.
    fn check_durable(&mut self) -> Result<(), BrokenLogRule> {
        let (before, now) = (self.durable, self.log.durable());
        if now < before {
            return Err(BrokenLogRule::TakenBack { before, now });
        }
        if now == before {
            return Ok(());
        }
        self.durable = now;
        self.restart(true).map(|_| ())
    }

    /// What a restart finds: after a loss of power now, which leaves some of the write under way, or none.
    fn restart(&mut self, loses_all: bool) -> Result<(Tail, BTreeMap<u64, Vec<u8>>), BrokenLogRule> {
        let mut disk = self.disk.clone();
        if let Some(write) = self.under_way.as_ref().filter(|_| !loses_all)
            && let Some(file) = disk.get_mut(&write.segment)
        {
            let sectors = write.buffer[write.bytes.clone()].chunks(SECTOR_BYTES);
            for (number, sector) in sectors.enumerate() {
                let at = write.offset as usize + number * SECTOR_BYTES;
                if self.rng.below(2) == 0 {
                    file[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        let files = disk.keys().map(|index| Found {
            index: *index,
            path: PathBuf::from(format!("{index}")),
        });
        let files: Vec<Found> = files.collect();
        let read = |found: &Found, bytes: &mut Vec<u8>| {
            disk[&found.index].clone_into(bytes);
            Ok(())
        };
        let (mut first, mut changed) = (None, None);
        let scanned = scan_with(&self.superblock, &files, read, |raw| {
            first.get_or_insert(raw.lsn);
            let appended = self.appended.get(raw.lsn.get() as usize);
            if appended.is_none_or(|appended| appended != raw.bytes) {
                changed.get_or_insert(raw.lsn);
            }
            Ok(())
        });
        let tail = scanned.map_err(BrokenLogRule::Unreadable)?;
        // What was durable last is never cut here: something is left, from the cut on.
        let was_cut = self.superblock.log_start > Superblock::FIRST_SEGMENT;
        match (changed, first) {
            (Some(lsn), _) => Err(BrokenLogRule::Changed(lsn)),
            (None, Some(first)) if first > self.cut => Err(BrokenLogRule::Released),
            (None, None) if was_cut => Err(BrokenLogRule::Released),
            _ if tail.next_lsn < self.durable => Err(BrokenLogRule::Promised {
                durable: self.durable,
                found: tail.next_lsn,
            }),
            _ => Ok((tail, disk)),
        }
    }

    /// Power is lost, and another log goes on with what is there.
    fn lose_power(&mut self) -> Result<(), BrokenLogRule> {
        let (tail, disk) = self.restart(false)?;
        (self.disk, self.under_way) = (disk, None);
        self.appended.truncate(tail.next_lsn.get() as usize);
        self.log = L::make(self.config, settings(&self.superblock), &tail);
        self.note_memory();
        let last = tail.segments.last().map_or(0, |(index, _)| *index);
        for index in self.disk.keys().filter(|index| **index > last) {
            self.log.add_segment(*index);
        }
        Ok(())
    }

    /// Nothing comes any more, and every write succeeds.
    fn come_to_rest(&mut self) -> Result<(), BrokenLogRule> {
        for _ in 0..IDLE_AFTER {
            self.step += 1;
            if self.log.is_idle() {
                return self.check_all();
            }
            if self.log.wanted_segment().is_none() && self.log.waits_for_space() {
                self.cut()?;
            }
            self.make_segment();
            self.begin_write()?;
            self.end_write()?;
            self.check_durable()?;
        }
        Err(BrokenLogRule::Stuck)
    }

    fn check_all(&mut self) -> Result<(), BrokenLogRule> {
        let (durable, found) = (Lsn::new(self.appended.len() as u64), self.log.durable());
        match durable == found {
            true => self.restart(false).map(|_| ()),
            false => Err(BrokenLogRule::Promised { durable, found }),
        }
    }
}

fn settings(superblock: &Superblock) -> WriterSettings {
    WriterSettings {
        tag: superblock.tag(),
        seed: superblock.seed,
        segment_bytes: SEGMENT_BYTES,
        segments_max: SEGMENTS_MAX,
        record_bytes_max: RECORD_BYTES_MAX,
    }
}

#[cfg(test)]
mod tests;
