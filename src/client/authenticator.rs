use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::smr::crypto::{Digester, Domain, MacKey, SigningKey};
use crate::smr::messages::{Authenticator, Envelope, Kind, RequestFrame, encode};
use crate::smr::types::{ClusterId, Digest, Epoch, NodeId, Time};

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
/// Signing costs everybody many times what MACs do, and faulty replicas want signatures without need. So
/// frames are signed once `weak` (f+1) distinct replicas have asked for it, one of which is correct; and no
/// longer than [`ASKED_FOR`] after the last of those: then MACs are tried again. A replica that asks alone
/// keeps nobody out, if it leads or not: its client sends to all, who have the frame ordered, or ask as well.
pub(super) struct FrameAuthenticator {
    authentication: Authentication,
    digester: Digester,
    envelope: Envelope,
    weak: usize,
    /// By replica: when it asked last.
    asked: BTreeMap<NodeId, Time>,
}

/// How long a replica's wish for signatures counts.
const ASKED_FOR: Duration = Duration::from_secs(60);

impl FrameAuthenticator {
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
            asked: BTreeMap::new(),
        }
    }

    /// Whether there is another proof than a signature.
    pub(super) fn has_macs(&self) -> bool {
        matches!(self.authentication, Authentication::Macs(..))
    }

    /// A replica wants signatures.
    pub(super) fn asked_by(&mut self, now: Time, replica: NodeId) {
        self.asked.insert(replica, now);
    }

    /// Whether frames are signed.
    pub(super) fn signs(&self, now: Time) -> bool {
        !self.has_macs() || self.asking(now).count() >= self.weak
    }

    /// Who wants signatures.
    pub(super) fn asking(&self, now: Time) -> impl Iterator<Item = NodeId> {
        let asked = self.asked.iter();
        asked
            .filter(move |(_, at)| now.since(**at) < ASKED_FOR)
            .map(|(replica, _)| *replica)
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
