use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::smr::crypto::{MacKey, VerifyingKey};
use crate::smr::types::ClientId;

/// What a replica judges one client's frames by.
#[derive(Debug, Clone)]
pub struct ClientKeys {
    /// The client's public signing key.
    pub verifying: VerifyingKey,
    /// The key this replica shares with the client. `None` when the client's configured link key yields none:
    /// such a client can only sign.
    pub mac: Option<MacKey>,
    /// Whether only a signature gets this client's frames in, because one of its MACs was disputed.
    pub must_sign: RequireSignature,
}

/// Whether a client has to sign. Copies are one: what one shard learns, all know.
#[derive(Debug, Clone, Default)]
pub struct RequireSignature(Arc<AtomicBool>);

impl RequireSignature {
    /// Whether it has to.
    #[must_use]
    pub fn is_set(&self) -> bool {
        // Whoever sees it late has taken a frame that came before.
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, must_sign: bool) {
        self.0.store(must_sign, Ordering::Relaxed);
    }
}

/// All clients of the cluster. They are numbered from zero, so a look-up is an index.
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

    /// From now on this client's own frames need a signature, or do not any more. A stranger stays a
    /// stranger. Holds for all copies of the directory.
    pub fn require_signature(&self, client: ClientId, must_sign: bool) {
        if let Some(keys) = self.clients.get(client.get() as usize) {
            keys.must_sign.set(must_sign);
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
