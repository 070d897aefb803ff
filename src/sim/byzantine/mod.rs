//! What faulty replicas do to what they would have said. Each lie is a small actor in a file of its own; a
//! faulty replica tells up to three at once: what one passes on, the next may change. It holds its own keys
//! and nobody else's.

mod bloat;
mod censor;
mod collude;
mod eager;
mod equivocate;
mod fabricate;
mod false_blame;
mod false_times;
mod false_transfers;
mod false_words;
mod flood;
mod forged_checkpoints;
mod forged_view_changes;
mod full_view_changes;
mod future_bombs;
mod invented_state;
mod just_in_time;
mod leech;
mod lying_replies;
mod omitting_new_view;
mod pad;
mod poison_proof;
mod repeat_frames;
mod replay;
mod replay_replies;
mod selective;
mod silent;
mod slow;
mod spoil_macs;
mod stage;
mod stale_reads;
mod usurper;
mod withheld_frames;
mod wrong_digests;

pub(crate) use stage::Sent;
pub(super) use stage::Stage;

use bytes::Bytes;

use super::keys::CLUSTER;
use super::{SimConfig, SimRng};
use crate::smr::types::{ClusterId, NodeId};

/// The kinds of lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ByzantineStrategy {
    /// Different batches for different replicas, with votes to match.
    Equivocate,
    /// Nothing at all.
    Silent,
    /// Some replicas never hear anything.
    Selective,
    /// Pre-prepares without some of their frames.
    WithheldFrames,
    /// Votes and proposals with digests that are not the batch's.
    WrongDigests,
    /// Everything again, later, and to others.
    Replay,
    /// Votes and proposals far in the future.
    FutureBombs,
    /// Checkpoints of states that never were, with others' names, or with signatures that do not hold.
    ForgedCheckpoints,
    /// Everything late.
    Slow,
    /// Votes for whatever it hears of, at once, many times, in every phase and both ways.
    Eager,
    /// Proposals of a replica that does not lead.
    Usurper,
    /// Frames that no client made.
    Fabricate,
    /// Frames that were decided before.
    RepeatFrames,
    /// Results that are not the state's.
    LyingReplies,
    /// Proposals without one client's frames.
    Censor,
    /// Proposals just before the timeout.
    JustInTime,
    /// View changes that say too much or too little, old ones, others', and unasked ones.
    ForgedViewChanges,
    /// New views without what was prepared.
    OmittingNewView,
    /// Decisions, batches and statuses that are not so.
    FalseWords,
    /// All faulty replicas vote for both of two batches.
    Collude,
    /// Decisions, checkpoints and pieces of states that are not so, for those that catch up.
    FalseTransfers,
    /// Whole states that never were.
    InventedState,
    /// Questions without end.
    Leech,
    /// Signatures to verify without end, most of them false.
    Flood,
    /// Reads are answered with what stood there before.
    StaleReads,
    /// The same batches in other bytes for each replica.
    Pad,
    /// Proofs of stable checkpoints with more in them than proves anything.
    PoisonProof,
    /// Batches as long as they may be, for all places but the next.
    Bloat,
    /// Frames decided before, passed on without end.
    ReplayReplies,
    /// MACs of others' frames that do not hold any more.
    SpoilMacs,
    /// Clients named whose MACs cost it nothing.
    FalseBlame,
    /// View changes as long as they may be, another one for each replica.
    FullViewChanges,
    /// Proposals from another time: now long ago, now far ahead, now just so that nobody objects.
    FalseTimes,
}

impl ByzantineStrategy {
    /// Every kind.
    pub const ALL: [Self; 33] = [
        Self::Equivocate,
        Self::Silent,
        Self::Selective,
        Self::WithheldFrames,
        Self::WrongDigests,
        Self::Replay,
        Self::FutureBombs,
        Self::ForgedCheckpoints,
        Self::Slow,
        Self::Eager,
        Self::Usurper,
        Self::Fabricate,
        Self::RepeatFrames,
        Self::LyingReplies,
        Self::Censor,
        Self::JustInTime,
        Self::ForgedViewChanges,
        Self::OmittingNewView,
        Self::FalseWords,
        Self::Collude,
        Self::FalseTransfers,
        Self::InventedState,
        Self::Leech,
        Self::Flood,
        Self::StaleReads,
        Self::Pad,
        Self::PoisonProof,
        Self::Bloat,
        Self::ReplayReplies,
        Self::SpoilMacs,
        Self::FalseBlame,
        Self::FullViewChanges,
        Self::FalseTimes,
    ];

    /// Those that liars are given at random. Floods come beside them, as they come beside what a correct
    /// replica says; those after them are planned for themselves.
    pub(super) const PICKED: [Self; 23] = {
        let (picked, _) = Self::ALL.split_first_chunk().expect("there are as many");
        *picked
    };

    /// Those about what is kept and counted: planned for themselves.
    pub(super) const OF_BYTES: [Self; 3] = [Self::Pad, Self::PoisonProof, Self::Bloat];

    /// Those about what was prepared when a view begins.
    pub(super) const OF_VIEWS: [Self; 2] = [Self::ForgedViewChanges, Self::OmittingNewView];

    /// The first of these in its longest form.
    pub(super) const OF_VIEWS_AT_LENGTH: [Self; 2] = [Self::FullViewChanges, Self::OmittingNewView];

    /// The name of its counter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equivocate => "replica: equivocating leader",
            Self::Silent => "replica: silent",
            Self::Selective => "replica: selective sending",
            Self::WithheldFrames => "replica: withheld frames",
            Self::WrongDigests => "replica: wrong digests",
            Self::Replay => "replica: doubled and replayed messages",
            Self::FutureBombs => "replica: future views and places",
            Self::ForgedCheckpoints => "replica: forged checkpoints",
            Self::Slow => "replica: slow",
            Self::Eager => "replica: votes for everything",
            Self::Usurper => "replica: proposes out of turn",
            Self::Fabricate => "replica: fabricated frames",
            Self::RepeatFrames => "replica: frames decided before",
            Self::LyingReplies => "replica: lying replies",
            Self::Censor => "replica: censors a client",
            Self::JustInTime => "replica: leader just under the timeout",
            Self::ForgedViewChanges => "replica: stale and forged view changes",
            Self::OmittingNewView => "replica: new view without what was prepared",
            Self::FalseWords => "replica: false decisions, batches, statuses",
            Self::Collude => "replica: all faulty ones collude",
            Self::FalseTransfers => "replica: false transfers",
            Self::InventedState => "replica: invented states",
            Self::Leech => "replica: asks without end",
            Self::Flood => "replica: floods of signatures",
            Self::StaleReads => "replica: stale reads",
            Self::Pad => "replica: padded frames and messages",
            Self::PoisonProof => "replica: superfluous signatures in proofs",
            Self::Bloat => "replica: batches that fill logs",
            Self::ReplayReplies => "replica: old frames passed on",
            Self::SpoilMacs => "replica: spoiled MACs",
            Self::FalseBlame => "replica: clients falsely blamed",
            Self::FullViewChanges => "replica: view changes of full length, not the same for all",
            Self::FalseTimes => "replica: proposals from another time",
        }
    }

    fn actor(self, rng: &mut SimRng, config: &SimConfig) -> Box<dyn Actor> {
        match self {
            Self::Equivocate => Box::new(equivocate::Equivocate::default()),
            Self::Silent => Box::new(silent::Silent),
            Self::Selective => Box::new(selective::Selective::new(rng, config.replicas)),
            Self::WithheldFrames => Box::new(withheld_frames::WithheldFrames),
            Self::WrongDigests => Box::new(wrong_digests::WrongDigests),
            Self::Replay => Box::new(replay::Replay::default()),
            Self::FutureBombs => Box::new(future_bombs::FutureBombs::new(config.window)),
            Self::ForgedCheckpoints => Box::new(forged_checkpoints::ForgedCheckpoints),
            Self::Slow => Box::new(slow::Slow::new(rng)),
            Self::Eager => Box::new(eager::Eager),
            Self::Usurper => Box::new(usurper::Usurper),
            Self::Fabricate => Box::new(fabricate::Fabricate),
            Self::RepeatFrames => Box::new(repeat_frames::RepeatFrames::default()),
            Self::LyingReplies => Box::new(lying_replies::LyingReplies),
            Self::Censor => Box::new(censor::Censor::new(rng, config)),
            Self::JustInTime => Box::new(just_in_time::JustInTime::new(rng, config)),
            Self::ForgedViewChanges => Box::new(forged_view_changes::ForgedViewChanges::new(config.window)),
            Self::OmittingNewView => Box::new(omitting_new_view::OmittingNewView::new(config.window)),
            Self::FalseWords => Box::new(false_words::FalseWords),
            Self::Collude => Box::new(collude::Collude::default()),
            Self::FalseTransfers => Box::new(false_transfers::FalseTransfers),
            Self::InventedState => Box::new(invented_state::InventedState::new(config.clients())),
            Self::Leech => Box::new(leech::Leech::default()),
            Self::Flood => Box::new(flood::Flood::new(config)),
            Self::StaleReads => Box::new(stale_reads::StaleReads::default()),
            Self::Pad => Box::new(pad::Pad::new(rng, config)),
            Self::PoisonProof => Box::new(poison_proof::PoisonProof::default()),
            Self::Bloat => Box::new(bloat::Bloat::new(config)),
            Self::SpoilMacs => Box::new(spoil_macs::SpoilMacs::new(rng)),
            Self::FalseBlame => Box::new(false_blame::FalseBlame),
            Self::ReplayReplies => Box::new(replay_replies::ReplayReplies::new(config)),
            Self::FullViewChanges => Box::new(full_view_changes::FullViewChanges::new(config.window)),
            Self::FalseTimes => Box::new(false_times::FalseTimes::new(rng, config)),
        }
    }
}

/// One lie at work.
trait Actor: Send {
    /// The replica would send this. Only what the actor passes on is sent.
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        stage.pass(to, message.clone());
    }

    /// The replica heard this from another.
    fn hear(&mut self, _: &mut Stage<'_>, _: &Bytes) {}

    /// Another faulty replica sends this to somebody, and lets us know.
    fn overhear(&mut self, _: &mut Stage<'_>, _: NodeId, _: &Bytes) {}

    /// What a client is told in place of this; `None` to tell it nothing.
    fn reply(&mut self, _: &mut Stage<'_>, message: &Bytes) -> Option<Bytes> {
        Some(message.clone())
    }
}

/// A faulty replica's lies, in the order in which they act.
pub(crate) struct Liar {
    node: NodeId,
    n: usize,
    cluster: ClusterId,
    rng: SimRng,
    actors: Vec<(ByzantineStrategy, Box<dyn Actor>)>,
    /// How often each kind acted.
    pub hits: Vec<(ByzantineStrategy, u64)>,
}

impl Liar {
    pub fn new(node: NodeId, lies: &[ByzantineStrategy], config: &SimConfig, mut rng: SimRng) -> Self {
        Self {
            node,
            n: config.replicas,
            cluster: CLUSTER,
            actors: lies
                .iter()
                .map(|lie| (*lie, lie.actor(&mut rng, config)))
                .collect(),
            hits: lies.iter().map(|lie| (*lie, 0)).collect(),
            rng,
        }
    }

    /// A liar in another cluster than the simulator's.
    #[cfg(feature = "tools")]
    pub fn in_cluster(mut self, cluster: ClusterId) -> Self {
        self.cluster = cluster;
        self
    }

    /// What is sent in place of a message.
    pub fn send(&mut self, to: NodeId, message: Bytes) -> Vec<Sent> {
        let first = Sent {
            to,
            message,
            later: std::time::Duration::ZERO,
        };
        self.chain(0, vec![first])
    }

    fn chain(&mut self, from: usize, mut messages: Vec<Sent>) -> Vec<Sent> {
        for index in from..self.actors.len() {
            let mut next = Vec::new();
            for sent in messages {
                let mut stage = Stage::new(self.node, self.n, self.cluster, &mut self.rng);
                self.actors[index].1.send(&mut stage, sent.to, &sent.message);
                self.hits[index].1 += stage.hits;
                next.extend(stage.out.into_iter().map(|mut passed| {
                    passed.later += sent.later;
                    passed
                }));
            }
            messages = next;
        }
        messages
    }

    /// What is sent because of a message that was heard.
    pub fn hear(&mut self, message: &Bytes) -> Vec<Sent> {
        self.react(|actor, stage| actor.hear(stage, message))
    }

    /// What is sent because another faulty replica sends this to `to`.
    pub fn overhear(&mut self, to: NodeId, message: &Bytes) -> Vec<Sent> {
        self.react(|actor, stage| actor.overhear(stage, to, message))
    }

    fn react(&mut self, mut act: impl FnMut(&mut dyn Actor, &mut Stage<'_>)) -> Vec<Sent> {
        let mut out = Vec::new();
        for index in 0..self.actors.len() {
            let mut stage = Stage::new(self.node, self.n, self.cluster, &mut self.rng);
            act(&mut *self.actors[index].1, &mut stage);
            self.hits[index].1 += stage.hits;
            let said = std::mem::take(&mut stage.out);
            out.extend(self.chain(index + 1, said));
        }
        out
    }

    /// What a client is told in place of this.
    pub fn reply(&mut self, mut message: Bytes) -> Option<Bytes> {
        for (index, (_, actor)) in self.actors.iter_mut().enumerate() {
            let mut stage = Stage::new(self.node, self.n, self.cluster, &mut self.rng);
            let told = actor.reply(&mut stage, &message);
            self.hits[index].1 += stage.hits;
            message = told?;
        }
        Some(message)
    }
}
