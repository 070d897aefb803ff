use subtle::ConstantTimeEq;
use zeroize::ZeroizeOnDrop;

use super::{LinkPublic, LinkSecret};
use crate::smr::types::{ClusterId, Digest};

/// The size of a MAC, in bytes.
pub const MAC_BYTES: usize = 16;

/// One entry of a frame's list of MACs.
pub type Mac = [u8; MAC_BYTES];

/// The secret that one client shares with one replica, for authenticators without signatures.
#[derive(Clone, ZeroizeOnDrop)]
pub struct MacKey([u8; 32]);

impl MacKey {
    /// The key of two parties that know each other's public link keys: static X25519, then a derivation that
    /// names the cluster. Both ends get the same.
    ///
    /// `None` when `theirs` is a point of small order, which no honest party has.
    #[must_use]
    pub fn between(ours: &LinkSecret, theirs: &LinkPublic, cluster: ClusterId) -> Option<Self> {
        let shared = ours.diffie_hellman(theirs)?;
        let mut hasher = blake3::Hasher::new_derive_key("atlas-smr-replica 2026 request authenticator");
        hasher.update(cluster.as_bytes());
        hasher.update(&*shared);
        Some(Self(*hasher.finalize().as_bytes()))
    }

    /// The MAC over a frame's digest.
    #[must_use]
    pub fn mac(&self, digest: &Digest) -> Mac {
        let full = blake3::keyed_hash(&self.0, digest.as_bytes());
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&full.as_bytes()[..MAC_BYTES]);
        mac
    }

    /// Whether `mac` is the one over `digest`; takes the same time for every answer.
    #[must_use]
    pub fn verify(&self, digest: &Digest, mac: &Mac) -> bool {
        self.mac(digest).ct_eq(mac).into()
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(secret)")
    }
}
