//! Our ring beside rtrb: `cargo bench --bench ring`.
//!
//! `hop`: one thread pushes an item and pops it again. `batch`: one thread pushes 32 and takes 32. `stream`:
//! two threads, the time from the first push to the last pop divided by the items, taken singly or up to 32
//! at a time. Both rings have 1024 slots.
//!
//! The streams of the two rings take turns in short rounds, and medians of the rounds are printed with their
//! ratio: two spinning threads on a machine with other work are at the mercy of the scheduler, and this way
//! both rings equally.

use std::hint::black_box;
use std::time::{Duration, Instant};

use atlas_smr_replica::load::median;
use atlas_smr_replica::ring;
use criterion::{Criterion, criterion_group};

const DEPTH: usize = 1024;
const BATCH: usize = 32;

/// As large as what the shards pass: a message in a shared buffer and its sender.
type Item = [u64; 5];

fn item(number: u64) -> Item {
    [number; 5]
}

/// The sending end under either name.
trait Sender: Send + 'static {
    fn push(&mut self, item: Item) -> bool;
}

/// The receiving end under either name.
trait Receiver {
    fn pop(&mut self) -> Option<Item>;
    /// Takes up to `BATCH` items, returns how many, gives their slots back at once.
    fn drain(&mut self, f: impl FnMut(Item)) -> usize;
}

impl Sender for ring::Producer<Item> {
    fn push(&mut self, item: Item) -> bool {
        self.push(item).is_ok()
    }
}

impl Receiver for ring::Consumer<Item> {
    fn pop(&mut self) -> Option<Item> {
        self.pop()
    }

    fn drain(&mut self, f: impl FnMut(Item)) -> usize {
        self.drain(BATCH, f)
    }
}

impl Sender for rtrb::Producer<Item> {
    fn push(&mut self, item: Item) -> bool {
        self.push(item).is_ok()
    }
}

impl Receiver for rtrb::Consumer<Item> {
    fn pop(&mut self) -> Option<Item> {
        self.pop().ok()
    }

    fn drain(&mut self, f: impl FnMut(Item)) -> usize {
        let count = self.slots().min(BATCH);
        let chunk = self.read_chunk(count).expect("so many are there");
        chunk.into_iter().for_each(f);
        count
    }
}

fn same_thread(c: &mut Criterion, name: &str, mut sender: impl Sender, mut receiver: impl Receiver) {
    let mut group = c.benchmark_group("hop");
    group.bench_function(name, |b| {
        b.iter(|| {
            assert!(sender.push(black_box(item(1))));
            receiver.pop()
        });
    });
    group.finish();
    let mut group = c.benchmark_group("batch");
    group.bench_function(name, |b| {
        b.iter(|| {
            for number in 0..BATCH as u64 {
                assert!(sender.push(black_box(item(number))));
            }
            receiver.drain(|item| {
                black_box(item);
            })
        });
    });
    group.finish();
}

/// Time for `items` items from a second thread.
fn stream<S: Sender, R: Receiver>((mut sender, mut receiver): (S, R), items: u64, batched: bool) -> Duration {
    let barrier = &std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        // Moved, or both ends would share a cache line of this stack.
        scope.spawn(move || {
            barrier.wait();
            for number in 0..items {
                while !sender.push(item(number)) {
                    std::hint::spin_loop();
                }
            }
        });
        barrier.wait();
        let start = Instant::now();
        let mut taken = 0;
        while taken < items {
            let now = match batched {
                true => receiver.drain(|item| {
                    black_box(item);
                }) as u64,
                false => u64::from(receiver.pop().map(black_box).is_some()),
            };
            if now == 0 {
                std::hint::spin_loop();
            }
            taken += now;
        }
        start.elapsed()
    })
}

fn rings(c: &mut Criterion) {
    let (sender, receiver) = ring::channel(DEPTH);
    same_thread(c, "ours", sender, receiver);
    let (sender, receiver) = rtrb::RingBuffer::new(DEPTH);
    same_thread(c, "rtrb", sender, receiver);
}

/// Rounds of one ring, and items of one round: long beside starting a thread, short beside a time slice of
/// the scheduler.
const ROUNDS: usize = 401;
const ROUND_ITEMS: u64 = 30_000;

fn median_ns(rounds: &[Duration]) -> f64 {
    median(rounds.iter().map(|round| round.as_nanos() as f64)) / ROUND_ITEMS as f64
}

fn compare_streams() {
    for (name, batched) in [("stream", false), ("stream, batches of 32", true)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(stream(ring::channel(DEPTH), ROUND_ITEMS, batched));
            theirs.push(stream(rtrb::RingBuffer::new(DEPTH), ROUND_ITEMS, batched));
        }
        let (ours, theirs) = (median_ns(&ours), median_ns(&theirs));
        println!(
            "{name}: ours {ours:.1} ns/item, rtrb {theirs:.1} ns/item, ratio {:.2}",
            ours / theirs
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = rings
}

fn main() {
    benches();
    // `cargo test --benches` only asks whether it runs.
    if std::env::args().any(|argument| argument == "--bench") {
        compare_streams();
    }
    Criterion::default().configure_from_args().final_summary();
}
