//! Checkpoints, as the orchestrator sees them: what proves them, which of them can be given to peers, and
//! where the log is cut.
//!
//! A checkpoint that includes the state is proved by signatures of its own claim, or by those of a light one
//! that names it: whoever missed the first has the second soon. A light checkpoint moves the window like any
//! other; it is given to nobody, and the log is not cut there.

use super::transfer::Transfers;
use super::{Held, Replica, Stack};
use crate::smr::decision_log::DecisionLog;
use crate::smr::messages::{CheckpointClaim, LightCheckpoint, SignedCheckpoint, TakenCheckpoint};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{LogCut, Record, When};
use crate::smr::types::{SeqNo, Time};
use crate::smr::view_transfer::ViewTransferProtocol;

/// How many certificates of stable checkpoints are remembered, and how many light checkpoints.
const CERTIFICATES_KEPT: usize = 64;
/// How many checkpoints are remembered whose images may not be written yet.
const TAKEN_KEPT: usize = 64;

/// A stable checkpoint and what proves it.
pub(super) type Certificate = (CheckpointClaim, Vec<SignedCheckpoint>);

/// What proves a checkpoint with a state: signatures of its claim, or of a light checkpoint that names it.
#[derive(Debug, Clone)]
pub(super) struct StateProof {
    pub claim: CheckpointClaim,
    pub cover: Option<(LightCheckpoint, CheckpointClaim)>,
    pub proof: Vec<SignedCheckpoint>,
}

impl StateProof {
    /// What was signed.
    pub fn signed(&self) -> CheckpointClaim {
        self.cover.map_or(self.claim, |(_, claim)| claim)
    }
}

impl Transfers {
    /// `certificate` is exactly a quorum of signatures: it is handed on as it is.
    pub fn remember_certificate(&mut self, claim: CheckpointClaim, certificate: Vec<SignedCheckpoint>) {
        if self.certificates.iter().any(|(known, _)| *known == claim) {
            return;
        }
        if self.certificates.len() == CERTIFICATES_KEPT {
            self.certificates.pop_front();
        }
        let at = self
            .certificates
            .partition_point(|(known, _)| known.seq < claim.seq);
        self.certificates.insert(at, (claim, certificate));
        self.prove();
    }

    /// Execution took a checkpoint.
    pub fn remember_taken(&mut self, taken: &TakenCheckpoint) {
        if let Some(light) = taken.light {
            return self.remember_light(light, taken.claim);
        }
        if self.taken.len() == TAKEN_KEPT {
            self.taken.pop_front();
        }
        self.taken.push_back(taken.claim.seq);
        self.prove();
    }

    /// A light checkpoint is what it says: execution took it, or a quorum signed it.
    pub fn remember_light(&mut self, light: LightCheckpoint, claim: CheckpointClaim) {
        if self.lights.iter().any(|(_, known)| *known == claim) {
            return;
        }
        if self.lights.len() == CERTIFICATES_KEPT {
            self.lights.pop_front();
        }
        self.lights.push_back((light, claim));
        self.prove();
    }

    /// Whether execution took a light checkpoint there.
    pub fn is_light(&self, seq: SeqNo) -> bool {
        self.lights.iter().any(|(light, _)| light.seq == seq)
    }

    fn certificate(&self, is_it: impl Fn(CheckpointClaim) -> bool) -> Option<Certificate> {
        let mut certificates = self.certificates.iter();
        certificates.find(|(claim, _)| is_it(*claim)).cloned()
    }

    /// What proves the checkpoint at this place, which includes the state.
    pub(super) fn find_proof(&self, seq: SeqNo) -> Option<StateProof> {
        if let Some((claim, proof)) = self.certificate(|claim| claim.seq == seq) {
            let cover = None;
            return Some(StateProof { claim, cover, proof });
        }
        let mut covering = self.lights.iter().filter(|(light, _)| light.state.seq == seq);
        covering.find_map(|(light, claim)| {
            let (_, proof) = self.certificate(|known| known == *claim)?;
            Some(StateProof {
                claim: light.state,
                cover: Some((*light, *claim)),
                proof,
            })
        })
    }

    /// Proves what can be: certificates are not remembered as long as images are kept.
    fn prove(&mut self) {
        let (images, taken) = (&self.images, &self.taken);
        self.proofs
            .retain(|seq, _| images.contains(seq) || taken.contains(seq));
        let all = images.iter().chain(taken).copied();
        let unproved: Vec<SeqNo> = all.filter(|seq| !self.proofs.contains_key(seq)).collect();
        for seq in unproved {
            let Some(proof) = self.find_proof(seq) else {
                continue;
            };
            let is_other = |found: &CheckpointClaim| found.seq == seq && *found != proof.claim;
            match self.found.iter().any(is_other) {
                // Of a state that was wrong.
                true => self.images.retain(|image| *image != seq),
                false => {
                    self.proofs.insert(seq, proof);
                }
            }
        }
    }

    /// Whether an image at this place is one of the state that execution has.
    pub fn is_taken(&self, seq: SeqNo) -> bool {
        self.taken.contains(&seq)
    }

    pub fn remember_image(&mut self, seq: SeqNo) {
        if let Err(at) = self.images.binary_search(&seq) {
            self.images.insert(at, seq);
        }
        self.prove();
    }

    /// An image was put in the place of the one there, if there is one.
    pub fn replace_image(&mut self, seq: SeqNo) {
        self.found.retain(|found| found.seq != seq);
        self.remember_image(seq);
    }

    /// The last checkpoint whose state can be given to peers, and what proves it.
    pub fn offerable(&self) -> Option<&StateProof> {
        self.images.iter().rev().find_map(|seq| self.proofs.get(seq))
    }
}

impl<S: Stack> Replica<S> {
    /// Execution took a checkpoint.
    pub fn on_checkpoint_taken(&mut self, now: Time, taken: TakenCheckpoint) {
        let claim = taken.claim;
        if self.transfers.awaiting.is_some() {
            // Of a state that is about to be replaced, perhaps because it is wrong.
            return;
        }
        self.transfers.remember_taken(&taken);
        self.last_checkpoint = Some(claim);
        self.ordering.on_own_checkpoint(now, claim, &mut self.outbox);
        self.carry_out(now);
    }

    /// The contents of the checkpoint at `seq` are on disk: the log before it is not needed once it is stable
    /// as well.
    pub fn on_image_kept(&mut self, now: Time, seq: SeqNo) {
        if !self.transfers.is_taken(seq) {
            // Of a state that was replaced meanwhile.
            return;
        }
        self.image_kept = self.image_kept.max(seq);
        self.transfers.replace_image(seq);
        self.drop_images(now);
        self.cut_log(now);
    }

    /// Has the log cut at the last checkpoint that is both stable and kept, which includes the state then,
    /// after what is about no place was written again. What a peer lacks it can be given then, as a state or
    /// as decisions.
    pub(super) fn cut_log(&mut self, now: Time) {
        let stable = self.ordering.stable();
        let offerable = self.transfers.offerable().cloned();
        let kept = offerable.as_ref().map_or(SeqNo::ZERO, |proof| proof.claim.seq);
        let is_wrong = active(Mutant::CutBeforeImageKept)
            || (active(Mutant::CutAtLight) && self.transfers.is_light(stable));
        let seq = match is_wrong {
            true => stable,
            false => kept.min(self.image_kept).min(stable),
        };
        if seq <= self.cut {
            return;
        }
        self.cut = seq;
        self.decision_log.on_cut(seq);
        let mut records = self.view_transfer.base_records();
        if let Some(known) = offerable.filter(|_| seq < stable) {
            records.push(Record::Stable {
                claim: known.signed(),
                proof: known.proof,
            });
        }
        records.append(&mut self.ordering.base_records());
        if active(Mutant::BaseRecordsForgotten) {
            records.clear();
        }
        let before = self.logged_end;
        for record in records {
            self.outbox.persist(record);
        }
        self.carry_out(now);
        let view = self.view();
        let cut = LogCut { seq, before, view };
        self.hold(When::Durable(self.logged_end.minus(1)), Held::CutLog(cut));
    }
}
