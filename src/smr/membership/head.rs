use std::ops::RangeInclusive;

use super::encoding::{Reader, Writer};
use super::party::{CLIENTS_MAX, KeyPurpose, Member, Operators, Party};
use super::{Agreement, MalformedMembership, MembershipError};
use crate::smr::crypto::{Domain, lasting_digest};
use crate::smr::types::{
    ApplicationId, ClusterId, Digest, Epoch, MemberSlot, NodeId, Quorum, QuorumError, REPLICAS_MAX,
};

/// The format of an encoded membership.
pub(super) const MEMBERSHIP_FORMAT: u16 = 1;

/// All of a [`Membership`](super::Membership) but its clients, whom it names by their digest. A few hundred
/// bytes for each member, however many clients there are: this is what a chain of epochs consists of.
///
/// Invariant: what `check` demands, before there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipHead {
    pub(super) cluster: ClusterId,
    pub(super) epoch: Epoch,
    pub(super) protocol_version: u16,
    pub(super) application: ApplicationId,
    pub(super) agreement: Agreement,
    pub(super) operators: Operators,
    /// The number of the next member that joins: all below are given away.
    pub(super) next_node: u32,
    /// Ascending by id; the index is the slot.
    pub(super) members: Vec<Member>,
    /// The number of the next client.
    pub(super) next_client: u64,
    pub(super) client_count: u32,
    pub(super) clients: Digest,
}

impl MembershipHead {
    /// The bytes of everything but members and operators: numbers, application, agreed values, digest.
    const FIXED_BYTES: usize = 2 + 8 + 2 + ApplicationId::BYTES + 12 * 9 + 4 + 4 + 8 + 4 + 32;

    /// No head has more bytes.
    pub const BYTES_MAX: usize = Self::FIXED_BYTES + Operators::BYTES_MAX + REPLICAS_MAX * Member::BYTES_MAX;

    /// The cluster. It is not encoded: who decodes knows it, and who signs names it.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The number of this membership.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The version of messages and of what they are digested with.
    #[must_use]
    pub fn protocol_version(&self) -> u16 {
        self.protocol_version
    }

    /// What the cluster serves.
    #[must_use]
    pub fn application(&self) -> ApplicationId {
        self.application
    }

    /// What all members do alike.
    #[must_use]
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// Who may change it.
    #[must_use]
    pub fn operators(&self) -> &Operators {
        &self.operators
    }

    /// The members, in the order of their numbers and slots.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The number that the next member to join gets; beyond what a [`NodeId`] is when all are used up.
    #[must_use]
    pub fn next_node(&self) -> u32 {
        self.next_node
    }

    /// The number that the next client gets.
    #[must_use]
    pub fn next_client(&self) -> u64 {
        self.next_client
    }

    /// How many clients there are.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.client_count as usize
    }

    /// The digest of the list of clients.
    #[must_use]
    pub fn clients_digest(&self) -> Digest {
        self.clients
    }

    /// The arithmetic of this epoch.
    ///
    /// # Panics
    /// Never: the number of members is checked before there is a head.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        Quorum::of(self.members.len()).expect("a checked membership has a possible number of members")
    }

    /// The slot of a member; `None` if it is none of this epoch.
    #[must_use]
    pub fn slot_of(&self, node: NodeId) -> Option<MemberSlot> {
        let found = self.members.binary_search_by_key(&node, |member| member.id);
        MemberSlot::new(found.ok()?)
    }

    /// The member at a slot; `None` beyond the last.
    #[must_use]
    pub fn member_at(&self, slot: MemberSlot) -> Option<&Member> {
        self.members.get(slot.index())
    }

    /// The member with this number.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.member_at(self.slot_of(node)?)
    }

    /// Whether a release that speaks these protocol versions can take part. One that cannot stops and says
    /// so: it may not judge changes otherwise than releases that can.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_release(&self, spoken: RangeInclusive<u16>) -> Result<(), UnsupportedProtocol> {
        match spoken.contains(&self.protocol_version) {
            true => Ok(()),
            false => Err(UnsupportedProtocol {
                epoch: self.epoch,
                in_force: self.protocol_version,
                min: *spoken.start(),
                max: *spoken.end(),
            }),
        }
    }

    /// The digest of this membership, its clients included. It does not cover the cluster.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut out = Writer::with_capacity(1024);
        self.encode_into(&mut out);
        lasting_digest(Domain::Membership, &out.finish())
    }

    /// The head as bytes: the one form it has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(1024);
        self.encode_into(&mut out);
        out.finish()
    }

    /// Reads a head of a cluster.
    ///
    /// # Errors
    /// When the bytes are not exactly one that is possible.
    pub fn decode(cluster: ClusterId, bytes: &[u8]) -> Result<Self, MalformedMembership> {
        let mut from = Reader::new(bytes);
        let head = Self::decode_from(cluster, &mut from)?;
        from.finish()?;
        Ok(head)
    }

    pub(super) fn encode_into(&self, out: &mut Writer) {
        out.u16(MEMBERSHIP_FORMAT);
        out.u64(self.epoch.get());
        out.u16(self.protocol_version);
        out.bytes(&self.application.to_bytes());
        self.agreement.encode(out);
        self.operators.encode(out);
        out.u32(self.next_node);
        out.count(self.members.len());
        self.members.iter().for_each(|member| member.encode(out));
        out.u64(self.next_client);
        out.u32(self.client_count);
        out.bytes(self.clients.as_bytes());
    }

    pub(super) fn decode_from(
        cluster: ClusterId,
        from: &mut Reader<'_>,
    ) -> Result<Self, MalformedMembership> {
        from.format("a membership", MEMBERSHIP_FORMAT)?;
        let head = Self {
            cluster,
            epoch: Epoch::new(from.u64("the epoch")?),
            protocol_version: from.u16("the protocol version")?,
            application: from.application()?,
            agreement: Agreement::decode(from)?,
            operators: Operators::decode(from)?,
            next_node: from.u32("the next member's number")?,
            members: {
                let count = from.count("members", REPLICAS_MAX, Member::BYTES_MIN)?;
                (0..count)
                    .map(|_| Member::decode(from))
                    .collect::<Result<_, _>>()?
            },
            next_client: from.u64("the next client's number")?,
            client_count: from.u32("the number of clients")?,
            clients: from.digest("the clients' digest")?,
        };
        head.check()?;
        Ok(head)
    }

    /// Whether a cluster can be like that, as far as its clients are left aside.
    pub(super) fn check(&self) -> Result<(), MembershipError> {
        Quorum::of(self.members.len()).map_err(|error: QuorumError| MembershipError::Size(error))?;
        self.check_order()?;
        self.check_addresses()?;
        self.operators.check()?;
        check_keys(self.keys())?;
        self.agreement.validate()?;
        if self.application == ApplicationId::NONE {
            return Err(MembershipError::NoApplication);
        }
        if self.protocol_version == 0 {
            return Err(MembershipError::NoProtocolVersion);
        }
        match self.client_count() {
            count if count > CLIENTS_MAX => Err(MembershipError::TooManyClients(count)),
            count if count as u64 > self.next_client => Err(MembershipError::OtherClients),
            _ => Ok(()),
        }
    }

    /// Whether this can follow `before` at all. What operators asked for is not known here; but no change
    /// takes numbers or versions back, and a quorum that says so is not one to follow.
    pub(super) fn check_follows(&self, before: &Self) -> Result<(), UnlikelySuccessor> {
        if self.next_node < before.next_node || self.next_client < before.next_client {
            return Err(UnlikelySuccessor::NumbersTakenBack);
        }
        let is_returning = |member: &&Member| {
            let is_old = u32::from(member.id.get()) < before.next_node;
            is_old && before.slot_of(member.id).is_none()
        };
        if let Some(member) = self.members.iter().find(is_returning) {
            return Err(UnlikelySuccessor::MemberReturns(member.id));
        }
        let is_raised = before.protocol_version.checked_add(1) == Some(self.protocol_version);
        if self.protocol_version != before.protocol_version && !is_raised {
            return Err(UnlikelySuccessor::ProtocolVersion(self.protocol_version));
        }
        let (now, then) = (self.application, before.application);
        match now.name() != then.name() || now.version() < then.version() {
            true => Err(UnlikelySuccessor::Application(now)),
            false => Ok(()),
        }
    }

    fn check_order(&self) -> Result<(), MembershipError> {
        let mut next = 0;
        for member in &self.members {
            let id = u32::from(member.id.get());
            if id < next || id >= self.next_node {
                return Err(MembershipError::MemberOrder(member.id));
            }
            next = id + 1;
        }
        // Numbers end with those that a member can have, and so does their counter.
        match self.next_node > u32::from(u16::MAX) + 1 || self.next_client > u64::from(u32::MAX) + 1 {
            true => Err(MembershipError::MemberOrder(NodeId::new(u16::MAX))),
            false => Ok(()),
        }
    }

    fn check_addresses(&self) -> Result<(), MembershipError> {
        for (index, member) in self.members.iter().enumerate() {
            member.check_addresses()?;
            for other in &self.members[..index] {
                let shared = |address: &&String| other.addresses.contains(address);
                if let Some(address) = member.addresses.iter().find(shared) {
                    return Err(MembershipError::AddressTwice {
                        address: address.clone(),
                        first: other.id,
                        second: member.id,
                    });
                }
            }
        }
        Ok(())
    }

    /// The keys of members and operators.
    pub(super) fn keys(&self) -> impl Iterator<Item = OwnedKey> + Clone + '_ {
        let members = self.members.iter().flat_map(|member| {
            let party = Party::Member(member.id);
            let signing = (*member.signing_key.as_bytes(), KeyPurpose::Signing, party);
            [signing, (*member.link_key.as_bytes(), KeyPurpose::Link, party)]
        });
        let operators = self.operators.keys().iter();
        members.chain(operators.map(|key| (*key.as_bytes(), KeyPurpose::Signing, Party::Operator)))
    }
}

/// What no change makes of a membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnlikelySuccessor {
    /// Numbers would be given again.
    #[error("the next membership takes numbers back that were given away")]
    NumbersTakenBack,
    /// Who has left is there again.
    #[error("{0} has left and would be a member again")]
    MemberReturns(NodeId),
    /// The protocol goes back, or jumps.
    #[error("protocol version {0} does not follow")]
    ProtocolVersion(u16),
    /// The application is another one, or goes back.
    #[error("{0} does not follow")]
    Application(ApplicationId),
}

/// A release does not speak the protocol version of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "epoch {epoch} speaks protocol version {in_force}, this release {min} to {max}: install one that has it"
)]
pub struct UnsupportedProtocol {
    /// The epoch.
    pub epoch: Epoch,
    /// The version in force.
    pub in_force: u16,
    /// The first version that the release speaks.
    pub min: u16,
    /// The last one.
    pub max: u16,
}

/// A key, what it is for, and whose it is.
pub(super) type OwnedKey = ([u8; 32], KeyPurpose, Party);

/// Whether no key is there twice, for whatever purpose.
pub(super) fn check_keys(keys: impl Iterator<Item = OwnedKey> + Clone) -> Result<(), MembershipError> {
    let mut sorted: Vec<[u8; 32]> = keys.clone().map(|(key, ..)| key).collect();
    sorted.sort_unstable();
    let Some(twice) = sorted.windows(2).find(|two| two[0] == two[1]) else {
        return Ok(());
    };
    let mut owners = keys.filter(|(key, ..)| *key == twice[0]);
    let (Some((key, _, first)), Some((_, purpose, second))) = (owners.next(), owners.next()) else {
        return Ok(());
    };
    Err(MembershipError::KeyTwice {
        key: hex::encode(key),
        purpose,
        first,
        second,
    })
}
