//! Evidence: what each peer and client sent that was refused, as this replica saw it.
//!
//! Kept by peer and kind: how often, when last, the digest of one such message, and the message itself where
//! its sender signed it. A peer is who a handshake proved; strangers are counted by reason alone
//! ([`ControlCounters`](crate::runtime::shard::control::ControlCounters)). All of it is in memory, and gone
//! with the process.
//!
//! **What it is worth.** A kind that [speaks against](EvidenceKind::speaks_against) its sender is one that no
//! correct peer causes, however slow the network. It convinces whoever trusts this replica. Only a signed
//! message convinces others: those of views and checkpoints are. Votes and proposals are not, and a frame is
//! refused before anybody has seen that its signature holds.
//!
//! **What it costs.** Nothing, unless something is refused. Then a short lock, for which no shard waits: what
//! finds it held is counted as [missed](Evidence::missed). A message is hashed, and copied if it is signed,
//! the first time that its sender is refused for this reason and then once a second for each peer.
//!
//! **What it takes at most.** For each replica, and for each of [`CLIENTS_MAX`] clients, an entry for each
//! kind; for each replica one signed message of [`MESSAGE_BYTES_MAX`]. One more client takes the place of the
//! one that was refused least recently. Each sort has a lock of its own: clients that are refused all the time
//! hide nothing of what replicas do.

mod kind;
mod told;

pub use kind::EvidenceKind;
pub use told::{EvidenceReport, EvidenceRow, PeerEvidence};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::SystemTime;

use crate::smr::types::{Digest, Peer, SeqNo, View};

/// Clients of which evidence is kept.
pub const CLIENTS_MAX: usize = 256;
/// A longer signed message is not kept, as a part of one proves nothing.
pub const MESSAGE_BYTES_MAX: usize = 32 << 10;
/// A longer message is not hashed.
const HASHED_BYTES_MAX: usize = 1 << 20;
/// A message of each peer is looked at so often, beside the first of each kind.
const LOOK_MS: u64 = 1000;
/// How often a shard tries a lock that is held, for a time that is hardly longer than what is done under it.
const TRIES: u32 = 64;

/// What was refused, as far as whoever refused it still has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Exhibit<'a> {
    /// The digest by which replicas name it: a frame's, or a batch's. Without one, that of the message is
    /// computed: BLAKE3 of all its bytes.
    pub digest: Option<Digest>,
    /// The message, envelope included.
    pub message: Option<&'a [u8]>,
    /// Whether its sender signed it.
    pub is_signed: bool,
    /// The view and decision that it is about.
    pub place: Option<(View, SeqNo)>,
}

/// What is known of one kind.
#[derive(Debug, Clone, Copy)]
struct Entry {
    count: u64,
    last_ms: u64,
    digest: Option<Digest>,
    place: Option<(View, SeqNo)>,
}

/// A signed message, whole.
#[derive(Debug, Clone)]
struct Kept {
    code: u8,
    bytes: Arc<[u8]>,
}

/// What is known of one peer.
#[derive(Debug, Clone, Default)]
struct Record {
    /// By the code of its kind.
    entries: BTreeMap<u8, Entry>,
    kept: Option<Kept>,
    last_ms: u64,
    looked_ms: u64,
}

type Records = BTreeMap<Peer, Record>;

/// The evidence of one replica. Written by its shards, read by anybody.
#[derive(Debug, Default)]
pub struct Evidence {
    replicas: Mutex<Records>,
    clients: Mutex<Records>,
    missed: AtomicU64,
    forgotten: AtomicU64,
}

/// The lock, unless it is held for long.
fn try_lock(records: &Mutex<Records>) -> Option<MutexGuard<'_, Records>> {
    for _ in 0..TRIES {
        match records.try_lock() {
            Ok(records) => return Some(records),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
        }
    }
    None
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

impl Evidence {
    /// So many times something of this peer's was refused, and it may look like this.
    pub fn note(&self, peer: Peer, kind: EvidenceKind, times: u64, exhibit: Exhibit<'_>) {
        self.note_at(unix_ms(), peer, kind, times, exhibit);
    }

    fn records(&self, peer: Peer) -> &Mutex<Records> {
        match peer {
            Peer::Replica(_) => &self.replicas,
            Peer::Client(_) => &self.clients,
        }
    }

    fn note_at(&self, now_ms: u64, peer: Peer, kind: EvidenceKind, times: u64, exhibit: Exhibit<'_>) {
        let records = self.records(peer);
        let Some(mut locked) = try_lock(records) else {
            self.missed.fetch_add(times, Ordering::Relaxed);
            return;
        };
        self.make_room(&mut locked, peer);
        let record = locked.entry(peer).or_default();
        let looks = record.count(now_ms, kind, times, &exhibit);
        drop(locked);
        let Some(message) = exhibit.message.filter(|_| looks) else {
            return;
        };
        // Without the lock: it takes as long as the message is.
        let is_hashed = exhibit.digest.is_none() && message.len() <= HASHED_BYTES_MAX;
        let digest = is_hashed.then(|| Digest::from_bytes(*blake3::hash(message).as_bytes()));
        let is_signed = exhibit.is_signed && matches!(peer, Peer::Replica(_));
        let is_kept = is_signed && message.len() <= MESSAGE_BYTES_MAX;
        let kept = is_kept.then(|| Kept {
            code: kind.code(),
            bytes: message.into(),
        });
        if let Some(mut locked) = try_lock(records)
            && let Some(record) = locked.get_mut(&peer)
        {
            let replaced = record.exhibit(kind, digest, kept);
            drop(locked);
            drop(replaced);
        }
    }

    /// Has the client that was refused least recently make room for one that is new.
    fn make_room(&self, records: &mut Records, peer: Peer) {
        let is_new_client = matches!(peer, Peer::Client(_)) && !records.contains_key(&peer);
        if !is_new_client || records.len() < CLIENTS_MAX {
            return;
        }
        let oldest = records.iter().min_by_key(|(_, record)| record.last_ms);
        if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
            records.remove(&oldest);
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many refusals are not in it, because it was being read or written.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// How many times a client's evidence made room for another one's.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// How often each kind of one peer was refused, by its code.
    fn counts(&self, peer: Peer) -> Vec<(u8, u64)> {
        let records = self.records(peer).lock().unwrap_or_else(PoisonError::into_inner);
        let entries = records.get(&peer).into_iter().flat_map(|record| &record.entries);
        entries.map(|(code, entry)| (*code, entry.count)).collect()
    }

    /// All there is, of one peer after the other, replicas first.
    fn copy(&self) -> Vec<(Peer, Record)> {
        let copy = |records: &Mutex<Records>| {
            let records = records.lock().unwrap_or_else(PoisonError::into_inner);
            records.clone()
        };
        copy(&self.replicas)
            .into_iter()
            .chain(copy(&self.clients))
            .collect()
    }
}

impl Record {
    /// Whether the message is worth a look.
    fn count(&mut self, now_ms: u64, kind: EvidenceKind, times: u64, exhibit: &Exhibit<'_>) -> bool {
        let is_first = !self.entries.contains_key(&kind.code());
        let entry = self.entries.entry(kind.code()).or_insert(Entry {
            count: 0,
            last_ms: now_ms,
            digest: None,
            place: None,
        });
        entry.count = entry.count.saturating_add(times);
        entry.last_ms = now_ms;
        entry.digest = exhibit.digest.or(entry.digest);
        entry.place = exhibit.place.or(entry.place);
        self.last_ms = now_ms;
        let looks = is_first || now_ms.saturating_sub(self.looked_ms) >= LOOK_MS;
        if looks {
            self.looked_ms = now_ms;
        }
        looks
    }

    /// What the look has brought. The message that made room for another one.
    fn exhibit(&mut self, kind: EvidenceKind, digest: Option<Digest>, kept: Option<Kept>) -> Option<Kept> {
        if let Some(entry) = self.entries.get_mut(&kind.code()) {
            entry.digest = digest.or(entry.digest);
        }
        match kept {
            Some(kept) => self.kept.replace(kept),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests;
