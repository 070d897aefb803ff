//! What a divisible state consists of: parts that are shared with snapshots and copied when they are next written to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::spares::{Room, Spares};
use super::{CheckpointHelp, StateDescriptor, StatePart};
use crate::crypto::{Digester, Domain};
use crate::types::Digest;

/// A part, and its digest once it was asked for.
///
/// Invariant: a set `digest` is that of the contents.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept<P> {
    pub part: P,
    pub digest: OnceLock<Digest>,
}

impl<P: StatePart> Kept<P> {
    /// About how many bytes have to be hashed for the digest.
    fn undigested_bytes(&self) -> usize {
        match self.digest.get() {
            Some(_) => 0,
            None => self.part.size_bytes() as usize,
        }
    }

    /// Computed at most once per content; by two threads at the same time, twice: nobody waits for another who may not be running.
    fn digest(&self, digester: &Digester) -> Digest {
        if let Some(known) = self.digest.get() {
            return *known;
        }
        let digest = self.part.digest(digester);
        *self.digest.get_or_init(|| digest)
    }
}

/// The parts of a state, each with a number. There are always as many.
#[derive(Debug)]
pub struct Parts<P> {
    parts: Vec<Arc<Kept<P>>>,
    /// What the parts have together.
    size_bytes: u64,
    /// Where copies of parts go.
    spares: Arc<Spares<P>>,
}

impl<P: StatePart> Parts<P> {
    /// So many parts without contents.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let parts: Vec<Arc<Kept<P>>> = (0..count).map(|_| Arc::default()).collect();
        Self {
            size_bytes: parts.iter().map(|kept| kept.part.size_bytes()).sum(),
            parts,
            spares: Arc::new(Spares::new(count)),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    /// Part `number`.
    ///
    /// # Panics
    /// When there is no such part.
    #[must_use]
    pub fn get(&self, number: usize) -> &P {
        &self.parts[number].part
    }

    /// Every part, in order.
    pub fn iter(&self) -> impl Iterator<Item = &P> {
        self.parts.iter().map(|kept| &kept.part)
    }

    /// Part `number`, and whether its digest is known: for who wants all of it near the processor.
    pub(super) fn peek(&self, number: usize) -> (&P, bool) {
        let kept = &self.parts[number];
        (&kept.part, kept.digest.get().is_some())
    }

    /// Changes part `number`, on a copy of its own if a snapshot has it too.
    ///
    /// # Panics
    /// When there is no such part.
    pub fn change<T>(&mut self, number: usize, change: impl FnOnce(&mut P) -> T) -> T {
        let kept = own(&mut self.parts[number], number, &self.spares);
        kept.digest.take();
        let before = kept.part.size_bytes();
        let changed = change(&mut kept.part);
        self.size_bytes = self.size_bytes - before + kept.part.size_bytes();
        changed
    }

    /// About how large they are together: depends on the contents alone.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// What each part contains, as it is now. Those that did not change since they were asked for last cost nothing.
    #[must_use]
    pub fn descriptor(&self, digester: &Digester) -> StateDescriptor {
        StateDescriptor::new(self.parts.iter().map(|kept| kept.digest(digester)).collect())
    }

    pub(super) fn snapshot(&self) -> PartsSnapshot<P> {
        let left = self.parts.iter().map(|kept| STEP_BYTES + kept.undigested_bytes());
        PartsSnapshot {
            left_bytes: left.sum(),
            count: self.parts.len(),
            parts: HeldParts {
                first: 0,
                parts: self.parts.iter().cloned().collect(),
                spares: self.spares.clone(),
            },
            helped_bytes: Arc::default(),
            hasher: None,
        }
    }

    /// Finds memory for copies.
    pub(super) fn copy_help(&self) -> CheckpointHelp {
        let rooms: Vec<Room> = self.iter().map(StatePart::room).collect();
        let spares = self.spares.clone();
        CheckpointHelp::new(move || {
            for (number, room) in rooms.into_iter().enumerate() {
                spares.prepare(number, room);
            }
        })
    }
}

/// Frozen [`Parts`], as far as their digest has not come yet. Parts are let go as they are digested: from
/// then on they are written in place again, and the end of a snapshot frees nothing large.
#[derive(Debug)]
pub struct PartsSnapshot<P: StatePart> {
    parts: HeldParts<P>,
    count: usize,
    /// Of them those that help has digested count until they are passed.
    left_bytes: usize,
    /// Bytes that help has digested.
    helped_bytes: Arc<AtomicUsize>,
    hasher: Option<blake3::Hasher>,
}

impl<P: StatePart> PartsSnapshot<P> {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn digest_step(&mut self, digester: &Digester, budget_bytes: usize) -> Option<Digest> {
        let hasher = self.hasher.get_or_insert_with(|| digester.hasher(Domain::State));
        let mut spent = 0;
        while spent < budget_bytes {
            let passed = self.parts.pass_first(|kept| {
                let bytes = STEP_BYTES + kept.undigested_bytes();
                hasher.update(kept.digest(digester).as_bytes());
                bytes
            });
            let Some(bytes) = passed else {
                return Some(Digest::from_bytes(*hasher.finalize().as_bytes()));
            };
            spent += bytes;
            self.left_bytes -= bytes;
        }
        None
    }

    pub(super) fn digests(&self, digester: &Digester) -> Vec<Digest> {
        let parts = self.parts.parts.iter();
        parts.map(|kept| kept.digest(digester)).collect()
    }

    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) {
        self.parts.pass_first(|kept| kept.part.write(out));
    }

    /// From the other end, so that the two meet once.
    pub(super) fn digest_help(&self, digester: &Digester) -> CheckpointHelp {
        let (mut parts, digester) = (self.parts.clone(), digester.clone());
        let helped_bytes = self.helped_bytes.clone();
        let digest = move |kept: &Kept<P>| {
            let bytes = kept.undigested_bytes();
            kept.digest(&digester);
            // Paces whoever reads it, nothing else.
            helped_bytes.fetch_add(bytes, Ordering::Relaxed);
        };
        CheckpointHelp::new(move || while parts.pass_last(&digest).is_some() {})
    }

    pub(super) fn digest_left_bytes(&self) -> usize {
        let helped = self.helped_bytes.load(Ordering::Relaxed);
        self.left_bytes.saturating_sub(helped)
    }
}

/// The parts that a snapshot still has. What the last one to have a part lets go is memory for copies.
#[derive(Debug, Clone)]
struct HeldParts<P: StatePart> {
    /// The number of the first.
    first: usize,
    parts: VecDeque<Arc<Kept<P>>>,
    spares: Arc<Spares<P>>,
}

impl<P: StatePart> HeldParts<P> {
    /// Does something with the first part, and lets it go.
    fn pass_first<T>(&mut self, pass: impl FnOnce(&Kept<P>) -> T) -> Option<T> {
        let kept = self.parts.pop_front()?;
        let passed = pass(&kept);
        release(kept, self.first, &self.spares);
        self.first += 1;
        Some(passed)
    }

    /// Does something with the last part, and lets it go.
    fn pass_last<T>(&mut self, pass: impl FnOnce(&Kept<P>) -> T) -> Option<T> {
        let kept = self.parts.pop_back()?;
        let passed = pass(&kept);
        release(kept, self.first + self.parts.len(), &self.spares);
        Some(passed)
    }
}

impl<P: StatePart> Drop for HeldParts<P> {
    fn drop(&mut self) {
        while self.pass_first(|_| ()).is_some() {}
    }
}

/// A part to write to: a copy of its own if a snapshot has it too.
fn own<'a, P: StatePart>(kept: &'a mut Arc<Kept<P>>, number: usize, spares: &Spares<P>) -> &'a mut Kept<P> {
    // Snapshots are taken by whoever writes, so meanwhile there can only be fewer of them.
    if Arc::strong_count(kept) > 1 {
        let copy = spares.copy(number, kept);
        release(std::mem::replace(kept, copy), number, spares);
    }
    Arc::make_mut(kept)
}

/// Lets a part go.
fn release<P: StatePart>(kept: Arc<Kept<P>>, number: usize, spares: &Spares<P>) {
    if let Some(last) = Arc::into_inner(kept) {
        spares.give(number, last);
    }
}

/// What going on to the next part counts as.
const STEP_BYTES: usize = 32;
