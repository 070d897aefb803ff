//! What it costs to check a message once: envelope, archive, frame structure, votes. `cargo bench --bench
//! messages`

use std::hint::black_box;

use atlas_smr_replica::crypto::{Digester, Domain};
use atlas_smr_replica::messages::{
    Authenticator, Batch, Checked, Envelope, Frame, FrameBuilder, Mode, Phase, PrePrepare, RequestFrame,
    SystemMessage, Vote,
};
use atlas_smr_replica::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, SeqNo, UnixTime, View};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-bench");

fn frame(operations: usize) -> Frame {
    let mut builder = FrameBuilder::default();
    (0..operations).for_each(|_| builder.push(&[7; 64]).expect("it fits"));
    let body = builder.finish(ClientId::new(1), FrameSeq::new(1), Mode::Ordered);
    let frame = RequestFrame {
        body,
        authenticator: Authenticator::Macs(vec![[0; 16]; 4]),
    };
    Frame::check(frame.to_archive(), 4096, 1 << 20, |_| Digest::ZERO).expect("it is sound")
}

fn frames(criterion: &mut Criterion) {
    let digester = Digester::new(CLUSTER);
    let mut group = criterion.benchmark_group("frame, 64-byte operations");
    for operations in [1, 16, 128, 512] {
        let bytes = frame(operations).bytes().clone();
        group.throughput(Throughput::Elements(operations as u64));
        group.bench_function(BenchmarkId::new("structure", operations), |bench| {
            bench.iter(|| Frame::check(black_box(&bytes).clone(), 4096, 1 << 20, |_| Digest::ZERO));
        });
        group.bench_function(BenchmarkId::new("structure and digest", operations), |bench| {
            let digest = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
            bench.iter(|| Frame::check(black_box(&bytes).clone(), 4096, 1 << 20, digest));
        });
    }
}

fn system(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("replicas' messages");
    let vote = Vote {
        phase: Phase::Commit,
        view: 1,
        seq: 2,
        digest: [3; 32],
    };
    for votes in [1, 8, 64] {
        let message = SystemMessage::votes(CLUSTER, Epoch::ZERO, vec![vote; votes]);
        group.bench_function(BenchmarkId::new("envelope and votes", votes), |bench| {
            bench.iter(|| {
                Envelope::open(black_box(&message), CLUSTER, Epoch::ZERO).expect("it is ours");
                Checked::<SystemMessage>::body_of(&message).expect("it is sound")
            });
        });
    }
    for count in [1, 16, 128] {
        let frames: Vec<Frame> = (0..count).map(|_| frame(64)).collect();
        let bytes = frames.iter().map(|frame| frame.bytes().len()).sum();
        let batch = Batch {
            digest: Digest::ZERO,
            time: UnixTime::EPOCH,
            frames,
            bytes,
        };
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(
            BenchmarkId::new("encode a pre-prepare of frames of 64", count),
            |bench| {
                bench.iter(|| {
                    PrePrepare::encode(CLUSTER, Epoch::ZERO, View::ZERO, SeqNo::new(1), black_box(&batch))
                });
            },
        );
        let message = PrePrepare::encode(CLUSTER, Epoch::ZERO, View::ZERO, SeqNo::new(1), &batch);
        group.bench_function(
            BenchmarkId::new("check a pre-prepare's archive", count),
            |bench| {
                bench.iter(|| Checked::<SystemMessage>::body_of(black_box(&message)).expect("it is sound"));
            },
        );
    }
}

criterion_group!(benches, frames, system);
criterion_main!(benches);
