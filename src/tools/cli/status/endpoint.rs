//! Asks an admin endpoint where its replica stands.

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::runtime::metrics::ReplicaRow;
use crate::tools::cli::admin_page::{PageError, STATUS_BYTES_MAX, get, read_status};

/// How long an answer may take as a whole.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a replica is asked.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// As host and port.
    pub address: String,
    pub token: Option<Zeroizing<String>>,
}

impl Endpoint {
    /// Where the replica stands, or why it does not say so, in words.
    pub fn status(&self) -> Result<ReplicaRow, String> {
        let token = self.token.as_ref().map(|token| token.as_str());
        let deadline = Instant::now() + PATIENCE;
        let page = get(&self.address, "/status", token, STATUS_BYTES_MAX, deadline);
        read_status(&page.map_err(|error| self.in_words(&error))?)
    }

    fn in_words(&self, error: &PageError) -> String {
        match (error, &self.token) {
            (PageError::Refused { status: 401 }, None) => {
                "it asks for its token: name its file by --token-file".to_owned()
            }
            (PageError::TooSlow, _) => format!("no answer in {} s", PATIENCE.as_secs()),
            _ => error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_named_no_token_is_told_how_and_who_named_another_is_told_so() {
        let refused = PageError::Refused { status: 401 };
        for (token, said) in [(None, "--token-file"), (Some("t"), "another token")] {
            let endpoint = Endpoint {
                address: "r0:1".to_owned(),
                token: token.map(|token| Zeroizing::new(token.to_owned())),
            };
            let words = endpoint.in_words(&refused);
            assert!(words.contains(said), "{words}");
        }
    }
}
