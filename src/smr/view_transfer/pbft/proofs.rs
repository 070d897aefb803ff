//! What is signed, and what makes a signed message valid.

use super::new_view::Held;
use crate::smr::crypto::{Digester, Domain, SigningKey, VerifyingKey};
use crate::smr::messages::lengths::PRE_PREPARED_MAX;
use crate::smr::messages::{
    CheckpointClaim, NamedViewChange, NewView, SignedCheckpoint, SlotDigest, ViewChange, ViewEvidence,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::Rejection;
use crate::smr::types::{Digest, Epoch, NodeId, Quorum, View};

/// Signs and judges the messages of one replica's view changes.
#[derive(Debug)]
pub(super) struct Proofs {
    pub(super) node: NodeId,
    pub(super) quorum: Quorum,
    pub(super) epoch: Epoch,
    /// What the epoch begins with.
    pub(super) base: CheckpointClaim,
    /// k of §4.3: the size of everybody's window.
    pub(super) window: u64,
    pub(super) digester: Digester,
    pub(super) signing: SigningKey,
    pub(super) verifying: Vec<VerifyingKey>,
}

impl Proofs {
    fn view_change_digest(&self, message: &ViewChange) -> Digest {
        let mut hasher = self.digester.hasher(Domain::ViewChange);
        hasher.update(&self.epoch.get().to_le_bytes());
        message.hash_into(&mut hasher);
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    /// What a new view's leader signs.
    pub(super) fn new_view_digest(&self, message: &NewView) -> Digest {
        let mut hasher = self.digester.hasher(Domain::NewView);
        hasher.update(&self.epoch.get().to_le_bytes());
        message.hash_into(&mut hasher);
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }

    /// How many view changes begin a view.
    pub(super) fn view_changes_needed(&self) -> usize {
        self.quorum.quorum() - usize::from(active(Mutant::NewViewQuorumMinusOne))
    }

    /// Our own view change.
    pub(super) fn sign_view_change(&self, view: View, evidence: ViewEvidence) -> ViewChange {
        let mut message = ViewChange {
            view: view.get(),
            stable_seq: evidence.stable.seq.get(),
            stable_digest: *evidence.stable.digest.as_bytes(),
            stable_proof: evidence.proof,
            prepared: evidence.prepared,
            pre_prepared: evidence.pre_prepared,
            signer: self.node.get(),
            signature: [0; 64],
        };
        let digest = self.view_change_digest(&message);
        message.signature = self.signing.sign(Domain::ViewChange, &digest);
        message
    }

    /// A view change with what it is named by.
    pub(super) fn held(&self, message: ViewChange) -> Held {
        let digest = self.view_change_digest(&message);
        Held { message, digest }
    }

    /// The new view that these view changes begin.
    pub(super) fn sign_new_view(&self, view: View, view_changes: Vec<NamedViewChange>) -> NewView {
        let mut message = NewView {
            view: view.get(),
            view_changes,
            signer: self.node.get(),
            signature: [0; 64],
        };
        let digest = self.new_view_digest(&message);
        message.signature = self.signing.sign(Domain::NewView, &digest);
        message
    }

    /// Whether a view change is one a correct replica could have signed.
    pub(super) fn check_view_change(&self, message: &ViewChange) -> Result<(), Rejection> {
        let key = self
            .verifying
            .get(message.signer().index())
            .ok_or(Rejection::BadSignature)?;
        if !self.is_sound(message) {
            return Err(Rejection::BadViewChange);
        }
        let verified = key.verify(
            Domain::ViewChange,
            &self.view_change_digest(message),
            &message.signature,
        );
        if verified.is_err() && !active(Mutant::ViewChangeSignatureUnchecked) {
            return Err(Rejection::BadSignature);
        }
        match self.is_stable(message) {
            true => Ok(()),
            false => Err(Rejection::BadViewChange),
        }
    }

    /// P and Q ascend, lie inside the window after the checkpoint, and speak of earlier views only; Q has no
    /// more of one place than a correct replica carries. So no view change that is accepted is longer than a
    /// link and the log take ([`crate::smr::messages::lengths`]).
    fn is_sound(&self, message: &ViewChange) -> bool {
        let (low, high) = (message.stable_seq, message.stable_seq.saturating_add(self.window));
        let is_placed =
            |placed: &SlotDigest| placed.seq > low && placed.seq <= high && placed.view < message.view;
        let ascends = |pair: &[SlotDigest]| (pair[0].seq, pair[0].digest) < (pair[1].seq, pair[1].digest);
        let too_many = |few: &[SlotDigest]| few[0].seq == few[PRE_PREPARED_MAX].seq;
        message.view > 0
            && message.stable_proof.len() <= self.quorum.quorum()
            && message.prepared.iter().all(is_placed)
            && message.prepared.windows(2).all(|pair| pair[0].seq < pair[1].seq)
            && message.pre_prepared.iter().all(is_placed)
            && message.pre_prepared.windows(2).all(ascends)
            && !message.pre_prepared.windows(PRE_PREPARED_MAX + 1).any(too_many)
    }

    /// Exactly a quorum of distinct replicas, in their order, signed the checkpoint, or the epoch begins with
    /// it.
    fn is_stable(&self, message: &ViewChange) -> bool {
        let claim = message.stable();
        if active(Mutant::StableProofUnchecked) {
            return true;
        }
        if claim.seq <= self.base.seq {
            return claim == self.base && message.stable_proof.is_empty();
        }
        let digest = claim.signed_digest(&self.digester);
        let is_signed = |checkpoint: &SignedCheckpoint| {
            let key = self.verifying.get(NodeId::new(checkpoint.signer).index());
            let holds = |key: &VerifyingKey| {
                key.verify(Domain::Checkpoint, &digest, &checkpoint.signature)
                    .is_ok()
            };
            checkpoint.claim() == claim && key.is_some_and(holds)
        };
        let proof = &message.stable_proof;
        proof.len() == self.quorum.quorum()
            && proof.windows(2).all(|pair| pair[0].signer < pair[1].signer)
            && proof.iter().all(is_signed)
    }

    /// Whether a new view is signed by its leader, and names view changes of a quorum of distinct replicas.
    pub(super) fn check_new_view(&self, message: &NewView) -> Result<(), Rejection> {
        let n = self.quorum.n();
        let leader = message.view().turn(n);
        let named = &message.view_changes;
        let key = self
            .verifying
            .get(leader.index())
            .ok_or(Rejection::BadSignature)?;
        let ascend = named.windows(2).all(|pair| pair[0].signer < pair[1].signer);
        let are_known = named.last().is_some_and(|last| last.signer().index() < n);
        let is_sound = NodeId::new(message.signer) == leader
            && ascend
            && are_known
            && named.len() >= self.view_changes_needed();
        if !is_sound {
            return Err(Rejection::BadViewChange);
        }
        key.verify(
            Domain::NewView,
            &self.new_view_digest(message),
            &message.signature,
        )
        .map_err(|_| Rejection::BadSignature)
    }
}
