//! A key-value store in parts that are shared with snapshots and copied when they are next written.

use std::hash::BuildHasher;
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::MonolithicState;
use crate::crypto::{Digester, Domain};
use crate::types::Digest;

/// How many parts a store has. At 1 GiB a part is 256 KiB: copying one on write takes well under a millisecond.
pub const PARTS: usize = 4096;

/// One key and its value, in one allocation.
#[derive(Debug, Clone)]
struct Pair {
    key_bytes: u32,
    bytes: Vec<u8>,
}

impl Pair {
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_bytes as usize]
    }

    fn value(&self) -> &[u8] {
        &self.bytes[self.key_bytes as usize..]
    }
}

/// The pairs whose keys fall into one part.
///
/// Invariant: a set `digest` is that of `pairs`. Writers hold the part alone and unset it.
#[derive(Debug, Clone, Default)]
struct Part {
    pairs: HashTable<Pair>,
    bytes: usize,
    digest: OnceLock<Digest>,
}

impl Part {
    /// The digest over the pairs in the order of their keys, computed at most once per content.
    fn digest(&self, digester: &Digester) -> Digest {
        *self.digest.get_or_init(|| {
            let mut pairs: Vec<&Pair> = self.pairs.iter().collect();
            pairs.sort_unstable_by(|a, b| a.key().cmp(b.key()));
            let mut hasher = digester.hasher(Domain::State);
            for pair in pairs {
                hasher.update(&pair.key_bytes.to_le_bytes());
                hasher.update(&(pair.bytes.len() as u64).to_le_bytes());
                hasher.update(&pair.bytes);
            }
            Digest::from_bytes(*hasher.finalize().as_bytes())
        })
    }
}

/// The part of a key. Written out here, because it must be the same in every build of every version: part digests
/// depend on it. A client can choose keys of one part; that part is then slow to copy and digest, nothing else.
fn place(key: &[u8]) -> usize {
    let mut hash = key.len() as u64;
    let (words, rest) = key.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    for word in words.iter().chain([&last]) {
        // Multiply and fold, as in the finaliser of MurmurHash3 (Appleby, public domain).
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 32;
    }
    hash as usize % PARTS
}

/// A map from byte strings to byte strings that can be frozen at any time.
///
/// Which part a key falls into is the same at every replica, because part digests are. Inside a part the table
/// is hashed under a key of this process, so no client can choose keys that collide there.
#[derive(Debug)]
pub struct PartitionedStore {
    parts: Vec<Arc<Part>>,
    table: RandomState,
}

impl Default for PartitionedStore {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| Arc::default()).collect(),
            table: RandomState::default(),
        }
    }
}

impl PartitionedStore {
    /// Brings what `key` leads to closer to the processor.
    pub(super) fn touch(&self, key: &[u8]) {
        std::hint::black_box(self.get(key).and_then(<[u8]>::last));
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let part = &self.parts[place(key)];
        let hash = self.table.hash_one(key);
        part.pairs.find(hash, |pair| pair.key() == key).map(Pair::value)
    }

    /// Sets the value of `key`.
    ///
    /// # Panics
    /// When the key is 4 GiB or longer.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        let place = place(key);
        let hash = self.table.hash_one(key);
        let part = Arc::make_mut(&mut self.parts[place]);
        part.digest.take();
        if let Some(pair) = part.pairs.find_mut(hash, |pair| pair.key() == key) {
            part.bytes = part.bytes + value.len() - pair.value().len();
            pair.bytes.truncate(pair.key_bytes as usize);
            pair.bytes.extend_from_slice(value);
            return;
        }
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        part.bytes += bytes.len();
        let key_bytes = u32::try_from(key.len()).expect("keys are shorter than 4 GiB");
        let table = &self.table;
        part.pairs
            .insert_unique(hash, Pair { key_bytes, bytes }, |pair| table.hash_one(pair.key()));
    }

    /// Removes `key`; true if it was there.
    pub fn delete(&mut self, key: &[u8]) -> bool {
        let place = place(key);
        let hash = self.table.hash_one(key);
        let part = Arc::make_mut(&mut self.parts[place]);
        match part.pairs.find_entry(hash, |pair| pair.key() == key) {
            Ok(entry) => {
                part.digest.take();
                let (pair, _) = entry.remove();
                part.bytes -= pair.bytes.len();
                true
            }
            Err(_) => false,
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.pairs.len()).sum()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frozen [`PartitionedStore`], and how far its digest has come.
#[derive(Debug)]
pub struct PartsSnapshot {
    parts: Vec<Arc<Part>>,
    next: usize,
    hasher: Option<blake3::Hasher>,
}

impl MonolithicState for PartitionedStore {
    type Snapshot = PartsSnapshot;

    fn snapshot(&mut self) -> PartsSnapshot {
        PartsSnapshot {
            parts: self.parts.clone(),
            next: 0,
            hasher: None,
        }
    }

    fn digest_step(snapshot: &mut PartsSnapshot, digester: &Digester, budget_bytes: usize) -> Option<Digest> {
        let hasher = snapshot
            .hasher
            .get_or_insert_with(|| digester.hasher(Domain::State));
        let mut spent = 0;
        while spent < budget_bytes {
            let Some(part) = snapshot.parts.get(snapshot.next) else {
                return Some(Digest::from_bytes(*hasher.finalize().as_bytes()));
            };
            spent += 32
                + if part.digest.get().is_some() {
                    0
                } else {
                    part.bytes + 16 * part.pairs.len()
                };
            hasher.update(part.digest(digester).as_bytes());
            snapshot.next += 1;
        }
        None
    }
}
