use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use super::*;
use crate::runtime::flight::FlightPen;
use crate::runtime::net::handshake::{Initiator, Then};
use crate::runtime::net::hello::{HELLO_BYTES, HandshakeRefusal, Hello, VERDICT_BYTES};
use crate::smr::crypto::{LinkPublic, LinkSecret};
use crate::smr::types::{ApplicationId, ClientId, ClusterId, Epoch};

/// No test takes this long: it turns a hang into a failure.
const GUARD: Duration = Duration::from_secs(20);
const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-tests");
const CLIENTS: u32 = 8;

struct Keys(BTreeMap<Peer, LinkPublic>);

impl Directory for Keys {
    fn link_key(&self, peer: Peer) -> Option<LinkPublic> {
        self.0.get(&peer).copied()
    }
}

fn replica(index: u16) -> Peer {
    Peer::Replica(NodeId::new(index))
}

fn client(number: u32) -> Peer {
    Peer::Client(ClientId::new(number))
}

fn secret(peer: Peer) -> LinkSecret {
    let mut bytes = [7; 32];
    match peer {
        Peer::Replica(node) => bytes[..2].copy_from_slice(&node.get().to_le_bytes()),
        Peer::Client(client) => bytes[8..12].copy_from_slice(&(client.get() + 1).to_le_bytes()),
    }
    LinkSecret::from_bytes(&bytes)
}

fn identity(own: Peer) -> Identity {
    Identity {
        cluster: CLUSTER,
        application: ApplicationId::NONE,
        epoch: Epoch::ZERO,
        own,
        secret: secret(own),
    }
}

fn config(own: Peer) -> ControlConfig {
    let parties = (0..4).map(replica).chain((0..CLIENTS).map(client));
    ControlConfig {
        identity: identity(own),
        directory: Arc::new(Keys(parties.map(|peer| (peer, secret(peer).public())).collect())),
        listener: None,
        replicas: Vec::new(),
        cpu: None,
        limits: ControlLimits {
            backoff: BackoffLimits {
                initial: Duration::from_millis(1),
                max: Duration::from_millis(20),
            },
            ..ControlLimits::default()
        },
        seed: 1,
        alarm: Alarm::default(),
        beat: None,
        pen: FlightPen::default(),
    }
}

fn spawn(config: ControlConfig) -> (ControlHandle, Receiver<EstablishedLink>) {
    let (links, up) = mpsc::channel();
    let shard = ControlShard::spawn(config, move |link| {
        let _ = links.send(link);
    });
    (shard.unwrap(), up)
}

fn listening(
    own: Peer,
    change: impl FnOnce(&mut ControlLimits),
) -> (ControlHandle, Receiver<EstablishedLink>, SocketAddr) {
    let mut config = config(own);
    config.listener = Some(TcpListener::bind("127.0.0.1:0").unwrap());
    change(&mut config.limits);
    let (shard, up) = spawn(config);
    let address = shard.local_addr().unwrap();
    (shard, up, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(GUARD)).unwrap();
    stream
}

/// Shakes hands with replica 0 as `own`; `tail` follows the last message in the same segment.
fn dial_with_tail(
    address: SocketAddr,
    own: Peer,
    tail: &[u8],
) -> Result<(TcpStream, Box<Established>), HandshakeRefusal> {
    let key = secret(replica(0)).public();
    let (mut initiator, mut progress) = Initiator::start(&identity(own), NodeId::new(0), &key).unwrap();
    let mut stream = connect(address);
    for message in 0.. {
        let mut write = progress.write;
        if message == 2 {
            write.extend_from_slice(tail);
        }
        stream
            .write_all(&write)
            .map_err(|_| HandshakeRefusal::Disconnected)?;
        match progress.then {
            Then::Read(wanted) => {
                let mut bytes = vec![0; wanted];
                stream
                    .read_exact(&mut bytes)
                    .map_err(|_| HandshakeRefusal::Disconnected)?;
                progress = initiator.on_bytes(&bytes)?;
            }
            Then::Established(established) => return Ok((stream, established)),
        }
    }
    unreachable!("a handshake has four messages");
}

fn dial(address: SocketAddr, own: Peer) -> Result<(TcpStream, Box<Established>), HandshakeRefusal> {
    dial_with_tail(address, own, &[])
}

/// What a refused connection is told: the verdict, or nothing.
fn verdict(mut stream: &TcpStream) -> Vec<u8> {
    let mut told = Vec::new();
    let mut byte = [0];
    while let Ok(1) = stream.read(&mut byte) {
        told.push(byte[0]);
    }
    told
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < GUARD, "never: {what}");
        std::thread::yield_now();
    }
}

/// Sends one sealed record each way over a pair of links.
fn converse(ours: &mut EstablishedLink, theirs: &mut EstablishedLink) {
    let mut wire = Vec::new();
    ours.established
        .sealer
        .seal(&mut wire, |out| out.extend_from_slice(b"ping"))
        .unwrap();
    let mut from = TcpStream::from(ours.socket.try_clone().unwrap());
    let mut to = TcpStream::from(theirs.socket.try_clone().unwrap());
    from.set_nonblocking(false).unwrap();
    to.set_nonblocking(false).unwrap();
    from.write_all(&wire).unwrap();
    let mut received = vec![0; wire.len()];
    to.read_exact(&mut received).unwrap();
    let opened = theirs.established.opener.open(&received[4..]).unwrap();
    assert_eq!(opened, &b"ping"[..]);
}

#[test]
fn a_listed_client_gets_a_link_and_loses_no_byte_sent_behind_its_handshake() {
    let (shard, up, address) = listening(replica(0), |_| {});
    let tail: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
    let dialled = std::thread::spawn({
        let tail = tail.clone();
        move || dial_with_tail(address, client(1), &tail).map(|(stream, _)| stream)
    });
    let link = up.recv_timeout(GUARD).unwrap();
    assert_eq!((link.established.peer, link.dialled), (client(1), false));
    let mut received = vec![0; tail.len()];
    let mut stream = TcpStream::from(link.socket);
    stream.set_nonblocking(false).unwrap();
    assert!(stream.nodelay().unwrap());
    stream.read_exact(&mut received).unwrap();
    assert_eq!(received, tail);
    dialled.join().unwrap().unwrap();
    assert_eq!(shard.counters().links_accepted(), 1);
    shard.stop().unwrap();
}

#[test]
fn garbage_truncated_oversized_and_silent_connections_are_refused_by_type_and_harm_nobody() {
    let (shard, up, address) = listening(replica(0), |limits| {
        limits.handshake_deadline = Duration::from_millis(60);
    });
    let counters = Arc::clone(shard.counters());
    let hello = Hello {
        application: ApplicationId::NONE,
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        claimed: client(1),
        dialled: NodeId::new(0),
    };
    let expect = |refusal: HandshakeRefusal, before: u64| {
        eventually(refusal.name(), || counters.refused(refusal) == before + 1);
    };

    // Garbage of the right size is told what it is.
    let garbage = connect(address);
    (&garbage).write_all(&[0xA5; HELLO_BYTES + 48]).unwrap();
    assert_eq!(verdict(&garbage), HandshakeRefusal::NotAtlas.verdict());
    expect(HandshakeRefusal::NotAtlas, 0);

    // Oversized: a megabyte, of which the first message alone is ever looked at.
    let oversized = connect(address);
    let _ = (&oversized).write_all(&vec![0xFF; 1 << 20]);
    verdict(&oversized);
    expect(HandshakeRefusal::NotAtlas, 1);

    // Truncated: half of a hello, then the end.
    let truncated = connect(address);
    (&truncated).write_all(&hello.to_bytes()[..20]).unwrap();
    truncated.shutdown(Shutdown::Write).unwrap();
    assert_eq!(verdict(&truncated), HandshakeRefusal::Disconnected.verdict());
    expect(HandshakeRefusal::Disconnected, 0);

    // A true hello followed by what is no Noise message.
    let forged = connect(address);
    (&forged).write_all(&hello.to_bytes()).unwrap();
    (&forged).write_all(&[0x11; 48]).unwrap();
    assert_eq!(verdict(&forged), HandshakeRefusal::BadHandshake.verdict());
    expect(HandshakeRefusal::BadHandshake, 0);

    // Other clusters, strangers, and a client that claims to be another.
    let wrong_cluster = Hello {
        cluster: ClusterId::from_bytes([9; 16]),
        ..hello
    };
    let stranger = Hello {
        claimed: client(999),
        ..hello
    };
    for (hello, refusal) in [
        (wrong_cluster, HandshakeRefusal::WrongCluster),
        (stranger, HandshakeRefusal::UnknownPeer),
    ] {
        let stream = connect(address);
        (&stream).write_all(&hello.to_bytes()).unwrap();
        (&stream).write_all(&[0; 48]).unwrap();
        assert_eq!(verdict(&stream), refusal.verdict());
        expect(refusal, 0);
    }

    // Slowloris: a byte now and then never makes a hello before the deadline.
    let slow = connect(address);
    slow.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut told = [0; VERDICT_BYTES];
    for byte in hello.to_bytes().iter().cycle() {
        let _ = (&slow).write(&[*byte]);
        if matches!((&slow).read(&mut told), Ok(1..)) {
            break;
        }
    }
    assert_eq!(told, HandshakeRefusal::Timeout.verdict());
    expect(HandshakeRefusal::Timeout, 0);

    dial(address, client(1)).unwrap();
    up.recv_timeout(GUARD).unwrap();
    shard.stop().unwrap();
}

#[test]
fn a_proven_key_that_is_not_the_claimed_peers_is_refused() {
    let (shard, _up, address) = listening(replica(0), |_| {});
    let liar = Identity {
        secret: secret(client(2)),
        ..identity(client(1))
    };
    let key = secret(replica(0)).public();
    let (mut initiator, mut progress) = Initiator::start(&liar, NodeId::new(0), &key).unwrap();
    let mut stream = connect(address);
    let refusal = loop {
        stream.write_all(&progress.write).unwrap();
        let Then::Read(wanted) = progress.then else {
            panic!("the liar got a link");
        };
        let mut bytes = vec![0; wanted];
        stream.read_exact(&mut bytes).unwrap();
        match initiator.on_bytes(&bytes) {
            Ok(next) => progress = next,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, HandshakeRefusal::WrongKey);
    assert_eq!(shard.counters().refused(HandshakeRefusal::WrongKey), 1);
}

#[test]
fn clients_cannot_take_the_places_of_replicas_and_a_lost_link_frees_its_place() {
    let (shard, up, address) = listening(replica(0), |limits| {
        limits.slots = ConnectionLimits {
            connections_max: 3,
            replicas_reserved: 1,
            links_per_replica_max: 2,
            links_per_client_max: 2,
        };
    });
    dial(address, client(1)).unwrap();
    dial(address, client(2)).unwrap();
    assert_eq!(dial(address, client(3)).unwrap_err(), HandshakeRefusal::Capacity);
    dial(address, replica(1)).unwrap();
    assert_eq!(shard.counters().refused(HandshakeRefusal::Capacity), 1);
    let links: Vec<_> = (0..3).map(|_| up.recv_timeout(GUARD).unwrap()).collect();
    assert_eq!(links[2].established.peer, replica(1));
    assert_eq!(dial(address, replica(2)).unwrap_err(), HandshakeRefusal::Capacity);
    drop(links);
    eventually("a place is free", || dial(address, client(3)).is_ok());
    shard.stop().unwrap();
}

#[test]
fn silent_connections_make_room_for_one_that_waits() {
    let (shard, up, address) = listening(replica(0), |limits| {
        limits.handshakes_max = 2;
        limits.silent_grace = Duration::ZERO;
    });
    let silent = [connect(address), connect(address)];
    dial(address, client(1)).unwrap();
    up.recv_timeout(GUARD).unwrap();
    assert_eq!(
        verdict(&silent[0]),
        HandshakeRefusal::Capacity.verdict(),
        "the oldest goes first"
    );
    assert_eq!(shard.counters().refused(HandshakeRefusal::Capacity), 1);
    shard.stop().unwrap();
    assert_eq!(verdict(&silent[1]), [0; 0], "the other one lasted until the end");
}

#[test]
fn a_crowd_of_silent_strangers_keeps_nobody_out_for_longer_than_a_moment() {
    let (shard, up, address) = listening(replica(0), |limits| {
        limits.handshakes_max = 16;
        limits.silent_grace = Duration::from_millis(1);
        // Had anybody to wait for these, it would be for longer than the test may take.
        (limits.handshake_grace, limits.handshake_deadline) = (2 * GUARD, 4 * GUARD);
    });
    let _strangers: Vec<TcpStream> = (0..400).map(|_| connect(address)).collect();
    for peer in [client(1), replica(1), client(2)] {
        dial(address, peer).unwrap();
        assert_eq!(up.recv_timeout(GUARD).unwrap().established.peer, peer);
    }
    assert!(shard.counters().refused(HandshakeRefusal::Capacity) > 300);
    assert_eq!(shard.counters().refused(HandshakeRefusal::Timeout), 0);
    shard.stop().unwrap();
}

#[test]
fn more_connections_than_handshakes_allowed_wait_for_their_turn_and_all_are_served() {
    let (shard, up, address) = listening(replica(0), |limits| {
        limits.handshakes_max = 3;
        (limits.silent_grace, limits.handshake_grace) = (GUARD, GUARD);
        limits.slots.links_per_client_max = 1000;
    });
    let served: Vec<_> = (0..4)
        .map(|number| std::thread::spawn(move || (0..25).all(|_| dial(address, client(number)).is_ok())))
        .collect();
    assert!(served.into_iter().all(|thread| thread.join().unwrap()));
    for _ in 0..100 {
        up.recv_timeout(GUARD).unwrap();
    }
    assert_eq!(shard.counters().refused(HandshakeRefusal::Capacity), 0);
    shard.stop().unwrap();
}

#[test]
fn the_higher_replica_dials_the_lower_one_and_dials_again_when_the_link_is_down() {
    let (lower, at_lower, address) = listening(replica(0), |_| {});
    let mut config = config(replica(1));
    config.replicas = vec![
        DialTarget {
            node: NodeId::new(0),
            address: format!("localhost:{}", address.port()),
        },
        // Neither ourselves nor a higher replica is ever dialled, so nobody need be there.
        DialTarget {
            node: NodeId::new(1),
            address: "nowhere".to_owned(),
        },
        DialTarget {
            node: NodeId::new(2),
            address: "nowhere".to_owned(),
        },
    ];
    let (higher, at_higher) = spawn(config);
    for _ in 0..5 {
        let mut ours = at_higher.recv_timeout(GUARD).unwrap();
        let mut theirs = at_lower.recv_timeout(GUARD).unwrap();
        assert_eq!((ours.established.peer, ours.dialled), (replica(0), true));
        assert_eq!((theirs.established.peer, theirs.dialled), (replica(1), false));
        converse(&mut ours, &mut theirs);
        converse(&mut theirs, &mut ours);
    }
    assert_eq!(higher.counters().unresolved(), 0);
    higher.stop().unwrap();
    lower.stop().unwrap();
}

#[test]
fn a_peer_that_is_not_there_yet_or_has_no_address_is_tried_until_it_is() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let mut dialling = config(replica(2));
    dialling.replicas = vec![
        DialTarget {
            node: NodeId::new(0),
            address: address.to_string(),
        },
        DialTarget {
            node: NodeId::new(1),
            address: "no address at all".to_owned(),
        },
    ];
    let (shard, up) = spawn(dialling);
    eventually("two failed lookups", || shard.counters().unresolved() >= 2);
    eventually("two refused connects", || shard.counters().unreachable() >= 2);
    let mut late = config(replica(0));
    late.listener = Some(TcpListener::bind(address).unwrap());
    let (late, _at_late) = spawn(late);
    assert_eq!(up.recv_timeout(GUARD).unwrap().established.peer, replica(0));
    shard.stop().unwrap();
    late.stop().unwrap();
}

#[test]
fn a_dialler_learns_why_it_is_refused_and_a_taker_that_drops_links_is_offered_them_again() {
    let (lower, _at_lower, address) = listening(replica(0), |limits| limits.slots.connections_max = 0);
    let mut dialling = config(replica(1));
    dialling.replicas = vec![DialTarget {
        node: NodeId::new(0),
        address: address.to_string(),
    }];
    let (higher, _up) = spawn(dialling);
    eventually("told of the lack of places", || {
        higher.counters().refused_by_peer(HandshakeRefusal::Capacity) >= 2
    });
    higher.stop().unwrap();
    lower.stop().unwrap();

    let mut dropping = config(replica(0));
    dropping.listener = Some(TcpListener::bind("127.0.0.1:0").unwrap());
    let lower = ControlShard::spawn(dropping, drop).unwrap();
    let mut dialling = config(client(1));
    dialling.replicas = vec![DialTarget {
        node: NodeId::new(0),
        address: lower.local_addr().unwrap().to_string(),
    }];
    let dropping = ControlShard::spawn(dialling, drop).unwrap();
    eventually("offered again", || dropping.counters().links_dialled() >= 3);
    dropping.stop().unwrap();
    lower.stop().unwrap();
}

#[test]
fn stopping_ends_pending_handshakes_and_dials_closes_the_port_and_leaves_links_alone() {
    let (shard, up, address) = listening(replica(0), |_| {});
    let silent: Vec<_> = (0..20).map(|_| connect(address)).collect();
    let (mut stream, _keys) = dial(address, client(1)).unwrap();
    let link = up.recv_timeout(GUARD).unwrap();
    eventually("all accepted", || shard.counters().accepted() == 21);

    // A dialler in the middle of a handshake with somebody who never answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut dialling = config(replica(1));
    dialling.replicas = vec![DialTarget {
        node: NodeId::new(0),
        address: mute.local_addr().unwrap().to_string(),
    }];
    let (dialler, _at_dialler) = spawn(dialling);
    let (hung, _) = mute.accept().unwrap();
    hung.set_read_timeout(Some(GUARD)).unwrap();

    dialler.stop().unwrap();
    shard.stop().unwrap();
    assert_eq!(verdict(&hung).len(), HELLO_BYTES + 48, "its hello, then the end");
    for stream in &silent {
        assert_eq!(verdict(stream), [0; 0]);
    }
    assert!(TcpStream::connect(address).is_err());
    let mut ours = TcpStream::from(link.socket);
    ours.write_all(b"still here").unwrap();
    let mut received = [0; 10];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"still here");
}

#[test]
fn leases_may_be_dropped_by_other_threads_while_the_shard_ends() {
    for _ in 0..50 {
        let (shard, up, address) = listening(replica(0), |_| {});
        let streams: Vec<_> = (0..CLIENTS).map(|number| dial(address, client(number))).collect();
        let links: Vec<_> = (0..CLIENTS).map(|_| up.recv_timeout(GUARD).unwrap()).collect();
        let dropper = std::thread::spawn(move || drop(links));
        shard.stop().unwrap();
        dropper.join().unwrap();
        assert!(streams.iter().all(Result::is_ok));
    }
}

#[test]
fn a_shard_is_pinned_to_its_core_and_a_core_that_is_not_ours_is_refused() {
    let core = core_affinity::get_core_ids().unwrap()[0].id;
    let mut pinned = config(replica(0));
    pinned.cpu = Some(core);
    let (shard, _up) = spawn(pinned);
    assert!(shard.is_running());
    shard.stop().unwrap();

    let mut nowhere = config(replica(0));
    nowhere.cpu = Some(4095);
    let error = ControlShard::spawn(nowhere, drop).unwrap_err();
    assert!(
        matches!(error, ControlError::Executor { cpu: Some(4095), .. }),
        "{error}"
    );
    let said = error.to_string();
    assert!(
        said.contains("cannot be set up on core 4095: ") && said.contains("atlas doctor"),
        "{said}"
    );
}

#[test]
fn a_panic_of_the_taker_is_told_at_once_and_reported_when_the_shard_is_stopped() {
    let mut panicking = config(replica(0));
    let (tell, told) = mpsc::channel();
    panicking.alarm = Alarm::new(move |error| {
        let _ = tell.send(error.to_string());
    });
    panicking.listener = Some(TcpListener::bind("127.0.0.1:0").unwrap());
    let shard = ControlShard::spawn(panicking, |_| panic!("the taker's fault")).unwrap();
    let _ = dial(shard.local_addr().unwrap(), client(1));
    eventually("the thread ends", || !shard.is_running());
    assert_eq!(
        told.recv().unwrap(),
        "thread control-r0 panicked: the taker's fault"
    );
    assert!(matches!(shard.stop(), Err(ControlError::Panicked)));
}
