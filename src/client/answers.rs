use bytes::Bytes;

use super::error::Silence;
use crate::smr::messages::RefusalReason;
use crate::smr::types::NodeId;

/// What the replicas said about one frame: one answer each.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// At most one entry per replica.
    bodies: Vec<(NodeId, Bytes)>,
    refusals: Vec<(NodeId, RefusalReason)>,
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

    /// Counts a refusal; true once `enough` distinct replicas gave the same.
    pub(super) fn add_refusal(&mut self, from: NodeId, reason: RefusalReason, enough: usize) -> bool {
        self.refusals.retain(|(node, _)| *node != from);
        self.refusals.push((from, reason));
        self.refusals.iter().filter(|(_, other)| *other == reason).count() >= enough
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
