use std::fmt;
use std::num::NonZeroU32;

use super::encoding::{Reader, Writer, is_ascending};
use super::{MalformedMembership, MembershipError};
use crate::smr::crypto::{LinkPublic, VerifyingKey};
use crate::smr::types::{ClientId, NodeId};

/// The most addresses of one member.
pub const ADDRESSES_MAX: usize = 4;

/// The longest address, in bytes: a host name of 253, a colon, and a port.
pub const ADDRESS_BYTES_MAX: usize = 259;

/// The most operators.
pub const OPERATORS_MAX: usize = 16;

/// The most clients that a membership has.
pub const CLIENTS_MAX: usize = 1 << 20;

/// Whether an address is `host:port`, and steers no terminal that it is shown on.
#[must_use]
pub fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_blank = |c: char| c.is_whitespace() || c.is_control();
        !host.is_empty() && !host.contains(is_blank) && port.parse::<u16>().is_ok()
    })
}

/// A replica as everybody in an epoch knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number, which is nobody else's, ever.
    pub id: NodeId,
    /// Verifies what it signs.
    pub signing_key: VerifyingKey,
    /// Proves it on its links.
    pub link_key: LinkPublic,
    /// Where it is found, as `host:port`, the best first. None if none was agreed on, as of founding members:
    /// then it is found where each party's own file says.
    pub addresses: Vec<String>,
}

impl Member {
    /// The fewest bytes of one: id, keys, number of addresses.
    pub(super) const BYTES_MIN: usize = 2 + 32 + 32 + 4;

    /// The most bytes of one.
    pub(super) const BYTES_MAX: usize = Self::BYTES_MIN + ADDRESSES_MAX * (4 + ADDRESS_BYTES_MAX);

    /// Whether its addresses are some, each once.
    pub(super) fn check_addresses(&self) -> Result<(), MembershipError> {
        if self.addresses.len() > ADDRESSES_MAX {
            return Err(MembershipError::TooManyAddresses(self.id, self.addresses.len()));
        }
        for (index, address) in self.addresses.iter().enumerate() {
            if address.len() > ADDRESS_BYTES_MAX || !is_host_and_port(address) {
                let address = address.chars().take(ADDRESS_BYTES_MAX).collect();
                return Err(MembershipError::BadAddress(self.id, address));
            }
            if self.addresses[..index].contains(address) {
                let (first, second) = (self.id, self.id);
                let address = address.clone();
                return Err(MembershipError::AddressTwice {
                    address,
                    first,
                    second,
                });
            }
        }
        Ok(())
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.u16(self.id.get());
        out.bytes(self.signing_key.as_bytes());
        out.bytes(self.link_key.as_bytes());
        encode_addresses(&self.addresses, out);
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, MalformedMembership> {
        Ok(Self {
            id: NodeId::new(from.u16("a member")?),
            signing_key: from.verifying_key()?,
            link_key: from.link_key()?,
            addresses: decode_addresses(from)?,
        })
    }
}

pub(super) fn encode_addresses(addresses: &[String], out: &mut Writer) {
    out.count(addresses.len());
    addresses.iter().for_each(|address| out.text(address));
}

pub(super) fn decode_addresses(from: &mut Reader<'_>) -> Result<Vec<String>, MalformedMembership> {
    let count = from.count("addresses of a member", ADDRESSES_MAX, 4)?;
    (0..count)
        .map(|_| from.text("bytes of an address", ADDRESS_BYTES_MAX))
        .collect()
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientRights {
    /// Ask what changes nothing.
    pub read: bool,
    /// Ask what changes the state.
    pub write: bool,
    /// Hand in what operators have signed, and see more of the cluster's condition. It makes nobody an
    /// operator.
    pub admin: bool,
}

impl ClientRights {
    /// Everything: what founding clients may do.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        admin: true,
    };

    /// Nothing: what no client has.
    pub const NONE: Self = Self {
        read: false,
        write: false,
        admin: false,
    };

    fn bits(self) -> u8 {
        u8::from(self.read) | u8::from(self.write) << 1 | u8::from(self.admin) << 2
    }

    pub(super) fn encode(self, out: &mut Writer) {
        out.u8(self.bits());
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, MalformedMembership> {
        let bits = from.u8("rights of a client")?;
        let has = |bit: u8| bits & bit != 0;
        let rights = Self {
            read: has(1),
            write: has(2),
            admin: has(4),
        };
        match rights.bits() == bits {
            true => Ok(rights),
            false => Err(MalformedMembership::Unknown("rights of a client")),
        }
    }
}

impl fmt::Display for ClientRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [(self.read, "read"), (self.write, "write"), (self.admin, "admin")];
        let has: Vec<&str> = named
            .iter()
            .filter(|(has, _)| *has)
            .map(|(_, name)| *name)
            .collect();
        match has.is_empty() {
            true => f.write_str("nothing"),
            false => f.write_str(&has.join(", ")),
        }
    }
}

/// A client as everybody in an epoch knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredClient {
    /// Its number, which is nobody else's, ever.
    pub id: ClientId,
    /// Verifies the frames that it signs.
    pub signing_key: VerifyingKey,
    /// Proves it on its links, and has it share MAC keys with members.
    pub link_key: LinkPublic,
    /// What it may do.
    pub rights: ClientRights,
    /// How many operations a second it may have ordered; as many as there is room for if `None`.
    pub operations_per_second: Option<NonZeroU32>,
}

impl RegisteredClient {
    /// The bytes of one.
    pub(super) const BYTES: usize = 4 + 32 + 32 + 1 + 4;

    pub(super) fn encode(&self, out: &mut Writer) {
        out.u32(self.id.get());
        out.bytes(self.signing_key.as_bytes());
        out.bytes(self.link_key.as_bytes());
        self.rights.encode(out);
        encode_rate(self.operations_per_second, out);
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, MalformedMembership> {
        Ok(Self {
            id: ClientId::new(from.u32("a client")?),
            signing_key: from.verifying_key()?,
            link_key: from.link_key()?,
            rights: ClientRights::decode(from)?,
            operations_per_second: decode_rate(from)?,
        })
    }
}

/// Zero stands for no limit.
pub(super) fn encode_rate(rate: Option<NonZeroU32>, out: &mut Writer) {
    out.u32(rate.map_or(0, NonZeroU32::get));
}

pub(super) fn decode_rate(from: &mut Reader<'_>) -> Result<Option<NonZeroU32>, MalformedMembership> {
    from.u32("a rate").map(NonZeroU32::new)
}

/// Who may change a membership: so many of these keys have to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operators {
    threshold: u16,
    /// Ascending.
    keys: Vec<VerifyingKey>,
}

impl Operators {
    /// Nobody: a cluster that never changes.
    pub const NONE: Self = Self {
        threshold: 0,
        keys: Vec::new(),
    };

    /// The most bytes of them.
    pub(super) const BYTES_MAX: usize = 2 + 4 + OPERATORS_MAX * 32;

    /// `threshold` of these keys, in whatever order; nobody if there are none and it is zero.
    ///
    /// # Errors
    /// When the threshold cannot be reached, or is none; when a key is there twice, is no key, or there are
    /// too many.
    pub fn new(threshold: u16, mut keys: Vec<VerifyingKey>) -> Result<Self, MembershipError> {
        keys.sort_unstable();
        let operators = Self { threshold, keys };
        operators.check()?;
        Ok(operators)
    }

    /// The same without a look at what is said; [`check`](Self::check) has that.
    pub(super) fn unchecked(threshold: u16, mut keys: Vec<VerifyingKey>) -> Self {
        keys.sort_unstable();
        Self { threshold, keys }
    }

    pub(super) fn check(&self) -> Result<(), MembershipError> {
        if self.keys.len() > OPERATORS_MAX {
            return Err(MembershipError::TooManyOperators(self.keys.len()));
        }
        let threshold = usize::from(self.threshold);
        let is_nobody = threshold == 0 && self.keys.is_empty();
        if !is_nobody && !(1..=self.keys.len()).contains(&threshold) {
            return Err(MembershipError::Threshold {
                threshold,
                operators: self.keys.len(),
            });
        }
        if let Some(two) = self.keys.windows(2).find(|two| two[0] == two[1]) {
            return Err(MembershipError::OperatorTwice(two[0]));
        }
        Ok(())
    }

    /// How many of them have to sign.
    #[must_use]
    pub fn threshold(&self) -> usize {
        usize::from(self.threshold)
    }

    /// Their keys, ascending.
    #[must_use]
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// Whether a key is one of theirs.
    #[must_use]
    pub fn has(&self, key: &VerifyingKey) -> bool {
        self.keys.binary_search(key).is_ok()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn encode(&self, out: &mut Writer) {
        out.u16(self.threshold);
        out.count(self.keys.len());
        self.keys.iter().for_each(|key| out.bytes(key.as_bytes()));
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, MalformedMembership> {
        let threshold = from.u16("operators")?;
        let count = from.count("operators", OPERATORS_MAX, 32)?;
        let keys: Vec<_> = (0..count)
            .map(|_| from.verifying_key())
            .collect::<Result<_, _>>()?;
        if !is_ascending(&keys, |key| *key) {
            return Err(MalformedMembership::Unsorted("operators"));
        }
        let operators = Self { threshold, keys };
        operators.check()?;
        Ok(operators)
    }
}

/// Whose a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// A member's.
    Member(NodeId),
    /// A client's.
    Client(ClientId),
    /// An operator's.
    Operator,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(node) => write!(f, "replica {}", node.get()),
            Self::Client(client) => write!(f, "client {}", client.get()),
            Self::Operator => f.write_str("an operator"),
        }
    }
}

/// What a key is for. A party has one of each, but operators, who only sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPurpose {
    /// To sign.
    Signing,
    /// To prove oneself on links.
    Link,
}

impl KeyPurpose {
    /// The key's name in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Signing => "signing_key",
            Self::Link => "link_key",
        }
    }
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
