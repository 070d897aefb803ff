use bytes::Bytes;

use crate::crypto::{Digester, Domain, MacKey, SigningKey};
use crate::messages::{Authenticator, Envelope, Kind, RequestFrame, encode};
use crate::types::{ClusterId, Digest, Epoch, NodeId, Signers};

/// How the client proves its frames.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// By one signature.
    Signature(SigningKey),
    /// By one MAC per replica, in order; and by signature where replicas ask for it.
    Macs(Vec<MacKey>, SigningKey),
}

/// Makes messages of frame bodies, with the proof that the replicas want.
///
/// One replica cannot be ignored that wants signatures: if it leads, its client has no other way in. Nor may one
/// replica decide it for all: signing costs every replica many times what MACs do. So what goes to a leader that
/// asked is signed, and all is signed once `weak` (f+1) distinct replicas asked.
pub(super) struct Prover {
    authentication: Authentication,
    digester: Digester,
    envelope: Envelope,
    weak: usize,
    asked: Signers,
}

impl Prover {
    pub(super) fn new(
        authentication: Authentication,
        (cluster, epoch): (ClusterId, Epoch),
        weak: usize,
    ) -> Self {
        Self {
            authentication,
            digester: Digester::new(cluster),
            envelope: Envelope::new(Kind::Request, cluster, epoch),
            weak,
            asked: Signers::NONE,
        }
    }

    /// Whether there is another proof than a signature.
    pub(super) fn has_macs(&self) -> bool {
        matches!(self.authentication, Authentication::Macs(..))
    }

    /// A replica wants signatures.
    pub(super) fn asked_by(&mut self, replica: NodeId) {
        self.asked.add(replica);
    }

    /// Whether what goes to this leader, or to all (`None`), is signed.
    pub(super) fn signs_for(&self, leader: Option<NodeId>) -> bool {
        !self.has_macs()
            || self.asked.count() >= self.weak
            || leader.is_some_and(|leader| self.asked.has(leader))
    }

    /// Whether any replica wants signatures.
    pub(super) fn anybody_asked(&self) -> bool {
        self.asked != Signers::NONE
    }

    /// The digest of a body.
    pub(super) fn digest(&self, body: &[u8]) -> Digest {
        self.digester.digest(Domain::RequestFrame, body)
    }

    /// The whole message for a frame with this body, whose digest it is; the body comes back.
    pub(super) fn message(&self, body: Vec<u8>, digest: &Digest, sign: bool) -> (Vec<u8>, Bytes) {
        let authenticator = match &self.authentication {
            Authentication::Macs(keys, _) if !sign => {
                Authenticator::Macs(keys.iter().map(|key| key.mac(digest)).collect())
            }
            Authentication::Macs(_, key) | Authentication::Signature(key) => {
                Authenticator::Signature(key.sign(Domain::RequestFrame, digest))
            }
        };
        let hint = body.len() + 160;
        let frame = RequestFrame { body, authenticator };
        let message = encode(self.envelope, &frame, hint);
        (frame.body, message)
    }
}
