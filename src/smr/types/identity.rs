use std::fmt;

use super::REPLICAS_MAX;

/// A replica of the cluster. Founding replicas are `0..n`; one that joins gets the next number, and no number
/// is ever given again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u16);

impl NodeId {
    /// The replica with this index in the cluster's list.
    #[must_use]
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// The index as written in messages and files.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The index for arrays that hold one entry per replica.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// All replicas of a cluster of `n`, in order.
    pub fn all(n: usize) -> impl Iterator<Item = Self> + Clone {
        debug_assert!(n <= u16::MAX as usize);
        (0..n as u16).map(Self)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The place of a member inside one epoch, `0..n`: members in the order of their [`NodeId`]s. For arrays,
/// sets and the leader's turn; another epoch may have another member there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberSlot(u8);

impl MemberSlot {
    /// The slot with this index; `None` beyond the largest cluster.
    #[must_use]
    pub const fn new(index: usize) -> Option<Self> {
        match index < REPLICAS_MAX {
            true => Some(Self(index as u8)),
            false => None,
        }
    }

    /// The index for arrays that hold one entry for each member.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for MemberSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

impl fmt::Debug for MemberSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A client of the cluster, as listed in the cluster's configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClientId(u32);

impl ClientId {
    /// The client with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number as written in messages and files.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The identity of one cluster for ever: the digest of its [genesis](crate::smr::membership::Genesis), cut to
/// 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId([u8; 16]);

impl ClusterId {
    /// Wraps the 16 bytes of an identity.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The first eight bytes as a number: what every envelope carries.
    #[must_use]
    pub const fn tag(&self) -> u64 {
        let b = &self.0;
        u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterId({})", hex::encode(&self.0[..4]))
    }
}
