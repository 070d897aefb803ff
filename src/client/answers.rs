use bytes::Bytes;

use super::config::SessionConfig;
use super::error::Silence;
use crate::smr::messages::{RefusalReason, StateRead};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{NodeId, SeqNo, Signers};

/// What the replicas said about one frame: one answer each.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// At most one entry per replica; with the state that a read beside the order was answered from.
    bodies: Vec<(NodeId, Bytes, StateRead)>,
    /// What a read that is asked again has to include, if it is.
    floor: Option<SeqNo>,
    /// Who answered since it was asked again.
    again: Option<Signers>,
    refusals: Vec<(NodeId, RefusalReason)>,
}

/// What the answers to a linearizable read beside the order amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// They are enough.
    Ended,
    /// They say the same, of states that differ: to be asked once more.
    AskAgain,
    /// More may come.
    Open,
    /// Asked again, they still do not agree on a state: to be asked in order.
    Spent,
}

impl Answers {
    /// Counts a result in place of the replica's earlier one; true once `enough` distinct replicas stand by
    /// it.
    ///
    /// The latest counts because a read that is asked again in order has two right answers from each correct
    /// replica. A liar that changes its mind gains nothing: it is one of `enough` at any moment.
    pub(super) fn add_body(&mut self, from: NodeId, body: Bytes, enough: usize) -> bool {
        self.put(from, body, StateRead::default()).count() >= enough
    }

    /// Counts an answer; the states of those that equal it, its own included.
    fn put(&mut self, from: NodeId, body: Bytes, read: StateRead) -> impl Iterator<Item = StateRead> {
        self.bodies.retain(|(node, ..)| *node != from);
        self.bodies.push((from, body.clone(), read));
        let alike = self.bodies.iter().filter(move |(_, other, _)| *other == body);
        alike.map(|(.., read)| *read)
    }

    /// Counts what a replica read, in this state, in place of its earlier answer. Why `enough` equal values are not
    /// enough stands with [`Session`](super::Session): ended is a read
    /// - with `enough` equal answers from one and the same state,
    /// - with equal answers of all `n`,
    /// - with `enough` equal answers from states that each include whatever any of `enough` equal answers before
    ///   may have included.
    pub(super) fn add_read(
        &mut self,
        from: NodeId,
        (read, body): (StateRead, Bytes),
        enough: usize,
        n: usize,
    ) -> Reading {
        let alike: Vec<StateRead> = self.put(from, body, read).collect();
        if let Some(again) = &mut self.again {
            again.add(from);
        }
        if alike.len() < enough {
            return Reading::Open;
        }
        let is_same = |state: &&StateRead| **state == read && read.whole == read.begun;
        let is_one_state = alike.iter().filter(is_same).count() >= enough;
        let floor = self.floor.unwrap_or(SeqNo::new(u64::MAX));
        let is_after = alike.iter().filter(|state| state.whole >= floor).count() >= enough;
        if is_one_state || is_after || alike.len() >= n || active(Mutant::StatesMixed) {
            return Reading::Ended;
        }
        // The lowest will do: one that a liar makes up may lie beyond what there is.
        let mut begun: Vec<SeqNo> = alike.iter().map(|state| state.begun).collect();
        begun.sort_unstable();
        let reached = begun[enough - 1];
        self.floor = Some(self.floor.map_or(reached, |floor| floor.min(reached)));
        match &self.again {
            None => {
                self.again = Some(Signers::NONE);
                Reading::AskAgain
            }
            Some(again) if again.count() >= enough => Reading::Spent,
            Some(_) => Reading::Open,
        }
    }

    /// Counts a refusal; true once `enough` distinct replicas gave the same.
    pub(super) fn add_refusal(&mut self, from: NodeId, reason: RefusalReason, enough: usize) -> bool {
        self.refusals.retain(|(node, _)| *node != from);
        self.refusals.push((from, reason));
        self.refusals.iter().filter(|(_, other)| *other == reason).count() >= enough
    }

    /// Whether a read was asked again, and so many replicas had no room for it that the others are too few.
    pub(super) fn cannot_be_asked_again(&self, config: &SessionConfig) -> bool {
        let is_full = |(_, reason): &&(NodeId, RefusalReason)| *reason == RefusalReason::Overloaded;
        let full = self.refusals.iter().filter(is_full).count();
        let enough = config.answers.unordered.unwrap_or(0);
        self.again.is_some() && full > config.quorum.n().saturating_sub(enough)
    }

    /// Whether `enough` of `n` replicas can still come to stand by one result, if each answers once.
    pub(super) fn can_agree(&self, n: usize, enough: usize) -> bool {
        let alike = |body: &Bytes| self.bodies.iter().filter(|(_, other, _)| other == body).count();
        let most = self.bodies.iter().map(|(_, body, _)| alike(body)).max();
        let has_answered = |node: &NodeId| self.bodies.iter().any(|(from, ..)| from == node);
        // Who catches up has no answer to give.
        let is_spent = |(node, reason): &&(NodeId, RefusalReason)| {
            *reason == RefusalReason::CatchingUp && !has_answered(node)
        };
        let spent = self.bodies.len() + self.refusals.iter().filter(is_spent).count();
        most.unwrap_or(0) + n.saturating_sub(spent) >= enough
    }

    /// Forgets everything: the frame is asked again from the beginning.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets refusals: the frame is sent again.
    pub(super) fn clear_refusals(&mut self) {
        self.refusals.clear();
    }

    /// Who said what, for an error.
    pub(super) fn report(&self, n: usize) -> Vec<Silence> {
        let said = |node: NodeId| {
            if let Some((_, body, _)) = self.bodies.iter().find(|(from, ..)| *from == node) {
                return Silence::Answered(node, hex::encode(&blake3::hash(body).as_bytes()[..4]));
            }
            match self.refusals.iter().find(|(from, _)| *from == node) {
                Some((_, reason)) => Silence::Refused(node, *reason),
                None => Silence::Silent(node),
            }
        };
        NodeId::all(n).map(said).collect()
    }
}
