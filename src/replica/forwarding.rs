//! Frames that a replica passes on: to the leader what clients sent to everybody, and to everybody what the leader does not order.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, ExecutionPhase, FORWARDED_FRAMES_MAX, Replica, Stack};
use crate::messages::{Frame, FrameKey, SystemMessage};
use crate::mutants::{Mutant, active};
use crate::ordering::OrderingProtocol;
use crate::protocol::Recipients;
use crate::types::Time;

/// A frame is not passed on again so soon: less than any client's patience.
const PAUSE: Duration = Duration::from_millis(20);

/// What was passed on lately. Replicas in different views take each other for leaders: without a pause a frame would go to and
/// fro between them as fast as the links allow.
#[derive(Debug, Default)]
pub(super) struct PassedOn(BTreeMap<FrameKey, Time>);

impl PassedOn {
    /// Whether a frame may be passed on now; it is noted if so.
    pub fn may_pass(&mut self, now: Time, key: FrameKey) -> bool {
        if self.0.len() >= FORWARDED_FRAMES_MAX {
            self.0.retain(|_, at| now.since(*at) < PAUSE);
        }
        let is_recent = self.0.get(&key).is_some_and(|at| now.since(*at) < PAUSE);
        if is_recent || self.0.len() >= FORWARDED_FRAMES_MAX {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ClientId, FrameSeq};

    #[test]
    fn a_frame_that_comes_back_at_once_is_passed_on_once_and_a_flood_is_passed_on_in_part() {
        let mut passed = PassedOn::default();
        let key = |client, sequence| FrameKey {
            client: ClientId::new(client),
            sequence: FrameSeq::new(sequence),
        };
        let now = Time::START.after(Duration::from_secs(1));
        assert!(passed.may_pass(now, key(1, 1)));
        assert!(!passed.may_pass(now.after(PAUSE / 2), key(1, 1)));
        assert!(passed.may_pass(now, key(2, 1)), "another client's");
        assert!(
            passed.may_pass(now.after(PAUSE), key(1, 1)),
            "its client has asked again"
        );
        let flood =
            (0..2 * FORWARDED_FRAMES_MAX as u64).filter(|number| passed.may_pass(now, key(3, *number)));
        assert_eq!(flood.count(), FORWARDED_FRAMES_MAX - 2);
        assert!(
            passed.may_pass(now.after(PAUSE * 2), key(4, 1)),
            "there is room again"
        );
    }
}
