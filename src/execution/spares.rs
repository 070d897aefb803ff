//! Memory for the copies that writes make of the parts a checkpoint holds.
//!
//! Under load all parts of a state are copied within milliseconds of a checkpoint. To have the system find and clear memory for that costs
//! several times what the copying does, in pauses of milliseconds. So what the last checkpoint let go is kept for the next, and for the first
//! it is found by a thread that has the time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::part::Part;

/// For each part the memory of a copy, or none: together about as much as the parts have.
#[derive(Debug)]
pub(super) struct Spares(Vec<Mutex<Option<Arc<Part>>>>);

impl Spares {
    /// No memory yet, for so many parts.
    pub fn new(parts: usize) -> Self {
        Self((0..parts).map(|_| Mutex::default()).collect())
    }

    /// A copy of the part at `index`, in the memory that is kept for it if that suits.
    pub fn copy(&self, index: usize, part: &Part) -> Arc<Part> {
        let mut spare = self.hold(index).take().unwrap_or_default();
        // Nobody else has what is kept here.
        if let Some(copy) = Arc::get_mut(&mut spare) {
            copy.become_copy_of(part);
        }
        spare
    }

    /// Keeps the memory of a part that nobody needs any more, unless there is some.
    pub fn give(&self, index: usize, part: Part) {
        let mut kept = self.hold(index);
        if kept.is_none() {
            *kept = Some(Arc::new(part));
        }
    }

    /// Finds the memory for a copy of the part at `index`, which has this much.
    pub fn prepare(&self, index: usize, room: Room) {
        let is_there = |kept: &Option<Arc<Part>>| kept.as_ref().is_some_and(|kept| room.suits(kept.room()));
        if !is_there(&self.hold(index)) {
            // Whoever wants to copy meanwhile does not wait for it.
            let found = Arc::new(Part::with_memory(room));
            *self.hold(index) = Some(found);
        }
    }

    fn hold(&self, index: usize) -> MutexGuard<'_, Option<Arc<Part>>> {
        // What is there is memory, whatever happened to the one who held it.
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much memory a part has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub slots: usize,
    pub record_bytes: usize,
}

/// Up to this, memory that is far too large suits as well.
const SMALL: usize = 1024;

impl Room {
    /// Whether memory of `other` is enough for a part that has this much, and not far more.
    pub fn suits(self, other: Self) -> bool {
        let fits = |need: usize, has: usize| has >= need && has <= 2 * need.max(SMALL);
        fits(self.slots, other.slots) && fits(self.record_bytes, other.record_bytes)
    }
}
