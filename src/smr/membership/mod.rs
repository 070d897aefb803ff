//! Who is in a cluster, epoch after epoch: what everybody can check from the cluster's birth on.
//!
//! ```text
//!   Genesis ──► Membership of epoch 0 ──ChangeRequest──► Membership of epoch 1 ──ChangeRequest──► …
//!      │              │   operators sign (m of k)              │
//!      ▼              ▼                                        ▼
//!   ClusterId   HandoverCertificate of epoch 0 ──►  HandoverCertificate of epoch 1 ──► …  = MembershipChain
//!               a quorum of its members signs
//! ```
//!
//! | upon | the room answers |
//! |---|---|
//! | a cluster's file | [`Genesis`]: its [`ClusterId`], and the [`Membership`] of epoch 0 |
//! | a change that was ordered | [`Membership::next`]: that of the next epoch, or a [`ChangeRefused`] |
//! | an operator who asks what it would do | [`Membership::draft`], and the [`Risk`]s of it |
//! | signatures of members | [`HandoverCertificate::gather`]: a certificate, if a quorum of them holds |
//! | a certificate | [`MembershipChain::extend`]: the chain is longer, knew it, or why not |
//! | who knows an earlier epoch | [`MembershipChain::since`]: what it lacks, in [pieces](encode_piece) |
//! | a member that lacks an epoch | [`EpochHistory::change`]: what made it |
//!
//! All of it is data and functions of data: the reconfiguration protocol, which orders changes and closes
//! epochs, is built on it, and so is whoever follows a chain without being a member.
//!
//! # Invariants
//! - **One identity.** The [`ClusterId`] is the digest of the genesis alone, whose
//!   docs say what that covers and why.
//! - **One form.** Everything has exactly one encoding. What is decoded is what would be encoded, or is
//!   refused; lengths are held against their bounds, and against the bytes that are there, before anything is
//!   allocated. Digests and signatures here depend on no protocol version: a chain is verified by releases to
//!   come.
//! - **The same everywhere.** Whether a request is carried out follows from it and the membership, and from
//!   nothing that a replica has for itself, its release included.
//! - **Compare and set.** A request names cluster and epoch, and is about that membership alone: it is
//!   carried out once or never. All of its changes are made, in their order, or none.
//! - **Signers, not signatures.** Operators are counted by distinct keys of the membership that the request
//!   builds on, members by distinct slots of the epoch that ends. One bad signature of an operator refuses
//!   the request; a certificate is cut to exactly a quorum of signatures that hold, in the order of slots.
//! - **Once.** A [`NodeId`] or [`ClientId`] is never given again: members and clients get the next number. No
//!   two parties have one key, and no party gets a key that somebody has in the membership before.
//!
//! # What old keys can do
//! A certificate counts because a quorum of its epoch signed it, whenever it did. Whoever comes by the
//! signing keys of a quorum of some epoch e, long after that, can sign another end of e, and a false cluster
//! from there on, with members of its own: other decisions, other clients, other operators. That convinces
//! whoever starts from the genesis, or from an epoch up to e, and meets the thief first. It does not convince
//! who knows the true end of e: there it is a [`ForkProof`], which says so and names those whose keys are in
//! it. Fewer keys than a quorum forge nothing; those of retired operators and clients neither, as it is
//! members who certify.
//!
//! Hence members erase the keys of epochs that have ended, and a party may
//! [pin](MembershipChain::from_pinned) a recent epoch: then keys of earlier ones are worth nothing to it.
//! Nothing else helps: what is signed with true keys cannot be told from what was signed in time.
//!
//! [`ClientId`]: crate::smr::types::ClientId
//! [`ClusterId`]: crate::smr::types::ClusterId
//! [`NodeId`]: crate::smr::types::NodeId

mod agreement;
mod chain;
mod change;
pub(crate) mod encoding;
mod epoch_membership;
mod error;
mod genesis;
mod handover;
mod head;
mod history;
mod party;
mod risk;
mod transition;

pub use agreement::{Agreement, AgreementSetting, CHECKPOINT_PERIOD, ClientAuth};
pub use chain::{
    ChainError, Extension, MembershipChain, PIECE_BYTES_MAX, PIECE_CERTIFICATES_MAX, decode_piece,
    encode_piece,
};
pub use change::{CHANGE_REQUEST_BYTES_MAX, CHANGES_MAX, Change, ChangeRequest, OperatorSignature};
pub use encoding::MalformedMembership;
pub use epoch_membership::Membership;
use epoch_membership::{clients_digest, decode_clients, encode_clients};
pub use error::MembershipError;
pub use genesis::{GENESIS_TEXT_BYTES_MAX, Genesis};
pub use handover::{ForkProof, HandoverCertificate, HandoverRefused, HandoverSignature, HandoverStatement};
pub use head::{MembershipHead, UnlikelySuccessor, UnsupportedProtocol};
pub use history::{EndedEpoch, EpochHistory, HistoryError, NotTheChange};
pub use party::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, CLIENTS_MAX, ClientRights, KeyPurpose, Member, OPERATORS_MAX,
    Operators, Party, RegisteredClient, is_host_and_port,
};
pub use risk::Risk;
pub use transition::ChangeRefused;

#[cfg(test)]
pub(crate) mod tests;
