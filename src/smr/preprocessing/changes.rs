use crate::smr::membership::{ChangeRequest, Membership};
use crate::smr::messages::Frame;
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::Digest;

/// Judges frames that ask for a change of the membership.
///
/// Within an epoch whether a change is possible follows from the request alone: what closes the epoch is the
/// first that is decided. So every correct replica judges a frame alike, at any time.
#[derive(Debug, Default)]
pub(super) struct ChangeCheck {
    membership: Option<Membership>,
    /// The frame that was judged last, and how: it comes from its client, in the proposal, and again.
    last: Option<(Digest, bool)>,
}

impl ChangeCheck {
    /// Judges by this membership.
    pub fn of(membership: Membership) -> Self {
        Self {
            membership: Some(membership),
            last: None,
        }
    }

    /// How many operators' signatures have to be verified for this frame, at most.
    pub fn signatures(&self, frame: &Frame) -> usize {
        let is_known = self.last.is_some_and(|(digest, _)| digest == *frame.digest());
        let request = ChangeRequest::asked_in(frame).filter(|_| !is_known && self.membership.is_some());
        request.map_or(0, |request| request.signatures.len())
    }

    /// Whether the frame is one change request and nothing else, that may be carried out, and is handed in by a
    /// client that may do so.
    pub fn allows(&mut self, frame: &Frame) -> bool {
        match self.last {
            Some((digest, verdict)) if digest == *frame.digest() => verdict,
            _ => {
                let verdict = self.judge(frame);
                self.last = Some((*frame.digest(), verdict));
                verdict
            }
        }
    }

    fn judge(&self, frame: &Frame) -> bool {
        let Some(membership) = &self.membership else {
            return false;
        };
        if active(Mutant::ChangeUnchecked) {
            return ChangeRequest::asked_in(frame).is_some();
        }
        let client = membership.client(frame.key().client);
        client.is_some_and(|client| client.rights.admin)
            && ChangeRequest::asked_in(frame).is_some_and(|request| membership.next(&request).is_ok())
    }
}
