//! The headline: what a cluster of four replicas and its load do on this machine, all in one process over loopback TCP.
//!
//! `cargo bench --bench throughput -- [--quick] [--json FILE]` prints one row per case and writes every figure with its
//! parameters. The raw cost of moving the same bytes is measured beside it in the same run (`loopback` row), so
//! that the share of the machine's own limit can be read off.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use atlas_smr_replica::config::{Agreement, AppKind, ClientTuning, Durability};
use atlas_smr_replica::load::{ClusterOptions, LoadOptions, LocalCluster, Pace, Report, Shape, run_load};
use atlas_smr_replica::preprocessing::ClientAuth;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Case {
    name: &'static str,
    app: AppKind,
    auth: ClientAuth,
    clients: usize,
    payload_bytes: usize,
    pace: Pace,
}

const fn closed(outstanding: usize) -> Pace {
    Pace::Closed { outstanding }
}

fn cases(quick: bool) -> Vec<Case> {
    let case = |name, app, auth, clients, payload_bytes, pace| Case {
        name,
        app,
        auth,
        clients,
        payload_bytes,
        pace,
    };
    let mut cases = vec![
        case("kv, mac", AppKind::Kv, ClientAuth::Mac, 4, 64, closed(16_384)),
        case(
            "kv, signature",
            AppKind::Kv,
            ClientAuth::Signature,
            4,
            64,
            closed(16_384),
        ),
        case(
            "kv, one outstanding",
            AppKind::Kv,
            ClientAuth::Mac,
            1,
            64,
            closed(1),
        ),
        case(
            "kv, 200 clients of one",
            AppKind::Kv,
            ClientAuth::Mac,
            200,
            64,
            closed(200),
        ),
    ];
    if !quick {
        cases.extend([
            case("null, mac", AppKind::Null, ClientAuth::Mac, 4, 64, closed(16_384)),
            case("bank, mac", AppKind::Bank, ClientAuth::Mac, 4, 64, closed(16_384)),
            case("kv, 1 KiB", AppKind::Kv, ClientAuth::Mac, 4, 1024, closed(4096)),
            case(
                "kv, open 100k/s",
                AppKind::Kv,
                ClientAuth::Mac,
                4,
                64,
                Pace::Open { rate: 100_000.0 },
            ),
        ]);
    }
    cases
}

fn run(case: &Case, seconds: f64) -> Report {
    let options = ClusterOptions {
        replicas: 4,
        clients: case.clients,
        app: case.app,
        agreement: Agreement {
            client_auth: case.auth,
            ..Agreement::default()
        },
        tuning: ClientTuning::default(),
        pin: true,
        pipeline: atlas_smr_replica::config::OrderingConfig::default().pipeline,
        durability: Durability::None,
        ..ClusterOptions::default()
    };
    let cluster = LocalCluster::start(&options).expect("the cluster starts");
    let load = LoadOptions {
        pace: case.pace,
        shape: Shape {
            payload_bytes: case.payload_bytes,
            ..Shape::default()
        },
        warm_up: Duration::from_secs_f64(seconds / 3.0),
        measured: Duration::from_secs_f64(seconds),
        kill_leader_after: None,
    };
    let (report, _) = run_load(&cluster, &options, &load, |_| {}).expect("the load runs");
    assert!(report.agree, "{}: the replicas' states differ", case.name);
    assert_eq!(report.errors, 0, "{}: operations failed", case.name);
    report
}

/// Bytes per second of one loopback TCP connection, in the sizes a batch is sent in.
fn loopback_bytes_per_second() -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback can be bound");
    let mut sender =
        TcpStream::connect(listener.local_addr().expect("it has an address")).expect("it accepts");
    let (mut receiver, _) = listener.accept().expect("it was dialled");
    let thread = std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0u64;
        while let Ok(read @ 1..) = receiver.read(&mut buffer) {
            total += read as u64;
        }
        total
    });
    let (chunk, start) = (vec![7; 256 << 10], Instant::now());
    while start.elapsed() < Duration::from_millis(700) {
        sender.write_all(&chunk).expect("the receiver reads");
    }
    drop(sender);
    let total = thread.join().expect("the receiver counts");
    total as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let json = arguments
        .iter()
        .position(|argument| argument == "--json")
        .and_then(|at| arguments.get(at + 1));
    let seconds = if quick { 3.0 } else { 10.0 };
    println!(
        "n = 4, f = 1, durability none, executor single, {seconds} s measured per case, 100,000 keys, closed loops \
         unless said otherwise"
    );
    println!(
        "{:<24} {:>12} {:>9} {:>9} {:>9} {:>9} {:>12} {:>9} {:>9}",
        "case", "operations/s", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "CPU/op·repl", "leader", "client"
    );
    let mut rows = Vec::new();
    for case in cases(quick) {
        let report = run(&case, seconds);
        let l = &report.latency_us;
        println!(
            "{:<24} {:>12.0} {:>9.0} {:>9.0} {:>9.0} {:>9.0} {:>9.2} µs {:>6.2} µs {:>6.2} µs",
            case.name,
            report.throughput_ops_s,
            l.p50,
            l.p99,
            l.p999,
            l.max,
            report.cpu_us_per_op_per_replica,
            report.cpu_us_per_op_leader,
            report.cpu_us_per_op_client
        );
        rows.push(serde_json::json!({ "case": case.name, "report": report }));
    }
    let limit = loopback_bytes_per_second();
    // Each operation crosses the loopback four times: to the leader, and from it to three backups.
    let share = rows[0]["report"]["throughput_ops_s"].as_f64().unwrap_or(0.0) * 64.0 * 4.0 / limit;
    println!(
        "\nloopback                 {:.1} GB/s on one connection with both cores; \"kv, mac\" moves {:.0}% of that",
        limit / 1e9,
        share * 100.0
    );
    if let Some(path) = json {
        let report = serde_json::json!({ "rows": rows, "loopback_bytes_s": limit });
        let text = serde_json::to_string_pretty(&report).expect("figures are JSON");
        std::fs::write(path, text).expect("the JSON file can be written");
    }
}
