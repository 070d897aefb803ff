use serde::{Deserialize, Serialize};

/// Which application a cluster serves, and in which version: part of its genesis. Parties that know another
/// one do not talk to one another, and data of another one is not opened.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ApplicationId {
    /// The name, then zeros.
    name: [u8; Self::NAME_BYTES_MAX],
    version: u32,
}

/// As files have it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    version: u32,
}

/// A name that no application can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the application's name {0:?}: must have 1 to {max} letters, digits, or - _ . /",
    max = ApplicationId::NAME_BYTES_MAX
)]
pub struct ApplicationNameError(String);

impl ApplicationId {
    /// How long a name may be, in bytes.
    pub const NAME_BYTES_MAX: usize = 32;
    /// What an id takes in bytes: the name, then the version.
    pub const BYTES: usize = Self::NAME_BYTES_MAX + 4;
    /// No application: one that has no name.
    pub const NONE: Self = Self {
        name: [0; Self::NAME_BYTES_MAX],
        version: 0,
    };

    /// The application of this name and version.
    ///
    /// # Errors
    /// When the name is empty, too long, or has characters that it may not have.
    pub fn new(name: &str, version: u32) -> Result<Self, ApplicationNameError> {
        let may_be = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let mut id = Self {
            version,
            ..Self::NONE
        };
        match id.name.get_mut(..name.len()) {
            Some(place) if !name.is_empty() && name.bytes().all(may_be) => {
                place.copy_from_slice(name.as_bytes());
                Ok(id)
            }
            _ => Err(ApplicationNameError(name.to_owned())),
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        let length = self.name.iter().position(|byte| *byte == 0);
        let name = &self.name[..length.unwrap_or(Self::NAME_BYTES_MAX)];
        std::str::from_utf8(name).unwrap_or("?")
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The id as it is sent and kept.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..Self::NAME_BYTES_MAX].copy_from_slice(&self.name);
        bytes[Self::NAME_BYTES_MAX..].copy_from_slice(&self.version.to_le_bytes());
        bytes
    }

    /// The id in these bytes, which may be anybody's: what is no id is [none](Self::NONE).
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let (name, version) = bytes.split_at(Self::NAME_BYTES_MAX);
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let version = version.try_into().map_or(0, u32::from_le_bytes);
        let id = std::str::from_utf8(&name[..length])
            .ok()
            .and_then(|name| Self::new(name, version).ok());
        id.filter(|id| id.name == name).unwrap_or(Self::NONE)
    }
}

impl std::fmt::Display for ApplicationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            "" => f.write_str("no application"),
            name => write!(f, "{name} (version {})", self.version),
        }
    }
}

impl std::fmt::Debug for ApplicationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl TryFrom<Written> for ApplicationId {
    type Error = ApplicationNameError;

    fn try_from(written: Written) -> Result<Self, ApplicationNameError> {
        Self::new(&written.name, written.version)
    }
}

impl From<ApplicationId> for Written {
    fn from(id: ApplicationId) -> Self {
        Self {
            name: id.name().to_owned(),
            version: id.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_bytes_and_what_is_none_becomes_none() {
        let id = ApplicationId::new("registry-2.x", 7).unwrap();
        assert_eq!(ApplicationId::from_bytes(&id.to_bytes()), id);
        assert_eq!(id.to_string(), "registry-2.x (version 7)");
        let longest = "n".repeat(ApplicationId::NAME_BYTES_MAX);
        let longest = ApplicationId::new(&longest, 1).unwrap();
        assert_eq!(ApplicationId::from_bytes(&longest.to_bytes()), longest);
        for wrong in ["", "a b", "\u{1b}[2J", "ä", &"n".repeat(33)] {
            assert!(ApplicationId::new(wrong, 1).is_err(), "{wrong}");
        }
        let mut bytes = id.to_bytes();
        bytes[20] = b'x';
        assert_eq!(ApplicationId::from_bytes(&bytes), ApplicationId::NONE);
        assert_eq!(ApplicationId::from_bytes(&[0xff; 36]), ApplicationId::NONE);
    }
}
