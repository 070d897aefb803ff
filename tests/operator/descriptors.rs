//! Open files and sockets: as many as are needed, or no start; and none for strangers that the log would
//! lack.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::shared::load::Load;
use super::shared::{Replica, alone, client, connect, init, set, status};
use super::{complaint, eventually, last_words, lone, output};

/// `atlas run` under limits that the shell sets.
fn limited(dir: &Path, node: usize, limits: &str) -> Command {
    let config = dir.join(format!("r{node}.toml"));
    let binary = env!("CARGO_BIN_EXE_atlas");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!(
        "{limits}; exec {binary} run --no-pin --config {}",
        config.display()
    ));
    shell
}

#[test]
fn a_low_soft_limit_is_raised_and_a_low_hard_limit_refused_with_the_number_that_is_needed() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let mut replica = limited(dir.path(), 0, "ulimit -Sn 64");
    let mut replica = Replica(replica.stdout(Stdio::piped()).spawn().unwrap());
    replica.wait_ready();
    drop(replica);

    for (limit, suggests) in [(300, false), (1600, true)] {
        let mut refused = limited(dir.path(), 0, &format!("ulimit -n {limit}"));
        let child = refused.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let (status, said) = last_words(child.unwrap());
        assert_eq!(status.code(), Some(1), "{said}");
        for part in [
            "limits.connections_max = 1024",
            &format!("this process may have {limit}"),
            "ulimit -n ",
            "LimitNOFILE=",
        ] {
            assert!(said.contains(part), "{limit}: {said}");
        }
        assert_eq!(said.contains("or set connections_max = "), suggests, "{said}");

        // The doctor knew: the files are as `atlas init` makes them, but for how many replicas there are.
        let of_four = tempfile::tempdir().unwrap();
        let made = output(&[
            "init",
            "--clients",
            "0",
            "--out",
            of_four.path().to_str().unwrap(),
        ]);
        assert!(made.status.success());
        let mut refused = limited(of_four.path(), 0, &format!("ulimit -n {limit}"));
        let refused = refused.output().unwrap();
        let said = complaint(&refused)
            .trim_start_matches("atlas: ")
            .trim_end()
            .to_owned();
        let line = format!("ulimit -n {limit}; exec {} doctor", env!("CARGO_BIN_EXE_atlas"));
        let doctor = Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(doctor.status.code(), Some(1));
        let findings = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(
            findings.contains(&format!("✗ open files      {said}")),
            "{said}: {findings}"
        );
    }
}

#[test]
fn strangers_and_clients_at_the_limit_cost_no_checkpoint_and_keep_no_member_out() {
    let _turn = alone();
    let dir = init("kv");
    let agreed = |from: &str, to: &str| set(dir.path(), "cluster.toml", from, to);
    agreed("checkpoint_decisions = 1000", "checkpoint_decisions = 20");
    agreed("window = ", "window = 100 # ");
    for node in 0..4 {
        let file = format!("r{node}.toml");
        let limits = "connections_max = 16\nhandshakes_max = 32";
        set(dir.path(), &file, "connections_max = 1024", limits);
        let timeout = "handshake_timeout_ms = ";
        set(
            dir.path(),
            &file,
            &format!("{timeout}5000"),
            &format!("{timeout}60000"),
        );
    }
    // 16 connections, 32 handshakes, 512 segments, 3 for each of four replicas, and 96.
    let start = |node| {
        let mut replica = limited(dir.path(), node, "ulimit -n 668");
        Replica(replica.stdout(Stdio::piped()).spawn().unwrap())
    };
    let mut replicas: Vec<Replica> = (0..4).map(start).collect();
    replicas.iter_mut().for_each(Replica::wait_ready);
    let text = std::fs::read_to_string(dir.path().join("cluster.toml")).unwrap();
    let addresses = text.lines().filter_map(|line| line.strip_prefix("address = "));
    let strangers: Vec<TcpStream> = addresses
        .flat_map(|address| (0..250).map(move |_| TcpStream::connect(address.trim_matches('"')).unwrap()))
        .collect();

    // Newcomers get in, and checkpoints are taken.
    let load = Load::start(&[client(dir.path(), 1), client(dir.path(), 2)], 64);
    load.run(5000);
    connect(dir.path(), 0);
    let stable = || status(dir.path(), 1).map_or(0, |row| row["stable"].as_u64().unwrap());
    let before = stable();
    eventually("checkpoints go on", || {
        load.run(200);
        stable() > before
    });
    // A member that restarts finds its way through the crowd.
    drop(replicas.pop());
    let mut again = start(3);
    again.wait_ready();
    load.end();
    for replica in &mut replicas {
        assert!(replica.0.try_wait().unwrap().is_none(), "a replica ended");
    }
    drop(strangers);
}
