//! Decisions read back from a log that is being written: for peers that lack them, and for execution when it
//! goes on from an older state.
//!
//! A segment is gone through once, group by group, and where its batches lie is noted; then each is read for
//! itself. Segments are reused after checkpoints: what was noted is not believed, what is read must be the
//! batch that was asked for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::RecordReader;
use super::codec;
use super::group::{BLOCK_BYTES, GroupHeader, HEADER_BYTES};
use super::snapshot::ReadAt;
use crate::smr::decision_log::{LoggedDecisions, LoggedRange};
use crate::smr::messages::{Batch, Proposal};
use crate::smr::protocol::Record;
use crate::smr::types::{Digest, SeqNo, View};

/// Segments whose batches' places are known.
const OPEN_MAX: usize = 8;

/// A segment, as far as it was gone through.
struct Indexed<F> {
    segment: u64,
    file: F,
    end: u64,
    /// Where the record of a batch lies, and its length.
    batches: BTreeMap<(SeqNo, [u8; 32]), (u64, usize)>,
}

/// Reads decisions from the segments of one log.
pub(crate) struct LogReader<F> {
    reader: RecordReader,
    tag: u64,
    seed: u64,
    /// The one used last at the back.
    open: VecDeque<Indexed<F>>,
}

impl<F: ReadAt> LogReader<F> {
    /// A reader for the log whose groups have this tag and are checked under this seed.
    pub fn new(reader: RecordReader, tag: u64, seed: u64) -> Self {
        let open = VecDeque::new();
        Self {
            reader,
            tag,
            seed,
            open,
        }
    }

    /// Reads what is asked for. `segments` are those that may hold it, in order; `open` opens one, if it is
    /// still there.
    pub fn read(
        &mut self,
        range: LoggedRange,
        segments: &[u64],
        open: impl Fn(u64) -> Option<F>,
    ) -> LoggedDecisions {
        let (mut decisions, mut bytes) = (Vec::new(), 0);
        for (digest, place) in range.digests.iter().zip(0..) {
            if bytes >= range.bytes_max {
                break;
            }
            let seq = range.first.plus(place);
            let found = match *digest == Digest::ZERO {
                // The log need not have it.
                true => Some(null_request(seq)),
                false => segments
                    .iter()
                    .find_map(|segment| self.find(*segment, seq, digest, &open)),
            };
            let Some(proposal) = found else { break };
            bytes += proposal.kept_bytes();
            decisions.push(proposal);
        }
        LoggedDecisions {
            to: range.to,
            first: range.first,
            decisions,
        }
    }

    fn find(
        &mut self,
        segment: u64,
        seq: SeqNo,
        digest: &Digest,
        open: &impl Fn(u64) -> Option<F>,
    ) -> Option<Arc<Proposal>> {
        let (tag, seed) = (self.tag, self.seed);
        let known = self.open.iter().position(|indexed| indexed.segment == segment);
        let mut indexed = match known.and_then(|at| self.open.remove(at)) {
            Some(indexed) => indexed,
            None => Indexed {
                segment,
                file: open(segment)?,
                end: 0,
                batches: BTreeMap::new(),
            },
        };
        let key = (seq, *digest.as_bytes());
        if !indexed.batches.contains_key(&key) {
            // It may have grown meanwhile.
            indexed.go_on(tag, seed);
        }
        let found = indexed.batches.get(&key).copied();
        let record = found.and_then(|(offset, length)| {
            let mut bytes = vec![0; length];
            indexed.file.read_exact_at(&mut bytes, offset).ok()?;
            self.reader.read(&bytes).ok()
        });
        if self.open.len() == OPEN_MAX {
            self.open.pop_front();
        }
        self.open.push_back(indexed);
        match record? {
            Record::Proposal(proposal) | Record::Batch(proposal) => {
                (proposal.seq == seq && proposal.batch.digest == *digest).then_some(proposal)
            }
            _ => None,
        }
    }
}

fn null_request(seq: SeqNo) -> Arc<Proposal> {
    Arc::new(Proposal {
        view: View::ZERO,
        seq,
        batch: Arc::new(Batch::null()),
        message: Bytes::new(),
        authentic: true,
    })
}

impl<F: ReadAt> Indexed<F> {
    /// Goes through the groups that were not seen yet.
    fn go_on(&mut self, tag: u64, seed: u64) {
        while self.take_group(tag, seed).is_some() {}
    }

    fn take_group(&mut self, tag: u64, seed: u64) -> Option<()> {
        let mut bytes = vec![0; BLOCK_BYTES];
        self.file.read_exact_at(&mut bytes, self.end).ok()?;
        let length = GroupHeader::disk_bytes_of(&bytes)?;
        bytes.resize(length, 0);
        self.file.read_exact_at(&mut bytes, self.end).ok()?;
        let (header, _, records) = GroupHeader::read(&bytes, seed)?;
        if header.tag != tag || header.segment != self.segment {
            return None;
        }
        let start = self.end + HEADER_BYTES as u64;
        let mut rest = records;
        for _ in 0..header.records {
            let record = codec::split_record(&mut rest).ok()?;
            if let Some(batch) = codec::batch_of(record) {
                let offset = start + (records.len() - rest.len() - record.len()) as u64;
                self.batches.insert(batch, (offset, record.len()));
            }
        }
        self.end += length as u64;
        Some(())
    }
}
