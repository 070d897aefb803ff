use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::SnapshotError;
use super::sessions::{Session, Sessions};
use super::window::{CLIENT_WINDOW, FrameStatus, SequenceWindow};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::{FrameId, FrameKey, RefusalReason};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{ClientId, Digest};

/// A frame that was executed.
#[derive(Debug, Clone)]
struct Executed {
    number: u64,
    /// Of what was asked.
    digest: Digest,
    /// The reply; empty once it is forgotten.
    reply: Bytes,
}

/// The newest frames of a session, in the order of their numbers: those inside its window.
#[derive(Debug, Clone, Default)]
struct Replies {
    executed: VecDeque<Executed>,
    bytes: usize,
}

impl Replies {
    fn find(&self, number: u64) -> Option<&Executed> {
        let found = self
            .executed
            .binary_search_by_key(&number, |executed| executed.number);
        found.ok().map(|place| &self.executed[place])
    }

    fn insert(&mut self, executed: Executed) {
        self.bytes += executed.reply.len();
        let behind = self
            .executed
            .partition_point(|other| other.number < executed.number);
        self.executed.insert(behind, executed);
        if self.executed.len() > CLIENT_WINDOW as usize {
            let forgotten = self.executed.pop_front();
            self.bytes -= forgotten.map_or(0, |executed| executed.reply.len());
        }
    }

    /// Forgets the oldest reply that is there, if it is not the only one; how many bytes that frees.
    fn forget(&mut self, may_forget_all: bool) -> usize {
        let mut there = self
            .executed
            .iter_mut()
            .filter(|executed| !executed.reply.is_empty());
        let oldest = there.next();
        if !may_forget_all && there.next().is_none() {
            return 0;
        }
        let freed = oldest.map_or(0, |executed| std::mem::take(&mut executed.reply).len());
        self.bytes -= freed;
        freed
    }
}

/// What is remembered of one client.
#[derive(Debug, Clone, Default)]
struct Entry {
    sessions: Sessions<Replies>,
    reply_bytes: usize,
}

/// How many bytes of replies are remembered of one client; the newest of the frames executed last keeps its
/// reply whatever its length. Equal at every replica, as the replies are part of checkpoints.
pub const CLIENT_REPLY_BYTES_MAX: usize = 8 << 20;

impl Entry {
    fn record(&mut self, frame: &FrameId, reply: Bytes) {
        let sequence = frame.key.sequence;
        if self.sessions.check(sequence) != FrameStatus::Fresh {
            return;
        }
        let ended = self.sessions.record_with(sequence);
        self.reply_bytes -= ended.map_or(0, |session| session.kept.bytes);
        if let Some(latest) = self.sessions.live_mut().last_mut() {
            let before = latest.kept.bytes;
            latest.kept.insert(Executed {
                number: sequence.number(),
                digest: frame.digest,
                reply,
            });
            self.reply_bytes = self.reply_bytes - before + latest.kept.bytes;
        }
        self.forget_replies();
    }

    /// Those of the session that executed nothing for longest go first.
    fn forget_replies(&mut self) {
        let live = self.sessions.live_mut();
        let last = live.len().saturating_sub(1);
        for (place, session) in live.iter_mut().enumerate() {
            while self.reply_bytes > CLIENT_REPLY_BYTES_MAX {
                match session.kept.forget(place < last) {
                    0 => break,
                    freed => self.reply_bytes -= freed,
                }
            }
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
    pub fn standing(&self, key: FrameKey) -> FrameStatus {
        if active(Mutant::DedupSkipped) {
            return FrameStatus::Fresh;
        }
        self.entry(key.client)
            .map_or(FrameStatus::Stale, |entry| entry.sessions.check(key.sequence))
    }

    /// Records an executed frame with its reply.
    pub fn record(&mut self, frame: &FrameId, reply: Bytes) {
        let Some(entry) = self.entries.get_mut(frame.key.client.get() as usize) else {
            return;
        };
        Arc::make_mut(entry).record(frame, reply);
    }

    /// The reply of a frame that was executed, or why there is none; `None` for one that may still be
    /// executed.
    #[must_use]
    pub fn reply(&self, frame: &FrameId) -> Option<Result<&Bytes, RefusalReason>> {
        let (entry, sequence) = (self.entry(frame.key.client)?, frame.key.sequence);
        match entry.sessions.check(sequence) {
            FrameStatus::Fresh => return None,
            FrameStatus::Stale => return Some(Err(RefusalReason::Stale)),
            FrameStatus::Ended => return Some(Err(RefusalReason::SessionEnded)),
            FrameStatus::Executed => {}
        }
        let session = entry.sessions.get(sequence.session());
        let executed = session.and_then(|session| session.kept.find(sequence.number()));
        Some(match executed {
            Some(executed) if executed.digest != frame.digest && !active(Mutant::NumberReuseAnswered) => {
                Err(RefusalReason::NumberUsed)
            }
            Some(executed) if !executed.reply.is_empty() => Ok(&executed.reply),
            _ => Err(RefusalReason::ResultsForgotten),
        })
    }

    /// No session of the client above this one has executed anything.
    #[must_use]
    pub fn highest_session(&self, client: ClientId) -> u64 {
        self.entry(client).map_or(0, |entry| entry.sessions.highest())
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
    pub(super) fn windows(&self) -> Vec<super::SessionWindows> {
        self.entries
            .iter()
            .map(|entry| entry.sessions.windows())
            .collect()
    }

    /// Gives the bytes of one client's entry to `emit`: number, sessions; of each its window and its frames,
    /// each with number, digest, and length and bytes of the reply.
    fn emit_entry(&self, client: usize, mut emit: impl FnMut(&[u8])) {
        let sessions = &self.entries[client].sessions;
        emit(&(client as u32).to_le_bytes());
        emit(&sessions.ended().to_le_bytes());
        emit(&sessions.highest().to_le_bytes());
        emit(&(sessions.live().len() as u32).to_le_bytes());
        for session in sessions.live() {
            emit(&session.id.to_le_bytes());
            emit(&session.window.to_bytes());
            emit(&(session.kept.executed.len() as u32).to_le_bytes());
            for executed in &session.kept.executed {
                emit(&executed.number.to_le_bytes());
                emit(executed.digest.as_bytes());
                emit(&(executed.reply.len() as u32).to_le_bytes());
                emit(&executed.reply);
            }
        }
    }

    /// Appends one client's entry.
    pub(super) fn write_entry(&self, client: usize, out: &mut Vec<u8>) {
        self.emit_entry(client, |bytes| out.extend_from_slice(bytes));
    }

    /// Reads the entry that was written of `client`.
    pub(super) fn read_entry(&mut self, client: usize, mut bytes: &[u8]) -> Result<(), SnapshotError> {
        let bytes = &mut bytes;
        let number = u32::from_le_bytes(take(bytes)?) as usize;
        let ended = u64::from_le_bytes(take(bytes)?);
        let highest = u64::from_le_bytes(take(bytes)?);
        let (mut live, mut reply_bytes) = (Vec::new(), 0);
        for _ in 0..u32::from_le_bytes(take(bytes)?) {
            let session = read_session(bytes)?;
            reply_bytes += session.kept.bytes;
            live.push(session);
        }
        let sessions = Sessions::from_parts(live, ended, highest).ok_or(SnapshotError::Clients)?;
        if number != client || !bytes.is_empty() {
            return Err(SnapshotError::Clients);
        }
        let entry = Entry {
            sessions,
            reply_bytes,
        };
        *self.entries.get_mut(client).ok_or(SnapshotError::Clients)? = Arc::new(entry);
        Ok(())
    }

    /// The digest of what [`write_entry`](Self::write_entry) writes, and how many bytes were hashed for it.
    pub(super) fn entry_digest(&self, client: usize, digester: &Digester) -> (Digest, usize) {
        let (mut hasher, mut hashed) = (digester.hasher(Domain::ClientTable), 64);
        self.emit_entry(client, |bytes| {
            hasher.update(bytes);
            hashed += bytes.len();
        });
        (Digest::from_bytes(*hasher.finalize().as_bytes()), hashed)
    }
}

fn read_session(bytes: &mut &[u8]) -> Result<Session<Replies>, SnapshotError> {
    let id = u64::from_le_bytes(take(bytes)?);
    let window = SequenceWindow::from_bytes(take(bytes)?);
    let mut kept = Replies::default();
    for _ in 0..u32::from_le_bytes(take(bytes)?) {
        let number = u64::from_le_bytes(take(bytes)?);
        let digest = Digest::from_bytes(take(bytes)?);
        let length = u32::from_le_bytes(take(bytes)?) as usize;
        let (reply, rest) = bytes.split_at_checked(length).ok_or(SnapshotError::Clients)?;
        *bytes = rest;
        kept.bytes += length;
        kept.executed.push_back(Executed {
            number,
            digest,
            reply: Bytes::copy_from_slice(reply),
        });
    }
    let is_sound = kept.executed.len() <= CLIENT_WINDOW as usize
        && kept.executed.iter().is_sorted_by(|a, b| a.number < b.number);
    match is_sound {
        true => Ok(Session { id, window, kept }),
        false => Err(SnapshotError::Clients),
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], SnapshotError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(SnapshotError::Clients)?;
    *bytes = rest;
    Ok(*head)
}
