use crate::smr::types::{ClusterId, Digest, PROTOCOL_VERSION};

/// What a digest is of. Digests of different domains never collide by construction. The numbers are for ever:
/// what is signed names its domain by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Domain {
    /// A request frame's body.
    RequestFrame,
    /// A batch: the digests of its frames, in order.
    Batch,
    /// A checkpoint claim.
    Checkpoint,
    /// The table of clients.
    ClientTable,
    /// An application's state.
    State,
    /// A reply body.
    Reply,
    /// A view-change message.
    ViewChange,
    /// A new-view message.
    NewView,
    /// A record of the persistent log.
    LogRecord,
    /// The chain of decisions: each link covers the one before, a place and its batch.
    Decision,
    /// A checkpoint claim that leaves the state to an earlier one.
    LightCheckpoint,
    /// What a cluster is born with.
    Genesis,
    /// A membership: its head, which names its clients by their digest.
    Membership,
    /// The list of clients of a membership.
    Clients,
    /// What operators ask to change.
    ChangeRequest,
    /// The end of an epoch, and the membership that follows.
    Handover,
}

impl Domain {
    const ALL: [Self; 16] = [
        Self::RequestFrame,
        Self::Batch,
        Self::Checkpoint,
        Self::ClientTable,
        Self::State,
        Self::Reply,
        Self::ViewChange,
        Self::NewView,
        Self::LogRecord,
        Self::Decision,
        Self::LightCheckpoint,
        Self::Genesis,
        Self::Membership,
        Self::Clients,
        Self::ChangeRequest,
        Self::Handover,
    ];
}

/// The digest of `bytes` in `domain` for ever. Unlike a [`Digester`]'s it depends neither on the protocol
/// version, so that what earlier releases signed can be verified by later ones, nor on the cluster, so that
/// the cluster's identity can be one: where a cluster matters, `bytes` name it.
#[must_use]
pub fn lasting_digest(domain: Domain, bytes: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("atlas-smr-replica 2026 lasting digest");
    hasher.update(&[domain as u8]);
    hasher.update(bytes);
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// Computes the digests of one cluster: keyed BLAKE3, one key per domain, derived once from cluster, domain
/// and protocol version. A digest then costs no more than an unkeyed one.
#[derive(Clone)]
pub struct Digester {
    keys: [[u8; 32]; Domain::ALL.len()],
}

impl Digester {
    /// The digester of `cluster`.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        let keys = Domain::ALL.map(|domain| {
            let mut hasher = blake3::Hasher::new_derive_key("atlas-smr-replica 2026 digest domain");
            hasher.update(cluster.as_bytes());
            hasher.update(&[domain as u8]);
            hasher.update(&PROTOCOL_VERSION.to_le_bytes());
            *hasher.finalize().as_bytes()
        });
        Self { keys }
    }

    /// The digest of `bytes` in `domain`.
    #[must_use]
    pub fn digest(&self, domain: Domain, bytes: &[u8]) -> Digest {
        Digest::from_bytes(*blake3::keyed_hash(&self.keys[domain as usize], bytes).as_bytes())
    }

    /// A hasher for input in several parts. Parts run together: each must be of fixed size or follow its
    /// length, or two different lists of parts could give one digest.
    #[must_use]
    pub fn hasher(&self, domain: Domain) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.keys[domain as usize])
    }

    /// The digest of a list of digests, in order.
    #[must_use]
    pub fn digest_of_digests<'a>(
        &self,
        domain: Domain,
        digests: impl IntoIterator<Item = &'a Digest>,
    ) -> Digest {
        let mut hasher = self.hasher(domain);
        for digest in digests {
            hasher.update(digest.as_bytes());
        }
        Digest::from_bytes(*hasher.finalize().as_bytes())
    }
}

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester")
    }
}
