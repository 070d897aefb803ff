use super::chain::{ChainError, Extension, MembershipChain};
use super::change::{CHANGE_REQUEST_BYTES_MAX, ChangeRequest};
use super::encoding::{Reader, Writer};
use super::handover::HandoverCertificate;
use super::{ChangeRefused, MalformedMembership, Membership};
use crate::smr::messages::CheckpointClaim;
use crate::smr::types::Epoch;

/// The format of an encoded history.
const HISTORY_FORMAT: u16 = 1;

/// An epoch that has ended: what proves it, what made the next one, and that one's membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedEpoch {
    /// A quorum of its members signed its end.
    pub certificate: HandoverCertificate,
    /// What was changed.
    pub request: ChangeRequest,
    /// Who is in the cluster from then on.
    pub next: Membership,
}

/// Why a request is not the one that made an epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTheChange {
    /// Nothing is certified that a request could have made.
    #[error("epoch {0} has not ended")]
    NotEnded(Epoch),
    /// It changes nothing.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// It makes another membership than the one that was certified.
    #[error("it makes another membership of epoch {0} than the one that was certified")]
    AnotherMembership(Epoch),
}

/// Why the bytes of a history are none of this cluster's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// They are none.
    #[error(transparent)]
    Malformed(#[from] MalformedMembership),
    /// A certificate does not follow.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A request does not lead to what was certified.
    #[error(transparent)]
    Change(#[from] NotTheChange),
}

/// The epochs of a cluster as its members know them: what [proves](MembershipChain) each, and what made it. Who
/// was a client when, the changes say; certificates name clients by their digest alone.
///
/// The chain may be ahead: an end may be certified before it is known here what was changed. Until it is, the
/// epoch to go on in [is lacking](Self::lacking).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochHistory {
    chain: MembershipChain,
    /// The membership of the last epoch whose change is known.
    membership: Membership,
    /// What ended each epoch, from the chain's first on.
    changes: Vec<ChangeRequest>,
}

impl EpochHistory {
    /// The history that begins with this membership, which is trusted: that of the genesis, say.
    #[must_use]
    pub fn new(first: Membership) -> Self {
        Self {
            chain: MembershipChain::beginning_with(first.head().clone()),
            membership: first,
            changes: Vec::new(),
        }
    }

    /// What proves the epochs.
    #[must_use]
    pub fn chain(&self) -> &MembershipChain {
        &self.chain
    }

    /// The last membership that is wholly known.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The epoch whose change is not known, though its end is.
    #[must_use]
    pub fn lacking(&self) -> Option<Epoch> {
        let known = self.membership.head().epoch();
        (known < self.chain.newest().epoch()).then_some(known)
    }

    /// What ended an epoch, if it is known.
    #[must_use]
    pub fn change(&self, epoch: Epoch) -> Option<&ChangeRequest> {
        let place = epoch.get().checked_sub(self.chain.first().epoch().get())?;
        self.changes.get(usize::try_from(place).ok()?)
    }

    /// Where the epoch of [`membership`](Self::membership) begins: the checkpoint that closed the one before.
    #[must_use]
    pub fn base(&self) -> CheckpointClaim {
        let before = self.membership.head().epoch().get().checked_sub(1);
        let ended = before.and_then(|before| self.chain.ended(Epoch::new(before)));
        ended.map_or(CheckpointClaim::NONE, HandoverCertificate::closing)
    }

    /// Takes one more certificate, as [`MembershipChain::extend`] does.
    ///
    /// # Errors
    /// As there.
    pub fn extend(&mut self, certificate: &HandoverCertificate) -> Result<Extension, ChainError> {
        self.chain.extend(certificate)
    }

    /// Takes what ended the epoch that [is lacking](Self::lacking).
    ///
    /// # Errors
    /// When it did not.
    pub fn follow(&mut self, request: &ChangeRequest) -> Result<EndedEpoch, NotTheChange> {
        let epoch = self.membership.head().epoch();
        let certificate = self.chain.ended(epoch).ok_or(NotTheChange::NotEnded(epoch))?;
        let next = self.membership.next(request)?;
        if next.head() != certificate.next() {
            return Err(NotTheChange::AnotherMembership(epoch));
        }
        self.membership = next.clone();
        self.changes.push(request.clone());
        Ok(EndedEpoch {
            certificate: certificate.clone(),
            request: request.clone(),
            next,
        })
    }

    /// The epochs that have ended, as far as what ended them is known, as bytes; what they begin with stands
    /// elsewhere.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u16(HISTORY_FORMAT);
        out.count(self.changes.len());
        let ends = self.chain.since(self.chain.first().epoch()).unwrap_or_default();
        for (certificate, change) in ends.iter().zip(&self.changes) {
            for part in [certificate.encode(), change.encode()] {
                out.count(part.len());
                out.bytes(&part);
            }
        }
        out.finish()
    }

    /// Reads what [`encode`](Self::encode) wrote of a history that begins with this membership, and verifies
    /// all of it.
    ///
    /// # Errors
    /// When the bytes are not exactly that.
    pub fn decode(first: Membership, bytes: &[u8]) -> Result<Self, HistoryError> {
        let mut history = Self::new(first);
        let mut from = Reader::new(bytes);
        from.format("a history", HISTORY_FORMAT)?;
        // Each is read and verified before the next: nothing is allocated for how many there are said to be.
        for _ in 0..from.count("epochs", usize::MAX, 2 * 4)? {
            let certificate = from.part("a certificate", HandoverCertificate::BYTES_MAX)?;
            history.extend(&HandoverCertificate::decode(certificate)?)?;
            let change = from.part("a change", CHANGE_REQUEST_BYTES_MAX)?;
            history.follow(&ChangeRequest::decode(change)?)?;
        }
        from.finish()?;
        Ok(history)
    }
}
