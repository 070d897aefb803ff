//! Our ring beside rtrb: `cargo bench --bench ring`.
//!
//! `hop`: one thread pushes an item and pops it again. `batch`: one thread pushes 32 and takes 32. `stream`: two threads, the time from
//! the first push to the last pop divided by the items, taken singly or up to 32 at a time. Both rings have 1024 slots, and
//! all figures are for one item.

use std::hint::black_box;
use std::time::{Duration, Instant};

use atlas_smr_replica::ring;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

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
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |b| {
        b.iter(|| {
            assert!(sender.push(black_box(item(1))));
            receiver.pop()
        });
    });
    group.finish();
    let mut group = c.benchmark_group("batch");
    group.throughput(Throughput::Elements(BATCH as u64));
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
    let barrier = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
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
    for (name, batched) in [("stream", false), ("stream_batched", true)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        group.bench_function("ours", |b| {
            b.iter_custom(|items| stream(ring::channel(DEPTH), items, batched));
        });
        group.bench_function("rtrb", |b| {
            b.iter_custom(|items| stream(rtrb::RingBuffer::new(DEPTH), items, batched));
        });
        group.finish();
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
criterion_main!(benches);
