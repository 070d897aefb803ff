use bytes::Bytes;

use super::stage::{OrderingMessage, open};
use super::{Actor, Stage};
use crate::smr::messages::{Phase, PrePrepare, Vote};
use crate::smr::types::NodeId;

/// Votes for whatever it hears of, at once, in both phases, several times, and for other digests as well.
pub(super) struct Eager;

fn ballots(proposal: &PrePrepare) -> Vec<Vote> {
    let mut cast = Vec::new();
    for phase in [Phase::Prepare, Phase::Commit] {
        let vote = Vote {
            phase,
            view: proposal.view,
            seq: proposal.seq,
            digest: proposal.digest,
        };
        let mut other = vote;
        other.digest[31] ^= 0xff;
        cast.extend([vote, vote, other, vote]);
    }
    cast
}

impl Actor for Eager {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        // Votes may overtake the proposal that they are for.
        if let Some(OrderingMessage::PrePrepare(proposal)) = open(message) {
            stage.lie(to, stage.votes(ballots(&proposal)));
        }
        stage.pass(to, message.clone());
    }

    fn hear(&mut self, stage: &mut Stage<'_>, message: &Bytes) {
        if let Some(OrderingMessage::PrePrepare(proposal)) = open(message) {
            for to in stage.others() {
                stage.lie(to, stage.votes(ballots(&proposal)));
            }
        }
    }
}
