//! What one consensus instance costs one replica in CPU: every message it takes and every effect it makes,
//! from the proposal to the decision. Batches are empty: frames are paid for elsewhere.
//!
//! `cargo bench --bench pbft`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use atlas_smr_replica::crypto::{Digester, SigningKey};
use atlas_smr_replica::messages::{
    Batch, Checked, CheckpointClaim, Phase, PrePrepare, Proposal, SignedCheckpoint, Vote, archive,
};
use atlas_smr_replica::ordering::OrderingProtocol;
use atlas_smr_replica::ordering::pbft::{OrderingConfig, Pbft};
use atlas_smr_replica::protocol::{Effect, Outbox, PartContext, Record};
use atlas_smr_replica::types::{ClusterId, Digest, Epoch, Lsn, NodeId, Quorum, SeqNo, Time, UnixTime, View};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
const WINDOW: u64 = 2000;
/// Instances between two checkpoints: one measured iteration.
const INSTANCES: u64 = 1000;

struct Replica {
    pbft: Pbft,
    out: Outbox,
    n: usize,
    next: SeqNo,
    decided: u64,
}

impl Replica {
    fn new(n: usize, node: u16) -> Self {
        let signing = |node: NodeId| SigningKey::from_seed(&[node.get() as u8 + 1; 32]);
        let node = NodeId::new(node);
        let context = PartContext {
            node,
            quorum: Quorum::of(n).expect("a valid size"),
            cluster: CLUSTER,
            epoch: Epoch::ZERO,
            base: CheckpointClaim::NONE,
            digester: Digester::new(CLUSTER),
            window: WINDOW,
            undecided_bytes_max: 64 << 20,
            clock_bound: Duration::from_secs(10),
            signing: signing(node),
            verifying: NodeId::all(n).map(|node| signing(node).verifying_key()).collect(),
            has_log: false,
        };
        Self {
            pbft: Pbft::new(OrderingConfig::default(), context),
            out: Outbox::new(Lsn::ZERO),
            n,
            next: SeqNo::new(1),
            decided: 0,
        }
    }

    fn drain(&mut self) {
        for effect in self.out.drain() {
            self.decided += u64::from(matches!(effect, Effect::Decide(_)));
            black_box(effect);
        }
    }

    /// One instance at a backup, or at the leader without the encoding of the batch's frames.
    fn instance(&mut self, node: u16) {
        let seq = self.next;
        self.next = seq.next();
        let mut digest = [9; 32];
        digest[..8].copy_from_slice(&seq.get().to_le_bytes());
        let batch = Arc::new(Batch {
            digest: Digest::from_bytes(digest),
            time: UnixTime::EPOCH,
            frames: Vec::new(),
            bytes: 0,
        });
        if node == 0 {
            self.pbft.propose(Time::START, batch, &mut self.out);
        } else {
            let message = bytes::Bytes::from_static(b"received");
            let proposal = Proposal {
                view: View::ZERO,
                seq,
                batch,
                message,
                authentic: true,
            };
            self.pbft
                .on_proposal(Time::START, NodeId::new(0), proposal, &mut self.out);
        }
        self.drain();
        for phase in [Phase::Prepare, Phase::Commit] {
            for from in (0..self.n as u16).filter(|from| *from != node) {
                if phase == Phase::Prepare && from == 0 {
                    continue;
                }
                let vote = Vote {
                    phase,
                    view: 0,
                    seq: seq.get(),
                    digest,
                };
                let message = Checked::<Vote>::new(archive(&vote, 64).into()).expect("a sound vote");
                self.pbft
                    .on_message(Time::START, NodeId::new(from), &message, &mut self.out);
                self.drain();
            }
        }
    }

    /// Makes the last instance stable, outside the measured time.
    fn checkpoint(&mut self, others: &mut [Replica], node: u16) {
        let claim = CheckpointClaim {
            seq: self.next.minus(1),
            digest: Digest::ZERO,
        };
        self.pbft.on_own_checkpoint(Time::START, claim, &mut self.out);
        for (index, other) in others
            .iter_mut()
            .enumerate()
            .filter(|(index, _)| *index != node as usize)
        {
            if let Some(signed) = other.sign(claim) {
                let from = NodeId::new(index as u16);
                self.pbft.on_checkpoint(Time::START, from, signed, &mut self.out);
            }
        }
        self.drain();
        assert_eq!(self.pbft.stable(), claim.seq, "the checkpoint is stable");
        assert_eq!(self.decided, claim.seq.get(), "every instance was decided");
    }

    fn sign(&mut self, claim: CheckpointClaim) -> Option<SignedCheckpoint> {
        self.pbft.on_own_checkpoint(Time::START, claim, &mut self.out);
        let signed = self.out.effects().iter().find_map(|effect| match effect {
            Effect::Persist {
                record: Record::Checkpoint(signed),
                ..
            } => Some(*signed),
            _ => None,
        });
        self.drain();
        signed
    }
}

fn instances(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pbft_instance");
    group.throughput(Throughput::Elements(INSTANCES));
    group.sample_size(20);
    for n in [4, 7] {
        for (name, node) in [("leader", 0), ("backup", 1)] {
            let mut replica = Replica::new(n, node);
            let mut others: Vec<Replica> = (0..n as u16).map(|node| Replica::new(n, node)).collect();
            group.bench_function(BenchmarkId::new(name, n), |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut spent = std::time::Duration::ZERO;
                    for _ in 0..iterations {
                        let start = std::time::Instant::now();
                        (0..INSTANCES).for_each(|_| replica.instance(node));
                        spent += start.elapsed();
                        replica.checkpoint(&mut others, node);
                    }
                    spent
                });
            });
        }
    }
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let batch = Batch::null();
    criterion.bench_function("pre_prepare_encode_empty", |bencher| {
        bencher
            .iter(|| PrePrepare::encode(CLUSTER, Epoch::ZERO, View::ZERO, SeqNo::new(1), black_box(&batch)));
    });
}

criterion_group!(benches, instances, encoding);
criterion_main!(benches);
