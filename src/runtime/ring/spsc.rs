use std::mem::MaybeUninit;

use crossbeam::utils::CachePadded;

use super::shim::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell};

type Slot<T> = UnsafeCell<MaybeUninit<T>>;

/// What both ends share.
///
/// Positions only grow (wrapping); position p lives in slot p mod depth, and the depth is a power of two.
/// Invariant: slots in `head..tail` hold items and are the consumer's; all others are the producer's.
struct Shared<T> {
    /// Written by the consumer.
    head: CachePadded<AtomicUsize>,
    /// Written by the producer.
    tail: CachePadded<AtomicUsize>,
    closed: AtomicBool,
    slots: Box<[Slot<T>]>,
}

// SAFETY: items move from one thread to another (T: Send); the positions order every access to a slot.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; `&Shared` gives access to slots only through the two ends, each of which exists once.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn publish_head(&self, head: usize) {
        // Release pairs with the producer's acquire of `head`: our reads of the slots are over.
        self.head.store(head, Ordering::Release);
    }
}

fn slot<T>(slots: &[Slot<T>], position: usize) -> &Slot<T> {
    // SAFETY: `channel` makes at least one slot and a power of two of them, so the mask is below their
    // number.
    unsafe { slots.get_unchecked(position & (slots.len() - 1)) }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Relaxed: both ends are gone, and dropping the last Arc synchronised with them.
        let (mut head, tail) = (
            self.head.load(Ordering::Relaxed),
            self.tail.load(Ordering::Relaxed),
        );
        while head != tail {
            // SAFETY: slots in head..tail hold items that nobody else can reach any more.
            slot(&self.slots, head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The end that pushes.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// Slots known to be free: as many as when the consumer was last looked at, less what was pushed since.
    free: usize,
}

/// The end that pops.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The producer's position when last looked at: it is further now, never back.
    cached_tail: usize,
}

/// A ring for `depth` items, rounded up to a power of two.
///
/// Items nobody took are dropped with the second of the two ends.
///
/// # Panics
/// When `depth` is zero, or beyond what memory holds.
#[must_use]
pub fn channel<T: Send>(depth: usize) -> (Producer<T>, Consumer<T>) {
    assert!(depth > 0, "a ring has room for something");
    let depth = depth
        .checked_next_power_of_two()
        .expect("a ring fits into memory");
    let slots = (0..depth)
        .map(|_| UnsafeCell::new(MaybeUninit::uninit()))
        .collect();
    let shared = Arc::new(Shared {
        head: CachePadded::new(AtomicUsize::new(0)),
        tail: CachePadded::new(AtomicUsize::new(0)),
        closed: AtomicBool::new(false),
        slots,
    });
    (
        Producer {
            shared: shared.clone(),
            tail: 0,
            free: depth,
        },
        Consumer {
            shared,
            head: 0,
            cached_tail: 0,
        },
    )
}

impl<T: Send> Producer<T> {
    /// How many items can be pushed for certain. Looks at the consumer only when none is left by what was
    /// seen before.
    pub fn credits(&mut self) -> usize {
        if self.free == 0 {
            // Acquire pairs with the consumer's release of `head`: its reads of the freed slots are over.
            let head = self.shared.head.load(Ordering::Acquire);
            self.free = self.shared.slots.len() - self.tail.wrapping_sub(head);
        }
        self.free
    }

    /// Pushes one item.
    ///
    /// # Errors
    /// Gives the item back when the ring is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if self.credits() == 0 {
            return Err(item);
        }
        // SAFETY: by the invariant the slot at `tail` is ours: `credits` saw the consumer past it.
        slot(&self.shared.slots, self.tail).with_mut(|slot| unsafe { slot.cast::<T>().write(item) });
        self.free -= 1;
        self.tail = self.tail.wrapping_add(1);
        // Release pairs with the consumer's acquire of `tail`: the item is there when it is counted.
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether the consumer is gone. Pushing still works while there is room, to nobody.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // Acquire pairs with the release in the consumer's drop.
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.cached_tail {
            self.refresh_tail();
            if self.head == self.cached_tail {
                return None;
            }
        }
        // SAFETY: the producer published the item at `head` and leaves the slot alone until `head` is
        // published beyond it; `head` moves on here, so no item is taken twice.
        let item = slot(&self.shared.slots, self.head).with_mut(|slot| unsafe { slot.cast::<T>().read() });
        self.head = self.head.wrapping_add(1);
        self.shared.publish_head(self.head);
        Some(item)
    }

    /// Gives up to `max` items to `f`, oldest first, and returns how many. The producer sees their slots free
    /// all at once, after the last call of `f`: fewer cache lines change hands than with one
    /// [`pop`](Self::pop) each, but it waits longer for credits.
    pub fn drain(&mut self, max: usize, mut f: impl FnMut(T)) -> usize {
        /// Publishes also when `f` panics, or a taken item would be taken again.
        struct Taken<'a, T> {
            shared: &'a Shared<T>,
            head: &'a mut usize,
        }
        impl<T> Drop for Taken<'_, T> {
            fn drop(&mut self) {
                self.shared.publish_head(*self.head);
            }
        }

        if self.cached_tail.wrapping_sub(self.head) < max {
            self.refresh_tail();
        }
        let count = self.cached_tail.wrapping_sub(self.head).min(max);
        if count > 0 {
            let shared = &*self.shared;
            let head = &mut self.head;
            let taken = Taken { shared, head };
            // Out of the loop, because `f` is opaque: the compiler would have to read it again for each item.
            let slots = &*shared.slots;
            for _ in 0..count {
                let slot = slot(slots, *taken.head);
                *taken.head = taken.head.wrapping_add(1);
                // SAFETY: as in `pop`: `count` ends at `cached_tail`, and the guard's position moves on
                // before anything can panic.
                f(slot.with_mut(|slot| unsafe { slot.cast::<T>().read() }));
            }
        }
        count
    }

    /// How many items are there right now. Looks at the producer each time.
    #[must_use]
    pub fn len(&self) -> usize {
        // Acquire pairs with the producer's release of `tail`, here and in `is_empty`: after
        // `ParkFlag::prepare_park` this is the second look, so it must not be answered from `cached_tail`.
        self.shared.tail.load(Ordering::Acquire).wrapping_sub(self.head)
    }

    /// Whether nothing is there right now. Looks at the producer each time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the producer is gone. Items may still be there: the stream has ended when the ring is empty
    /// *after* this was true.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // Acquire pairs with the release in the producer's drop: all it pushed is visible from here on.
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<T> Consumer<T> {
    fn refresh_tail(&mut self) {
        // Acquire pairs with the producer's release of `tail`: the items are there.
        self.cached_tail = self.shared.tail.load(Ordering::Acquire);
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        // Release pairs with the acquire in `Consumer::is_closed`.
        self.shared.closed.store(true, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // Release pairs with the acquire in `Producer::is_closed`.
        self.shared.closed.store(true, Ordering::Release);
    }
}

impl<T> std::fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Producer(at {})", self.tail)
    }
}

impl<T> std::fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Consumer(at {})", self.head)
    }
}
