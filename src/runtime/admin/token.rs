use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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
        let refused = |why: String| AdminError::Token {
            path: path.to_owned(),
            why,
        };
        let metadata = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let path = path.display();
            return Err(refused(format!(
                "mode {mode:o} lets others read the token; run: chmod 600 {path}"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        Self::of(&Zeroizing::new(text)).map_err(refused)
    }

    fn of(text: &str) -> Result<Self, String> {
        let token = text.trim();
        if token.len() < CHARACTERS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "a token is one line of at least {CHARACTERS_MIN} visible ASCII characters"
            ));
        }
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

const SCHEME: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_named_whole_and_by_its_scheme() {
        let token = BearerToken::of("  0123456789abcdef\n").unwrap();
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
            assert!(BearerToken::of(bad).is_err(), "{bad}");
        }
    }
}
