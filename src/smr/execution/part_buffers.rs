//! Memory for the copies that writes make of the parts a checkpoint holds.
//!
//! Under load all parts of a state are copied within milliseconds of a checkpoint. To have the system find
//! and clear memory for that costs several times what the copying does, in pauses of milliseconds. So what
//! the last checkpoint let go is kept for the next, and for the first it is found by a thread that has the
//! time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StatePart;
use super::guard::{guarded, let_go};
use super::parts::StorageEvent;

/// For each part the memory of a copy, or none: together about as much as the parts have.
#[derive(Debug)]
pub(super) struct PartBuffers<P>(Vec<Mutex<Option<Arc<StorageEvent<P>>>>>);

impl<P: StatePart> PartBuffers<P> {
    /// No memory yet, for so many parts.
    pub fn new(parts: usize) -> Self {
        Self((0..parts).map(|_| Mutex::default()).collect())
    }

    /// A copy of the part at `index`, in the memory that is kept for it if that suits.
    pub fn copy(&self, index: usize, kept: &StorageEvent<P>) -> Arc<StorageEvent<P>> {
        let spare = self.hold(index).take();
        if let Some(mut spare) = spare {
            // Nobody else has what is kept here.
            if let Some(copy) = Arc::get_mut(&mut spare) {
                let copied = guarded(|| copy.part.clone_from(&kept.part));
                if copied.is_ok() {
                    copy.digest.clone_from(&kept.digest);
                    return spare;
                }
            }
            // What was in it does not go without a panic, which is nobody's concern.
            let_go(spare);
        }
        Arc::new(kept.clone())
    }

    /// Keeps the memory of a part that nobody needs any more, unless there is some: then the part is given
    /// back.
    pub fn give(&self, index: usize, part: StorageEvent<P>) -> Option<StorageEvent<P>> {
        let mut kept = self.hold(index);
        match *kept {
            Some(_) => Some(part),
            None => {
                *kept = Some(Arc::new(part));
                None
            }
        }
    }

    /// Finds the memory for a copy of the part at `index`, which has this much.
    pub fn prepare(&self, index: usize, room: Room) {
        let is_there = |kept: &Option<Arc<StorageEvent<P>>>| {
            kept.as_ref().is_some_and(|kept| room.suits(kept.part.room()))
        };
        if !is_there(&self.hold(index)) {
            // Whoever wants to copy meanwhile does not wait for it.
            let part = P::with_room(room);
            let found = Arc::new(StorageEvent {
                part,
                ..StorageEvent::default()
            });
            let found = self.hold(index).replace(found);
            // Its memory did not suit.
            let_go(found);
        }
    }

    fn hold(&self, index: usize) -> MutexGuard<'_, Option<Arc<StorageEvent<P>>>> {
        // What is there is memory, whatever happened to the one who held it.
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much memory a part has: what each of its allocations, of which two count, has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room(pub [usize; 2]);

/// Up to this, memory that is far too large suits as well.
const SMALL: usize = 1024;

impl Room {
    /// No memory, or nobody knows.
    pub const NONE: Self = Self([0; 2]);

    /// Whether memory of `other` is enough for a part that has this much, and not far more.
    #[must_use]
    pub fn suits(self, other: Self) -> bool {
        let fits = |need: usize, has: usize| has >= need && has <= 2 * need.max(SMALL);
        fits(self.0[0], other.0[0]) && fits(self.0[1], other.0[1])
    }
}
