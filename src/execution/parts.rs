//! A key-value store in parts that are shared with snapshots and copied when they are next written.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::RandomState;

use super::part::Part;
use super::spares::{Room, Spares};
use super::{CheckpointHelp, ImageError, MonolithicState};
use crate::crypto::{Digester, Domain};
use crate::types::Digest;

/// How many parts a store has. At 1 GiB a part is 256 KiB: copying one on write takes well under a millisecond.
pub const PARTS: usize = 4096;

/// How many keys are touched together at most: an operation may have two.
const TOUCHED: usize = 2 * super::PREPARED_OPERATIONS;

/// The part of a key. Written out here, because it must be the same in every build of every version: part digests
/// depend on it. A client can choose keys of one part; that part is then slow to copy and digest, nothing else.
pub(super) fn place(key: &[u8], parts: usize) -> usize {
    let mut hash = key.len() as u64;
    let (words, rest) = key.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    for word in words.iter().chain([&last]) {
        // Multiply and fold, as in the finaliser of MurmurHash3 (Appleby, public domain).
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
    }
    hash as usize % parts
}

/// A map from byte strings to byte strings that can be frozen at any time.
///
/// Which part a key falls into is the same at every replica, because part digests are. Inside a part the table
/// is hashed under a key of this process, so no client can choose keys that collide there.
#[derive(Debug)]
pub struct Partitioned<const P: usize> {
    parts: Vec<Arc<Part>>,
    table: RandomState,
    /// What the parts have together.
    size_bytes: u64,
    /// Where copies of parts go.
    spares: Arc<Spares>,
}

/// The store of as many parts as suit states up to gigabytes.
pub type PartitionedStore = Partitioned<PARTS>;

impl<const P: usize> Default for Partitioned<P> {
    fn default() -> Self {
        Self {
            parts: (0..P).map(|_| Arc::default()).collect(),
            table: RandomState::default(),
            size_bytes: 0,
            spares: Arc::new(Spares::new(P)),
        }
    }
}

impl<const P: usize> Partitioned<P> {
    /// Brings what the keys lead to closer to the processor: part, slot, record, one step for all keys after the other. No
    /// step of one key waits for another key's, so their cache misses overlap.
    pub(super) fn touch<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) {
        let mut ways = [(0, 0); TOUCHED];
        // What lies there does not matter, but the processor has to look.
        let (mut count, mut seen) = (0, 0);
        for (way, key) in ways.iter_mut().zip(keys) {
            let (place, tag) = (place(key.as_ref(), P), self.tag(key.as_ref()));
            *way = (place, tag);
            count += 1;
            seen ^= self.parts[place].touch();
        }
        for (place, tag) in &ways[..count] {
            seen ^= self.parts[*place].touch_slot(*tag);
        }
        for (place, tag) in &ways[..count] {
            seen ^= self.parts[*place].touch_record(*tag);
        }
        std::hint::black_box(seen);
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.parts[place(key, P)].get(self.tag(key), key)
    }

    /// Sets the value of `key`.
    ///
    /// # Panics
    /// When key or value are 4 GiB or longer, or one part passes 32 GiB.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let tag = self.tag(key);
        let place = place(key, P);
        let part = own(&mut self.parts[place], place, &self.spares);
        let before = part.size_bytes();
        part.put(tag, key, value);
        self.size_bytes = self.size_bytes - before + part.size_bytes();
    }

    /// Removes `key`; true if it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let tag = self.tag(key);
        let place = place(key, P);
        // A part is not copied for a key that is not there.
        if self.parts[place].get(tag, key).is_none() {
            return false;
        }
        let part = own(&mut self.parts[place], place, &self.spares);
        let before = part.size_bytes();
        part.delete(tag, key);
        self.size_bytes = self.size_bytes - before + part.size_bytes();
        true
    }

    fn tag(&self, key: &[u8]) -> u32 {
        self.table.hash_one(key) as u32
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.len() == 0)
    }
}

/// A frozen [`PartitionedStore`], as far as its digest has not come yet. Parts are let go as they are digested: from
/// then on they are written in place again, and the end of a snapshot frees nothing large.
#[derive(Debug)]
pub struct PartsSnapshot {
    parts: HeldParts,
    /// Of them those that help has digested count until they are passed.
    left_bytes: usize,
    /// Bytes that help has digested.
    helped_bytes: Arc<AtomicUsize>,
    hasher: Option<blake3::Hasher>,
}

/// The parts that a snapshot still has. What the last one to have a part lets go is memory for copies.
#[derive(Debug, Clone)]
struct HeldParts {
    /// The number of the first.
    first: usize,
    parts: VecDeque<Arc<Part>>,
    spares: Arc<Spares>,
}

impl HeldParts {
    /// Does something with the first part, and lets it go.
    fn pass_first<T>(&mut self, pass: impl FnOnce(&Part) -> T) -> Option<T> {
        let part = self.parts.pop_front()?;
        let passed = pass(&part);
        release(part, self.first, &self.spares);
        self.first += 1;
        Some(passed)
    }

    /// Does something with the last part, and lets it go.
    fn pass_last<T>(&mut self, pass: impl FnOnce(&Part) -> T) -> Option<T> {
        let part = self.parts.pop_back()?;
        let passed = pass(&part);
        release(part, self.first + self.parts.len(), &self.spares);
        Some(passed)
    }
}

impl Drop for HeldParts {
    fn drop(&mut self) {
        while self.pass_first(|_| ()).is_some() {}
    }
}

/// A part to write to: a copy of its own if a snapshot has it too.
fn own<'a>(part: &'a mut Arc<Part>, index: usize, spares: &Spares) -> &'a mut Part {
    // Snapshots are taken by whoever writes, so meanwhile there can only be fewer of them.
    if Arc::strong_count(part) > 1 {
        let copy = spares.copy(index, part);
        release(std::mem::replace(part, copy), index, spares);
    }
    Arc::make_mut(part)
}

/// Lets a part go.
fn release(part: Arc<Part>, index: usize, spares: &Spares) {
    if let Some(last) = Arc::into_inner(part) {
        spares.give(index, last);
    }
}

/// What going on to the next part counts as.
const STEP_BYTES: usize = 32;

/// A key, its value, and the bytes behind them.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// The pair that a part's bytes begin with, and what follows.
fn split_pair(bytes: &[u8]) -> Result<Split<'_>, ImageError> {
    let (lengths, rest) = bytes.split_at_checked(8).ok_or(ImageError::State)?;
    let (lengths, _) = lengths.as_chunks::<4>();
    let [key_bytes, value_bytes] = [0, 1].map(|index| u32::from_le_bytes(lengths[index]) as usize);
    let (key, rest) = rest.split_at_checked(key_bytes).ok_or(ImageError::State)?;
    let (value, rest) = rest.split_at_checked(value_bytes).ok_or(ImageError::State)?;
    Ok((key, value, rest))
}

impl<const P: usize> MonolithicState for Partitioned<P> {
    type Snapshot = PartsSnapshot;

    fn snapshot(&mut self) -> PartsSnapshot {
        let left = self.parts.iter().map(|part| STEP_BYTES + part.undigested_bytes());
        PartsSnapshot {
            left_bytes: left.sum(),
            parts: HeldParts {
                first: 0,
                parts: self.parts.iter().cloned().collect(),
                spares: self.spares.clone(),
            },
            helped_bytes: Arc::default(),
            hasher: None,
        }
    }

    fn digest_step(snapshot: &mut PartsSnapshot, digester: &Digester, budget_bytes: usize) -> Option<Digest> {
        let hasher = snapshot
            .hasher
            .get_or_insert_with(|| digester.hasher(Domain::State));
        let mut spent = 0;
        while spent < budget_bytes {
            let passed = snapshot.parts.pass_first(|part| {
                let bytes = STEP_BYTES + part.undigested_bytes();
                hasher.update(part.digest(digester).as_bytes());
                bytes
            });
            let Some(bytes) = passed else {
                return Some(Digest::from_bytes(*hasher.finalize().as_bytes()));
            };
            spent += bytes;
            snapshot.left_bytes -= bytes;
        }
        None
    }

    fn piece_count(_: &PartsSnapshot) -> usize {
        P
    }

    fn piece_digests(snapshot: &PartsSnapshot, digester: &Digester) -> Vec<Digest> {
        let parts = snapshot.parts.parts.iter();
        parts.map(|part| part.digest(digester)).collect()
    }

    fn digest_of(pieces: &[Digest], digester: &Digester) -> Digest {
        let mut hasher = digester.hasher(Domain::State);
        pieces.iter().for_each(|piece| {
            hasher.update(piece.as_bytes());
        });
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    fn write_piece(snapshot: &mut PartsSnapshot, out: &mut Vec<u8>) {
        snapshot.parts.pass_first(|part| part.write(out));
    }

    /// From the other end, so that the two meet once.
    fn digest_help(snapshot: &PartsSnapshot, digester: &Digester) -> Option<CheckpointHelp> {
        let (mut parts, digester) = (snapshot.parts.clone(), digester.clone());
        let helped_bytes = snapshot.helped_bytes.clone();
        let digest = move |part: &Part| {
            let bytes = part.undigested_bytes();
            part.digest(&digester);
            // Paces whoever reads it, nothing else.
            helped_bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        Some(CheckpointHelp::new(
            move || while parts.pass_last(&digest).is_some() {},
        ))
    }

    fn copy_help(&self) -> Option<CheckpointHelp> {
        let rooms: Vec<Room> = self.parts.iter().map(|part| part.room()).collect();
        let spares = self.spares.clone();
        Some(CheckpointHelp::new(move || {
            for (index, room) in rooms.into_iter().enumerate() {
                spares.prepare(index, room);
            }
        }))
    }

    fn blank() -> Self {
        Self::default()
    }

    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_piece(&mut self, piece: usize, bytes: &[u8]) -> Result<(), ImageError> {
        let (mut rest, mut pairs) = (bytes, 0);
        while !rest.is_empty() {
            rest = split_pair(rest)?.2;
            pairs += 1;
        }
        if pairs > 0 {
            // One allocation in place of one whenever it has grown by a quarter.
            let part = self.parts.get_mut(piece).ok_or(ImageError::State)?;
            own(part, piece, &self.spares).reserve(pairs, bytes.len() - 8 * pairs);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let (key, value, behind) = split_pair(rest)?;
            if place(key, P) != piece {
                return Err(ImageError::State);
            }
            self.put(key, value);
            rest = behind;
        }
        Ok(())
    }

    fn digest_left_bytes(snapshot: &PartsSnapshot) -> usize {
        let helped = snapshot.helped_bytes.load(Ordering::Relaxed);
        snapshot.left_bytes.saturating_sub(helped)
    }
}
