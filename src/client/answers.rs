use bytes::Bytes;

use super::error::Silence;
use crate::messages::RefusalReason;
use crate::types::{NodeId, Signers};

/// What the replicas said about one frame: one answer each.
#[derive(Debug, Default)]
pub(super) struct Answers {
    answered: Signers,
    /// At most one entry per replica.
    bodies: Vec<(NodeId, Bytes)>,
    refusals: Vec<(NodeId, RefusalReason)>,
}

impl Answers {
    /// Counts a result. The body once `enough` distinct replicas gave the same; `None` before.
    ///
    /// A replica's second result for the frame is ignored, whatever it says; a result after a refusal counts.
    pub(super) fn add_body(&mut self, from: NodeId, body: Bytes, enough: usize) -> Option<Bytes> {
        if !self.answered.add(from) {
            return None;
        }
        let equal = 1 + self.bodies.iter().filter(|(_, other)| *other == body).count();
        if equal >= enough {
            return Some(body);
        }
        self.bodies.push((from, body));
        None
    }

    /// Counts a refusal. The reason once `enough` distinct replicas gave the same.
    pub(super) fn add_refusal(
        &mut self,
        from: NodeId,
        reason: RefusalReason,
        enough: usize,
    ) -> Option<RefusalReason> {
        self.refusals.retain(|(node, _)| *node != from);
        self.refusals.push((from, reason));
        (self.refusals.iter().filter(|(_, other)| *other == reason).count() >= enough).then_some(reason)
    }

    /// Whether so many distinct replicas gave a result.
    pub(super) fn all_answered(&self, n: usize) -> bool {
        self.answered.count() >= n
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
