//! A ring of events that one thread writes, and any other reads at any time without holding it up.
//!
//! The writer counts an event before it begins to write it and once more when it is written. A reader copies
//! the events that are written, and then looks how many were begun: each of those overwrote, or is just
//! overwriting, the oldest, and what was copied of these is thrown away. This is a sequence lock whose readers
//! never try again.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::event::EVENT_WORDS;

/// An event as it is kept.
pub(super) type Words = [u64; EVENT_WORDS];

/// The last events of one kind of one shard.
#[derive(Debug)]
pub(super) struct EventRing {
    /// A power of two of them.
    slots: Box<[[AtomicU64; EVENT_WORDS]]>,
    begun: AtomicU64,
    written: AtomicU64,
}

impl EventRing {
    /// For so many events or a few more; all its memory is there from now on.
    pub fn new(events: usize) -> Self {
        let events = events.max(1).next_power_of_two();
        Self {
            slots: (0..events)
                .map(|_| [const { AtomicU64::new(0) }; EVENT_WORDS])
                .collect(),
            begun: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    fn slot(&self, number: u64) -> &[AtomicU64; EVENT_WORDS] {
        // The length is a power of two.
        &self.slots[number as usize & (self.slots.len() - 1)]
    }

    /// Keeps an event, in the place of the oldest. Of the one thread that writes: were there two, events
    /// would be lost or mixed.
    pub fn push(&self, words: Words) {
        let number = self.begun.load(Ordering::Relaxed);
        self.begun.store(number + 1, Ordering::Relaxed);
        // Pairs with the fence in `read`: who sees a word of this event sees that it was begun.
        fence(Ordering::Release);
        for (kept, word) in self.slot(number).iter().zip(words) {
            kept.store(word, Ordering::Relaxed);
        }
        // Pairs with the load in `read`: who sees that it is written sees its words.
        self.written.store(number + 1, Ordering::Release);
    }

    /// The events that are here, the oldest first, and how many there ever were.
    pub fn read(&self) -> (Vec<Words>, u64) {
        let length = self.slots.len() as u64;
        // Pairs with the store in `push`.
        let written = self.written.load(Ordering::Acquire);
        let first = written.saturating_sub(length);
        let copy = |number| {
            let slot = self.slot(number);
            slot.each_ref().map(|word| word.load(Ordering::Relaxed))
        };
        let mut events: Vec<Words> = (first..written).map(copy).collect();
        // Pairs with the fence in `push`.
        fence(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Relaxed);
        let sound_from = begun.saturating_sub(length);
        let torn = sound_from.saturating_sub(first).min(events.len() as u64);
        events.drain(..torn as usize);
        (events, written)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn numbered(number: u64) -> Words {
        std::array::from_fn(|word| number.wrapping_mul(EVENT_WORDS as u64) + word as u64)
    }

    #[test]
    fn the_last_events_stay_in_order_and_older_ones_are_counted() {
        let ring = EventRing::new(5);
        assert_eq!(ring.read(), (vec![], 0));
        for number in 0..21 {
            ring.push(numbered(number));
        }
        let (events, recorded) = ring.read();
        assert_eq!(recorded, 21);
        // Eight is the power of two.
        assert_eq!(events, (13..21).map(numbered).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_beside_the_writer_sees_whole_events_one_after_the_other() {
        let (ring, done) = (EventRing::new(8), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..200_000).for_each(|number| ring.push(numbered(number)));
                done.store(true, Ordering::Release);
            });
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let (events, recorded) = ring.read();
                assert!(recorded >= last, "{recorded} after {last}");
                last = recorded;
                let until = recorded;
                for (event, number) in events.iter().zip(until - events.len() as u64..until) {
                    assert_eq!(*event, numbered(number));
                }
            }
        });
        assert_eq!(
            ring.read().0,
            (199_992..200_000).map(numbered).collect::<Vec<_>>()
        );
    }
}
