//! Clients: those that follow the protocol, and those that do not.

use bytes::Bytes;

use super::app::FAULTY_KEY;
use super::keys::{CLUSTER, Keyring};
use super::{SimConfig, SimRng};
use crate::client::{AnswerRule, Authentication, Session, SessionConfig};
use crate::runtime::config::ReadLevel;
use crate::smr::crypto::{Digester, Domain};
use crate::smr::execution::apps::kv;
use crate::smr::messages::archived::ArchivedAuthenticator;
use crate::smr::messages::{
    Authenticator, Checked, Envelope, FrameBuilder, Kind, Mode, RequestFrame, encode,
};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::ordering::pbft::Pbft;
use crate::smr::preprocessing::ClientAuth;
use crate::smr::types::{ClientId, Epoch, FrameSeq, NodeId, Quorum, Time};

/// What a frame of one write takes beside the value, and more.
const FRAME_SLACK_BYTES: usize = 512;

/// Frames of reads in one flood, to each replica.
const READS: u64 = 32;

/// The number of every faulty client's first frame.
const FIRST_NUMBER: u64 = 1000;

/// A process of an honest client, linked with every replica from the beginning of its life.
pub(super) struct Process {
    /// Whose identity it uses; others may use it as well.
    pub client: u32,
    pub session: Session,
    /// When it wakes by itself.
    pub wake: Option<Time>,
}

impl Process {
    /// The processes of one client choose the same sessions if they know the same ones.
    pub fn start(now: Time, client: u32, config: &SimConfig, process: u64) -> Self {
        let mut session = session(client, config, process);
        NodeId::all(config.replicas).for_each(|node| session.on_link_up(now, node));
        Self {
            client,
            session,
            wake: None,
        }
    }
}

fn session(client: u32, config: &SimConfig, process: u64) -> Session {
    let seed = u64::from(client);
    let (keys, client) = (Keyring::get(), ClientId::new(client));
    let signing = keys.client(client).clone();
    Session::new(SessionConfig {
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        client,
        quorum: Quorum::of(config.replicas).expect("a simulated cluster has a valid size"),
        leaders: Pbft::leader_of,
        answers: AnswerRule::new(
            Quorum::of(config.replicas).expect("a simulated cluster has a valid size"),
            config.unordered,
            match config.relaxed {
                false => ReadLevel::Linearizable,
                true => ReadLevel::Relaxed,
            },
        ),
        authentication: match config.auth {
            ClientAuth::Signature => Authentication::Signature(signing),
            ClientAuth::Mac => Authentication::Macs(keys.macs(client, config.replicas).to_vec(), signing),
        },
        frame_operations_max: config.limits.frame_operations_max,
        frame_bytes_max: config.limits.frame_bytes_max / 2,
        frames_in_flight_max: config.frames_in_flight,
        operations_max: 1024,
        retransmit_timeout: config.retransmit,
        seed,
        process,
    })
}

/// What a faulty client does, beside asking for things like any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultyClient {
    /// MACs that convince some replicas and not others.
    BadMacs,
    /// Different frames under one number for different replicas.
    Equivocate,
    /// Old frames again and again.
    Replay,
    /// Far more frames than it may have pending.
    Flood,
    /// Frames for one replica that does not lead.
    OneReplica,
    /// Bytes that are no frames: a bit is another.
    Garbage,
    /// Fills its quota at the leader, and shows one frame more to backups only.
    QuotaGame,
    /// Frames that prove themselves to a few backups, and not to the leader.
    BackupsOnly,
    /// More reads beside the order than anybody can answer.
    ReadFlood,
}

impl FaultyClient {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::BadMacs,
        Self::Equivocate,
        Self::Replay,
        Self::Flood,
        Self::OneReplica,
        Self::Garbage,
        Self::QuotaGame,
        Self::BackupsOnly,
        Self::ReadFlood,
    ];

    /// Those that a leader cannot be blamed for: all but MACs that convince it and not enough of the others.
    pub(crate) const BLAMELESS: [Self; 8] = [
        Self::Equivocate,
        Self::Replay,
        Self::Flood,
        Self::OneReplica,
        Self::Garbage,
        Self::QuotaGame,
        Self::BackupsOnly,
        Self::ReadFlood,
    ];

    /// The name of its counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadMacs => "client: MACs for some replicas only",
            Self::Equivocate => "client: two frames with one number",
            Self::Replay => "client: replays",
            Self::Flood => "client: flood",
            Self::OneReplica => "client: frames to one backup only",
            Self::Garbage => "client: garbage",
            Self::QuotaGame => "client: one frame more for backups only",
            Self::BackupsOnly => "client: proof for backups only",
            Self::ReadFlood => "client: read flood",
        }
    }
}

/// Whether a MAC is not as it was that is for another replica than `node`.
fn spoils_another_mac(whole: &Bytes, changed: &Bytes, node: NodeId) -> bool {
    let macs = |message| match &Checked::<RequestFrame>::body_of(message).ok()?.authenticator {
        ArchivedAuthenticator::Macs(macs) => Some(macs.to_vec()),
        ArchivedAuthenticator::Signature(_) => None,
    };
    let (Some(whole), Some(changed)) = (macs(whole), macs(changed)) else {
        return false;
    };
    let mut pairs = whole.iter().zip(&changed).enumerate();
    pairs.any(|(to, (was, is))| to != node.index() && was != is)
}

/// A faulty client.
pub(super) struct FaultyProcess {
    client: ClientId,
    kind: FaultyClient,
    auth: ClientAuth,
    n: usize,
    rng: SimRng,
    next: u64,
    sent: Vec<(NodeId, Bytes)>,
    flood_frames: u64,
    /// How long a value may be for its frame to be none that is too long.
    value_bytes_max: usize,
    operations_max: usize,
    acts: u64,
    /// How many replicas are more than may be faulty.
    weak: usize,
}

impl FaultyProcess {
    pub fn new(client: u32, kind: FaultyClient, config: &SimConfig, rng: SimRng) -> Self {
        Self {
            client: ClientId::new(client),
            kind,
            auth: config.auth,
            n: config.replicas,
            rng,
            next: FIRST_NUMBER,
            sent: Vec::new(),
            flood_frames: 2 * config.pool.frames_per_client as u64,
            value_bytes_max: config.limits.frame_bytes_max - FRAME_SLACK_BYTES,
            operations_max: config.limits.frame_operations_max,
            acts: 0,
            weak: config.faulty_max() + 1,
        }
    }

    /// What it does wrong.
    pub fn kind(&self) -> FaultyClient {
        self.kind
    }

    /// What it sends now.
    pub fn act(&mut self) -> Vec<(NodeId, Bytes)> {
        let all: Vec<NodeId> = NodeId::all(self.n).collect();
        let mut out = Vec::new();
        self.acts += 1;
        match self.kind {
            FaultyClient::BadMacs => self.spoil_macs(&all, &mut out),
            FaultyClient::Equivocate => self.equivocate(&all, &mut out),
            FaultyClient::Replay => self.replay(&all, &mut out),
            FaultyClient::Flood => {
                for _ in 0..self.flood_frames {
                    let message = self.good_frame();
                    out.push((self.rng.pick(&all), message));
                }
            }
            FaultyClient::OneReplica => {
                let message = self.good_frame();
                out.push((NodeId::new(self.n as u16 - 1), message));
            }
            FaultyClient::Garbage => self.spoil_bits(&all, &mut out),
            FaultyClient::QuotaGame => self.play_quota_game(&mut out),
            FaultyClient::BackupsOnly => {
                let backups = self.few_backups();
                let good: Vec<bool> = all.iter().map(|node| backups.contains(node)).collect();
                let sequence = self.sequence();
                let message = self.frame(sequence, &good);
                out.extend(backups.into_iter().map(|node| (node, message.clone())));
            }
            FaultyClient::ReadFlood => self.flood_reads(&all, &mut out),
        }
        if self.sent.len() < 64 {
            self.sent.extend(out.iter().take(4).cloned());
        }
        out
    }

    /// The next frame, good for every replica.
    fn good_frame(&mut self) -> Bytes {
        let sequence = self.sequence();
        self.frame(sequence, &vec![true; self.n])
    }

    /// MACs for some replicas only, the first among them.
    fn spoil_macs(&mut self, all: &[NodeId], out: &mut Vec<(NodeId, Bytes)>) {
        let good: Vec<bool> = all
            .iter()
            .map(|node| node.index() == 0 || self.rng.chance(60))
            .collect();
        let sequence = self.sequence();
        let message = self.frame(sequence, &good);
        out.extend(all.iter().map(|node| (*node, message.clone())));
    }

    /// Two frames with one number.
    fn equivocate(&mut self, all: &[NodeId], out: &mut Vec<(NodeId, Bytes)>) {
        let sequence = self.sequence();
        let good = vec![true; self.n];
        let messages = [self.frame(sequence, &good), self.frame(sequence, &good)];
        out.extend(
            all.iter()
                .map(|node| (*node, messages[self.rng.below(2) as usize].clone())),
        );
    }

    /// What was sent before, to anybody.
    fn replay(&mut self, all: &[NodeId], out: &mut Vec<(NodeId, Bytes)>) {
        let message = self.good_frame();
        out.push((NodeId::new(0), message));
        for _ in 0..8 {
            if let Some(old) = self.sent.get(self.rng.below(self.sent.len() as u64) as usize) {
                out.push((self.rng.pick(all), old.1.clone()));
            }
        }
    }

    /// A frame with another bit wrong for each replica.
    fn spoil_bits(&mut self, all: &[NodeId], out: &mut Vec<(NodeId, Bytes)>) {
        let whole = self.good_frame();
        for node in all {
            let mut message = whole.to_vec();
            let at = self.rng.below(message.len() as u64) as usize;
            message[at] ^= 1 << self.rng.below(8);
            let message = Bytes::from(message);
            // Else it would be one with MACs for some replicas only.
            if !spoils_another_mac(&whole, &message, *node) {
                out.push((*node, message));
            }
        }
    }

    fn flood_reads(&mut self, all: &[NodeId], out: &mut Vec<(NodeId, Bytes)>) {
        let mut key = FAULTY_KEY.to_vec();
        if self.rng.chance(30) {
            // As long as a frame may be.
            key.resize(self.value_bytes_max / self.operations_max - 16, 0);
        }
        for _ in 0..READS {
            let sequence = self.sequence();
            let message = self.reads(sequence, &key);
            out.extend(all.iter().map(|node| (*node, message.clone())));
        }
    }

    /// As many backups of the first view as can have a leader replaced.
    fn few_backups(&mut self) -> Vec<NodeId> {
        let mut backups: Vec<NodeId> = NodeId::all(self.n).skip(1).collect();
        while backups.len() > self.weak {
            backups.swap_remove(self.rng.below(backups.len() as u64) as usize);
        }
        backups
    }

    /// The leader of the first view gets more than it takes in of one client, and then few backups a frame
    /// that it would be asked to order as well: with a number below or far above those, and small or as long
    /// as may be.
    fn play_quota_game(&mut self, out: &mut Vec<(NodeId, Bytes)>) {
        let good = vec![true; self.n];
        let below = self.next + 1;
        self.next += 1;
        let long = self.rng.chance(50);
        for _ in 0..self.flood_frames {
            let sequence = self.sequence();
            let bytes = if long { self.value_bytes_max } else { 8 };
            out.push((NodeId::new(0), self.frame_of(sequence, &good, bytes)));
        }
        if self.acts % 4 != 1 {
            return;
        }
        let number = match self.rng.below(3) {
            0 => below,
            1 => self.next + 100,
            _ => (1 << 40) - self.acts,
        };
        let bytes = self.rng.pick(&[8, self.value_bytes_max]);
        let shown = self.frame_of(FrameSeq::new(number), &good, bytes);
        let backups = self.few_backups();
        out.extend(backups.into_iter().map(|node| (node, shown.clone())));
    }

    fn sequence(&mut self) -> FrameSeq {
        // Sometimes a number far ahead, and never back.
        self.next += if self.rng.chance(2) {
            self.rng.below(100)
        } else {
            1
        };
        FrameSeq::new(self.next)
    }

    /// A write to a key of its own; its MACs hold for the replicas named.
    fn frame(&mut self, sequence: FrameSeq, good: &[bool]) -> Bytes {
        self.frame_of(sequence, good, 8)
    }

    /// A write of so many bytes.
    fn frame_of(&mut self, sequence: FrameSeq, good: &[bool], bytes: usize) -> Bytes {
        let mut value = vec![0; bytes.max(8)];
        value[..8].copy_from_slice(&self.rng.throw().to_le_bytes());
        let mut builder = FrameBuilder::default();
        let operation = kv::put(FAULTY_KEY, &value).expect("the key is short");
        builder.push(&operation).expect("one operation fits");
        let body = builder.finish(self.client, sequence, Mode::Ordered);
        self.prove(body, good)
    }

    /// As many reads beside the order as one frame may hold.
    fn reads(&mut self, sequence: FrameSeq, key: &[u8]) -> Bytes {
        let mut builder = FrameBuilder::default();
        let operation = kv::get(key).expect("the key is shorter than a frame");
        for _ in 0..self.operations_max {
            builder.push(&operation).expect("a short operation fits");
        }
        let body = builder.finish(self.client, sequence, Mode::Unordered);
        self.prove(body, &vec![true; self.n])
    }

    fn prove(&self, body: Vec<u8>, good: &[bool]) -> Bytes {
        let keys = Keyring::get();
        let digest = Digester::new(CLUSTER).digest(Domain::RequestFrame, &body);
        let authenticator = match self.auth {
            ClientAuth::Signature if good.iter().all(|good| *good) => {
                Authenticator::Signature(keys.client(self.client).sign(Domain::RequestFrame, &digest))
            }
            ClientAuth::Signature => Authenticator::Signature([7; 64]),
            ClientAuth::Mac => {
                let macs = keys.macs(self.client, self.n).iter().zip(good);
                Authenticator::Macs(
                    macs.map(|(key, good)| if *good { key.mac(&digest) } else { [9; 16] })
                        .collect(),
                )
            }
        };
        let frame = RequestFrame { body, authenticator };
        encode(Envelope::new(Kind::Request, CLUSTER, Epoch::ZERO), &frame, 512)
    }
}
