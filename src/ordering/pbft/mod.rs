//! PBFT (Castro & Liskov, Practical Byzantine Fault Tolerance and Proactive Recovery, TOCS 2002), normal case.
//!
//! ```text
//!  leader   ──pre-prepare──►  prepare   commit
//!  backup 1        ●────────────►●─────────►●  decided
//!  backup 2        ●────────────►●─────────►●  decided
//!  backup 3        ●────────────►●─────────►●  decided
//! ```
//!
//! **Events** (n replicas, f = ⌊(n−1)/3⌋, quorum q = ⌈(n+f+1)/2⌉, window (h, H]):
//! - *A free slot and pending frames, at the leader:* log the proposal, then send PRE-PREPARE ⟨v, s, d, frames⟩ (§4.2).
//! - *PRE-PREPARE of the leader of our view, h < s ≤ H, none accepted for (v, s) with another digest:* log it, then
//!   send PREPARE ⟨v, s, d⟩.
//! - *PREPARE from q−1 distinct backups matching the accepted pre-prepare:* the batch is **prepared**; log it,
//!   then send COMMIT ⟨v, s, d⟩.
//! - *COMMIT from q distinct replicas matching a prepared batch:* it is **committed**. Committed batches are decided in
//!   the order of s, each once, without gaps.
//! - *Own checkpoint from execution:* sign, log, send CHECKPOINT ⟨s, d⟩ (§4.3).
//! - *CHECKPOINT ⟨s, d⟩ equal from q distinct signers:* **stable**. h := the smaller of s and what is decided here;
//!   everything up to h is forgotten. A replica that lags behind s goes on with the messages that are still under way;
//!   when s lies above its H it has fallen behind: only a transfer brings it back.
//!
//! **Why two replicas never decide differently.** Two batches prepared for one (v, s) need two quorums of
//! accepted pre-prepares; two quorums share a correct replica, and a correct replica accepts one pre-prepare
//! per (v, s). Across views the view change carries prepared batches on; the slots keep what it needs: the
//! last prepared (view, digest) and every pre-prepared digest with its latest view (the P and Q sets).
//!
//! **Deviations.** Votes carry no authenticators of their own: links are authenticated and sealed. A batch whose
//! MACs do not convince us is accepted once f+1 other backups prepared it: one of them is correct, and could
//! check its own MACs. Checkpoints are signed, and due where execution says (by decisions or by bytes), not at
//! multiples of a constant.
//!
//! **What is promised.** Safety with up to f faulty replicas under any timing. In this version a faulty or
//! unreachable *leader* stops progress until the view change exists; faulty followers, up to f, do not.
//!
//! Invariants: one accepted proposal per slot and view; one prepare and one commit counted per sender, slot and
//! view (a sender's second, different vote is refused); memory is bounded by the window whatever arrives.

mod checkpoints;
mod slot;

use std::sync::Arc;

use crate::crypto::{Digester, SigningKey, VerifyingKey};
use crate::messages::{
    Batch, CheckpointClaim, Phase, PrePrepare, Proposal, SignedCheckpoint, SystemMessage, Vote,
};
use crate::ordering::OrderingProtocol;
use crate::protocol::{Effect, Outbox, Recipients, Record, Rejected, Rejection, Timer};
use crate::types::{ClusterId, Epoch, NodeId, Quorum, SeqNo, Time, View};
use checkpoints::Checkpoints;
use slot::Slot;

/// What a replica must know to take part.
#[derive(Debug, Clone)]
pub struct PbftConfig {
    /// This replica.
    pub node: NodeId,
    /// The cluster's arithmetic.
    pub quorum: Quorum,
    /// The cluster.
    pub cluster: ClusterId,
    /// The membership.
    pub epoch: Epoch,
    /// How many sequence numbers after the stable checkpoint are accepted (k of §4.3).
    pub window: u64,
    /// How many proposals of the leader may be undecided at once.
    pub pipeline: usize,
    /// Signs checkpoints.
    pub signing: SigningKey,
    /// Everybody's public signing keys, by replica.
    pub verifying: Vec<VerifyingKey>,
}

/// The state of one replica.
pub struct Pbft {
    config: PbftConfig,
    view: View,
    slots: Vec<Slot>,
    /// The last stable checkpoint a quorum proved to us.
    stable: SeqNo,
    /// h, the low watermark: the smaller of `stable` and `decided`. Slots at or below it are empty.
    low: SeqNo,
    /// Everything up to here was given to execution.
    decided: SeqNo,
    /// The last sequence number this replica proposed, as leader.
    proposed: SeqNo,
    checkpoints: Checkpoints,
}

impl Pbft {
    /// A replica at the beginning of time: view zero, nothing decided.
    #[must_use]
    pub fn new(config: PbftConfig, digester: Digester) -> Self {
        let slots = (0..config.window).map(|_| Slot::default()).collect();
        let checkpoints = Checkpoints::new(digester, config.verifying.clone());
        Self {
            view: View::ZERO,
            slots,
            stable: SeqNo::ZERO,
            low: SeqNo::ZERO,
            decided: SeqNo::ZERO,
            proposed: SeqNo::ZERO,
            checkpoints,
            config,
        }
    }

    /// H: the highest sequence number accepted now.
    fn high(&self) -> SeqNo {
        self.low.plus(self.config.window)
    }

    fn slot(&mut self, seq: SeqNo) -> &mut Slot {
        let index = (seq.get() % self.config.window) as usize;
        &mut self.slots[index]
    }

    /// Whether a message for (view, seq) may be looked at.
    fn admit(&self, view: View, seq: SeqNo) -> Result<(), Rejection> {
        if view < self.view {
            Err(Rejection::OldView)
        } else if view > self.view {
            Err(Rejection::FutureView)
        } else if seq <= self.low {
            Err(Rejection::BelowWindow)
        } else if seq > self.high() {
            Err(Rejection::AboveWindow)
        } else {
            Ok(())
        }
    }

    fn try_proposal(&mut self, from: NodeId, proposal: Proposal, out: &mut Outbox) -> Result<(), Rejection> {
        self.admit(proposal.view, proposal.seq)?;
        if from != self.leader() || from == self.config.node {
            return Err(Rejection::NotLeader);
        }
        let seq = proposal.seq;
        let slot = self.slot(seq);
        if let Some(first) = &slot.proposal {
            let same = first.batch.digest == proposal.batch.digest;
            return Err(if same {
                Rejection::Duplicate
            } else {
                Rejection::Equivocation
            });
        }
        slot.proposal = Some(Arc::new(proposal));
        self.advance(seq, out);
        Ok(())
    }

    fn try_vote(&mut self, from: NodeId, vote: Vote, out: &mut Outbox) -> Result<(), Rejection> {
        let seq = vote.seq();
        self.admit(vote.view(), seq)?;
        if vote.phase == Phase::Prepare && from == self.leader() {
            return Err(Rejection::LeaderPrepare);
        }
        if from == self.config.node || from.index() >= self.config.quorum.n() {
            return Err(Rejection::Duplicate);
        }
        self.slot(seq).tally(vote.phase).add(from, vote.digest())?;
        self.advance(seq, out);
        Ok(())
    }

    /// Takes every step the slot's messages allow.
    fn advance(&mut self, seq: SeqNo, out: &mut Outbox) {
        let (node, view, leading) = (self.config.node, self.view, self.leader() == self.config.node);
        let (weak, prepares, quorum) = (
            self.config.quorum.weak(),
            self.config.quorum.prepares(),
            self.config.quorum.quorum(),
        );
        let slot = self.slot(seq);
        let Some(proposal) = slot.proposal.clone() else {
            return;
        };
        let digest = proposal.batch.digest;
        if !slot.accepted {
            // Others' prepares vouch for clients whose MACs do not convince us.
            if !proposal.authentic && slot.prepares.count(&digest) < weak {
                return;
            }
            slot.accept(view, digest);
            let promise = out.persist(Record::Proposal(proposal.clone()));
            if leading {
                out.send_promise(Recipients::Others, proposal.message.clone(), promise);
            } else {
                let _ = slot.prepares.add(node, digest);
                let vote = Vote {
                    phase: Phase::Prepare,
                    ..vote(view, seq, digest)
                };
                out.vote(vote, promise);
            }
        }
        if !slot.prepared && slot.prepares.count(&digest) >= prepares {
            slot.prepare(view, digest);
            let _ = slot.commits.add(node, digest);
            let vote = vote(view, seq, digest);
            let promise = out.persist(Record::Vote(vote));
            out.vote(vote, promise);
        }
        if slot.prepared && !slot.committed && slot.commits.count(&digest) >= quorum {
            slot.committed = true;
            self.decide(out);
        }
    }

    /// Hands committed batches to execution, in order.
    fn decide(&mut self, out: &mut Outbox) {
        let last = self.decided;
        while self.decided < self.high() {
            let next = self.decided.next();
            let slot = self.slot(next);
            let Some(proposal) = slot.proposal.as_ref().filter(|_| slot.committed) else {
                break;
            };
            out.push(Effect::Decide(proposal.clone()));
            self.decided = next;
        }
        if self.decided > last && self.low < self.stable {
            self.advance_low();
        }
    }

    /// Moves the window up to what is both stable and decided here.
    fn advance_low(&mut self) {
        let low = self.stable.min(self.decided);
        for seq in self.low.get() + 1..=low.get() {
            self.slot(SeqNo::new(seq)).clear();
        }
        self.low = low;
    }

    fn try_stable(&mut self, out: &mut Outbox) {
        let Some((claim, proof)) = self.checkpoints.newest_stable(self.stable, self.config.quorum) else {
            return;
        };
        if let Some(ours) = self.checkpoints.certify(claim) {
            out.push(Effect::Diverged { stable: claim, ours });
        }
        self.stable = claim.seq;
        out.push(Effect::Stable { claim, proof });
        self.advance_low();
        if self.stable > self.high() {
            out.push(Effect::FellBehind { stable: claim.seq });
        }
    }

    fn reject(from: NodeId, view: View, seq: SeqNo, result: Result<(), Rejection>, out: &mut Outbox) {
        if let Err(reason) = result {
            out.push(Effect::Rejected(Rejected {
                from,
                view,
                seq,
                reason,
            }));
        }
    }
}

/// A commit vote; prepares are made from it.
fn vote(view: View, seq: SeqNo, digest: crate::types::Digest) -> Vote {
    Vote {
        phase: Phase::Commit,
        view: view.get(),
        seq: seq.get(),
        digest: *digest.as_bytes(),
    }
}

impl OrderingProtocol for Pbft {
    fn view(&self) -> View {
        self.view
    }

    fn leader(&self) -> NodeId {
        self.view.leader(self.config.quorum.n())
    }

    fn is_leading(&self) -> bool {
        self.leader() == self.config.node
    }

    fn free_slots(&self) -> usize {
        if !self.is_leading() {
            return 0;
        }
        let under_way = self.proposed.since(self.decided) as usize;
        let window = self.high().since(self.proposed) as usize;
        self.config.pipeline.saturating_sub(under_way).min(window)
    }

    fn propose(&mut self, _: Time, batch: Arc<Batch>, out: &mut Outbox) {
        assert!(self.free_slots() > 0, "only a leader with a free slot proposes");
        let seq = self.proposed.max(self.decided).next();
        self.proposed = seq;
        let message = PrePrepare::encode(self.config.cluster, self.config.epoch, self.view, seq, &batch);
        let proposal = Proposal {
            view: self.view,
            seq,
            batch,
            message,
            authentic: true,
        };
        self.slot(seq).proposal = Some(Arc::new(proposal));
        self.advance(seq, out);
    }

    fn on_proposal(&mut self, _: Time, from: NodeId, proposal: Proposal, out: &mut Outbox) {
        let (view, seq) = (proposal.view, proposal.seq);
        let result = self.try_proposal(from, proposal, out);
        Self::reject(from, view, seq, result, out);
    }

    fn on_vote(&mut self, _: Time, from: NodeId, vote: Vote, out: &mut Outbox) {
        let result = self.try_vote(from, vote, out);
        Self::reject(from, vote.view(), vote.seq(), result, out);
    }

    fn on_checkpoint(&mut self, _: Time, from: NodeId, checkpoint: SignedCheckpoint, out: &mut Outbox) {
        let result = self.checkpoints.add(from, checkpoint, self.stable);
        Self::reject(from, self.view, checkpoint.claim().seq, result, out);
        if result.is_ok() {
            self.try_stable(out);
        }
    }

    fn on_own_checkpoint(&mut self, _: Time, claim: CheckpointClaim, out: &mut Outbox) {
        if claim.seq <= self.stable {
            if let Some(stable) = self.checkpoints.contradicted(claim) {
                out.push(Effect::Diverged { stable, ours: claim });
            }
            return;
        }
        let checkpoint = self
            .checkpoints
            .sign(claim, self.config.node, &self.config.signing);
        let promise = out.persist(Record::Checkpoint(checkpoint));
        let message = SystemMessage::checkpoint(self.config.cluster, self.config.epoch, checkpoint);
        out.send_promise(Recipients::Others, message, promise);
        self.try_stable(out);
    }

    fn on_timeout(&mut self, _: Time, _: Timer, _: &mut Outbox) {}

    fn decided(&self) -> SeqNo {
        self.decided
    }

    fn stable(&self) -> SeqNo {
        self.stable
    }
}

#[cfg(test)]
mod tests;
