//! Frames that a replica passes on: to the leader what clients sent to everybody, and to everybody what the leader does not order.

use super::{Action, FORWARDED_FRAMES_MAX, Replica, Stack};
use crate::messages::{Frame, SystemMessage};
use crate::mutants::{Mutant, active};
use crate::ordering::OrderingProtocol;
use crate::protocol::Recipients;

use super::ExecutionPhase;

impl<S: Stack> Replica<S> {
    /// Passes on to the leader what clients sent to everybody.
    pub(super) fn forward_frames(&mut self) {
        let mut frames = std::mem::take(&mut self.forward);
        let is_voting = self.phase() == ExecutionPhase::OrderProtocol;
        if !is_voting && !active(Mutant::ForwardSkipped) {
            // Once there is a leader.
            self.forward = frames;
            return;
        }
        if !self.ordering.is_leading() && !active(Mutant::ForwardSkipped) {
            self.pass_on(Recipients::One(self.ordering.leader()), &frames);
        }
        frames.clear();
        self.forward = frames;
    }

    /// What is pending here is passed on to everybody: perhaps nobody else has it, and the leader lost it. A replica that then waits in
    /// vain does not wait alone, and is not the only one to ask for another leader.
    pub(super) fn share_pending(&mut self) {
        // What a leader has pending is on its way already.
        if !self.ordering.is_leading() && !active(Mutant::ForwardSkipped) {
            let frames = self.pending_frames();
            self.pass_on(Recipients::Others, &frames);
        }
    }

    /// The frames that are pending here, as many as are passed on at once.
    pub(super) fn pending_frames(&mut self) -> Vec<Frame> {
        let (bytes_max, frames_max) = (self.settings.batch_bytes_max, self.settings.batch_frames_max);
        let mut pending = Vec::new();
        while pending.len() < FORWARDED_FRAMES_MAX
            && let Some((frames, _)) = self.pool.take_batch(bytes_max, frames_max)
        {
            pending.extend(frames);
        }
        self.pool.return_in_flight();
        pending
    }

    fn pass_on(&mut self, to: Recipients, mut frames: &[Frame]) {
        let (cluster, epoch) = (self.settings.cluster, self.settings.epoch);
        while !frames.is_empty() {
            let mut bytes = 0;
            let fits = |frame: &&Frame| {
                bytes += frame.bytes().len();
                bytes <= self.settings.batch_bytes_max
            };
            let count = frames.iter().take_while(fits).count().max(1);
            let (now, rest) = frames.split_at(count);
            let message = SystemMessage::forwarded_requests(cluster, epoch, now);
            self.counters.frames_forwarded += now.len() as u64;
            self.actions.push(Action::ToReplicas { to, message });
            frames = rest;
        }
    }
}
