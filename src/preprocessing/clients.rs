use serde::{Deserialize, Serialize};

use crate::crypto::{MacKey, VerifyingKey};
use crate::types::ClientId;

/// How clients prove their frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// One Ed25519 signature per frame: a frame that convinces one replica convinces all.
    Signature,
    /// One MAC per replica: cheaper, but a client can lie to some replicas only; then it has to sign.
    Mac,
}

impl std::fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Signature => "signature",
            Self::Mac => "mac",
        })
    }
}

/// What a replica knows to judge one client's frames by.
#[derive(Debug, Clone)]
pub struct ClientKeys {
    /// The client's public signing key.
    pub verifying: VerifyingKey,
    /// The MAC key this replica shares with the client; `None` when the client's link key is none.
    pub mac: Option<MacKey>,
    /// After a disputed MAC only signatures count.
    pub must_sign: bool,
}

/// All clients of the cluster, by number.
#[derive(Debug, Clone, Default)]
pub struct ClientDirectory {
    clients: Vec<ClientKeys>,
}

impl ClientDirectory {
    /// The directory of clients `0..`, in order.
    #[must_use]
    pub fn new(clients: Vec<ClientKeys>) -> Self {
        Self { clients }
    }

    /// What is known of a client; `None` for a stranger.
    #[must_use]
    pub fn get(&self, client: ClientId) -> Option<&ClientKeys> {
        self.clients.get(client.get() as usize)
    }

    /// From now on this client has to sign.
    pub fn require_signature(&mut self, client: ClientId) {
        if let Some(keys) = self.clients.get_mut(client.get() as usize) {
            keys.must_sign = true;
        }
    }

    /// How many clients there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is no client.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}
