use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::window::{CLIENT_WINDOW, SequenceWindow, Standing};
use crate::crypto::{Digester, Domain};
use crate::messages::FrameKey;
use crate::types::{ClientId, Digest, FrameSeq};

/// What is remembered of one client.
#[derive(Debug, Clone, Default)]
struct Entry {
    window: SequenceWindow,
    /// The replies of the newest frames, in the order of their numbers: those inside the window, as far as they fit.
    replies: VecDeque<(FrameSeq, Bytes)>,
    reply_bytes: usize,
}

/// How many bytes of replies are remembered of one client; the newest of its frames keeps its reply whatever its
/// length. Equal at every replica, as the replies are part of checkpoints.
pub const CLIENT_REPLY_BYTES_MAX: usize = 8 << 20;

impl Entry {
    fn record(&mut self, sequence: FrameSeq, reply: Bytes) {
        self.window.record(sequence);
        self.reply_bytes += reply.len();
        let behind = self.replies.partition_point(|(other, _)| *other < sequence);
        self.replies.insert(behind, (sequence, reply));
        while self.replies.len() > CLIENT_WINDOW as usize
            || (self.reply_bytes > CLIENT_REPLY_BYTES_MAX && self.replies.len() > 1)
        {
            let forgotten = self.replies.pop_front();
            self.reply_bytes -= forgotten.map_or(0, |(_, reply)| reply.len());
        }
    }
}

/// Which frames of which client were executed, and their replies: what makes execution exactly-once. Part of
/// every checkpoint.
///
/// Clients are few and numbered from zero (the configuration lists them), so the table is an array. Entries
/// are shared with frozen copies and copied when they are next written.
#[derive(Debug, Clone)]
pub struct ClientTable {
    entries: Vec<Arc<Entry>>,
}

impl ClientTable {
    /// A table for clients `0..clients`.
    #[must_use]
    pub fn new(clients: usize) -> Self {
        Self {
            entries: (0..clients).map(|_| Arc::default()).collect(),
        }
    }

    /// Whether a frame may be executed. A client outside the table has only stale frames.
    #[must_use]
    pub fn standing(&self, key: FrameKey) -> Standing {
        self.entry(key.client)
            .map_or(Standing::Stale, |entry| entry.window.check(key.sequence))
    }

    /// Records an executed frame with its reply.
    pub fn record(&mut self, key: FrameKey, reply: Bytes) {
        let Some(entry) = self.entries.get_mut(key.client.get() as usize) else {
            return;
        };
        Arc::make_mut(entry).record(key.sequence, reply);
    }

    /// The reply of an executed frame, while it is remembered.
    #[must_use]
    pub fn reply(&self, key: FrameKey) -> Option<&Bytes> {
        let entry = self.entry(key.client)?;
        let found = entry
            .replies
            .binary_search_by_key(&key.sequence, |(sequence, _)| *sequence);
        found.ok().map(|place| &entry.replies[place].1)
    }

    fn entry(&self, client: ClientId) -> Option<&Entry> {
        self.entries.get(client.get() as usize).map(Arc::as_ref)
    }

    /// How many clients the table has.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.entries.len()
    }

    /// The digest of one client's entry, and how many bytes were hashed for it.
    pub(super) fn entry_digest(&self, client: usize, digester: &Digester) -> (Digest, usize) {
        let entry = &self.entries[client];
        let mut hasher = digester.hasher(Domain::ClientTable);
        hasher.update(&(client as u64).to_le_bytes());
        hasher.update(&entry.window.to_bytes());
        let mut bytes = 64;
        for (sequence, reply) in &entry.replies {
            hasher.update(&sequence.get().to_le_bytes());
            hasher.update(&(reply.len() as u64).to_le_bytes());
            hasher.update(reply);
            bytes += reply.len() + 16;
        }
        (Digest::from_bytes(*hasher.finalize().as_bytes()), bytes)
    }
}
