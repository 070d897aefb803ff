use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open};
use super::{Actor, Stage};
use crate::sim::SimConfig;
use crate::smr::messages::PrePrepare;
use crate::smr::types::NodeId;

/// How many places ahead it proposes for at most.
const AHEAD_MAX: u64 = 64;

/// As a leader, fills every batch up to the limit with frames that were decided before, and proposes such
/// batches for all places but the next, so that nothing is decided and all of it has to be kept; the same to
/// everybody. Now and then it lets a view go on, so that it leads again.
pub(super) struct Bloat {
    batch_bytes_max: usize,
    batch_frames_max: usize,
    ahead: u64,
    /// Frames it proposed.
    stash: Vec<Bytes>,
    /// Proposals it let pass.
    passed: u64,
    /// The last place it proposed for, by recipient, and in which view.
    proposed: Vec<(u64, u64)>,
}

impl Bloat {
    pub(super) fn new(config: &SimConfig) -> Self {
        Self {
            batch_bytes_max: config.limits.batch_bytes_max,
            batch_frames_max: config.limits.batch_frames_max,
            ahead: config.window.min(AHEAD_MAX),
            stash: Vec::new(),
            passed: 0,
            proposed: vec![(0, 0); config.replicas],
        }
    }

    /// Remembers frames until they fill a batch.
    fn keep(&mut self, truth: &PrePrepare) {
        let mut bytes: usize = self.stash.iter().map(Bytes::len).sum();
        for frame in frames_of(truth) {
            bytes += frame.len();
            if bytes > self.batch_bytes_max || self.stash.len() == self.batch_frames_max {
                break;
            }
            if !self.stash.contains(&frame) {
                self.stash.push(frame);
            }
        }
    }
}

impl Actor for Bloat {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let Some(OrderingMessage::PrePrepare(truth)) = open(message) else {
            return stage.pass(to, message.clone());
        };
        self.keep(&truth);
        // So many that there is something to repeat.
        let n = stage.n as u64;
        if self.passed < 8 * n {
            self.passed += 1;
            return stage.pass(to, message.clone());
        }
        let last = &mut self.proposed[to.index()];
        if last.0 < truth.view {
            *last = (truth.view, truth.seq);
        }
        // A bomb of another actor's may be for the last place there is: nothing is ahead of that.
        let done = last.1.max(truth.seq);
        let until = truth.seq.saturating_add(self.ahead);
        last.1 = until.max(last.1);
        for seq in (done..until).map(|before| before + 1) {
            let place = PrePrepare { seq, ..truth.clone() };
            let bloated = stage.with_frames(&place, &self.stash);
            stage.lie(to, stage.close(OrderingMessage::PrePrepare(bloated)));
        }
    }
}
