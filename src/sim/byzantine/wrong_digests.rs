use bytes::Bytes;

use super::stage::{OrderingMessage, open};
use super::{Actor, Stage};

use crate::smr::types::NodeId;

/// Votes and proposes with digests that are those of no batch.
pub(super) struct WrongDigests;

impl Actor for WrongDigests {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open(message) {
            Some(OrderingMessage::PrePrepare(mut proposal)) if stage.rng.chance(30) => {
                proposal.digest[0] ^= 1;
                stage.lie(to, stage.close(OrderingMessage::PrePrepare(proposal)));
            }
            Some(OrderingMessage::Votes(mut cast)) => {
                for vote in &mut cast {
                    if stage.rng.chance(50) {
                        vote.digest[stage.rng.below(32) as usize] ^= 1;
                        stage.hit();
                    }
                }
                stage.pass(to, stage.votes(cast));
            }
            _ => stage.pass(to, message.clone()),
        }
    }
}
