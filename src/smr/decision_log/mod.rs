//! The decision log: what was decided, in order, each decision chained to all before it.
//!
//! **What proves a decision.** Votes travel on sealed links and carry no signatures, so nobody can show them
//! to a third party. Instead each decision extends a [`Chain`], and every checkpoint claim covers the chain's
//! head: a checkpoint certificate, which a quorum signed, proves every decision before it. The decisions
//! after the last certificate are proved by f+1 equal words of distinct replicas.
//!
//! **Events**
//! - *A batch is decided:* it is chained, kept, and logged. Nothing waits for that record: what binds the
//!   replica, its commit, is on disk before the decision is executed.
//! - *A checkpoint is stable:* of the decisions up to it some are kept here, for peers that lag behind. Of
//!   older ones that the persistent log holds only the digests are.
//! - *A checkpoint is stable and its state kept:* decisions up to it are forgotten in the log, and their
//!   digests here.
//! - *A jump:* the log goes on after a checkpoint whose state comes from others.
//! - *A restart:* the log's decisions come back in order and must fit the chain. Those that the base covers
//!   are named to peers as before: the log is cut at a checkpoint that is stable, and the base need not be,
//!   so that nothing else may help a peer.
//!
//! Invariants: decisions are kept without gaps, from the one after `base` to the last; digests from the one
//! after `floor` to `base`.

mod config;

pub use config::DecisionLogConfig;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::smr::crypto::Digester;
use crate::smr::messages::Proposal;
use crate::smr::protocol::{Outbox, Record, RestoreError};
use crate::smr::types::{Digest, NodeId, SeqNo};

pub use crate::smr::crypto::Chain;

/// One decision.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Its place and batch. The view is one in which it was ordered.
    pub proposal: Arc<Proposal>,
    /// The chain up to and including it.
    pub chain: Chain,
}

/// Decisions to be read from the persistent log: for a peer, or for our own execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRange {
    /// The peer; `None` for us.
    pub to: Option<NodeId>,
    /// The place of the first.
    pub first: SeqNo,
    /// The batches.
    pub digests: Vec<Digest>,
    /// About how many bytes of them at most; one at least.
    pub bytes_max: usize,
}

/// What was read of a [`LoggedRange`].
#[derive(Debug, Clone)]
pub struct LoggedDecisions {
    /// The peer; `None` for us.
    pub to: Option<NodeId>,
    /// The place of the first.
    pub first: SeqNo,
    /// Without gaps; none when the log does not hold the first, or it cannot be read.
    pub decisions: Vec<Arc<Proposal>>,
}

/// Keeps decisions, and gives them back by range.
pub trait DecisionLog {
    /// A batch was decided, the next in order.
    fn on_decided(&mut self, proposal: &Arc<Proposal>, out: &mut Outbox);

    /// Everything up to `seq` is part of a checkpoint that is stable.
    fn on_stable(&mut self, seq: SeqNo);

    /// Everything up to `seq` is part of a checkpoint that is stable and whose state is kept.
    fn on_cut(&mut self, seq: SeqNo);

    /// Starts after a checkpoint: `chain` covers everything up to `seq`.
    fn restore_base(&mut self, seq: SeqNo, chain: Chain);

    /// The log holds this decision.
    ///
    /// # Errors
    /// When it does not follow the one before, or is of another chain.
    fn restore(&mut self, proposal: &Arc<Proposal>, chain: Chain) -> Result<(), RestoreError>;

    /// The persistent log holds the batch of a place that the base covers.
    fn restore_batch(&mut self, seq: SeqNo, batch: Digest);

    /// The persistent log holds this decision, which the base covers: peers may still need it. They come in
    /// order.
    fn restore_earlier(&mut self, seq: SeqNo, batch: Digest, chain: Chain);

    /// The log begins after `seq`, and what covers the decisions up to there is not known: the first one
    /// restored says it.
    fn restore_base_unproved(&mut self, seq: SeqNo);

    /// Whether the chain is known.
    fn is_proved(&self) -> bool;

    /// Decisions after `seq` are needed, whatever room they take.
    fn keep_after(&mut self, seq: SeqNo);

    /// How many bytes the decisions that are kept take in memory.
    fn kept_bytes(&self) -> usize;

    /// The place before the first decision that is kept.
    fn base(&self) -> SeqNo;

    /// The place before the first decision whose digest is known: the persistent log holds those that are not
    /// kept.
    fn floor(&self) -> SeqNo;

    /// The digests of the batches from `first` on, at most `count`; none if that of `first` is not known.
    fn digests(&self, first: SeqNo, count: usize) -> impl Iterator<Item = Digest>;

    /// The last decision.
    fn last(&self) -> SeqNo;

    /// The chain up to the last decision.
    fn chain(&self) -> Chain;

    /// The decisions from `first` on that are kept, at most `count`.
    fn read(&self, first: SeqNo, count: usize) -> impl Iterator<Item = &Decision>;
}

/// How many bytes of decisions are kept in memory; older decisions are in the persistent log alone.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// How many decisions before a stable checkpoint are kept for peers.
const KEPT_FOR_PEERS: usize = 4096;

/// The decision log of the production stack.
#[derive(Debug)]
pub struct ChainedLog {
    digester: Digester,
    /// The place before the first decision that is kept.
    base: SeqNo,
    kept: VecDeque<Decision>,
    kept_bytes: usize,
    /// The batches of the decisions before `base` that the persistent log holds.
    logged: VecDeque<Digest>,
    /// Whether there is a persistent log to read decisions from, and up to where it was cut.
    has_disk: bool,
    cut: SeqNo,
    chain: Chain,
    is_proved: bool,
    earlier: Earlier,
    /// Decisions after this one are not forgotten.
    needed_after: SeqNo,
    kept_for_peers: usize,
    kept_bytes_max: usize,
}

/// While the log is read back: what it has of the decisions that the base covers.
#[derive(Debug, Default)]
struct Earlier {
    /// The batches it holds, whether they were decided or not.
    batches: BTreeSet<(SeqNo, Digest)>,
    /// The last decisions whose batches it holds, without gaps, up to the one at `last`.
    run: VecDeque<Digest>,
    last: SeqNo,
    /// The chain up to there.
    chain: Option<Chain>,
}

impl Earlier {
    fn push(&mut self, seq: SeqNo, batch: Digest, chain: Chain) {
        // The null request's batch is known without a log.
        let has_batch = batch == Digest::ZERO || self.batches.contains(&(seq, batch));
        if seq != self.last.next() || !has_batch {
            self.run.clear();
        }
        if has_batch {
            self.run.push_back(batch);
        }
        (self.last, self.chain) = (seq, Some(chain));
    }
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
            logged: VecDeque::new(),
            has_disk: false,
            cut: SeqNo::ZERO,
            chain: Chain::START,
            is_proved: true,
            earlier: Earlier::default(),
            needed_after: SeqNo::ZERO,
            kept_for_peers: KEPT_FOR_PEERS,
            kept_bytes_max: KEPT_BYTES_MAX,
        }
    }

    /// Keeps so many decisions before a stable checkpoint for peers that lag behind.
    #[must_use]
    pub fn keep_for_peers(mut self, decisions: usize) -> Self {
        self.kept_for_peers = decisions;
        self
    }

    /// Keeps at most so many bytes of decisions in memory, those that are needed here aside.
    #[must_use]
    pub fn keep_bytes(mut self, bytes: usize) -> Self {
        self.kept_bytes_max = bytes;
        self
    }

    /// Decisions that are not kept in memory can be read from the persistent log.
    #[must_use]
    pub fn on_disk(mut self, has_disk: bool) -> Self {
        self.has_disk = has_disk;
        self
    }

    fn append(&mut self, proposal: &Arc<Proposal>, chain: Chain) {
        self.chain = chain;
        self.kept_bytes += proposal.kept_bytes();
        self.kept.push_back(Decision {
            proposal: proposal.clone(),
            chain,
        });
        while self.kept_bytes > self.kept_bytes_max && self.may_forget() && self.forget_first() {}
    }

    /// Whether the first decision that is kept may go.
    fn may_forget(&self) -> bool {
        self.has_disk || self.base < self.needed_after
    }

    fn forget_first(&mut self) -> bool {
        let Some(first) = self.kept.pop_front() else {
            return false;
        };
        self.kept_bytes -= first.proposal.kept_bytes();
        self.base = first.proposal.seq;
        // What memory alone held is gone with it.
        if self.has_disk && self.base > self.cut {
            self.logged.push_back(first.proposal.batch.digest);
        }
        true
    }

    fn forget_but_for_peers(&mut self, seq: SeqNo) {
        let end = match self.has_disk {
            true => seq.min(self.last()),
            false => seq.min(self.needed_after),
        };
        let spare = end.since(self.base).saturating_sub(self.kept_for_peers as u64);
        (0..spare).for_each(|_| {
            self.forget_first();
        });
    }

    /// The persistent log holds what was decided before the base, from some place on: its batches are named
    /// as they were before the restart.
    fn take_earlier(&mut self) {
        self.logged = std::mem::take(&mut self.earlier).run;
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

    fn on_stable(&mut self, seq: SeqNo) {
        if self.has_disk {
            self.forget_but_for_peers(seq);
        }
    }

    fn on_cut(&mut self, seq: SeqNo) {
        self.cut = self.cut.max(seq);
        self.forget_but_for_peers(seq);
        let passed = seq.since(self.floor()).min(self.logged.len() as u64);
        self.logged.drain(..passed as usize);
    }

    fn restore_base(&mut self, seq: SeqNo, chain: Chain) {
        self.base = seq;
        self.chain = chain;
        self.is_proved = true;
        self.needed_after = seq;
        self.kept.clear();
        self.kept_bytes = 0;
        self.logged.clear();
        self.earlier = Earlier::default();
    }

    fn restore_batch(&mut self, seq: SeqNo, batch: Digest) {
        if self.has_disk && seq <= self.base && self.kept.is_empty() {
            self.earlier.batches.insert((seq, batch));
        }
    }

    fn restore_earlier(&mut self, seq: SeqNo, batch: Digest, chain: Chain) {
        if self.has_disk && seq <= self.base && self.kept.is_empty() {
            self.earlier.push(seq, batch, chain);
            if self.is_proved && seq == self.base && chain == self.chain {
                self.take_earlier();
            }
        }
    }

    fn restore_base_unproved(&mut self, seq: SeqNo) {
        self.restore_base(seq, Chain::START);
        self.is_proved = false;
    }

    fn is_proved(&self) -> bool {
        self.is_proved
    }

    fn keep_after(&mut self, seq: SeqNo) {
        self.needed_after = seq;
    }

    fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    fn base(&self) -> SeqNo {
        self.base
    }

    fn floor(&self) -> SeqNo {
        self.base.minus(self.logged.len() as u64)
    }

    fn digests(&self, first: SeqNo, count: usize) -> impl Iterator<Item = Digest> {
        let floor = self.floor();
        let skipped = first.since(floor.next()) as usize;
        let count = if first <= floor { 0 } else { count };
        let kept = self.kept.iter().map(|kept| kept.proposal.batch.digest);
        let all = self.logged.iter().copied().chain(kept);
        all.skip(skipped).take(count)
    }

    fn restore(&mut self, proposal: &Arc<Proposal>, chain: Chain) -> Result<(), RestoreError> {
        let (last, seq) = (self.last(), proposal.seq);
        if seq != last.next() {
            return Err(RestoreError::Gap { last, found: seq });
        }
        if !std::mem::replace(&mut self.is_proved, true) {
            self.chain = self.earlier.chain.unwrap_or(Chain::START);
            if self.earlier.last == last && self.next_chain(proposal) == chain {
                self.take_earlier();
            }
        } else if self.next_chain(proposal) != chain {
            return Err(RestoreError::Chain { seq });
        }
        self.earlier = Earlier::default();
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
