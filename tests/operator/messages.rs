//! Nobody has to read what a replica says.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write, pipe};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use atlas_smr_replica::execution::apps::kv;

use super::shared::{Replica, alone, connect, init};
use super::{atlas, complaint, eventually, lone, run, terminate, wait_for_end};

/// Where nothing more can be written.
fn full() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// A pipe whose reader is gone.
fn broken() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A pipe that is full for ever: its reader hangs.
pub(super) fn hung() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    std::thread::spawn(move || {
        let _held = reader;
        while filler.write_all(&[b'\n'; 4096]).is_ok() {}
    });
    writer.into()
}

/// Knocks as a browser does, and waits for the refusal.
fn knock(dir: &Path) {
    let text = std::fs::read_to_string(dir.join("cluster.toml")).unwrap();
    let addresses = text.lines().filter_map(|line| line.strip_prefix("address = "));
    for address in addresses {
        let mut socket = TcpStream::connect(address.trim_matches('"')).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
            .write_all(&[&b"GET / HTTP/1.1\r\n\r\n"[..], &[b' '; 100]].concat())
            .unwrap();
        // A refusal, or a reset: but not nothing.
        let ended = socket.read_to_end(&mut Vec::new());
        assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    }
}

#[test]
fn a_cluster_whose_logs_nobody_reads_serves_accepts_and_stops_in_good_order() {
    let _turn = alone();
    for (what, stream) in [
        ("a full disk", full as fn() -> Stdio),
        ("no reader", broken),
        ("a hung reader", hung),
    ] {
        let dir = init("kv");
        let replicas: Vec<Replica> = (0..4)
            .map(|node| {
                let mut replica = run(dir.path(), node);
                replica
                    .env("ATLAS_LOG", "debug")
                    .stdout(stream())
                    .stderr(stream());
                Replica(replica.spawn().unwrap())
            })
            .collect();
        let client = connect(dir.path(), 0);
        for round in 0..3 {
            knock(dir.path());
            let key = format!("{what} {round}");
            client
                .call_blocking(kv::put(key.as_bytes(), b"value").unwrap())
                .unwrap();
            // A newcomer is accepted.
            let other = connect(dir.path(), 1);
            other.call_blocking(kv::get(key.as_bytes()).unwrap()).unwrap();
        }
        replicas.iter().for_each(|replica| terminate(&replica.0));
        for mut replica in replicas {
            let status = wait_for_end(&mut replica.0);
            assert!(status.success(), "{what}: {status}");
        }
    }
}

#[test]
fn a_replica_whose_reader_takes_one_line_and_goes_still_stops_when_it_is_told() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let start = |stdout: Stdio| -> Child { run(dir.path(), 0).stdout(stdout).spawn().unwrap() };
    let mut replica = start(Stdio::piped());
    let mut line = String::new();
    let mut reader = BufReader::new(replica.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("r0 of cluster atlas"), "{line}");
    drop(reader);
    connect(dir.path(), 0);
    terminate(&replica);
    assert!(wait_for_end(&mut replica).success());

    // Nobody was there from the start.
    let mut replica = start(broken());
    connect(dir.path(), 0);
    terminate(&replica);
    assert!(wait_for_end(&mut replica).success());
}

#[test]
fn a_command_whose_output_is_not_taken_ends_in_good_order_and_says_when_a_disk_is_full() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let out = dir.path().to_str().unwrap();
    let (replica, data) = (format!("{out}/r0.toml"), format!("{out}/r0-data"));
    let mut started = Replica::start(replica.as_ref());
    started.wait_ready();
    let client = format!("{out}/c0.toml");
    for arguments in [
        &["inspect", "superblock", &data][..],
        &["inspect", "integrity", &data],
        &["config", "check", &replica],
        &["status", "--config", &client],
        &["status", "--json", "--config", &client],
        &["doctor", "--seccomp"],
    ] {
        let closed = atlas(arguments).stdout(broken()).output().unwrap();
        assert_eq!(
            closed.status.code(),
            Some(0),
            "{arguments:?}: {}",
            complaint(&closed)
        );
        assert_eq!(complaint(&closed), "", "{arguments:?}");
        let full = atlas(arguments).stdout(full()).output().unwrap();
        assert_eq!(full.status.code(), Some(1), "{arguments:?}");
        let said = complaint(&full);
        assert!(
            said.contains("cannot write the output: No space left"),
            "{arguments:?}: {said}"
        );
    }
    eventually("nothing of it touched the replica", || {
        connect(dir.path(), 0)
            .call_blocking(kv::put(b"k", b"v").unwrap())
            .is_ok()
    });
}

#[test]
fn a_bad_filter_of_logs_is_said_and_colours_are_for_terminals_that_want_them() {
    let said = |variable: &str, value: &str| {
        let command = atlas(&["run", "--config", "no/such.toml"])
            .env(variable, value)
            .output();
        complaint(&command.unwrap())
    };
    let bad = said("ATLAS_LOG", "atlas=loud");
    assert!(bad.contains("ATLAS_LOG=atlas=loud: `loud` is no level"), "{bad}");
    for sound in ["", "debug", "atlas_smr_replica=info,warn"] {
        assert!(!said("ATLAS_LOG", sound).contains("ATLAS_LOG"), "{sound}");
    }
    assert!(!said("NO_COLOR", "1").contains('\x1b'));
}
