//! A replica that fell behind, lost part of its directory, or all of it, catches up while the others serve.
//!
//! `cargo test --test catch_up`; `ATLAS_CATCH_UP_OPERATIONS=5000000 cargo test --test catch_up` for more operations meanwhile.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use atlas_smr_replica::Client;
use atlas_smr_replica::config::{Agreement, AppKind, DecisionLogConfig, Durability, ReplicaConfig};
use atlas_smr_replica::load::{ClusterOptions, DonorLie, Filling, LocalCluster, fill};
use atlas_smr_replica::preprocessing::ClientAuth;
use atlas_smr_replica::storage::restart::Medium;
use atlas_smr_replica::storage::{DataDirectory, scan};
use atlas_smr_replica::types::NodeId;

mod shared;

use shared::{Replica, alone, connect, init, set, start, status};

/// Long enough for a busy machine; a test that waits so long has failed.
const LIMIT: Duration = Duration::from_secs(120);
const CHECKPOINT_DECISIONS: u64 = 50;
const WINDOW: u64 = 200;

fn operations() -> u64 {
    std::env::var("ATLAS_CATCH_UP_OPERATIONS")
        .ok()
        .and_then(|operations| operations.parse().ok())
        .unwrap_or(60_000)
}

fn filling(first_key: u64, keys: u64) -> Filling {
    Filling {
        first_key,
        keys,
        value_bytes: 64,
        outstanding: 128,
    }
}

/// A key-value cluster with many checkpoints that keeps next to no decisions for those who lag behind.
fn cluster() -> tempfile::TempDir {
    let dir = init("kv");
    let checkpoints = format!("checkpoint_decisions = {CHECKPOINT_DECISIONS}");
    set(
        dir.path(),
        "cluster.toml",
        "checkpoint_decisions = 1000",
        &checkpoints,
    );
    set(
        dir.path(),
        "cluster.toml",
        "window = 2000",
        &format!("window = {WINDOW}"),
    );
    for id in 0..4 {
        let file = format!("r{id}.toml");
        set(dir.path(), &file, "kept_decisions = 4096", "kept_decisions = 1");
        set(dir.path(), &file, "kept_bytes = 67108864", "kept_bytes = 1048576");
    }
    dir
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn number(dir: &Path, node: usize, field: &str) -> u64 {
    status(dir, node).map_or(0, |row| row[field].as_u64().unwrap())
}

/// Waits until a replica has executed what the others had when this was asked, and its state came from others.
fn wait_for_state(dir: &Path, node: usize) {
    let target = number(dir, 0, "executed").max(number(dir, 1, "executed"));
    wait("it catches up", || {
        status(dir, node).is_some_and(|row| {
            let states = row["counters"]["states_transferred"].as_u64().unwrap();
            states > 0 && row["executed"].as_u64().unwrap() >= target
        })
    });
}

/// Waits until these replicas have executed the same, and have the same state.
fn wait_for_equal_states(dir: &Path, nodes: &[usize]) {
    wait("the states become equal", || {
        let rows: Vec<_> = nodes.iter().filter_map(|node| status(dir, *node)).collect();
        let same = |field: &str| rows.iter().all(|row| row[field] == rows[0][field]);
        rows.len() == nodes.len()
            && rows[0]["checkpoint"].as_u64() > Some(0)
            && ["executed", "checkpoint", "checkpoint_digest"]
                .into_iter()
                .all(same)
    });
}

/// Runs a load while `disturb` does its worst; every operation has to succeed.
fn under_load(client: &Client, disturb: impl FnOnce()) {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                fill(client, filling(0, 2000)).expect("the service goes on");
            }
        });
        // A test that fails ends the load as well.
        let _stop = Stop(&stop);
        disturb();
    });
}

fn restart(dir: &Path, replicas: &mut Vec<Replica>, more: &[&str]) {
    let mut replica = Replica::start_with(&dir.join("r3.toml"), more);
    replica.wait_ready();
    replicas.push(replica);
}

#[test]
fn a_replica_that_was_down_for_longer_than_the_others_remember_gets_their_state_under_load() {
    let _alone = alone();
    let dir = cluster();
    let mut replicas = start(dir.path());
    let client = connect(dir.path(), 0);
    fill(&client, filling(0, 5000)).unwrap();
    drop(replicas.remove(3));
    fill(&client, filling(5000, operations())).unwrap();
    let ran = number(dir.path(), 0, "executed");
    assert!(
        ran > 4 * CHECKPOINT_DECISIONS,
        "several checkpoints were taken: {ran} decisions"
    );
    under_load(&client, || {
        restart(dir.path(), &mut replicas, &[]);
        wait_for_state(dir.path(), 3);
    });
    wait_for_equal_states(dir.path(), &[0, 1, 2, 3]);
}

/// Changes one bit of a log, in a group that is followed by others.
fn damage_log(dir: &Path) {
    let config = ReplicaConfig::load(&dir.join("r3.toml")).unwrap().replica_config;
    let cluster = config.node.cluster.cluster_id();
    let directory = DataDirectory::open(&config.db_path, cluster, config.node.id).unwrap();
    let segments = directory.segments().unwrap();
    let tail = scan(directory.superblock(), &segments, |_| Ok(())).unwrap();
    let (first, _) = tail.segments[0];
    let segment = segments.iter().find(|segment| segment.index == first).unwrap();
    let mut bytes = std::fs::read(&segment.path).unwrap();
    let at = (8192..bytes.len()).find(|at| bytes[*at] != 0).unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment.path, bytes).unwrap();
    let broken = scan(directory.superblock(), &segments, |_| Ok(()));
    assert!(broken.is_err(), "what was durable is damaged");
}

#[test]
fn a_replica_with_a_damaged_log_abstains_catches_up_and_then_votes_again() {
    let _alone = alone();
    let dir = cluster();
    let mut replicas = start(dir.path());
    let client = connect(dir.path(), 0);
    fill(&client, filling(0, operations() / 2)).unwrap();
    drop(replicas.remove(3));
    damage_log(dir.path());
    let mark = dir.path().join("r3-data/abstain");
    under_load(&client, || {
        restart(dir.path(), &mut replicas, &[]);
        assert!(mark.exists(), "it may have forgotten votes");
        wait("it votes again", || !mark.exists());
    });
    let evidence = dir.path().join("r3-data/log.damaged-1");
    assert!(evidence.is_dir(), "the evidence is kept");
    wait_for_equal_states(dir.path(), &[0, 1, 2, 3]);
    // Now nothing is decided without it.
    drop(replicas.remove(2));
    fill(&client, filling(0, 2000)).expect("it votes");
    wait_for_equal_states(dir.path(), &[0, 1, 3]);
}

#[test]
fn a_replica_that_lost_its_directory_comes_back_when_it_is_told_to_and_takes_part_after_a_view_change() {
    let _alone = alone();
    let dir = cluster();
    let mut replicas = start(dir.path());
    let client = connect(dir.path(), 0);
    fill(&client, filling(0, operations() / 4)).unwrap();
    drop(replicas.remove(3));
    std::fs::remove_dir_all(dir.path().join("r3-data")).unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_atlas"))
        .args(["run", "--no-pin", "--config"])
        .arg(dir.path().join("r3.toml"))
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("atlas run --repair"), "{error}");

    let mark = dir.path().join("r3-data/abstain");
    let mut leader = replicas.remove(0);
    under_load(&client, || {
        restart(dir.path(), &mut replicas, &["--repair"]);
        wait_for_state(dir.path(), 3);
        // Past everything it may have voted on; but it may have asked for a view, so it votes in the next one at the earliest.
        let passed = number(dir.path(), 3, "executed") + 2 * WINDOW;
        wait("a checkpoint comes", || number(dir.path(), 3, "stable") > passed);
        assert!(mark.exists());
        let phase = status(dir.path(), 3).unwrap()["phase"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(phase.contains("abstaining until"), "{phase}");
        // The two that are left cannot change the view, nor decide, without it.
        leader.0.kill().unwrap();
        wait("it votes again", || !mark.exists());
    });
    fill(&client, filling(0, 2000)).expect("it votes");
    wait_for_equal_states(dir.path(), &[1, 2, 3]);
}

#[test]
fn one_donor_that_lies_and_one_that_stalls_do_not_keep_a_replica_from_catching_up() {
    let _alone = alone();
    let options = ClusterOptions {
        app: AppKind::Kv,
        agreement: Agreement {
            client_auth: ClientAuth::Mac,
            checkpoint_decisions: CHECKPOINT_DECISIONS,
            window: WINDOW,
            ..Agreement::default()
        },
        pin: false,
        durability: Durability::Sync,
        donor_lies: vec![
            (NodeId::new(0), DonorLie::CorruptChunks),
            (NodeId::new(1), DonorLie::StallTransfer),
        ],
        dl_config: DecisionLogConfig {
            kept_decisions: 1,
            kept_bytes: 1 << 20,
        },
        ..ClusterOptions::default()
    };
    let mut cluster = LocalCluster::start(&options).unwrap();
    let late = NodeId::new(3);
    cluster.stop(late).unwrap();
    let client = Client::connect_blocking(cluster.client(0)).unwrap();
    fill(&client, filling(0, 30_000)).unwrap();
    // While nothing happens all offer the same checkpoint, so each is asked for some of it.
    cluster.restart(late).unwrap();
    let states = |cluster: &LocalCluster| cluster.replica(late).unwrap().counter("states_transferred");
    wait("it catches up", || states(&cluster) > 0);
    let refused = cluster.replica(late).unwrap().counter("chunks_refused");
    assert!(refused > 0, "a lie was told, and found out");

    cluster.stop(late).unwrap();
    fill(&client, filling(30_000, 30_000)).unwrap();
    under_load(&client, || {
        cluster.restart(late).unwrap();
        wait("it catches up under load", || states(&cluster) > 0);
    });
    let digests = cluster.digests(LIMIT);
    assert_eq!(digests.len(), 4);
    assert!(
        digests.windows(2).all(|pair| pair[0] == pair[1]),
        "the states are equal"
    );
}
