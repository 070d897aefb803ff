use std::collections::BTreeMap;

use bytes::Bytes;

use super::equivocate::Equivocate;
use super::stage::{OrderingMessage, open};
use super::{Actor, Stage};
use crate::smr::messages::{Phase, PrePrepare, Vote};
use crate::smr::types::NodeId;

/// All faulty replicas together: whichever leads proposes two batches, and the others, who know at once what
/// was proposed to whom, vote to each replica for the batch that it was given, in both phases.
#[derive(Default)]
pub(super) struct Collude {
    leading: Equivocate,
    /// By the place: what even replicas were given, and odd ones.
    given: BTreeMap<(u64, u64), [Option<[u8; 32]>; 2]>,
}

impl Collude {
    fn learn(&mut self, to: NodeId, proposal: &PrePrepare) {
        if self.given.len() > 512 {
            self.given.pop_first();
        }
        let given = self.given.entry((proposal.view, proposal.seq)).or_default();
        given[to.index() % 2] = Some(proposal.digest);
    }
}

impl Actor for Collude {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        match open(message) {
            Some(OrderingMessage::PrePrepare(_)) => self.leading.send(stage, to, message),
            Some(OrderingMessage::Votes(mut cast)) => {
                for vote in &mut cast {
                    let given = self.given.get(&(vote.view, vote.seq));
                    if let Some(digest) = given.and_then(|given| given[to.index() % 2]) {
                        vote.digest = digest;
                    }
                }
                stage.hit();
                self.leading.send(stage, to, &stage.votes(cast));
            }
            _ => stage.pass(to, message.clone()),
        }
    }

    fn overhear(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        let Some(OrderingMessage::PrePrepare(proposal)) = open(message) else {
            return;
        };
        self.learn(to, &proposal);
        let ballot = |phase| Vote {
            phase,
            view: proposal.view,
            seq: proposal.seq,
            digest: proposal.digest,
        };
        let cast = vec![ballot(Phase::Prepare), ballot(Phase::Commit)];
        stage.lie(to, stage.votes(cast));
    }
}
