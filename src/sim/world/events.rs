use bytes::Bytes;

use crate::sim::disk::DiskEvent;
use crate::smr::types::Peer;
use crate::smr::types::{NodeId, Time};

/// Something that happens.
pub(super) enum Event {
    ToHost {
        host: usize,
        /// Links do not outlive a process.
        life: u64,
        from: Peer,
        message: Bytes,
    },
    /// To a process of a client.
    ToClient {
        process: usize,
        from: NodeId,
        message: Bytes,
    },
    Turn(usize),
    Disk {
        host: usize,
        life: u64,
        event: DiskEvent,
    },
    Restart {
        host: usize,
        life: u64,
    },
    ClientWake(usize),
    Call(usize),
    /// An operator asks to change the membership.
    Change,
    FaultyClient(usize),
    Fault(usize),
}

/// An event with its moment; of equal moments the one made first.
pub(super) struct Planned {
    pub at: Time,
    pub order: u64,
    pub event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}
