//! How long a replica takes to catch up: four real replicas over loopback TCP, each with a data directory on
//! disk.
//!
//! `cargo bench --bench recovery -- [--quick] [--json FILE] [--data DIR] [--only state|changed|log|service|latency]
//! [--size N]`; `--size` is the one size to measure, in MiB or decisions. With `ATLAS_LOG=debug` the replicas
//! tell what they do, and when.
//!
//! - *state:* a replica that has nothing but a fresh directory gets a key-value store of some size. Beside
//!   it, in the same run, the raw copy: the bytes of the same checkpoint read from a file, sent over one
//!   loopback connection, written to a file and synced.
//! - *changed:* the same with a replica that had the state, stopped, and missed changes to one key in a
//!   hundred: what its own snapshot has of the new one is not sent.
//! - *log:* a replica that stopped a number of decisions ago gets them. The raw copy is of as many bytes as
//!   the operations have.
//! - *service:* the first under a closed loop of clients: operations answered per second with three replicas,
//!   then from the restart of the fourth until it is where the others are, then with four. The share of
//!   *before* includes the processor time of the fourth replica, which a host of its own would give it; the
//!   share of *after*, when it only votes, is what the transfer itself takes from the others.
//! - *latency:* of one operation at a time, likewise; donors give as fast as they can although they serve.
//!
//! Both ends of every transfer, the other replicas and the clients share this machine's cores.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use atlas_smr_replica::client::Engine;
use atlas_smr_replica::config::{
    Agreement, AppKind, ClientTuning, DecisionLogConfig, Durability, StateTransferConfig,
};
use atlas_smr_replica::execution::apps::kv;
use atlas_smr_replica::load::{
    ClusterOptions, Control, Filling, LoadDriver, LocalCluster, Pace, Shape, States, Workload, fill, median,
};
use atlas_smr_replica::preprocessing::ClientAuth;
use atlas_smr_replica::replica::TransferPhase;
use atlas_smr_replica::types::NodeId;
use atlas_smr_replica::{Client, ReplicaHandle};
use clap::Parser;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUE_BYTES: usize = 4096;
const CATCH_UP_LIMIT: Duration = Duration::from_secs(300);
/// The replica that falls behind.
const LATE: NodeId = NodeId::new(3);
const CHUNK_BYTES: usize = 1 << 20;
/// After so long without operations a donor gives as fast as it can: what it gives while it serves is another
/// case.
const IDLE: Duration = Duration::from_millis(300);

/// Measure how long a replica takes to catch up.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fewer and smaller cases.
    #[arg(long)]
    quick: bool,
    /// Write the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the data directories lie.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data: PathBuf,
    /// One part: state, changed, log, service or latency.
    #[arg(long)]
    only: Option<String>,
    /// The one size to measure, in MiB or decisions.
    #[arg(long)]
    size: Option<u64>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn wants(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn options(data: &Path, kept: DecisionLogConfig) -> ClusterOptions {
    ClusterOptions {
        clients: 4,
        app: AppKind::Kv,
        agreement: Agreement {
            client_auth: ClientAuth::Mac,
            // What is measured is the transfer of a state, so there has to be a snapshot soon.
            state_log_bytes_max: 1 << 16,
            ..Agreement::default()
        },
        tuning: ClientTuning {
            deadline_ms: 120_000,
            ..ClientTuning::default()
        },
        durability: Durability::Sync,
        data: Some(data.to_owned()),
        dl_config: kept,
        ..ClusterOptions::default()
    }
}

/// What peers keep in memory of old decisions: next to nothing, or everything.
fn keep(everything: bool) -> DecisionLogConfig {
    DecisionLogConfig {
        kept_decisions: if everything { 1 << 30 } else { 1 },
        kept_bytes: if everything { 8 << 30 } else { 1 << 20 },
    }
}

fn connect(cluster: &LocalCluster, number: usize) -> Client {
    Client::connect_blocking(cluster.client(number)).expect("the cluster answers")
}

/// When each step of a catch-up began, since the restart.
#[derive(Default)]
struct Steps {
    seen: Vec<(u8, f64)>,
}

impl Steps {
    fn look(&mut self, start: Instant, transfer: TransferPhase) {
        let stage = transfer.stage();
        if self.seen.last().is_none_or(|(last, _)| *last != stage) {
            self.seen.push((stage, start.elapsed().as_secs_f64()));
        }
    }

    /// How long a stage lasted, in seconds.
    fn lasted(&self, stage: u8) -> f64 {
        let ends = self.seen.iter().skip(1).map(|(_, at)| *at);
        let pairs = self.seen.iter().zip(ends);
        pairs
            .filter(|((own, _), _)| *own == stage)
            .map(|((_, from), to)| to - from)
            .sum()
    }
}

/// Starts the late replica and waits until it is where the others are. Seconds, and the steps.
fn catch_up(cluster: &mut LocalCluster, is_there: impl Fn(&ReplicaHandle, u64) -> bool) -> (f64, Steps) {
    let start = Instant::now();
    cluster.restart(LATE).expect("the replica starts");
    let (mut steps, mut told) = (Steps::default(), 0);
    loop {
        let most = cluster
            .handles()
            .map(|handle| handle.standing().executed.get())
            .max();
        let late = cluster.replica(LATE).expect("it was started");
        let standing = late.standing();
        steps.look(start, standing.transfer);
        let tick = start.elapsed().as_millis() / 50;
        if tick != told {
            told = tick;
            tracing::debug!(ordered = %standing.ordered, durable = %standing.durable, executed = %standing.executed, "{}", standing.transfer);
        }
        if is_there(late, most.unwrap_or(0)) {
            return (start.elapsed().as_secs_f64(), steps);
        }
        assert!(
            start.elapsed() < CATCH_UP_LIMIT,
            "it does not catch up: {:?}",
            late.standing()
        );
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Copies a file's bytes, or as many zeros, over a loopback connection into a file, synced. Seconds.
fn raw_copy(from: Option<&Path>, bytes: u64, data: &Path) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback can be bound");
    let address = listener.local_addr().expect("it has an address");
    let mut source: Box<dyn Read + Send> = match from {
        Some(path) => Box::new(File::open(path).expect("the snapshot is there")),
        None => Box::new(std::io::repeat(7).take(bytes)),
    };
    let target = data.join("raw-copy");
    let start = Instant::now();
    let sender = std::thread::spawn(move || {
        let mut socket = TcpStream::connect(address).expect("it accepts");
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = source.read(&mut chunk) {
            socket.write_all(&chunk[..read]).expect("the receiver reads");
        }
    });
    let (mut socket, _) = listener.accept().expect("it was dialled");
    let mut file = File::create(&target).expect("the data directory can be written");
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = socket.read(&mut chunk) {
        file.write_all(&chunk[..read]).expect("the disk has room");
    }
    file.sync_all().expect("the disk syncs");
    let seconds = start.elapsed().as_secs_f64();
    sender.join().expect("the sender ends");
    std::fs::remove_file(target).expect("it was just made");
    seconds
}

/// The middle of three.
fn median_of(mut measure: impl FnMut() -> f64) -> f64 {
    median((0..3).map(|_| measure()))
}

/// The newest snapshot in a replica's directory.
fn newest_snapshot(directory: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(directory.join("images")).ok()?;
    let whole = files.flatten().map(|entry| entry.path());
    whole.filter(|path| path.extension().is_none()).max()
}

/// Fills until each of these replicas has a snapshot of everything, and one more checkpoint is due no sooner.
/// The newest snapshot of the first.
fn keep_snapshots(
    cluster: &LocalCluster,
    client: &Client,
    nodes: std::ops::Range<u16>,
    mut filling: Filling,
) -> PathBuf {
    fill(client, filling).expect("the cluster takes it");
    let first = cluster.replica(NodeId::new(0)).map(ReplicaHandle::standing);
    let filled = first.expect("it runs").executed.get();
    let is_kept = || {
        let mut all = nodes
            .clone()
            .map(|id| newest_snapshot(cluster.data_path(NodeId::new(id))));
        let kept = |path: PathBuf| path.file_name()?.to_str()?.parse::<u64>().ok();
        all.all(|path| path.and_then(kept).is_some_and(|seq| seq >= filled))
    };
    // Far enough for a checkpoint of everything, whose snapshot is on disk.
    filling.keys = 64;
    filling.outstanding = 1;
    filling.value_bytes = 16;
    while !is_kept() {
        fill(client, filling).expect("the cluster takes it");
    }
    newest_snapshot(cluster.data_path(NodeId::new(0))).expect("there is one")
}

/// `changed`: the late replica has the state as it was before one key in a hundred changed.
fn state_case(mib: u64, changed: bool, data: &Path) -> Value {
    let directory = tempfile::TempDir::with_prefix_in("atlas-recovery-", data).expect("a directory");
    let mut cluster = LocalCluster::start(&options(directory.path(), keep(false))).expect("it starts");
    let client = connect(&cluster, 0);
    let mut filling = Filling {
        first_key: 0,
        keys: (mib << 20) / (VALUE_BYTES as u64 + 8),
        value_bytes: VALUE_BYTES,
        outstanding: 1024,
    };
    if changed {
        keep_snapshots(&cluster, &client, 0..4, filling);
        filling.keys /= 100;
        filling.value_bytes -= 1;
    }
    cluster.stop(LATE).expect("it ends in good order");
    let snapshot = keep_snapshots(&cluster, &client, 0..3, filling);
    let bytes = std::fs::metadata(&snapshot).expect("it is there").len();
    let raw = median_of(|| raw_copy(Some(&snapshot), bytes, directory.path()));
    std::thread::sleep(IDLE);
    let (seconds, steps) = catch_up(&mut cluster, |late, most| late.standing().executed.get() >= most);
    let late = cluster.replica(LATE).expect("it runs");
    let [states, decisions, reused] =
        ["states_transferred", "decisions_transferred", "pieces_reused"].map(|name| late.counter(name));
    assert_eq!(states, 1, "a state was transferred");
    assert_eq!(cluster.states(Duration::from_secs(10)), States::Equal);
    let name = if changed { "changed" } else { "state" };
    println!(
        "{name:<7}{mib:>4} MiB {:>9.3} s {:>9.3} s {:>6.2} × {:>8.0} MB/s   asked {:.3} s, received {:.3} s, installed {:.3} s, {decisions} \
         decisions, {reused} pieces were there",
        seconds,
        raw,
        seconds / raw,
        bytes as f64 / seconds / 1e6,
        steps.lasted(1) + steps.lasted(2) + steps.lasted(3),
        steps.lasted(4),
        steps.lasted(5),
    );
    json!({
        "case": name, "state_mib": mib, "image_bytes": bytes, "seconds": seconds, "raw_copy_seconds": raw,
        "times_raw": seconds / raw, "received_seconds": steps.lasted(4), "installed_seconds": steps.lasted(5),
        "decisions": decisions, "pieces_reused": reused, "value_bytes": VALUE_BYTES,
    })
}

fn log_case(decisions: u64, data: &Path) -> Value {
    const OPERATIONS: u64 = 16;
    const BYTES: usize = 1024;
    let directory = tempfile::TempDir::with_prefix_in("atlas-recovery-", data).expect("a directory");
    let mut cluster = LocalCluster::start(&options(directory.path(), keep(true))).expect("it starts");
    cluster.stop(LATE).expect("it ends in good order");
    let client = connect(&cluster, 0);
    let filling = Filling {
        first_key: 0,
        keys: 1000,
        value_bytes: BYTES,
        outstanding: OPERATIONS as usize,
    };
    let reached = |cluster: &LocalCluster| {
        let standing = cluster.replica(NodeId::new(0)).map(ReplicaHandle::standing);
        standing.map_or((0, 0), |standing| (standing.executed.get(), standing.operations))
    };
    while reached(&cluster).0 < decisions {
        fill(&client, filling).expect("the cluster takes it");
    }
    let (executed, operations) = reached(&cluster);
    let bytes = operations * (BYTES as u64 + 11);
    let raw = median_of(|| raw_copy(None, bytes, directory.path()));
    std::thread::sleep(IDLE);
    let (seconds, _) = catch_up(&mut cluster, |late, most| late.standing().executed.get() >= most);
    let late = cluster.replica(LATE).expect("it runs");
    assert_eq!(late.counter("states_transferred"), 0, "decisions were enough");
    println!(
        "log   {executed:>5} dec {:>9.3} s {:>9.3} s {:>6.2} × {:>8.0} MB/s   {operations} operations of {BYTES} B, {:.0} decisions/s",
        seconds,
        raw,
        seconds / raw,
        bytes as f64 / seconds / 1e6,
        executed as f64 / seconds,
    );
    json!({
        "case": "log", "decisions": executed, "operations": operations, "operation_bytes": BYTES, "bytes": bytes,
        "seconds": seconds, "raw_copy_seconds": raw, "times_raw": seconds / raw,
    })
}

/// Operations per second while `until` is false.
fn rate_until(control: &Control, mut until: impl FnMut(Duration) -> bool) -> f64 {
    let (start, before) = (Instant::now(), control.ended.load(Ordering::Acquire));
    while !until(start.elapsed()) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let ended = control.ended.load(Ordering::Acquire) - before;
    ended as f64 / start.elapsed().as_secs_f64()
}

/// A cluster that is filled with so much while one replica is down.
fn filled_without_late(options: &ClusterOptions, mib: u64) -> LocalCluster {
    let mut cluster = LocalCluster::start(options).expect("it starts");
    cluster.stop(LATE).expect("it ends in good order");
    let filling = Filling {
        first_key: 1 << 32,
        keys: (mib << 20) / (VALUE_BYTES as u64 + 8),
        value_bytes: VALUE_BYTES,
        outstanding: 1024,
    };
    fill(&connect(&cluster, 0), filling).expect("the cluster takes it");
    cluster
}

fn service_case(mib: u64, seconds: u64, data: &Path) -> Value {
    let directory = tempfile::TempDir::with_prefix_in("atlas-recovery-", data).expect("a directory");
    let options = options(directory.path(), keep(false));
    let mut cluster = filled_without_late(&options, mib);
    let control = Control::new();
    let shape = Shape::default();
    let driver = LoadDriver::new(
        Workload::new(AppKind::Kv, shape, 42),
        Pace::Closed { outstanding: 1024 },
        3,
        Duration::from_secs(120),
        control.clone(),
    );
    let clients: Vec<_> = (1..4).map(|number| cluster.client(number)).collect();
    let engine = Engine::start("load", &clients, None, Box::new(driver)).expect("the clients start");
    engine
        .wait_connected(3, Duration::from_secs(10))
        .expect("three replicas are there");
    control.send(true);
    engine.wake();
    let some_time = |elapsed: Duration| elapsed.as_secs() >= seconds;
    rate_until(&control, |elapsed| elapsed.as_secs() >= 2);
    let three = rate_until(&control, some_time);
    let (took, during) = {
        let (start, before) = (Instant::now(), control.ended.load(Ordering::Acquire));
        let (took, _) = catch_up(&mut cluster, |late, most| {
            late.counter("states_transferred") > 0 && late.standing().executed.get() + 64 >= most
        });
        let ended = control.ended.load(Ordering::Acquire) - before;
        (took, ended as f64 / start.elapsed().as_secs_f64())
    };
    let four = rate_until(&control, some_time);
    control.send(false);
    while !control.is_quiet() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(cluster.states(Duration::from_secs(30)), States::Equal);
    println!(
        "service {mib:>4} MiB: {three:.0} operations/s with three replicas, {during:.0} while the fourth catches up ({took:.2} s), {four:.0} \
         with four: {:.2} of before, {:.2} of after",
        during / three,
        during / four
    );
    json!({
        "case": "service", "state_mib": mib, "outstanding": 1024, "payload_bytes": shape.payload_bytes,
        "before_ops_s": three, "during_ops_s": during, "after_ops_s": four, "catch_up_seconds": took,
        "share_of_before": during / three, "share_of_after": during / four,
    })
}

/// Microseconds of one operation after another, until told to stop.
fn latencies(client: &Client, phase: &AtomicUsize) -> [Vec<f64>; 3] {
    let mut seen: [Vec<f64>; 3] = Default::default();
    for key in 0.. {
        let now = phase.load(Ordering::Acquire);
        let Some(of_phase) = seen.get_mut(now) else { break };
        let operation = kv::put(format!("k{}", key % 64).as_bytes(), b"12345678").expect("a small operation");
        let start = Instant::now();
        client.call_blocking(operation).expect("it is answered");
        of_phase.push(start.elapsed().as_secs_f64() * 1e6);
    }
    seen
}

fn latency_case(mib: u64, seconds: u64, data: &Path) -> Value {
    let directory = tempfile::TempDir::with_prefix_in("atlas-recovery-", data).expect("a directory");
    let options = ClusterOptions {
        st_config: StateTransferConfig {
            donor_bytes_per_second_serving: 1 << 30,
            ..StateTransferConfig::default()
        },
        ..options(directory.path(), keep(false))
    };
    let mut cluster = filled_without_late(&options, mib);
    let (client, phase) = (connect(&cluster, 1), AtomicUsize::new(0));
    let mut took = 0.0;
    let [before, during, after] = std::thread::scope(|scope| {
        let measured = scope.spawn(|| latencies(&client, &phase));
        std::thread::sleep(Duration::from_secs(seconds));
        phase.store(1, Ordering::Release);
        (took, _) = catch_up(&mut cluster, |late, most| {
            late.counter("states_transferred") > 0 && late.standing().executed.get() + 64 >= most
        });
        phase.store(2, Ordering::Release);
        std::thread::sleep(Duration::from_secs(seconds));
        phase.store(3, Ordering::Release);
        measured.join().expect("the client's thread ends")
    });
    let at = |sorted: &[f64], share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    let shown = [before, during, after].map(|mut all| {
        all.sort_unstable_by(f64::total_cmp);
        (all.len(), at(&all, 0.5), at(&all, 0.9), at(&all, 0.99))
    });
    println!("latency {mib:>4} MiB: one operation at a time, in us; {took:.2} s of catching up");
    for (name, (count, p50, p90, p99)) in ["three replicas", "the fourth catches up", "four"]
        .iter()
        .zip(shown)
    {
        println!("  {name:<22} {count:>7} operations, p50 {p50:>7.0}, p90 {p90:>7.0}, p99 {p99:>7.0}");
    }
    let figures = |(count, p50, p90, p99): (usize, f64, f64, f64)| json!({"operations": count, "p50_us": p50, "p90_us": p90, "p99_us": p99});
    json!({
        "case": "latency", "state_mib": mib, "catch_up_seconds": took, "before": figures(shown[0]),
        "during": figures(shown[1]), "after": figures(shown[2]),
    })
}

fn main() {
    let arguments = Arguments::parse();
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("ATLAS_LOG") {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
    }
    println!(
        "n = 4, f = 1, durability sync, auth mac, executor single, values of {VALUE_BYTES} B, {} cores, data in {}",
        std::thread::available_parallelism().map_or(1, usize::from),
        arguments.data.display()
    );
    println!(
        "{:<15} {:>11} {:>11} {:>8} {:>13}",
        "case", "catch-up", "raw copy", "ratio", "rate"
    );
    let (sizes, lengths): (&[u64], &[u64]) = match arguments.quick {
        true => (&[10, 100], &[1000]),
        false => (&[10, 100, 1000], &[1000, 10_000, 30_000]),
    };
    let only: Vec<u64> = arguments.size.into_iter().collect();
    let (sizes, lengths) = match only.is_empty() {
        true => (sizes, lengths),
        false => (&only[..], &only[..]),
    };
    let mut rows = Vec::new();
    if arguments.wants("state") {
        rows.extend(sizes.iter().map(|mib| state_case(*mib, false, &arguments.data)));
    }
    if arguments.wants("changed") {
        rows.extend(sizes.iter().map(|mib| state_case(*mib, true, &arguments.data)));
    }
    if arguments.wants("log") {
        rows.extend(
            lengths
                .iter()
                .map(|decisions| log_case(*decisions, &arguments.data)),
        );
    }
    if arguments.wants("latency") {
        let mib = only
            .first()
            .copied()
            .unwrap_or(if arguments.quick { 100 } else { 500 });
        rows.push(latency_case(
            mib,
            if arguments.quick { 2 } else { 5 },
            &arguments.data,
        ));
    }
    if arguments.wants("service") {
        let (mib, seconds) = if arguments.quick { (100, 3) } else { (500, 10) };
        rows.push(service_case(mib, seconds, &arguments.data));
    }
    if let Some(path) = &arguments.json {
        let report = json!({ "rows": rows, "n": 4, "f": 1, "durability": "sync", "auth": "mac" });
        let text = serde_json::to_string_pretty(&report).expect("figures are JSON");
        std::fs::write(path, text).expect("the JSON file can be written");
    }
}
