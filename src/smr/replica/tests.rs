//! Transition tests of the orchestrator: one real replica, real execution, and peers that say what the test
//! wants.

mod covered;
mod feeding;
mod floods;
mod reads;
mod repair;
mod snapshots;
mod transfers;
mod window;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::forwarding::FORWARDED_FRAMES_MAX;
use super::*;
use crate::smr::crypto::{Domain, SigningKey};
use crate::smr::decision_log::{ChainedLog, LoggedRange};
use crate::smr::execution::apps::counter::{self, Counter};
use crate::smr::execution::fixtures;
use crate::smr::execution::{CheckpointRule, ExecutionEvent, Executor, SingleThreaded, StateRule};
use crate::smr::messages::{
    BatchRef, Checked, CheckpointOffer, ChunkOf, Frame, LogTransferMessage, Mode, RefusalReason,
    SnapshotChunk, StateTransferMessage, Status, SyncMessage, SystemMessage,
};
use crate::smr::ordering::pbft::OrderingConfig;
use crate::smr::ordering::pbft::tests::context;
use crate::smr::preprocessing::PoolLimits;
use crate::smr::protocol::{PartContext, Recipients, Record, SnapshotEvent, SnapshotTask};
use crate::smr::state_transfer::StateTransferState;
use crate::smr::types::{ClientId, ClusterId, Digest, Epoch};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
const WINDOW: u64 = 200;
const CLIENTS: usize = 2;
/// Decisions between two checkpoints.
const PERIOD: u64 = 10;

fn signing(node: u16) -> SigningKey {
    SigningKey::from_seed(&[node as u8 + 1; 32])
}

/// Every third checkpoint includes the state: those at 30, 60, …
const THIRD: StateRule = StateRule {
    small_bytes: 0,
    factor: u64::MAX,
    log_bytes_max: 3 * PERIOD * StateRule::DECISION_BYTES,
};

pub(crate) fn executor(state: StateRule) -> SingleThreaded<Counter> {
    let rule = CheckpointRule {
        decisions: PERIOD,
        bytes: u64::MAX,
        state,
    };
    let mut executor = SingleThreaded::new(Counter, CLIENTS, Digester::new(CLUSTER), Epoch::ZERO, rule);
    executor.keep_snapshots(true);
    executor
}

/// The decision at a place: every one is the null request.
fn decision(seq: u64) -> Arc<Proposal> {
    Arc::new(Proposal {
        view: View::ZERO,
        seq: SeqNo::new(seq),
        batch: Arc::new(Batch::null()),
        message: Bytes::new(),
        authentic: true,
    })
}

/// A checkpoint as every correct replica takes it.
struct Checkpoint {
    claim: CheckpointClaim,
    chunks: Vec<Bytes>,
}

/// What correct replicas' execution says of these decisions.
fn executed(seq: u64, rule: StateRule) -> Vec<ExecutionEvent> {
    let (mut executor, mut events) = (executor(rule), Vec::new());
    for seq in 1..=seq {
        executor.execute(&decision(seq), &mut events);
        while executor.background_step(usize::MAX, &mut events) {}
    }
    events
}

/// What correct replicas have after these decisions.
fn checkpoint(seq: u64) -> Checkpoint {
    checkpoint_of(seq, StateRule::ALWAYS)
}

fn checkpoint_of(seq: u64, rule: StateRule) -> Checkpoint {
    let snapshot = executed(seq, rule)
        .into_iter()
        .rev()
        .find_map(|event| match event {
            ExecutionEvent::Snapshot(snapshot) => Some(snapshot),
            _ => None,
        });
    let mut snapshot = snapshot.expect("a checkpoint was due");
    assert_eq!(snapshot.claim().seq.get(), seq);
    let (mut chunks, mut chunk) = (Vec::new(), Vec::new());
    while snapshot.next_chunk(1 << 16, &mut chunk) {
        chunks.push(std::mem::take(&mut chunk).into());
    }
    Checkpoint {
        claim: snapshot.claim(),
        chunks,
    }
}

/// The signatures of replicas 1 to 3.
pub(crate) fn certificate(claim: CheckpointClaim) -> Vec<SignedCheckpoint> {
    let digest = claim.signed_digest(&Digester::new(CLUSTER));
    let signers = 1..4;
    signers
        .map(|signer| SignedCheckpoint {
            seq: claim.seq.get(),
            digest: *claim.digest.as_bytes(),
            signer,
            signature: signing(signer).sign(Domain::Checkpoint, &digest),
        })
        .collect()
}

/// Replica 0 of 4.
pub(crate) fn replica(decision_log: ChainedLog) -> Replica<DefaultStack<Counter>> {
    replica_of_four(0, decision_log)
}

/// As the parts of these replicas are configured.
pub(crate) fn parts() -> PartSettings {
    PartSettings {
        ordering: OrderingConfig { pipeline: 4 },
        ..PartSettings::default()
    }
}

fn replica_of_four(node: u16, decision_log: ChainedLog) -> Replica<DefaultStack<Counter>> {
    let context = PartContext {
        cluster: CLUSTER,
        digester: Digester::new(CLUSTER),
        window: WINDOW,
        ..context(4, node)
    };
    let protocols = Protocols {
        decision_log,
        ..Protocols::make(&parts(), &context)
    };
    let settings = ReplicaSettings {
        node: context.node,
        cluster: CLUSTER,
        epoch: context.epoch,
        base: context.base,
        quorum: context.quorum,
        batch_bytes_max: 1 << 16,
        batch_frames_max: 16,
        votes_max: 8,
        held_effects_max: 1 << 12,
        must_sign_for: std::time::Duration::from_secs(60),
    };
    let limits = PoolLimits {
        frames_per_client: 16,
        bytes_per_client: 1 << 16,
        bytes_max: 1 << 20,
    };
    let pool = RequestPool::new(CLIENTS, limits);
    Replica::new(settings, context.digester, protocols, pool, Lsn::ZERO)
}

/// Replica 0 of 4, its executor and its disk, on which everything is at once, unless it is slow.
struct Bench {
    replica: Replica<DefaultStack<Counter>>,
    executor: SingleThreaded<Counter>,
    /// Execution takes what it is given when this is false again.
    is_busy: bool,
    /// The decision at this place is executed wrongly, once.
    wrong_at: Option<u64>,
    given: VecDeque<Arc<Proposal>>,
    now: Time,
    logged: Lsn,
    log: Vec<Record>,
    durable: Lsn,
    /// What is logged waits.
    is_slow: bool,
    /// What was said of reads beside the order.
    reads: Vec<Option<u64>>,
    /// Complete snapshots, by place.
    snapshots: BTreeMap<SeqNo, Vec<Bytes>>,
    receiving: Option<(SeqNo, Vec<Bytes>)>,
    /// What was sent, decoded.
    sent: Vec<(Recipients, SystemMessage)>,
    /// What is to be read from the log.
    wanted: Vec<LoggedRange>,
    /// The other actions worth looking at, as text.
    told: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let log = ChainedLog::new(Digester::new(CLUSTER)).keep_for_peers(0);
        Self::with(StateRule::ALWAYS, log)
    }

    /// Replica 1 in the place of replica 0, which leads.
    fn backup() -> Self {
        let log = ChainedLog::new(Digester::new(CLUSTER)).keep_for_peers(0);
        Self {
            replica: replica_of_four(1, log),
            ..Self::new()
        }
    }

    /// One that has checkpoints with the state by this rule, and keeps decisions in this log.
    fn with(rule: StateRule, decision_log: ChainedLog) -> Self {
        Self {
            replica: replica(decision_log),
            executor: executor(rule),
            is_busy: false,
            wrong_at: None,
            given: VecDeque::new(),
            now: Time::START,
            logged: Lsn::ZERO,
            log: Vec::new(),
            durable: Lsn::ZERO,
            is_slow: false,
            reads: Vec::new(),
            snapshots: BTreeMap::new(),
            receiving: None,
            sent: Vec::new(),
            wanted: Vec::new(),
            told: Vec::new(),
        }
    }

    fn hear(&mut self, from: u16, message: &Bytes) {
        let checked = Checked::<SystemMessage>::body_of(message).expect("a message of the test is sound");
        assert!(
            self.replica
                .on_message(self.now, NodeId::new(from), &checked, message)
        );
        self.act();
    }

    /// Time passes, in steps of a tick.
    fn wait_ms(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.now = self.now.after(Duration::from_millis(10));
            self.replica.on_time(self.now);
            self.act();
        }
    }

    /// Does what the replica wants done until it wants nothing more.
    fn act(&mut self) {
        loop {
            self.replica.finish_turn(self.now);
            let actions: Vec<Action> = self.replica.drain_actions().collect();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.act_on(action);
            }
            if !self.is_slow {
                self.durable = self.logged;
            }
            self.replica.on_durable(self.durable);
        }
    }

    /// The disk has done everything.
    fn catch_up(&mut self) {
        self.is_slow = false;
        self.replica.on_durable(self.logged);
        self.act();
    }

    fn act_on(&mut self, action: Action) {
        match action {
            Action::Log { lsn, record } => {
                self.logged = lsn.next();
                self.log.push(record);
            }
            Action::ServeReads(from) => self.reads.push(from.map(SeqNo::get)),
            Action::ToReplicas { to, message } | Action::PassOn { to, message } => {
                let checked =
                    Checked::<SystemMessage>::body_of(&message).expect("a replica's message is sound");
                let message = rkyv::deserialize::<SystemMessage, rkyv::rancor::Failure>(&*checked);
                self.sent
                    .push((to, message.expect("a checked archive deserialises")));
            }
            Action::Execute(decision) => {
                self.given.push_back(decision);
                self.execute_given();
            }
            Action::ReadLog(range) => self.wanted.push(range),
            Action::Snapshot(task) => self.snapshot(task),
            Action::CutLog(cut) => self.told.push(format!("cut {}", cut.seq.get())),
            Action::Diverged { stable, .. } => self.told.push(format!("diverged {}", stable.seq.get())),
            Action::Stable(claim) => self.told.push(format!("stable {}", claim.seq.get())),
            _ => {}
        }
    }

    fn execute_given(&mut self) {
        while !self.is_busy
            && let Some(decision) = self.given.pop_front()
        {
            assert_eq!(decision.seq, self.executor.executed().next(), "in order");
            self.execute(&decision);
        }
    }

    fn execute(&mut self, decision: &Arc<Proposal>) {
        let (mut events, seq) = (Vec::new(), decision.seq.get());
        match self.wrong_at.take_if(|at| *at == seq) {
            Some(_) => {
                let extra = fixtures::frame(0, 1, Mode::Ordered, &[counter::add(1)]);
                let wrong = fixtures::decision(seq, vec![extra]);
                self.executor.execute(&wrong, &mut events);
            }
            None => self.executor.execute(decision, &mut events),
        }
        while self.executor.background_step(usize::MAX, &mut events) {}
        for event in events {
            match event {
                ExecutionEvent::Executed { seq, operations, .. } => {
                    self.replica.on_executed(self.now, seq, operations);
                }
                ExecutionEvent::Refused { .. } => {}
                ExecutionEvent::Checkpoint(claim) => self.replica.on_checkpoint_taken(self.now, claim),
                ExecutionEvent::Snapshot(mut snapshot) => {
                    let (mut chunks, mut chunk) = (Vec::new(), Vec::new());
                    while snapshot.next_chunk(1 << 16, &mut chunk) {
                        chunks.push(std::mem::take(&mut chunk).into());
                    }
                    self.snapshots.insert(snapshot.claim().seq, chunks);
                    self.replica.on_snapshot_kept(self.now, snapshot.claim().seq);
                }
                ExecutionEvent::Reply { .. } | ExecutionEvent::Help(_) => {}
            }
        }
    }

    fn snapshot(&mut self, task: SnapshotTask) {
        let event = match task {
            SnapshotTask::Open { seq, .. } => {
                self.receiving = Some((seq, Vec::new()));
                SnapshotEvent::Opened(seq)
            }
            SnapshotTask::Keep(chunk) => {
                let bytes = chunk.len();
                if let Some((_, chunks)) = &mut self.receiving {
                    chunks.push(chunk);
                }
                SnapshotEvent::StorageEvent(bytes)
            }
            SnapshotTask::Complete(seq) => {
                let (received, mut chunks) = self.receiving.take().expect("something was received");
                assert_eq!(received, seq);
                chunks.sort_by_key(|chunk| SnapshotChunk::start(chunk));
                self.snapshots.insert(seq, chunks);
                SnapshotEvent::Completed(seq)
            }
            SnapshotTask::Install(seq) => {
                for chunk in &self.snapshots[&seq] {
                    self.executor
                        .read_snapshot_chunk(chunk)
                        .expect("the snapshot is sound");
                }
                self.executor.finish_snapshot().expect("the snapshot is whole");
                self.told.push(format!("installed {}", seq.get()));
                let windows = self.executor.client_windows();
                return self.replica.on_installed(self.now, seq, &windows);
            }
            SnapshotTask::Forget { before, but } => {
                return self
                    .snapshots
                    .retain(|seq, _| *seq >= before || but.contains(seq));
            }
            SnapshotTask::Copy(_) => panic!("nothing is said to be reusable"),
            SnapshotTask::Read { .. } | SnapshotTask::Invalidate => return,
        };
        self.replica.on_snapshot(self.now, event);
    }

    /// Two peers say that the null request was decided at these places.
    fn decide(&mut self, places: std::ops::RangeInclusive<u64>) {
        for seq in places {
            let decisions = vec![BatchRef::new(SeqNo::new(seq), &Digest::ZERO)];
            let message = SyncMessage::Decisions(decisions).encode(CLUSTER, Epoch::ZERO);
            self.hear(1, &message);
            self.hear(2, &message);
        }
    }

    /// A quorum of others signs a checkpoint.
    fn sign(&mut self, claim: CheckpointClaim) {
        for signed in certificate(claim) {
            let message = SystemMessage::checkpoint(CLUSTER, Epoch::ZERO, signed);
            self.hear(signed.signer, &message);
        }
    }

    /// Two peers say that they have decided so much.
    fn claim_decided(&mut self, seq: u64) {
        let status = Status {
            view: 0,
            active: true,
            stable: 0,
            decided: seq,
            view_changes: vec![0; 4],
            asks: false,
            slots: Vec::new(),
            disputed: Vec::new(),
            complaint: 0,
        };
        let message = SyncMessage::Status(status).encode(CLUSTER, Epoch::ZERO);
        self.hear(1, &message);
        self.hear(2, &message);
    }

    /// Two peers have forgotten what was decided up to this place.
    fn forget(&mut self, seq: u64) {
        let message = LogTransferMessage::Decided {
            after: 0,
            first: seq + 1,
            digests: Vec::new(),
        };
        let message = message.encode(CLUSTER, Epoch::ZERO);
        self.hear(1, &message);
        self.hear(2, &message);
    }

    fn offer(&mut self, from: u16, checkpoint: &Checkpoint) {
        let offer = CheckpointOffer {
            seq: checkpoint.claim.seq.get(),
            digest: *checkpoint.claim.digest.as_bytes(),
            cover: None,
            proof: certificate(checkpoint.claim),
        };
        let message = StateTransferMessage::Offer(offer).encode(CLUSTER, Epoch::ZERO);
        self.hear(from, &message);
    }

    /// A peer sends these chunks of a checkpoint.
    fn send_chunks(&mut self, from: u16, checkpoint: &Checkpoint, chunks: std::ops::Range<usize>) {
        let last = chunks.end - 1;
        for number in chunks {
            let chunk = ChunkOf {
                seq: checkpoint.claim.seq.get(),
                last: number == last,
                bytes: checkpoint.chunks[number].to_vec(),
            };
            let message = StateTransferMessage::Chunk(chunk).encode(CLUSTER, Epoch::ZERO);
            self.hear(from, &message);
        }
    }

    /// The peers that were asked for pieces of a checkpoint since the last call, in order.
    fn asked(&mut self) -> Vec<u16> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_iter()
            .filter_map(|(to, message)| match (to, message) {
                (
                    Recipients::One(to),
                    SystemMessage::StateTransferMessage(StateTransferMessage::Fetch(_)),
                ) => Some(to.get()),
                _ => None,
            })
            .collect()
    }

    /// Whoever is asked for head and index, or for pieces, sends them.
    fn serve(&mut self, checkpoint: &Checkpoint) {
        for donor in self.asked() {
            self.send_chunks(donor, checkpoint, 0..2);
        }
        for donor in self.asked() {
            self.send_chunks(donor, checkpoint, 2..checkpoint.chunks.len());
        }
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// Falls so far behind that only a state helps.
    fn fall_behind(&mut self, seq: u64) {
        self.claim_decided(seq);
        self.forget(seq - seq % PERIOD);
        self.wait_ms(10);
        assert!(matches!(
            self.replica.transfer_phase(),
            TransferPhase::RunningTransferProtocols {
                state_transfer: StateTransferState::Asking,
                ..
            }
        ));
    }
}
