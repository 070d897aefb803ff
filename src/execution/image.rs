//! The contents of a checkpoint, as chunks: what snapshots on disk and state transfers carry.
//!
//! ```text
//!  chunk   1 byte kind │ contents
//!  kind 0  head: seq, epoch, chain, digest of the state, digest of the client table, number of clients
//!  kind 1  entries of the client table
//!  kind 2  a piece of the state, as the application's state writes it
//! ```
//!
//! A claim covers everything the head says, and the head's digests cover the rest: an image that reads without an error
//! and whose claim a quorum signed is that quorum's state.

use super::{ClientTable, MonolithicState};
use crate::crypto::{Digester, Domain};
use crate::decision_log::Chain;
use crate::messages::CheckpointClaim;
use crate::types::{Digest, Epoch, SeqNo};

const HEAD: u8 = 0;
const CLIENTS: u8 = 1;
const STATE: u8 = 2;

const HEAD_BYTES: usize = 8 + 8 + 3 * 32 + 4;

/// Why bytes are no image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
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

/// The contents of one checkpoint, to be written chunk by chunk.
pub trait CheckpointImage: Send + std::fmt::Debug {
    /// What the contents amount to.
    fn claim(&self) -> CheckpointClaim;

    /// Appends the next chunk, of about `budget_bytes`; false when there was none left.
    fn next_chunk(&mut self, budget_bytes: usize, chunk: &mut Vec<u8>) -> bool;
}

/// What a checkpoint claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub seq: SeqNo,
    pub epoch: Epoch,
    pub chain: Chain,
    pub state: Digest,
    pub clients: Digest,
    pub client_count: u32,
}

impl Head {
    fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&self.seq.get().to_le_bytes());
        bytes[8..16].copy_from_slice(&self.epoch.get().to_le_bytes());
        bytes[16..48].copy_from_slice(self.chain.head().as_bytes());
        bytes[48..80].copy_from_slice(self.state.as_bytes());
        bytes[80..112].copy_from_slice(self.clients.as_bytes());
        bytes[112..].copy_from_slice(&self.client_count.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.try_into().ok()?;
        let number = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        let digest = |at: usize| Some(Digest::from_bytes(bytes[at..at + 32].try_into().ok()?));
        Some(Self {
            seq: SeqNo::new(number(0)?),
            epoch: Epoch::new(number(8)?),
            chain: Chain::from_head(digest(16)?),
            state: digest(48)?,
            clients: digest(80)?,
            client_count: u32::from_le_bytes(bytes[112..].try_into().ok()?),
        })
    }

    pub(super) fn claim(&self, digester: &Digester) -> CheckpointClaim {
        CheckpointClaim {
            seq: self.seq,
            digest: digester.digest(Domain::Checkpoint, &self.to_bytes()),
        }
    }
}

/// The image of a monolithic state.
pub(super) struct Image<S: MonolithicState> {
    pub claim: CheckpointClaim,
    pub head: Head,
    pub state: S::Snapshot,
    pub clients: ClientTable,
    pub next: Next,
}

/// What is written next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Head,
    Client(usize),
    State,
}

impl<S: MonolithicState> std::fmt::Debug for Image<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}

impl<S: MonolithicState> CheckpointImage for Image<S> {
    fn claim(&self) -> CheckpointClaim {
        self.claim
    }

    fn next_chunk(&mut self, budget_bytes: usize, chunk: &mut Vec<u8>) -> bool {
        match self.next {
            Next::Head => {
                self.next = Next::Client(0);
                chunk.push(HEAD);
                chunk.extend_from_slice(&self.head.to_bytes());
                true
            }
            Next::Client(first) if first < self.clients.clients() => {
                let (start, mut client) = (chunk.len(), first);
                chunk.push(CLIENTS);
                while client < self.clients.clients() && chunk.len() - start < budget_bytes {
                    self.clients.write_entry(client, chunk);
                    client += 1;
                }
                self.next = Next::Client(client);
                true
            }
            Next::Client(_) | Next::State => {
                self.next = Next::State;
                chunk.push(STATE);
                let any = S::write_chunk(&mut self.state, budget_bytes, chunk);
                if !any {
                    chunk.pop();
                }
                any
            }
        }
    }
}

/// What one chunk is.
pub(super) enum Chunk<'a> {
    Head(Head),
    Clients(&'a [u8]),
    State(&'a [u8]),
}

impl<'a> Chunk<'a> {
    pub(super) fn parse(chunk: &'a [u8]) -> Result<Self, ImageError> {
        let (kind, contents) = chunk.split_first().ok_or(ImageError::Kind)?;
        match *kind {
            HEAD => Head::from_bytes(contents).map(Self::Head).ok_or(ImageError::Head),
            CLIENTS => Ok(Self::Clients(contents)),
            STATE => Ok(Self::State(contents)),
            _ => Err(ImageError::Kind),
        }
    }
}
