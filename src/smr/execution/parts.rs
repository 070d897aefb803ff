//! What a divisible state consists of: parts that are shared with snapshots and copied when they are next
//! written to.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use super::guard::{let_go, or_fault};
use super::part_buffers::{PartBuffers, Room};
use super::{CheckpointHelp, StateDescriptor, StatePart};
use crate::smr::crypto::Digester;
use crate::smr::types::Digest;

/// A part, and its digest once it was asked for.
///
/// Invariant: a set `digest` is that of the contents.
#[derive(Debug, Clone, Default)]
pub(super) struct StorageEvent<P> {
    pub part: P,
    pub digest: OnceLock<Digest>,
}

impl<P: StatePart> StorageEvent<P> {
    /// About how many bytes have to be hashed for the digest.
    fn undigested_bytes(&self) -> usize {
        match self.digest.get() {
            Some(_) => 0,
            None => self.part.size_bytes() as usize,
        }
    }

    /// Computed at most once per content; by two threads at the same time, twice: nobody waits for another
    /// who may not be running.
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
    parts: Vec<Arc<StorageEvent<P>>>,
    /// What the parts have together, but for the one that is `unmeasured`.
    measured_bytes: u128,
    /// The part that is being changed, or whose change panicked.
    unmeasured: Option<usize>,
    /// Where copies of parts go.
    spares: Arc<PartBuffers<P>>,
    /// What the operation that runs has changed, as it was before; `None` for parts that do not take anything
    /// back.
    undo: Option<Before<P>>,
}

/// The parts that an operation changed, as they were before it.
#[derive(Debug)]
struct Before<P> {
    parts: Vec<(usize, Arc<StorageEvent<P>>)>,
    /// By part: the last operation that changed it.
    changed: Vec<u64>,
    /// The operation that runs.
    operation: u64,
    is_running: bool,
    measured_bytes: u128,
}

impl<P: StatePart> Parts<P> {
    /// So many parts without contents.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let parts: Vec<Arc<StorageEvent<P>>> = (0..count).map(|_| Arc::default()).collect();
        Self {
            measured_bytes: parts.iter().map(|kept| u128::from(kept.part.size_bytes())).sum(),
            unmeasured: None,
            parts,
            spares: Arc::new(PartBuffers::new(count)),
            undo: None,
        }
    }

    /// So many parts without contents, which take back what an operation changed if it panics. That costs a
    /// copy of each part that an operation changes, so it is for small parts. See
    /// [`DivisibleState::UNDOES`](super::DivisibleState::UNDOES).
    #[must_use]
    pub fn undoing(count: usize) -> Self {
        Self {
            undo: Some(Before {
                parts: Vec::new(),
                changed: vec![0; count],
                operation: 0,
                is_running: false,
                measured_bytes: 0,
            }),
            ..Self::new(count)
        }
    }

    /// An operation begins.
    pub fn begin_operation(&mut self) {
        self.keep_operation();
        self.measure();
        if let Some(before) = &mut self.undo {
            before.operation += 1;
            before.is_running = true;
            before.measured_bytes = self.measured_bytes;
        }
    }

    /// What the operation changed stays.
    pub fn keep_operation(&mut self) {
        if let Some(before) = &mut self.undo {
            before.is_running = false;
            for (number, kept) in before.parts.drain(..) {
                release(kept, number, &self.spares);
            }
        }
    }

    /// What the operation changed becomes what it was, if these parts are [`undoing`](Self::undoing).
    pub fn undo_operation(&mut self) {
        let Some(before) = self.undo.as_mut().filter(|before| before.is_running) else {
            return;
        };
        before.is_running = false;
        for (number, kept) in before.parts.drain(..) {
            release(
                std::mem::replace(&mut self.parts[number], kept),
                number,
                &self.spares,
            );
        }
        (self.measured_bytes, self.unmeasured) = (before.measured_bytes, None);
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

    /// Changes part `number`, on a copy of its own if a snapshot has it too. When `change` panics, what it
    /// did to the part stays, unless the operation is taken back.
    ///
    /// # Panics
    /// When there is no such part, or `change` panics.
    pub fn change<T>(&mut self, number: usize, change: impl FnOnce(&mut P) -> T) -> T {
        self.measure();
        if let Some(before) = self.undo.as_mut().filter(|before| before.is_running)
            && std::mem::replace(&mut before.changed[number], before.operation) != before.operation
        {
            before.parts.push((number, self.parts[number].clone()));
        }
        let kept = own(&mut self.parts[number], number, &self.spares);
        kept.digest.take();
        self.measured_bytes -= size_of_part(&kept.part);
        // From here on, and for good if `change` does not come back, its size is not counted, but asked for.
        self.unmeasured = Some(number);
        let changed = change(&mut kept.part);
        self.measure();
        changed
    }

    /// Counts the part whose change has ended in whichever way.
    fn measure(&mut self) {
        if let Some(number) = self.unmeasured {
            self.measured_bytes += size_of_part(&self.parts[number].part);
            self.unmeasured = None;
        }
    }

    /// About how large they are together: depends on the contents alone.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        let unmeasured = self.unmeasured.map(|number| &self.parts[number].part);
        let bytes = self.measured_bytes + unmeasured.map_or(0, size_of_part);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// What each part contains, as it is now. Those that did not change since they were asked for last cost
    /// nothing.
    #[must_use]
    pub fn descriptor(&self, digester: &Digester) -> StateDescriptor {
        StateDescriptor::new(self.parts.iter().map(|kept| kept.digest(digester)).collect())
    }

    pub(super) fn snapshot(&self) -> PartsSnapshot<P> {
        let left = self
            .parts
            .iter()
            .map(|kept| STEP_BYTES.saturating_add(kept.undigested_bytes()));
        PartsSnapshot {
            left_bytes: left.fold(0, usize::saturating_add),
            count: self.parts.len(),
            parts: HeldParts {
                first: 0,
                parts: self.parts.iter().cloned().collect(),
                spares: self.spares.clone(),
            },
            helped_bytes: Arc::default(),
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
}

impl<P: StatePart> PartsSnapshot<P> {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Appends the digests of the next parts; true once there are no more.
    pub(super) fn digest_step(
        &mut self,
        digester: &Digester,
        budget_bytes: usize,
        digests: &mut Vec<Digest>,
    ) -> bool {
        let mut spent = 0;
        while spent < budget_bytes {
            let passed = self.parts.pass_first(|kept| {
                let bytes = STEP_BYTES.saturating_add(kept.undigested_bytes());
                digests.push(kept.digest(digester));
                bytes
            });
            let Some(bytes) = passed else {
                return true;
            };
            spent = spent.saturating_add(bytes);
            self.left_bytes = self.left_bytes.saturating_sub(bytes);
        }
        false
    }

    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) {
        self.parts.pass_first(|kept| kept.part.write(out));
    }

    /// From the other end, so that the two meet once.
    pub(super) fn digest_help(&self, digester: &Digester) -> CheckpointHelp {
        let (mut parts, digester) = (self.parts.clone(), digester.clone());
        let helped_bytes = self.helped_bytes.clone();
        let digest = move |kept: &StorageEvent<P>| {
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
    parts: VecDeque<Arc<StorageEvent<P>>>,
    spares: Arc<PartBuffers<P>>,
}

impl<P: StatePart> HeldParts<P> {
    /// Does something with the first part, and lets it go.
    fn pass_first<T>(&mut self, pass: impl FnOnce(&StorageEvent<P>) -> T) -> Option<T> {
        let kept = self.parts.pop_front()?;
        let passed = pass(&kept);
        release(kept, self.first, &self.spares);
        self.first += 1;
        Some(passed)
    }

    /// Does something with the last part, and lets it go.
    fn pass_last<T>(&mut self, pass: impl FnOnce(&StorageEvent<P>) -> T) -> Option<T> {
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
fn own<'a, P: StatePart>(
    kept: &'a mut Arc<StorageEvent<P>>,
    number: usize,
    spares: &PartBuffers<P>,
) -> &'a mut StorageEvent<P> {
    // Snapshots are taken by whoever writes, so meanwhile there can only be fewer of them.
    if Arc::strong_count(kept) > 1 {
        let copy = or_fault("a part of it was copied", || spares.copy(number, kept));
        release(std::mem::replace(kept, copy), number, spares);
    }
    Arc::make_mut(kept)
}

/// The size of a part: asked for where an operation runs, which has nothing to do with it.
fn size_of_part<P: StatePart>(part: &P) -> u128 {
    or_fault("a part of it was measured", || u128::from(part.size_bytes()))
}

/// Lets a part go, at a moment that differs from replica to replica.
fn release<P: StatePart>(kept: Arc<StorageEvent<P>>, number: usize, spares: &PartBuffers<P>) {
    if let Some(not_needed) = Arc::into_inner(kept).and_then(|last| spares.give(number, last)) {
        let_go(not_needed);
    }
}

/// What going on to the next part counts as.
const STEP_BYTES: usize = 32;
