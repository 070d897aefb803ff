use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::AdminError;

/// A token has so many characters at least: what can be tried over a network in years has fewer.
const CHARACTERS_MIN: usize = 16;

/// What every request has to name. Its digest is kept: comparing digests takes as long for every token that
/// is tried, whatever its length.
#[derive(Debug)]
pub(super) struct BearerToken(blake3::Hash);

impl BearerToken {
    /// Reads it from a file that nobody else may read; blanks around it do not count.
    pub fn load(path: &Path) -> Result<Self, AdminError> {
        let token = read_token(path).map_err(|why| AdminError::Token {
            path: path.to_owned(),
            why,
        })?;
        Ok(Self(blake3::hash(token.as_bytes())))
    }

    /// Whether an `Authorization` header names it.
    pub fn is_named_by(&self, authorization: &[u8]) -> bool {
        let Some((scheme, token)) = authorization.split_at_checked(SCHEME.len()) else {
            return false;
        };
        let is_same = blake3::hash(token.trim_ascii())
            .as_bytes()
            .ct_eq(self.0.as_bytes());
        scheme.eq_ignore_ascii_case(SCHEME) && bool::from(is_same)
    }
}

/// What every request has to name right now, if anything; another token may take its place at any time. Clones
/// are equal.
#[derive(Debug, Clone)]
pub(super) struct TokenSlot(Arc<RwLock<Option<BearerToken>>>);

impl TokenSlot {
    pub fn new(token: Option<BearerToken>) -> Self {
        Self(Arc::new(RwLock::new(token)))
    }

    /// Whether a request with this `Authorization` header, if it has one, may be answered.
    pub fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let token = self.0.read().unwrap_or_else(PoisonError::into_inner);
        token
            .as_ref()
            .is_none_or(|token| token.is_named_by(authorization.unwrap_or_default()))
    }

    pub fn replace(&self, token: Option<BearerToken>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

const SCHEME: &[u8] = b"Bearer ";

/// Reads a token from a file that nobody else may read.
///
/// # Errors
/// In words.
pub(crate) fn read_token(path: &Path) -> Result<Zeroizing<String>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!(
            "mode {mode:o} lets others read the token; run: chmod 600 {path}"
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    token_of(&Zeroizing::new(text))
}

fn token_of(text: &str) -> Result<Zeroizing<String>, String> {
    let token = text.trim();
    if token.len() < CHARACTERS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "a token is one line of at least {CHARACTERS_MIN} visible ASCII characters"
        ));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_whole_and_by_its_scheme() {
        let token = token_of("  0123456789abcdef\n").unwrap();
        let token = BearerToken(blake3::hash(token.as_bytes()));
        for named in ["Bearer 0123456789abcdef", "bearer  0123456789abcdef "] {
            assert!(token.is_named_by(named.as_bytes()), "{named}");
        }
        for other in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Bearer 0123456789abcdeF",
            "Basic  0123456789abcdef",
            "0123456789abcdef",
        ] {
            assert!(!token.is_named_by(other.as_bytes()), "{other}");
        }
        for bad in ["", "short", "0123456789abcdef 0", "0123456789abcdef\nsecond"] {
            assert!(token_of(bad).is_err(), "{bad}");
        }
    }
}
