//! How fast a replica that starts again replays its log, beside the time it took to write it.
//!
//! `cargo bench --bench replay -- [--seconds S] [--replicas N] [--payload BYTES] [--dir DIR] [--json FILE]`
//! runs a cluster of N replicas (4) in this process under full load for S seconds (5) with everything on disk
//! and no checkpoint, stops it, and starts replica 0 again: with the recovery that `atlas run` has, until it
//! is ready to order.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use atlas_smr_replica::config::{
    Agreement, AppKind, Durability, MonolithicStateReplicaConfig, ReplicaConfig, StateTransferConfig,
};
use atlas_smr_replica::execution::apps::kv::Kv;
use atlas_smr_replica::load::{ClusterOptions, LoadOptions, LocalCluster, Pace, Shape, run_load};
use atlas_smr_replica::preprocessing::ClientAuth;
use atlas_smr_replica::server::monolithic_server::bootstrap_as_configured;
use atlas_smr_replica::storage::survey::Survey;
use atlas_smr_replica::types::NodeId;
use clap::Parser;
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// More decisions than a run has, so that the whole of it is in the log.
const DECISIONS_MAX: u64 = 40_000;
const BYTES_MAX: u64 = 600 << 20;

#[derive(Serialize)]
struct Report {
    replicas: usize,
    payload_bytes: usize,
    /// How long the cluster ordered, in seconds.
    live_s: f64,
    decisions: u64,
    operations: u64,
    log_bytes: u64,
    /// How long the replica took to come back, in seconds.
    replay_s: f64,
    replayed_ops_per_s: f64,
    live_ops_per_s: f64,
    ratio: f64,
}

/// Compare restarting from a log with what was executed live.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long the cluster runs.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Bytes of an operation.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Replicas of the cluster.
    #[arg(long, default_value_t = 4)]
    replicas: usize,
    /// Where the data directories lie.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Write the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Has a cluster write logs under load. How replica 0 is started again, and how many decisions it executed.
fn write_logs(arguments: &Arguments, data: &Path) -> (ReplicaConfig, u64) {
    let options = ClusterOptions {
        replicas: arguments.replicas,
        clients: 4,
        app: AppKind::Kv,
        agreement: Agreement {
            client_auth: ClientAuth::Mac,
            checkpoint_decisions: DECISIONS_MAX,
            checkpoint_bytes: BYTES_MAX,
            window: 2 * DECISIONS_MAX,
            ..Agreement::default()
        },
        durability: Durability::Sync,
        data: Some(data.to_owned()),
        ..ClusterOptions::default()
    };
    let cluster = LocalCluster::start(&options).expect("the cluster starts");
    let load = LoadOptions {
        pace: Pace::Closed { outstanding: 4096 },
        shape: Shape {
            payload_bytes: arguments.payload,
            ..Shape::default()
        },
        warm_up: Duration::from_secs_f64(arguments.seconds / 10.0),
        measured: Duration::from_secs_f64(arguments.seconds * 0.9),
        kill_leader_after: None,
    };
    run_load(&cluster, &options, &load, |_| {}).expect("the load runs");
    let node = NodeId::new(0);
    let decisions = {
        let replica = cluster.handles().next().expect("replica 0 runs");
        replica.standing().executed.get()
    };
    (cluster.replica_config(node), decisions)
}

/// What a log holds.
struct Held {
    decisions: u64,
    operations: usize,
    bytes: u64,
}

fn look_into(config: &ReplicaConfig) -> Held {
    let survey = Survey::of(&config.db_path).expect("the directory is there");
    assert_eq!(
        survey.superblock().snapshot.get(),
        0,
        "no checkpoint shortened the log: fewer --seconds"
    );
    let log = survey.log();
    assert!(log.damage.is_empty(), "{:?}", log.damage);
    let proposals = log.records.iter().filter(|record| record.kind == "proposal");
    let operations: usize = proposals
        .filter_map(|record| record.content.batch)
        .map(|(_, operations)| operations)
        .sum();
    Held {
        decisions: log.decisions().count() as u64,
        operations,
        bytes: log.records.iter().map(|record| record.bytes as u64).sum(),
    }
}

/// Starts a replica from its log. How long that took, in seconds, and how many decisions it executed.
fn replay(config: ReplicaConfig) -> (f64, u64) {
    let begin = Instant::now();
    let service = MonolithicStateReplicaConfig {
        service: Kv,
        replica_config: config,
        st_config: StateTransferConfig::default(),
    };
    let (handle, run) =
        futures_lite::future::block_on(bootstrap_as_configured(service)).expect("the replica comes back");
    let replay_s = begin.elapsed().as_secs_f64();
    let executed = handle.standing().executed.get();
    handle.shutdown();
    futures_lite::future::block_on(run).expect("it ends in good order");
    (replay_s, executed)
}

fn main() {
    let arguments = Arguments::parse();
    let (seconds, payload_bytes) = (arguments.seconds, arguments.payload);
    let temporary = tempfile::tempdir_in(&arguments.dir).expect("the directory can be written");
    let (config, decisions) = write_logs(&arguments, temporary.path());
    let Held {
        decisions: decided,
        operations,
        bytes: log_bytes,
    } = look_into(&config);
    let (replay_s, executed) = replay(config);
    let report = Report {
        replicas: arguments.replicas,
        payload_bytes,
        live_s: seconds,
        decisions: decided,
        operations: operations as u64,
        log_bytes,
        replay_s,
        replayed_ops_per_s: operations as f64 / replay_s,
        live_ops_per_s: operations as f64 / seconds,
        ratio: seconds / replay_s,
    };
    assert!(
        executed >= decisions || executed == 0,
        "{executed} of {decisions} decisions came back"
    );
    println!(
        "{} replicas, kv, puts of {payload_bytes} bytes, durability sync, no checkpoint: {} decisions, {} operations, {:.1} MiB of records",
        report.replicas,
        report.decisions,
        report.operations,
        report.log_bytes as f64 / 1048576.0
    );
    println!(
        "written in {:.2} s ({:.0} ops/s), replayed in {:.3} s ({:.0} ops/s): {:.1} times live speed",
        report.live_s, report.live_ops_per_s, report.replay_s, report.replayed_ops_per_s, report.ratio
    );
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report).expect("the report is plain");
        std::fs::write(path, text).expect("the file can be written");
    }
}
