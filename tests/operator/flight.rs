//! The record of a replica's last events: by a signal, at the admin endpoint, and shown.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use atlas_smr_replica::execution::apps::kv;
use atlas_smr_replica::flight::FlightDump;

use super::admin::Asked;
use super::shared::{Replica, alone, connect, set};
use super::{complaint, eventually, lone, output, run};

fn records(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir.join("r0-data/flight")) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "flight"))
        .collect()
}

fn shown(file: &Path, more: &[&str]) -> Output {
    output(&[&["inspect", "flight", file.to_str().unwrap()], more].concat())
}

fn signal_user(replica: &Replica) {
    let id = replica.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-USR1", &id])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_replica_that_is_sent_sigusr1_writes_its_last_events_and_goes_on() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let child = run(dir.path(), 0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut replica = Replica(child.unwrap());
    replica.wait_ready();
    let client = connect(dir.path(), 0);
    client.call_blocking(kv::put(b"k", b"1").unwrap()).unwrap();
    signal_user(&replica);
    let mut said = BufReader::new(replica.0.stderr.take().unwrap()).lines();
    let line = said
        .find_map(|line| line.ok().filter(|line| line.contains("SIGUSR1")))
        .expect("it says where they are");
    let files = records(dir.path());
    assert_eq!(files.len(), 1);
    assert!(line.contains(files[0].to_str().unwrap()), "{line}");
    client.call_blocking(kv::put(b"k", b"2").unwrap()).unwrap();

    let table = shown(&files[0], &[]);
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(table.status.success(), "{text}");
    for word in [
        "r0 of cluster",
        "asked for by SIGUSR1",
        "started",
        "link-up",
        "frames",
        "decided",
        "executed",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let json: serde_json::Value = serde_json::from_slice(&shown(&files[0], &["--json"]).stdout).unwrap();
    let events = json["events"].as_array().unwrap();
    let times = events.iter().map(|event| event["nanoseconds"].as_u64().unwrap());
    assert!(times.is_sorted(), "{json}");
    let executed = events.iter().find(|event| event["event"] == "executed").unwrap();
    assert_eq!(
        (&executed["seq"], &executed["numbers"][0]),
        (&1.into(), &1.into())
    );
    let last: serde_json::Value =
        serde_json::from_slice(&shown(&files[0], &["--json", "--last", "2"]).stdout).unwrap();
    assert_eq!(last["events"].as_array().unwrap()[..], events[events.len() - 2..]);
}

#[test]
fn so_many_records_stay_and_one_that_is_damaged_or_none_is_told_apart() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let path = dir.path().join("r0.toml");
    set(dir.path(), "r0.toml", "[flight]", "[flight]\ndumps_max = 2");
    let mut replica = Replica::start(&path);
    replica.wait_ready();
    let mut seen = std::collections::BTreeSet::new();
    for count in 1..=4 {
        signal_user(&replica);
        eventually("there is one more", || {
            seen.extend(records(dir.path()));
            seen.len() == count
        });
    }
    assert_eq!(records(dir.path()).len(), 2);

    let file = &records(dir.path())[0];
    let mut bytes = std::fs::read(file).unwrap();
    let (damaged, cut, other) = ("damaged", "cut", "other");
    let beside = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let cut = beside(cut, &bytes[..bytes.len() / 2]);
    let other = beside(other, b"[flight]\nnothing = 1\n");
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    let damaged = beside(damaged, &bytes);
    for (file, code, words) in [
        (damaged.as_path(), 1, "its checksum is not that of its bytes"),
        (&cut, 1, "it is cut"),
        (&other, 2, "it is no flight record"),
        (&dir.path().join("nowhere"), 2, "nowhere"),
        (dir.path(), 2, "it is no regular file"),
    ] {
        let said = shown(file, &[]);
        assert_eq!(said.status.code(), Some(code), "{}", complaint(&said));
        assert!(complaint(&said).contains(words), "{words}: {}", complaint(&said));
        assert!(said.stdout.is_empty());
    }
}

#[test]
fn the_endpoint_hands_out_the_record_and_what_was_refused_of_peers() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let asked = Asked::start(dir.path(), 0, &[]);
    let (status, peers) = asked.get("/debug/peers");
    assert_eq!(status, 200);
    let peers: serde_json::Value = serde_json::from_str(&peers).unwrap();
    assert_eq!(peers["peers"], serde_json::json!([]));
    let status: serde_json::Value = serde_json::from_str(&asked.get("/status").1).unwrap();
    assert_eq!(status["evidence"], serde_json::json!([]));

    let mut stream = asked.connect();
    std::io::Write::write_all(&mut stream, b"GET /debug/flight HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    let dump = FlightDump::decode(&answer[end + 4..]).unwrap();
    let names: Vec<&str> = dump.shards.iter().map(|shard| shard.name.as_str()).collect();
    assert!(names.contains(&"d0") && names.contains(&"control"), "{names:?}");

    let config = dir.path().join("c0.toml");
    let shown = output(&["status", "--peers", "--config", config.to_str().unwrap()]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("nothing of its peers was refused"), "{text}");
}

#[test]
fn a_replica_that_records_nothing_says_so() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    set(
        dir.path(),
        "r0.toml",
        "events_per_shard = 4096",
        "events_per_shard = 0",
    );
    let path = dir.path().join("r0.toml");
    let asked = Asked::start(dir.path(), 0, &[]);
    let (status, why) = asked.get("/debug/flight");
    assert_eq!(status, 404);
    assert!(why.contains("events_per_shard = 0"), "{why}");
    set(
        dir.path(),
        "r0.toml",
        "events_per_shard = 0",
        "events_per_shard = 3",
    );
    let checked = output(&["config", "check", path.to_str().unwrap()]);
    assert!(
        complaint(&checked).contains("flight.events_per_shard"),
        "{}",
        complaint(&checked)
    );
}
