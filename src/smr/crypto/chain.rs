use super::{Digester, Domain};
use crate::smr::types::{Digest, SeqNo};

/// The chain of decisions: covers every decision since the beginning of time, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain(Digest);

impl Chain {
    /// The chain before the first decision.
    pub const START: Self = Self(Digest::ZERO);

    /// The chain whose head this is.
    #[must_use]
    pub const fn from_head(head: Digest) -> Self {
        Self(head)
    }

    /// The head.
    #[must_use]
    pub const fn head(&self) -> &Digest {
        &self.0
    }

    /// The chain with one more decision.
    #[must_use]
    pub fn then(self, seq: SeqNo, batch: &Digest, digester: &Digester) -> Self {
        let mut link = [0; 72];
        link[..32].copy_from_slice(self.0.as_bytes());
        link[32..40].copy_from_slice(&seq.get().to_le_bytes());
        link[40..].copy_from_slice(batch.as_bytes());
        Self(digester.digest(Domain::Decision, &link))
    }
}
