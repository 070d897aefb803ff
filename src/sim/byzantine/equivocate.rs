use std::collections::BTreeMap;

use bytes::Bytes;

use super::stage::{OrderingMessage, frames_of, open};
use super::{Actor, Stage};

use crate::smr::types::NodeId;

/// Proposes one batch to even replicas and another to odd ones, and votes for each where it was proposed.
#[derive(Default)]
pub(super) struct Equivocate {
    /// By the digest of the first batch: that of the second.
    other: BTreeMap<[u8; 32], [u8; 32]>,
}

impl Actor for Equivocate {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        if to.index().is_multiple_of(2) {
            return stage.pass(to, message.clone());
        }
        match open(message) {
            Some(OrderingMessage::PrePrepare(proposal)) => {
                let mut frames = frames_of(&proposal);
                match frames.len() {
                    0 | 1 => frames.clear(),
                    _ => frames.reverse(),
                }
                let other = stage.with_frames(&proposal, &frames);
                self.other.insert(proposal.digest, other.digest);
                stage.lie(to, stage.close(OrderingMessage::PrePrepare(other)));
            }
            Some(OrderingMessage::Votes(mut cast)) => {
                for vote in &mut cast {
                    if let Some(other) = self.other.get(&vote.digest) {
                        vote.digest = *other;
                        stage.hit();
                    }
                }
                stage.pass(to, stage.votes(cast));
            }
            _ => stage.pass(to, message.clone()),
        }
    }
}
