//! The contents of a checkpoint as execution writes them, in the [chunks](crate::smr::messages::SnapshotChunk)
//! that snapshots on disk and state transfers carry.

use super::guard::LetGo;
use super::{ClientTable, MonolithicState};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::snapshot::{INDEX, PIECES, slice_chunk};
use crate::smr::messages::{CheckpointClaim, SnapshotHead};
use crate::smr::types::Digest;

/// The contents of one checkpoint, to be written chunk by chunk.
pub trait CheckpointSnapshot: Send + std::fmt::Debug {
    /// What the contents amount to.
    fn claim(&self) -> CheckpointClaim;

    /// Whether the epoch cannot end before the contents are on disk: it is the checkpoint that closes it. They are
    /// kept however long there is no room for them.
    fn is_needed(&self) -> bool {
        false
    }

    /// Appends the next chunk, of about `budget_bytes`; false when there was none left. Equal checkpoints
    /// give equal chunks for equal budgets, at every replica.
    fn next_chunk(&mut self, budget_bytes: usize, chunk: &mut Vec<u8>) -> bool;
}

/// The digests of a snapshot's pieces as they come, and that of the state, hashed along with them.
#[derive(Debug)]
pub(super) struct PieceDigests {
    pub pieces: Vec<Digest>,
    hasher: blake3::Hasher,
    piece_count: usize,
}

impl PieceDigests {
    pub fn new(piece_count: usize, digester: &Digester) -> Self {
        Self {
            pieces: Vec::with_capacity(piece_count),
            hasher: digester.hasher(Domain::State),
            piece_count,
        }
    }

    /// Does about `budget_bytes` of the work; the
    /// [digest of the state](crate::smr::messages::state_digest) once it is done.
    ///
    /// # Panics
    /// When the snapshot has other pieces than it said.
    pub fn step<S: MonolithicState>(
        &mut self,
        snapshot: &mut S::Snapshot,
        digester: &Digester,
        budget_bytes: usize,
    ) -> Option<Digest> {
        let hashed = self.pieces.len();
        let is_done = S::digest_step(snapshot, digester, budget_bytes, &mut self.pieces);
        self.pieces[hashed..].iter().for_each(|piece| {
            self.hasher.update(piece.as_bytes());
        });
        is_done.then(|| {
            assert_eq!(self.pieces.len(), self.piece_count, "each piece has one digest");
            Digest::from_bytes(*self.hasher.finalize().as_bytes())
        })
    }
}

/// The snapshot of a monolithic state.
pub(super) struct Snapshot<S: MonolithicState> {
    pub claim: CheckpointClaim,
    pub head: SnapshotHead,
    pub closes_epoch: bool,
    pub state: LetGo<S::Snapshot>,
    pub clients: ClientTable,
    pub client_digests: Vec<Digest>,
    pub piece_digests: Vec<Digest>,
    pub next: Next,
}

/// What is written next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Head,
    Index,
    Piece(usize),
    /// The rest of a long piece.
    Slice {
        piece: usize,
        bytes: Vec<u8>,
        offset: usize,
    },
}

impl<S: MonolithicState> std::fmt::Debug for Snapshot<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}

impl<S: MonolithicState> Snapshot<S> {
    fn write_index(&self, chunk: &mut Vec<u8>) {
        chunk.push(INDEX);
        for digest in self.client_digests.iter().chain(&self.piece_digests) {
            chunk.extend_from_slice(digest.as_bytes());
        }
    }

    fn write_piece(&mut self, piece: usize, out: &mut Vec<u8>) {
        match piece < self.clients.clients() {
            true => self.clients.write_entry(piece, out),
            false => S::write_piece(self.state.get_mut(), out),
        }
    }

    /// Writes whole pieces until the budget is spent. A piece that is longer goes on in slices.
    fn write_pieces(&mut self, first: usize, budget_bytes: usize, chunk: &mut Vec<u8>) -> Next {
        let (start, pieces) = (chunk.len(), self.head.pieces());
        chunk.push(PIECES);
        chunk.extend_from_slice(&(first as u32).to_le_bytes());
        let mut piece = first;
        while piece < pieces && chunk.len() - start < budget_bytes {
            let at = chunk.len();
            chunk.extend_from_slice(&[0; 4]);
            self.write_piece(piece, chunk);
            let length = chunk.len() - at - 4;
            if length > budget_bytes {
                let bytes = chunk.split_off(at + 4);
                chunk.truncate(at);
                let mut next = Next::Slice {
                    piece,
                    bytes,
                    offset: 0,
                };
                if piece == first {
                    chunk.truncate(start);
                    next = self.write_slice(next, budget_bytes, chunk);
                }
                return next;
            }
            chunk[at..at + 4].copy_from_slice(&(length as u32).to_le_bytes());
            piece += 1;
        }
        Next::Piece(piece)
    }

    fn write_slice(&mut self, slice: Next, budget_bytes: usize, chunk: &mut Vec<u8>) -> Next {
        let Next::Slice { piece, bytes, offset } = slice else {
            return slice;
        };
        let end = bytes.len().min(offset + budget_bytes.max(1));
        chunk.extend_from_slice(&slice_chunk(piece, bytes.len(), offset, &bytes[offset..end]));
        match end == bytes.len() {
            true => Next::Piece(piece + 1),
            false => Next::Slice {
                piece,
                bytes,
                offset: end,
            },
        }
    }
}

impl<S: MonolithicState> CheckpointSnapshot for Snapshot<S> {
    fn claim(&self) -> CheckpointClaim {
        self.claim
    }

    fn is_needed(&self) -> bool {
        self.closes_epoch
    }

    fn next_chunk(&mut self, budget_bytes: usize, chunk: &mut Vec<u8>) -> bool {
        self.next = match std::mem::replace(&mut self.next, Next::Head) {
            Next::Head => {
                chunk.extend_from_slice(&self.head.to_chunk());
                Next::Index
            }
            Next::Index => {
                self.write_index(chunk);
                Next::Piece(0)
            }
            Next::Piece(piece) if piece >= self.head.pieces() => {
                self.next = Next::Piece(piece);
                return false;
            }
            Next::Piece(piece) => self.write_pieces(piece, budget_bytes, chunk),
            slice @ Next::Slice { .. } => self.write_slice(slice, budget_bytes, chunk),
        };
        true
    }
}
