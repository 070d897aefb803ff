use std::path::Path;
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::runtime::config::FlightConfig;
use crate::smr::types::{ClusterId, Epoch, NodeId, Peer, SeqNo, Time, View};

fn recorder(events_per_shard: usize, dumps_max: usize, directory: &Path) -> FlightRecorder {
    let identity = FlightIdentity {
        cluster: ClusterId::from_bytes([5; 16]),
        node: NodeId::new(3),
        epoch: Epoch::new(2),
    };
    let config = FlightConfig {
        events_per_shard,
        dumps_max,
    };
    FlightRecorder::new(identity, &config, 2, directory.to_owned(), Instant::now())
}

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn decided(seq: u64) -> FlightEvent {
    FlightEvent::of(FlightKind::Decided)
        .seq(SeqNo::new(seq))
        .numbers(1, 0)
}

fn filled() -> FlightDump {
    let recorder = recorder(64, 2, Path::new("nowhere"));
    let (first, second) = (recorder.pen(0), recorder.pen(1));
    first.record(at(1), FlightEvent::of(FlightKind::Started));
    second.record(at(2), decided(7));
    let peer = Some(Peer::Replica(NodeId::new(1)));
    first.record(at(3), FlightEvent::of(FlightKind::LinkUp).with(peer));
    first.record(at(3), FlightEvent::of(FlightKind::ViewLeft).view(View::new(1)));
    second.record(at(3), decided(8));
    recorder
        .control_pen()
        .record_now(FlightEvent::of(FlightKind::HandshakeRefused));
    recorder.capture(DumpCause::Failure, "the disk failed").unwrap()
}

#[test]
fn what_shards_recorded_is_merged_by_time_and_within_a_shard_in_order() {
    let dump = filled();
    let kinds: Vec<(usize, Option<FlightKind>)> = dump
        .merged()
        .into_iter()
        .map(|(shard, event)| (shard, event.kind()))
        .collect();
    let expected = [
        (0, FlightKind::Started),
        (1, FlightKind::Decided),
        (0, FlightKind::LinkUp),
        (0, FlightKind::ViewLeft),
        (1, FlightKind::Decided),
        (2, FlightKind::HandshakeRefused),
    ];
    assert_eq!(kinds, expected.map(|(shard, kind)| (shard, Some(kind))));
    let names: Vec<&str> = dump.shards.iter().map(|shard| shard.name.as_str()).collect();
    assert_eq!(names, ["d0", "d1", "control"]);
}

#[test]
fn traffic_and_others_do_not_push_out_what_the_replica_went_through() {
    let recorder = recorder(64, 2, Path::new("nowhere"));
    let pen = recorder.pen(0);
    pen.record(at(0), FlightEvent::of(FlightKind::ViewEntered).view(View::new(9)));
    for nanos in 1..10_000 {
        pen.record(at(nanos), decided(nanos));
        pen.record(at(nanos), FlightEvent::of(FlightKind::Refused));
    }
    let dump = recorder.capture(DumpCause::Asked, "").unwrap();
    let shard = &dump.shards[0];
    assert_eq!(shard.recorded, 1 + 2 * 9999);
    assert_eq!(shard.events.len(), 1 + 32 + 16);
    assert_eq!(shard.events[0].kind(), Some(FlightKind::ViewEntered));
    assert_eq!(shard.events.last().unwrap().at, at(9999));
}

#[test]
fn a_recorder_that_is_off_records_nothing_and_says_so() {
    let recorder = recorder(0, 2, Path::new("."));
    recorder.pen(0).record(at(1), decided(1));
    recorder.control_pen().record_now(decided(1));
    assert!(!recorder.is_on());
    assert!(recorder.capture(DumpCause::Asked, "").is_none());
    assert!(matches!(recorder.dump(DumpCause::Asked, ""), Err(DumpError::Off)));
}

#[test]
fn a_file_comes_back_as_it_was_and_every_way_to_damage_it_is_named() {
    let dump = filled();
    let bytes = dump.encode();
    assert_eq!(FlightDump::decode(&bytes), Ok(dump));
    for length in 0..bytes.len() {
        let error = FlightDump::decode(&bytes[..length]).unwrap_err();
        let is_fine = match length {
            0..8 => error == FlightFileError::NotOne,
            _ => matches!(error, FlightFileError::Cut { .. } | FlightFileError::Checksum),
        };
        assert!(is_fine, "{length} of {} bytes: {error}", bytes.len());
    }
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(FlightDump::decode(&damaged).is_err(), "byte {at}");
    }
    let mut later = bytes.clone();
    later[8] = 2;
    assert_eq!(FlightDump::decode(&later), Err(FlightFileError::Version(2)));
    let mut odd = bytes[..bytes.len() - 8].to_vec();
    odd[12] = 9;
    odd.extend_from_slice(&xxh3_64(&odd).to_le_bytes());
    let error = FlightDump::decode(&odd).unwrap_err();
    assert!(
        matches!(error, FlightFileError::Field { offset: 12, .. }),
        "{error}"
    );
}

#[test]
fn an_event_of_a_kind_to_come_is_read_and_kept() {
    let mut dump = filled();
    dump.shards[0].events[0].code = 250;
    let read = FlightDump::decode(&dump.encode()).unwrap();
    assert_eq!(read, dump);
    assert_eq!(read.shards[0].events[0].words(), "kind 250: 0 0");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory.join("flight")).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn so_many_records_of_either_cause_stay_and_nothing_else_is_touched() {
    let data = tempfile::tempdir().unwrap();
    let recorder = recorder(64, 2, data.path());
    let failure = recorder.dump(DumpCause::Failure, "why").unwrap();
    let flight = data.path().join("flight");
    std::fs::write(flight.join("000000000000001-asked.new"), "half").unwrap();
    std::fs::write(flight.join("notes.txt"), "mine").unwrap();
    let asked: Vec<_> = (0..5)
        .map(|_| recorder.dump(DumpCause::Asked, "").unwrap())
        .collect();
    let mut expected: Vec<String> = [&failure, &asked[3], &asked[4]]
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .to_vec();
    expected.push("notes.txt".to_owned());
    expected.sort();
    assert_eq!(names(data.path()), expected);
    let dump = FlightDump::decode(&std::fs::read(failure).unwrap()).unwrap();
    assert_eq!((dump.cause, dump.why.as_str()), (DumpCause::Failure, "why"));
}

#[test]
fn a_data_directory_that_is_not_there_is_not_made() {
    let data = tempfile::tempdir().unwrap();
    let lost = data.path().join("lost");
    let recorder = recorder(64, 2, &lost);
    let error = recorder.dump(DumpCause::Asked, "").unwrap_err();
    assert!(matches!(error, DumpError::NoDirectory(_)), "{error}");
    assert!(!lost.exists());
}
