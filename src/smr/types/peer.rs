use super::{ClientId, NodeId};

/// Who is at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A replica of the cluster.
    Replica(NodeId),
    /// A client of the cluster.
    Client(ClientId),
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Replica(node) => node.fmt(f),
            Self::Client(client) => client.fmt(f),
        }
    }
}
