//! Real processes are killed without warning, under load: what was acknowledged is there afterwards, once.
//!
//! `cargo test --test crash`; `ATLAS_CRASH_ROUNDS=500 cargo test --test crash` for more rounds.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// Clusters take turns: the ports of one have to stay free while its replicas are down.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What `atlas status --json` says of one replica; `None` while it does not answer.
fn status(dir: &Path, node: usize) -> Option<serde_json::Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_atlas"))
        .args(["status", "--json", "--config"])
        .arg(dir.join("c3.toml"))
        .output();
    let all: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).ok()?;
    let row = all["replicas"][node].clone();
    row["error"].is_null().then_some(row)
}

/// Waits until a replica has executed what the others had when it was asked for the first time.
fn wait_until_caught_up(dir: &Path, node: usize) {
    let target = status(dir, 0).map_or(0, |row| row["executed"].as_u64().unwrap());
    for _ in 0..600 {
        if status(dir, node).is_some_and(|row| row["executed"].as_u64().unwrap() >= target) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("replica {node} does not catch up: {:?}", status(dir, node));
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

/// Runs callers while `disturb` does its worst, and checks what they were told.
fn under_load(dir: &Path, disturb: impl FnOnce()) {
    let clients: Vec<Client> = (0..3).map(|client| connect(dir, client)).collect();
    let stop = AtomicBool::new(false);
    let histories: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let callers: Vec<_> = clients
            .iter()
            .flat_map(|client| [client, client])
            .map(|client| scope.spawn(|| add(client, &stop)))
            .collect();
        disturb();
        stop.store(true, Ordering::Release);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let last = clients[0].call_blocking(counter::read()).unwrap();
    check(&histories, counter::value(&last).unwrap());
}

#[test]
fn one_after_another_is_killed_and_catches_up_while_the_others_serve() {
    let _alone = alone();
    let dir = init("counter");
    let mut replicas = start(dir.path());
    under_load(dir.path(), || {
        for round in 0..rounds() {
            let victim = round % 4;
            std::thread::sleep(Duration::from_millis(10 + 7 * (round as u64 % 13)));
            let file = dir.path().join(format!("r{victim}.toml"));
            drop(replicas.remove(victim));
            replicas.insert(victim, Replica::start(&file));
            replicas[victim].wait_ready();
            if round % 5 == 4 {
                wait_until_caught_up(dir.path(), victim);
            }
        }
    });
    (0..4).for_each(|node| wait_until_caught_up(dir.path(), node));
}

#[test]
fn a_damaged_image_is_replaced_by_the_state_of_others_under_load() {
    let _alone = alone();
    let dir = init("counter");
    let cluster = dir.path().join("cluster.toml");
    let text = std::fs::read_to_string(&cluster).unwrap();
    let often = text.replace("checkpoint_decisions = 1000", "checkpoint_decisions = 50");
    assert_ne!(often, text);
    std::fs::write(&cluster, often).unwrap();
    let mut replicas = start(dir.path());
    under_load(dir.path(), || {
        let images = dir.path().join("r3-data/images");
        let newest = || {
            let files = std::fs::read_dir(&images)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            files.filter(|path| path.extension().is_none()).max()
        };
        while newest().is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(replicas.remove(3));
        let newest = newest().unwrap();
        let mut bytes = std::fs::read(&newest).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&newest, bytes).unwrap();
        replicas.push(Replica::start(&dir.path().join("r3.toml")));
        replicas[3].wait_ready();
        wait_until_caught_up(dir.path(), 3);
        assert!(newest.with_extension("damaged").exists(), "the evidence is kept");
    });
}

#[test]
fn all_four_are_killed_again_and_again_and_nothing_acknowledged_is_lost_or_done_twice() {
    let _alone = alone();
    let dir = init("counter");
    let mut replicas = start(dir.path());
    under_load(dir.path(), || {
        for round in 0..rounds() {
            // Long enough for some calls, short enough to hit every moment of their lives.
            std::thread::sleep(Duration::from_millis(20 + 7 * (round as u64 % 13)));
            replicas.clear();
            replicas = start(dir.path());
        }
        std::thread::sleep(Duration::from_millis(200));
    });
}
