use super::GENESIS_TEXT_BYTES_MAX;
use super::party::{ADDRESSES_MAX, CLIENTS_MAX, KeyPurpose, OPERATORS_MAX, Party};
use crate::smr::protocol::InvalidSetting;
use crate::smr::types::{ClientId, NodeId, QuorumError};

/// What no membership can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Nobody, or more than there may be.
    #[error(transparent)]
    Size(#[from] QuorumError),
    /// Members are not in the order of their numbers, or one has a number that is still to be given.
    #[error("members are in the order of their numbers, each once, and {0} does not come next")]
    MemberOrder(NodeId),
    /// The same of clients.
    #[error("clients are in the order of their numbers, each once, and {0} does not come next")]
    ClientOrder(ClientId),
    /// More clients than there may be.
    #[error("{0} clients, at most {CLIENTS_MAX}")]
    TooManyClients(usize),
    /// The clients are not those that the head counts or names by their digest.
    #[error("the clients are not those of this membership")]
    OtherClients,
    /// More addresses than there may be.
    #[error("{0} has {1} addresses, at most {ADDRESSES_MAX}")]
    TooManyAddresses(NodeId, usize),
    /// An address that is none.
    #[error("the address {1:?} of {0}: must be host:port")]
    BadAddress(NodeId, String),
    /// An address of two members, or of one member twice.
    #[error("{first} and {second} have the same address {address}")]
    AddressTwice {
        /// The address.
        address: String,
        /// One of them.
        first: NodeId,
        /// The other.
        second: NodeId,
    },
    /// A founding member with an agreed address: see [`Genesis`](super::Genesis).
    #[error("{0} is a founding member, whose addresses are what each party's own file says")]
    FoundingAddress(NodeId),
    /// A key of two parties, or twice of one.
    #[error("the {purpose} {key} of {second} is also {first}'s")]
    KeyTwice {
        /// The key, in hexadecimal.
        key: String,
        /// What the second one has it for.
        purpose: KeyPurpose,
        /// Whose it is.
        first: Party,
        /// Who has it as well.
        second: Party,
    },
    /// A key under which everybody could sign, or that is no key.
    #[error("the {purpose} {key} of {party} is no key that only one can use")]
    BadKey {
        /// The key, in hexadecimal.
        key: String,
        /// What it would be for.
        purpose: KeyPurpose,
        /// Whose it would be.
        party: Party,
    },
    /// As many operators as have to sign there are not, or none has to.
    #[error("{threshold} of {operators} operators would have to sign: must be between 1 and {operators}")]
    Threshold {
        /// How many would have to sign.
        threshold: usize,
        /// How many there are.
        operators: usize,
    },
    /// More operators than there may be.
    #[error("{0} operators, at most {OPERATORS_MAX}")]
    TooManyOperators(usize),
    /// An operator's key that is there twice.
    #[error("two operators have the key {0}")]
    OperatorTwice(crate::smr::crypto::VerifyingKey),
    /// A client that may do nothing.
    #[error("{0} has no right at all")]
    NoRights(ClientId),
    /// Agreed values that do not fit.
    #[error(transparent)]
    Agreement(#[from] InvalidSetting),
    /// No application.
    #[error("there is no application")]
    NoApplication,
    /// The protocol version that nothing has.
    #[error("there is no protocol version 0")]
    NoProtocolVersion,
    /// A name or random text of a genesis that is too long.
    #[error("the {0} of a genesis has {1} bytes, at most {GENESIS_TEXT_BYTES_MAX}")]
    GenesisText(&'static str, usize),
    /// A founding membership of a later epoch, or that has given numbers away that nobody has.
    #[error("a founding membership is of epoch 0, and has given no number to anybody who is not in it")]
    Founding,
}
