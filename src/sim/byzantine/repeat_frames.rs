use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open};
use super::{Actor, Stage};

use crate::smr::types::NodeId;

/// Proposes frames again that were decided before: the same to everybody, so that it is agreed upon.
#[derive(Default)]
pub(super) struct RepeatFrames {
    old: Vec<Bytes>,
}

impl Actor for RepeatFrames {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let Some(OrderingMessage::PrePrepare(proposal)) = open(message) else {
            return stage.pass(to, message.clone());
        };
        let own = frames_of(&proposal);
        let mut frames = own.clone();
        // The first frame of the first proposal: every replica is told the same.
        frames.extend(self.old.first().filter(|old| !own.contains(old)).cloned());
        if self.old.is_empty() {
            self.old.extend(own);
        }
        stage.lie(
            to,
            stage.close(OrderingMessage::PrePrepare(stage.with_frames(&proposal, &frames))),
        );
    }
}
