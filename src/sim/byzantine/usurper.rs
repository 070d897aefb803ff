use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open};
use super::{Actor, Stage};

/// Proposes in views that others lead: the frames it heard of, in another order and at other places.
pub(super) struct Usurper;

impl Actor for Usurper {
    fn hear(&mut self, stage: &mut Stage<'_>, message: &Bytes) {
        let Some(OrderingMessage::PrePrepare(proposal)) = open(message) else {
            return;
        };
        let mut frames = frames_of(&proposal);
        frames.reverse();
        let mut own = stage.with_frames(&proposal, &frames);
        own.seq = own.seq.saturating_add(stage.rng.below(3));
        let own = stage.close(OrderingMessage::PrePrepare(own));
        for to in stage.others() {
            stage.lie(to, own.clone());
        }
    }
}
