use super::encoding::{Reader, Writer};
use super::head::MembershipHead;
use super::party::{KeyPurpose, Member, Operators, Party, RegisteredClient};
use super::{Agreement, MalformedMembership, Membership, MembershipError};
use crate::smr::crypto::{Domain, VerifyingKey, lasting_digest};
use crate::smr::types::{ApplicationId, ClusterId, Epoch};

/// The format of an encoded genesis.
const GENESIS_FORMAT: u16 = 1;

/// The longest name, and the longest random text, of a genesis, in bytes.
pub const GENESIS_TEXT_BYTES_MAX: usize = 256;

/// What a cluster is born with. Its digest is the cluster's identity for ever; what changes later is the
/// membership.
///
/// The digest covers the whole founding membership: members, clients, operators, agreed values, application
/// and protocol version. Name, random text and operators would be enough to tell clusters apart whose
/// founders are careful. But replicas whose files differ in a client or a limit would take one another for
/// members of one cluster then, judge frames and checkpoints differently from the first decision on, and find
/// out when their states differ. So they do not talk.
///
/// It does not cover addresses: founding members have none that were agreed on. They are found where each
/// party's own file says, until an operator [sets](super::Change::SetAddresses) one; so a file may be edited
/// where a host moves, and what later memberships say of addresses is the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// A name for people.
    pub name: String,
    /// Random, so that no two clusters are ever one.
    pub random: String,
    /// The founding members, in the order of their numbers, without addresses.
    pub members: Vec<Member>,
    /// The founding clients, in the order of their numbers.
    pub clients: Vec<RegisteredClient>,
    /// The keys of those who may change the cluster; if there are none it never changes.
    pub operators: Vec<VerifyingKey>,
    /// How many of them have to sign.
    pub operators_threshold: u16,
    /// What all members do alike at first.
    pub agreement: Agreement,
    /// What the cluster serves.
    pub application: ApplicationId,
    /// The protocol version that it begins with.
    pub protocol_version: u16,
}

impl Genesis {
    /// The cluster's identity. It is that of a cluster if [`membership`](Self::membership) finds the genesis
    /// sound.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.identity(&self.head())
    }

    fn identity(&self, head: &MembershipHead) -> ClusterId {
        let mut out = Writer::default();
        self.encode_texts(&mut out);
        out.bytes(head.digest().as_bytes());
        let digest = lasting_digest(Domain::Genesis, &out.finish());
        let mut id = [0; 16];
        id.copy_from_slice(&digest.as_bytes()[..16]);
        ClusterId::from_bytes(id)
    }

    /// The membership of epoch 0.
    ///
    /// # Errors
    /// When no cluster can be born like that.
    pub fn membership(&self) -> Result<Membership, MembershipError> {
        for (what, text) in [("name", &self.name), ("random text", &self.random)] {
            if text.len() > GENESIS_TEXT_BYTES_MAX {
                return Err(MembershipError::GenesisText(what, text.len()));
            }
        }
        if let Some(member) = self.members.iter().find(|member| !member.addresses.is_empty()) {
            return Err(MembershipError::FoundingAddress(member.id));
        }
        let mut head = self.head();
        head.cluster = self.identity(&head);
        let membership = Membership::new(head, self.clients.clone())?;
        // A client whose keys are none harms nobody but itself; and there are up to a million of them.
        for (key, purpose, party) in membership.head().keys() {
            check_key(&key, purpose, party)?;
        }
        Ok(membership)
    }

    /// The founding membership's head, of whatever is said, and of no cluster yet.
    fn head(&self) -> MembershipHead {
        let last_node = self.members.last().map(|member| member.id.get());
        let last_client = self.clients.last().map(|client| client.id.get());
        MembershipHead {
            cluster: ClusterId::from_bytes([0; 16]),
            epoch: Epoch::ZERO,
            protocol_version: self.protocol_version,
            application: self.application,
            agreement: self.agreement.clone(),
            operators: Operators::unchecked(self.operators_threshold, self.operators.clone()),
            next_node: last_node.map_or(0, |last| u32::from(last) + 1),
            members: self.members.clone(),
            next_client: last_client.map_or(0, |last| u64::from(last) + 1),
            client_count: u32::try_from(self.clients.len()).unwrap_or(u32::MAX),
            clients: super::clients_digest(&self.clients),
        }
    }

    fn encode_texts(&self, out: &mut Writer) {
        out.u16(GENESIS_FORMAT);
        out.text(&self.name);
        out.text(&self.random);
    }

    /// The genesis as bytes: the one form it has.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(1024 + self.clients.len() * RegisteredClient::BYTES);
        self.encode_texts(&mut out);
        self.head().encode_into(&mut out);
        super::encode_clients(&self.clients, &mut out);
        out.finish()
    }

    /// Reads a genesis.
    ///
    /// # Errors
    /// When the bytes are not exactly one of which a cluster can be born.
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedMembership> {
        let mut from = Reader::new(bytes);
        from.format("a genesis", GENESIS_FORMAT)?;
        let name = from.text("bytes of a name", GENESIS_TEXT_BYTES_MAX)?;
        let random = from.text("bytes of a random text", GENESIS_TEXT_BYTES_MAX)?;
        let head = MembershipHead::decode_from(ClusterId::from_bytes([0; 16]), &mut from)?;
        let clients = super::decode_clients(&mut from)?;
        from.finish()?;
        let genesis = Self {
            name,
            random,
            operators_threshold: head.operators.threshold() as u16,
            operators: head.operators.keys().to_vec(),
            agreement: head.agreement.clone(),
            application: head.application,
            protocol_version: head.protocol_version,
            members: head.members.clone(),
            clients,
        };
        // What a founding membership does not choose has one value.
        if genesis.head() != head {
            return Err(MembershipError::Founding.into());
        }
        genesis.membership()?;
        Ok(genesis)
    }
}

/// Whether a key is one that only its owner can use.
pub(super) fn check_key(key: &[u8; 32], purpose: KeyPurpose, party: Party) -> Result<(), MembershipError> {
    let is_usable = match purpose {
        KeyPurpose::Signing => VerifyingKey::from_bytes(*key).is_usable(),
        KeyPurpose::Link => crate::smr::crypto::LinkPublic::from_bytes(*key).is_usable(),
    };
    match is_usable {
        true => Ok(()),
        false => Err(MembershipError::BadKey {
            key: hex::encode(key),
            purpose,
            party,
        }),
    }
}
