//! A key-value store in parts.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::keyed_part::KeyedPart;
use super::undo::UndoLog;
use super::{DivisibleState, Parts, SnapshotError};

/// How many parts a store has. At 1 GiB a part is 256 KiB: copying one on write takes well under a
/// millisecond.
pub const PARTS: usize = 4096;

/// How many keys are touched together at most: an operation may have two.
const TOUCHED: usize = 2 * super::PREPARED_OPERATIONS;

/// The part of a key. Written out here, because it must be the same in every build of every version: part
/// digests depend on it. A client can choose keys of one part; that part is then slow to copy and digest,
/// nothing else.
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
/// Which part a key falls into is the same at every replica, because part digests are. Inside a part the
/// table is hashed under a key of this process, so no client can choose keys that collide there.
#[derive(Debug)]
pub struct Partitioned<const P: usize> {
    parts: Parts<KeyedPart>,
    table: RandomState,
    /// What the operation that runs wrote over.
    undo: UndoLog,
}

/// The store of as many parts as suit states up to gigabytes.
pub type PartitionedStore = Partitioned<PARTS>;

impl<const P: usize> Default for Partitioned<P> {
    fn default() -> Self {
        Self {
            parts: Parts::new(P),
            table: RandomState::default(),
            undo: UndoLog::default(),
        }
    }
}

impl<const P: usize> Partitioned<P> {
    /// Brings what the keys lead to closer to the processor: part, slot, record, one step for all keys after
    /// the other. No step of one key waits for another key's, so their cache misses overlap.
    pub(super) fn touch<K: AsRef<[u8]>>(&self, keys: impl Iterator<Item = K>) {
        let mut ways = [(0, 0); TOUCHED];
        // What lies there does not matter, but the processor has to look.
        let (mut count, mut seen) = (0, 0);
        for (way, key) in ways.iter_mut().zip(keys) {
            let (place, tag) = (place(key.as_ref(), P), self.tag(key.as_ref()));
            *way = (place, tag);
            count += 1;
            // Both its ends.
            let (part, is_digested) = self.parts.peek(place);
            seen ^= part.touch() ^ usize::from(is_digested);
        }
        for (place, tag) in &ways[..count] {
            seen ^= self.parts.get(*place).touch_slot(*tag);
        }
        for (place, tag) in &ways[..count] {
            seen ^= self.parts.get(*place).touch_record(*tag);
        }
        std::hint::black_box(seen);
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.parts.get(place(key, P)).get(self.tag(key), key)
    }

    /// Sets the value of `key`.
    ///
    /// # Panics
    /// When key or value are 4 GiB or longer, or one part passes 32 GiB.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let (place, tag, undo) = (place(key, P), self.tag(key), &mut self.undo);
        self.parts.change(place, |part| {
            part.put(tag, key, value, |old| undo.note((place, tag), key, old));
        });
    }

    /// Removes `key`; true if it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let tag = self.tag(key);
        let place = place(key, P);
        // A part is not copied for a key that is not there.
        let Some(old) = self.parts.get(place).get(tag, key) else {
            return false;
        };
        self.undo.note((place, tag), key, Some(old));
        self.parts.change(place, |part| part.delete(tag, key))
    }

    fn tag(&self, key: &[u8]) -> u32 {
        tag(&self.table, key)
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

/// A key, its value, and the bytes behind them.
type Split<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// The pair that a part's bytes begin with, and what follows.
fn split_pair(bytes: &[u8]) -> Result<Split<'_>, SnapshotError> {
    let (lengths, rest) = bytes.split_at_checked(8).ok_or(SnapshotError::State)?;
    let (lengths, _) = lengths.as_chunks::<4>();
    let [key_bytes, value_bytes] = [0, 1].map(|index| u32::from_le_bytes(lengths[index]) as usize);
    let (key, rest) = rest.split_at_checked(key_bytes).ok_or(SnapshotError::State)?;
    let (value, rest) = rest.split_at_checked(value_bytes).ok_or(SnapshotError::State)?;
    Ok((key, value, rest))
}

impl<const P: usize> DivisibleState for Partitioned<P> {
    type Part = KeyedPart;

    const UNDOES: bool = true;

    fn begin_operation(&mut self) {
        self.undo.begin();
    }

    fn keep_operation(&mut self) {
        self.undo.keep();
    }

    fn undo_operation(&mut self) {
        let parts = &mut self.parts;
        self.undo.undo(|undone| {
            parts.change(undone.place, |part| match undone.value {
                Some(value) => part.put(undone.tag, undone.key, value, |_| ()),
                None => {
                    part.delete(undone.tag, undone.key);
                }
            });
        });
    }

    fn blank() -> Self {
        Self::default()
    }

    fn parts(&self) -> &Parts<KeyedPart> {
        &self.parts
    }

    fn read_part(&mut self, number: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        let (mut rest, mut pairs) = (bytes, 0);
        while !rest.is_empty() {
            let (key, _, behind) = split_pair(rest)?;
            if place(key, P) != number {
                return Err(SnapshotError::State);
            }
            rest = behind;
            pairs += 1;
        }
        if pairs == 0 {
            return Ok(());
        }
        let table = &self.table;
        self.parts.change(number, |part| {
            // One allocation in place of one whenever it has grown by a quarter.
            part.reserve(pairs, bytes.len() - 8 * pairs);
            let mut rest = bytes;
            while let Ok((key, value, behind)) = split_pair(rest) {
                part.put(tag(table, key), key, value, |_| ());
                rest = behind;
            }
        });
        Ok(())
    }
}

fn tag(table: &RandomState, key: &[u8]) -> u32 {
    table.hash_one(key) as u32
}
