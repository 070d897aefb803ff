//! Checkpoints, as the orchestrator sees them: what proves them, which of them can be given to peers, and
//! where the log is cut.
//!
//! A checkpoint that includes the state is proved by signatures of its own claim, or by those of a light one
//! that names it: whoever missed the first has the second soon. A light checkpoint moves the window like any
//! other; it is given to nobody, and the log is not cut there.

use std::collections::{BTreeMap, VecDeque};

use super::promises::Held;
use super::snapshot_leases::SnapshotLeases;
use super::{Action, Replica, Stack};
use crate::smr::decision_log::DecisionLog;
use crate::smr::messages::{CheckpointClaim, LightCheckpoint, SignedCheckpoint, TakenCheckpoint};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{LogCut, Record, SnapshotTask};
use crate::smr::types::{NodeId, SeqNo, Time};
use crate::smr::view_transfer::ViewTransferProtocol;

/// How many certificates of stable checkpoints are remembered, and how many light checkpoints.
const CERTIFICATES_KEPT: usize = 64;
/// How many checkpoints are remembered whose snapshots may not be written yet.
const TAKEN_KEPT: usize = 64;

/// A stable checkpoint and what proves it.
type Certificate = (CheckpointClaim, Vec<SignedCheckpoint>);

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

/// The checkpoints that are known, and the snapshots of their states.
///
/// Invariant: lists of places have the newest last.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// What the epoch begins with: all of its members know it for stable.
    base: CheckpointClaim,
    /// Later stable checkpoints and what proves them.
    certificates: VecDeque<Certificate>,
    /// Light checkpoints that execution took, or a quorum signed.
    lights: VecDeque<(LightCheckpoint, CheckpointClaim)>,
    /// The last one that execution took.
    last: Option<CheckpointClaim>,
    /// Those that execution took of the state it has now: their snapshots are to come.
    taken: VecDeque<SeqNo>,
    /// The snapshots that are on disk.
    snapshots: VecDeque<SeqNo>,
    /// Of these, what was on disk at the start, as its head says: it may be of a state that was replaced
    /// before.
    found: Vec<CheckpointClaim>,
    /// What proves those of `taken` and `snapshots` that are proved.
    proofs: BTreeMap<SeqNo, StateProof>,
    /// The last one whose contents are on disk.
    kept: SeqNo,
    /// Where the log was cut last.
    cut: SeqNo,
    loans: SnapshotLeases,
}

impl Checkpoints {
    /// None but that which the epoch begins with, in a cluster of n.
    pub fn new(n: usize, base: CheckpointClaim) -> Self {
        Self {
            base,
            certificates: VecDeque::new(),
            lights: VecDeque::new(),
            last: None,
            taken: VecDeque::new(),
            snapshots: VecDeque::new(),
            found: Vec::new(),
            proofs: BTreeMap::new(),
            kept: SeqNo::ZERO,
            cut: base.seq,
            loans: SnapshotLeases::new(n),
        }
    }

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
    pub fn on_taken(&mut self, taken: &TakenCheckpoint) {
        self.last = Some(taken.claim);
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
    fn is_light(&self, seq: SeqNo) -> bool {
        self.lights.iter().any(|(light, _)| light.seq == seq)
    }

    fn certificate(&self, is_it: impl Fn(CheckpointClaim) -> bool) -> Option<Certificate> {
        let mut certificates = self.certificates.iter();
        let known = certificates.find(|(claim, _)| is_it(*claim)).cloned();
        let begins = self.base != CheckpointClaim::NONE && is_it(self.base);
        known.or_else(|| begins.then(|| (self.base, Vec::new())))
    }

    /// What proves the checkpoint at this place, which includes the state.
    pub fn find_proof(&self, seq: SeqNo) -> Option<StateProof> {
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

    /// Proves what can be: certificates are not remembered as long as snapshots are kept.
    fn prove(&mut self) {
        let (snapshots, taken) = (&self.snapshots, &self.taken);
        self.proofs
            .retain(|seq, _| snapshots.contains(seq) || taken.contains(seq));
        let all = snapshots.iter().chain(taken).copied();
        let unproved: Vec<SeqNo> = all.filter(|seq| !self.proofs.contains_key(seq)).collect();
        for seq in unproved {
            let Some(proof) = self.find_proof(seq) else {
                continue;
            };
            let is_other = |found: &CheckpointClaim| found.seq == seq && *found != proof.claim;
            match self.found.iter().any(is_other) {
                // Of a state that was wrong.
                true => self.snapshots.retain(|snapshot| *snapshot != seq),
                false => {
                    self.proofs.insert(seq, proof);
                }
            }
        }
    }

    /// The last one whose contents are on disk.
    pub fn kept(&self) -> SeqNo {
        self.kept
    }

    /// The last one that execution took.
    pub fn last(&self) -> Option<CheckpointClaim> {
        self.last
    }

    /// Whether a quorum is known to have signed this.
    pub fn is_certified(&self, claim: CheckpointClaim) -> bool {
        self.certificate(|known| known == claim).is_some()
    }

    /// The contents of the one at `seq` are on disk. Whether they are of the state that execution has: it may
    /// have been replaced meanwhile.
    pub fn on_kept(&mut self, seq: SeqNo) -> bool {
        let is_taken = self.taken.contains(&seq);
        if is_taken {
            self.kept = self.kept.max(seq);
            self.replace_snapshot(seq);
        }
        is_taken
    }

    /// The state at `seq` came from others, and is on disk.
    pub fn on_installed(&mut self, seq: SeqNo) {
        self.taken.clear();
        self.replace_snapshot(seq);
        self.kept = self.kept.max(seq);
    }

    /// The state that execution had is wrong, and so is all that was taken of it.
    pub fn disown(&mut self) {
        self.snapshots.clear();
        self.taken.clear();
        self.lights.clear();
        self.kept = self.cut;
    }

    /// A restart begins with the snapshot at `seq`.
    pub fn restore_base(&mut self, seq: SeqNo) {
        self.kept = seq;
        self.remember_snapshot(seq);
    }

    /// A restart finds a snapshot, as what its head says.
    pub fn restore_snapshot(&mut self, claim: CheckpointClaim) {
        self.found.push(claim);
        self.remember_snapshot(claim.seq);
    }

    fn remember_snapshot(&mut self, seq: SeqNo) {
        if let Err(at) = self.snapshots.binary_search(&seq) {
            self.snapshots.insert(at, seq);
        }
        self.prove();
    }

    /// A snapshot was put in the place of the one there, if there is one.
    fn replace_snapshot(&mut self, seq: SeqNo) {
        self.found.retain(|found| found.seq != seq);
        self.remember_snapshot(seq);
    }

    /// The last checkpoint whose state can be given to peers, and what proves it.
    fn offerable(&self) -> Option<&StateProof> {
        self.snapshots.iter().rev().find_map(|seq| self.proofs.get(seq))
    }

    /// What a peer is offered that lacks the state after `after`, the newest first: every snapshot that is
    /// there. The others may have other ones, and a checkpoint that several have comes from several.
    pub fn offer(&mut self, now: Time, to: NodeId, after: SeqNo) -> Vec<StateProof> {
        let proofs = self.proofs.values();
        let mut offered: Vec<StateProof> = proofs
            .filter(|proof| proof.claim.seq > after && self.snapshots.contains(&proof.claim.seq))
            .cloned()
            .rev()
            .collect();
        if active(Mutant::LightOffered) {
            // The last that is stable, whatever it is.
            let last = self.certificates.back();
            let last = last.filter(|(claim, _)| claim.seq > after).cloned();
            let cover = None;
            offered = last
                .map(|(claim, proof)| StateProof { claim, cover, proof })
                .into_iter()
                .collect();
        }
        let seqs = offered.iter().map(|proof| proof.claim.seq);
        self.loans.on_offered(now, to, seqs);
        offered
    }

    /// A peer asks for pieces of this snapshot.
    pub fn on_fetch(&mut self, now: Time, from: NodeId, seq: SeqNo) {
        self.loans.on_fetch(now, from, seq);
    }

    /// Forgets snapshots that nobody needs, if there are any: those before the one before the last that a
    /// quorum signed, but for those that peers need. Later ones may not be signed for long, and until one is,
    /// only that one helps a peer that lacks its state.
    fn forget_snapshots(&mut self, now: Time) -> Option<SnapshotTask> {
        let is_certified = |seq: &SeqNo| self.proofs.contains_key(seq);
        let last = self.snapshots.iter().rposition(is_certified)?;
        let before = *self.snapshots.get(last.saturating_sub(1))?;
        let but: Vec<SeqNo> = self.loans.needed(now).filter(|seq| *seq < before).collect();
        let known = self.snapshots.len();
        self.snapshots.retain(|seq| *seq >= before || but.contains(seq));
        (self.snapshots.len() < known).then_some(SnapshotTask::Forget { before, but })
    }

    /// Where the log is cut now that a quorum has signed the checkpoint at `stable`, if it is not cut there,
    /// and what proves the state there unless that signature does.
    fn cut(&mut self, stable: SeqNo) -> Option<(SeqNo, Option<StateProof>)> {
        let offerable = self.offerable();
        let kept = offerable.map_or(SeqNo::ZERO, |proof| proof.claim.seq);
        let is_wrong =
            active(Mutant::CutBeforeSnapshotKept) || (active(Mutant::CutAtLight) && self.is_light(stable));
        let seq = match is_wrong {
            true => stable,
            false => kept.min(self.kept).min(stable),
        };
        if seq <= self.cut {
            return None;
        }
        let proof = offerable.filter(|_| seq < stable).cloned();
        self.cut = seq;
        Some((seq, proof))
    }
}

impl<S: Stack> Replica<S> {
    /// Has snapshots that nobody needs any more removed.
    pub(super) fn drop_snapshots(&mut self, now: Time) {
        if let Some(task) = self.checkpoints.forget_snapshots(now) {
            self.actions.push(Action::Snapshot(task));
        }
    }

    /// Execution took a checkpoint.
    pub fn on_checkpoint_taken(&mut self, now: Time, taken: TakenCheckpoint) {
        let claim = taken.claim;
        if self.supply.awaits_state() {
            // Of a state that is about to be replaced, perhaps because it is wrong.
            return;
        }
        self.checkpoints.on_taken(&taken);
        self.ordering.on_own_checkpoint(now, claim, &mut self.outbox);
        if taken.light.is_none() {
            self.close_epoch(now, claim);
        }
        self.dispatch_effects(now);
    }

    /// The contents of the checkpoint at `seq` are on disk: the log before it is not needed once it is stable
    /// as well.
    pub fn on_snapshot_kept(&mut self, now: Time, seq: SeqNo) {
        if self.checkpoints.on_kept(seq) {
            self.drop_snapshots(now);
            self.cut_log(now);
        }
    }

    /// Has the log cut at the last checkpoint that is both stable and kept, which includes the state then,
    /// after what is about no place was written again. What a peer lacks it can be given then, as a state or
    /// as decisions.
    pub(super) fn cut_log(&mut self, now: Time) {
        let stable = self.ordering.stable();
        let Some((seq, proof)) = self.checkpoints.cut(stable) else {
            return;
        };
        self.decision_log.on_cut(seq);
        let mut records = self.view_transfer.base_records();
        records.append(&mut self.epoch_records());
        if let Some(known) = proof {
            records.push(Record::Stable {
                claim: known.signed(),
                proof: known.proof,
            });
        }
        records.append(&mut self.ordering.base_records());
        if active(Mutant::BaseRecordsForgotten) {
            records.clear();
        }
        let before = self.promises.logged_end();
        for record in records {
            self.outbox.persist(record);
        }
        self.dispatch_effects(now);
        let view = self.view();
        let cut = LogCut { seq, before, view };
        self.hold(self.promises.when_last_is_durable(), Held::CutLog(cut));
    }
}
