//! Clusters, for the tests that stop, kill and damage their replicas.
//!
//! Each test takes what it needs of it.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atlas_smr_replica::Client;
use atlas_smr_replica::config::ClientConfig;
use tempfile::TempDir;

pub mod configs;
pub mod load;

/// A replica's process; killed when dropped.
pub struct Replica(pub Child);

impl Replica {
    pub fn start(config: &Path) -> Self {
        Self::start_with(config, &[])
    }

    pub fn start_with(config: &Path, more: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_atlas"))
            .args(["run", "--no-pin", "--config", config.to_str().unwrap()])
            .args(more)
            .stdout(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    pub fn wait_ready(&mut self) {
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
pub fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Four free ports below those the kernel gives to outgoing connections: they must be free again after every
/// crash.
pub fn base_port() -> u16 {
    let free = |port: u16| (port..port + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let first = 10_000 + (std::process::id() % 5000) as u16 * 4;
    (first..32_000).step_by(4).find(|port| free(*port)).unwrap()
}

pub fn init(app: &str) -> TempDir {
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
        let file = format!("r{id}.toml");
        set(
            dir.path(),
            &file,
            "segment_bytes = 67108864",
            "segment_bytes = 16777216",
        );
    }
    dir
}

/// Changes a setting in a file of the cluster.
pub fn set(dir: &Path, file: &str, from: &str, to: &str) {
    let path = dir.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

/// Starts every replica of a cluster.
pub fn start(dir: &Path) -> Vec<Replica> {
    let mut replicas: Vec<Replica> = (0..4)
        .map(|id| Replica::start(&dir.join(format!("r{id}.toml"))))
        .collect();
    replicas.iter_mut().for_each(Replica::wait_ready);
    replicas
}

pub fn client(dir: &Path, client: usize) -> ClientConfig {
    let mut config = ClientConfig::load(&dir.join(format!("c{client}.toml"))).unwrap();
    config.tuning.retransmit_timeout_ms = 100;
    config.tuning.deadline_ms = 60_000;
    config
}

pub fn connect(dir: &Path, number: usize) -> Client {
    futures_lite::future::block_on(Client::connect(client(dir, number))).unwrap()
}

/// What `atlas status --json` says of every replica; `None` while it says nothing.
pub fn status_of_all(dir: &Path) -> Option<serde_json::Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_atlas"))
        .args(["status", "--json", "--config"])
        .arg(dir.join("c3.toml"))
        .output();
    let all: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).ok()?;
    Some(all["replicas"].clone())
}

/// What it says of one; `None` while that does not answer.
pub fn status(dir: &Path, node: usize) -> Option<serde_json::Value> {
    let row = status_of_all(dir)?[node].clone();
    row["error"].is_null().then_some(row)
}

/// Waits until a replica has executed what the others had when it was asked for the first time.
pub fn wait_until_caught_up(dir: &Path, node: usize) {
    let target = status(dir, 0).map_or(0, |row| row["executed"].as_u64().unwrap());
    for _ in 0..600 {
        if status(dir, node).is_some_and(|row| row["executed"].as_u64().unwrap() >= target) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("replica {node} does not catch up: {:?}", status(dir, node));
}
