use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Consumer, Doorbell, Producer, channel};

/// Counts its drops.
struct Counted(u64, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

fn push_until_taken<T: Send>(producer: &mut Producer<T>, mut item: T) {
    while let Err(back) = producer.push(item) {
        item = back;
        thread::yield_now();
    }
}

#[test]
fn a_million_items_cross_threads_whole_and_in_order() {
    let (mut producer, mut consumer) = channel(64);
    let total = 1_000_000u64;
    let sender = thread::spawn(move || {
        for item in 0..total {
            push_until_taken(&mut producer, item);
        }
    });
    let mut expected = 0;
    while expected < total {
        match consumer.pop() {
            Some(item) => {
                assert_eq!(item, expected);
                expected += 1;
            }
            None => thread::yield_now(),
        }
    }
    sender.join().unwrap();
    assert!(consumer.is_closed() && consumer.is_empty());
}

#[test]
fn a_ring_does_what_a_bounded_queue_does() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let depth = random.random_range(1..40usize);
        let (mut producer, mut consumer) = channel(depth);
        let depth = depth.next_power_of_two();
        let mut queue = VecDeque::new();
        for step in 0..500u64 {
            let context = format!("seed {seed}, step {step}");
            match random.random_range(0..5) {
                0..=1 => {
                    let expected = if queue.len() < depth { Ok(()) } else { Err(step) };
                    assert_eq!(producer.push(step), expected, "{context}");
                    if expected.is_ok() {
                        queue.push_back(step);
                    }
                }
                2 => assert_eq!(consumer.pop(), queue.pop_front(), "{context}"),
                3 => {
                    let max = random.random_range(0..2 * depth);
                    let mut taken = Vec::new();
                    let count = consumer.drain(max, |item| taken.push(item));
                    let expected: Vec<_> = queue.drain(..max.min(queue.len())).collect();
                    assert_eq!((count, taken), (expected.len(), expected), "{context}");
                }
                _ => {
                    let credits = producer.credits();
                    assert!(credits <= depth - queue.len(), "{context}");
                    assert_eq!(credits == 0, queue.len() == depth, "{context}");
                }
            }
            assert_eq!(
                (consumer.len(), consumer.is_empty()),
                (queue.len(), queue.is_empty()),
                "{context}"
            );
        }
    }
}

#[test]
fn every_item_is_dropped_once_wherever_the_threads_stop() {
    for seed in 0..50 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut producer, mut consumer) = channel(random.random_range(1..100));
        let drops = Arc::new(AtomicUsize::new(0));
        let (made, wanted) = (random.random_range(0..5_000u64), random.random_range(0..5_000u64));
        let sender = thread::spawn({
            let drops = drops.clone();
            move || {
                for number in 0..made {
                    let mut item = Counted(number, drops.clone());
                    while let Err(back) = producer.push(item) {
                        item = back;
                        if producer.is_closed() {
                            return number + 1;
                        }
                        thread::yield_now();
                    }
                }
                made
            }
        });
        let mut expected = 0;
        while expected < wanted {
            let closed = consumer.is_closed();
            let batch = random.random_range(1..8).min(wanted - expected);
            let taken = consumer.drain(batch as usize, |item| {
                assert_eq!(item.0, expected, "seed {seed}");
                expected += 1;
            });
            if taken == 0 {
                if closed {
                    break;
                }
                thread::yield_now();
            }
        }
        drop(consumer);
        let made = sender.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed) as u64, made, "seed {seed}");
        assert_eq!(expected, wanted.min(made), "seed {seed}");
    }
}

#[test]
fn a_full_ring_gives_the_item_back_and_has_credits_again_after_a_pop() {
    let (mut producer, mut consumer) = channel(3);
    for item in 0..4 {
        assert_eq!(producer.push(item), Ok(()), "three is rounded up to four");
    }
    assert_eq!((producer.push(9), producer.credits()), (Err(9), 0));
    assert_eq!(consumer.pop(), Some(0));
    assert_eq!((producer.credits(), producer.push(9)), (1, Ok(())));
}

#[test]
fn items_without_a_size_are_counted_too() {
    let (mut producer, mut consumer) = channel(2);
    assert_eq!(
        (producer.push(()), producer.push(()), producer.push(())),
        (Ok(()), Ok(()), Err(()))
    );
    assert_eq!((consumer.pop(), consumer.len()), (Some(()), 1));
}

#[test]
fn each_end_sees_that_the_other_is_gone_and_items_outlive_their_producer() {
    let (mut producer, mut consumer) = channel(2);
    assert!(!producer.is_closed() && !consumer.is_closed());
    producer.push(1).unwrap();
    drop(producer);
    assert!(consumer.is_closed() && !consumer.is_empty());
    assert_eq!((consumer.pop(), consumer.pop()), (Some(1), None));
    let (mut producer, consumer) = channel(2);
    drop(consumer);
    assert!(producer.is_closed());
    assert_eq!(
        (producer.push(1), producer.push(2), producer.push(3)),
        (Ok(()), Ok(()), Err(3))
    );
}

#[test]
fn a_panic_while_draining_loses_one_item_and_repeats_none() {
    let drops = Arc::new(AtomicUsize::new(0));
    let (mut producer, mut consumer) = channel(4);
    for number in 0..4 {
        assert!(producer.push(Counted(number, drops.clone())).is_ok());
    }
    let drained = catch_unwind(AssertUnwindSafe(|| {
        consumer.drain(4, |item| assert_ne!(item.0, 1, "the second item panics"));
    }));
    assert!(drained.is_err());
    assert_eq!((drops.load(Ordering::Relaxed), producer.credits()), (2, 2));
    assert_eq!(consumer.pop().map(|item| item.0), Some(2));
    drop((producer, consumer));
    assert_eq!(drops.load(Ordering::Relaxed), 4);
}

#[test]
#[should_panic(expected = "a ring has room for something")]
fn a_ring_without_room_is_refused() {
    let _ = channel::<u8>(0);
}

/// Whether the doorbell was rung since it was last cleared.
fn was_rung(doorbell: &Doorbell) -> bool {
    doorbell.wait(Some(Duration::ZERO)).unwrap()
}

#[test]
fn only_a_parked_consumer_is_rung_and_only_once() {
    let doorbell = Doorbell::new().unwrap();
    doorbell.ring_if_parked();
    assert!(!was_rung(&doorbell), "it never parked");
    doorbell.prepare_park();
    doorbell.clone().ring_if_parked();
    assert!(was_rung(&doorbell));
    doorbell.clear();
    doorbell.ring_if_parked();
    assert!(!was_rung(&doorbell), "the first ring wakes it already");
    doorbell.prepare_park();
    doorbell.unpark();
    doorbell.ring_if_parked();
    assert!(!was_rung(&doorbell), "it found work on its second look");
    doorbell.ring();
    assert!(was_rung(&doorbell), "an unconditional ring asks for no flag");
}

/// Long enough that only a lost wake-up gets there.
const HANG: Duration = Duration::from_secs(60);

fn take_and_park(doorbell: &Doorbell, rings: &mut [Consumer<u64>], total: u64, seed: u64) {
    let mut expected = vec![0; rings.len()];
    while expected.iter().sum::<u64>() < total {
        for (ring, expected) in rings.iter_mut().zip(&mut expected) {
            ring.drain(32, |item| {
                assert_eq!(item, *expected, "seed {seed}");
                *expected += 1;
            });
        }
        doorbell.prepare_park();
        if rings.iter().all(Consumer::is_empty) && expected.iter().sum::<u64>() < total {
            assert!(
                doorbell.wait(Some(HANG)).unwrap(),
                "a wake-up was lost, seed {seed}"
            );
        }
        doorbell.unpark();
        doorbell.clear();
    }
}

#[test]
fn a_consumer_that_sleeps_whenever_it_can_gets_everything_from_three_producers() {
    for seed in 0..4 {
        let doorbell = Doorbell::new().unwrap();
        let per_producer = 20_000;
        let mut rings = Vec::new();
        let mut senders = Vec::new();
        for number in 0..3 {
            let (mut producer, consumer) = channel(16);
            rings.push(consumer);
            let doorbell = doorbell.clone();
            let mut random = StdRng::seed_from_u64(seed * 3 + number);
            senders.push(thread::spawn(move || {
                for item in 0..per_producer {
                    push_until_taken(&mut producer, item);
                    doorbell.ring_if_parked();
                    if random.random_ratio(1, 16) {
                        thread::yield_now();
                    }
                }
            }));
        }
        take_and_park(&doorbell, &mut rings, 3 * per_producer, seed);
        for sender in senders {
            sender.join().unwrap();
        }
    }
}
