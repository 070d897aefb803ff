use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use zeroize::Zeroizing;

use super::{Domain, key_text, verdicts};
use crate::smr::types::Digest;

/// The size of a signature, in bytes.
pub const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 signature as bytes; verified under ZIP-215, so that all correct replicas judge it alike.
pub type Signature = [u8; SIGNATURE_BYTES];

/// The signature is not the key's over that digest, or the key is no point of the curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not valid")]
pub struct SignatureError;

/// What is signed: fixed words, the domain, and a digest that already covers cluster and content.
fn signed_bytes(domain: Domain, digest: &Digest) -> [u8; 64] {
    let mut bytes = *b"atlas-smr-replica/1 signature...................................";
    bytes[31] = domain as u8;
    bytes[32..].copy_from_slice(digest.as_bytes());
    bytes
}

/// A secret Ed25519 key.
#[derive(Clone)]
pub struct SigningKey(ed25519_zebra::SigningKey);

impl SigningKey {
    /// A fresh key from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_seed(&Zeroizing::new(rand::random()))
    }

    /// The key with this seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_zebra::SigningKey::from(*seed))
    }

    /// The seed, for a key file.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(self.0.as_bytes());
        seed
    }

    /// The public half.
    #[must_use]
    pub fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey(self.0.verification_key().into())
    }

    /// Signs a digest made in `domain`.
    #[must_use]
    pub fn sign(&self, domain: Domain, digest: &Digest) -> Signature {
        self.0.sign(&signed_bytes(domain, digest)).to_bytes()
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey(secret of {:?})", self.verifying_key())
    }
}

/// A public Ed25519 key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyingKey([u8; 32]);

key_text!(VerifyingKey);

impl VerifyingKey {
    /// Wraps the 32 bytes of a key. Whether they are a point is found when they are used.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether only the owner of its secret can sign for this key: it is a point of the curve, and not of
    /// small order. Under a key of small order everybody can sign.
    ///
    /// Verification is by the cofactor (ZIP-215): R the neutral element and s = 0 satisfy `[8]sB = [8]R +
    /// [8]kA` exactly if `[8]kA` is neutral. For a key A of small order that is so of every k; for another
    /// one of the k that a hash of the group's order hits by chance alone, 1 in 2^252.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let mut trivial = [0; SIGNATURE_BYTES];
        trivial[0] = 1;
        let is_point = VerificationKey::try_from(VerificationKeyBytes::from(self.0)).is_ok();
        is_point && !self.judge(Domain::Membership, &Digest::ZERO, &trivial)
    }

    /// Verifies one signature.
    ///
    /// # Errors
    /// When it is not this key's over `digest` in `domain`.
    pub fn verify(
        &self,
        domain: Domain,
        digest: &Digest,
        signature: &Signature,
    ) -> Result<(), SignatureError> {
        let is_valid = verdicts::recall(&self.0, domain, digest, signature).unwrap_or_else(|| {
            let is_valid = self.judge(domain, digest, signature);
            verdicts::note(&self.0, domain, digest, signature, is_valid);
            is_valid
        });
        verdicts::count(is_valid);
        is_valid.then_some(()).ok_or(SignatureError)
    }

    fn judge(&self, domain: Domain, digest: &Digest, signature: &Signature) -> bool {
        let Ok(key) = VerificationKey::try_from(VerificationKeyBytes::from(self.0)) else {
            return false;
        };
        let signature = ed25519_zebra::Signature::from_bytes(signature);
        key.verify(&signature, &signed_bytes(domain, digest)).is_ok()
    }
}

/// Verifies many signatures together at less than half the cost of one by one. The verdict on each is always
/// the one single verification gives.
#[derive(Debug, Default)]
pub struct BatchVerifier {
    questions: Vec<Question>,
}

#[derive(Debug)]
struct Question {
    key: VerifyingKey,
    domain: Domain,
    digest: Digest,
    signature: Signature,
    /// The verdict, if it is remembered.
    known: Option<bool>,
}

impl Question {
    fn item(&self) -> batch::Item {
        let signature = ed25519_zebra::Signature::from_bytes(&self.signature);
        let signed = signed_bytes(self.domain, &self.digest);
        (VerificationKeyBytes::from(self.key.0), signature, &signed).into()
    }
}

impl BatchVerifier {
    /// Adds a signature; its place is the number of those added before.
    pub fn queue(&mut self, key: &VerifyingKey, domain: Domain, digest: &Digest, signature: &Signature) {
        self.questions.push(Question {
            key: *key,
            domain,
            digest: *digest,
            signature: *signature,
            known: verdicts::recall(&key.0, domain, digest, signature),
        });
    }

    /// How many are waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.questions.len()
    }

    /// Whether none is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// Verifies and forgets all of them, and calls `verdict` for each in order.
    pub fn verify(&mut self, mut verdict: impl FnMut(bool)) {
        let open = || self.questions.iter().filter(|question| question.known.is_none());
        let all_valid = open().count() > 1 && {
            let mut all = batch::Verifier::new();
            open().for_each(|question| all.queue(question.item()));
            all.verify(rand::rng()).is_ok()
        };
        for question in self.questions.drain(..) {
            let Question {
                key,
                domain,
                digest,
                signature,
                known,
            } = question;
            let is_valid = known.unwrap_or_else(|| {
                let is_valid = all_valid || key.judge(domain, &digest, &signature);
                verdicts::note(&key.0, domain, &digest, &signature, is_valid);
                is_valid
            });
            verdicts::count(is_valid);
            verdict(is_valid);
        }
    }
}
