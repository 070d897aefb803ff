//! What the executor costs for one operation of the key-value store. `cargo bench --bench execution_kv`

use std::sync::Arc;

use atlas_smr_replica::crypto::Digester;
use atlas_smr_replica::execution::apps::kv::{self, Kv};
use atlas_smr_replica::execution::{
    Application, CheckpointRule, Executor, MonolithicState, OperationContext, ResultWriter, SingleThreaded,
    StateRule,
};
use atlas_smr_replica::messages::{Authenticator, Batch, Frame, FrameBuilder, Mode, Proposal, RequestFrame};
use atlas_smr_replica::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, SeqNo, UnixTime, View};
use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FRAME_OPERATIONS: usize = 512;
const FRAMES: usize = 16;

/// Puts of 64 bytes over `keys` keys, in an order that defeats the caches as random keys do.
fn operation(number: u64, keys: u64) -> Vec<u8> {
    let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys;
    kv::put(&key.to_le_bytes(), &[b'v'; 53]).expect("the key is short")
}

fn decision(seq: u64, keys: u64) -> Arc<Proposal> {
    let frames: Vec<Frame> = (0..FRAMES)
        .map(|index| {
            let mut builder = FrameBuilder::default();
            let first = (seq * FRAMES as u64 + index as u64) * FRAME_OPERATIONS as u64;
            (first..first + FRAME_OPERATIONS as u64)
                .for_each(|number| builder.push(&operation(number, keys)).expect("it fits"));
            let sequence = FrameSeq::new(1 + seq);
            let body = builder.finish(ClientId::new(index as u32), sequence, Mode::Ordered);
            let frame = RequestFrame {
                body,
                authenticator: Authenticator::Macs(Vec::new()),
            };
            Frame::check(frame.to_archive(), 4096, 1 << 20, |_| Digest::ZERO).expect("it is sound")
        })
        .collect();
    let bytes = frames.iter().map(|frame| frame.bytes().len()).sum();
    let batch = Arc::new(Batch {
        digest: Digest::ZERO,
        time: UnixTime::EPOCH,
        frames,
        bytes,
    });
    Arc::new(Proposal {
        view: View::ZERO,
        seq: SeqNo::new(seq),
        batch,
        message: Bytes::new(),
        authentic: true,
    })
}

fn puts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("put of 64 bytes, through the executor, with replies");
    group.throughput(Throughput::Elements((FRAMES * FRAME_OPERATIONS) as u64));
    for keys in [1_000, 100_000, 1_000_000] {
        let digester = Digester::new(ClusterId::from_bytes([1; 16]));
        let rule = CheckpointRule {
            decisions: u64::MAX,
            bytes: u64::MAX,
            state: StateRule::ALWAYS,
        };
        let mut executor = SingleThreaded::new(Kv, FRAMES, digester, Epoch::ZERO, rule);
        let (mut seq, mut events) = (0, Vec::new());
        let mut next = || {
            seq += 1;
            decision(seq, keys)
        };
        // Every key is there before it is measured.
        for _ in 0..(4 * keys as usize).div_ceil(FRAMES * FRAME_OPERATIONS) {
            executor.execute(&next(), &mut events);
            events.clear();
        }
        group.bench_function(BenchmarkId::new("keys", keys), |bench| {
            bench.iter_batched(
                &mut next,
                |decision| {
                    executor.execute(&decision, &mut events);
                    events.clear();
                },
                BatchSize::PerIteration,
            );
        });
    }
}

fn checkpoint(criterion: &mut Criterion) {
    let digester = Digester::new(ClusterId::from_bytes([1; 16]));
    let mut state = Kv.initial_state();
    let context = OperationContext::default();
    let mut result = ResultWriter::default();
    for number in 0..400_000 {
        Kv.update(&mut state, &context, &operation(number, 100_000), &mut result);
        result.clear();
    }
    let all: Vec<_> = (0..100_000).map(|number| operation(number, 100_000)).collect();
    let mut group = criterion.benchmark_group("checkpoint of 100,000 keys");
    group.bench_function("freeze", |bench| bench.iter(|| state.snapshot()));
    group.sample_size(20);
    group.bench_function("write every key after freezing", |bench| {
        // Two closures take turns with the one state.
        let shared = std::cell::RefCell::new(&mut state);
        bench.iter_batched(
            || shared.borrow_mut().snapshot(),
            |snapshot| {
                for put in &all {
                    Kv.update(&mut shared.borrow_mut(), &context, put, &mut result);
                    result.clear();
                }
                snapshot
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("digest after every key was written", |bench| {
        bench.iter_batched(
            || {
                // Writing every key makes every part's digest stale.
                let mut fresh = Kv.initial_state();
                for number in 0..100_000 {
                    Kv.update(&mut fresh, &context, &operation(number, 100_000), &mut result);
                    result.clear();
                }
                fresh.snapshot()
            },
            |mut snapshot| {
                let mut digests = Vec::new();
                <Kv as Application>::State::digest_step(&mut snapshot, &digester, usize::MAX, &mut digests);
                digests
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, puts, checkpoint);
criterion_main!(benches);
