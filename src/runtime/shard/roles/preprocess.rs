use std::sync::Arc;

use bytes::Bytes;

use super::{Role, STEP_MESSAGES};
use crate::runtime::metrics::{Metrics, count};
use crate::runtime::shard::lanes::{Checked, Inlet, Outgoing, Outlet, Raw, Work, answer, any_blocked};
use crate::runtime::shard::reactor::Reactor;
use crate::smr::messages::{
    Checked as CheckedMessage, ClientReply, Frame, FrameId, RefusalReason, SystemMessage,
};
use crate::smr::preprocessing::{FrameChecker, FrameRefusal, FromPeer, PeerRefusal, ProposalGate};
use crate::smr::types::{ClusterId, Epoch, NodeId, Time, View};

/// The lanes of one preprocess role.
pub(crate) struct PreprocessLanes {
    /// Replicas' messages with frames, from each network role; taken first.
    pub replica_frames: Vec<Inlet<Raw>>,
    /// Client frames, from each network role.
    pub client_frames: Vec<Inlet<Raw>>,
    /// What passed, to consensus.
    pub checked: Outlet<Checked>,
    /// Read-only frames, to execution.
    pub unordered: Outlet<Work>,
    /// Refusals, to each network role; a client's is its number mod their count.
    pub refusals: Vec<Outlet<Outgoing>>,
}

/// Checks and hashes frames before anything else sees them.
pub(crate) struct PreprocessRole {
    checker: FrameChecker,
    gate: ProposalGate,
    lanes: PreprocessLanes,
    cluster: ClusterId,
    epoch: Epoch,
    metrics: Arc<Metrics>,
}

impl PreprocessRole {
    pub fn new(
        (checker, gate): (FrameChecker, ProposalGate),
        lanes: PreprocessLanes,
        (cluster, epoch): (ClusterId, Epoch),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            checker,
            gate,
            lanes,
            cluster,
            epoch,
            metrics,
        }
    }

    fn is_blocked(&mut self) -> bool {
        // Reads that nobody takes are refused, and hold up nothing else.
        let refusals = any_blocked(&mut self.lanes.refusals);
        self.lanes.checked.is_blocked() || refusals
    }

    fn take_replica_frames(&mut self, now: Time) -> bool {
        let mut any = false;
        for lane in 0..self.lanes.replica_frames.len() {
            for _ in 0..STEP_MESSAGES {
                if self.is_blocked() {
                    return any;
                }
                let Some(Raw::WithFrames { from, message }) = self.lanes.replica_frames[lane].pop() else {
                    break;
                };
                any = true;
                match CheckedMessage::<SystemMessage>::body_of(&message) {
                    Ok(checked) => self.take_checked(now, from, &checked, &message),
                    Err(_) => count(&self.metrics.counters.messages_refused),
                }
            }
        }
        any
    }

    fn take_checked(
        &mut self,
        now: Time,
        from: NodeId,
        checked: &CheckedMessage<SystemMessage>,
        message: &Bytes,
    ) {
        let (lane, metrics) = (&mut self.lanes.checked, &self.metrics);
        let tell = |result| match result {
            Ok(FromPeer::Frame(frame)) => lane.push(Checked::PassedOn(frame)),
            Ok(FromPeer::Disputed(key)) => lane.push(Checked::Disputed(key)),
            Ok(FromPeer::Proposal(proposal)) => {
                let proposal = Box::new(proposal);
                lane.push(Checked::Proposal { from, proposal });
            }
            Ok(FromPeer::Batch(batch)) => {
                let batch = Box::new(batch);
                lane.push(Checked::Batch { from, batch });
            }
            Err(PeerRefusal::Message) => count(&metrics.counters.messages_refused),
            Err(PeerRefusal::Frame(refusal)) => metrics.refuse_frame(refusal),
            Err(PeerRefusal::Batch(error)) => {
                tracing::debug!(%from, %error, "refused a proposal");
                metrics.refuse_batch(error);
            }
        };
        self.gate
            .check(now, from, &mut self.checker, (checked, message), tell);
    }

    fn take_client_frames(&mut self) -> bool {
        let mut any = false;
        for lane in 0..self.lanes.client_frames.len() {
            for _ in 0..STEP_MESSAGES {
                if self.is_blocked() {
                    break;
                }
                let Some(Raw::Frame { client, bytes }) = self.lanes.client_frames[lane].pop() else {
                    break;
                };
                any = true;
                match self.checker.take_frame(client, bytes) {
                    Ok(Some(frame)) => self.pass(frame),
                    Ok(None) => {}
                    Err((frame, refusal)) => self.refuse(frame, refusal),
                }
            }
        }
        if self.checker.waiting() > 0 {
            let mut verdicts = Vec::with_capacity(self.checker.waiting());
            self.checker
                .verify(|frame, verdict| verdicts.push((frame, verdict)));
            for (frame, verdict) in verdicts {
                match verdict {
                    Ok(()) => self.pass(frame),
                    Err(refusal) => self.refuse(Some(frame.id()), refusal),
                }
            }
        }
        any
    }

    fn pass(&mut self, frame: Frame) {
        if frame.mode().is_ordered() {
            self.lanes.checked.push(Checked::Frame(frame));
        } else if self.lanes.unordered.is_blocked() {
            count(&self.metrics.counters.reads_refused);
            self.answer(&frame.id(), RefusalReason::Overloaded);
        } else {
            self.lanes.unordered.push(Work::Unordered(frame));
        }
    }

    fn refuse(&mut self, frame: Option<FrameId>, refusal: FrameRefusal) {
        self.metrics.refuse_frame(refusal);
        // Without a key there is nothing to answer: no correct client sends such a frame.
        if let Some(frame) = frame {
            self.answer(&frame, refusal.reason());
        }
    }

    fn answer(&mut self, frame: &FrameId, reason: RefusalReason) {
        let reply = ClientReply::refusal(self.cluster, self.epoch, View::ZERO, frame, reason);
        answer(&mut self.lanes.refusals, frame.key, reply);
    }
}

impl Role for PreprocessRole {
    fn step(&mut self, now: Time, _: &mut Reactor) -> bool {
        let replicas = self.take_replica_frames(now);
        self.take_client_frames() || replicas
    }

    fn finish(&mut self, _: Time, _: &mut Reactor) -> bool {
        self.lanes.checked.ring();
        self.lanes.unordered.ring();
        self.lanes.refusals.iter_mut().for_each(Outlet::ring);
        false
    }

    fn has_input(&self) -> bool {
        self.lanes
            .replica_frames
            .iter()
            .chain(&self.lanes.client_frames)
            .any(|lane| !lane.is_empty())
            || self.lanes.checked.has_overflow()
            || self.lanes.unordered.has_overflow()
            || self.lanes.refusals.iter().any(Outlet::has_overflow)
    }

    fn drain(&mut self, _: bool) -> bool {
        !self.has_input()
    }
}
