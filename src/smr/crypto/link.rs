use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use bytes::Bytes;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::key_text;

/// The size of a record's tag, in bytes.
pub const TAG_BYTES: usize = 16;

/// What a record adds to its plaintext on the wire: a length of four bytes before it and a tag behind it.
pub const RECORD_OVERHEAD: usize = 4 + TAG_BYTES;

/// A party's static X25519 secret: it proves the party in a link's handshake.
#[derive(Clone)]
pub struct LinkSecret(StaticSecret);

impl LinkSecret {
    /// A fresh secret from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_bytes(&Zeroizing::new(rand::random()))
    }

    /// The secret with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(StaticSecret::from(*bytes))
    }

    /// The bytes, for a key file or a handshake.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> LinkPublic {
        LinkPublic(*PublicKey::from(&self.0).as_bytes())
    }

    /// The secret shared with the owner of `theirs`; `None` when that is a point of small order.
    pub(super) fn diffie_hellman(&self, theirs: &LinkPublic) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.0.diffie_hellman(&PublicKey::from(theirs.0));
        shared
            .was_contributory()
            .then(|| Zeroizing::new(shared.to_bytes()))
    }
}

impl std::fmt::Debug for LinkSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkSecret(secret of {:?})", self.public())
    }
}

/// A party's static X25519 public key, as the cluster's configuration lists it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkPublic([u8; 32]);

key_text!(LinkPublic);

impl LinkPublic {
    /// Wraps the 32 bytes of a key.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether a secret can be shared with its owner alone: it is no point of small order, and is written
    /// without the bit that X25519 ignores (RFC 7748, section 5), with which it would be another text for the
    /// same key.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.0[31] & 0x80 == 0 && LinkSecret::from_bytes(&[1; 32]).diffie_hellman(self).is_some()
    }
}

/// A record cannot be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The link's nonces are used up (2^64 records).
    #[error("the link has sealed all the records it may")]
    Exhausted,
    /// The record would pass 4 GiB.
    #[error("the record is longer than its length can say")]
    TooLong,
}

/// A record does not open: forged, replayed, reordered or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record is not the link's next one")]
pub struct OpenError;

fn key(bytes: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("AES-256 keys have 32 bytes"))
}

/// The n-th nonce of one direction. Both ends count; nothing of it is on the wire.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Seals the records of one direction of one link: AES-256-GCM under a key that only this link's handshake
/// made, with a counter as nonce.
///
/// Invariant: `counter` only grows, so no nonce is used twice under the key.
pub struct Sealer {
    key: LessSafeKey,
    counter: u64,
}

impl Sealer {
    /// The sealer of a direction with this key.
    #[must_use]
    pub fn new(key_bytes: &[u8; 32]) -> Self {
        Self {
            key: key(key_bytes),
            counter: 0,
        }
    }

    /// Appends one record to `out`: its length, what `fill` appends, sealed in place, and the tag.
    ///
    /// # Errors
    /// When the link may seal no more; `out` is then as before.
    pub fn seal(&mut self, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), SealError> {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        fill(out);
        let sealed_bytes = out.len() - start - 4 + TAG_BYTES;
        let Ok(length) = u32::try_from(sealed_bytes) else {
            out.truncate(start);
            return Err(SealError::TooLong);
        };
        let Some(next) = self.counter.checked_add(1) else {
            out.truncate(start);
            return Err(SealError::Exhausted);
        };
        let length = length.to_le_bytes();
        out[start..start + 4].copy_from_slice(&length);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(self.counter), Aad::from(length), &mut out[start + 4..])
            .expect("AES-GCM seals any record under 64 GiB");
        out.extend_from_slice(tag.as_ref());
        self.counter = next;
        Ok(())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({} records)", self.counter)
    }
}

/// Opens the records of one direction of one link, in order.
pub struct Opener {
    key: LessSafeKey,
    counter: u64,
}

impl Opener {
    /// The opener of a direction with this key.
    #[must_use]
    pub fn new(key_bytes: &[u8; 32]) -> Self {
        Self {
            key: key(key_bytes),
            counter: 0,
        }
    }

    /// How many bytes of plaintext a sealed record of this length has.
    ///
    /// # Errors
    /// When it is shorter than its tag.
    pub fn plain_bytes(sealed_bytes: usize) -> Result<usize, OpenError> {
        sealed_bytes.checked_sub(TAG_BYTES).ok_or(OpenError)
    }

    /// Opens one record, `sealed` being what follows its length, straight into `plain`, which has exactly
    /// [`plain_bytes`](Self::plain_bytes).
    ///
    /// # Errors
    /// When it is not the next record of this link. The link is over then, and `plain` holds nothing of use.
    pub fn open_into(&mut self, sealed: &[u8], plain: &mut [u8]) -> Result<(), OpenError> {
        let Some((ciphertext, tag)) = sealed.split_at_checked(plain.len()) else {
            return Err(OpenError);
        };
        let Ok(length) = u32::try_from(sealed.len()) else {
            return Err(OpenError);
        };
        self.key
            .open_separate_gather(
                nonce(self.counter),
                Aad::from(length.to_le_bytes()),
                ciphertext,
                tag,
                plain,
            )
            .map_err(|_| OpenError)?;
        self.counter = self.counter.checked_add(1).ok_or(OpenError)?;
        Ok(())
    }

    /// As [`open_into`](Self::open_into), into a buffer of its own.
    ///
    /// # Errors
    /// As [`open_into`](Self::open_into).
    pub fn open(&mut self, sealed: &[u8]) -> Result<Bytes, OpenError> {
        let mut plain = vec![0; Self::plain_bytes(sealed.len())?];
        self.open_into(sealed, &mut plain)?;
        Ok(Bytes::from(plain))
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener({} records)", self.counter)
    }
}
