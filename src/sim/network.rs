use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::SimRng;
use crate::smr::messages::archived::{
    ArchivedSyncMessage, ArchivedSystemMessage, ArchivedViewTransferMessage,
};
use crate::smr::messages::{Checked, Family, Phase, SystemMessage};
use crate::smr::types::Time;

/// How links behave in one run.
#[derive(Debug, Clone)]
pub struct NetworkProfile {
    /// The usual delay of a message, in microseconds.
    pub delay_us: (u64, u64),
    /// Messages that take much longer, in percent: what overtakes them is reordered.
    pub late_percent: u64,
    /// How much longer at most, in milliseconds.
    pub late_ms: u64,
    /// Messages delivered twice, in percent.
    pub doubled_percent: u64,
    /// Messages between replicas that are lost, in percent.
    pub replica_loss_percent: u64,
    /// Messages between clients and replicas that are lost, in percent.
    pub client_loss_percent: u64,
    /// Whether a link delivers in the order of sending, as TCP does.
    pub in_order: bool,
    /// Whether a partition loses messages; else it holds them back, as a link that stays up does.
    pub partitions_lose: bool,
}

impl NetworkProfile {
    /// Whether a question and its answer take some tenths of a second.
    #[must_use]
    pub const fn is_far(&self) -> bool {
        self.delay_us.0 >= 50_000
    }

    /// A quiet local network.
    #[must_use]
    pub const fn calm() -> Self {
        Self {
            delay_us: (50, 200),
            late_percent: 0,
            late_ms: 0,
            doubled_percent: 0,
            replica_loss_percent: 0,
            client_loss_percent: 0,
            in_order: true,
            partitions_lose: false,
        }
    }
}

/// Messages that a network may lose while it lets others pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Votes, if there is a COMMIT among them.
    Commit,
    /// Frames of a batch: proposed, or asked for.
    Batch,
    /// Signed checkpoints, and what proves that one is stable.
    Checkpoint,
    /// VIEW-CHANGEs.
    ViewChange,
    /// NEW-VIEWs.
    NewView,
    /// What is said about epochs.
    Reconfiguration,
}

impl MessageKind {
    pub(super) fn is_of(self, message: &Checked<SystemMessage>) -> bool {
        use ArchivedSyncMessage as Sync;
        use ArchivedSystemMessage as System;
        use ArchivedViewTransferMessage as Views;
        match (self, &**message) {
            (Self::Commit, System::ProtocolMessage(_)) => {
                message.votes().iter().any(|vote| vote.phase == Phase::Commit)
            }
            (Self::Batch, System::ProposalMessage(_) | System::SyncMessage(Sync::BatchResponse(_))) => true,
            (Self::Checkpoint, System::SyncMessage(Sync::Checkpoint(_) | Sync::Stable(_))) => true,
            (Self::ViewChange, System::ViewTransferMessage(_)) => {
                matches!(message.of_views().as_deref(), Some(Views::ViewChange(_)))
            }
            (Self::NewView, System::ViewTransferMessage(_)) => {
                matches!(message.of_views().as_deref(), Some(Views::NewView(_)))
            }
            _ => false,
        }
    }
}

/// Messages of one kind on one link that are lost, and until when.
struct Loss {
    kind: MessageKind,
    from: usize,
    to: usize,
    until: Time,
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// A host, by its place in the world.
    Host(usize),
    /// A client, by its number.
    Client(u32),
}

/// What happened to messages on the way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub lost: u64,
    pub doubled: u64,
    pub late: u64,
    pub cut: u64,
    pub dead: u64,
    pub slowed: u64,
}

/// The links between all ends.
pub(super) struct Network {
    network: NetworkProfile,
    rng: SimRng,
    /// Cut directions and until when.
    cuts: Vec<(usize, usize, Time)>,
    /// What does not pass, where other messages do.
    losses: Vec<Loss>,
    /// Hosts whose messages take longer, and by how much.
    slow: BTreeMap<usize, Duration>,
    /// Links on which nothing ever arrives, from a client to a host, from then on.
    dead: Vec<(u32, usize, Time)>,
    /// When the last message of a link arrives.
    last: BTreeMap<(End, End), Time>,
    /// From here on nothing is lost, doubled or late.
    calm_from: Time,
    pub traffic: Traffic,
}

impl Network {
    pub(super) fn new(network: NetworkProfile, calm_from: Time, rng: SimRng) -> Self {
        Self {
            network,
            rng,
            cuts: Vec::new(),
            losses: Vec::new(),
            slow: BTreeMap::new(),
            dead: Vec::new(),
            last: BTreeMap::new(),
            calm_from,
            traffic: Traffic::default(),
        }
    }

    /// Cuts one direction between two hosts.
    pub(super) fn cut(&mut self, from: usize, to: usize, until: Time) {
        self.cuts.push((from, to, until));
    }

    /// Loses messages of a kind in one direction between two hosts.
    pub(super) fn lose(&mut self, kind: MessageKind, from: usize, to: usize, until: Time) {
        self.losses.push(Loss {
            kind,
            from,
            to,
            until,
        });
    }

    /// Whether a message between hosts is of a kind that is lost there.
    pub(super) fn loses(&self, now: Time, (from, to): (usize, usize), message: &Bytes) -> bool {
        let on_link = |loss: &&Loss| (loss.from, loss.to) == (from, to) && loss.until > now;
        let mut losses = self.losses.iter().filter(on_link).peekable();
        if losses.peek().is_some() && Family::of(message) == Family::Reconfiguration {
            return losses.any(|loss| loss.kind == MessageKind::Reconfiguration);
        }
        losses.peek().is_some()
            && Checked::<SystemMessage>::body_of(message)
                .is_ok_and(|message| losses.any(|loss| loss.kind.is_of(&message)))
    }

    /// What is sent from then on does not arrive on this link.
    pub(super) fn kill(&mut self, client: u32, host: usize, from: Time) {
        self.dead.push((client, host, from));
    }

    /// What is sent into a cut is lost from now on, not held back.
    pub(super) fn lose_at_cuts(&mut self) {
        self.network.partitions_lose = true;
    }

    /// Heals every cut.
    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        self.losses.clear();
        self.slow.clear();
    }

    /// Makes everything that a host sends slow.
    pub(super) fn slow_down(&mut self, host: usize, by: Duration) {
        self.slow.insert(host, by);
    }

    fn cut_until(&self, now: Time, from: End, to: End) -> Option<Time> {
        let (End::Host(from), End::Host(to)) = (from, to) else {
            return None;
        };
        let cuts = self
            .cuts
            .iter()
            .filter(|cut| (cut.0, cut.1) == (from, to) && cut.2 > now);
        cuts.map(|cut| cut.2).max()
    }

    /// When the copies of a message arrive: none, one or two.
    pub(super) fn arrivals(&mut self, now: Time, from: End, to: End) -> Vec<Time> {
        let rough = now < self.calm_from;
        let between_replicas = matches!((from, to), (End::Host(_), End::Host(_)));
        let loss = match between_replicas {
            true => self.network.replica_loss_percent,
            false => self.network.client_loss_percent,
        };
        if let (End::Client(client), End::Host(host)) = (from, to)
            && self
                .dead
                .iter()
                .any(|dead| (dead.0, dead.1) == (client, host) && dead.2 <= now)
        {
            self.traffic.dead += 1;
            return Vec::new();
        }
        let mut start = now;
        if let Some(until) = self.cut_until(now, from, to) {
            self.traffic.cut += 1;
            if self.network.partitions_lose {
                return Vec::new();
            }
            start = until;
        }
        if rough && self.rng.chance(loss) {
            self.traffic.lost += 1;
            return Vec::new();
        }
        let copies = 1 + usize::from(rough && self.rng.chance(self.network.doubled_percent));
        self.traffic.doubled += copies as u64 - 1;
        (0..copies)
            .map(|_| self.arrival(start, from, to, rough))
            .collect()
    }

    fn arrival(&mut self, start: Time, from: End, to: End, rough: bool) -> Time {
        let (least, most) = self.network.delay_us;
        let mut at = start.after(self.rng.micros(least, most));
        if rough && self.rng.chance(self.network.late_percent) {
            self.traffic.late += 1;
            at = at.after(self.rng.millis(0, self.network.late_ms));
        }
        if let End::Host(host) = from
            && let Some(by) = self.slow.get(&host)
        {
            self.traffic.slowed += 1;
            at = at.after(*by);
        }
        if self.network.in_order {
            let last = self.last.entry((from, to)).or_insert(at);
            *last = (*last).max(at);
            at = *last;
        }
        at
    }
}
