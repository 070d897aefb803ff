use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::ImageError;
use super::window::{CLIENT_WINDOW, SequenceWindow, Standing};
use crate::crypto::{Digester, Domain};
use crate::messages::FrameKey;
use crate::mutants::{Mutant, active};
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
        if active(Mutant::DedupSkipped) {
            return Standing::Fresh;
        }
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

    /// What is known of each client's frames.
    pub(super) fn windows(&self) -> Vec<SequenceWindow> {
        self.entries.iter().map(|entry| entry.window).collect()
    }

    /// Appends one client's entry: number, window, and each reply after its frame's number and its length.
    pub(super) fn write_entry(&self, client: usize, out: &mut Vec<u8>) {
        let entry = &self.entries[client];
        out.extend_from_slice(&(client as u32).to_le_bytes());
        out.extend_from_slice(&entry.window.to_bytes());
        out.extend_from_slice(&(entry.replies.len() as u32).to_le_bytes());
        for (sequence, reply) in &entry.replies {
            out.extend_from_slice(&sequence.get().to_le_bytes());
            out.extend_from_slice(&(reply.len() as u32).to_le_bytes());
            out.extend_from_slice(reply);
        }
    }

    /// Reads the entry that was written of `client`.
    pub(super) fn read_entry(&mut self, client: usize, mut bytes: &[u8]) -> Result<(), ImageError> {
        let bytes = &mut bytes;
        let number = u32::from_le_bytes(take(bytes)?) as usize;
        let window = SequenceWindow::from_bytes(take(bytes)?);
        let replies = u32::from_le_bytes(take(bytes)?);
        let mut entry = Entry {
            window,
            ..Entry::default()
        };
        for _ in 0..replies {
            let sequence = FrameSeq::new(u64::from_le_bytes(take(bytes)?));
            let length = u32::from_le_bytes(take(bytes)?) as usize;
            let (reply, rest) = bytes.split_at_checked(length).ok_or(ImageError::Clients)?;
            *bytes = rest;
            entry.reply_bytes += length;
            entry.replies.push_back((sequence, Bytes::copy_from_slice(reply)));
        }
        let is_sound = number == client
            && bytes.is_empty()
            && entry.replies.len() <= CLIENT_WINDOW as usize
            && entry.replies.iter().is_sorted_by_key(|(sequence, _)| *sequence);
        if !is_sound {
            return Err(ImageError::Clients);
        }
        *self.entries.get_mut(client).ok_or(ImageError::Clients)? = Arc::new(entry);
        Ok(())
    }

    /// The digest of what [`write_entry`](Self::write_entry) writes, and how many bytes were hashed for it.
    pub(super) fn entry_digest(&self, client: usize, digester: &Digester) -> (Digest, usize) {
        let entry = &self.entries[client];
        let mut hasher = digester.hasher(Domain::ClientTable);
        hasher.update(&(client as u32).to_le_bytes());
        hasher.update(&entry.window.to_bytes());
        hasher.update(&(entry.replies.len() as u32).to_le_bytes());
        let mut bytes = 64;
        for (sequence, reply) in &entry.replies {
            hasher.update(&sequence.get().to_le_bytes());
            hasher.update(&(reply.len() as u32).to_le_bytes());
            hasher.update(reply);
            bytes += reply.len() + 16;
        }
        (Digest::from_bytes(*hasher.finalize().as_bytes()), bytes)
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], ImageError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(ImageError::Clients)?;
    *bytes = rest;
    Ok(*head)
}
