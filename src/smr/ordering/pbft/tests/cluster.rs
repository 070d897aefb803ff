//! A cluster in memory: real [`Replica`]s, seeded delivery, virtual time. Agreement, order and progress are
//! judged by arithmetic of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::smr::crypto::Domain;
use crate::smr::decision_log::ChainedLog;
use crate::smr::execution::apps::null::Null;
use crate::smr::log_transfer::RangedLogTransfer;
use crate::smr::messages::archived::{ArchivedOrderingMessage, ArchivedSystemMessage};
use crate::smr::messages::{Authenticator, Checked, Frame, FrameBuilder, FrameKey, Mode, RequestFrame};
use crate::smr::preprocessing::{PoolLimits, RequestPool, batch_digest};
use crate::smr::replica::{Action, DefaultStack, Protocols, Replica, ReplicaSettings};
use crate::smr::state_transfer::monolithic::PieceTransfer;
use crate::smr::types::{ClientId, FrameSeq, UnixTime};
use crate::smr::view_transfer::pbft::{PbftViewChange, ViewChangeConfig, ViewTimings};

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
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Weather {
    /// The longest a message is under way, in microseconds.
    pub delay_us: u64,
    /// Messages delivered twice, in percent.
    pub doubled: u64,
    /// Messages lost before `heal_ms`, in percent.
    pub lost: u64,
    /// When losses and partitions end, in milliseconds.
    pub heal_ms: u64,
    /// Whether the network falls apart now and then before that.
    pub partitions: bool,
}

/// What is wrong with a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behaviour {
    Correct,
    /// Stops at this moment, in milliseconds.
    Crashes(u64),
    /// Takes part, but never proposes.
    NeverProposes,
    /// Sends most of what it says to some replicas only.
    Selective,
    /// Votes for digests at random.
    Lies,
    /// Two honest copies with one key, each heard by some.
    Twins,
}

/// Something that happens at a host.
enum Event {
    Message {
        from: NodeId,
        message: Bytes,
    },
    Frame(Frame),
    Durable(Lsn),
    Executed(SeqNo, usize),
    Checkpoint(CheckpointClaim),
    /// The end of a turn in which several events happened.
    TurnEnd,
    /// A client looks whether its frame was executed, and sends it to everybody if not.
    Retry(u32, u64),
    /// The partition changes.
    Partition,
}

/// One process: usually one per replica.
struct Host {
    id: NodeId,
    behaviour: Behaviour,
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
    fell_behind: bool,
    turn_open: bool,
    side: u64,
}

pub(super) struct Cluster {
    seed: u64,
    random: Random,
    weather: Weather,
    n: usize,
    now: Time,
    hosts: Vec<Host>,
    /// By moment and order of making: (host, event).
    events: BTreeMap<(Time, u64), (usize, Event)>,
    made: u64,
    digester: Digester,
    checkpoint_period: u64,
    frames: u64,
}

fn at_ms(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

impl Cluster {
    /// A cluster whose first replicas behave as told and whose others are correct.
    pub(super) fn new(n: usize, seed: u64, weather: Weather, behaviours: &[Behaviour]) -> Self {
        let mut random = Random::new(seed);
        let checkpoint_period = 2 + random.below(5);
        let settings = Settings {
            pipeline: 1 + random.below(4) as usize,
            window: 2 * checkpoint_period + random.below(20),
            batch_frames_max: 1 + random.below(4) as usize,
        };
        let mut cluster = Self {
            seed,
            random,
            weather,
            n,
            now: Time::START,
            hosts: Vec::new(),
            events: BTreeMap::new(),
            made: 0,
            digester: Digester::new(CLUSTER),
            checkpoint_period,
            frames: 0,
        };
        for id in NodeId::all(n) {
            let behaviour = behaviours.get(id.index()).copied().unwrap_or(Behaviour::Correct);
            let copies = 1 + usize::from(behaviour == Behaviour::Twins);
            for _ in 0..copies {
                let host = host(n, id, behaviour, settings, &cluster.digester);
                cluster.hosts.push(host);
            }
        }
        if weather.partitions {
            cluster.schedule(0, 100_000, Event::Partition);
        }
        cluster
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

    /// Every client sends `frames` frames to the first leader within `within_us`, and to everybody while they
    /// are not executed.
    pub(super) fn load(&mut self, frames: u64, within_us: u64) {
        self.frames = frames;
        for sequence in 1..=frames {
            for client in 0..CLIENTS {
                let at = self.later(self.now, within_us);
                let frame = frame(&self.digester, client, sequence);
                self.schedule_at(at, 0, Event::Frame(frame));
                let patience = Duration::from_millis(100);
                self.schedule_at(at.after(patience), 0, Event::Retry(client, sequence));
            }
        }
    }

    /// Runs until every frame is executed where it must be.
    pub(super) fn run(&mut self) {
        let deadline = at_ms(self.weather.heal_ms + 120_000);
        while !self.is_complete() {
            if self.now >= deadline && self.needs_transfer() {
                // Only a transfer brings the replica back without which there is no quorum.
                break;
            }
            assert!(
                self.now < deadline,
                "seed {}: no progress; {:?}",
                self.seed,
                self.story()
            );
            self.step();
        }
        self.check_agreement();
    }

    fn step(&mut self) {
        let timer = (0..self.hosts.len())
            .filter(|host| !self.is_down(*host))
            .filter_map(|host| Some((self.hosts[host].replica.next_timeout()?, host)))
            .min();
        let event = self.events.keys().next().map(|(at, _)| *at);
        match (timer, event) {
            (Some((at, host)), event) if event.is_none_or(|event| at <= event) => {
                self.now = self.now.max(at);
                self.hosts[host].replica.on_time(self.now);
                self.end_turn(host);
            }
            _ => {
                let ((at, _), (host, event)) = self.events.pop_first().expect("timers always run");
                self.now = self.now.max(at);
                if !self.is_down(host) || matches!(event, Event::Retry(..) | Event::Partition) {
                    self.happen(host, event);
                }
            }
        }
    }

    fn is_down(&self, host: usize) -> bool {
        matches!(self.hosts[host].behaviour, Behaviour::Crashes(ms) if self.now >= at_ms(ms))
    }

    fn happen(&mut self, host: usize, event: Event) {
        let now = self.now;
        let replica = &mut self.hosts[host].replica;
        match event {
            Event::Frame(frame) => replica.on_frame(now, frame),
            Event::Durable(end) => replica.on_durable(end),
            Event::Executed(seq, operations) => replica.on_executed(now, seq, operations),
            Event::Checkpoint(claim) => {
                replica.on_checkpoint_taken(now, crate::smr::messages::TakenCheckpoint { claim, light: None })
            }
            Event::TurnEnd => return self.end_turn(host),
            Event::Message { from, message } => deliver(replica, &self.digester, now, from, &message),
            Event::Retry(client, sequence) => return self.retry(client, sequence),
            Event::Partition => return self.part(),
        }
        if self.random.chance(70) {
            self.end_turn(host);
        } else if !self.hosts[host].turn_open {
            self.hosts[host].turn_open = true;
            self.schedule(host, 50, Event::TurnEnd);
        }
        self.act_all(host);
    }

    fn end_turn(&mut self, host: usize) {
        self.hosts[host].turn_open = false;
        self.hosts[host].replica.finish_turn(self.now);
        self.act_all(host);
    }

    fn act_all(&mut self, host: usize) {
        let actions: VecDeque<Action> = self.hosts[host].replica.drain_actions().collect();
        for action in actions {
            self.act(host, action);
        }
    }

    fn retry(&mut self, client: u32, sequence: u64) {
        let key = FrameKey {
            client: ClientId::new(client),
            sequence: FrameSeq::new(sequence),
        };
        let done = |host: &&Host| host.behaviour == Behaviour::Correct && host.seen.contains(&key);
        let quorum = Quorum::of(self.n).unwrap();
        if self.hosts.iter().filter(done).count() >= quorum.weak() {
            return;
        }
        for host in 0..self.hosts.len() {
            if !self.is_lost() {
                let frame = frame(&self.digester, client, sequence);
                self.schedule(host, self.weather.delay_us, Event::Frame(frame));
            }
        }
        let at = self.now.after(Duration::from_millis(300));
        self.schedule_at(at, 0, Event::Retry(client, sequence));
    }

    fn part(&mut self) {
        let healed = self.now >= at_ms(self.weather.heal_ms);
        for host in 0..self.hosts.len() {
            self.hosts[host].side = if healed { 0 } else { self.random.below(3) / 2 };
        }
        if !healed {
            let at = self.later(self.now.after(Duration::from_millis(1)), 400_000);
            self.schedule_at(at, 0, Event::Partition);
        }
    }

    fn is_lost(&mut self) -> bool {
        self.now < at_ms(self.weather.heal_ms) && self.random.chance(self.weather.lost)
    }

    fn send(&mut self, host: usize, to: Recipients, message: &Bytes) {
        let (from, behaviour) = (self.hosts[host].id, self.hosts[host].behaviour);
        if behaviour == Behaviour::NeverProposes && is_proposal(message) {
            return;
        }
        for other in 0..self.hosts.len() {
            let id = self.hosts[other].id;
            if id == from || matches!(to, Recipients::One(node) if node != id) {
                continue;
            }
            let selective =
                behaviour == Behaviour::Selective && id.index().is_multiple_of(2) && self.random.chance(90);
            // Each twin is heard by those of its kind, mostly.
            let twin = behaviour == Behaviour::Twins && other % 2 != host % 2 && self.random.chance(80);
            let apart = self.hosts[host].side != self.hosts[other].side;
            if selective || twin || apart || self.is_lost() {
                continue;
            }
            let copies = 1 + u64::from(self.random.chance(self.weather.doubled));
            for _ in 0..copies {
                let message = match behaviour {
                    Behaviour::Lies if self.random.chance(40) => with_false_votes(message, &mut self.random),
                    _ => message.clone(),
                };
                self.schedule(other, self.weather.delay_us, Event::Message { from, message });
            }
        }
    }

    fn act(&mut self, host: usize, action: Action) {
        match action {
            // Everything stays in memory.
            Action::ReadLog(_) => {}
            Action::ToReplicas { to, message } => self.send(host, to, &message),
            Action::Log { lsn, .. } => {
                let at = self.later(self.now.max(self.hosts[host].disk_at), 500);
                self.hosts[host].disk_at = at;
                self.schedule_at(at, host, Event::Durable(lsn.next()));
            }
            Action::Execute(decision) => self.execute(host, &decision),
            Action::Diverged { stable, ours } => {
                assert!(
                    self.hosts[host].behaviour != Behaviour::Correct,
                    "seed {}: diverged {stable:?} {ours:?}",
                    self.seed
                );
            }
            Action::FellBehind { .. } => self.hosts[host].fell_behind = true,
            Action::AbstentionOver => {}
            Action::Refuse { .. }
            | Action::ReplyAgain(_)
            | Action::ServeReads(_)
            | Action::Stable(_)
            | Action::RequireSignature { .. }
            | Action::Image(_)
            | Action::CutLog(_) => {}
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
        let mut operations = 0;
        for frame in &decision.batch.frames {
            if node.seen.insert(frame.key()) {
                operations += 1;
                node.executed.push(frame.key());
                hasher.update(frame.digest().as_bytes());
            }
        }
        node.state = Digest::from_bytes(*hasher.finalize().as_bytes());
        let (seq, state) = (decision.seq, node.state);
        let at = self.later(self.now.max(self.hosts[host].executor_at), 300);
        self.schedule_at(at, host, Event::Executed(seq, operations));
        if seq.get().is_multiple_of(self.checkpoint_period) {
            let claim = CheckpointClaim { seq, digest: state };
            self.schedule_at(at, host, Event::Checkpoint(claim));
        }
        self.hosts[host].executor_at = at;
    }

    fn correct(&self) -> impl Iterator<Item = &Host> {
        self.hosts
            .iter()
            .filter(|host| host.behaviour == Behaviour::Correct)
    }

    /// Agreement: what two correct hosts decided for one place is the same, and so is the order of execution.
    fn check_agreement(&self) {
        for a in self.correct() {
            for b in self.correct() {
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
                for (x, y) in a.executed.iter().zip(&b.executed) {
                    assert_eq!(
                        x, y,
                        "seed {}: {} and {} execute differently",
                        self.seed, a.id, b.id
                    );
                }
            }
        }
    }

    /// Whether every correct host executed every frame. One that fell behind is excused, for a transfer
    /// brings it back; so many that the others and the faulty ones are no quorum cannot fall behind.
    fn is_complete(&self) -> bool {
        let expected = u64::from(CLIENTS) * self.frames;
        let done = |host: &Host| host.executed.len() as u64 == expected;
        let quorum = (self.n + (self.n - 1) / 3 + 2) / 2;
        let faulty = self.n - self.correct().count();
        self.correct().all(|host| host.fell_behind || done(host))
            && self.correct().filter(|host| done(host)).count() >= quorum - faulty
    }

    fn needs_transfer(&self) -> bool {
        let quorum = (self.n + (self.n - 1) / 3 + 2) / 2;
        self.correct().filter(|host| !host.fell_behind).count() < quorum
    }

    /// Where everybody stands, for a failure's message.
    fn story(&self) -> Vec<String> {
        let tell = |host: &Host| {
            let ordering = host.replica.ordering();
            format!(
                "{} {:?} {:?} {:?} decided {:?} stable {:?} executed {}{}",
                host.id,
                host.behaviour,
                host.replica.phase(),
                host.replica.view(),
                ordering.decided(),
                ordering.stable(),
                host.executed.len(),
                if host.fell_behind { " fell behind" } else { "" }
            )
        };
        self.hosts.iter().map(tell).collect()
    }

    pub(super) fn views_entered(&self) -> u64 {
        self.correct()
            .map(|host| host.replica.counters().views_entered)
            .max()
            .unwrap_or(0)
    }
}

/// What the hosts of one cluster have in common.
#[derive(Clone, Copy)]
struct Settings {
    pipeline: usize,
    window: u64,
    batch_frames_max: usize,
}

fn host(n: usize, id: NodeId, behaviour: Behaviour, settings: Settings, digester: &Digester) -> Host {
    let config = PbftConfig {
        window: settings.window,
        pipeline: settings.pipeline,
        undecided_bytes_max: 64 << 20,
        ..config(n, id.get())
    };
    let quorum = config.quorum;
    let view_change = ViewChangeConfig {
        node: id,
        quorum,
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        window: settings.window,
        signing: config.signing.clone(),
        verifying: config.verifying.clone(),
        timings: ViewTimings {
            timeout: Duration::from_millis(400),
            timeout_max: Duration::from_millis(3000),
            status_period: Duration::from_millis(100),
            review_period: Duration::from_millis(500),
            fairness: Duration::from_millis(5000),
        },
    };
    let limits = PoolLimits {
        frames_per_client: 1000,
        bytes_per_client: 1 << 20,
        bytes_max: 1 << 22,
    };
    let replica_settings = ReplicaSettings {
        node: id,
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        quorum,
        batch_bytes_max: 1 << 16,
        batch_frames_max: settings.batch_frames_max,
        votes_max: 8,
        held_effects_max: 8 * settings.window as usize + 64,
        must_sign_for: std::time::Duration::from_secs(60),
    };
    Host {
        id,
        behaviour,
        replica: Replica::new(
            replica_settings,
            digester.clone(),
            Protocols {
                ordering: Pbft::new(config, digester.clone()),
                view_transfer: PbftViewChange::new(view_change, digester.clone()),
                decision_log: ChainedLog::new(digester.clone()),
                log_transfer: RangedLogTransfer::new(id, quorum, CLUSTER, Epoch::ZERO),
                state_transfer: PieceTransfer::new(id, n, CLUSTER, Epoch::ZERO, digester.clone()),
            },
            RequestPool::new(CLIENTS as usize, limits),
            Lsn::ZERO,
        ),
        decisions: Vec::new(),
        executed: Vec::new(),
        seen: BTreeSet::new(),
        state: Digest::ZERO,
        disk_at: Time::START,
        executor_at: Time::START,
        fell_behind: false,
        turn_open: false,
        side: 0,
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
            batch: batch_of(digester, head.time(), parts),
            message: message.clone(),
            authentic: true,
        };
        assert_eq!(proposal.batch.digest, head.digest());
        return match checked.is_batch_response() {
            true => replica.on_batch(now, from, proposal),
            false => replica.on_proposal(now, from, proposal),
        };
    }
    if let Some(frames) = checked.forwarded_frames(1 << 20) {
        let parts = frames.unwrap();
        for frame in &batch_of(digester, UnixTime::EPOCH, parts).frames {
            replica.on_frame(now, frame.clone());
        }
        return;
    }
    assert!(replica.on_message(now, from, &checked, message));
}

fn is_proposal(message: &Bytes) -> bool {
    let checked = Checked::<SystemMessage>::body_of(message).unwrap();
    matches!(
        &*checked,
        ArchivedSystemMessage::ProtocolMessage(ArchivedOrderingMessage::PrePrepare(_))
    )
}

/// The same votes, some for digests out of thin air; any other message as it is.
fn with_false_votes(message: &Bytes, random: &mut Random) -> Bytes {
    let checked = Checked::<SystemMessage>::body_of(message).unwrap();
    let ArchivedSystemMessage::ProtocolMessage(ArchivedOrderingMessage::Votes(votes)) = &*checked else {
        return message.clone();
    };
    let votes = votes.votes.iter().map(|vote| {
        let mut vote = vote.to_vote();
        if random.chance(50) {
            vote.digest = [random.below(3) as u8; 32];
        }
        vote
    });
    SystemMessage::votes(CLUSTER, Epoch::ZERO, votes.collect())
}

fn batch_of(digester: &Digester, time: UnixTime, parts: impl Iterator<Item = Bytes>) -> Arc<Batch> {
    let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
    let frames: Vec<Frame> = parts
        .map(|part| Frame::check(part, 10, 1 << 16, digest_of).unwrap())
        .collect();
    Arc::new(Batch {
        digest: batch_digest(digester, time, &frames),
        time,
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
        // What is held against a leader is signed.
        authenticator: Authenticator::Signature([0; 64]),
    };
    let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
    Frame::check(frame.to_archive(), 10, 1 << 16, digest_of).unwrap()
}
