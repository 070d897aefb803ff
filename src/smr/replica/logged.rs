//! Decisions that are not in memory any more, out of the persistent log: for peers that lag far behind, and
//! for our own execution when it goes on from an older state.
//!
//! With light checkpoints the last state may lie far back, and memory holds the last decisions only. Reading
//! goes on beside the hot path: at most one answer is under way per peer, and one for execution.

use std::sync::Arc;

use super::{Action, Replica, Stack};
use crate::smr::decision_log::{DecisionLog, LoggedDecisions, LoggedRange};
use crate::smr::messages::Proposal;
use crate::smr::mutants::{Mutant, active};
use crate::smr::state_transfer::monolithic::ANSWER_BYTES;
use crate::smr::types::{NodeId, SeqNo, Time};

/// How many decisions are read at once.
const READ_DECISIONS: usize = 64;
/// How many decisions execution is given ahead while it catches up.
const FED_AHEAD: u64 = 256;

impl<S: Stack> Replica<S> {
    /// Whether the log has to be read for the decision at this place, and holds it.
    pub(super) fn is_logged_only(&self, seq: SeqNo) -> bool {
        let log = &self.decision_log;
        seq > log.floor() && seq <= log.base().min(self.supply.released())
    }

    pub(super) fn read_log(&mut self, to: Option<NodeId>, first: SeqNo, count: usize) {
        if active(Mutant::LoggedUnsent) && to.is_some() {
            return;
        }
        let released = self.supply.released().next().since(first) as usize;
        let count = count.min(released).min(READ_DECISIONS);
        let digests = self.decision_log.digests(first, count).collect();
        self.actions.push(Action::ReadLog(LoggedRange {
            to,
            first,
            digests,
            bytes_max: ANSWER_BYTES,
        }));
    }

    /// The log was read.
    pub fn on_logged(&mut self, now: Time, read: LoggedDecisions) {
        match read.to {
            Some(to) => {
                self.donations.on_read(to, read.first, read.decisions);
                self.serve_pending(now);
            }
            None => self.feed_logged(now, &read),
        }
        self.dispatch_effects(now);
    }

    /// Gives execution what follows the state it has, until it is given what is released at once again.
    pub(super) fn replay_to_executor(&mut self, now: Time) {
        let Some(mut fed) = self.supply.catching_up() else {
            return;
        };
        while fed < self.supply.released() {
            if self.is_fed_ahead(fed) || self.is_logged_only(fed.next()) {
                break;
            }
            let Some(decision) = self.decision_log.read(fed.next(), 1).next() else {
                // Not there any more: what a later state brings need not be executed.
                return self.replace_unfed(now, fed);
            };
            let proposal = decision.proposal.clone();
            fed = proposal.seq;
            self.feed(proposal);
        }
        self.supply.on_fed(fed);
        let is_left = self.supply.catching_up().is_some();
        if is_left
            && self.is_logged_only(fed.next())
            && !self.is_fed_ahead(fed)
            && self.supply.may_read(fed.next())
        {
            self.read_log(None, fed.next(), READ_DECISIONS);
        }
    }

    /// Whether execution was given enough that it has not done.
    fn is_fed_ahead(&self, fed: SeqNo) -> bool {
        fed.since(self.supply.executed()) >= FED_AHEAD
    }

    fn feed_logged(&mut self, now: Time, read: &LoggedDecisions) {
        let Some(fed) = self.supply.on_read(read.first) else {
            return;
        };
        let Some(last) = read.decisions.last() else {
            return self.begin_repair(now, fed);
        };
        self.supply.on_fed(last.seq);
        for proposal in &read.decisions {
            self.feed(proposal.clone());
        }
        self.replay_to_executor(now);
    }

    pub(super) fn feed(&mut self, proposal: Arc<Proposal>) {
        assert!(
            proposal.seq <= self.supply.released(),
            "nothing is executed before the log holds what decided it"
        );
        self.pool.on_decided(&proposal.batch);
        self.actions.push(Action::Execute(proposal));
    }

    /// Execution cannot go on from the state it has: what follows is not known any more. A later state is
    /// brought.
    pub(super) fn replace_unfed(&mut self, now: Time, fed: SeqNo) {
        self.supply.await_state(fed.next());
        self.begin_state_transfer(now, fed);
    }
}
