use super::StatePart;
use super::guard::or_fault;
use super::part_buffers::Room;
use crate::smr::crypto::{Digester, Domain};
use crate::smr::types::Digest;

/// Records begin at multiples of this, so that a u32 reaches far enough.
const UNIT_BYTES: usize = 8;
/// Before a record's key: key bytes, value bytes and units of the record, each u32.
const HEAD_BYTES: usize = 12;
/// Of those, what is written with a pair.
const LENGTHS_BYTES: usize = 8;
/// What a pair counts as beside its key and value.
const PAIR_BYTES: usize = 16;
/// Unused bytes a part may always keep; above that, as many as it uses.
const SLACK_BYTES: usize = 4096;
/// How much is gathered for one call of the hasher: enough for it to work on several blocks at once.
const HASHED_BYTES: usize = 64 * 1024;

/// Slots looked at to bring a record closer: those of about one cache line.
const TOUCHED_SLOTS: usize = 8;
/// What the processor loads at once.
const CACHE_LINE_BYTES: usize = 64;

/// Where a record is. The tag is the key's hash, so that the index grows without reading any key.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    tag: u32,
    /// One more than the record's first unit; 0 in a free slot.
    at: u32,
}

/// What a record begins with.
struct Head {
    key_bytes: usize,
    value_bytes: usize,
    record_bytes: usize,
}

/// The pairs whose keys fall into one part, in two allocations: copying a part is copying memory, whatever
/// the number of pairs.
///
/// Callers give the hash of a key as its tag: always the same one in a process.
///
/// Invariants: at least a quarter of `slots` is free, and their number is zero or
/// a power of two; from a tag's place (its low bits) to its slot no slot is free.
#[derive(Debug, Default)]
pub struct KeyedPart {
    slots: Vec<Slot>,
    records: Vec<u8>,
    pairs: usize,
    /// Bytes of keys and values.
    bytes: usize,
}

impl Clone for KeyedPart {
    fn clone(&self) -> Self {
        let mut copy = Self::default();
        copy.clone_from(self);
        copy
    }

    /// In the memory it has if that suits.
    fn clone_from(&mut self, other: &Self) {
        // With the room that the other has: a copy is made to be written to.
        let room = other.room();
        if !room.suits(self.room()) {
            let Room([slots, record_bytes]) = room;
            *self = Self {
                slots: Vec::with_capacity(slots),
                records: Vec::with_capacity(record_bytes),
                ..Self::default()
            };
        }
        self.slots.clear();
        self.slots.extend_from_slice(&other.slots);
        self.records.clear();
        self.records.extend_from_slice(&other.records);
        self.pairs = other.pairs;
        self.bytes = other.bytes;
    }
}

impl StatePart for KeyedPart {
    /// Every pair in the order of the keys: key bytes and value bytes as u32, key, value.
    fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.bytes + LENGTHS_BYTES * self.pairs);
        for at in self.sorted() {
            let (lengths, pair) = self.written(at);
            out.extend_from_slice(lengths);
            out.extend_from_slice(pair);
        }
    }

    fn size_bytes(&self) -> u64 {
        (self.bytes + PAIR_BYTES * self.pairs) as u64
    }

    fn digest(&self, digester: &Digester) -> Digest {
        let mut hasher = digester.hasher(Domain::State);
        let mut gathered = Vec::with_capacity((self.bytes + LENGTHS_BYTES * self.pairs).min(HASHED_BYTES));
        for at in self.sorted() {
            let (lengths, pair) = self.written(at);
            for mut bytes in [lengths, pair] {
                // Exactly as many bytes at once: the hasher is fastest on whole powers of two of its chunks.
                while gathered.len() + bytes.len() >= HASHED_BYTES {
                    let (now, later) = bytes.split_at(HASHED_BYTES - gathered.len());
                    gathered.extend_from_slice(now);
                    hasher.update(&gathered);
                    gathered.clear();
                    bytes = later;
                }
                gathered.extend_from_slice(bytes);
            }
        }
        hasher.update(&gathered);
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    fn room(&self) -> Room {
        Room([self.slots.capacity(), self.records.capacity()])
    }

    fn with_room(Room([slots, record_bytes]): Room) -> Self {
        let mut found = Self {
            slots: vec![Slot { tag: 1, at: 1 }; slots],
            records: vec![1; record_bytes],
            ..Self::default()
        };
        found.slots.clear();
        found.records.clear();
        found
    }
}

impl KeyedPart {
    /// How many pairs there are.
    pub(super) fn len(&self) -> usize {
        self.pairs
    }

    /// Looks at the part itself.
    pub(super) fn touch(&self) -> usize {
        self.slots.len()
    }

    /// Looks at the slot where a search for this tag begins.
    pub(super) fn touch_slot(&self, tag: u32) -> usize {
        let mask = self.slots.len().wrapping_sub(1);
        self.slots
            .get(tag as usize & mask)
            .map_or(0, |slot| slot.at as usize)
    }

    /// Looks at the record that this tag leads to, if its slot is where the search begins or behind it.
    pub(super) fn touch_record(&self, tag: u32) -> usize {
        let mask = self.slots.len().wrapping_sub(1);
        let mut place = tag as usize & mask;
        for _ in 0..TOUCHED_SLOTS {
            match self.slots.get(place) {
                Some(slot) if slot.at != 0 && slot.tag == tag => {
                    let record = &self.records[start(*slot)..];
                    let next_line = record.get(CACHE_LINE_BYTES).unwrap_or(&0);
                    return usize::from(record[0] ^ next_line);
                }
                Some(slot) if slot.at != 0 => place = (place + 1) & mask,
                _ => break,
            }
        }
        0
    }

    pub(super) fn get(&self, tag: u32, key: &[u8]) -> Option<&[u8]> {
        let slot = self.find(tag, key)?;
        Some(self.pair(self.slots[slot]).1)
    }

    /// Sets the value of a key; `note` is shown first which one it has.
    ///
    /// # Panics
    /// When key or value are 4 GiB or longer; nothing has changed then. With a
    /// [`StateFault`](super::StateFault) when the part passes 32 GiB: how near it is to that differs from
    /// replica to replica.
    pub(super) fn put(&mut self, tag: u32, key: &[u8], value: &[u8], note: impl FnOnce(Option<&[u8]>)) {
        // Before anything is written.
        let _ = (length(key.len()), length(value.len()));
        let found = self.find(tag, key);
        note(found.map(|slot| self.pair(self.slots[slot]).1));
        let Some(slot) = found else {
            let at = self.append(key, value);
            self.insert(Slot { tag, at });
            self.bytes += key.len() + value.len();
            return;
        };
        let start = start(self.slots[slot]);
        let head = self.head(start);
        let value_start = HEAD_BYTES + key.len();
        if value_start + value.len() <= head.record_bytes {
            self.records[start + 4..start + 8].copy_from_slice(&length(value.len()));
            self.records[start + value_start..][..value.len()].copy_from_slice(value);
        } else {
            self.slots[slot].at = self.append(key, value);
        }
        self.bytes = self.bytes + value.len() - head.value_bytes;
        self.compact_if_sparse();
    }

    /// Makes room for so many pairs, of so many bytes of keys and values, at once.
    pub(super) fn reserve(&mut self, pairs: usize, bytes: usize) {
        self.records
            .reserve_exact(bytes + pairs * (HEAD_BYTES + UNIT_BYTES - 1));
        let slots = (4 * (self.pairs + pairs)).div_ceil(3).next_power_of_two().max(4);
        if slots > self.slots.len() {
            self.grow(slots);
        }
    }

    /// True if the key was there.
    pub(super) fn delete(&mut self, tag: u32, key: &[u8]) -> bool {
        let Some(slot) = self.find(tag, key) else {
            return false;
        };
        self.bytes -= key.len() + self.pair(self.slots[slot]).1.len();
        self.pairs -= 1;
        self.close(slot);
        self.compact_if_sparse();
        true
    }

    /// Where the records are, in the order of their keys.
    fn sorted(&self) -> impl Iterator<Item = u32> + use<> {
        let taken = self.slots.iter().filter(|slot| slot.at != 0);
        let mut records = Vec::with_capacity(self.pairs);
        // Keys lie all over the part; most comparisons need no more than how they begin.
        records.extend(taken.map(|slot| (beginning(self.pair(*slot).0), slot.at)));
        records.sort_unstable_by(|(left, left_at), (right, right_at)| {
            let key = |at: u32| self.pair(Slot { tag: 0, at }).0;
            left.cmp(right).then_with(|| key(*left_at).cmp(key(*right_at)))
        });
        records.into_iter().map(|(_, at)| at)
    }

    /// The record as it is written: lengths of key and value, then both.
    fn written(&self, at: u32) -> (&[u8], &[u8]) {
        let start = start(Slot { tag: 0, at });
        let head = self.head(start);
        let record = &self.records[start..];
        let pair = &record[HEAD_BYTES..][..head.key_bytes + head.value_bytes];
        (&record[..LENGTHS_BYTES], pair)
    }

    fn find(&self, tag: u32, key: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut place = tag as usize & mask;
        loop {
            let slot = self.slots[place];
            if slot.at == 0 {
                return None;
            }
            if slot.tag == tag && self.pair(slot).0 == key {
                return Some(place);
            }
            place = (place + 1) & mask;
        }
    }

    fn head(&self, start: usize) -> Head {
        let (fields, _) = self.records[start..start + HEAD_BYTES].as_chunks::<4>();
        let field = |index: usize| u32::from_le_bytes(fields[index]) as usize;
        Head {
            key_bytes: field(0),
            value_bytes: field(1),
            record_bytes: field(2) * UNIT_BYTES,
        }
    }

    fn pair(&self, slot: Slot) -> (&[u8], &[u8]) {
        let start = start(slot);
        let head = self.head(start);
        let pair = &self.records[start + HEAD_BYTES..][..head.key_bytes + head.value_bytes];
        pair.split_at(head.key_bytes)
    }

    /// Writes a record behind the others; what its slot holds for it.
    fn append(&mut self, key: &[u8], value: &[u8]) -> u32 {
        let start = self.records.len();
        let at = or_fault("a part of it passed 32 GiB", || {
            u32::try_from(start / UNIT_BYTES + 1).expect("a part is shorter than 32 GiB")
        });
        let bytes = (HEAD_BYTES + key.len() + value.len()).next_multiple_of(UNIT_BYTES);
        if self.records.capacity() - start < bytes {
            // A quarter more instead of twice as much: states are large.
            self.records.reserve_exact(bytes.max(start / 4));
        }
        self.records.extend_from_slice(&length(key.len()));
        self.records.extend_from_slice(&length(value.len()));
        self.records.extend_from_slice(&length(bytes / UNIT_BYTES));
        self.records.extend_from_slice(key);
        self.records.extend_from_slice(value);
        self.records.resize(start + bytes, 0);
        at
    }

    /// Takes a slot for a record whose key has none.
    fn insert(&mut self, slot: Slot) {
        if 4 * (self.pairs + 1) > 3 * self.slots.len() {
            self.grow((2 * self.slots.len()).max(4));
        }
        self.place(slot);
        self.pairs += 1;
    }

    fn grow(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots]);
        let taken = old.into_iter().filter(|slot| slot.at != 0);
        taken.for_each(|slot| self.place(slot));
    }

    fn place(&mut self, slot: Slot) {
        let mask = self.slots.len() - 1;
        let mut place = slot.tag as usize & mask;
        while self.slots[place].at != 0 {
            place = (place + 1) & mask;
        }
        self.slots[place] = slot;
    }

    /// Frees a slot and moves those behind it up that could not be at their place because of it.
    fn close(&mut self, mut hole: usize) {
        let mask = self.slots.len() - 1;
        let mut place = hole;
        loop {
            place = (place + 1) & mask;
            let slot = self.slots[place];
            if slot.at == 0 {
                break;
            }
            let from_home = place.wrapping_sub(slot.tag as usize) & mask;
            if from_home >= place.wrapping_sub(hole) & mask {
                self.slots[hole] = slot;
                hole = place;
            }
        }
        self.slots[hole] = Slot::default();
    }

    /// Writes the records anew once more than half of their bytes are unused. Each byte moved was paid for by
    /// one written before.
    fn compact_if_sparse(&mut self) {
        let used = self.bytes + self.pairs * (HEAD_BYTES + UNIT_BYTES);
        if self.records.len() <= 2 * used + SLACK_BYTES {
            return;
        }
        let mut slots = std::mem::take(&mut self.slots);
        let old = Self {
            records: std::mem::replace(&mut self.records, Vec::with_capacity(used)),
            ..Self::default()
        };
        for slot in slots.iter_mut().filter(|slot| slot.at != 0) {
            let (key, value) = old.pair(*slot);
            slot.at = self.append(key, value);
        }
        self.slots = slots;
    }
}

/// Where the record of a taken slot begins.
fn start(slot: Slot) -> usize {
    (slot.at as usize - 1) * UNIT_BYTES
}

/// The first bytes of a key as a number: smaller where the key is, if they differ.
fn beginning(key: &[u8]) -> u64 {
    match key.first_chunk::<8>() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut first = [0; 8];
            first[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(first)
        }
    }
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length)
        .expect("keys and values are shorter than 4 GiB")
        .to_le_bytes()
}
