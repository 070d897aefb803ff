//! The contents of a checkpoint, as chunks: what snapshots on disk and state transfers carry.
//!
//! ```text
//!  chunk   1 byte kind │ contents
//!  kind 0  head:   seq, epoch, time, chain, digest of the state, digest of the client table, number of clients, of the state's pieces
//!  kind 1  index:  the digest of every piece: the entries of the client table, then the pieces of the state
//!  kind 2  pieces: number of the first │ length, bytes │ length, bytes │ …
//!  kind 3  slice of a long piece: its number, its length, where the slice starts │ bytes
//!  kind 4  slice of a long index, on its way only: where the slice starts │ bytes
//! ```
//!
//! Two levels of a Merkle tree: a checkpoint's claim covers the head, the head covers the index, and the
//! index each piece. So whoever has a certificate of the claim can check the head, then the index, then every
//! piece for itself, whoever it came from and in whatever order.

use std::ops::Range;

use super::CheckpointClaim;
use super::lengths::IMAGE_CHUNK_BYTES;
use crate::smr::crypto::{Chain, Digester, Domain};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{Digest, Epoch, SeqNo, UnixTime};

const HEAD: u8 = 0;
pub(crate) const INDEX: u8 = 1;
pub(crate) const PIECES: u8 = 2;
const SLICE: u8 = 3;
const INDEX_SLICE: u8 = 4;

const HEAD_BYTES: usize = 8 + 8 + 8 + 3 * 32 + 4 + 4;
/// The longest piece there is.
const PIECE_BYTES_MAX: u64 = 32 << 30;

/// Why bytes are no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A chunk of no known kind, or a head that is not first.
    #[error("a chunk of the checkpoint is of no known kind, or out of place")]
    Kind,
    /// The head cannot be read, or is another membership's.
    #[error("the head of the checkpoint is damaged, or of another cluster")]
    Head,
    /// An entry of the client table cannot be read.
    #[error("the client table of the checkpoint is damaged")]
    Clients,
    /// A piece of the state cannot be read.
    #[error("the state of the checkpoint is damaged")]
    State,
    /// What was read is not what the head promises.
    #[error("the contents of the checkpoint have another digest than its head says")]
    Digest,
}

/// What a checkpoint consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The last decision the state includes.
    pub seq: SeqNo,
    /// The membership.
    pub epoch: Epoch,
    /// The agreed time of that decision: no later one is earlier.
    pub time: UnixTime,
    /// Covers every decision up to `seq`.
    pub chain: Chain,
    /// The digest of the state.
    pub state: Digest,
    /// The digest of the client table.
    pub clients: Digest,
    /// How many entries the client table has.
    pub client_count: u32,
    /// How many pieces the state has.
    pub piece_count: u32,
}

impl SnapshotHead {
    fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&self.seq.get().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time.as_nanos().to_le_bytes());
        bytes[24..56].copy_from_slice(self.chain.head().as_bytes());
        bytes[56..88].copy_from_slice(self.state.as_bytes());
        bytes[88..120].copy_from_slice(self.clients.as_bytes());
        bytes[120..124].copy_from_slice(&self.client_count.to_le_bytes());
        bytes[124..].copy_from_slice(&self.piece_count.to_le_bytes());
        bytes
    }

    /// The chunk that it is written as.
    #[must_use]
    pub fn to_chunk(self) -> Vec<u8> {
        [&[HEAD][..], &self.to_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut bytes: &[u8] = bytes
            .first_chunk::<HEAD_BYTES>()
            .filter(|_| bytes.len() == HEAD_BYTES)?;
        let digest = |bytes: &mut &[u8]| Some(Digest::from_bytes(take(bytes)?));
        let bytes = &mut bytes;
        Some(Self {
            seq: SeqNo::new(u64::from_le_bytes(take(bytes)?)),
            epoch: Epoch::new(u64::from_le_bytes(take(bytes)?)),
            time: UnixTime::from_nanos(u64::from_le_bytes(take(bytes)?)),
            chain: Chain::from_head(digest(bytes)?),
            state: digest(bytes)?,
            clients: digest(bytes)?,
            client_count: u32::from_le_bytes(take(bytes)?),
            piece_count: u32::from_le_bytes(take(bytes)?),
        })
    }

    /// What the checkpoint amounts to.
    #[must_use]
    pub fn claim(&self, digester: &Digester) -> CheckpointClaim {
        CheckpointClaim {
            seq: self.seq,
            digest: digester.digest(Domain::Checkpoint, &self.to_bytes()),
        }
    }

    /// How many pieces the checkpoint has: entries of the client table and pieces of the state.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.client_count as usize + self.piece_count as usize
    }
}

/// One part of a state, by what it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartDescription {
    /// Its number.
    pub number: usize,
    /// The digest of its contents.
    pub digest: Digest,
}

/// What a state consists of: the digest of every part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDescriptor {
    digests: Vec<Digest>,
}

impl StateDescriptor {
    /// Of the parts that have these digests.
    #[must_use]
    pub fn new(digests: Vec<Digest>) -> Self {
        Self { digests }
    }

    /// Every part, in order.
    pub fn parts(&self) -> impl Iterator<Item = PartDescription> + '_ {
        let described = |(number, digest): (usize, &Digest)| PartDescription {
            number,
            digest: *digest,
        };
        self.digests.iter().enumerate().map(described)
    }

    /// The digest of every part, in order.
    #[must_use]
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// The parts that `other` has as well under the same number, in rows: whoever has that state need not be
    /// sent them.
    #[must_use]
    pub fn common(&self, other: &Self) -> Vec<Range<usize>> {
        let mut rows: Vec<Range<usize>> = Vec::new();
        let pairs = self.digests.iter().zip(&other.digests).enumerate();
        for (number, _) in pairs.filter(|(_, (own, other))| own == other) {
            match rows.last_mut().filter(|row| row.end == number) {
                Some(row) => row.end += 1,
                None => rows.push(number..number + 1),
            }
        }
        rows
    }
}

/// The head of a checkpoint and the digest of each of its pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotIndex {
    /// The head, which covers the digests.
    pub head: SnapshotHead,
    pieces: StateDescriptor,
}

impl SnapshotIndex {
    /// Reads the contents of an index chunk, of whichever application's snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::Digest`] when these are not the digests that `head` covers.
    pub fn read(head: SnapshotHead, contents: &[u8], digester: &Digester) -> Result<Self, SnapshotError> {
        let (digests, rest) = contents.as_chunks::<32>();
        if digests.len() != head.pieces() || !rest.is_empty() {
            return Err(SnapshotError::Digest);
        }
        let digests: Vec<Digest> = digests.iter().map(|digest| Digest::from_bytes(*digest)).collect();
        let (clients, state) = digests.split_at(head.client_count as usize);
        let is_covered =
            clients_digest(clients, digester) == head.clients && state_digest(state, digester) == head.state;
        match is_covered {
            true => Ok(Self {
                head,
                pieces: StateDescriptor::new(digests),
            }),
            false => Err(SnapshotError::Digest),
        }
    }

    /// Whether these are the contents of the piece.
    #[must_use]
    pub fn covers(&self, piece: usize, bytes: &[u8], digester: &Digester) -> bool {
        let is_client = piece < self.head.client_count as usize;
        let domain = if is_client {
            Domain::ClientTable
        } else {
            Domain::State
        };
        self.pieces.digests().get(piece) == Some(&digester.digest(domain, bytes))
    }

    /// How many pieces there are.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.pieces.digests().len()
    }

    /// What the pieces are.
    #[must_use]
    pub fn descriptor(&self) -> &StateDescriptor {
        &self.pieces
    }

    /// What the pieces are, as an index chunk has it. Nothing is checked.
    #[must_use]
    pub fn peek(contents: &[u8]) -> StateDescriptor {
        let (digests, _) = contents.as_chunks::<32>();
        StateDescriptor::new(digests.iter().map(|digest| Digest::from_bytes(*digest)).collect())
    }
}

/// A chunk with an index that came in slices.
#[must_use]
pub fn whole_index(contents: &[u8]) -> Vec<u8> {
    [&[INDEX][..], contents].concat()
}

/// What is sent of a chunk with an index, from `offset` of its contents on: itself if it is short, or else
/// slices, about `bytes_max` bytes of them.
#[must_use]
pub fn index_slices(chunk: Vec<u8>, offset: u64, bytes_max: usize) -> Vec<Vec<u8>> {
    if chunk.len() <= IMAGE_CHUNK_BYTES && offset == 0 {
        return vec![chunk];
    }
    let contents = chunk.get(1..).unwrap_or_default();
    let start = usize::try_from(offset).map_or(contents.len(), |offset| offset.min(contents.len()));
    let count = bytes_max.div_ceil(IMAGE_CHUNK_BYTES);
    let slices = (start..contents.len()).step_by(IMAGE_CHUNK_BYTES).take(count);
    slices
        .map(|from| {
            let to = contents.len().min(from + IMAGE_CHUNK_BYTES);
            let offset = (from as u64).to_le_bytes();
            [&[INDEX_SLICE][..], &offset, &contents[from..to]].concat()
        })
        .collect()
}

/// The digest of a client table whose entries have these.
pub(crate) fn clients_digest(entries: &[Digest], digester: &Digester) -> Digest {
    digester.digest_of_digests(Domain::ClientTable, entries)
}

/// The digest of a state whose pieces have these digests, whatever kind of state it is.
#[must_use]
pub fn state_digest(pieces: &[Digest], digester: &Digester) -> Digest {
    digester.digest_of_digests(Domain::State, pieces)
}

/// What one chunk is.
#[derive(Debug)]
pub enum SnapshotChunk<'a> {
    /// The head.
    Head(SnapshotHead),
    /// The contents of the index; [`SnapshotIndex::read`] reads them.
    Index(&'a [u8]),
    /// Some pieces.
    Pieces(Pieces<'a>),
    /// A slice of a long piece.
    Slice(Slice<'a>),
    /// A slice of a long index: where it starts in the contents of the index, and its bytes.
    IndexSlice(u64, &'a [u8]),
}

/// A slice of a long piece.
#[derive(Debug, Clone, Copy)]
pub struct Slice<'a> {
    /// The number of the piece.
    pub piece: usize,
    /// How long the whole piece is.
    pub length: u64,
    /// Where the slice starts.
    pub offset: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl<'a> SnapshotChunk<'a> {
    /// How many bytes at the start of a chunk say which pieces are in it.
    pub const START_BYTES: usize = 1 + 4 + 8 + 8;

    /// How many bytes a chunk with a head has.
    pub const HEAD_CHUNK_BYTES: usize = 1 + HEAD_BYTES;

    /// Whether a chunk is a head, by its first bytes.
    #[must_use]
    pub fn is_head(bytes: &[u8]) -> bool {
        bytes.first() == Some(&HEAD)
    }

    /// The first piece in a chunk, and where in this piece it starts, out of the chunk's first bytes. `None`
    /// for head and index.
    #[must_use]
    pub fn start(bytes: &[u8]) -> Option<(usize, u64)> {
        let (kind, mut contents) = bytes.split_first()?;
        match *kind {
            PIECES => Some((u32::from_le_bytes(take(&mut contents)?) as usize, 0)),
            SLICE => {
                let piece = u32::from_le_bytes(take(&mut contents)?) as usize;
                let _length: [u8; 8] = take(&mut contents)?;
                Some((piece, u64::from_le_bytes(take(&mut contents)?)))
            }
            _ => None,
        }
    }

    /// What a chunk is.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(chunk: &'a [u8]) -> Result<Self, SnapshotError> {
        let (kind, mut contents) = chunk.split_first().ok_or(SnapshotError::Kind)?;
        match *kind {
            HEAD => SnapshotHead::from_bytes(contents)
                .map(Self::Head)
                .ok_or(SnapshotError::Head),
            INDEX => Ok(Self::Index(contents)),
            PIECES => {
                let first = take(&mut contents)
                    .map(u32::from_le_bytes)
                    .ok_or(SnapshotError::State)?;
                let pieces = Pieces {
                    next: first as usize,
                    rest: contents,
                };
                // Lengths are checked here, so that going through them cannot fail.
                match pieces.clone().map(|(_, bytes)| 4 + bytes.len()).sum::<usize>() == contents.len() {
                    true => Ok(Self::Pieces(pieces)),
                    false => Err(SnapshotError::State),
                }
            }
            SLICE => Slice::parse(contents)
                .map(Self::Slice)
                .ok_or(SnapshotError::State),
            INDEX_SLICE => match take(&mut contents).map(u64::from_le_bytes) {
                Some(offset) => Ok(Self::IndexSlice(offset, contents)),
                None => Err(SnapshotError::Kind),
            },
            _ => Err(SnapshotError::Kind),
        }
    }

    /// The numbers of the first piece in this chunk and of the first after it, if it has whole pieces or a
    /// slice.
    #[must_use]
    pub fn range(&self) -> Option<(usize, usize)> {
        match self {
            Self::Pieces(pieces) => Some((pieces.next, pieces.next + pieces.clone().count())),
            Self::Slice(slice) => {
                let is_last = slice.offset + slice.bytes.len() as u64 == slice.length;
                Some((slice.piece, slice.piece + usize::from(is_last)))
            }
            _ => None,
        }
    }
}

impl<'a> Slice<'a> {
    fn parse(mut contents: &'a [u8]) -> Option<Self> {
        let piece = u32::from_le_bytes(take(&mut contents)?) as usize;
        let length = u64::from_le_bytes(take(&mut contents)?);
        let offset = u64::from_le_bytes(take(&mut contents)?);
        let slice = Self {
            piece,
            length,
            offset,
            bytes: contents,
        };
        let is_inside = length <= PIECE_BYTES_MAX && offset.checked_add(contents.len() as u64)? <= length;
        is_inside.then_some(slice)
    }
}

/// The pieces in a chunk, each with its number.
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    next: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        self.next += 1;
        Some((self.next - 1, bytes))
    }
}

/// Makes chunks of pieces, in the order in which they are given.
#[derive(Debug, Default)]
pub struct PieceWriter {
    chunks: Vec<Vec<u8>>,
    /// The piece that may be added to the last chunk.
    next: Option<usize>,
}

impl PieceWriter {
    /// Adds a piece.
    pub fn write(&mut self, piece: usize, bytes: &[u8]) {
        if bytes.len() > IMAGE_CHUNK_BYTES {
            self.next = None;
            for (number, slice) in bytes.chunks(IMAGE_CHUNK_BYTES).enumerate() {
                let offset = number * IMAGE_CHUNK_BYTES;
                self.chunks.push(slice_chunk(piece, bytes.len(), offset, slice));
            }
            return;
        }
        let has_room = self
            .chunks
            .last()
            .is_some_and(|chunk| chunk.len() < IMAGE_CHUNK_BYTES);
        if self.next != Some(piece) || !has_room {
            let mut chunk = vec![PIECES];
            chunk.extend_from_slice(&(piece as u32).to_le_bytes());
            self.chunks.push(chunk);
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            chunk.extend_from_slice(bytes);
        }
        self.next = Some(piece + 1);
    }

    /// The chunks.
    #[must_use]
    pub fn finish(self) -> Vec<Vec<u8>> {
        self.chunks
    }
}

/// The chunk with a slice of a long piece.
pub(crate) fn slice_chunk(piece: usize, length: usize, offset: usize, slice: &[u8]) -> Vec<u8> {
    let mut chunk = vec![SLICE];
    chunk.extend_from_slice(&(piece as u32).to_le_bytes());
    chunk.extend_from_slice(&(length as u64).to_le_bytes());
    chunk.extend_from_slice(&(offset as u64).to_le_bytes());
    chunk.extend_from_slice(slice);
    chunk
}

/// Puts pieces together that came in slices, and checks every piece against the index.
#[derive(Debug, Default)]
pub struct PieceReader {
    /// The piece whose slices are being put together, its length and what came of it.
    slices: Option<(usize, u64, Vec<u8>)>,
}

impl PieceReader {
    /// How many bytes of a piece in slices have come.
    #[must_use]
    pub fn partial_bytes(&self) -> u64 {
        self.slices.as_ref().map_or(0, |(.., bytes)| bytes.len() as u64)
    }

    /// Hands every whole piece of a chunk to `each`, after it was checked.
    ///
    /// # Errors
    /// When a piece is not the one that the index covers, or what `each` says.
    pub fn read(
        &mut self,
        index: &SnapshotIndex,
        chunk: SnapshotChunk<'_>,
        digester: &Digester,
        mut each: impl FnMut(usize, &[u8]) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let mut checked = |piece: usize, bytes: &[u8]| match index.covers(piece, bytes, digester)
            || (piece < index.pieces()
                && (active(Mutant::ChunkUnchecked) || active(Mutant::SnapshotUnchecked)))
        {
            true => each(piece, bytes),
            false => Err(SnapshotError::Digest),
        };
        match chunk {
            SnapshotChunk::Pieces(mut pieces) => pieces.try_for_each(|(piece, bytes)| checked(piece, bytes)),
            SnapshotChunk::Slice(slice) => {
                let known = self.slices.as_ref().filter(|(piece, ..)| *piece == slice.piece);
                if known
                    .is_some_and(|(.., known)| slice.offset + slice.bytes.len() as u64 <= known.len() as u64)
                {
                    // Twice: what an earlier attempt had kept of a long piece lies beside the whole of it.
                    return Ok(());
                }
                if slice.offset == 0 {
                    self.slices = Some((slice.piece, slice.length, Vec::new()));
                }
                let (piece, length, bytes) = self.slices.as_mut().ok_or(SnapshotError::State)?;
                if (*piece, *length, bytes.len() as u64) != (slice.piece, slice.length, slice.offset) {
                    return Err(SnapshotError::State);
                }
                bytes.extend_from_slice(slice.bytes);
                if slice.length > bytes.len() as u64 {
                    return Ok(());
                }
                let (piece, _, bytes) = self.slices.take().ok_or(SnapshotError::State)?;
                checked(piece, &bytes)
            }
            SnapshotChunk::Head(_) | SnapshotChunk::Index(_) | SnapshotChunk::IndexSlice(..) => {
                Err(SnapshotError::Kind)
            }
        }
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}
