//! Newtypes for every number that has a meaning.
//!
//! None of them converts from a bare integer by `From`: a [`View`] is never a [`SeqNo`] by accident. Each
//! is made by a named constructor and moves by named operations. All of them are plain data: no clock,
//! no allocation.

mod application;
mod digest;
mod identity;
mod order;
mod peer;
mod quorum;
mod split_mix;
mod time;

pub use application::{ApplicationId, ApplicationNameError};
pub use digest::Digest;
pub use identity::{ClientId, ClusterId, MemberSlot, NodeId};
pub use order::{Epoch, FrameSeq, Lsn, SeqNo, View};
pub use peer::Peer;
pub use quorum::{Quorum, QuorumError, REPLICAS_MAX, Signers};
pub use split_mix::SplitMix64;
pub use time::{Time, UnixTime};

/// The version of every message, and of what digests and signatures are of. Peers of another version are
/// refused at the handshake.
pub const PROTOCOL_VERSION: u16 = 3;
