use std::mem::MaybeUninit;

use crossbeam::utils::CachePadded;

use super::shim::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell};

/// What both ends share.
///
/// Positions only grow (wrapping); position p lives in slot p mod depth.
/// Invariant: slots in `head..tail` hold items and are the consumer's; all others are the producer's.
struct Shared<T> {
    /// Written by the consumer.
    head: CachePadded<AtomicUsize>,
    /// Written by the producer.
    tail: CachePadded<AtomicUsize>,
    closed: AtomicBool,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: items move from one thread to another (T: Send); the positions order every access to a slot.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; `&Shared` gives access to slots only through the two ends, each of which exists once.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, position: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[position & (self.slots.len() - 1)]
    }
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
            self.slot(head)
                .with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The end that pushes.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// The consumer's position when last looked at: it is further now, never back.
    cached_head: usize,
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
/// # Panics
/// When `depth` is zero.
#[must_use]
pub fn channel<T: Send>(depth: usize) -> (Producer<T>, Consumer<T>) {
    assert!(depth > 0, "a ring has room for something");
    let slots = (0..depth.next_power_of_two())
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
            cached_head: 0,
        },
        Consumer {
            shared,
            head: 0,
            cached_tail: 0,
        },
    )
}

impl<T: Send> Producer<T> {
    /// How many items can be pushed for certain. Looks at the consumer only when none is left by what was seen
    /// before.
    pub fn credits(&mut self) -> usize {
        let depth = self.shared.slots.len();
        let mut free = depth - self.tail.wrapping_sub(self.cached_head);
        if free == 0 {
            // Acquire pairs with the consumer's release of `head`: its reads of the freed slots are over.
            self.cached_head = self.shared.head.load(Ordering::Acquire);
            free = depth - self.tail.wrapping_sub(self.cached_head);
        }
        free
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
        self.shared
            .slot(self.tail)
            .with_mut(|slot| unsafe { (*slot).write(item) });
        self.tail = self.tail.wrapping_add(1);
        // Release pairs with the consumer's acquire of `tail`: the item is there when it is counted.
        self.shared.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether the consumer is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.cached_tail {
            // Acquire pairs with the producer's release of `tail`.
            self.cached_tail = self.shared.tail.load(Ordering::Acquire);
            if self.head == self.cached_tail {
                return None;
            }
        }
        // SAFETY: head < tail, so the slot holds an item and is ours.
        let item = self
            .shared
            .slot(self.head)
            .with(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        // Release pairs with the producer's acquire of `head`: our read of the slot is over.
        self.shared.head.store(self.head, Ordering::Release);
        Some(item)
    }

    /// Whether nothing is there right now. Looks at the producer each time.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head == self.shared.tail.load(Ordering::Acquire)
    }

    /// Whether the producer is gone. Items may still be there.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
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
