//! Real processes are killed without warning, under load: what was acknowledged is there afterwards, once.
//!
//! `cargo test --test crash`; `ATLAS_CRASH_ROUNDS=500 cargo test --test crash` for more rounds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atlas_smr_replica::Client;
use atlas_smr_replica::config::ClientConfig;
use atlas_smr_replica::execution::apps::counter;
use tempfile::TempDir;

fn rounds() -> usize {
    std::env::var("ATLAS_CRASH_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(50)
}

/// A replica's process; killed when dropped.
struct Replica(Child);

impl Replica {
    fn start(config: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_atlas"))
            .args(["run", "--no-pin", "--config", config.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    fn wait_ready(&mut self) {
        let Some(out) = self.0.stdout.take() else { return };
        let mut lines = BufReader::new(out).lines();
        let ready = lines.any(|line| line.is_ok_and(|line| line == "READY"));
        assert!(ready, "a replica did not come back");
        // Keeps the pipe open, so that nothing it prints kills it.
        std::thread::spawn(move || lines.for_each(drop));
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Four free ports below those the kernel gives to outgoing connections: they must be free again after every crash.
fn base_port() -> u16 {
    let free = |port: u16| (port..port + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let first = 10_000 + (std::process::id() % 5000) as u16 * 4;
    (first..32_000).step_by(4).find(|port| free(*port)).unwrap()
}

fn init(app: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_atlas"))
        .args([
            "init",
            "--auth",
            "mac",
            "--app",
            app,
            "--base-port",
            &base_port().to_string(),
            "--out",
        ])
        .arg(dir.path())
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    for id in 0..4 {
        let file = dir.path().join(format!("r{id}.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        let small = text.replace("segment_bytes = 67108864", "segment_bytes = 16777216");
        assert_ne!(small, text);
        std::fs::write(file, small).unwrap();
    }
    dir
}

fn start(dir: &Path) -> Vec<Replica> {
    let mut replicas: Vec<Replica> = (0..4)
        .map(|id| Replica::start(&dir.join(format!("r{id}.toml"))))
        .collect();
    replicas.iter_mut().for_each(Replica::wait_ready);
    replicas
}

fn connect(dir: &Path, client: usize) -> Client {
    let mut config = ClientConfig::load(&dir.join(format!("c{client}.toml"))).unwrap();
    config.tuning.retransmit_timeout_ms = 100;
    config.tuning.deadline_ms = 60_000;
    futures_lite::future::block_on(Client::connect(config)).unwrap()
}

/// One caller adds distinct powers to the counter until told to stop: what was acknowledged, in order, with the sums.
fn add(client: &Client, stop: &AtomicBool) -> Vec<u64> {
    let mut sums = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let sum = client
            .call_blocking(counter::add(1))
            .expect("a call outlives every crash");
        sums.push(counter::value(&sum).expect("a sum"));
    }
    sums
}

/// The counter is one register: histories of additions are linearizable exactly when every sum is given out once, each
/// caller's sums ascend, and the last sum is the number of additions.
fn check(histories: &[Vec<u64>], last: u64) {
    let mut seen = BTreeMap::new();
    for (caller, sums) in histories.iter().enumerate() {
        assert!(sums.is_sorted(), "caller {caller} saw the counter run backwards");
        for sum in sums {
            let before = seen.insert(*sum, caller);
            assert_eq!(before, None, "two additions gave {sum}: one was lost");
        }
    }
    let acknowledged = seen.len() as u64;
    assert_eq!(
        last, acknowledged,
        "additions acknowledged, and those that took effect"
    );
}

#[test]
fn all_four_are_killed_again_and_again_and_nothing_acknowledged_is_lost_or_done_twice() {
    let dir = init("counter");
    let mut replicas = start(dir.path());
    let clients: Vec<Client> = (0..3).map(|client| connect(dir.path(), client)).collect();
    let stop = AtomicBool::new(false);
    let histories: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let callers: Vec<_> = clients
            .iter()
            .flat_map(|client| [client, client])
            .map(|client| scope.spawn(|| add(client, &stop)))
            .collect();
        for round in 0..rounds() {
            // Long enough for some calls, short enough to hit every moment of their lives.
            std::thread::sleep(Duration::from_millis(20 + 7 * (round as u64 % 13)));
            replicas.clear();
            replicas = start(dir.path());
        }
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Release);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let last = clients[0].call_blocking(counter::read()).unwrap();
    check(&histories, counter::value(&last).unwrap());
}
