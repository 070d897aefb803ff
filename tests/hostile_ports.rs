//! Strangers and liars at a replica's port: each is refused for a counted reason, and the service goes on.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use atlas_smr_replica::config::{Agreement, AppKind, ClientTuning, Durability, PartyKeys};
use atlas_smr_replica::execution::apps::counter;
use atlas_smr_replica::load::{ClusterOptions, LocalCluster};
use atlas_smr_replica::messages::{
    Authenticator, Envelope, FrameBuilder, Kind, LinkMessage, Mode, RequestFrame, SystemMessage, encode,
};
use atlas_smr_replica::net::framing::RecordWriter;
use atlas_smr_replica::net::handshake::{Established, Identity, Initiator, Then};
use atlas_smr_replica::net::hello::{Peer, VERDICT_BYTES};
use atlas_smr_replica::preprocessing::ClientAuth;
use atlas_smr_replica::types::{ApplicationId, ClientId, ClusterId, Epoch, FrameSeq, NodeId};
use atlas_smr_replica::{Client, ReplicaHandle};
use bytes::Bytes;

/// The client whose identity the attacks use; another one is honest.
const ATTACKER: usize = 1;

struct Victim {
    cluster: LocalCluster,
    client: Client,
    sum: u64,
}

impl Victim {
    fn start() -> Self {
        let cluster = LocalCluster::start(&ClusterOptions {
            replicas: 4,
            clients: 2,
            app: AppKind::Counter,
            agreement: Agreement {
                client_auth: ClientAuth::Mac,
                ..Agreement::default()
            },
            tuning: ClientTuning::default(),
            pin: false,
            pipeline: 8,
            durability: Durability::Sync,
            ..ClusterOptions::default()
        })
        .unwrap();
        let client = Client::connect_blocking(cluster.client(0)).unwrap();
        Self {
            cluster,
            client,
            sum: 0,
        }
    }

    fn replicas(&self) -> impl Iterator<Item = &ReplicaHandle> {
        self.cluster.handles()
    }

    /// The service still serves, and nobody was taken in.
    fn assert_unharmed(&mut self) {
        for _ in 0..3 {
            self.sum += 1;
            let sum = self.client.call_blocking(counter::add(1)).unwrap();
            assert_eq!(counter::value(&sum), Some(self.sum));
        }
        assert!(
            self.replicas().all(|replica| replica.digest().is_some()),
            "a shard has ended"
        );
    }

    /// Waits until every replica's counter has grown by one since `before`.
    fn wait_counted(&self, counter: &str, before: &[u64]) {
        let deadline = Instant::now() + Duration::from_secs(20);
        for (replica, before) in self.replicas().zip(before) {
            while replica.counter(counter) <= *before {
                assert!(
                    Instant::now() < deadline,
                    "{} did not count {counter}",
                    replica.node()
                );
                std::thread::yield_now();
            }
        }
    }

    /// Plays `attack` against every replica and expects each to count it as `counter`.
    fn expect(&mut self, counter: &str, attack: impl Fn(&Self, &ReplicaHandle)) {
        let before: Vec<u64> = self.replicas().map(|replica| replica.counter(counter)).collect();
        self.replicas().for_each(|replica| attack(self, replica));
        self.wait_counted(counter, &before);
        self.assert_unharmed();
    }

    fn identity(&self) -> Identity {
        let config = self.cluster.config();
        Identity {
            cluster: config.cluster_id(),
            application: config.application,
            epoch: config.epoch(),
            own: Peer::Client(ClientId::new(ATTACKER as u32)),
            secret: self.cluster.client(ATTACKER).keys.link,
        }
    }

    /// A link in good standing: what an authenticated liar starts from.
    fn link(&self, replica: &ReplicaHandle) -> (TcpStream, Established) {
        let mut socket = dial(replica);
        let key = self.cluster.config().replicas[replica.node().index()].link_key;
        let (mut initiator, mut progress) = Initiator::start(&self.identity(), replica.node(), &key).unwrap();
        loop {
            socket.write_all(&progress.write).unwrap();
            match progress.then {
                Then::Established(link) => return (socket, *link),
                Then::Read(wanted) => {
                    let mut bytes = vec![0; wanted];
                    socket.read_exact(&mut bytes).unwrap();
                    progress = initiator.on_bytes(&bytes).unwrap();
                }
            }
        }
    }

    /// Sends one message on a link in good standing, and waits for the replica to end it where `ends`.
    fn send(&self, replica: &ReplicaHandle, message: Bytes, ends: bool) {
        let (mut socket, link) = self.link(replica);
        let mut out = Vec::new();
        RecordWriter::new(link.sealer)
            .seal(&mut [message].into_iter().collect(), &mut out, usize::MAX)
            .unwrap();
        socket.write_all(&out).unwrap();
        if ends {
            assert_closed(&mut socket);
        } else {
            let _ = socket.read(&mut [0; 1]);
        }
    }

    fn envelope(&self, kind: Kind) -> Envelope {
        Envelope::new(kind, self.cluster.config().cluster_id(), Epoch::ZERO)
    }

    fn frame(&self, client: u32, macs: usize) -> RequestFrame {
        let mut builder = FrameBuilder::default();
        builder.push(&counter::add(1_000_000)).unwrap();
        let body = builder.finish(ClientId::new(client), FrameSeq::new(u64::MAX / 2), Mode::Ordered);
        RequestFrame {
            body,
            authenticator: Authenticator::Macs(vec![[7; 16]; macs]),
        }
    }
}

fn dial(replica: &ReplicaHandle) -> TcpStream {
    let socket = TcpStream::connect(replica.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// The other end closes: what is still to be read is read, then nothing comes.
fn assert_closed(socket: &mut TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the link stays open: {error}"),
        }
    }
}

#[test]
fn strangers_are_refused_for_the_right_reason_and_the_service_goes_on() {
    let mut victim = Victim::start();
    victim.expect("handshake_refused_not_atlas", |_, replica| {
        let mut socket = dial(replica);
        socket.write_all(&[b'G'; 1000]).unwrap();
        assert_closed(&mut socket);
    });
    victim.expect("handshake_refused_disconnected", |_, replica| {
        let mut socket = dial(replica);
        socket.write_all(b"ATLS").unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        assert_closed(&mut socket);
    });
    let refused = |identity: Identity| {
        move |victim: &Victim, replica: &ReplicaHandle| {
            let key = victim.cluster.config().replicas[replica.node().index()].link_key;
            let (mut initiator, mut progress) = Initiator::start(&identity, replica.node(), &key).unwrap();
            let mut socket = dial(replica);
            loop {
                socket.write_all(&progress.write).unwrap();
                let Then::Read(wanted) = progress.then else {
                    panic!("a stranger got a link")
                };
                let mut bytes = vec![0; wanted];
                socket.read_exact(&mut bytes).unwrap();
                match initiator.on_bytes(&bytes) {
                    Ok(next) => progress = next,
                    Err(_) => return,
                }
            }
        }
    };
    let identity = victim.identity();
    let other_cluster = ClusterId::from_bytes([3; 16]);
    victim.expect(
        "handshake_refused_wrong_cluster",
        refused(Identity {
            cluster: other_cluster,
            ..identity.clone()
        }),
    );
    victim.expect(
        "handshake_refused_wrong_epoch",
        refused(Identity {
            epoch: Epoch::new(9),
            ..identity.clone()
        }),
    );
    victim.expect(
        "handshake_refused_wrong_application",
        refused(Identity {
            application: ApplicationId::new("other", 1).unwrap(),
            ..identity.clone()
        }),
    );
    let stolen = Identity {
        secret: PartyKeys::generate().link,
        ..identity.clone()
    };
    victim.expect("handshake_refused_wrong_key", refused(stolen));
    let unknown = Identity {
        own: Peer::Client(ClientId::new(99)),
        ..identity.clone()
    };
    victim.expect("handshake_refused_unknown_peer", refused(unknown));
    let impostor = Identity {
        own: Peer::Replica(NodeId::new(50)),
        ..identity
    };
    victim.expect("handshake_refused_unknown_peer", refused(impostor));
}

#[test]
fn a_replayed_handshake_establishes_nothing() {
    let mut victim = Victim::start();
    victim.expect("handshake_refused_bad_handshake", |victim, replica| {
        let key = victim.cluster.config().replicas[replica.node().index()].link_key;
        let (mut initiator, progress) = Initiator::start(&victim.identity(), replica.node(), &key).unwrap();
        // A genuine exchange, recorded.
        let first = progress.write;
        let mut socket = dial(replica);
        socket.write_all(&first).unwrap();
        let mut verdict = [0; VERDICT_BYTES];
        socket.read_exact(&mut verdict).unwrap();
        initiator.on_bytes(&verdict).unwrap();
        let mut second = [0; 48];
        socket.read_exact(&mut second).unwrap();
        let third = initiator.on_bytes(&second).unwrap().write;
        socket.write_all(&third).unwrap();
        let mut up = [0; VERDICT_BYTES + 20];
        socket.read_exact(&mut up).unwrap();
        // The same bytes once more.
        let mut again = dial(replica);
        again.write_all(&first).unwrap();
        let mut answer = [0; VERDICT_BYTES + 48];
        again.read_exact(&mut answer).unwrap();
        again.write_all(&third).unwrap();
        assert_closed(&mut again);
    });
}

#[test]
fn a_stalled_handshake_ends_at_its_deadline_and_holds_nobody_up() {
    let mut victim = Victim::start();
    let stalled: Vec<TcpStream> = victim.replicas().map(dial).collect();
    victim.assert_unharmed();
    let before = [0; 4];
    victim.wait_counted("handshake_refused_timeout", &before);
    for mut socket in stalled {
        assert_closed(&mut socket);
    }
}

#[test]
fn liars_with_a_link_lose_it_and_harm_nobody() {
    let mut victim = Victim::start();
    let raw = |bytes: Vec<u8>| {
        move |victim: &Victim, replica: &ReplicaHandle| {
            let (mut socket, _) = victim.link(replica);
            socket.write_all(&bytes).unwrap();
            assert_closed(&mut socket);
        }
    };
    let mut garbage = 40u32.to_le_bytes().to_vec();
    garbage.extend([9; 40]);
    victim.expect("record_refused_forged", raw(garbage));
    victim.expect("record_refused_too_long", raw(u32::MAX.to_le_bytes().to_vec()));
    victim.expect("record_refused_too_short", raw(3u32.to_le_bytes().to_vec()));
    victim.expect("messages_refused", |victim, replica| {
        victim.send(replica, Bytes::from_static(b"no envelope"), true)
    });
    victim.expect("messages_refused", |victim, replica| {
        let foreign = Envelope::new(Kind::Request, ClusterId::from_bytes([3; 16]), Epoch::ZERO);
        victim.send(replica, encode(foreign, &LinkMessage::Goodbye, 8), true);
    });
    victim.expect("messages_refused", |victim, replica| {
        let votes = SystemMessage::votes(victim.cluster.config().cluster_id(), Epoch::ZERO, Vec::new());
        victim.send(replica, votes, true);
    });
    // The attacker is known by its keys, and what it did is kept.
    for replica in victim.replicas() {
        let held = held_against_attacker(replica);
        for kind in [
            "record_refused_forged",
            "record_refused_too_long",
            "record_refused_too_short",
            "message_refused_archive",
            "message_refused_kind",
        ] {
            assert!(held.contains(kind), "{}: {kind} of {held:?}", replica.node());
        }
    }
}

/// The kinds of what a replica knows of the attacker. No correct client causes them, but that bytes of a link
/// are changed somebody on the way can arrange too.
fn held_against_attacker(replica: &ReplicaHandle) -> BTreeSet<String> {
    let attacker = Peer::Client(ClientId::new(ATTACKER as u32)).to_string();
    let rows = replica.evidence().rows().into_iter();
    rows.inspect(|told| {
        let speaks_against = !told.row.kind.starts_with("record_refused_");
        assert_eq!(
            (&told.row.peer, told.row.misbehaviour),
            (&attacker, speaks_against),
            "{told:?}"
        );
    })
    .map(|told| told.row.kind)
    .collect()
}

#[test]
fn frames_that_are_malformed_or_not_the_clients_are_refused_and_never_executed() {
    let mut victim = Victim::start();
    let refused = |victim: &Victim| -> Vec<u64> {
        victim
            .replicas()
            .map(|replica| {
                let mut all = 0;
                replica.visit_counters(|name, value| {
                    if name.starts_with("frame_refused") && !name.ends_with("pool") {
                        all += value
                    }
                });
                all
            })
            .collect()
    };
    type Forge = fn(&Victim) -> RequestFrame;
    let frames: [(&str, Forge); 4] = [
        ("forged MACs", |victim| victim.frame(ATTACKER as u32, 4)),
        ("too few MACs", |victim| victim.frame(ATTACKER as u32, 1)),
        ("another client's name", |victim| victim.frame(0, 4)),
        ("a body of noise", |victim| RequestFrame {
            body: vec![0xff; 100],
            ..victim.frame(ATTACKER as u32, 4)
        }),
    ];
    for (what, frame) in frames {
        let before = refused(&victim);
        let nodes: Vec<ReplicaHandle> = victim.replicas().cloned().collect();
        for replica in &nodes {
            let message = encode(victim.envelope(Kind::Request), &frame(&victim), 256);
            let (mut socket, link) = victim.link(replica);
            let mut out = Vec::new();
            RecordWriter::new(link.sealer)
                .seal(&mut [message].into_iter().collect(), &mut out, usize::MAX)
                .unwrap();
            socket.write_all(&out).unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while refused(&victim)[replica.node().index()] == before[replica.node().index()] {
                assert!(
                    Instant::now() < deadline,
                    "{what}: {} did not count it",
                    replica.node()
                );
                std::thread::yield_now();
            }
        }
        victim.assert_unharmed();
    }
    for replica in victim.replicas() {
        let held = held_against_attacker(replica);
        for kind in [
            "frame_refused_mac",
            "frame_refused_mac_count",
            "frame_refused_wrong_client",
        ] {
            assert!(held.contains(kind), "{}: {kind} of {held:?}", replica.node());
        }
        let rows = replica.evidence().rows();
        assert!(rows.iter().all(|told| told.row.digest.is_some()), "{rows:?}");
    }
}
