//! The decision log: what was decided, in order, each decision chained to all before it.
//!
//! **What proves a decision.** Votes travel on sealed links and carry no signatures, so nobody can show them to a third
//! party. Instead each decision extends a [`Chain`], and every checkpoint claim covers the chain's head: a checkpoint
//! certificate, which a quorum signed, proves every decision before it. The decisions after the last
//! certificate are proved by f+1 equal words of distinct replicas.
//!
//! **Events**
//! - *A batch is decided:* it is chained, kept, and logged. Nothing waits for that record: what binds the replica, its commit,
//!   is on disk before the decision is executed.
//! - *A checkpoint is stable and kept:* decisions up to it are forgotten, here and in the log.
//! - *A restart:* the log's decisions come back in order and must fit the chain.
//!
//! Invariant: decisions are kept without gaps, from the one after `base` to the last.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::crypto::{Digester, Domain};
use crate::messages::Proposal;
use crate::protocol::{Outbox, Record, RestoreError};
use crate::types::{Digest, SeqNo};

/// The chain of decisions: covers every decision since the beginning of time, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain(Digest);

impl Chain {
    /// The chain before the first decision.
    pub const START: Self = Self(Digest::ZERO);

    /// The chain whose head this is.
    #[must_use]
    pub const fn from_head(head: Digest) -> Self {
        Self(head)
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> &Digest {
        &self.0
    }

    /// The chain with one more decision.
    #[must_use]
    pub fn then(self, seq: SeqNo, batch: &Digest, digester: &Digester) -> Self {
        let mut link = [0; 72];
        link[..32].copy_from_slice(self.0.as_bytes());
        link[32..40].copy_from_slice(&seq.get().to_le_bytes());
        link[40..].copy_from_slice(batch.as_bytes());
        Self(digester.digest(Domain::Decision, &link))
    }
}

/// One decision.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Its place and batch. The view is one in which it was ordered.
    pub proposal: Arc<Proposal>,
    /// The chain up to and including it.
    pub chain: Chain,
}

/// Keeps decisions, and gives them back by range.
pub trait DecisionLog {
    /// A batch was decided, the next in order.
    fn on_decided(&mut self, proposal: &Arc<Proposal>, out: &mut Outbox);

    /// Everything up to `seq` is part of a checkpoint that is stable and kept.
    fn on_cut(&mut self, seq: SeqNo);

    /// Starts after a checkpoint: `chain` covers everything up to `seq`.
    fn restore_base(&mut self, seq: SeqNo, chain: Chain);

    /// The log holds this decision.
    ///
    /// # Errors
    /// When it does not follow the one before, or is of another chain.
    fn restore(&mut self, proposal: &Arc<Proposal>, chain: Chain) -> Result<(), RestoreError>;

    /// The last decision.
    fn last(&self) -> SeqNo;

    /// The chain up to the last decision.
    fn chain(&self) -> Chain;

    /// The decisions from `first` on that are kept, at most `count`.
    fn read(&self, first: SeqNo, count: usize) -> impl Iterator<Item = &Decision>;
}

/// How many bytes of batches are kept in memory; older decisions are in the persistent log alone.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// The decision log of the production stack.
#[derive(Debug)]
pub struct ChainedLog {
    digester: Digester,
    /// The place before the first decision that is kept.
    base: SeqNo,
    kept: VecDeque<Decision>,
    kept_bytes: usize,
    chain: Chain,
}

impl ChainedLog {
    /// An empty log at the beginning of time.
    #[must_use]
    pub fn new(digester: Digester) -> Self {
        Self {
            digester,
            base: SeqNo::ZERO,
            kept: VecDeque::new(),
            kept_bytes: 0,
            chain: Chain::START,
        }
    }

    fn append(&mut self, proposal: &Arc<Proposal>, chain: Chain) {
        self.chain = chain;
        self.kept_bytes += proposal.batch.bytes;
        self.kept.push_back(Decision {
            proposal: proposal.clone(),
            chain,
        });
        while self.kept_bytes > KEPT_BYTES_MAX && self.kept.len() > 1 {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) -> bool {
        let Some(first) = self.kept.pop_front() else {
            return false;
        };
        self.kept_bytes -= first.proposal.batch.bytes;
        self.base = first.proposal.seq;
        true
    }

    fn next_chain(&self, proposal: &Proposal) -> Chain {
        self.chain
            .then(proposal.seq, &proposal.batch.digest, &self.digester)
    }
}

impl DecisionLog for ChainedLog {
    fn on_decided(&mut self, proposal: &Arc<Proposal>, out: &mut Outbox) {
        assert_eq!(proposal.seq, self.last().next(), "decisions come in order");
        let chain = self.next_chain(proposal);
        self.append(proposal, chain);
        out.persist(Record::Decision {
            seq: proposal.seq,
            digest: proposal.batch.digest,
            chain,
        });
    }

    fn on_cut(&mut self, seq: SeqNo) {
        while self.base < seq && self.forget_first() {}
    }

    fn restore_base(&mut self, seq: SeqNo, chain: Chain) {
        self.base = seq;
        self.chain = chain;
        self.kept.clear();
        self.kept_bytes = 0;
    }

    fn restore(&mut self, proposal: &Arc<Proposal>, chain: Chain) -> Result<(), RestoreError> {
        let (last, seq) = (self.last(), proposal.seq);
        if seq != last.next() {
            return Err(RestoreError::Gap { last, found: seq });
        }
        if self.next_chain(proposal) != chain {
            return Err(RestoreError::Chain { seq });
        }
        self.append(proposal, chain);
        Ok(())
    }

    fn last(&self) -> SeqNo {
        self.base.plus(self.kept.len() as u64)
    }

    fn chain(&self) -> Chain {
        self.chain
    }

    fn read(&self, first: SeqNo, count: usize) -> impl Iterator<Item = &Decision> {
        let skipped = first.since(self.base.next()) as usize;
        let count = if first <= self.base { 0 } else { count };
        self.kept.iter().skip(skipped).take(count)
    }
}

#[cfg(test)]
mod tests;
