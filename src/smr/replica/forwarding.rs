//! Frames that a replica passes on: to the leader what clients sent to everybody, and to everybody what the
//! leader does not order.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, ExecutionPhase, Replica, Stack};
use crate::smr::messages::{Frame, FrameId, FrameKey, RefusalReason, SystemMessage};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::Recipients;
use crate::smr::types::{ClientId, Time};

/// How many pending frames are passed on to the leader of a view that begins, about. Clients send the rest
/// again.
pub(super) const FORWARDED_FRAMES_MAX: usize = 4096;

/// A frame is not passed on again so soon: less than any client's patience.
const PAUSE: Duration = Duration::from_millis(20);

/// A client that waits so long for one frame has only that one passed on.
pub(super) const OVERDUE: Duration = Duration::from_secs(1);

/// How many full batches of pending frames are passed on at once.
const SHARED_BATCHES: usize = 16;

/// What was passed on lately. Replicas in different views take each other for leaders: without a pause a
/// frame would go to and fro between them as fast as the links allow.
#[derive(Debug, Default)]
struct ForwardDedup(BTreeMap<FrameKey, Time>);

impl ForwardDedup {
    /// Whether a frame may be passed on now; it is noted if so.
    fn may_pass(&mut self, now: Time, key: FrameKey) -> bool {
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

/// What is passed on.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    /// Frames on their way to the leader: their clients have lost patience with it.
    frames: Vec<Frame>,
    passed_on: ForwardDedup,
    /// What is pending was shared, and nothing was executed since.
    shares: bool,
}

impl Forwarding {
    /// Whether there is room for another frame.
    pub fn has_room(&self) -> bool {
        self.frames.len() < FORWARDED_FRAMES_MAX
    }

    /// Passes a frame on at the end of the turn, unless it was lately.
    pub fn pass(&mut self, now: Time, frame: Frame) {
        if self.passed_on.may_pass(now, frame.key()) {
            self.frames.push(frame);
        }
    }

    /// Operations were executed: the leader orders.
    pub fn on_executed(&mut self) {
        self.shares = false;
    }

    /// A view begins: these go to its leader, in the place of what was on its way to the last one.
    pub fn on_view_begins(&mut self, frames: Vec<Frame>) {
        self.frames = frames;
        self.shares = false;
    }

    /// Whether nothing is on its way to the leader.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl<S: Stack> Replica<S> {
    /// Passes on to the leader what clients sent to everybody.
    pub(super) fn forward_frames(&mut self) {
        let mut frames = std::mem::take(&mut self.forwarding.frames);
        let is_voting = self.phase() == ExecutionPhase::OrderProtocol;
        if !is_voting && !active(Mutant::ForwardSkipped) {
            // Once there is a leader.
            self.forwarding.frames = frames;
            return;
        }
        if !self.ordering.is_leading() && !active(Mutant::ForwardSkipped) {
            self.pass_on(Recipients::One(self.ordering.leader()), &frames);
        }
        frames.clear();
        self.forwarding.frames = frames;
    }

    /// What is pending here is passed on to everybody: perhaps nobody else has it, and the leader lost it. A
    /// replica that then waits in vain does not wait alone, and is not the only one to ask for another
    /// leader.
    pub(super) fn broadcast_pending(&mut self, now: Time) {
        // What a leader has pending is on its way already.
        if self.ordering.is_leading() || active(Mutant::ForwardSkipped) {
            return;
        }
        self.forwarding.shares = true;
        let frames = self.pending_frames();
        self.pass_on(Recipients::Others, &frames);
        let unproven: Vec<FrameId> = self
            .pool
            .overdue(now, Duration::ZERO)
            .filter(|(_, is_signed)| !is_signed)
            .map(|(frame, _)| frame.id())
            .take(FORWARDED_FRAMES_MAX)
            .collect();
        unproven.into_iter().for_each(|frame| self.ask_for_proof(frame));
    }

    /// The frames for which clients wait so long are passed on to the leader once more, by themselves: the
    /// first time they may have been lost in a flood. Who could not have the leader blamed for its frame is
    /// asked for a signature.
    pub(super) fn urge_pending(&mut self, now: Time, long: Duration) {
        let is_voting = self.phase() == ExecutionPhase::OrderProtocol;
        if self.ordering.is_leading() || !is_voting || active(Mutant::ForwardSkipped) {
            return;
        }
        let (mut frames, mut unproven, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (frame, is_signed) in self.pool.overdue(now, long).take(FORWARDED_FRAMES_MAX) {
            bytes += frame.bytes().len();
            if bytes > self.shared_bytes_max() {
                break;
            }
            frames.push(frame.clone());
            if !is_signed {
                unproven.push(frame.id());
            }
        }
        self.counters.frames_urged += frames.len() as u64;
        self.pass_on(Recipients::One(self.ordering.leader()), &frames);
        unproven.into_iter().for_each(|frame| self.ask_for_proof(frame));
    }

    /// Whether a client is asked for a signature whenever it sends a frame.
    pub(super) fn asks_for_proof(&self, now: Time, client: ClientId) -> bool {
        let long = if self.forwarding.shares {
            Duration::ZERO
        } else {
            OVERDUE
        };
        !self.ordering.is_leading() && self.pool.lacks_proof(now, client, long)
    }

    pub(super) fn ask_for_proof(&mut self, frame: FrameId) {
        self.counters.proofs_asked += 1;
        let reason = RefusalReason::Unproven;
        self.actions.push(Action::Refuse { frame, reason });
    }

    /// How many bytes of pending frames are passed on at once: what is pending may fill the links to others,
    /// and clients choose how much that is.
    fn shared_bytes_max(&self) -> usize {
        SHARED_BATCHES * self.settings.batch_bytes_max
    }

    /// The frames that are pending here, as many as are passed on at once: each client's lowest first.
    pub(super) fn pending_frames(&mut self) -> Vec<Frame> {
        let (bytes_max, frames_max) = (self.settings.batch_bytes_max, self.settings.batch_frames_max);
        let (mut pending, mut left) = (Vec::new(), self.shared_bytes_max());
        while pending.len() < FORWARDED_FRAMES_MAX
            && let Some((frames, bytes)) = self.pool.take_batch(bytes_max.min(left), frames_max)
        {
            pending.extend(frames);
            left = left.saturating_sub(bytes);
            if left == 0 {
                break;
            }
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
            self.actions.push(Action::PassOn { to, message });
            frames = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::types::{ClientId, FrameSeq};

    #[test]
    fn a_frame_that_comes_back_at_once_is_passed_on_once_and_a_flood_is_passed_on_in_part() {
        let mut passed = ForwardDedup::default();
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
