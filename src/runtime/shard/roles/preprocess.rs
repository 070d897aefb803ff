use std::sync::Arc;

use bytes::Bytes;

use super::consensus_record::record_refusal;
use super::{Role, STEP_MESSAGES};
use crate::runtime::config::RoleKind;
use crate::runtime::evidence::{EvidenceKind, Exhibit};
use crate::runtime::flight::{FlightEvent, FlightKind, FlightPen, MessageTopic};
use crate::runtime::metrics::{Lane, Measure, Metrics, Recorder, count, is_sampled_batch, is_sampled_frame};
use crate::runtime::shard::lanes::{
    Checked, LinkReceiver, LinkSender, Outgoing, Raw, Verified, Work, answer, any_blocked,
};
use crate::runtime::shard::reactor::Reactor;
use crate::smr::messages::archived::ArchivedClientReply;
use crate::smr::messages::{Checked as CheckedMessage, ClientReply, Frame, FrameKey};
use crate::smr::node::{Preprocessing, PreprocessingPort};
use crate::smr::preprocessing::{FrameRefusal, FromPeer, PeerRefusal};
use crate::smr::types::{ClientId, Digest, NodeId, Peer, SeqNo, Time};

/// Frames that are timed in one step: whoever gives its frames numbers that are sampled has no more of it.
const STEP_SAMPLES: usize = 8;

/// The lanes of one preprocess role.
pub(crate) struct PreprocessLanes {
    /// Replicas' messages with frames, from each network role; taken first.
    pub replica_frames: Vec<LinkReceiver<Raw>>,
    /// Client frames, from each network role.
    pub client_frames: Vec<LinkReceiver<Raw>>,
    /// What passed, to consensus.
    pub checked: LinkSender<Checked>,
    /// Read-only frames, to execution.
    pub unordered: LinkSender<Work>,
    /// Refusals, to each network role; a client's is its number mod their count.
    pub refusals: Vec<LinkSender<Outgoing>>,
}

/// Moves frames from lanes to [`Preprocessing`], and what passes into others.
pub(crate) struct PreprocessRole {
    preprocessing: Preprocessing,
    replica_frames: Vec<LinkReceiver<Raw>>,
    client_frames: Vec<LinkReceiver<Raw>>,
    port: Port,
}

/// Where what passed goes, and what did not is counted.
struct Port {
    checked: LinkSender<Checked>,
    unordered: LinkSender<Work>,
    refusals: Vec<LinkSender<Outgoing>>,
    metrics: Arc<Metrics>,
    pen: FlightPen,
    now: Time,
    /// The message of a replica, or the frame of a client, that is being checked.
    message: Bytes,
    /// Why the frame was refused that nobody has been named for yet: its client follows, where it is told,
    /// and else it is whose link it came by.
    unnamed: Option<FrameRefusal>,
    /// Frames of clients refused in this turn.
    frames_refused: u64,
    recorder: Arc<Recorder>,
    /// Where the bytes of each client frame of this step lie, and when they came.
    came: Vec<(usize, Time)>,
    samples_left: usize,
    /// When the replica's message came that is checked.
    received: Time,
}

impl Port {
    /// The frame that was refused is this client's, and has this digest.
    fn name(&mut self, client: ClientId, digest: Option<Digest>) {
        if let Some(refusal) = self.unnamed.take() {
            let refused = (Peer::Client(client), EvidenceKind::Frame(refusal), 1);
            let exhibit = Exhibit {
                digest,
                message: Some(&self.message)
                    .filter(|frame| !frame.is_empty())
                    .map(|frame| &frame[..]),
                ..Exhibit::default()
            };
            record_refusal(&self.pen, &self.metrics, self.now, refused, exhibit);
        }
    }

    /// A client's frame is verified: how long that took, if it is one that is timed.
    fn time_frame(&mut self, frame: &Frame) {
        if self.samples_left == 0 || !is_sampled_frame(frame.key()) {
            return;
        }
        let place = frame.bytes().as_ptr().addr();
        let Some((_, received)) = self.came.iter().find(|(own, _)| *own == place).copied() else {
            return;
        };
        self.samples_left -= 1;
        let verified = self.metrics.measures.now();
        self.recorder
            .record_time(Measure::FrameVerified, verified.since(received));
        self.checked.push(Checked::At(Verified::Frame {
            key: frame.key(),
            received,
            verified,
        }));
    }

    /// A replica's proposal is verified: how long that took, if its batch is one that is timed.
    fn time_proposal(&mut self, seq: SeqNo) {
        if !is_sampled_batch(seq) {
            return;
        }
        let verified = self.metrics.measures.now();
        self.recorder
            .record_time(Measure::BatchVerified, verified.since(self.received));
        self.checked
            .push(Checked::At(Verified::Proposal { seq, verified }));
    }

    fn is_blocked(&mut self) -> bool {
        let refusals = any_blocked(&mut self.refusals);
        self.checked.is_blocked() || refusals
    }
}

impl PreprocessingPort for Port {
    fn ordered(&mut self, frame: Frame) {
        self.time_frame(&frame);
        self.checked.push(Checked::Frame(frame));
    }

    fn of_peer(&mut self, from: NodeId, told: FromPeer) {
        if let FromPeer::Proposal(proposal) = &told {
            self.time_proposal(proposal.seq);
        }
        self.checked.push(Checked::FromPeer(from, told));
    }

    fn read(&mut self, frame: Frame) -> bool {
        // Reads that nobody takes are refused, and hold up nothing else.
        if self.unordered.is_blocked() {
            count(&self.metrics.counters.reads_refused);
            return false;
        }
        self.unordered.push(Work::Unordered(frame));
        true
    }

    fn answer(&mut self, frame: FrameKey, message: Bytes) {
        if self.unnamed.is_some() {
            self.name(frame.client, refused_digest(&message));
        }
        answer(&mut self.refusals, frame, message);
    }

    fn refused(&mut self, from: NodeId, refusal: PeerRefusal) {
        let refused = (Peer::Replica(from), EvidenceKind::of_refusal(refusal), 1);
        let exhibit = Exhibit {
            message: Some(&self.message),
            ..Exhibit::default()
        };
        record_refusal(&self.pen, &self.metrics, self.now, refused, exhibit);
        match refusal {
            PeerRefusal::Archive | PeerRefusal::Message => count(&self.metrics.counters.messages_refused),
            PeerRefusal::Frame(refusal) => self.metrics.refuse_frame(refusal),
            PeerRefusal::Batch(error) => {
                tracing::debug!(%from, %error, "refused a proposal");
                self.metrics.refuse_batch(error);
            }
        }
    }

    fn refused_frame(&mut self, refusal: FrameRefusal) {
        self.metrics.refuse_frame(refusal);
        self.unnamed = Some(refusal);
        self.frames_refused += 1;
    }
}

impl PreprocessRole {
    pub fn new(preprocessing: Preprocessing, lanes: PreprocessLanes, metrics: Arc<Metrics>) -> Self {
        Self {
            preprocessing,
            replica_frames: lanes.replica_frames,
            client_frames: lanes.client_frames,
            port: Port {
                checked: lanes.checked,
                unordered: lanes.unordered,
                refusals: lanes.refusals,
                recorder: metrics.measures.recorder(),
                metrics,
                pen: FlightPen::default(),
                now: Time::START,
                message: Bytes::new(),
                unnamed: None,
                frames_refused: 0,
                came: Vec::new(),
                samples_left: 0,
                received: Time::START,
            },
        }
    }

    fn take_replica_frames(&mut self, now: Time) -> bool {
        let mut any = false;
        for lane in &mut self.replica_frames {
            for _ in 0..STEP_MESSAGES {
                if self.port.is_blocked() {
                    return any;
                }
                let Some(Raw::WithFrames {
                    from,
                    message,
                    received,
                }) = lane.pop()
                else {
                    break;
                };
                any = true;
                let kind = MessageTopic::code(MessageTopic::of(&message));
                let event = FlightEvent::of(FlightKind::Message).with(Some(Peer::Replica(from)));
                self.port
                    .pen
                    .record(now, event.numbers(kind, message.len() as u64));
                self.port.message = message.clone();
                self.port.received = received;
                self.preprocessing
                    .take_message(now, from, &message, &mut self.port);
                self.port.message = Bytes::new();
            }
        }
        any
    }

    fn take_client_frames(&mut self, now: Time) -> bool {
        let mut taken = 0;
        self.port.samples_left = STEP_SAMPLES;
        for lane in &mut self.client_frames {
            for _ in 0..STEP_MESSAGES {
                if self.port.is_blocked() {
                    break;
                }
                let Some(Raw::Frame {
                    client,
                    bytes,
                    received,
                }) = lane.pop()
                else {
                    break;
                };
                taken += 1;
                self.port.came.push((bytes.as_ptr().addr(), received));
                self.port.message = bytes.clone();
                self.preprocessing.take_frame(client, bytes, &mut self.port);
                self.port.name(client, None);
                self.port.message = Bytes::new();
            }
        }
        self.preprocessing.verify(&mut self.port);
        self.port.came.clear();
        if taken > 0 {
            let refused = std::mem::take(&mut self.port.frames_refused);
            let event = FlightEvent::of(FlightKind::Frames);
            self.port.pen.record(now, event.numbers(taken, refused));
        }
        taken > 0
    }
}

/// The digest of the frame that a client is told of.
fn refused_digest(reply: &Bytes) -> Option<Digest> {
    let reply = CheckedMessage::<ClientReply>::body_of(reply).ok()?;
    match &*reply {
        ArchivedClientReply::Refused { request, .. } => Some(Digest::from_bytes(*request)),
        ArchivedClientReply::Results { .. } => None,
    }
}

impl Role for PreprocessRole {
    fn kind(&self) -> Option<RoleKind> {
        Some(RoleKind::Preprocess)
    }

    fn record_with(&mut self, pen: FlightPen) {
        self.port.pen = pen;
    }

    fn step(&mut self, now: Time, _: &mut Reactor) -> bool {
        self.port.now = now;
        let replicas = self.take_replica_frames(now);
        self.take_client_frames(now) || replicas
    }

    fn finish(&mut self, _: Time, _: &mut Reactor) -> bool {
        self.port.checked.ring();
        self.port.unordered.ring();
        self.port.refusals.iter_mut().for_each(LinkSender::ring);
        false
    }

    fn observe(&mut self) {
        let recorder = &self.port.recorder;
        let replicas = self.replica_frames.iter();
        replicas.for_each(|lane| recorder.record_depth(Lane::ReplicaFrames, lane.len()));
        let clients = self.client_frames.iter();
        clients.for_each(|lane| recorder.record_depth(Lane::ClientFrames, lane.len()));
    }

    fn has_input(&self) -> bool {
        self.replica_frames
            .iter()
            .chain(&self.client_frames)
            .any(|lane| !lane.is_empty())
            || self.port.checked.has_overflow()
            || self.port.unordered.has_overflow()
            || self.port.refusals.iter().any(LinkSender::has_overflow)
    }

    fn drain(&mut self, _: bool) -> bool {
        !self.has_input()
    }
}
