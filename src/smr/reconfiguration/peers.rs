//! What each peer may cost.

use std::collections::BTreeMap;

use super::epoch_handover::ANSWER_PAUSE;
use crate::smr::protocol::{Allowance, Rate};
use crate::smr::types::{NodeId, REPLICAS_MAX, Time};

/// How many peers are remembered: the members of an epoch, and as many who are none.
const PEERS_MAX: usize = 2 * REPLICAS_MAX;

/// How many certificates are verified of those that a peer sends unasked.
const UNASKED: Rate = Rate {
    burst: 64,
    per_second: 4,
};

#[derive(Debug)]
struct Account {
    answered: Option<Time>,
    unasked: Allowance,
}

/// The peers that asked or told something, each with what it used up.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<NodeId, Account>);

impl Peers {
    /// Who is new when there are too many takes the place of one that is no member, or is not known.
    fn account(&mut self, peer: NodeId, is_member: impl Fn(NodeId) -> bool) -> Option<&mut Account> {
        if !self.0.contains_key(&peer) && self.0.len() >= PEERS_MAX {
            let stranger = self.0.keys().copied().find(|known| !is_member(*known))?;
            if !is_member(peer) {
                return None;
            }
            self.0.remove(&stranger);
        }
        let account = self.0.entry(peer).or_insert_with(|| Account {
            answered: None,
            unasked: Allowance::full(UNASKED),
        });
        Some(account)
    }

    /// Whether a peer may be answered now. Then it was.
    pub(super) fn may_answer(&mut self, now: Time, peer: NodeId, is_member: impl Fn(NodeId) -> bool) -> bool {
        let Some(account) = self.account(peer, is_member) else {
            return false;
        };
        let is_due = account.answered.is_none_or(|at| now.since(at) >= ANSWER_PAUSE);
        if is_due {
            account.answered = Some(now);
        }
        is_due
    }

    /// Whether so many certificates that a peer sent unasked may be verified now. Then they count.
    pub(super) fn may_verify(
        &mut self,
        now: Time,
        (peer, certificates): (NodeId, usize),
        is_member: impl Fn(NodeId) -> bool,
    ) -> bool {
        let account = self.account(peer, is_member);
        account.is_some_and(|account| account.unasked.take(now, certificates as u64))
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
