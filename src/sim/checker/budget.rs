use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Rule};
use crate::sim::SimConfig;
use crate::sim::keys::{CLUSTER, Keyring};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::archived::{
    ArchivedStateTransferMessage, ArchivedSyncMessage, ArchivedSystemMessage, ArchivedViewTransferMessage,
};
use crate::smr::messages::{Checked, CheckpointClaim, Proposal, SignedCheckpoint, SystemMessage};
use crate::smr::protocol::Record;
use crate::smr::types::Digest;

/// What a message with a batch has beside the frames, their table of ends and the padding of the smaller
/// kinds of messages.
const MESSAGE_BYTES: usize = 512;
/// What a frame has beside its body and its MACs.
const FRAME_BYTES: usize = 128;
const MAC_BYTES: usize = 16;

/// What one correct replica logs and keeps, at its real size: no more than what clients asked for explains,
/// and no more than its window and its memory have room for, whatever others send.
pub(in crate::sim) struct Budget {
    n: usize,
    undecided_bytes_max: usize,
    batch_bytes_max: usize,
    kept_bytes_max: usize,
    decided: u64,
    /// The last view in which it logged a proposal.
    view: u64,
    /// By place after the last decision: the bytes that it logged of what was proposed in that view.
    undecided: BTreeMap<u64, usize>,
}

impl Budget {
    pub(in crate::sim) fn new(config: &SimConfig) -> Self {
        Self {
            n: config.replicas,
            undecided_bytes_max: config.undecided_bytes_max,
            batch_bytes_max: config.limits.batch_bytes_max,
            kept_bytes_max: config.kept_bytes,
            decided: 0,
            view: 0,
            undecided: BTreeMap::new(),
        }
    }

    /// A record is on disk.
    pub(in crate::sim) fn logged(&mut self, record: &Record) -> Result<(), Broken> {
        match record {
            Record::Decision { seq, .. } | Record::Jump { seq, .. } => {
                self.decided = self.decided.max(seq.get());
                self.undecided = self.undecided.split_off(&(self.decided + 1));
                Ok(())
            }
            Record::Stable { claim, proof } => self.is_least(*claim, proof),
            Record::Batch(batch) => self.is_explained(batch),
            Record::Proposal(proposal) => {
                self.is_explained(proposal)?;
                self.has_room(proposal)
            }
            _ => Ok(()),
        }
    }

    /// A batch takes no more than its clients' operations and the longest proof that they come from them.
    fn is_explained(&self, proposal: &Proposal) -> Result<(), Broken> {
        let frames = &proposal.batch.frames;
        let asked: usize = frames.iter().map(|frame| frame.archived().body.len()).sum();
        let around = frames.len() * (FRAME_BYTES + MAC_BYTES * self.n + 4) + MESSAGE_BYTES;
        let bytes = proposal.message.len();
        match bytes <= asked + around {
            true => Ok(()),
            false => Err((
                Rule::Memory,
                format!(
                    "s{} takes {bytes} bytes, {asked} are asked for and {around} explained",
                    proposal.seq
                ),
            )),
        }
    }

    /// What a leader proposes ahead of the decisions is bounded by bytes, not by places alone. What a view
    /// began with was accepted before.
    fn has_room(&mut self, proposal: &Proposal) -> Result<(), Broken> {
        let (view, seq) = (proposal.view.get(), proposal.seq.get());
        if view > self.view {
            self.view = view;
            self.undecided.clear();
        }
        if seq <= self.decided || view < self.view || !is_of_its_view(proposal) {
            return Ok(());
        }
        self.undecided.insert(seq, proposal.message.len());
        let bytes: usize = self.undecided.values().sum();
        match bytes <= self.undecided_bytes_max + self.batch_bytes_max + self.batch_bytes_max / 2 {
            true => Ok(()),
            false => Err((
                Rule::Memory,
                format!("{bytes} bytes are proposed in v{view} after s{}", self.decided),
            )),
        }
    }

    /// It says this: what proves a checkpoint in it proves it without more.
    pub(in crate::sim) fn says(&self, message: &Checked<SystemMessage>) -> Result<(), Broken> {
        let proof: Vec<SignedCheckpoint> = match &**message {
            ArchivedSystemMessage::StateTransferMessage(ArchivedStateTransferMessage::Offer(offer)) => {
                offer.to_offer().proof
            }
            ArchivedSystemMessage::SyncMessage(ArchivedSyncMessage::Stable(proof)) => {
                proof.iter().map(|signed| signed.to_checkpoint()).collect()
            }
            _ => match message.of_views().as_deref() {
                Some(ArchivedViewTransferMessage::ViewChange(change)) => change.to_view_change().stable_proof,
                _ => return Ok(()),
            },
        };
        match proof.first() {
            Some(first) => self.is_least(first.claim(), &proof),
            None => Ok(()),
        }
    }

    /// Exactly a quorum of valid signatures of one claim, of distinct replicas, in order.
    fn is_least(&self, claim: CheckpointClaim, proof: &[SignedCheckpoint]) -> Result<(), Broken> {
        let signers: BTreeSet<u16> = proof.iter().map(|signed| signed.signer).collect();
        let faulty = (self.n - 1) / 3;
        let needed = (self.n + faulty) / 2 + 1;
        let is_sorted = signers
            .iter()
            .copied()
            .eq(proof.iter().map(|signed| signed.signer));
        let holds = |signed: &SignedCheckpoint| signed.claim() == claim && is_signed(signed, self.n);
        match is_sorted && proof.len() == needed && proof.iter().all(holds) {
            true => Ok(()),
            false => Err((
                Rule::Certificates,
                format!(
                    "{claim:?} is proved by signatures of {:?}, not by {needed} that hold",
                    proof.iter().map(|signed| signed.signer).collect::<Vec<_>>()
                ),
            )),
        }
    }

    /// It keeps these decisions in memory.
    pub(in crate::sim) fn keeps<'a>(
        &self,
        decisions: impl Iterator<Item = &'a Proposal>,
    ) -> Result<(), Broken> {
        if self.kept_bytes_max > 1 << 20 {
            return Ok(());
        }
        let bytes: usize = decisions.map(|decision| decision.message.len()).sum();
        match bytes <= self.kept_bytes_max {
            true => Ok(()),
            false => Err((
                Rule::Memory,
                format!(
                    "{bytes} bytes of decisions are kept, at most {} should be",
                    self.kept_bytes_max
                ),
            )),
        }
    }
}

/// Whether the message is the pre-prepare of the view in which it was accepted.
fn is_of_its_view(proposal: &Proposal) -> bool {
    Checked::<SystemMessage>::body_of(&proposal.message).is_ok_and(|checked| match &*checked {
        ArchivedSystemMessage::ProposalMessage(head) => head.view() == proposal.view,
        _ => false,
    })
}

fn is_signed(signed: &SignedCheckpoint, n: usize) -> bool {
    let mut hasher = Digester::new(CLUSTER).hasher(Domain::Checkpoint);
    hasher.update(b"claim");
    hasher.update(&signed.seq.to_le_bytes());
    hasher.update(&signed.digest);
    let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
    let keys = Keyring::get().verifying(n);
    keys.get(usize::from(signed.signer))
        .is_some_and(|key| key.verify(Domain::Checkpoint, &digest, &signed.signature).is_ok())
}
