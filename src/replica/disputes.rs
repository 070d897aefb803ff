use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::messages::STATUS_DISPUTES;
use crate::types::{ClientId, NodeId};

/// Whose MACs failed in proposals: here, and by the word of others.
///
/// A client that convinces the leader and not enough backups stops the view (the "big MAC attack" of Clement et al.,
/// Aardvark, NSDI 2009, section 3.1). Those whom it convinced cannot tell by themselves; those whom it did not tell them. A
/// faulty replica may accuse whom it likes: what it achieves is that clients with something pending while a view is lost sign
/// from then on.
#[derive(Debug)]
pub(super) struct Disputes {
    clients: usize,
    /// The latest ones here.
    own: VecDeque<ClientId>,
    /// By replica: what its last status said.
    claimed: BTreeMap<NodeId, Vec<ClientId>>,
}

impl Disputes {
    pub(super) fn new(clients: usize) -> Self {
        Self {
            clients,
            own: VecDeque::new(),
            claimed: BTreeMap::new(),
        }
    }

    pub(super) fn add_own(&mut self, client: ClientId) {
        self.own.retain(|other| *other != client);
        self.own.push_back(client);
        if self.own.len() > STATUS_DISPUTES {
            self.own.pop_front();
        }
    }

    /// What our status says.
    pub(super) fn own(&self) -> Vec<ClientId> {
        self.own.iter().copied().collect()
    }

    /// What another's status says.
    pub(super) fn claim(&mut self, from: NodeId, clients: &[u32]) {
        let known = clients.iter().filter(|client| (**client as usize) < self.clients);
        let claimed: Vec<ClientId> = known.map(|client| ClientId::new(*client)).collect();
        match claimed.is_empty() {
            true => self.claimed.remove(&from),
            false => self.claimed.insert(from, claimed),
        };
    }

    /// Everybody that is accused.
    pub(super) fn all(&self) -> BTreeSet<ClientId> {
        let claimed = self.claimed.values().flatten();
        self.own.iter().chain(claimed).copied().collect()
    }
}
