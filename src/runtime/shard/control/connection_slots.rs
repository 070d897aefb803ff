//! Who may have a link: the cap on all of them, the slots kept for replicas, and the share of one peer.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::runtime::net::hello::{HandshakeRefusal, Peer};

/// How many accepted links there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// All accepted links together.
    pub connections_max: usize,
    /// Of these, how many only replicas may have. Twice the number of other replicas lets each of them
    /// replace a link that has not been noticed to be dead.
    pub replicas_reserved: usize,
    /// The links of one replica. Two, so that one that restarted is not refused because of its old link.
    pub links_per_replica_max: usize,
    /// The links of one client: one for each process that uses its identity, and some whose end was not
    /// noticed yet.
    pub links_per_client_max: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            replicas_reserved: 64,
            links_per_replica_max: 2,
            links_per_client_max: 16,
        }
    }
}

/// The slots of one listening shard.
///
/// Invariant: the clients' links never pass `connections_max − replicas_reserved`, all links never pass
/// `connections_max`, and a taken slot comes back when its [`ConnectionSlot`] is dropped, on every path.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    limits: ConnectionLimits,
    taken: RefCell<BTreeMap<Peer, usize>>,
}

/// One taken slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    slots: Rc<ConnectionSlots>,
    peer: Peer,
}

impl ConnectionSlots {
    pub(super) fn new(limits: ConnectionLimits) -> Rc<Self> {
        Rc::new(Self {
            limits,
            taken: RefCell::default(),
        })
    }

    /// Takes a slot for a proven peer.
    ///
    /// # Errors
    /// [`HandshakeRefusal::IdentityInUse`] when the peer has all that one may have, else
    /// [`HandshakeRefusal::Capacity`] when none is left for it.
    pub(super) fn take(self: &Rc<Self>, peer: Peer) -> Result<ConnectionSlot, HandshakeRefusal> {
        let mut taken = self.taken.borrow_mut();
        let all: usize = taken.values().sum();
        let clients: usize = taken
            .iter()
            .filter(|(peer, _)| matches!(peer, Peer::Client(_)))
            .map(|(_, links)| links)
            .sum();
        let clients_max = self
            .limits
            .connections_max
            .saturating_sub(self.limits.replicas_reserved);
        let own = taken.get(&peer).copied().unwrap_or(0);
        let own_max = match peer {
            Peer::Replica(_) => self.limits.links_per_replica_max,
            Peer::Client(_) => self.limits.links_per_client_max,
        };
        if own >= own_max {
            return Err(HandshakeRefusal::IdentityInUse);
        }
        if all >= self.limits.connections_max || (matches!(peer, Peer::Client(_)) && clients >= clients_max) {
            return Err(HandshakeRefusal::Capacity);
        }
        taken.insert(peer, own + 1);
        Ok(ConnectionSlot {
            slots: Rc::clone(self),
            peer,
        })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.borrow_mut();
        match taken.get_mut(&self.peer) {
            Some(links) if *links > 1 => *links -= 1,
            _ => {
                taken.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::types::{ClientId, NodeId};

    fn client(number: u32) -> Peer {
        Peer::Client(ClientId::new(number))
    }

    fn replica(index: u16) -> Peer {
        Peer::Replica(NodeId::new(index))
    }

    #[test]
    fn clients_leave_the_reserved_places_to_replicas() {
        let slots = ConnectionSlots::new(ConnectionLimits {
            connections_max: 3,
            replicas_reserved: 1,
            links_per_replica_max: 2,
            links_per_client_max: 2,
        });
        let _first = slots.take(client(1)).unwrap();
        let second = slots.take(client(2)).unwrap();
        assert_eq!(slots.take(client(3)).unwrap_err(), HandshakeRefusal::Capacity);
        let _replica = slots.take(replica(1)).unwrap();
        assert_eq!(
            slots.take(replica(2)).unwrap_err(),
            HandshakeRefusal::Capacity,
            "the cap holds for replicas too"
        );
        drop(second);
        let _third = slots.take(client(3)).unwrap();
    }

    #[test]
    fn replicas_never_use_up_the_clients_share_twice() {
        let slots = ConnectionSlots::new(ConnectionLimits {
            connections_max: 4,
            replicas_reserved: 2,
            links_per_replica_max: 2,
            links_per_client_max: 2,
        });
        let _replicas = [replica(1), replica(2)].map(|peer| slots.take(peer).unwrap());
        let _clients = [client(1), client(2)].map(|peer| slots.take(peer).unwrap());
        assert!(slots.take(client(3)).is_err());
    }

    #[test]
    fn one_peer_cannot_take_the_places_of_others() {
        let slots = ConnectionSlots::new(ConnectionLimits {
            connections_max: 10,
            replicas_reserved: 2,
            links_per_replica_max: 2,
            links_per_client_max: 2,
        });
        let held = [(); 2].map(|()| slots.take(replica(1)).unwrap());
        assert!(slots.take(replica(1)).is_err());
        let _other = slots.take(replica(2)).unwrap();
        drop(held);
        let _again = slots.take(replica(1)).unwrap();
    }
}
