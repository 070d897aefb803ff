use std::collections::BTreeMap;

use super::change::{CHANGE_REQUEST_BYTES_MAX, CHANGES_MAX, Change, ChangeRequest};
use super::genesis::check_key;
use super::head::MembershipHead;
use super::party::{ClientRights, KeyPurpose, Member, Operators, Party, RegisteredClient};
use super::{Membership, MembershipError};
use crate::smr::crypto::{Domain, LinkPublic, VerifyingKey};
use crate::smr::types::{ApplicationId, ClientId, ClusterId, Epoch, NodeId};

/// Why a request changes nothing. The same at every replica, as it follows from request and membership alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// It is about another cluster.
    #[error("the request is about cluster {0}")]
    OtherCluster(ClusterId),
    /// It builds on another membership.
    #[error(
        "the request builds on epoch {base}, this is epoch {current}: look at the membership, and ask again"
    )]
    OtherEpoch {
        /// What it builds on.
        base: Epoch,
        /// What there is.
        current: Epoch,
    },
    /// The number of epochs is used up.
    #[error("there is no epoch after this one")]
    LastEpoch,
    /// The cluster has no operators, and never will.
    #[error("the cluster was made without operators: nothing about it can be changed")]
    NoOperators,
    /// Somebody signed who is no operator.
    #[error("the key {0} is no operator's")]
    NotAnOperator(VerifyingKey),
    /// An operator's signature is there twice.
    #[error("operator {0} has signed twice")]
    SignedTwice(VerifyingKey),
    /// A signature does not hold.
    #[error("the signature of operator {0} is not valid")]
    BadSignature(VerifyingKey),
    /// Fewer operators signed than have to.
    #[error("{got} operators have signed, {needed} have to")]
    TooFewSignatures {
        /// How many did.
        got: usize,
        /// How many have to.
        needed: usize,
    },
    /// Nothing is asked for.
    #[error("the request has no changes")]
    NoChanges,
    /// More is asked for than fits an epoch.
    #[error(
        "{changes} changes in {bytes} bytes, at most {CHANGES_MAX} in {CHANGE_REQUEST_BYTES_MAX}: ask in \
         several"
    )]
    TooLong {
        /// How many changes.
        changes: usize,
        /// Of how many bytes, with signatures.
        bytes: usize,
    },
    /// A change is none: everything is like that.
    #[error("\"{0}\" changes nothing")]
    NoEffect(String),
    /// There is no such member.
    #[error("{0} is no member")]
    NoSuchMember(NodeId),
    /// There is no such client.
    #[error("{0} is no client")]
    NoSuchClient(ClientId),
    /// A member would have a number that is not its turn; numbers are never given again.
    #[error("{got} cannot join under this number: the next one is {next}, and none is given again")]
    MemberNotNext {
        /// The number.
        got: NodeId,
        /// The next number; beyond 65,535 if all are used up.
        next: u32,
    },
    /// The same of a client.
    #[error("{got} cannot be registered under this number: the next one is {next}, and none is given again")]
    ClientNotNext {
        /// The number.
        got: ClientId,
        /// The next number; beyond 4,294,967,295 if all are used up.
        next: u64,
    },
    /// A member that nobody would find.
    #[error("{0} would have no address")]
    NoAddress(NodeId),
    /// A key that somebody has, or gets by the same request. A key stays its first owner's: it may be used in
    /// what was signed before.
    #[error("the {purpose} {key} of {party} is {owner}'s")]
    KeyTaken {
        /// The key, in hexadecimal.
        key: String,
        /// What it would be for.
        purpose: KeyPurpose,
        /// Who would have it.
        party: Party,
        /// Who has it.
        owner: Party,
    },
    /// The protocol's version goes up by one: a release reads its own and the one before.
    #[error("protocol version {got} does not follow {current}")]
    ProtocolVersionNotNext {
        /// The version.
        got: u16,
        /// The one in force.
        current: u16,
    },
    /// An application never goes back.
    #[error("application version {got} is not later than {current}")]
    ApplicationVersionNotLater {
        /// The version.
        got: u32,
        /// The one in force.
        current: u32,
    },
    /// What would be left is no membership.
    #[error("no cluster is left that works: {0}")]
    Unusable(#[from] MembershipError),
}

impl Membership {
    /// The membership that a request makes of this one: everything in it is changed, or nothing.
    ///
    /// What a release supports does not matter here, or replicas of different releases would judge
    /// differently: that is [`check_release`](MembershipHead::check_release)'s.
    ///
    /// # Errors
    /// Why nothing is changed. The first reason that is found; which that is, is the same everywhere.
    pub fn next(&self, request: &ChangeRequest) -> Result<Self, ChangeRefused> {
        self.authorize(request)?;
        self.draft(&request.changes)
    }

    /// The membership that changes would make of this one if the operators signed them: what they are shown
    /// before.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn draft(&self, changes: &[Change]) -> Result<Self, ChangeRefused> {
        if changes.is_empty() {
            return Err(ChangeRefused::NoChanges);
        }
        let mut draft = Draft {
            base: self,
            head: self.head().clone(),
            clients: BTreeMap::new(),
            fresh: BTreeMap::new(),
        };
        if self.head().epoch() == self.head().epoch().next() {
            return Err(ChangeRefused::LastEpoch);
        }
        draft.head.epoch = self.head().epoch().next();
        changes.iter().try_for_each(|change| draft.apply(change))?;
        draft.finish()
    }

    /// Whether a request is one of this cluster's operators, about this membership.
    fn authorize(&self, request: &ChangeRequest) -> Result<(), ChangeRefused> {
        let head = self.head();
        if request.cluster != head.cluster() {
            return Err(ChangeRefused::OtherCluster(request.cluster));
        }
        if request.base_epoch != head.epoch() {
            return Err(ChangeRefused::OtherEpoch {
                base: request.base_epoch,
                current: head.epoch(),
            });
        }
        if head.operators().is_empty() {
            return Err(ChangeRefused::NoOperators);
        }
        let (changes, bytes) = (request.changes.len(), request.encode().len());
        if changes > CHANGES_MAX || bytes > CHANGE_REQUEST_BYTES_MAX {
            return Err(ChangeRefused::TooLong { changes, bytes });
        }
        // Who signed is settled before anything is verified: no more than there are operators.
        let mut signers: Vec<VerifyingKey> = request.signatures.iter().map(|one| one.signer).collect();
        if let Some(stranger) = signers.iter().find(|signer| !head.operators().has(signer)) {
            return Err(ChangeRefused::NotAnOperator(*stranger));
        }
        signers.sort_unstable();
        if let Some(two) = signers.windows(2).find(|two| two[0] == two[1]) {
            return Err(ChangeRefused::SignedTwice(two[0]));
        }
        let (got, needed) = (signers.len(), head.operators().threshold());
        if got < needed {
            return Err(ChangeRefused::TooFewSignatures { got, needed });
        }
        let digest = request.digest();
        for one in &request.signatures {
            let verified = one.signer.verify(Domain::ChangeRequest, &digest, &one.signature);
            verified.map_err(|_| ChangeRefused::BadSignature(one.signer))?;
        }
        Ok(())
    }
}

/// A membership in the making.
struct Draft<'a> {
    base: &'a Membership,
    head: MembershipHead,
    /// Clients that are new or other than before; `None` for those that are revoked.
    clients: BTreeMap<ClientId, Option<RegisteredClient>>,
    /// The keys that parties get, what for, and who.
    fresh: BTreeMap<[u8; 32], (KeyPurpose, Party)>,
}

impl Draft<'_> {
    fn apply(&mut self, change: &Change) -> Result<(), ChangeRefused> {
        let has_effect = match change {
            Change::AddMember(new) => return self.add_member(new),
            Change::RemoveMember(old) => return self.remove_member(*old),
            Change::ReplaceMember { old, new } => {
                self.remove_member(*old)?;
                return self.add_member(new);
            }
            Change::RotateMemberKeys {
                member,
                signing_key,
                link_key,
            } => self.rotate_member(*member, *signing_key, *link_key)?,
            Change::SetAddresses { member, addresses } => self.set_addresses(*member, addresses)?,
            Change::AddClient(new) => return self.add_client(new),
            Change::RevokeClient(client) => {
                self.client(*client)?;
                self.clients.insert(*client, None);
                true
            }
            Change::LimitClient {
                client,
                rights,
                operations_per_second,
            } => self.change_client(*client, |known| {
                known.rights = *rights;
                known.operations_per_second = *operations_per_second;
            })?,
            Change::RotateClientKeys {
                client,
                signing_key,
                link_key,
            } => self.rotate_client(*client, *signing_key, *link_key)?,
            Change::SetAgreement(setting) => {
                let next = self.head.agreement.with(*setting);
                std::mem::replace(&mut self.head.agreement, next) != self.head.agreement
            }
            Change::SetOperators(operators) => self.set_operators(operators)?,
            Change::RaiseProtocolVersion(version) => return self.raise_protocol(*version),
            Change::ActivateApplication(version) => return self.activate_application(*version),
        };
        match has_effect {
            true => Ok(()),
            false => Err(ChangeRefused::NoEffect(change.to_string())),
        }
    }

    fn add_member(&mut self, new: &Member) -> Result<(), ChangeRefused> {
        let next = self.head.next_node;
        if u32::from(new.id.get()) != next {
            return Err(ChangeRefused::MemberNotNext { got: new.id, next });
        }
        if new.addresses.is_empty() {
            return Err(ChangeRefused::NoAddress(new.id));
        }
        let party = Party::Member(new.id);
        self.take_key(*new.signing_key.as_bytes(), KeyPurpose::Signing, party)?;
        self.take_key(*new.link_key.as_bytes(), KeyPurpose::Link, party)?;
        self.head.next_node = next + 1;
        self.head.members.push(new.clone());
        Ok(())
    }

    fn remove_member(&mut self, old: NodeId) -> Result<(), ChangeRefused> {
        let slot = self.head.slot_of(old).ok_or(ChangeRefused::NoSuchMember(old))?;
        self.head.members.remove(slot.index());
        Ok(())
    }

    fn member(&mut self, node: NodeId) -> Result<&mut Member, ChangeRefused> {
        let slot = self.head.slot_of(node);
        let member = slot.and_then(|slot| self.head.members.get_mut(slot.index()));
        member.ok_or(ChangeRefused::NoSuchMember(node))
    }

    fn rotate_member(
        &mut self,
        node: NodeId,
        signing_key: VerifyingKey,
        link_key: LinkPublic,
    ) -> Result<bool, ChangeRefused> {
        let member = self.member(node)?;
        let signs_anew = std::mem::replace(&mut member.signing_key, signing_key) != signing_key;
        let links_anew = std::mem::replace(&mut member.link_key, link_key) != link_key;
        let party = Party::Member(node);
        self.take_other(signs_anew, *signing_key.as_bytes(), KeyPurpose::Signing, party)?;
        self.take_other(links_anew, *link_key.as_bytes(), KeyPurpose::Link, party)?;
        Ok(signs_anew || links_anew)
    }

    fn set_addresses(&mut self, node: NodeId, addresses: &[String]) -> Result<bool, ChangeRefused> {
        let member = self.member(node)?;
        if addresses.is_empty() {
            return Err(ChangeRefused::NoAddress(node));
        }
        let before = std::mem::replace(&mut member.addresses, addresses.to_vec());
        Ok(before != addresses)
    }

    /// A client as it is by now.
    fn client(&self, client: ClientId) -> Result<RegisteredClient, ChangeRefused> {
        let known = match self.clients.get(&client) {
            Some(changed) => changed.as_ref(),
            None => self.base.client(client),
        };
        known.cloned().ok_or(ChangeRefused::NoSuchClient(client))
    }

    /// Whether a client is another one then.
    fn change_client(
        &mut self,
        client: ClientId,
        change: impl FnOnce(&mut RegisteredClient),
    ) -> Result<bool, ChangeRefused> {
        let before = self.client(client)?;
        let mut after = before.clone();
        change(&mut after);
        if after.rights == ClientRights::NONE {
            return Err(MembershipError::NoRights(client).into());
        }
        let is_other = before != after;
        self.clients.insert(client, Some(after));
        Ok(is_other)
    }

    fn add_client(&mut self, new: &RegisteredClient) -> Result<(), ChangeRefused> {
        let next = self.head.next_client;
        if u64::from(new.id.get()) != next {
            return Err(ChangeRefused::ClientNotNext { got: new.id, next });
        }
        if new.rights == ClientRights::NONE {
            return Err(MembershipError::NoRights(new.id).into());
        }
        let party = Party::Client(new.id);
        self.take_key(*new.signing_key.as_bytes(), KeyPurpose::Signing, party)?;
        self.take_key(*new.link_key.as_bytes(), KeyPurpose::Link, party)?;
        self.head.next_client = next + 1;
        self.clients.insert(new.id, Some(new.clone()));
        Ok(())
    }

    fn rotate_client(
        &mut self,
        client: ClientId,
        signing_key: VerifyingKey,
        link_key: LinkPublic,
    ) -> Result<bool, ChangeRefused> {
        let before = self.client(client)?;
        let (signs_anew, links_anew) = (before.signing_key != signing_key, before.link_key != link_key);
        let party = Party::Client(client);
        self.take_other(signs_anew, *signing_key.as_bytes(), KeyPurpose::Signing, party)?;
        self.take_other(links_anew, *link_key.as_bytes(), KeyPurpose::Link, party)?;
        self.change_client(client, |known| {
            known.signing_key = signing_key;
            known.link_key = link_key;
        })
    }

    fn set_operators(&mut self, operators: &Operators) -> Result<bool, ChangeRefused> {
        if operators.is_empty() {
            let (threshold, operators) = (0, 0);
            return Err(MembershipError::Threshold { threshold, operators }.into());
        }
        let before = std::mem::replace(&mut self.head.operators, operators.clone());
        for key in operators.keys() {
            let is_other = !before.has(key) && !self.base.head().operators().has(key);
            self.take_other(is_other, *key.as_bytes(), KeyPurpose::Signing, Party::Operator)?;
        }
        Ok(before != *operators)
    }

    fn raise_protocol(&mut self, version: u16) -> Result<(), ChangeRefused> {
        let current = self.base.head().protocol_version();
        if Some(version) != current.checked_add(1) {
            let got = version;
            return Err(ChangeRefused::ProtocolVersionNotNext { got, current });
        }
        self.head.protocol_version = version;
        Ok(())
    }

    fn activate_application(&mut self, version: u32) -> Result<(), ChangeRefused> {
        let (got, current) = (version, self.head.application.version());
        if got <= current {
            return Err(ChangeRefused::ApplicationVersionNotLater { got, current });
        }
        let next = ApplicationId::new(self.head.application.name(), version);
        self.head.application = next.map_err(|_| MembershipError::NoApplication)?;
        Ok(())
    }

    fn take_other(
        &mut self,
        is_other: bool,
        key: [u8; 32],
        purpose: KeyPurpose,
        party: Party,
    ) -> Result<(), ChangeRefused> {
        match is_other {
            true => self.take_key(key, purpose, party),
            false => Ok(()),
        }
    }

    /// A party gets a key.
    fn take_key(&mut self, key: [u8; 32], purpose: KeyPurpose, party: Party) -> Result<(), ChangeRefused> {
        check_key(&key, purpose, party)?;
        match self.fresh.insert(key, (purpose, party)) {
            None => Ok(()),
            Some((_, owner)) => Err(taken(&key, (purpose, party), owner)),
        }
    }

    /// The membership, if it is one.
    fn finish(self) -> Result<Membership, ChangeRefused> {
        if !self.fresh.is_empty() {
            for (key, _, owner) in self.base.keys() {
                if let Some(claim) = self.fresh.get(&key) {
                    return Err(taken(&key, *claim, owner));
                }
            }
        }
        let clients = (!self.clients.is_empty()).then(|| {
            let kept = self.base.clients().iter();
            let kept = kept
                .filter(|client| !self.clients.contains_key(&client.id))
                .cloned();
            let mut clients: Vec<RegisteredClient> =
                kept.chain(self.clients.values().flatten().cloned()).collect();
            clients.sort_unstable_by_key(|client| client.id);
            clients
        });
        let count = clients.as_ref().map_or(self.base.clients().len(), Vec::len);
        let mut head = self.head;
        head.client_count = u32::try_from(count).unwrap_or(u32::MAX);
        head.check()?;
        Ok(self.base.succeed(head, clients))
    }
}

fn taken(key: &[u8; 32], (purpose, party): (KeyPurpose, Party), owner: Party) -> ChangeRefused {
    ChangeRefused::KeyTaken {
        key: hex::encode(key),
        purpose,
        party,
        owner,
    }
}
