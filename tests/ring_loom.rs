//! The ring and the parking protocol in every interleaving and every allowed reordering of a few small
//! programs.
//!
//! The shipped files are compiled here once more, against loom's primitives: `cargo test --release --test
//! ring_loom`. A build of the whole crate with loom's own `cfg` is no way, because dependencies take that
//! `cfg` for their own models.

use std::sync::atomic::{AtomicUsize, Ordering};

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

#[expect(dead_code, reason = "the model uses a part of what ships")]
#[path = "../src/runtime/ring"]
mod ring {
    mod shim {
        pub(super) use loom::cell::UnsafeCell;
        pub(super) use loom::sync::Arc;
        pub(super) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    }

    pub mod park;
    pub mod spsc;
}

use ring::park::ParkFlag;
use ring::spsc::{Consumer, Producer, channel};

/// Counts its drops, invisibly to loom; an item taken twice or never is a wrong count.
struct Tracked {
    value: usize,
    drops: std::sync::Arc<AtomicUsize>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes tracked items, numbered from zero.
#[derive(Default)]
struct Maker {
    made: usize,
    drops: std::sync::Arc<AtomicUsize>,
}

impl Maker {
    fn make(&mut self) -> Tracked {
        self.made += 1;
        Tracked {
            value: self.made - 1,
            drops: self.drops.clone(),
        }
    }
}

fn take(consumer: &mut Consumer<Tracked>, batch: usize, values: &mut Vec<usize>) {
    match batch {
        1 => values.extend(consumer.pop().map(|item| item.value)),
        _ => {
            consumer.drain(batch, |item| values.push(item.value));
        }
    }
}

/// One thread tries `pushes` pushes while the other takes `takes` times up to `batch` items: what was
/// accepted arrives, in order, and everything is dropped once. The ring has turned by one item before, so
/// that an item wraps.
fn exchange(depth: usize, pushes: usize, takes: usize, batch: usize) {
    loom::model(move || {
        let mut maker = Maker::default();
        let drops = maker.drops.clone();
        let (mut producer, mut consumer) = channel(depth);
        assert!(producer.push(maker.make()).is_ok());
        assert_eq!(consumer.pop().map(|item| item.value), Some(0));
        let sender = thread::spawn(move || {
            let mut accepted = Vec::new();
            for _ in 0..pushes {
                let item = maker.make();
                let value = item.value;
                if producer.push(item).is_ok() {
                    accepted.push(value);
                }
            }
            accepted
        });
        let mut taken = Vec::new();
        for _ in 0..takes {
            take(&mut consumer, batch, &mut taken);
        }
        let accepted = sender.join().unwrap();
        assert!(accepted.len() >= pushes.min(depth));
        while !consumer.is_empty() {
            take(&mut consumer, batch, &mut taken);
        }
        assert_eq!(taken, accepted);
        assert_eq!(drops.load(Ordering::Relaxed), 1 + pushes);
    });
}

#[test]
fn a_ring_of_one_slot_passes_items_in_order() {
    exchange(1, 3, 3, 1);
}

#[test]
fn items_keep_their_order_across_the_wrap_of_the_ring() {
    exchange(2, 4, 3, 1);
}

#[test]
fn batches_keep_the_order_across_the_wrap_of_the_ring() {
    exchange(2, 4, 3, 2);
}

#[test]
fn credits_promise_pushes_that_succeed() {
    loom::model(|| {
        let (mut producer, mut consumer) = channel(2);
        let receiver = thread::spawn(move || {
            let _ = consumer.pop();
            let _ = consumer.pop();
        });
        for _ in 0..2 {
            for item in 0..producer.credits() {
                assert_eq!(producer.push(item), Ok(()));
            }
        }
        receiver.join().unwrap();
    });
}

#[test]
fn each_item_is_dropped_once_whichever_end_goes_last() {
    loom::model(|| {
        let mut maker = Maker::default();
        let drops = maker.drops.clone();
        let (mut producer, mut consumer) = channel::<Tracked>(2);
        let receiver = thread::spawn(move || {
            if let Some(item) = consumer.pop() {
                assert_eq!(item.value, 0);
            }
        });
        let refused = (0..3).filter(|_| producer.push(maker.make()).is_err()).count();
        assert!(refused <= 1);
        drop(producer);
        receiver.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn what_was_pushed_before_the_end_is_seen_with_the_end() {
    loom::model(|| {
        let (mut producer, mut consumer) = channel(1);
        let sender = thread::spawn(move || producer.push(7).unwrap());
        if consumer.is_closed() {
            assert_eq!(consumer.pop(), Some(7));
        }
        sender.join().unwrap();
    });
}

/// The eventfd in the model: counts rings, sleeps until there is one.
struct Event {
    rung: Mutex<usize>,
    changed: Condvar,
}

impl Event {
    fn new() -> Self {
        Self {
            rung: Mutex::new(0),
            changed: Condvar::new(),
        }
    }

    fn ring(&self) {
        *self.rung.lock().unwrap() += 1;
        self.changed.notify_one();
    }

    fn wait_and_clear(&self) {
        let mut rung = self.rung.lock().unwrap();
        while *rung == 0 {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = 0;
    }
}

/// What a consumer and its producers share beside the rings.
struct Bell {
    flag: ParkFlag,
    event: Event,
}

impl Bell {
    fn new() -> Self {
        Self {
            flag: ParkFlag::new(),
            event: Event::new(),
        }
    }

    fn push(&self, producer: &mut Producer<usize>, item: usize) {
        producer.push(item).unwrap();
        if self.flag.take_parked() {
            self.event.ring();
        }
    }

    /// Takes `total` items from the rings and sleeps whenever all are empty. A lost wake-up is a deadlock,
    /// which loom reports.
    fn consume(&self, rings: &mut [Consumer<usize>], total: usize) -> usize {
        let (mut taken, mut sum) = (0, 0);
        loop {
            for ring in rings.iter_mut() {
                taken += ring.drain(usize::MAX, |item| sum += item);
            }
            if taken == total {
                return sum;
            }
            self.flag.prepare_park();
            if rings.iter().all(Consumer::is_empty) {
                self.event.wait_and_clear();
            }
            self.flag.unpark();
        }
    }
}

/// The parking models up to three preemptions; without that bound the first one takes a minute (and passes
/// too).
fn parking_model(program: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(program);
}

#[test]
fn a_consumer_that_parks_after_each_item_misses_no_wake_up() {
    parking_model(|| {
        let bell = Arc::new(Bell::new());
        let (mut producer, consumer) = channel(2);
        let sender = thread::spawn({
            let bell = bell.clone();
            move || {
                bell.push(&mut producer, 1);
                bell.push(&mut producer, 2);
            }
        });
        assert_eq!(bell.consume(&mut [consumer], 2), 3);
        sender.join().unwrap();
    });
}

#[test]
fn two_producers_of_one_consumer_lose_no_wake_up() {
    parking_model(|| {
        let bell = Arc::new(Bell::new());
        let mut consumers = Vec::new();
        let mut senders = Vec::new();
        for item in 1..=2 {
            let (mut producer, consumer) = channel(1);
            let bell = bell.clone();
            consumers.push(consumer);
            senders.push(thread::spawn(move || bell.push(&mut producer, item)));
        }
        assert_eq!(bell.consume(&mut consumers, 2), 3);
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn an_awake_consumer_is_never_rung() {
    loom::model(|| {
        let bell = Arc::new(Bell::new());
        let (mut producer, mut consumer) = channel(1);
        let sender = thread::spawn({
            let bell = bell.clone();
            move || bell.push(&mut producer, 1)
        });
        let _ = consumer.pop();
        sender.join().unwrap();
        assert_eq!(*bell.event.rung.lock().unwrap(), 0);
    });
}
