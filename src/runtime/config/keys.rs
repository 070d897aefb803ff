use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::error::{ConfigError, Validate, Whose, load};
use crate::smr::crypto::{LinkSecret, SigningKey};
use crate::smr::protocol::InvalidSetting;

/// A party's secrets as they lie in its key file, in hexadecimal.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    signing_seed: String,
    link_secret: String,
}

/// A party's secrets.
#[derive(Debug, Clone)]
pub struct PartyKeys {
    /// Signs checkpoints, view changes, client frames.
    pub signing: SigningKey,
    /// Proves the party on its links.
    pub link: LinkSecret,
}

impl PartyKeys {
    /// Fresh secrets from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            signing: SigningKey::generate(),
            link: LinkSecret::generate(),
        }
    }

    /// Writes a new key file that only its owner can read.
    ///
    /// # Errors
    /// When the file exists already or cannot be written: keys are never overwritten.
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        let file = KeyFile {
            signing_seed: hex::encode(*self.signing.seed()),
            link_secret: hex::encode(*self.link.to_bytes()),
        };
        let text = format!(
            "# Secret keys: whoever reads them can act as this party.\nsigning_seed = \"{}\"\nlink_secret = \"{}\"\n",
            file.signing_seed, file.link_secret
        );
        write_secret(path, &text)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// Also when others than the owner may read it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        check_mode(path)?;
        let file: KeyFile = load(path)?;
        Ok(Self {
            signing: SigningKey::from_seed(&secret(&file.signing_seed)),
            link: LinkSecret::from_bytes(&secret(&file.link_secret)),
        })
    }
}

impl Validate for KeyFile {
    const WHOSE: Whose = Whose::Keys;

    fn validate(&self) -> Result<(), InvalidSetting> {
        check_secret("signing_seed", &self.signing_seed)?;
        check_secret("link_secret", &self.link_secret)
    }
}

/// An operator's secret as it lies in its key file, in hexadecimal. Another key than a party's, so that
/// neither is taken for the other.
#[derive(Serialize, Deserialize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct OperatorKeyFile {
    operator_seed: String,
}

/// An operator's secret: with enough others it changes the cluster.
#[derive(Debug, Clone)]
pub struct OperatorKey {
    /// Signs what is asked to change.
    pub signing: SigningKey,
}

impl OperatorKey {
    /// A fresh secret from the operating system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self {
            signing: SigningKey::generate(),
        }
    }

    /// Writes a new key file that only its owner can read.
    ///
    /// # Errors
    /// When the file exists already or cannot be written: keys are never overwritten.
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        let file = OperatorKeyFile {
            operator_seed: hex::encode(*self.signing.seed()),
        };
        let text = format!(
            "# An operator's secret key: whoever reads it can sign changes of the cluster.\n\
             # No replica or client needs it: keep it elsewhere.\n\
             operator_seed = \"{}\"\n",
            file.operator_seed
        );
        write_secret(path, &text)
    }

    /// Reads an operator's key file.
    ///
    /// # Errors
    /// Also when others than the owner may read it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        check_mode(path)?;
        let file: OperatorKeyFile = load(path)?;
        Ok(Self {
            signing: SigningKey::from_seed(&secret(&file.operator_seed)),
        })
    }
}

impl Validate for OperatorKeyFile {
    const WHOSE: Whose = Whose::Operator;

    fn validate(&self) -> Result<(), InvalidSetting> {
        check_secret("operator_seed", &self.operator_seed)
    }
}

/// Writes a new file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> Result<(), ConfigError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| ConfigError::Write {
            path: path.to_owned(),
            source,
        })
}

/// Whether only its owner can read a file.
fn check_mode(path: &Path) -> Result<(), ConfigError> {
    let metadata = fs::metadata(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    match metadata.permissions().mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(ConfigError::KeyFileMode {
            path: path.to_owned(),
            mode,
        }),
        _ => Ok(()),
    }
}

fn check_secret(key: &'static str, text: &str) -> Result<(), InvalidSetting> {
    let mut bytes = Zeroizing::new([0; 32]);
    hex::decode_to_slice(text, &mut *bytes).map_err(|_| InvalidSetting {
        key,
        value: "(secret)".to_owned(),
        rule: "must be 64 hexadecimal digits".to_owned(),
    })
}

/// The secret that a text of a checked file is.
fn secret(text: &str) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    // `check_secret` saw that it decodes.
    let _ = hex::decode_to_slice(text, &mut *bytes);
    bytes
}
