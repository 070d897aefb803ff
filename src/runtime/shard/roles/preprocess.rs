use std::sync::Arc;

use bytes::Bytes;

use super::{Role, STEP_MESSAGES};
use crate::runtime::config::RoleKind;
use crate::runtime::metrics::{Lane, Measure, Metrics, Recorder, count, is_sampled_batch, is_sampled_frame};
use crate::runtime::shard::lanes::{
    Checked, LinkReceiver, LinkSender, Outgoing, Raw, Verified, Work, answer, any_blocked,
};
use crate::runtime::shard::reactor::Reactor;
use crate::smr::messages::{Frame, FrameKey};
use crate::smr::node::{Preprocessing, PreprocessingPort};
use crate::smr::preprocessing::{FrameRefusal, FromPeer, PeerRefusal};
use crate::smr::types::{NodeId, SeqNo, Time};

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
    recorder: Arc<Recorder>,
    /// Where the bytes of each client frame of this step lie, and when they came.
    came: Vec<(usize, Time)>,
    samples_left: usize,
    /// When the replica's message came that is checked.
    received: Time,
}

impl Port {
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
        answer(&mut self.refusals, frame, message);
    }

    fn refused(&mut self, from: NodeId, refusal: PeerRefusal) {
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
                self.port.received = received;
                self.preprocessing
                    .take_message(now, from, &message, &mut self.port);
            }
        }
        any
    }

    fn take_client_frames(&mut self) -> bool {
        let mut any = false;
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
                any = true;
                self.port.came.push((bytes.as_ptr().addr(), received));
                self.preprocessing.take_frame(client, bytes, &mut self.port);
            }
        }
        self.preprocessing.verify(&mut self.port);
        self.port.came.clear();
        any
    }
}

impl Role for PreprocessRole {
    fn kind(&self) -> Option<RoleKind> {
        Some(RoleKind::Preprocess)
    }

    fn step(&mut self, now: Time, _: &mut Reactor) -> bool {
        let replicas = self.take_replica_frames(now);
        self.take_client_frames() || replicas
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
