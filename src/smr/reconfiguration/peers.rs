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

/// What a peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Certificates,
    Change,
}

#[derive(Debug)]
struct Account {
    /// When it was told certificates, and what ended an epoch: what it says in an earlier epoch is answered with
    /// the former all the time, and leaves it the latter.
    answered: [Option<Time>; 2],
    asked: Option<Time>,
    /// It was asked, and has told nothing since.
    owes_answer: bool,
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
            answered: [None; 2],
            asked: None,
            owes_answer: false,
            unasked: Allowance::full(UNASKED),
        });
        Some(account)
    }

    /// Whether a peer may be answered now, with certificates or with what ended an epoch. Then it was.
    pub(super) fn may_answer(
        &mut self,
        now: Time,
        (peer, answer): (NodeId, Answer),
        is_member: impl Fn(NodeId) -> bool,
    ) -> bool {
        let Some(account) = self.account(peer, is_member) else {
            return false;
        };
        is_due(now, &mut account.answered[answer as usize])
    }

    /// Whether a peer may be asked now: it was not just now. Others were perhaps: a liar that has itself asked
    /// all the time keeps nobody from asking them. Then it was.
    pub(super) fn may_ask(&mut self, now: Time, peer: NodeId, is_member: impl Fn(NodeId) -> bool) -> bool {
        let Some(account) = self.account(peer, is_member) else {
            return false;
        };
        let may_ask = is_due(now, &mut account.asked);
        account.owes_answer |= may_ask;
        may_ask
    }

    /// Whether what a peer tells is its answer to a question. Its next words are none.
    pub(super) fn take_answer(&mut self, peer: NodeId) -> bool {
        let account = self.0.get_mut(&peer);
        account.is_some_and(|account| std::mem::take(&mut account.owes_answer))
    }

    /// It may be asked at once: there is more.
    pub(super) fn ask_again(&mut self, peer: NodeId) {
        if let Some(account) = self.0.get_mut(&peer) {
            account.asked = None;
        }
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

/// Whether something that was done last at that moment may be done again. Then it is.
fn is_due(now: Time, last: &mut Option<Time>) -> bool {
    let is_due = last.is_none_or(|at| now.since(at) >= ANSWER_PAUSE);
    if is_due {
        *last = Some(now);
    }
    is_due
}
