//! What has come of a state, and who is to send the rest.

use bytes::Bytes;

use super::PIECE_BYTES_MAX;
use crate::crypto::Digester;
use crate::execution::{ImageChunk, ImageError, ImageIndex, PieceReader, PieceWriter};
use crate::protocol::{Effect, Outbox};
use crate::state_transfer::ImageTask;
use crate::types::Time;

/// How many pieces a donor is to send, at most.
const BLOCK: usize = 64;

/// What a donor is to send.
#[derive(Debug)]
pub(super) struct Block {
    /// The next piece.
    pub next: usize,
    /// The piece to stop before.
    pub until: usize,
    /// When it was given to the donor.
    pub since: Time,
    /// By then it has to have sent some of it.
    pub deadline: Time,
    /// Puts the slices of a long piece together.
    pub reader: PieceReader,
    /// How much of a long piece has come.
    pub offset: u64,
}

/// How far the pieces of a state have come.
#[derive(Debug)]
pub(super) struct Receiving {
    pub index: ImageIndex,
    pub is_open: bool,
    pub done: Vec<bool>,
    pub done_count: usize,
    /// By donor.
    pub blocks: Vec<Option<Block>>,
    pub bytes: u64,
    pub unkept: usize,
    /// When something came last.
    pub progress: Time,
}

impl Receiving {
    /// Pieces that are missing and that nobody is to send, in a row.
    pub fn next_block(&self) -> Option<(usize, usize)> {
        let is_free = |piece: usize| {
            let owed = self
                .blocks
                .iter()
                .flatten()
                .any(|block| block.next <= piece && piece < block.until);
            !self.done[piece] && !owed
        };
        let first = (0..self.done.len()).find(|piece| is_free(*piece))?;
        let until = (first..self.done.len().min(first + BLOCK)).find(|piece| !is_free(*piece));
        Some((first, until.unwrap_or(self.done.len().min(first + BLOCK))))
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

    /// Checks the pieces of a chunk and hands the new ones to the disk. Chunks may come late, twice or out of order: only
    /// contents that the index does not cover are a lie.
    pub fn take_chunk(
        &mut self,
        block: &mut Block,
        bytes: &Bytes,
        digester: &Digester,
        out: &mut Outbox,
    ) -> Result<(), ImageError> {
        let chunk = ImageChunk::parse(bytes)?;
        let Some((first, end)) = chunk.range() else {
            return Ok(());
        };
        let is_long = matches!(&chunk, ImageChunk::Slice(slice) if slice.length > PIECE_BYTES_MAX);
        if end.max(first + 1) > self.done.len() || is_long {
            return Err(ImageError::Kind);
        }
        let is_pieces = matches!(chunk, ImageChunk::Pieces(_)) && first < end;
        if is_pieces && !self.done[first..end].contains(&true) {
            // All of it is new: it is kept as it came.
            block.reader.read(&self.index, chunk, digester, |_, _| Ok(()))?;
            self.done[first..end].fill(true);
            self.done_count += end - first;
            self.unkept += bytes.len();
            out.push(Effect::Image(ImageTask::Keep(bytes.clone())));
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
            Err(ImageError::State) => block.reader = PieceReader::default(),
            other => other?,
        }
        block.offset = block.reader.partial_bytes();
        for kept in writer.finish() {
            self.unkept += kept.len();
            out.push(Effect::Image(ImageTask::Keep(kept.into())));
        }
        Ok(())
    }

    /// Takes a chunk that an earlier attempt had kept.
    pub fn take_found(&mut self, bytes: &Bytes, reader: &mut PieceReader, digester: &Digester) {
        let Ok(chunk) = ImageChunk::parse(bytes) else {
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
    }
}
