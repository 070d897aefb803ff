use bytes::Bytes;

use crate::smr::messages::{Checked, ClientReply, Frame, FrameId, FrameKey, RefusalReason, SystemMessage};
use crate::smr::preprocessing::{FrameChecker, FrameRefusal, FromPeer, PeerRefusal, PeerVerifyGate};
use crate::smr::types::{ClientId, ClusterId, Epoch, NodeId, Time, View};

/// Where preprocessing's results go.
pub trait PreprocessingPort {
    /// To consensus: a client's frame, by its own link, that is to be ordered.
    fn ordered(&mut self, frame: Frame);

    /// To consensus: part of what a replica sent.
    fn of_peer(&mut self, from: NodeId, told: FromPeer);

    /// To execution: a frame of reads; false when there is no room for it.
    fn read(&mut self, frame: Frame) -> bool;

    /// To the client of a frame: why it gets no results.
    fn answer(&mut self, frame: FrameKey, message: Bytes);

    /// A replica sent something that is refused.
    fn refused(&mut self, from: NodeId, refusal: PeerRefusal);

    /// A client sent a frame that is refused.
    fn refused_frame(&mut self, refusal: FrameRefusal);
}

/// Checks frames before anything else sees them, passes what is sound, refuses the rest.
pub struct Preprocessing {
    checker: FrameChecker,
    gate: PeerVerifyGate,
    cluster: ClusterId,
    epoch: Epoch,
}

impl Preprocessing {
    /// Preprocessing with this checker of frames, and this gate for what replicas send.
    #[must_use]
    pub const fn new(
        checker: FrameChecker,
        gate: PeerVerifyGate,
        (cluster, epoch): (ClusterId, Epoch),
    ) -> Self {
        Self {
            checker,
            gate,
            cluster,
            epoch,
        }
    }

    /// A client's frame came by its link. One that is signed waits until [`verify`](Self::verify).
    pub fn take_frame(&mut self, client: ClientId, bytes: Bytes, port: &mut impl PreprocessingPort) {
        match self.checker.take_frame(client, bytes) {
            Ok(Some(frame)) => self.pass(frame, port),
            Ok(None) => {}
            Err((frame, refusal)) => self.refuse(frame, refusal, port),
        }
    }

    /// Verifies the signatures of all frames that wait, together.
    pub fn verify(&mut self, port: &mut impl PreprocessingPort) {
        if self.checker.waiting() == 0 {
            return;
        }
        let mut verdicts = Vec::with_capacity(self.checker.waiting());
        self.checker
            .verify(|frame, verdict| verdicts.push((frame, verdict)));
        for (frame, verdict) in verdicts {
            match verdict {
                Ok(()) => self.pass(frame, port),
                Err(refusal) => self.refuse(Some(frame.id()), refusal, port),
            }
        }
    }

    /// A replica's message with frames came, envelope included.
    pub fn take_message(
        &mut self,
        now: Time,
        from: NodeId,
        message: &Bytes,
        port: &mut impl PreprocessingPort,
    ) {
        let Ok(checked) = Checked::<SystemMessage>::body_of(message) else {
            return port.refused(from, PeerRefusal::Archive);
        };
        // Frames that were taken before are judged first: the verifier is one.
        self.verify(port);
        let tell = |told| match told {
            Ok(told) => port.of_peer(from, told),
            Err(refusal) => port.refused(from, refusal),
        };
        self.gate
            .check(now, from, &mut self.checker, (&checked, message), tell);
    }

    fn pass(&self, frame: Frame, port: &mut impl PreprocessingPort) {
        if frame.mode().is_ordered() {
            return port.ordered(frame);
        }
        let id = frame.id();
        if !port.read(frame) {
            self.answer(&id, RefusalReason::Overloaded, port);
        }
    }

    fn refuse(&self, frame: Option<FrameId>, refusal: FrameRefusal, port: &mut impl PreprocessingPort) {
        port.refused_frame(refusal);
        // Without a key there is nothing to answer: no correct client sends such a frame.
        if let Some(frame) = frame {
            self.answer(&frame, refusal.reason(), port);
        }
    }

    fn answer(&self, frame: &FrameId, reason: RefusalReason, port: &mut impl PreprocessingPort) {
        let reply = ClientReply::refusal(self.cluster, self.epoch, View::ZERO, frame, reason);
        port.answer(frame.key, reply);
    }
}
