use std::collections::VecDeque;

use super::Pbft;
use crate::smr::crypto::{Digester, Domain, SigningKey, VerifyingKey};
use crate::smr::messages::{CheckpointClaim, SignedCheckpoint};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Effect, Outbox, Rejection};
use crate::smr::types::{NodeId, Quorum, SeqNo, Signers};

/// How many checkpoints of one replica are kept: the newest. Correct replicas have at most two unstable.
const KEPT_PER_SIGNER: usize = 4;

/// The signed checkpoints that are not stable yet, and the last stable ones.
#[derive(Debug)]
pub(super) struct Checkpoints {
    digester: Digester,
    verifying: Vec<VerifyingKey>,
    /// By signer, each in the order of its sequence numbers.
    signed: Vec<Vec<SignedCheckpoint>>,
    /// Our own claims of the state that execution has.
    own: Vec<CheckpointClaim>,
    /// The last claims that became stable, the newest last: execution may reach them later than the proof.
    certified: VecDeque<CheckpointClaim>,
}

impl Checkpoints {
    pub(super) fn new(digester: Digester, verifying: Vec<VerifyingKey>) -> Self {
        Self {
            digester,
            signed: vec![Vec::new(); verifying.len()],
            verifying,
            own: Vec::new(),
            certified: VecDeque::new(),
        }
    }

    /// Signs our own claim and keeps it.
    pub(super) fn sign(
        &mut self,
        claim: CheckpointClaim,
        node: NodeId,
        key: &SigningKey,
    ) -> SignedCheckpoint {
        let signature = key.sign(Domain::Checkpoint, &claim.signed_digest(&self.digester));
        let checkpoint = SignedCheckpoint {
            seq: claim.seq.get(),
            digest: *claim.digest.as_bytes(),
            signer: node.get(),
            signature,
        };
        self.own.push(claim);
        self.keep(node, checkpoint);
        checkpoint
    }

    /// Takes one back that we signed before a restart, when this was the stable checkpoint.
    pub(super) fn restore_own(&mut self, node: NodeId, checkpoint: SignedCheckpoint, stable: SeqNo) {
        let claim = checkpoint.claim();
        if self.contradicts_own(claim) && !active(Mutant::ReplacedClaimsKept) {
            // Signed after an earlier restart, of another state than the one that was lost in it.
            self.disown(node);
        }
        self.own.push(claim);
        if claim.seq > stable {
            self.keep(node, checkpoint);
        }
    }

    /// Whether we signed exactly this claim, and it is not stable yet.
    pub(super) fn has_own(&self, claim: CheckpointClaim) -> bool {
        self.own.contains(&claim)
    }

    /// Whether we signed another claim for this place.
    pub(super) fn contradicts_own(&self, claim: CheckpointClaim) -> bool {
        let is_other = |ours: &CheckpointClaim| ours.seq == claim.seq && ours.digest != claim.digest;
        self.own.iter().any(is_other)
    }

    /// Takes another replica's checkpoint in.
    pub(super) fn add(
        &mut self,
        from: NodeId,
        checkpoint: SignedCheckpoint,
        stable: SeqNo,
    ) -> Result<(), Rejection> {
        let claim = checkpoint.claim();
        let key = self.verifying.get(from.index()).ok_or(Rejection::BadSignature)?;
        if checkpoint.signer != from.get() {
            if active(Mutant::CheckpointSignerUnchecked) {
                self.keep(NodeId::new(checkpoint.signer), checkpoint);
                return Ok(());
            }
            return Err(Rejection::BadSignature);
        }
        if claim.seq <= stable {
            return Err(Rejection::BelowWindow);
        }
        if let Some(first) = self.signed[from.index()].iter().find(|c| c.seq == checkpoint.seq) {
            let same = first.digest == checkpoint.digest;
            return Err(if same {
                Rejection::Duplicate
            } else {
                Rejection::ConflictingVote
            });
        }
        let verified = key.verify(
            Domain::Checkpoint,
            &claim.signed_digest(&self.digester),
            &checkpoint.signature,
        );
        if verified.is_err() && !active(Mutant::CheckpointSignatureUnchecked) {
            return Err(Rejection::BadSignature);
        }
        self.keep(from, checkpoint);
        Ok(())
    }

    fn keep(&mut self, signer: NodeId, checkpoint: SignedCheckpoint) {
        let kept = &mut self.signed[signer.index()];
        let at = kept.partition_point(|other| other.seq < checkpoint.seq);
        kept.insert(at, checkpoint);
        if kept.len() > KEPT_PER_SIGNER {
            kept.remove(0);
        }
    }

    /// The newest claim after `stable` that a quorum of distinct replicas signed, with its signatures.
    pub(super) fn newest_stable(
        &self,
        stable: SeqNo,
        quorum: Quorum,
    ) -> Option<(CheckpointClaim, Vec<SignedCheckpoint>)> {
        let mut claims: Vec<CheckpointClaim> = self
            .signed
            .iter()
            .flatten()
            .map(SignedCheckpoint::claim)
            .collect();
        claims.retain(|claim| claim.seq > stable);
        claims.sort_unstable();
        claims.dedup();
        claims.into_iter().rev().find_map(|claim| {
            let mut proof: Vec<SignedCheckpoint> = self
                .signed
                .iter()
                .flatten()
                .filter(|c| c.claim() == claim)
                .copied()
                .collect();
            let mut signers = Signers::NONE;
            proof.iter().for_each(|c| {
                signers.add(NodeId::new(c.signer));
            });
            let enough = quorum.quorum() - usize::from(active(Mutant::CheckpointQuorumMinusOne));
            // By signer, as they are kept: a certificate holds a quorum of them and nothing else.
            proof.dedup_by_key(|c| c.signer);
            proof.truncate(quorum.quorum());
            (signers.count() >= enough).then_some((claim, proof))
        })
    }

    /// The certificate of `claim` that is in `proof`: exactly a quorum of signatures that hold, of distinct
    /// replicas, in their order. What is in it beside them is dropped: it would be kept, logged and handed
    /// on, and make whoever has it look like a liar. `None` when there are too few, or more than there are
    /// replicas: then nothing is verified.
    pub(super) fn certificate(
        &self,
        claim: CheckpointClaim,
        proof: &[SignedCheckpoint],
        quorum: Quorum,
    ) -> Option<Vec<SignedCheckpoint>> {
        if proof.len() > self.verifying.len() {
            return None;
        }
        let signed = claim.signed_digest(&self.digester);
        let mut signers = Signers::NONE;
        let mut certificate = Vec::with_capacity(quorum.quorum());
        for checkpoint in proof.iter().filter(|checkpoint| checkpoint.claim() == claim) {
            let signer = NodeId::new(checkpoint.signer);
            let holds = |key: &VerifyingKey| {
                let verified = key.verify(Domain::Checkpoint, &signed, &checkpoint.signature);
                verified.is_ok()
            };
            let is_new = certificate.len() < quorum.quorum() && !signers.has(signer);
            if is_new && self.verifying.get(signer.index()).is_some_and(holds) {
                signers.add(signer);
                certificate.push(*checkpoint);
            }
        }
        certificate.sort_unstable_by_key(|checkpoint| checkpoint.signer);
        if active(Mutant::ProofKeptAsReceived) && certificate.len() == quorum.quorum() {
            return Some(proof.to_vec());
        }
        (certificate.len() == quorum.quorum()).then_some(certificate)
    }

    /// Our own signed checkpoints after `seq`, for a peer that lacks them.
    pub(super) fn own_after(&self, node: NodeId, seq: SeqNo) -> impl Iterator<Item = SignedCheckpoint> + '_ {
        let signed = self.signed.get(node.index()).into_iter().flatten();
        signed.filter(move |c| c.claim().seq > seq).copied()
    }

    /// Notes that `claim` is stable and forgets what lies before it. Our own claim, if it differs.
    pub(super) fn certify(&mut self, claim: CheckpointClaim, node: NodeId) -> Option<CheckpointClaim> {
        if self.certified.len() == KEPT_PER_SIGNER {
            self.certified.pop_front();
        }
        self.certified.push_back(claim);
        let ours = self.settle(claim, node);
        self.forget_before(claim.seq);
        ours
    }

    /// A quorum signed `claim`. Our own claim, if it differs: then none that we made is of the state that we
    /// will have.
    pub(super) fn settle(&mut self, claim: CheckpointClaim, node: NodeId) -> Option<CheckpointClaim> {
        let is_other = |ours: &&CheckpointClaim| ours.seq == claim.seq && ours.digest != claim.digest;
        let ours = self.own.iter().find(is_other).copied();
        if ours.is_some() {
            self.disown(node);
        }
        ours
    }

    /// The state that our own claims were about turned out to be wrong, and will be replaced.
    pub(super) fn disown(&mut self, node: NodeId) {
        if active(Mutant::WrongClaimsKept) {
            return;
        }
        self.own.clear();
        if let Some(signed) = self.signed.get_mut(node.index()) {
            signed.clear();
        }
    }

    /// The stable claim that `ours`, made later, contradicts.
    pub(super) fn contradicted(&self, ours: CheckpointClaim) -> Option<CheckpointClaim> {
        let differs = |claim: &&CheckpointClaim| claim.seq == ours.seq && claim.digest != ours.digest;
        self.certified.iter().find(differs).copied()
    }

    /// Forgets what lies before the stable checkpoint.
    fn forget_before(&mut self, stable: SeqNo) {
        self.signed
            .iter_mut()
            .for_each(|kept| kept.retain(|c| c.claim().seq >= stable));
        self.own.retain(|claim| claim.seq >= stable);
    }

    /// How many signed checkpoints are held.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.signed.iter().map(Vec::len).sum()
    }
}

/// What a stable checkpoint moves.
impl Pbft {
    /// Moves the window up to what is both stable and decided here.
    pub(super) fn advance_low(&mut self) {
        if active(Mutant::WindowStuck) {
            return;
        }
        let low = self.stable.seq.min(self.decided);
        for seq in self.low.get() + 1..=low.get().min(self.high().get()) {
            self.pass_undecided(SeqNo::new(seq));
            self.slot(SeqNo::new(seq)).clear();
        }
        self.low = low;
        self.resend.forget(low, self.context.window);
        self.reach_announced();
        self.has_moved = true;
    }

    pub(super) fn try_stable(&mut self, out: &mut Outbox) {
        let newest = self
            .checkpoints
            .newest_stable(self.stable.seq, self.context.quorum);
        if let Some((claim, proof)) = newest {
            self.adopt_stable(claim, proof, out);
        }
    }

    pub(super) fn adopt_stable(
        &mut self,
        claim: CheckpointClaim,
        proof: Vec<SignedCheckpoint>,
        out: &mut Outbox,
    ) {
        if let Some(ours) = self.checkpoints.certify(claim, self.context.node) {
            out.push(Effect::Diverged { stable: claim, ours });
        }
        self.stable = claim;
        self.proof.clone_from(&proof);
        out.push(Effect::Stable { claim, proof });
        self.advance_low();
        if claim.seq > self.high() {
            out.push(Effect::FellBehind { stable: claim.seq });
        }
        // What the last window kept waiting may be decided now.
        self.decide(out);
    }
}
