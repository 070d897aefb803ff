use std::time::Duration;

use bytes::Bytes;

use crate::sim::SimRng;
use crate::sim::keys::{CLUSTER, Keyring};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::{
    Checked, ENVELOPE_BYTES, Envelope, Frame, Kind, NamedViewChange, NewView, PrePrepare, SignedCheckpoint,
    SyncMessage, SystemMessage, ViewChange, ViewTransferMessage, Vote, encode,
};
use crate::smr::preprocessing::batch_digest;
use crate::smr::types::{ClusterId, Digest, Epoch, NodeId, UnixTime};

/// How many bytes that mean nothing are put into one message.
const PADDING_MAX: u64 = 16 << 10;

/// A message that a faulty replica sends.
pub(crate) struct Sent {
    pub to: NodeId,
    pub message: Bytes,
    /// How much later than it would have been sent.
    pub later: Duration,
}

/// Where a lie is told: who tells it, and what it comes to.
pub(in crate::sim) struct Stage<'a> {
    pub node: NodeId,
    pub n: usize,
    pub rng: &'a mut SimRng,
    /// The cluster it is told in.
    pub cluster: ClusterId,
    pub(super) out: Vec<Sent>,
    pub(super) hits: u64,
}

impl<'a> Stage<'a> {
    pub(super) fn new(node: NodeId, n: usize, cluster: ClusterId, rng: &'a mut SimRng) -> Self {
        Self {
            node,
            n,
            rng,
            cluster,
            out: Vec::new(),
            hits: 0,
        }
    }

    /// Sends as it is.
    pub fn pass(&mut self, to: NodeId, message: Bytes) {
        self.pass_later(to, message, Duration::ZERO);
    }

    /// Sends as it is, later.
    pub fn pass_later(&mut self, to: NodeId, message: Bytes, later: Duration) {
        self.out.push(Sent { to, message, later });
    }

    /// Sends a lie.
    pub fn lie(&mut self, to: NodeId, message: Bytes) {
        self.hits += 1;
        self.pass(to, message);
    }

    /// Counts a lie that sends nothing, or nothing new.
    pub fn hit(&mut self) {
        self.hits += 1;
    }

    /// The message that carries one about views.
    pub(super) fn close_view(&self, message: ViewTransferMessage) -> Bytes {
        message.encode(self.cluster, Epoch::ZERO)
    }

    /// The message that carries one about what holds for every protocol.
    pub(super) fn close_sync(&self, message: SyncMessage) -> Bytes {
        message.encode(self.cluster, Epoch::ZERO)
    }

    /// The message that carries an ordering message.
    pub(super) fn close(&self, message: OrderingMessage) -> Bytes {
        let proposal = match message {
            OrderingMessage::PrePrepare(proposal) => proposal,
            OrderingMessage::Votes(votes) => return self.votes(votes),
            OrderingMessage::Checkpoint(signed) => return self.close_sync(SyncMessage::Checkpoint(signed)),
        };
        let envelope = Envelope::new(Kind::SystemWithFrames, self.cluster, Epoch::ZERO);
        encode(envelope, &SystemMessage::ProposalMessage(proposal), 1024)
    }

    /// The message that carries votes.
    pub(super) fn votes(&self, votes: Vec<Vote>) -> Bytes {
        SystemMessage::votes(self.cluster, Epoch::ZERO, votes)
    }

    /// A pre-prepare of these frames in the place of another, with the digest that belongs to them.
    pub(super) fn with_frames(&self, message: &PrePrepare, frames: &[Bytes]) -> PrePrepare {
        self.at_time(message, message.time, frames)
    }

    /// A pre-prepare of these frames at this time in the place of another. The null request has no time.
    pub(super) fn at_time(&self, message: &PrePrepare, time: u64, frames: &[Bytes]) -> PrePrepare {
        let time = if frames.is_empty() { 0 } else { time };
        let digester = Digester::new(self.cluster);
        let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
        let checked: Vec<Frame> = frames
            .iter()
            .filter_map(|bytes| Frame::check(bytes.clone(), usize::MAX, usize::MAX, digest_of).ok())
            .collect();
        let digest: Digest = batch_digest(&digester, UnixTime::from_nanos(time), &checked);
        let mut with = PrePrepare {
            digest: *digest.as_bytes(),
            time,
            ends: Vec::new(),
            frames: Vec::new(),
            ..message.clone()
        };
        for frame in frames {
            with.frames.extend_from_slice(frame);
            with.ends.push(with.frames.len() as u32);
        }
        with
    }

    /// Everybody else.
    pub fn others(&self) -> Vec<NodeId> {
        NodeId::all(self.n).filter(|node| *node != self.node).collect()
    }
}

/// The message with bytes before its archive that nothing in it points to.
pub(super) fn padded(rng: &mut SimRng, message: &Bytes) -> Bytes {
    let (envelope, body) = message.split_at(ENVELOPE_BYTES.min(message.len()));
    let padding = rng.between(1, PADDING_MAX) as usize;
    let mut padded = [envelope, &vec![0; padding], body].concat();
    if let Some(length) = padded.get_mut(4..8) {
        length.copy_from_slice(&((padding + body.len()) as u32).to_le_bytes());
    }
    Bytes::from(padded)
}

/// A message between replicas, whatever it is.
pub(super) fn open_system(message: &Bytes) -> Option<SystemMessage> {
    let checked = Checked::<SystemMessage>::body_of(message).ok()?;
    rkyv::deserialize::<_, rkyv::rancor::Failure>(&*checked).ok()
}

/// What PBFT's replicas say to order batches.
pub(super) enum OrderingMessage {
    PrePrepare(PrePrepare),
    Votes(Vec<Vote>),
    Checkpoint(SignedCheckpoint),
}

/// The ordering message inside a message between replicas.
pub(super) fn open(message: &Bytes) -> Option<OrderingMessage> {
    match open_system(message)? {
        SystemMessage::ProposalMessage(proposal) => Some(OrderingMessage::PrePrepare(proposal)),
        SystemMessage::SyncMessage(SyncMessage::Checkpoint(signed)) => {
            Some(OrderingMessage::Checkpoint(signed))
        }
        SystemMessage::ProtocolMessage(_) => {
            let votes = Checked::<SystemMessage>::body_of(message).ok()?.votes();
            Some(OrderingMessage::Votes(votes))
        }
        _ => None,
    }
}

/// The message about views inside a message between replicas.
pub(super) fn open_view(message: &Bytes) -> Option<ViewTransferMessage> {
    let message = Checked::<SystemMessage>::body_of(message).ok()?.of_views()?;
    rkyv::deserialize::<_, rkyv::rancor::Failure>(&*message).ok()
}

/// The message about what holds for every protocol inside a message between replicas.
pub(super) fn open_sync(message: &Bytes) -> Option<SyncMessage> {
    match open_system(message)? {
        SystemMessage::SyncMessage(message) => Some(message),
        _ => None,
    }
}

fn signed(node: NodeId, domain: Domain, feed: impl FnOnce(&mut blake3::Hasher)) -> [u8; 64] {
    let mut hasher = Digester::new(CLUSTER).hasher(domain);
    hasher.update(&Epoch::ZERO.get().to_le_bytes());
    feed(&mut hasher);
    let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
    Keyring::get().replica(node).sign(domain, &digest)
}

/// A view change as new views name it.
pub(super) fn name_view_change(message: &ViewChange) -> NamedViewChange {
    let mut hasher = Digester::new(CLUSTER).hasher(Domain::ViewChange);
    hasher.update(&Epoch::ZERO.get().to_le_bytes());
    message.hash_into(&mut hasher);
    message.named(&Digest::from_bytes(*hasher.finalize().as_bytes()))
}

/// A view change under the liar's own name, properly signed.
pub(super) fn sign_view_change(node: NodeId, mut message: ViewChange) -> ViewChange {
    message.signer = node.get();
    message.signature = signed(node, Domain::ViewChange, |hasher| message.hash_into(hasher));
    message
}

/// A new view under the liar's own name, properly signed.
pub(super) fn sign_new_view(node: NodeId, mut message: NewView) -> NewView {
    message.signer = node.get();
    message.signature = signed(node, Domain::NewView, |hasher| message.hash_into(hasher));
    message
}

/// The frames of a pre-prepare.
pub(super) fn frames_of(message: &PrePrepare) -> Vec<Bytes> {
    let mut start = 0;
    let part = |end: &u32| {
        let frame = message.frames.get(start..*end as usize)?;
        start = *end as usize;
        Some(Bytes::copy_from_slice(frame))
    };
    message.ends.iter().filter_map(part).collect()
}
