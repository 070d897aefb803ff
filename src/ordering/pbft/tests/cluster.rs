//! A cluster in memory: real [`Replica`]s, seeded delivery, virtual time. Agreement, order and progress are
//! judged by arithmetic of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::crypto::Domain;
use crate::execution::apps::null::Null;
use crate::messages::archived::{ArchivedOrderingMessage, ArchivedSystemMessage};
use crate::messages::{Authenticator, Checked, Frame, FrameBuilder, FrameKey, Mode, RequestFrame};
use crate::preprocessing::{PoolLimits, RequestPool, batch_digest};
use crate::replica::{Action, DefaultStack, Replica, ReplicaSettings};
use crate::types::{ClientId, FrameSeq};

const CLIENTS: u32 = 3;

/// SplitMix64: small, and the same for ever.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How unkind the network is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// The longest a message is under way, in microseconds.
    pub delay_us: u64,
    /// Messages delivered twice, in percent.
    pub doubled: u64,
}

/// Something that happens at a host.
enum Event {
    Message {
        from: NodeId,
        message: Bytes,
    },
    Frame(Frame),
    Durable(Lsn),
    Executed(SeqNo),
    Checkpoint(CheckpointClaim),
    /// The end of a turn in which several events happened.
    TurnEnd,
}

/// One process: usually one per replica.
struct Host {
    id: NodeId,
    replica: Replica<DefaultStack<Null>>,
    /// Digests of the decisions, in order.
    decisions: Vec<Digest>,
    /// Frames in the order of their first execution.
    executed: Vec<FrameKey>,
    seen: BTreeSet<FrameKey>,
    state: Digest,
    /// When the disk and the executor are done with what they were given: both work in order.
    disk_at: Time,
    executor_at: Time,
}

pub(super) struct Cluster {
    seed: u64,
    random: Random,
    weather: Weather,
    now: Time,
    hosts: Vec<Host>,
    /// By moment and order of making: (host, event).
    events: BTreeMap<(Time, u64), (usize, Event)>,
    made: u64,
    digester: Digester,
    checkpoint_period: u64,
}

impl Cluster {
    pub(super) fn new(n: usize, seed: u64, weather: Weather) -> Self {
        let mut random = Random::new(seed);
        let pipeline = 1 + random.below(4) as usize;
        let checkpoint_period = 2 + random.below(5);
        let window = 8 * checkpoint_period + random.below(4);
        let settings = ReplicaSettings {
            cluster: CLUSTER,
            epoch: Epoch::ZERO,
            batch_bytes_max: 1 << 16,
            batch_frames_max: 1 + random.below(4) as usize,
        };
        let digester = Digester::new(CLUSTER);
        let hosts = NodeId::all(n)
            .map(|id| {
                let config = PbftConfig {
                    window,
                    pipeline,
                    ..config(n, id.get())
                };
                let limits = PoolLimits {
                    frames_per_client: 1000,
                    bytes_per_client: 1 << 20,
                    bytes_max: 1 << 22,
                };
                let pool = RequestPool::new(CLIENTS as usize, limits);
                let pbft = Pbft::new(config, digester.clone());
                Host {
                    id,
                    replica: Replica::new(settings.clone(), digester.clone(), pbft, pool, Lsn::ZERO),
                    decisions: Vec::new(),
                    executed: Vec::new(),
                    seen: BTreeSet::new(),
                    state: Digest::ZERO,
                    disk_at: Time::START,
                    executor_at: Time::START,
                }
            })
            .collect();
        Self {
            seed,
            random,
            weather,
            now: Time::START,
            hosts,
            events: BTreeMap::new(),
            made: 0,
            digester,
            checkpoint_period,
        }
    }

    fn schedule(&mut self, host: usize, delay_us: u64, event: Event) {
        let at = self.later(self.now, delay_us);
        self.schedule_at(at, host, event);
    }

    fn later(&mut self, from: Time, delay_us: u64) -> Time {
        from.after(Duration::from_nanos(1000 * self.random.below(delay_us.max(1))))
    }

    fn schedule_at(&mut self, at: Time, host: usize, event: Event) {
        self.made += 1;
        self.events.insert((at, self.made), (host, event));
    }

    /// Gives a frame to one host after a random delay.
    pub(super) fn offer(&mut self, host: usize, client: u32, sequence: u64, within_us: u64) {
        let frame = frame(&self.digester, client, sequence);
        self.schedule(host, within_us, Event::Frame(frame));
    }

    /// Runs until nothing is under way any more.
    pub(super) fn run(&mut self) {
        let mut steps = 0;
        while let Some(((at, _), (host, event))) = self.events.pop_first() {
            steps += 1;
            assert!(
                steps < 1_000_000,
                "seed {}: the cluster never comes to rest",
                self.seed
            );
            self.now = self.now.max(at);
            self.happen(host, event);
        }
    }

    fn happen(&mut self, host: usize, event: Event) {
        let now = self.now;
        let replica = &mut self.hosts[host].replica;
        match event {
            Event::Frame(frame) => replica.on_frame(now, frame),
            Event::Durable(end) => replica.on_durable(end),
            Event::Executed(seq) => replica.on_executed(seq, 1),
            Event::Checkpoint(claim) => replica.on_checkpoint_taken(now, claim),
            Event::TurnEnd => replica.finish_turn(now),
            Event::Message { from, message } => deliver(replica, &self.digester, now, from, &message),
        }
        let replica = &mut self.hosts[host].replica;
        if self.random.chance(70) {
            replica.finish_turn(now);
        } else {
            self.schedule(host, 50, Event::TurnEnd);
        }
        let replica = &mut self.hosts[host].replica;
        let actions: VecDeque<Action> = replica.drain_actions().collect();
        for action in actions {
            self.act(host, action);
        }
    }

    fn act(&mut self, host: usize, action: Action) {
        match action {
            Action::ToReplicas { to, message } => {
                let from = self.hosts[host].id;
                for other in 0..self.hosts.len() {
                    let id = self.hosts[other].id;
                    if id == from || matches!(to, Recipients::One(node) if node != id) {
                        continue;
                    }
                    let copies = 1 + u64::from(self.random.chance(self.weather.doubled));
                    for _ in 0..copies {
                        let message = message.clone();
                        self.schedule(other, self.weather.delay_us, Event::Message { from, message });
                    }
                }
            }
            Action::Log { lsn, .. } => {
                let at = self.later(self.now.max(self.hosts[host].disk_at), 500);
                self.hosts[host].disk_at = at;
                self.schedule_at(at, host, Event::Durable(lsn.next()));
            }
            Action::Execute(decision) => self.execute(host, &decision),
            Action::Diverged { stable, ours } => panic!("seed {}: diverged {stable:?} {ours:?}", self.seed),
            Action::Refuse { .. } | Action::ReplyAgain(_) | Action::Stable(_) | Action::FellBehind { .. } => {
            }
        }
    }

    fn execute(&mut self, host: usize, decision: &Proposal) {
        let node = &mut self.hosts[host];
        assert_eq!(
            decision.seq.get(),
            node.decisions.len() as u64 + 1,
            "seed {}: decisions of {} leave a gap",
            self.seed,
            node.id
        );
        node.decisions.push(decision.batch.digest);
        let mut hasher = self.digester.hasher(Domain::State);
        hasher.update(node.state.as_bytes());
        for frame in &decision.batch.frames {
            if node.seen.insert(frame.key()) {
                node.executed.push(frame.key());
                hasher.update(frame.digest().as_bytes());
            }
        }
        node.state = Digest::from_bytes(*hasher.finalize().as_bytes());
        let (seq, state) = (decision.seq, node.state);
        let at = self.later(self.now.max(self.hosts[host].executor_at), 300);
        self.schedule_at(at, host, Event::Executed(seq));
        if seq.get().is_multiple_of(self.checkpoint_period) {
            let claim = CheckpointClaim { seq, digest: state };
            self.schedule_at(at, host, Event::Checkpoint(claim));
        }
        self.hosts[host].executor_at = at;
    }

    /// Agreement: what two hosts decided for one place is the same.
    pub(super) fn check_agreement(&self) {
        for a in &self.hosts {
            for b in &self.hosts {
                for (place, (x, y)) in a.decisions.iter().zip(&b.decisions).enumerate() {
                    assert_eq!(
                        x,
                        y,
                        "seed {}: {} and {} differ at s{}",
                        self.seed,
                        a.id,
                        b.id,
                        place + 1
                    );
                }
            }
        }
    }

    /// Progress: every host executed exactly these frames, each client's in order.
    pub(super) fn check_complete(&self, frames_per_client: u64) {
        for host in &self.hosts {
            let expected = u64::from(CLIENTS) * frames_per_client;
            assert_eq!(
                host.executed.len() as u64,
                expected,
                "seed {}: {} in {:?} did not execute everything",
                self.seed,
                host.id,
                host.replica.view()
            );
        }
    }
}

/// What the shells do with a message: open it and hand it to the replica.
fn deliver(
    replica: &mut Replica<DefaultStack<Null>>,
    digester: &Digester,
    now: Time,
    from: NodeId,
    message: &Bytes,
) {
    let checked = Checked::<SystemMessage>::body_of(message).unwrap();
    if let Some(parts) = checked.pre_prepare(1 << 20) {
        let (head, parts) = parts.unwrap();
        let proposal = Proposal {
            view: head.view(),
            seq: head.seq(),
            batch: batch_of(digester, parts),
            message: message.clone(),
            authentic: true,
        };
        return replica.on_proposal(now, from, proposal);
    }
    match &*checked {
        ArchivedSystemMessage::ProtocolMessage(ArchivedOrderingMessage::Votes(votes)) => {
            for vote in votes.votes.iter() {
                replica.on_vote(now, from, vote.to_vote());
            }
        }
        ArchivedSystemMessage::ProtocolMessage(ArchivedOrderingMessage::Checkpoint(checkpoint)) => {
            replica.on_checkpoint(now, from, checkpoint.to_checkpoint());
        }
        _ => panic!("no replica sends such a message"),
    }
}

fn batch_of(digester: &Digester, parts: impl Iterator<Item = Bytes>) -> Arc<Batch> {
    let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
    let frames: Vec<Frame> = parts
        .map(|part| Frame::check(part, 10, 1 << 16, digest_of).unwrap())
        .collect();
    Arc::new(Batch {
        digest: batch_digest(digester, &frames),
        bytes: frames.iter().map(|frame| frame.bytes().len()).sum(),
        frames,
    })
}

fn frame(digester: &Digester, client: u32, sequence: u64) -> Frame {
    let mut builder = FrameBuilder::default();
    builder.push(&sequence.to_le_bytes()).unwrap();
    let body = builder.finish(ClientId::new(client), FrameSeq::new(sequence), Mode::Ordered);
    let frame = RequestFrame {
        body,
        authenticator: Authenticator::Macs(Vec::new()),
    };
    let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
    Frame::check(frame.to_archive(), 10, 1 << 16, digest_of).unwrap()
}

/// Runs `frames` frames of each client through the leader of a cluster without faults.
fn run_without_faults(n: usize, seed: u64, frames: u64) {
    let weather = Weather {
        delay_us: 1 + seed % 7 * 700,
        doubled: 20,
    };
    let mut cluster = Cluster::new(n, seed, weather);
    for sequence in 1..=frames {
        (0..CLIENTS).for_each(|client| cluster.offer(0, client, sequence, 20_000));
    }
    cluster.run();
    cluster.check_agreement();
    cluster.check_complete(frames);
}

#[test]
fn four_replicas_agree_and_finish_under_any_order_of_delivery() {
    (0..1500).for_each(|seed| run_without_faults(4, seed, 12));
}

#[test]
fn seven_replicas_agree_and_finish_under_any_order_of_delivery() {
    (0..300).for_each(|seed| run_without_faults(7, seed, 12));
}
