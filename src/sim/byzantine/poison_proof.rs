use std::collections::BTreeMap;

use bytes::Bytes;

use super::stage::{OrderingMessage, open, open_system, open_view, sign_view_change};
use super::{Actor, Stage};
use crate::sim::keys::CLUSTER;
use crate::smr::messages::{
    CheckpointClaim, SignedCheckpoint, StateTransferMessage, SyncMessage, SystemMessage, ViewTransferMessage,
};
use crate::smr::types::{Epoch, NodeId};

/// How many places' checkpoints are remembered.
const REMEMBERED: usize = 16;

/// Proves stable checkpoints to others before they can do so themselves, with a quorum of signatures that
/// hold and more beside them: invalid ones, some twice, some in others' names. Its own signature nobody sees
/// but there. Once it has, it leads no view any more. Whoever keeps and hands on what it was given, as it was
/// given, is believed by nobody.
#[derive(Default)]
pub(super) struct PoisonProof {
    /// Signed checkpoints, its own and those that it heard, by claim.
    signed: BTreeMap<CheckpointClaim, Vec<SignedCheckpoint>>,
    /// How many it proved so far.
    poisoned: usize,
}

impl PoisonProof {
    /// A quorum of signatures of the claim, if they are there, and more.
    fn take(&mut self, stage: &mut Stage<'_>, signed: SignedCheckpoint) -> Option<Vec<SignedCheckpoint>> {
        let claim = signed.claim();
        let known = self.signed.entry(claim).or_default();
        if known.iter().any(|other| other.signer == signed.signer) {
            return None;
        }
        known.push(signed);
        let faulty_max = (stage.n - 1) / 3;
        let quorum = (stage.n + faulty_max + 2) / 2;
        // Once: with the first quorum.
        let proof = (known.len() == quorum).then(|| known.clone());
        while self.signed.len() > REMEMBERED {
            self.signed.pop_first();
        }
        Some(poison(stage, proof?))
    }

    fn spread(&mut self, stage: &mut Stage<'_>, proof: Vec<SignedCheckpoint>) {
        self.poisoned += 1;
        for to in stage.others() {
            stage.lie(to, stage.close_sync(SyncMessage::Stable(proof.clone())));
        }
    }
}

/// More entries than it takes, as many as there are replicas: they do not hold, are there already, or are
/// another's.
fn poison(stage: &mut Stage<'_>, mut proof: Vec<SignedCheckpoint>) -> Vec<SignedCheckpoint> {
    let Some(first) = proof.first().copied() else {
        return proof;
    };
    let missing = |proof: &[SignedCheckpoint], n: usize| {
        let is_there = |signer: &u16| proof.iter().any(|signed| signed.signer == *signer);
        (0..n as u16).find(|signer| !is_there(signer))
    };
    while proof.len() < stage.n {
        let mut extra = first;
        match stage.rng.below(3) {
            0 => {}
            1 => extra.signature = [6; 64],
            _ => extra.signer = missing(&proof, stage.n).unwrap_or(first.signer),
        }
        let at = stage.rng.between(0, proof.len() as u64) as usize;
        proof.insert(at, extra);
    }
    if stage.rng.chance(10) {
        // Far more than there are replicas.
        proof = proof.repeat(50);
    }
    proof
}

impl Actor for PoisonProof {
    fn send(&mut self, stage: &mut Stage<'_>, to: NodeId, message: &Bytes) {
        if let Some(ViewTransferMessage::ViewChange(mut own)) = open_view(message)
            // It can sign with the simulator's keys alone.
            && !own.stable_proof.is_empty()
            && stage.cluster == CLUSTER
        {
            own.stable_proof = poison(stage, own.stable_proof);
            let own = sign_view_change(stage.node, own);
            return stage.lie(to, stage.close_view(ViewTransferMessage::ViewChange(own)));
        }
        match open_system(message) {
            Some(SystemMessage::SyncMessage(SyncMessage::Checkpoint(own))) => {
                if let Some(proof) = self.take(stage, own) {
                    self.spread(stage, proof);
                }
            }
            Some(SystemMessage::ProposalMessage(_)) if self.poisoned > 1 => {
                stage.hit();
            }
            Some(SystemMessage::SyncMessage(SyncMessage::Stable(proof))) => {
                let proof = poison(stage, proof);
                stage.lie(to, stage.close_sync(SyncMessage::Stable(proof)));
            }
            Some(SystemMessage::StateTransferMessage(StateTransferMessage::Offer(mut offer))) => {
                offer.proof = poison(stage, offer.proof);
                let offer = StateTransferMessage::Offer(offer).encode(stage.cluster, Epoch::ZERO);
                stage.lie(to, offer);
            }
            _ => stage.pass(to, message.clone()),
        }
    }

    fn hear(&mut self, stage: &mut Stage<'_>, message: &Bytes) {
        if let Some(OrderingMessage::Checkpoint(signed)) = open(message)
            && let Some(proof) = self.take(stage, signed)
        {
            self.spread(stage, proof);
        }
    }
}
