use std::sync::Arc;

use super::encoding::{Reader, Writer};
use super::head::{MembershipHead, check_keys};
use super::party::{CLIENTS_MAX, ClientRights, KeyPurpose, Party, RegisteredClient};
use super::{MalformedMembership, MembershipError};
use crate::smr::crypto::{Domain, lasting_digest};
use crate::smr::types::{ClientId, ClusterId, Digest};

/// Who is in a cluster during an epoch, and what they agree on.
///
/// Copies share the clients.
///
/// Invariant: the head is one that is possible, its clients' digest is that of `clients`, and no key is there
/// twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    head: MembershipHead,
    /// Ascending by id.
    clients: Arc<Vec<RegisteredClient>>,
}

impl Membership {
    /// The membership of a head and the clients that it names.
    ///
    /// # Errors
    /// When they are not its clients, or not possible together.
    pub fn new(head: MembershipHead, clients: Vec<RegisteredClient>) -> Result<Self, MembershipError> {
        head.check()?;
        let membership = Self {
            head,
            clients: Arc::new(clients),
        };
        membership.check_clients()?;
        check_keys(membership.keys())?;
        Ok(membership)
    }

    fn check_clients(&self) -> Result<(), MembershipError> {
        if self.clients.len() > CLIENTS_MAX {
            return Err(MembershipError::TooManyClients(self.clients.len()));
        }
        let mut next = 0;
        for client in self.clients.iter() {
            let id = u64::from(client.id.get());
            if id < next || id >= self.head.next_client {
                return Err(MembershipError::ClientOrder(client.id));
            }
            if client.rights == ClientRights::NONE {
                return Err(MembershipError::NoRights(client.id));
            }
            next = id + 1;
        }
        let is_counted = self.clients.len() == self.head.client_count();
        match is_counted && clients_digest(&self.clients) == self.head.clients {
            true => Ok(()),
            false => Err(MembershipError::OtherClients),
        }
    }

    /// The successor of a membership: `head` was checked, and `clients` differ from those of before by what
    /// was checked too. They are `None` if they are the same.
    pub(super) fn succeed(&self, mut head: MembershipHead, clients: Option<Vec<RegisteredClient>>) -> Self {
        let clients = match clients {
            Some(clients) => {
                head.client_count = u32::try_from(clients.len()).unwrap_or(u32::MAX);
                head.clients = clients_digest(&clients);
                Arc::new(clients)
            }
            None => self.clients.clone(),
        };
        Self { head, clients }
    }

    /// Everything but the clients.
    #[must_use]
    pub fn head(&self) -> &MembershipHead {
        &self.head
    }

    /// The clients, in the order of their numbers.
    #[must_use]
    pub fn clients(&self) -> &[RegisteredClient] {
        &self.clients
    }

    /// The client with this number; `None` for one that is not registered, or not any more.
    #[must_use]
    pub fn client(&self, client: ClientId) -> Option<&RegisteredClient> {
        let found = self.clients.binary_search_by_key(&client, |known| known.id);
        self.clients.get(found.ok()?)
    }

    /// The digest of all of it but the cluster.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.head.digest()
    }

    /// The keys of all parties.
    pub(super) fn keys(&self) -> impl Iterator<Item = super::head::OwnedKey> + Clone + '_ {
        let clients = self.clients.iter().flat_map(|client| {
            let party = Party::Client(client.id);
            let signing = (*client.signing_key.as_bytes(), KeyPurpose::Signing, party);
            [signing, (*client.link_key.as_bytes(), KeyPurpose::Link, party)]
        });
        self.head.keys().chain(clients)
    }

    /// The membership as bytes: the one form it has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(1024 + self.clients.len() * RegisteredClient::BYTES);
        self.head.encode_into(&mut out);
        encode_clients(&self.clients, &mut out);
        out.finish()
    }

    /// Reads a membership of a cluster.
    ///
    /// # Errors
    /// When the bytes are not exactly one that is possible.
    pub fn decode(cluster: ClusterId, bytes: &[u8]) -> Result<Self, MalformedMembership> {
        let mut from = Reader::new(bytes);
        let head = MembershipHead::decode_from(cluster, &mut from)?;
        let clients = decode_clients(&mut from)?;
        from.finish()?;
        Ok(Self::new(head, clients)?)
    }
}

pub(super) fn encode_clients(clients: &[RegisteredClient], out: &mut Writer) {
    out.count(clients.len());
    clients.iter().for_each(|client| client.encode(out));
}

pub(super) fn decode_clients(from: &mut Reader<'_>) -> Result<Vec<RegisteredClient>, MalformedMembership> {
    let count = from.count("clients", CLIENTS_MAX, RegisteredClient::BYTES)?;
    (0..count).map(|_| RegisteredClient::decode(from)).collect()
}

/// The digest of a list of clients.
pub(super) fn clients_digest(clients: &[RegisteredClient]) -> Digest {
    let mut out = Writer::with_capacity(4 + clients.len() * RegisteredClient::BYTES);
    encode_clients(clients, &mut out);
    lasting_digest(Domain::Clients, &out.finish())
}
