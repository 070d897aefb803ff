//! A replica that fell behind, lost part of its directory, or all of it, catches up while the others serve.
//!
//! `cargo test --test catch_up`; `ATLAS_CATCH_UP_OPERATIONS=5000000 cargo test --release --test catch_up --
//! --nocapture` for more operations meanwhile, and to see what the others' clients were served. Times are
//! printed and never asserted: the replica that catches up, the others and the clients share this machine's
//! cores.

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use atlas_smr_replica::Client;
use atlas_smr_replica::config::{Agreement, AppKind, DecisionLogConfig, Durability, ReplicaConfig};
use atlas_smr_replica::load::{ClusterOptions, DonorLie, Filling, LocalCluster, States, fill, median};
use atlas_smr_replica::preprocessing::ClientAuth;
use atlas_smr_replica::storage::restart::StorageBackend;
use atlas_smr_replica::storage::{DataDirectory, scan};
use atlas_smr_replica::types::NodeId;

mod shared;

use shared::load::{Load, Service, cpu_of};
use shared::{Replica, alone, client, connect, init, set, start, status, status_of_all};

/// Long enough for a busy machine; a test that waits so long has failed.
const LIMIT: Duration = Duration::from_secs(120);
/// For so long the service is watched before and after a replica catches up.
const WATCHED: Duration = Duration::from_millis(if cfg!(debug_assertions) { 400 } else { 1500 });
const CHECKPOINT_DECISIONS: u64 = 50;
const WINDOW: u64 = 200;
/// So soon the log has grown enough for a checkpoint with the state.
const STATE_LOG_BYTES_MAX: u64 = 1 << 20;
/// Replicas that work are no more decisions apart: they are not asked at the very same time.
const NEAR: u64 = 64;

fn operations() -> u64 {
    std::env::var("ATLAS_CATCH_UP_OPERATIONS")
        .ok()
        .and_then(|operations| operations.parse().ok())
        .unwrap_or(60_000)
}

/// Operations under way: a full load, with several checkpoints in it however few operations there are.
fn outstanding() -> usize {
    (operations() / 300).clamp(128, 16_384) as usize
}

/// How often a replica is stopped and catches up, where it can be done again: once is not a figure.
fn rounds() -> u64 {
    if operations() >= 1_000_000 { 7 } else { 1 }
}

fn filling(first_key: u64, keys: u64) -> Filling {
    Filling {
        first_key,
        keys,
        value_bytes: 64,
        outstanding: 128,
    }
}

/// A load on a cluster of processes.
fn load(dir: &Path) -> Load {
    Load::start(&[client(dir, 1), client(dir, 2)], outstanding())
}

/// Watches what clients are served for a while. `is_there` is asked all the time, so that asking costs the
/// same whenever one watches.
fn watch(load: &Load, others_cpu: impl Fn() -> Duration, mut is_there: impl FnMut() -> bool) -> Service {
    let begin = Instant::now();
    load.watch(others_cpu, || {
        is_there();
        begin.elapsed() < WATCHED
    })
}

/// What clients were served.
struct Round {
    /// How long it took to catch up.
    seconds: f64,
    /// Before the replica stopped.
    whole: Service,
    /// Without it.
    without: Service,
    /// While it caught up.
    meanwhile: Service,
    /// When it had caught up.
    after: Service,
}

/// Watches what clients are served before a replica starts, until it has caught up, and afterwards; `whole`
/// was before it stopped.
fn watch_catch_up(
    load: &Load,
    whole: Service,
    others_cpu: impl Fn() -> Duration,
    start: impl FnOnce(),
    mut is_there: impl FnMut() -> bool,
) -> Round {
    let without = watch(load, &others_cpu, &mut is_there);
    let begin = Instant::now();
    start();
    let meanwhile = load.watch(&others_cpu, || {
        assert!(begin.elapsed() < LIMIT, "it catches up");
        !is_there()
    });
    let seconds = begin.elapsed().as_secs_f64();
    Round {
        seconds,
        whole,
        without,
        meanwhile,
        after: watch(load, &others_cpu, &mut is_there),
    }
}

/// Says what a replica that catches up takes from the others' clients. Where replicas share processors, it
/// takes its own part of them in any case: so what four replicas did before it stopped is what it is held
/// against, and what three did stands beside it.
fn report(what: &str, rounds: &[Round]) {
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure));
    let rate = |service: &dyn Fn(&Round) -> Service| of(&|round| service(round).operations_per_second);
    let cost = |service: &dyn Fn(&Round) -> Service| of(&|round| service(round).cpu_us_per_operation);
    let share = |than: &dyn Fn(&Round) -> Service| {
        of(&|round| round.meanwhile.operations_per_second / than(round).operations_per_second)
    };
    println!(
        "{what}: caught up after {:.2} s; {:.0} operations/s meanwhile, {:.2} of the {:.0} before it stopped, {:.2} of the {:.0} without it, {:.2} of \
         the {:.0} afterwards; the others' processor time per operation: {:.2}, {:.2}, {:.2}, {:.2} us before, without, meanwhile, after (medians of \
         {} rounds, {} operations in the first)",
        of(&|round| round.seconds),
        rate(&|round| round.meanwhile),
        share(&|round| round.whole),
        rate(&|round| round.whole),
        share(&|round| round.without),
        rate(&|round| round.without),
        share(&|round| round.after),
        rate(&|round| round.after),
        cost(&|round| round.whole),
        cost(&|round| round.without),
        cost(&|round| round.meanwhile),
        cost(&|round| round.after),
        rounds.len(),
        operations(),
    );
}

/// A key-value cluster with many checkpoints that keeps next to no decisions for those who lag behind.
fn cluster() -> tempfile::TempDir {
    let dir = init("kv");
    for (key, default, value) in [
        ("checkpoint_decisions", 1000, CHECKPOINT_DECISIONS),
        ("window", 2000, WINDOW),
        ("state_log_bytes_max", 4_294_967_296_u64, STATE_LOG_BYTES_MAX),
    ] {
        let (from, to) = (format!("{key} = {default}"), format!("{key} = {value}"));
        set(dir.path(), "cluster.toml", &from, &to);
    }
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

/// Whether replica 3 executes what the others do, as they do it, on a state that came from others.
fn has_caught_up(dir: &Path) -> bool {
    let Some(all) = status_of_all(dir) else {
        return false;
    };
    let executed = |node: usize| all[node]["executed"].as_u64();
    let states = all[3]["counters"]["states_transferred"].as_u64();
    let (own, most) = (executed(3), (0..3).filter_map(executed).max());
    states > Some(0) && own.zip(most).is_some_and(|(own, most)| own + NEAR >= most)
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
    let load = load(dir.path());
    load.run(operations() / 20);
    let others: Vec<u32> = replicas[..3].iter().map(|replica| replica.0.id()).collect();
    let round = |round: u64| {
        let whole = watch(&load, || cpu_of(&others), || has_caught_up(dir.path()));
        drop(replicas.remove(3));
        let before = number(dir.path(), 0, "executed");
        load.run(if round == 0 {
            operations()
        } else {
            operations() / 8
        });
        let ran = number(dir.path(), 0, "executed") - before;
        assert!(
            round > 0 || ran > 4 * CHECKPOINT_DECISIONS,
            "several checkpoints were taken: {ran} decisions"
        );
        watch_catch_up(
            &load,
            whole,
            || cpu_of(&others),
            || restart(dir.path(), &mut replicas, &[]),
            || has_caught_up(dir.path()),
        )
    };
    report("down", &(0..rounds()).map(round).collect::<Vec<_>>());
    load.end();
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
    let load = load(dir.path());
    load.run(operations() / 20);
    let others: Vec<u32> = replicas[..3].iter().map(|replica| replica.0.id()).collect();
    let whole = watch(&load, || cpu_of(&others), || has_caught_up(dir.path()));
    drop(replicas.remove(3));
    damage_log(dir.path());
    load.run(operations());
    let mark = dir.path().join("r3-data/abstain");
    let round = watch_catch_up(
        &load,
        whole,
        || cpu_of(&others),
        || {
            restart(dir.path(), &mut replicas, &[]);
            assert!(mark.exists(), "it may have forgotten votes");
        },
        || has_caught_up(dir.path()),
    );
    report("log damaged", &[round]);
    wait("it votes again", || !mark.exists());
    load.end();
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
    let load = load(dir.path());
    load.run(operations() / 4);
    let others: Vec<u32> = replicas[..3].iter().map(|replica| replica.0.id()).collect();
    let whole = watch(&load, || cpu_of(&others), || has_caught_up(dir.path()));
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
    let round = watch_catch_up(
        &load,
        whole,
        || cpu_of(&others),
        || restart(dir.path(), &mut replicas, &["--repair"]),
        || has_caught_up(dir.path()),
    );
    report("directory lost", &[round]);
    // Past everything it may have voted on; but it may have asked for a view, so it votes in the next one at
    // the earliest.
    let passed = number(dir.path(), 3, "executed") + 2 * WINDOW;
    wait("a checkpoint comes", || number(dir.path(), 3, "stable") > passed);
    // On a busy machine a leader may have been replaced meanwhile; then it votes again already.
    let now = status(dir.path(), 3).unwrap();
    let phase = now["phase"].as_str().unwrap();
    assert!(now["view"] != 0 || phase.contains("abstaining until"), "{phase}");
    // The two that are left cannot change the view, nor decide, without it.
    leader.0.kill().unwrap();
    wait("it votes again", || !mark.exists());
    load.end();
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
            // A state in every checkpoint: else decisions from the logs may be enough.
            state_log_bytes_max: STATE_LOG_BYTES_MAX,
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

    let load = Load::start(&[cluster.client(1), cluster.client(2)], outstanding());
    let cluster = RefCell::new(cluster);
    let is_there = || {
        let cluster = cluster.borrow();
        let executed = |node: NodeId| Some(cluster.replica(node)?.standing().executed.get());
        let most = NodeId::all(3).filter_map(executed).max();
        let near = executed(late)
            .zip(most)
            .is_some_and(|(own, most)| own + NEAR >= most);
        near && states(&cluster) > 0
    };
    // All replicas are in this process: whose time it was is not told.
    let unknown = || Duration::ZERO;
    let round = |round: u64| {
        let whole = watch(&load, unknown, is_there);
        cluster.borrow_mut().stop(late).unwrap();
        load.run(if round == 0 {
            operations()
        } else {
            operations() / 8
        });
        let restart = || cluster.borrow_mut().restart(late).unwrap();
        watch_catch_up(&load, whole, unknown, restart, is_there)
    };
    report(
        "a donor lies, another stalls",
        &(0..rounds()).map(round).collect::<Vec<_>>(),
    );
    load.end();
    let cluster = cluster.into_inner();
    assert_eq!(cluster.states(LIMIT), States::Equal);
}
