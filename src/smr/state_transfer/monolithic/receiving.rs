//! What has come of a state, and who is to send the rest.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::PIECE_BYTES_MAX;
use crate::smr::crypto::Digester;
use crate::smr::messages::{PieceReader, PieceWriter, SnapshotChunk, SnapshotError, SnapshotIndex};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Effect, Outbox, SnapshotTask};
use crate::smr::types::Time;

/// About how many bytes a donor is to send before others may be given the next pieces.
const BLOCK_BYTES: u64 = 4 << 20;
/// How many pieces a donor is to send while it is not known how long they are.
const BLOCK_FIRST: usize = 64;
/// How many pieces are copied at once: in between the disk keeps what comes from donors.
const COPIED_PIECES: usize = 32;
/// A donor brings at least so much while its patience lasts, or all of its block.
pub(super) const PACE_BYTES: usize = 256 << 10;

/// What a donor is to send.
#[derive(Debug)]
pub(super) struct Block {
    /// The next piece.
    pub next: usize,
    /// The piece to stop before.
    pub until: usize,
    /// The first piece of the answer that is under way.
    pub asked: usize,
    /// When it was given to the donor.
    pub since: Time,
    /// By then it has to have sent [enough](Self::is_too_slow) of it.
    pub deadline: Time,
    /// What came of it that was new, since the last deadline.
    pub fresh_bytes: usize,
    /// Puts the slices of a long piece together.
    pub reader: PieceReader,
    /// How much of a long piece has come.
    pub offset: u64,
}

impl Block {
    /// Whether a chunk that begins with this piece is one of those that were asked for last. Another one is
    /// of an answer that the donor had to give before, and its end asks for nothing more.
    pub fn is_of_answer(&self, first: usize) -> bool {
        (self.asked..self.until).contains(&first)
    }

    /// Whether the time is up, and what came is next to nothing: a trickle is a way to hold up a transfer. If
    /// it is up and enough came, there is another deadline.
    pub fn is_too_slow(&mut self, now: Time, patience: Duration) -> bool {
        if now < self.deadline {
            return false;
        }
        let fresh = std::mem::take(&mut self.fresh_bytes);
        self.deadline = now.after(patience);
        fresh < PACE_BYTES
    }
}

/// How far the pieces of a state have come.
#[derive(Debug)]
pub(super) struct Receiving {
    pub index: Arc<SnapshotIndex>,
    pub is_open: bool,
    /// By piece: an own snapshot has it, as it seems, and it was not copied yet.
    pub reusable: Vec<bool>,
    /// Pieces that are being copied. Like those to come they are reusable until it is known whether they are.
    pub copying: Option<Range<usize>>,
    pub done: Vec<bool>,
    pub done_count: usize,
    /// Before this piece everything has come.
    pub done_until: usize,
    /// By donor.
    pub blocks: Vec<Option<Block>>,
    pub bytes: u64,
    /// What came that was new.
    pub fresh_bytes: usize,
    pub unkept: usize,
    /// When enough had come last, and how much had come then.
    pub progress: (Time, usize),
}

impl Receiving {
    /// Notes that it goes on, if it does.
    pub fn observe(&mut self, now: Time) {
        if self.fresh_bytes >= self.progress.1 + PACE_BYTES || self.done_count == self.done.len() {
            self.progress = (now, self.fresh_bytes);
        }
    }

    /// How many pieces make up a block.
    fn block_pieces(&self) -> usize {
        let piece_bytes = self.fresh_bytes.checked_div(self.done_count).unwrap_or(0);
        match piece_bytes {
            0 => BLOCK_FIRST,
            // Pieces may become longer: nobody is given most of what is missing.
            bytes => {
                let share = (self.done.len() - self.done_count) / (2 * self.blocks.len()).max(1);
                ((BLOCK_BYTES / bytes as u64) as usize).clamp(1, share.max(BLOCK_FIRST))
            }
        }
    }

    /// Pieces that are missing and that nobody is to send, in a row.
    pub fn next_block(&mut self) -> Option<(usize, usize)> {
        let missing = self.done[self.done_until..].iter().take_while(|done| **done);
        self.done_until += missing.count();
        let is_free = |piece: usize| {
            let owed = self
                .blocks
                .iter()
                .flatten()
                .any(|block| block.next <= piece && piece < block.until);
            !self.done[piece] && !self.reusable[piece] && !owed
        };
        let first = (self.done_until..self.done.len()).find(|piece| is_free(*piece))?;
        let end = self.done.len().min(first + self.block_pieces());
        let until = (first..end).find(|piece| !is_free(*piece));
        Some((first, until.unwrap_or(end)))
    }

    /// The rest of a block that nobody was asked for later than at `late`.
    pub fn next_late_block(&self, late: Time) -> Option<(usize, usize)> {
        let blocks = || self.blocks.iter().flatten();
        let missing = |block: &Block| (block.next..block.until).find(|piece| !self.done[*piece]);
        let is_late = |piece: usize| {
            let mut owing = blocks().filter(|block| block.next <= piece && piece < block.until);
            owing.all(|block| block.since <= late)
        };
        blocks().find_map(|block| {
            let piece = missing(block).filter(|piece| is_late(*piece))?;
            Some((piece, block.until))
        })
    }

    /// Checks the pieces of a chunk and hands the new ones to the disk. Chunks may come late, twice or out of
    /// order: only contents that the index does not cover are a lie.
    pub fn take_chunk(
        &mut self,
        block: &mut Block,
        bytes: &Bytes,
        digester: &Digester,
        out: &mut Outbox,
    ) -> Result<(), SnapshotError> {
        let chunk = SnapshotChunk::parse(bytes)?;
        let Some((first, end)) = chunk.range() else {
            return Ok(());
        };
        let is_long = matches!(&chunk, SnapshotChunk::Slice(slice) if slice.length > PIECE_BYTES_MAX);
        if end.max(first + 1) > self.done.len() || is_long {
            return Err(SnapshotError::Kind);
        }
        let is_pieces = matches!(chunk, SnapshotChunk::Pieces(_)) && first < end;
        if is_pieces && !self.done[first..end].contains(&true) {
            // All of it is new: it is kept as it came.
            block.reader.read(&self.index, chunk, digester, |_, _| Ok(()))?;
            self.done[first..end].fill(true);
            self.done_count += end - first;
            self.unkept += bytes.len();
            out.push(Effect::Snapshot(SnapshotTask::Keep(bytes.clone())));
            block.offset = block.reader.partial_bytes();
            return Ok(());
        }
        let mut writer = PieceWriter::default();
        let (done, done_count, index) = (&mut self.done, &mut self.done_count, &self.index);
        let read = block.reader.read(index, chunk, digester, |piece, bytes| {
            if !std::mem::replace(&mut done[piece], true) {
                *done_count += 1;
                writer.write(piece, bytes);
            }
            Ok(())
        });
        match read {
            // A slice that does not follow the one before.
            Err(SnapshotError::State) => block.reader = PieceReader::default(),
            other => other?,
        }
        block.offset = block.reader.partial_bytes();
        for kept in writer.finish() {
            self.unkept += kept.len();
            out.push(Effect::Snapshot(SnapshotTask::Keep(kept.into())));
        }
        Ok(())
    }

    /// An own snapshot has these pieces, as it seems.
    pub fn take_reusable(&mut self, rows: &[Range<usize>]) {
        for piece in rows.iter().cloned().flatten() {
            if let Some(done) = self.done.get(piece) {
                self.reusable[piece] = !done;
            }
        }
    }

    /// Has the next of them copied, if none are being copied.
    pub fn copy(&mut self, out: &mut Outbox) {
        if self.copying.is_some() {
            return;
        }
        let Some(first) = self.reusable.iter().position(|reusable| *reusable) else {
            return;
        };
        let row = self.reusable[first..].iter().take(COPIED_PIECES);
        let pieces = first..first + row.take_while(|reusable| **reusable).count();
        self.copying = Some(pieces.clone());
        out.push(Effect::Snapshot(SnapshotTask::Copy(pieces)));
    }

    /// They were copied, but for those that are missing. How many were.
    pub fn take_copied(&mut self, now: Time, pieces: &Range<usize>, missing: &[usize]) -> usize {
        if self.copying.take_if(|copying| copying == pieces).is_none() {
            return 0;
        }
        let mut copied = 0;
        for piece in pieces.clone() {
            self.reusable[piece] = false;
            let is_there = !missing.contains(&piece) || active(Mutant::CopyBelieved);
            if is_there && !std::mem::replace(&mut self.done[piece], true) {
                copied += 1;
            }
        }
        self.done_count += copied;
        self.progress.0 = now;
        copied
    }

    /// Takes a chunk that an earlier attempt had kept.
    pub fn take_found(&mut self, bytes: &Bytes, reader: &mut PieceReader, digester: &Digester) {
        let Ok(chunk) = SnapshotChunk::parse(bytes) else {
            return;
        };
        let (done, done_count) = (&mut self.done, &mut self.done_count);
        // What does not fit is asked for again.
        let _ = reader.read(&self.index, chunk, digester, |piece, _| {
            if !std::mem::replace(&mut done[piece], true) {
                *done_count += 1;
            }
            Ok(())
        });
        self.fresh_bytes += bytes.len();
    }
}
