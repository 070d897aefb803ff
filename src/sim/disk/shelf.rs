//! The shelf's tasks, done at once.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::SimDisk;
use crate::runtime::storage::RecordReader;
use crate::runtime::storage::basis::Basis;
use crate::runtime::storage::image::{ImageFile, chunk_head, each_sound, file_magic};
use crate::runtime::storage::logged::LogReader;
use crate::runtime::storage::restart::Medium;
use crate::smr::crypto::Digester;
use crate::smr::decision_log::{LoggedDecisions, LoggedRange};
use crate::smr::messages::{ImageIndex, PieceRange, Proposal};
use crate::smr::mutants::{Mutant, active};
use crate::smr::node::KeeperTask;
use crate::smr::protocol::{ImageEvent, ImageTask};
use crate::smr::types::{NodeId, SeqNo, Time};

/// In so many of a hundred own images that are to be copied from a bit is wrong.
const ROTTEN_PERCENT: u64 = 10;

impl SimDisk {
    /// Does anything but installing; what came of it.
    pub fn shelve(&mut self, now: Time, task: ImageTask) -> Vec<ImageEvent> {
        match task {
            ImageTask::Open { seq, index } => {
                let mut events = self.receive(seq);
                self.basis = self.find_basis(index);
                let reusable = self.basis.as_ref().map(|basis| basis.pieces().to_vec());
                events.extend(reusable.map(|pieces| ImageEvent::Reusable { seq, pieces }));
                events.push(ImageEvent::Opened(seq));
                events
            }
            ImageTask::Copy(pieces) => {
                let missing = self.copy(&pieces);
                vec![ImageEvent::Copied { pieces, missing }]
            }
            ImageTask::Keep(chunk) => {
                self.write_partial(&chunk);
                vec![ImageEvent::Kept(chunk.len())]
            }
            ImageTask::Complete(seq) => {
                self.write_partial(&[]);
                match &self.platter.partial {
                    Some((received, _)) if *received == seq => {
                        self.ask(now, KeeperTask::Adopt(seq));
                        match active(Mutant::AdoptionUnawaited) {
                            true => vec![ImageEvent::Completed(seq)],
                            false => Vec::new(),
                        }
                    }
                    _ => Vec::new(),
                }
            }
            ImageTask::Read { to, range, bytes_max } => self.read(to, range, bytes_max),
            ImageTask::Forget { before, but } => {
                self.ask(now, KeeperTask::Forget(before, but));
                Vec::new()
            }
            ImageTask::Disown => {
                self.ask(now, KeeperTask::Disown);
                Vec::new()
            }
            ImageTask::Install(_) => Vec::new(),
        }
    }

    /// Reads decisions back from the log: those that were synced are on the platter.
    pub fn read_log(&self, reader: &RecordReader, range: LoggedRange) -> LoggedDecisions {
        let superblock = &self.platter.superblock;
        let segments = self.writer.segments_from(range.first);
        let contents = |index| self.platter.segments.get(&index).cloned().map(Bytes::from);
        let mut reader = LogReader::new(reader.clone(), superblock.tag(), superblock.seed);
        let mut read = reader.read(range, &segments, contents);
        let is_lost = |decision: &Arc<Proposal>| self.platter.unreadable.hides(decision.seq);
        if let Some(first) = read.decisions.iter().position(is_lost) {
            read.decisions.truncate(first);
        }
        read
    }

    /// Opens the file of an image to come, after what an earlier attempt kept.
    fn receive(&mut self, seq: SeqNo) -> Vec<ImageEvent> {
        let kept = self.platter.partial.take().filter(|(kept, _)| *kept == seq);
        let mut bytes = kept.map(|(_, bytes)| bytes).unwrap_or_default();
        let (mut events, mut written) = (Vec::new(), 0);
        let path = self.platter.image_path(seq);
        let seed = self.platter.superblock.seed;
        let found = each_sound(&path, bytes.as_slice(), seed, |chunk, end| {
            written = end as usize;
            events.push(ImageEvent::Found(Bytes::copy_from_slice(chunk)));
        });
        if found.is_err() || written == 0 {
            bytes = file_magic().to_vec();
            written = bytes.len();
        }
        bytes.truncate(written);
        self.platter.partial = Some((seq, bytes));
        events
    }

    /// The newest own image, whatever its contents. It may have rotted since it was written.
    fn find_basis(&mut self, index: Arc<ImageIndex>) -> Option<Basis<Bytes>> {
        let (newest, bytes) = self.platter.images.iter().next_back()?;
        let (path, mut bytes) = (self.platter.image_path(*newest), bytes.to_vec());
        if self.dice.chance(ROTTEN_PERCENT) {
            self.hit("own image rots before it is copied");
            let at = self.dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << self.dice.below(8);
        }
        let image = ImageFile::of(&path, Bytes::from(bytes), self.platter.superblock.seed);
        Basis::of(image.ok()?, index).ok()?
    }

    /// Adds pieces of the own image; those that are missing.
    fn copy(&mut self, pieces: &Range<usize>) -> Vec<usize> {
        let Some(basis) = self.basis.take() else {
            return pieces.clone().collect();
        };
        let digester = Digester::new(self.platter.superblock.cluster);
        let keep = |chunk: &[u8]| {
            self.write_partial(chunk);
            Ok(())
        };
        let missing = basis.copy(pieces.clone(), &digester, keep);
        self.basis = Some(basis);
        missing.unwrap_or_else(|_| pieces.clone().collect())
    }

    fn write_partial(&mut self, chunk: &[u8]) {
        let seed = self.platter.superblock.seed;
        if let Some((_, bytes)) = &mut self.platter.partial {
            let head = chunk_head(bytes.len() as u64, chunk, seed);
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(chunk);
        }
    }

    /// The chunks of an image, in the order of its pieces.
    pub fn image_chunks(&self, seq: SeqNo) -> Vec<Bytes> {
        let Ok(image) = self.platter.open_image(seq) else {
            return Vec::new();
        };
        let chunks = (0..image.chunks()).map_while(|number| image.chunk(number).ok());
        chunks.map(Bytes::from).collect()
    }

    fn read(&self, to: NodeId, range: PieceRange, bytes_max: usize) -> Vec<ImageEvent> {
        let seq = SeqNo::new(range.seq);
        let image = self.platter.open_image(seq);
        let read = image.and_then(|image| image.read_range(range, bytes_max));
        let mut found = read.unwrap_or_default();
        if found.is_empty() {
            // Says that it is not there.
            found.push(Bytes::new());
        }
        let count = found.len();
        let chunks = found.into_iter().enumerate();
        let events = chunks.map(|(number, bytes)| ImageEvent::Chunk {
            to,
            seq,
            last: number + 1 == count,
            bytes,
        });
        events.collect()
    }
}
