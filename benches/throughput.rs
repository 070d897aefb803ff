//! The headline: what the execution models do for a workload, and what a cluster of four replicas and its
//! load do on this machine, all in one process over loopback TCP.
//!
//! `cargo bench --bench throughput -- [--quick] [--json FILE] [--out DIR]` prints one table and writes
//! `report.html`, `latency.hlog` and one `.hgrm` per case into the directory. `--help` lists the rest;
//! `perf/README.md` is the method. The matrix compares the models under one load: a bank whose operations are
//! half deposits and half balances, closed loop.
//!
//! | model | executor | reads |
//! |---|---|---|
//! | single | single-threaded | in order |
//! | speculative | speculative, `--workers` threads | in order |
//! | mixed | single-threaded | beside the order, linearizable |

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use atlas_smr_replica::config::{
    Agreement, AppKind, ClientTuning, Durability, ExecutionConfig, ExecutorKind, ReadLevel,
};
use atlas_smr_replica::load::{
    ClusterOptions, Group, Latencies, Limits, LoadOptions, LocalCluster, Pace, Parameters, Results, Row,
    Shape, hdr, page, run_load, table_head, table_row,
};
use atlas_smr_replica::preprocessing::ClientAuth;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Operations under way in the matrix: enough to fill frames, few enough that a slow case warms up in time.
const OUTSTANDING: usize = 1024;
/// The share of reads in the matrix.
const READS: f64 = 0.5;
/// Rates of the sweep: round numbers, so that two runs have the same ones, up to so much of what the best
/// model can do.
const RATES: [f64; 6] = [1.0, 1.5, 2.0, 3.0, 5.0, 7.0];
const RATE_MOST: f64 = 1.1;

/// Measure the execution models, and write the report.
#[derive(Debug, Parser)]
struct Options {
    /// Fewer and shorter cases: under two minutes in all.
    #[arg(long)]
    quick: bool,
    /// Write all figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the page and the histograms go.
    #[arg(long, default_value = "target/report")]
    out: PathBuf,
    /// What is on disk before a vote or a reply leaves; async and none are for comparison.
    #[arg(long, value_enum, default_value = "sync")]
    durability: Durability,
    /// Measured time of each case in seconds: 5, or 1 with --quick.
    #[arg(long)]
    seconds: Option<f64>,
    /// Runs of each case, of which the median is shown: 3, or 1 with --quick. Cases take turns.
    #[arg(long)]
    repeats: Option<usize>,
    /// Processor time of each operation of the matrix in microseconds, several separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 20.0])]
    compute_us: Vec<f64>,
    /// Operations of the matrix that touch one account, in percent, several separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 100.0])]
    conflict: Vec<f64>,
    /// Bytes of an operation of the matrix, several separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 1024])]
    payload: Vec<usize>,
    /// Threads that execute at each replica, of the speculative model.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone)]
struct Case {
    name: String,
    group: Group,
    model: Option<&'static str>,
    cluster: ClusterOptions,
    shape: Shape,
    pace: Pace,
}

const MODELS: [&str; 3] = ["single", "speculative", "mixed"];

impl Options {
    fn seconds(&self) -> f64 {
        self.seconds
            .unwrap_or(if self.quick { 1.0 } else { 5.0 })
            .max(0.1)
    }

    fn warm_up(&self) -> f64 {
        if self.quick { 0.5 } else { 1.0 }
    }

    fn repeats(&self) -> usize {
        self.repeats.unwrap_or(if self.quick { 1 } else { 3 }).max(1)
    }

    /// A cluster of four with the given clients' authentication.
    fn cluster(&self, app: AppKind, auth: ClientAuth, clients: usize) -> ClusterOptions {
        ClusterOptions {
            app,
            clients,
            agreement: Agreement {
                client_auth: auth,
                ..Agreement::default()
            },
            durability: self.durability,
            ..ClusterOptions::default()
        }
    }

    /// A case of the comparison of models.
    fn of_model(&self, model: &'static str, n: usize, compute_us: f64, shape: Shape) -> Case {
        let mut cluster = self.cluster(AppKind::Bank, ClientAuth::Mac, 4);
        cluster.replicas = n;
        cluster.compute_us = compute_us;
        cluster.agreement.unordered = model == "mixed";
        if model == "speculative" {
            cluster.execution = ExecutionConfig {
                executor: ExecutorKind::Speculative,
                workers: self.workers.clamp(1, 64),
            };
        }
        let percent = 100.0 * shape.conflict;
        let mut name = format!(
            "{model} · {compute_us} µs · {percent} % · {} B",
            shape.payload_bytes
        );
        if n == 1 {
            name.push_str(" · n = 1");
        }
        Case {
            name,
            group: if n == 1 { Group::Alone } else { Group::Models },
            model: Some(model),
            cluster,
            shape: Shape {
                reads: READS,
                unordered: model == "mixed",
                ..shape
            },
            pace: Pace::Closed {
                outstanding: OUTSTANDING,
            },
        }
    }

    /// Model × conflict × compute × payload, and the costliest of it with one replica alone.
    fn matrix(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for &compute_us in &self.compute_us {
            for &conflict in &self.conflict {
                for &payload_bytes in &self.payload {
                    let shape = shape(payload_bytes, conflict);
                    cases.extend(MODELS.map(|model| self.of_model(model, 4, compute_us, shape)));
                }
            }
        }
        let (compute_us, payload_bytes) = self.base();
        for &conflict in &self.conflict {
            let shape = shape(payload_bytes, conflict);
            cases.extend(MODELS.map(|model| self.of_model(model, 1, compute_us, shape)));
        }
        cases
    }

    /// The costliest operation and the first payload: what is looked at more closely.
    fn base(&self) -> (f64, usize) {
        let compute_us = self.compute_us.iter().copied().fold(0.0, f64::max);
        (compute_us, self.payload.first().copied().unwrap_or(64))
    }

    /// Each model at rates up to what the best of them did in a closed loop.
    fn sweep(&self, rows: &[Row]) -> Vec<Case> {
        let (compute_us, payload_bytes) = self.base();
        let conflict = self.conflict.first().copied().unwrap_or(0.0);
        let base = MODELS.map(|model| self.of_model(model, 4, compute_us, shape(payload_bytes, conflict)));
        let of_base = rows
            .iter()
            .filter(|row| base.iter().any(|case| case.name == row.case));
        let best = of_base.map(|row| row.report.throughput_ops_s).fold(0.0, f64::max);
        let powers = (1..8).map(|power| 10f64.powi(power));
        let rates = powers.flat_map(|power| RATES.map(|rate| rate * power));
        let mut rates: Vec<f64> = rates.filter(|rate| *rate <= RATE_MOST * best).collect();
        rates.drain(..rates.len().saturating_sub(if self.quick { 4 } else { 8 }));
        let at = |rate: f64| {
            base.clone().map(|case| Case {
                name: format!("{} · {rate:.0}/s", case.name),
                group: Group::Sweep,
                pace: Pace::Open { rate },
                ..case
            })
        };
        rates.into_iter().flat_map(at).collect()
    }

    /// 95 % reads: all in order, beside the order, and beside it without asking for the newest.
    fn reads(&self) -> Vec<Case> {
        let case = |model, unordered, level| {
            let mut cluster = self.cluster(AppKind::Kv, ClientAuth::Mac, 4);
            cluster.agreement.unordered = unordered && level == ReadLevel::Linearizable;
            cluster.tuning = ClientTuning {
                reads: level,
                ..ClientTuning::default()
            };
            Case {
                name: format!("kv, 95 % reads, {model}"),
                group: Group::Reads,
                model: Some(model),
                cluster,
                shape: Shape {
                    reads: 0.95,
                    unordered,
                    ..Shape::default()
                },
                pace: Pace::Closed { outstanding: 16_384 },
            }
        };
        vec![
            case("all ordered", false, ReadLevel::Linearizable),
            case("unordered, linearizable", true, ReadLevel::Linearizable),
            case("unordered, relaxed", true, ReadLevel::Relaxed),
        ]
    }

    fn single_cases(&self) -> Vec<Case> {
        let case = |name: &str, app, auth, clients, payload_bytes, pace| Case {
            name: name.to_owned(),
            group: Group::Cases,
            model: None,
            cluster: self.cluster(app, auth, clients),
            shape: shape(payload_bytes, 0.0),
            pace,
        };
        let closed = |outstanding| Pace::Closed { outstanding };
        let (mac, signature) = (ClientAuth::Mac, ClientAuth::Signature);
        let mut cases = vec![
            case("kv, mac", AppKind::Kv, mac, 4, 64, closed(16_384)),
            case("kv, signature", AppKind::Kv, signature, 4, 64, closed(16_384)),
            case("kv, one outstanding", AppKind::Kv, mac, 1, 64, closed(1)),
            case("kv, 200 clients of one", AppKind::Kv, mac, 200, 64, closed(200)),
        ];
        let mut zipf = case(
            "kv, half reads, zipf 0.99",
            AppKind::Kv,
            mac,
            4,
            64,
            closed(16_384),
        );
        (zipf.shape.reads, zipf.shape.zipf) = (0.5, 0.99);
        cases.push(zipf);
        if !self.quick {
            cases.extend([
                case("null, mac", AppKind::Null, mac, 4, 64, closed(16_384)),
                case("bank, mac", AppKind::Bank, mac, 4, 64, closed(16_384)),
                case("kv, 1 KiB", AppKind::Kv, mac, 4, 1024, closed(4096)),
                case(
                    "kv, open 100k/s",
                    AppKind::Kv,
                    mac,
                    4,
                    64,
                    Pace::Open { rate: 100_000.0 },
                ),
            ]);
        }
        cases
    }

    fn run(&self, case: &Case) -> Result<(Row, Latencies), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", case.name);
        let cluster = LocalCluster::start(&case.cluster).map_err(|error| failed(&error))?;
        let load = LoadOptions {
            pace: case.pace,
            shape: case.shape,
            warm_up: Duration::from_secs_f64(self.warm_up()),
            measured: Duration::from_secs_f64(self.seconds()),
            kill_leader_after: None,
        };
        let (report, latencies) =
            run_load(&cluster, &case.cluster, &load, |_| {}).map_err(|error| failed(&error))?;
        let row = Row {
            case: case.name.clone(),
            group: case.group,
            model: case.model.map(str::to_owned),
            report,
            latency_histogram: hdr::encode(&latencies.all_ns).map_err(|error| failed(&error))?,
        };
        Ok((row, latencies))
    }

    /// Runs cases in turns, as often as asked; the median run of each by throughput. A table line for each at
    /// once.
    fn measure(&self, cases: &[Case], limits: &Limits) -> Result<Vec<(Row, Latencies)>, String> {
        let mut runs: Vec<Vec<(Row, Latencies)>> = cases.iter().map(|_| Vec::new()).collect();
        for round in 1..=self.repeats() {
            for (case, runs) in cases.iter().zip(&mut runs) {
                runs.push(self.run(case)?);
                if round == self.repeats() {
                    runs.sort_by(|(a, _), (b, _)| {
                        a.report.throughput_ops_s.total_cmp(&b.report.throughput_ops_s)
                    });
                    println!("{}", table_row(&runs[runs.len() / 2].0, Some(limits)));
                }
            }
        }
        Ok(runs
            .into_iter()
            .map(|mut runs| runs.swap_remove(runs.len() / 2))
            .collect())
    }
}

fn shape(payload_bytes: usize, conflict_percent: f64) -> Shape {
    Shape {
        payload_bytes,
        conflict: conflict_percent / 100.0,
        ..Shape::default()
    }
}

/// The page, one interval log with every case, and a text of percentiles for each.
fn write_report(out: &Path, results: &Results, latencies: &[Latencies]) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", out.display());
    std::fs::create_dir_all(out).map_err(|error| failed(&error))?;
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(out.join(name), bytes).map_err(|error| failed(&error));
    write(
        "report.html",
        page(results).map_err(|error| failed(&error))?.as_bytes(),
    )?;
    let tags: Vec<String> = results.rows.iter().map(|row| hdr::slug(&row.case)).collect();
    let Some(begin) = latencies.iter().map(|latencies| latencies.begin).min() else {
        return Ok(());
    };
    let mut lines = Vec::new();
    for (tag, latencies) in tags.iter().zip(latencies) {
        write(
            &format!("{tag}.hgrm"),
            hdr::percentiles(&latencies.all_ns).as_bytes(),
        )?;
        let offset = latencies.begin.duration_since(begin).unwrap_or_default();
        lines.extend(latencies.intervals.iter().map(|interval| hdr::LogLine {
            tag,
            start: offset + interval.start,
            length: interval.length,
            latency_ns: &interval.latency_ns,
        }));
    }
    lines.sort_by_key(|line| line.start);
    let comment = format!("{}, commit {}, nanoseconds", results.command, results.commit);
    let log = hdr::interval_log(begin, &comment, &lines).map_err(|error| failed(&error))?;
    write("latency.hlog", &log)
}

fn print_limits(limits: &Limits, row: Option<&Row>) {
    println!("\nwhat this machine can do at most, measured in this run");
    for (name, value) in limits.rows() {
        println!("  {name:<28} {value:>14}");
    }
    let Some(row) = row else { return };
    let terms = limits.floor(&row.report);
    let total: f64 = terms.iter().map(|(_, us)| us).sum();
    println!("\"{}\" costs at least, per operation and replica", row.case);
    for (name, us) in terms {
        println!("  {name:<28} {us:>11.3} µs");
    }
    println!(
        "  together {total:.3} µs of {:.3} µs measured: {:.0} % (the column \"floor\")",
        row.report.cpu_us_per_op_per_replica,
        100.0 * limits.share(&row.report)
    );
    // Each operation crosses the loopback once to every replica: from the client to the leader, from it to
    // the others.
    let moved = row.report.throughput_ops_s * (row.report.payload_bytes * row.report.n) as f64;
    println!(
        "  it moves {:.0} % of what one loopback connection does with both cores",
        100.0 * moved / limits.loopback_bytes_s
    );
}

fn bench(options: &Options) -> Result<bool, String> {
    let command = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let command = ["cargo bench --bench throughput --".to_owned()]
        .into_iter()
        .chain(command);
    let limits = Limits::measure(&std::env::temp_dir()).map_err(|error| error.to_string())?;
    let parameters = Parameters {
        seconds: options.seconds(),
        warm_up_seconds: options.warm_up(),
        repeats: options.repeats(),
        durability: options.durability.to_string(),
    };
    let command = command.collect::<Vec<_>>().join(" ");
    let mut results = Results::new(command, parameters, Some(limits));
    println!(
        "{}, {} cores; n = 4 unless said otherwise, durability {}; {} s measured, {} run(s) of each case\n\
         models: bank, {} % reads, {OUTSTANDING} outstanding; a case is model · µs per operation · conflict · payload\n\n{}",
        results.machine,
        results.cores,
        options.durability,
        options.seconds(),
        options.repeats(),
        100.0 * READS,
        table_head()
    );
    let mut latencies = Vec::new();
    let mut measure = |heading: &str, cases: &[Case]| -> Result<Vec<Row>, String> {
        println!("{heading}");
        let (rows, found): (Vec<_>, Vec<_>) = options.measure(cases, &limits)?.into_iter().unzip();
        latencies.extend(found);
        Ok(rows)
    };
    results
        .rows
        .extend(measure(Group::Cases.title(), &options.single_cases())?);
    results
        .rows
        .extend(measure(Group::Reads.title(), &options.reads())?);
    results
        .rows
        .extend(measure(Group::Models.title(), &options.matrix())?);
    let sweep = options.sweep(&results.rows);
    results.rows.extend(measure(Group::Sweep.title(), &sweep)?);
    print_limits(&limits, results.group(Group::Cases).next());
    write_report(&options.out, &results, &latencies)?;
    println!("\nwrote {}", options.out.join("report.html").display());
    if let Some(path) = &options.json {
        results.save(path).map_err(|error| error.to_string())?;
        println!("wrote {}", path.display());
    }
    let bad = |row: &&Row| row.report.errors > 0 || !row.report.agree;
    for row in results.rows.iter().filter(bad) {
        eprintln!(
            "{}: {} errors, agree: {}",
            row.case, row.report.errors, row.report.agree
        );
    }
    Ok(!results.rows.iter().any(|row| bad(&row)))
}

fn main() -> ExitCode {
    match bench(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("throughput: {error}");
            ExitCode::FAILURE
        }
    }
}
