use std::collections::VecDeque;

use bytes::Bytes;
use proptest::prelude::*;

use super::framing::{FramingError, RecordReader, RecordWriter};
use super::handshake::{Directory, Established, Identity, Initiator, Responder, Then};
use super::hello::{HELLO_BYTES, HandshakeRefusal, Hello, Peer};
use super::pool::BufferPool;
use crate::smr::crypto::{LinkPublic, LinkSecret, Opener, Sealer};
use crate::smr::messages::lengths::{LINK_RECORD_BYTES, link_record_bytes};
use crate::smr::types::{ApplicationId, ClientId, ClusterId, Epoch, NodeId};

const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-tests");

struct Keys(Vec<(Peer, LinkPublic)>);

impl Directory for Keys {
    fn link_key(&self, peer: Peer) -> Option<LinkPublic> {
        self.0
            .iter()
            .find(|(known, _)| *known == peer)
            .map(|(_, key)| *key)
    }
}

fn secret(seed: u8) -> LinkSecret {
    LinkSecret::from_bytes(&[seed; 32])
}

fn application() -> ApplicationId {
    ApplicationId::new("test", 1).unwrap()
}

fn identity(own: Peer, seed: u8) -> Identity {
    Identity {
        cluster: CLUSTER,
        application: application(),
        epoch: Epoch::ZERO,
        own,
        secret: secret(seed),
    }
}

fn replica(index: u16) -> Peer {
    Peer::Replica(NodeId::new(index))
}

fn directory() -> Keys {
    let client = Peer::Client(ClientId::new(5));
    Keys(vec![
        (replica(0), secret(1).public()),
        (replica(1), secret(2).public()),
        (client, secret(3).public()),
    ])
}

/// Runs both ends against each other; `tamper` may change what crosses, message by message.
fn run(
    ours: &Identity,
    dialled_key: LinkPublic,
    mut tamper: impl FnMut(usize, &mut Vec<u8>),
) -> (
    Result<Established, HandshakeRefusal>,
    Result<Established, HandshakeRefusal>,
) {
    let keys = directory();
    let (mut initiator, mut at_initiator) = Initiator::start(ours, NodeId::new(0), &dialled_key).unwrap();
    let (mut responder, mut at_responder) = Responder::start(identity(replica(0), 1));
    let (mut to_responder, mut to_initiator) = (VecDeque::new(), VecDeque::new());
    let (mut result_i, mut result_r) = (None, None);
    let mut message = 0;
    let mut send = |bytes: Vec<u8>, queue: &mut VecDeque<u8>| {
        let mut bytes = bytes;
        tamper(message, &mut bytes);
        message += 1;
        queue.extend(bytes);
    };
    send(std::mem::take(&mut at_initiator.write), &mut to_responder);
    for _ in 0..20 {
        if result_r.is_none()
            && let Then::Read(wanted) = at_responder.then
            && to_responder.len() >= wanted
        {
            let bytes: Vec<u8> = to_responder.drain(..wanted).collect();
            match responder.on_bytes(&bytes, &keys) {
                Ok(mut progress) => {
                    send(std::mem::take(&mut progress.write), &mut to_initiator);
                    at_responder = progress;
                }
                Err(refusal) => {
                    send(refusal.verdict().to_vec(), &mut to_initiator);
                    result_r = Some(refusal);
                }
            }
        }
        if result_i.is_none()
            && let Then::Read(wanted) = at_initiator.then
            && to_initiator.len() >= wanted
        {
            let bytes: Vec<u8> = to_initiator.drain(..wanted).collect();
            match initiator.on_bytes(&bytes) {
                Ok(mut progress) => {
                    let write = std::mem::take(&mut progress.write);
                    if !write.is_empty() {
                        send(write, &mut to_responder);
                    }
                    at_initiator = progress;
                }
                Err(refusal) => result_i = Some(refusal),
            }
        }
    }
    let end = |then, refusal: Option<HandshakeRefusal>| match (then, refusal) {
        (_, Some(refusal)) => Err(refusal),
        (Then::Established(link), None) => Ok(*link),
        (Then::Read(_), None) => Err(HandshakeRefusal::Disconnected),
    };
    (end(at_initiator.then, result_i), end(at_responder.then, result_r))
}

#[test]
fn records_are_no_longer_than_is_worked_out_from_the_longest_message() {
    let sealer = || {
        let (initiator, _) = run(&identity(replica(1), 2), secret(1).public(), |_, _| {});
        RecordWriter::new(initiator.unwrap().sealer)
    };
    for longest in [
        1,
        1000,
        LINK_RECORD_BYTES - 1,
        LINK_RECORD_BYTES,
        LINK_RECORD_BYTES + 1,
        1 << 20,
    ] {
        let limit = link_record_bytes(longest);
        let sizes = [
            longest,
            1,
            LINK_RECORD_BYTES / 2,
            LINK_RECORD_BYTES / 2,
            7,
            longest,
            longest,
        ];
        let sizes = sizes.iter().chain([&100; 1000]).copied();
        let mut waiting: VecDeque<Bytes> = sizes
            .map(|bytes| Bytes::from(vec![5; bytes.min(longest)]))
            .collect();
        let mut wire = Vec::new();
        sealer().seal(&mut waiting, &mut wire, usize::MAX).unwrap();
        let (mut at, mut most) = (0, 0);
        while let Some(length) = wire.get(at..at + 4) {
            let length = u32::from_le_bytes(length.try_into().unwrap()) as usize;
            most = most.max(length);
            at += 4 + length;
        }
        assert!(most <= limit, "a record of {most} bytes, {limit} are taken");
        if longest > LINK_RECORD_BYTES {
            assert_eq!(most, limit);
        }
    }
}

#[test]
fn listed_peers_get_a_link_whose_directions_match() {
    for own in [(replica(1), 2), (Peer::Client(ClientId::new(5)), 3)] {
        let (initiator, responder) = run(&identity(own.0, own.1), secret(1).public(), |_, _| {});
        let (mut initiator, mut responder) = (initiator.unwrap(), responder.unwrap());
        assert_eq!((initiator.peer, responder.peer), (replica(0), own.0));
        let mut wire = Vec::new();
        initiator
            .sealer
            .seal(&mut wire, |out| out.extend_from_slice(b"ping"))
            .unwrap();
        assert_eq!(responder.opener.open(&wire[4..]).unwrap(), &b"ping"[..]);
        wire.clear();
        responder
            .sealer
            .seal(&mut wire, |out| out.extend_from_slice(b"pong"))
            .unwrap();
        assert_eq!(initiator.opener.open(&wire[4..]).unwrap(), &b"pong"[..]);
    }
}

#[test]
fn every_way_to_be_somebody_else_is_refused_and_the_initiator_learns_why() {
    let key = secret(1).public();
    let check = |ours: &Identity, expected: HandshakeRefusal| {
        let (initiator, responder) = run(ours, key, |_, _| {});
        assert_eq!(responder.unwrap_err(), expected);
        assert_eq!(initiator.unwrap_err(), expected);
    };
    check(&identity(replica(1), 9), HandshakeRefusal::WrongKey);
    check(&identity(replica(2), 9), HandshakeRefusal::UnknownPeer);
    check(
        &identity(Peer::Client(ClientId::new(6)), 3),
        HandshakeRefusal::UnknownPeer,
    );
    check(&identity(replica(0), 1), HandshakeRefusal::UnknownPeer);
    let other_cluster = ClusterId::from_bytes([1; 16]);
    check(
        &Identity {
            cluster: other_cluster,
            ..identity(replica(1), 2)
        },
        HandshakeRefusal::WrongCluster,
    );
    check(
        &Identity {
            epoch: Epoch::new(1),
            ..identity(replica(1), 2)
        },
        HandshakeRefusal::WrongEpoch,
    );
    // Each end names both, its own first.
    let theirs = ApplicationId::new("test", 2).unwrap();
    let other_application = Identity {
        application: theirs,
        cluster: other_cluster,
        ..identity(replica(1), 2)
    };
    let (initiator, responder) = run(&other_application, key, |_, _| {});
    let wrong = |ours, theirs| HandshakeRefusal::WrongApplication { ours, theirs };
    assert_eq!(responder.unwrap_err(), wrong(application(), theirs));
    let refusal = initiator.unwrap_err();
    assert_eq!(refusal, wrong(theirs, application()));
    assert_eq!(
        refusal.to_string(),
        "this end is of test (version 2), the other one of test (version 1): their cluster.toml files name different applications"
    );
    // The initiator dials somebody whose key is not the listed one: the responder cannot read the first
    // message.
    let (initiator, responder) = run(&identity(replica(1), 2), secret(8).public(), |_, _| {});
    assert_eq!(responder.unwrap_err(), HandshakeRefusal::BadHandshake);
    assert!(initiator.is_err());
}

#[test]
fn a_hello_of_another_version_or_protocol_is_told_apart() {
    let ours = identity(replica(1), 2);
    let (_, responder) = run(&ours, secret(1).public(), |i, bytes| {
        if i == 0 {
            bytes[4] = 77;
        }
    });
    assert_eq!(
        responder.unwrap_err(),
        HandshakeRefusal::ProtocolVersion { theirs: 77 }
    );
    let (_, responder) = run(&ours, secret(1).public(), |i, bytes| {
        if i == 0 {
            bytes[..4].copy_from_slice(b"GET ");
        }
    });
    assert_eq!(responder.unwrap_err(), HandshakeRefusal::NotAtlas);
}

#[test]
fn no_flipped_bit_of_the_exchange_leaves_a_link_at_both_ends() {
    let ours = identity(replica(1), 2);
    for (message, bytes) in [(0, 88), (1, 52), (2, 64), (3, 24)] {
        for at in 0..bytes {
            let (initiator, responder) = run(&ours, secret(1).public(), |i, bytes| {
                if i == message {
                    bytes[at] ^= 0x10;
                }
            });
            assert!(
                initiator.is_err() || responder.is_err(),
                "message {message} byte {at}"
            );
            assert!(
                initiator.is_err(),
                "the initiator took a changed message {message} byte {at}"
            );
        }
    }
}

#[test]
fn a_replayed_transcript_establishes_nothing() {
    let mut sent = Vec::new();
    let ours = identity(replica(1), 2);
    let (initiator, responder) = run(&ours, secret(1).public(), |i, bytes| {
        if i % 2 == 0 {
            sent.push(bytes.clone());
        }
    });
    assert!(initiator.is_ok() && responder.is_ok());
    let (mut again, _) = Responder::start(identity(replica(0), 1));
    assert!(
        again.on_bytes(&sent[0], &directory()).is_ok(),
        "the first message alone proves nothing yet"
    );
    assert_eq!(
        again.on_bytes(&sent[1], &directory()).unwrap_err(),
        HandshakeRefusal::BadHandshake
    );
}

#[test]
fn a_record_over_the_limit_is_refused_by_its_length_alone() {
    let mut reader = RecordReader::new(Opener::new(&[0; 32]), 1000, BufferPool::new(2));
    assert_eq!(
        reader.push(&1001u32.to_le_bytes()),
        Err(FramingError::RecordTooLong { got: 1001, max: 1000 })
    );
    let mut reader = RecordReader::new(Opener::new(&[0; 32]), 1000, BufferPool::new(2));
    assert_eq!(
        reader.push(&3u32.to_le_bytes()),
        Err(FramingError::RecordTooShort(3))
    );
    let mut reader = RecordReader::new(Opener::new(&[0; 32]), 1000, BufferPool::new(2));
    let mut garbage = 32u32.to_le_bytes().to_vec();
    garbage.extend([7; 32]);
    assert_eq!(reader.push(&garbage), Err(FramingError::Forged));
}

#[test]
fn a_message_that_passes_its_record_is_refused() {
    let mut wire = Vec::new();
    let mut sealer = Sealer::new(&[4; 32]);
    sealer
        .seal(&mut wire, |out| out.extend_from_slice(&[200, 0, 0, 0, 1, 2]))
        .unwrap();
    let mut reader = RecordReader::new(Opener::new(&[4; 32]), 1000, BufferPool::new(2));
    reader.push(&wire).unwrap();
    assert_eq!(reader.next_message(), Err(FramingError::MessageOverrun));
}

proptest! {
    #[test]
    fn messages_arrive_whole_and_in_order_however_the_bytes_are_cut(
        sizes in proptest::collection::vec(0usize..3000, 1..40),
        big in 60_000usize..200_000,
        cuts in proptest::collection::vec(1usize..5000, 1..50),
    ) {
        let mut sizes = sizes;
        sizes.push(big);
        let messages: Vec<Bytes> =
            sizes.iter().enumerate().map(|(i, size)| Bytes::from(vec![i as u8; *size])).collect();
        let mut queue: VecDeque<Bytes> = messages.iter().cloned().collect();
        let (mut writer, mut wire) = (RecordWriter::new(Sealer::new(&[4; 32])), Vec::new());
        while !queue.is_empty() {
            let mut out = Vec::new();
            writer.seal(&mut queue, &mut out, 10_000).unwrap();
            wire.extend(out);
        }
        let mut reader = RecordReader::new(Opener::new(&[4; 32]), 1 << 20, BufferPool::new(2));
        let (mut received, mut at, mut turn) = (Vec::new(), 0, 0);
        while at < wire.len() {
            let end = (at + cuts[turn % cuts.len()]).min(wire.len());
            reader.push(&wire[at..end]).unwrap();
            while let Some(message) = reader.next_message().unwrap() {
                received.push(message);
            }
            (at, turn) = (end, turn + 1);
        }
        prop_assert_eq!(received, messages);
        prop_assert_eq!(reader.backlog_bytes(), 0);
    }

    #[test]
    fn any_hello_round_trips_and_no_bytes_panic(bytes in any::<[u8; 32]>(), id in any::<u16>(), epoch in any::<u64>()) {
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&bytes[..16]);
        let hello = Hello {
            application: application(),
            cluster: ClusterId::from_bytes(cluster),
            epoch: Epoch::new(epoch),
            claimed: replica(id),
            dialled: NodeId::new(id ^ 1),
        };
        prop_assert_eq!(Hello::parse(&hello.to_bytes()).unwrap(), hello);
        let mut noise = [0; HELLO_BYTES];
        for (byte, noise) in bytes.iter().cycle().zip(&mut noise) {
            *noise = *byte;
        }
        let _ = Hello::parse(&noise);
    }
}
