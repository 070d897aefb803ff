use super::NodeId;

/// The largest cluster: what one [`Signers`] set holds.
pub const REPLICAS_MAX: usize = 64;

/// Why a cluster size is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// No replica at all.
    #[error("a cluster needs at least one replica")]
    Empty,
    /// More replicas than [`REPLICAS_MAX`].
    #[error("a cluster of {0} replicas is over the limit of {REPLICAS_MAX}")]
    TooLarge(usize),
}

/// The arithmetic of a cluster of `n` replicas (Castro & Liskov, TOCS 2002, section 2.2, for any n).
///
/// With f = ⌊(n−1)/3⌋ and quorums of ⌈(n+f+1)/2⌉, two quorums share at least f+1 replicas, hence a correct
/// one, and the n−f correct replicas alone form a quorum. For n = 3f+1 a quorum is the usual 2f+1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quorum {
    n: usize,
}

impl Quorum {
    /// The arithmetic for `n` replicas.
    ///
    /// # Errors
    /// When `n` is zero or over [`REPLICAS_MAX`].
    pub const fn of(n: usize) -> Result<Self, QuorumError> {
        match n {
            0 => Err(QuorumError::Empty),
            1..=REPLICAS_MAX => Ok(Self { n }),
            _ => Err(QuorumError::TooLarge(n)),
        }
    }

    /// The number of replicas.
    #[must_use]
    pub const fn n(self) -> usize {
        self.n
    }

    /// How many replicas may be faulty: ⌊(n−1)/3⌋. Zero below four: such a cluster is for development.
    #[must_use]
    pub const fn f(self) -> usize {
        (self.n - 1) / 3
    }

    /// ⌈(n+f+1)/2⌉: any two sets of this size share a correct replica.
    #[must_use]
    pub const fn quorum(self) -> usize {
        (self.n + self.f() + 2) / 2
    }

    /// f+1: any set of this size holds a correct replica.
    #[must_use]
    pub const fn weak(self) -> usize {
        self.f() + 1
    }

    /// How many matching prepares, beside the leader's pre-prepare, make a batch prepared: quorum − 1.
    #[must_use]
    pub const fn prepares(self) -> usize {
        self.quorum() - 1
    }
}

/// A set of distinct replicas that said the same thing. Counting messages is never counting signers:
/// adding a replica twice changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, PartialOrd, Ord)]
pub struct Signers(u64);

impl Signers {
    /// Nobody yet.
    pub const NONE: Self = Self(0);

    /// Adds `node`; true if it was not there. Nodes beyond [`REPLICAS_MAX`] are never added.
    pub fn add(&mut self, node: NodeId) -> bool {
        if node.index() >= REPLICAS_MAX {
            return false;
        }
        let bit = 1u64 << node.index();
        let fresh = self.0 & bit == 0;
        self.0 |= bit;
        fresh
    }

    /// Removes `node`.
    pub fn remove(&mut self, node: NodeId) {
        if node.index() < REPLICAS_MAX {
            self.0 &= !(1u64 << node.index());
        }
    }

    /// Whether `node` is in the set.
    #[must_use]
    pub const fn has(self, node: NodeId) -> bool {
        node.index() < REPLICAS_MAX && self.0 & (1u64 << node.index()) != 0
    }

    /// How many distinct replicas are in the set.
    #[must_use]
    pub const fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// The replicas in the set, in order.
    pub fn iter(self) -> impl Iterator<Item = NodeId> {
        (0..REPLICAS_MAX as u16)
            .map(NodeId::new)
            .filter(move |node| self.has(*node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums_intersect_in_a_correct_replica_and_are_reachable_without_the_faulty_ones() {
        for n in 1..=REPLICAS_MAX {
            let q = Quorum::of(n).unwrap();
            let f = (n - 1) / 3;
            assert_eq!(q.f(), f);
            assert!(
                2 * q.quorum() > n + f,
                "n={n}: two quorums may share only faulty replicas"
            );
            assert!(
                2 * (q.quorum() - 1) <= n + f,
                "n={n}: the quorum is larger than it must be"
            );
            assert!(
                q.quorum() <= n - f,
                "n={n}: the correct replicas alone do not form a quorum"
            );
        }
        assert_eq!(Quorum::of(4).unwrap().quorum(), 3);
        assert_eq!(Quorum::of(7).unwrap().quorum(), 5);
        assert_eq!(Quorum::of(1).unwrap().prepares(), 0);
        assert_eq!(Quorum::of(0), Err(QuorumError::Empty));
        assert_eq!(Quorum::of(65), Err(QuorumError::TooLarge(65)));
    }

    #[test]
    fn a_signer_counts_once_however_often_it_signs() {
        let mut signers = Signers::NONE;
        assert!(signers.add(NodeId::new(3)));
        assert!(!signers.add(NodeId::new(3)));
        assert!(!signers.add(NodeId::new(64)));
        assert_eq!(signers.count(), 1);
        assert_eq!(signers.iter().collect::<Vec<_>>(), vec![NodeId::new(3)]);
    }
}
