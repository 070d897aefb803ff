use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open};
use super::{Actor, Stage};

use crate::smr::types::NodeId;

/// Leaves frames out of the pre-prepares for some replicas, under the digest of all of them.
pub(super) struct WithheldFrames;

impl Actor for WithheldFrames {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open(message) {
            Some(OrderingMessage::PrePrepare(proposal)) if stage.rng.chance(40) => {
                let mut frames = frames_of(&proposal);
                frames.pop();
                let mut short = stage.with_frames(&proposal, &frames);
                short.digest = proposal.digest;
                stage.lie(to, stage.close(OrderingMessage::PrePrepare(short)));
            }
            _ => stage.pass(to, message.clone()),
        }
    }
}
