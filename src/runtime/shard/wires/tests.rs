use std::net::TcpListener;

use super::*;
use crate::smr::crypto::{Opener, Sealer};
use crate::smr::types::{ClientId, NodeId};

const BUDGETS: QueueBudgets = QueueBudgets {
    reconfiguration: 64 << 10,
    protocol: 256 << 10,
    application: 256 << 10,
    state_transfer: 256 << 10,
};

/// A link with a peer that reads nothing, and the peer's socket.
fn link(wires: &mut Wires, reactor: &mut Reactor, peer: Peer) -> (WireId, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let established = Established {
        peer,
        sealer: Sealer::new(&[1; 32]),
        opener: Opener::new(&[2; 32]),
    };
    let limits = WireLimits {
        record_bytes_max: 1 << 20,
        queues: BUDGETS,
        queues_bytes_max: usize::MAX,
        backlog_bytes_max: 1 << 20,
        silence_max: Duration::from_secs(60),
    };
    let id = wires.add(reactor, accepted.into(), established, Box::new(()), limits);
    (id.unwrap(), dialled)
}

/// Queues messages of a family until one finds no room; how many did.
fn fill(wires: &mut Wires, id: WireId, family: Family) -> usize {
    let message = Bytes::from(vec![0; 16 << 10]);
    (0..1000)
        .take_while(|_| wires.queue(id, family, message.clone()).is_ok())
        .count()
}

#[test]
fn a_peer_that_reads_no_chunks_and_frames_still_has_room_for_votes_and_its_link() {
    let mut reactor = Reactor::new(4, 8, 4096).unwrap();
    let mut wires = Wires::new(0, 4);
    let (id, _peer) = link(&mut wires, &mut reactor, Peer::Replica(NodeId::new(1)));
    assert_eq!(fill(&mut wires, id, Family::StateTransfer), 16);
    assert_eq!(fill(&mut wires, id, Family::Application), 16);
    let vote = Bytes::from(vec![0; 40]);
    assert_eq!(wires.queue(id, Family::Protocol, vote.clone()), Ok(()));
    assert_eq!(wires.queue(id, Family::Reconfiguration, vote), Ok(()));
    assert_eq!((wires.open(), wires.take_closed()), (1, Vec::new()));
    // None of it is dropped: it is lost with the link.
    assert_eq!(fill(&mut wires, id, Family::Protocol), 15);
    let replica = Peer::Replica(NodeId::new(1));
    assert_eq!(wires.take_closed(), [(id, replica, CloseReason::QueueFull)]);
}

#[test]
fn a_client_that_reads_nothing_loses_answers_and_keeps_its_link() {
    let mut reactor = Reactor::new(4, 8, 4096).unwrap();
    let mut wires = Wires::new(0, 4);
    let (id, _peer) = link(&mut wires, &mut reactor, Peer::Client(ClientId::new(1)));
    assert_eq!(fill(&mut wires, id, Family::Application), 16);
    let ping = Bytes::from(vec![0; 24]);
    assert_eq!(wires.queue(id, Family::Reconfiguration, ping), Ok(()));
    assert_eq!((wires.open(), wires.take_closed()), (1, Vec::new()));
}
