use bytes::Bytes;

use super::config::SessionConfig;
use super::error::Silence;
use crate::smr::messages::{RefusalReason, StateRead};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{NodeId, SeqNo, Signers};

/// What the replicas said about one frame: one answer each.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// At most one entry per replica.
    bodies: Vec<(NodeId, Bytes)>,
    /// By replica: the state from which it answered a read last.
    states: Vec<(NodeId, StateRead)>,
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
        self.bodies.retain(|(node, _)| *node != from);
        self.bodies.push((from, body));
        let Some((_, body)) = self.bodies.last() else {
            return false;
        };
        self.bodies.iter().filter(|(_, other)| other == body).count() >= enough
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
        self.states.retain(|(node, _)| *node != from);
        self.states.push((from, read));
        let may_end = self.add_body(from, body, enough);
        let asked_again = self.again.is_some();
        if let Some(again) = &mut self.again {
            again.add(from);
        }
        if !may_end {
            return Reading::Open;
        }
        let alike = self.alike();
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
            Some(again) if asked_again && again.count() >= enough => Reading::Spent,
            Some(_) => Reading::Open,
        }
    }

    /// The states of the answers that equal the last one.
    fn alike(&self) -> Vec<StateRead> {
        let Some((_, body)) = self.bodies.last() else {
            return Vec::new();
        };
        let is_alike = |node: &NodeId| {
            let mut bodies = self.bodies.iter();
            bodies.any(|(from, other)| from == node && other == body)
        };
        let states = self.states.iter().filter(|(node, _)| is_alike(node));
        states.map(|(_, state)| *state).collect()
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
        let alike = |body: &Bytes| self.bodies.iter().filter(|(_, other)| other == body).count();
        let most = self.bodies.iter().map(|(_, body)| alike(body)).max();
        let has_answered = |node: &NodeId| self.bodies.iter().any(|(from, _)| from == node);
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
            if let Some((_, body)) = self.bodies.iter().find(|(from, _)| *from == node) {
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
