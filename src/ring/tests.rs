use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::channel;

#[test]
fn items_cross_threads_whole_and_in_order() {
    let (mut producer, mut consumer) = channel(64);
    let total = 200_000u64;
    let sender = std::thread::spawn(move || {
        for mut item in 0..total {
            while let Err(back) = producer.push(item) {
                item = back;
                std::thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    while expected < total {
        match consumer.pop() {
            Some(item) => {
                assert_eq!(item, expected);
                expected += 1;
            }
            None => std::thread::yield_now(),
        }
    }
    sender.join().unwrap();
    assert!(consumer.is_closed() && consumer.is_empty());
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
fn every_item_is_dropped_exactly_once() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let drops = Arc::new(AtomicUsize::new(0));
    let (mut producer, mut consumer) = channel(8);
    for round in 0..5 {
        for _ in 0..8 {
            assert!(producer.push(Counted(drops.clone())).is_ok());
        }
        for _ in 0..if round < 4 { 8 } else { 3 } {
            assert!(consumer.pop().is_some());
        }
    }
    assert_eq!(drops.load(Ordering::Relaxed), 35);
    drop((producer, consumer));
    assert_eq!(drops.load(Ordering::Relaxed), 40);
}
