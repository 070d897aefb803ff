//! The files of the flight recorder.

use xxhash_rust::xxh3::xxh3_64;

use super::targets::word;
use super::{CLUSTER, EPOCH};
use crate::runtime::flight::{DumpCause, FlightDump, FlightEvent, FlightIdentity, FlightKind, ShardEvents};
use crate::smr::types::{ClientId, NodeId, Peer, SeqNo, Time, UnixTime, View};

/// Files without their checksums: of nothing, and of an event of each kind.
pub(super) fn files() -> Vec<Vec<u8>> {
    let peers = [
        None,
        Some(Peer::Replica(NodeId::new(3))),
        Some(Peer::Client(ClientId::new(70_000))),
    ];
    let kinds = FlightKind::ALL.iter().zip(peers.iter().cycle());
    let events = (0..).zip(kinds).map(|(number, (kind, peer))| {
        let event = FlightEvent::of(*kind).with(*peer).view(View::new(2));
        FlightEvent {
            number,
            at: Time::from_nanos(1000 * number),
            ..event.seq(SeqNo::new(number)).numbers(number % 3, 1)
        }
    });
    let shard = |name: &str, events: Vec<FlightEvent>| ShardEvents {
        name: name.to_owned(),
        recorded: 9 + events.len() as u64,
        events,
    };
    let dump = |cause, why: &str, shards| FlightDump {
        identity: FlightIdentity {
            cluster: CLUSTER,
            node: NodeId::new(1),
            epoch: EPOCH,
        },
        started: UnixTime::from_nanos(1 << 60),
        taken: Time::from_nanos(1 << 40),
        cause,
        why: why.to_owned(),
        shards,
    };
    let shards = vec![shard("d0", events.collect()), shard("control", vec![])];
    [
        dump(DumpCause::Asked, "", vec![]),
        dump(DumpCause::Failure, "the disk failed", shards),
    ]
    .map(|dump| {
        let mut bytes = dump.encode();
        bytes.truncate(bytes.len() - 8);
        bytes
    })
    .to_vec()
}

/// The checksum is put right before it is read: rot is found by it, and what gets past it must not do worse.
pub(super) fn file(input: &[u8]) -> String {
    let mut bytes = input.to_vec();
    bytes.extend_from_slice(&xxh3_64(input).to_le_bytes());
    match FlightDump::decode(&bytes) {
        Ok(dump) => {
            assert!(dump.encode() == bytes, "a record has one form");
            let merged = dump.merged();
            assert!(merged.is_sorted_by_key(|(_, event)| event.at));
            let words: usize = merged.iter().map(|(_, event)| event.words().len()).sum();
            format!("{} shards {}", dump.shards.len().min(3), words > 0)
        }
        Err(error) => word(&error),
    }
}
