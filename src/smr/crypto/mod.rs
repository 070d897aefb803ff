//! Digests, signatures, MACs and sealed links. Everything hashed or signed names its domain and its cluster,
//! so that no proof made for one purpose or one cluster passes for another.

mod chain;
mod digest;
mod link;
mod mac;
mod signature;
mod verdicts;

pub use chain::Chain;
pub use digest::{Digester, Domain, lasting_digest};
pub use link::{LinkPublic, LinkSecret, OpenError, Opener, RECORD_OVERHEAD, SealError, Sealer, TAG_BYTES};
pub use mac::{MAC_BYTES, Mac, MacKey};
pub use signature::{BatchVerifier, SIGNATURE_BYTES, Signature, SignatureError, SigningKey, VerifyingKey};
pub use verdicts::{Given, remember_verdicts, verdicts_given};

/// A key as text is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a key is 64 hexadecimal digits, this is {0:?}")]
pub struct KeyTextError(pub String);

fn parse_key(text: &str) -> Result<[u8; 32], KeyTextError> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyTextError(text.chars().take(80).collect()))?;
    Ok(bytes)
}

/// Gives a 32-byte public key its hexadecimal text form, in `Display`, `FromStr` and serde.
macro_rules! key_text {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(
                    f,
                    concat!(stringify!($name), "({})"),
                    hex::encode(&self.0[..4])
                )
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::smr::crypto::KeyTextError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::smr::crypto::parse_key(text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
use key_text;

#[cfg(test)]
mod tests;
