use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::ZeroizeOnDrop;

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

    /// Reads a key file.
    ///
    /// # Errors
    /// Also when others than the owner may read it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let metadata = fs::metadata(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ConfigError::KeyFileMode {
                path: path.to_owned(),
                mode,
            });
        }
        let file: KeyFile = load(path)?;
        let secret = |text: &str| {
            let mut bytes = zeroize::Zeroizing::new([0; 32]);
            // `validate` saw that it decodes.
            let _ = hex::decode_to_slice(text, &mut *bytes);
            bytes
        };
        Ok(Self {
            signing: SigningKey::from_seed(&secret(&file.signing_seed)),
            link: LinkSecret::from_bytes(&secret(&file.link_secret)),
        })
    }
}

impl Validate for KeyFile {
    const WHOSE: Whose = Whose::Keys;

    fn validate(&self) -> Result<(), InvalidSetting> {
        for (key, text) in [
            ("signing_seed", &self.signing_seed),
            ("link_secret", &self.link_secret),
        ] {
            if hex::decode_to_slice(text, &mut [0; 32]).is_err() {
                let rule = "must be 64 hexadecimal digits".to_owned();
                return Err(InvalidSetting {
                    key,
                    value: "(secret)".to_owned(),
                    rule,
                });
            }
        }
        Ok(())
    }
}
