//! What preprocessing costs: a frame's check by size and authenticator, batch digests, and a frame's way
//! through the pool.

use std::hint::black_box;
use std::time::Duration;

use atlas_smr_replica::crypto::{Digester, Domain, LinkSecret, MacKey, SigningKey};
use atlas_smr_replica::messages::{
    Authenticator, Batch, Checked, Frame, FrameBuilder, Mode, PrePrepare, RequestFrame, SystemMessage,
};
use atlas_smr_replica::preprocessing::{
    CheckerLimits, ClientAuth, ClientDirectory, ClientKeys, FrameChecker, FrameSource, Offer, PoolLimits,
    RequestPool, RequireSignature, batch_digest,
};
use atlas_smr_replica::types::{ClientId, ClusterId, Epoch, FrameSeq, NodeId, SeqNo, Time, UnixTime, View};
use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-bench");
const REPLICAS: usize = 4;
const CLIENTS: u32 = 64;
const LIMITS: CheckerLimits = CheckerLimits {
    frame_bytes_max: 1 << 17,
    frame_operations_max: 1024,
    batch_bytes_max: 1 << 24,
    batch_frames_max: 4096,
    frame_macs: 0,
};

/// The keys of all clients and replicas, made once: key agreement is slow.
struct Keys {
    signing: Vec<SigningKey>,
    /// By client, then replica.
    macs: Vec<Vec<MacKey>>,
}

impl Keys {
    fn new() -> Self {
        let replicas: Vec<_> = (0..REPLICAS as u8)
            .map(|r| LinkSecret::from_bytes(&[r + 1; 32]))
            .collect();
        let macs_of = |client: u8| {
            let ours = LinkSecret::from_bytes(&[client + 100; 32]);
            let shared = replicas
                .iter()
                .map(|replica| MacKey::between(&ours, &replica.public(), CLUSTER));
            shared.map(|key| key.expect("honest keys agree")).collect()
        };
        Self {
            signing: (0..CLIENTS as u8)
                .map(|client| SigningKey::from_seed(&[client; 32]))
                .collect(),
            macs: (0..CLIENTS as u8).map(macs_of).collect(),
        }
    }

    fn checker(&self, auth: ClientAuth) -> FrameChecker {
        let clients = self
            .signing
            .iter()
            .zip(&self.macs)
            .map(|(signing, macs)| ClientKeys {
                verifying: signing.verifying_key(),
                mac: Some(macs[0].clone()),
                must_sign: RequireSignature::default(),
            });
        let directory = ClientDirectory::new(clients.collect());
        FrameChecker::new(
            NodeId::new(0),
            REPLICAS,
            auth,
            LIMITS,
            Digester::new(CLUSTER),
            directory,
        )
    }

    fn frame(&self, auth: ClientAuth, client: u32, sequence: u64, operations: usize) -> Bytes {
        let mut builder = FrameBuilder::default();
        for number in 0..operations {
            builder.push(&[number as u8; 64]).expect("a small frame");
        }
        let body = builder.finish(ClientId::new(client), FrameSeq::new(sequence), Mode::Ordered);
        let digest = Digester::new(CLUSTER).digest(Domain::RequestFrame, &body);
        let authenticator = match auth {
            ClientAuth::Signature => {
                Authenticator::Signature(self.signing[client as usize].sign(Domain::RequestFrame, &digest))
            }
            ClientAuth::Mac => Authenticator::Macs(
                self.macs[client as usize]
                    .iter()
                    .map(|key| key.mac(&digest))
                    .collect(),
            ),
        };
        RequestFrame { body, authenticator }.to_archive()
    }

    fn frames(&self, auth: ClientAuth, count: usize, operations: usize) -> Vec<Bytes> {
        let client = |number: usize| number as u32 % CLIENTS;
        let sequence = |number: usize| 1 + number as u64 / u64::from(CLIENTS);
        (0..count)
            .map(|number| self.frame(auth, client(number), sequence(number), operations))
            .collect()
    }

    fn checked(&self, count: usize, operations: usize) -> Vec<Frame> {
        let mut checker = self.checker(ClientAuth::Mac);
        let arrived = self.frames(ClientAuth::Mac, count, operations);
        let mut frames = Vec::with_capacity(count);
        let forwarded = FrameSource::Replica(NodeId::new(1));
        checker.check_frames(
            arrived.into_iter().map(|bytes| (forwarded, bytes)),
            |_, verdict| {
                frames.push(verdict.expect("an honest frame"));
            },
        );
        frames
    }
}

/// One frame after the other, `frames` per turn: time per frame.
fn frame_checks(criterion: &mut Criterion) {
    let keys = Keys::new();
    let mut group = criterion.benchmark_group("check_frame");
    for (auth, turns) in [
        (ClientAuth::Mac, &[16][..]),
        (ClientAuth::Signature, &[1, 16, 64][..]),
    ] {
        for operations in [1, 16, 128, 256] {
            for &count in turns {
                let mut checker = keys.checker(auth);
                let frames = keys.frames(auth, count, operations);
                group.throughput(Throughput::Elements(count as u64));
                let name = BenchmarkId::new(format!("{auth}_{count}_a_turn"), operations);
                group.bench_function(name, |bencher| {
                    bencher.iter(|| {
                        let arrived = (0..).zip(&frames).map(|(number, bytes)| {
                            (
                                FrameSource::Client(ClientId::new(number % CLIENTS)),
                                bytes.clone(),
                            )
                        });
                        checker.check_frames(arrived, |_, verdict| {
                            black_box(verdict.expect("an honest frame"));
                        });
                    });
                });
            }
        }
    }
    group.finish();
}

fn proposals(criterion: &mut Criterion) {
    let keys = Keys::new();
    let digester = Digester::new(CLUSTER);
    let mut group = criterion.benchmark_group("check_proposal_16_operations_a_frame");
    for count in [16, 128] {
        let frames = keys.checked(count, 16);
        let bytes = frames.iter().map(|frame| frame.bytes().len()).sum();
        let batch = Batch {
            digest: batch_digest(&digester, UnixTime::from_nanos(7), &frames),
            time: UnixTime::from_nanos(7),
            frames,
            bytes,
        };
        let message = PrePrepare::encode(CLUSTER, Epoch::ZERO, View::ZERO, SeqNo::new(1), &batch);
        let mut checker = keys.checker(ClientAuth::Mac);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("mac", count), |bencher| {
            bencher.iter(|| {
                let checked = Checked::<SystemMessage>::body_of(&message).expect("a sound message");
                black_box(checker.check_proposal(&checked, &message))
            });
        });
    }
    group.finish();
}

fn batch_digests(criterion: &mut Criterion) {
    let digester = Digester::new(CLUSTER);
    let frames = Keys::new().checked(128, 1);
    let mut group = criterion.benchmark_group("batch_digest");
    for count in [16, 128] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                black_box(batch_digest(
                    &digester,
                    UnixTime::EPOCH,
                    black_box(&frames[..count]),
                ))
            });
        });
    }
    group.finish();
}

/// 64 clients, one frame each a batch: offer, take, decide; time per frame.
fn pool(criterion: &mut Criterion) {
    let keys = Keys::new();
    let rounds = 32;
    let frames = keys.checked(CLIENTS as usize * rounds, 1);
    let limits = PoolLimits {
        frames_per_client: 64,
        bytes_per_client: 1 << 20,
        bytes_max: 1 << 26,
    };
    let mut group = criterion.benchmark_group("pool");
    group.throughput(Throughput::Elements(frames.len() as u64));
    for (name, offered) in [
        ("offer_take_decide", CLIENTS as usize),
        ("offer_take_decide_backlog", frames.len()),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || (RequestPool::new(CLIENTS as usize, limits), frames.clone()),
                |(mut pool, frames)| {
                    let mut frames = frames.into_iter();
                    while frames.len() > 0 {
                        for frame in frames.by_ref().take(offered) {
                            assert_eq!(pool.offer(Time::START, frame), Offer::Queued);
                        }
                        while let Some((frames, bytes)) = pool.take_batch(1 << 20, CLIENTS as usize) {
                            let batch = Batch {
                                digest: atlas_smr_replica::types::Digest::ZERO,
                                time: UnixTime::EPOCH,
                                frames,
                                bytes,
                            };
                            pool.on_decided(&batch);
                        }
                    }
                    pool
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700));
    targets = frame_checks, proposals, batch_digests, pool
}
criterion_main!(benches);
