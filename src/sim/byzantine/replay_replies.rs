use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open, open_system};
use super::{Actor, Stage};
use crate::sim::SimConfig;
use crate::smr::messages::{Envelope, ForwardedRequests, Kind, SyncMessage, SystemMessage, encode};
use crate::smr::types::{Epoch, NodeId};

/// Messages that one status is worth, and frames and bytes of each at most.
const MESSAGES: usize = 100;
const FRAMES_MAX: usize = 64;
const MESSAGE_BYTES: usize = 12 << 10;
/// Frames that it keeps.
const KEPT: usize = 256;
/// Statuses that are worth so much: in a simulated run, where each message costs time.
const ROUNDS_MAX: u64 = 40;

/// Passes on frames that were decided long ago, again and again, to have others answer them again.
pub(super) struct ReplayReplies {
    old: Vec<Bytes>,
    next: usize,
    rounds_left: u64,
    messages: usize,
}

impl ReplayReplies {
    pub(super) fn new(config: &SimConfig) -> Self {
        // Over real links there is nobody whom the simulator's time costs anything.
        let is_simulated = config.honest_clients > 1;
        Self {
            old: Vec::new(),
            next: 0,
            rounds_left: if is_simulated { ROUNDS_MAX } else { u64::MAX },
            messages: if is_simulated { MESSAGES / 20 } else { MESSAGES },
        }
    }

    fn keep(&mut self, frames: Vec<Bytes>) {
        for frame in frames {
            match self.old.len() < KEPT {
                true => self.old.push(frame),
                false => {
                    self.old[self.next] = frame;
                    self.next = (self.next + 1) % KEPT;
                }
            }
        }
    }

    fn pass_on(&self, stage: &mut Stage<'_>, to: NodeId) {
        if self.old.is_empty() {
            return;
        }
        for _ in 0..self.messages {
            let mut passed_on = ForwardedRequests {
                ends: Vec::new(),
                frames: Vec::new(),
            };
            let first = stage.rng.below(self.old.len() as u64) as usize;
            for frame in self.old.iter().cycle().skip(first).take(FRAMES_MAX) {
                let is_first = passed_on.ends.is_empty();
                if !is_first && passed_on.frames.len() + frame.len() > MESSAGE_BYTES {
                    break;
                }
                passed_on.frames.extend_from_slice(frame);
                passed_on.ends.push(passed_on.frames.len() as u32);
            }
            let message = SystemMessage::ForwardedRequestMessage(passed_on);
            let envelope = Envelope::new(Kind::SystemWithFrames, stage.cluster, Epoch::ZERO);
            stage.lie(to, encode(envelope, &message, 2 * MESSAGE_BYTES));
        }
    }
}

impl Actor for ReplayReplies {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open_system(message) {
            Some(SystemMessage::ProposalMessage(proposal)) => {
                self.keep(frames_of(&proposal));
            }
            Some(SystemMessage::SyncMessage(SyncMessage::Status(_))) if self.rounds_left > 0 => {
                self.rounds_left -= 1;
                self.pass_on(stage, to);
            }
            _ => {}
        }
        stage.pass(to, message.clone());
    }

    fn hear(&mut self, _: &mut Stage<'_>, message: &Bytes) {
        if let Some(OrderingMessage::PrePrepare(proposal)) = open(message) {
            self.keep(frames_of(&proposal));
        }
    }
}
