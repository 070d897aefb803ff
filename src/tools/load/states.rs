//! Whether correct replicas ended with the same state.

use crate::smr::messages::CheckpointClaim;
use crate::smr::types::NodeId;

/// What the digests of the correct replicas' states say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum States {
    /// All have executed the same decisions and have the same state.
    Equal,
    /// Two executed the same decisions and have other states: one of them is wrong.
    Different,
    /// No two of the same decisions differ, but they are not all at the same ones: who stands where.
    Apart(String),
}

impl States {
    /// Compares digests taken one after the other, while replicas may go on. Only those of the same decisions
    /// can differ; `None` is who gave none.
    #[must_use]
    pub fn of(claims: &[(NodeId, Option<CheckpointClaim>)]) -> Self {
        let given = || claims.iter().filter_map(|(_, claim)| *claim);
        let differs = |a: &CheckpointClaim| given().any(|b| a.seq == b.seq && a.digest != b.digest);
        if given().any(|claim| differs(&claim)) {
            return Self::Different;
        }
        let first = given().next().map(|claim| claim.seq);
        if claims
            .iter()
            .all(|(_, claim)| claim.map(|claim| claim.seq) == first)
            && first.is_some()
        {
            return Self::Equal;
        }
        let standing = claims.iter().map(|(node, claim)| match claim {
            Some(claim) => format!("{node} at {}", claim.seq),
            None => format!("{node} gives no digest"),
        });
        Self::Apart(standing.collect::<Vec<_>>().join(", "))
    }

    /// Whether all are equal.
    #[must_use]
    pub fn are_equal(&self) -> bool {
        *self == Self::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::types::{Digest, SeqNo};

    #[test]
    fn digests_of_other_decisions_are_no_difference() {
        let claim = |seq, digest| {
            Some(CheckpointClaim {
                seq: SeqNo::new(seq),
                digest: Digest::from_bytes([digest; 32]),
            })
        };
        let of = |claims: &[Option<CheckpointClaim>]| {
            let nodes = NodeId::all(claims.len());
            States::of(&nodes.zip(claims.iter().copied()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[claim(7, 1), claim(7, 1), claim(7, 1)]), States::Equal);
        assert_eq!(
            of(&[claim(7, 1), claim(9, 2), claim(7, 1)]),
            States::Apart("r0 at 7, r1 at 9, r2 at 7".to_owned())
        );
        assert_eq!(of(&[claim(7, 1), claim(9, 2), claim(7, 3)]), States::Different);
        assert!(matches!(of(&[claim(7, 1), None]), States::Apart(_)));
        assert!(matches!(of(&[]), States::Apart(_)));
    }
}
