//! What checkpoints of a large state cost the service: four real replicas over loopback TCP, each with a data
//! directory on disk.
//!
//! `cargo bench --bench checkpoint_cluster -- [--mib M] [--value-bytes N] [--outstanding O] [--factor F]
//! [--log-mib L] [--cycles C] [--data DIR] [--json FILE]` fills a key-value store with M MiB (1024) and
//! measures a closed loop of random puts twice, in the same cluster layout: with a period so long that no
//! checkpoint includes the state, and with the configured one, for C whole ways (1) from one checkpoint with
//! the state to the next. The same number of operations both times. A silence is the longest stretch in which
//! no client got an answer; replicas and clients share this machine's cores.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use atlas_smr_replica::Client;
use atlas_smr_replica::client::Engine;
use atlas_smr_replica::config::{Agreement, AppKind, ClientTuning, Durability, PersistentLogConfig};
use atlas_smr_replica::load::{
    ClusterOptions, Control, Filling, LoadDriver, LocalCluster, Pace, Shape, States, Workload, fill,
};
use atlas_smr_replica::preprocessing::ClientAuth;
use atlas_smr_replica::types::NodeId;
use clap::Parser;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of a put beside its value.
const PUT_BYTES: usize = 11;
/// What a key counts as in the state beside its value.
const PAIR_BYTES: u64 = 8 + 16;

/// Measure what checkpoints of a large state cost a cluster.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// The size of the state.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1024)]
    value_bytes: usize,
    /// Operations under way.
    #[arg(long, default_value_t = 2048)]
    outstanding: usize,
    /// A checkpoint includes the state when the log has grown by so many times its size.
    #[arg(long, default_value_t = Agreement::default().state_log_factor)]
    factor: u64,
    /// Or by so many MiB.
    #[arg(long, default_value_t = Agreement::default().state_log_bytes_max >> 20)]
    log_mib: u64,
    /// Checkpoints with the state that are measured.
    #[arg(long, default_value_t = 1)]
    cycles: u64,
    /// Where the data directories lie.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    data: PathBuf,
    /// Write the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn keys(&self) -> u64 {
        (self.mib << 20) / (self.value_bytes as u64 + PAIR_BYTES)
    }

    /// By how much the log grows from one checkpoint with the state to the next.
    fn cycle_bytes(&self) -> u64 {
        (self.factor * (self.mib << 20)).min(self.log_mib << 20)
    }

    fn options(&self, includes_state: bool, data: &Path) -> ClusterOptions {
        let (factor, log_bytes) = match includes_state {
            true => (self.factor, self.log_mib << 20),
            false => (1000, 1 << 42),
        };
        ClusterOptions {
            clients: 4,
            app: AppKind::Kv,
            agreement: Agreement {
                client_auth: ClientAuth::Mac,
                state_log_factor: factor,
                state_log_bytes_max: log_bytes,
                ..Agreement::default()
            },
            tuning: ClientTuning {
                deadline_ms: 120_000,
                ..ClientTuning::default()
            },
            durability: Durability::Sync,
            data: Some(data.to_owned()),
            pl_config: PersistentLogConfig {
                log_bytes_max: (16 << 30).max(4 * log_bytes),
                ..PersistentLogConfig::default()
            },
            ..ClusterOptions::default()
        }
    }
}

struct Measured {
    seconds: f64,
    ops_per_s: f64,
    silence_ms: f64,
    snapshots: usize,
}

/// The snapshots in a replica's directory, by their places.
fn snapshots(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory.join("images")).into_iter().flatten();
    let paths = files.flatten().map(|entry| entry.path());
    paths.filter(|path| path.extension().is_none()).collect()
}

fn measure(arguments: &Arguments, includes_state: bool) -> Measured {
    let directory =
        tempfile::TempDir::with_prefix_in("atlas-checkpoint-", &arguments.data).expect("a directory");
    let options = arguments.options(includes_state, directory.path());
    let cluster = LocalCluster::start(&options).expect("it starts");
    let client = Client::connect_blocking(cluster.client(0)).expect("the cluster answers");
    let filling = Filling {
        first_key: 0,
        keys: arguments.keys(),
        value_bytes: arguments.value_bytes,
        outstanding: 4096,
    };
    fill(&client, filling).expect("the cluster takes it");
    let control = Control::new();
    let shape = Shape {
        payload_bytes: arguments.value_bytes + PUT_BYTES,
        keys: arguments.keys(),
        ..Shape::default()
    };
    let outstanding = arguments.outstanding;
    let pace = Pace::Closed { outstanding };
    let workload = Workload::new(AppKind::Kv, shape, 42);
    let driver = LoadDriver::new(workload, pace, 3, Duration::from_secs(120), control.clone());
    let clients: Vec<_> = (1..4).map(|number| cluster.client(number)).collect();
    let engine = Engine::start("load", &clients, None, Box::new(driver)).expect("the clients start");
    engine
        .wait_connected(3, Duration::from_secs(10))
        .expect("three replicas are there");
    control.send(true);
    engine.wake();
    let ended = || control.ended.load(Ordering::Acquire);
    let operations = arguments.cycles * arguments.cycle_bytes() / shape.payload_bytes as u64;
    // Some time to get going.
    while ended() < operations / 20 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let first = cluster.data_path(NodeId::new(0));
    let mut seen = snapshots(first);
    let before = seen.len();
    let (start, from) = (Instant::now(), ended());
    let (mut last, mut last_at, mut silence) = (from, start, Duration::ZERO);
    while ended() < from + operations {
        std::thread::sleep(Duration::from_micros(200));
        let (now, count) = (Instant::now(), ended());
        if count > last {
            silence = silence.max(now - last_at);
            (last, last_at) = (count, now);
            for snapshot in snapshots(first) {
                if !seen.contains(&snapshot) {
                    seen.push(snapshot);
                }
            }
        }
    }
    let (seconds, done) = (start.elapsed().as_secs_f64(), ended() - from);
    control.send(false);
    while !control.is_quiet() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(cluster.states(Duration::from_secs(60)), States::Equal);
    Measured {
        seconds,
        ops_per_s: done as f64 / seconds,
        silence_ms: silence.as_secs_f64() * 1e3,
        snapshots: seen.len() - before,
    }
}

fn print(name: &str, measured: &Measured) {
    println!(
        "{name:<28} {:>10.0} {:>9.1} {:>11.1} {:>7}",
        measured.ops_per_s, measured.seconds, measured.silence_ms, measured.snapshots
    );
}

fn main() {
    let arguments = Arguments::parse();
    println!(
        "n = 4, f = 1, durability sync, auth mac, executor single, {} MiB of values of {} B, a state in a checkpoint every {} MiB of log, \
         {} outstanding, {} cores, data in {}",
        arguments.mib,
        arguments.value_bytes,
        arguments.cycle_bytes() >> 20,
        arguments.outstanding,
        std::thread::available_parallelism().map_or(1, usize::from),
        arguments.data.display()
    );
    println!(
        "{:<28} {:>10} {:>9} {:>11} {:>7}",
        "run", "ops/s", "seconds", "silence/ms", "images"
    );
    let without = measure(&arguments, false);
    print("no checkpoint with the state", &without);
    let with = measure(&arguments, true);
    print("as configured", &with);
    let ratio = with.ops_per_s / without.ops_per_s;
    println!("throughput {ratio:.2} of a run without");
    if let Some(path) = &arguments.json {
        let row = |measured: &Measured| {
            json!({ "ops_per_s": measured.ops_per_s, "seconds": measured.seconds, "silence_ms": measured.silence_ms,
                "images": measured.snapshots })
        };
        let report = json!({
            "n": 4, "f": 1, "durability": "sync", "auth": "mac", "state_mib": arguments.mib,
            "value_bytes": arguments.value_bytes, "outstanding": arguments.outstanding,
            "cycle_bytes": arguments.cycle_bytes(), "without": row(&without), "with": row(&with), "ratio": ratio,
        });
        let text = serde_json::to_string_pretty(&report).expect("figures are JSON");
        std::fs::write(path, text).expect("the JSON file can be written");
    }
}
