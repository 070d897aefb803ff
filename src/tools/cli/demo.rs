use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::{CommandError, demo_durability, interrupts, parse_auth};
use crate::runtime::config::{
    Agreement, AppKind, ClientTuning, Durability, ExecutionConfig, ExecutorKind, ReadLevel,
};
use crate::sim::ByzantineStrategy;
use crate::smr::preprocessing::ClientAuth;
use crate::tools::load::{
    ClusterOptions, DonorLie, LoadOptions, LocalCluster, Pace, Report, Shape, draw_histogram, run_load,
};

/// What a faulty replica of the demo does; the simulator knows more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Byzantine {
    /// Proposes different batches to different replicas, with votes to match.
    Equivocate,
    /// Says nothing to other replicas.
    Silent,
    /// Says everything late.
    Slow,
    /// Proposes and votes with digests that are those of no batch.
    Corrupt,
    /// Sends false chunks to a replica that catches up.
    CorruptChunks,
    /// Offers its state to a replica that catches up, and sends nothing.
    StallTransfer,
    /// Sends each replica the same batches with other bytes that mean nothing.
    Pad,
    /// Proves checkpoints with more signatures than it takes, most of them false, and falls silent.
    PoisonProof,
    /// Proposes batches as long as they may be for all places but the next.
    Bloat,
    /// Passes on frames that were decided long ago, to have others answer them again.
    ReplayReplies,
}

impl Byzantine {
    /// What it does to replicas that catch up.
    fn donor_lie(self) -> Option<DonorLie> {
        match self {
            Self::CorruptChunks => Some(DonorLie::CorruptChunks),
            Self::StallTransfer => Some(DonorLie::StallTransfer),
            _ => None,
        }
    }

    fn lie(self) -> Option<ByzantineStrategy> {
        Some(match self {
            Self::Equivocate => ByzantineStrategy::Equivocate,
            Self::Silent => ByzantineStrategy::Silent,
            Self::Slow => ByzantineStrategy::Slow,
            Self::Corrupt => ByzantineStrategy::WrongDigests,
            Self::Pad => ByzantineStrategy::Pad,
            Self::PoisonProof => ByzantineStrategy::PoisonProof,
            Self::Bloat => ByzantineStrategy::Bloat,
            Self::ReplayReplies => ByzantineStrategy::ReplayReplies,
            Self::CorruptChunks | Self::StallTransfer => return None,
        })
    }
}

/// Run a cluster and its load in this process, and show what it does.
#[derive(Debug, Clone, Args)]
pub(super) struct Demo {
    /// Replicas; n = 3f+1 of them tolerate f faulty ones.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    replicas: u16,
    /// The service.
    #[arg(long, value_enum, default_value = "kv")]
    app: AppKind,
    /// Bytes of one operation.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Operations under way at any time, over all clients.
    #[arg(long, default_value_t = 32_768, value_parser = super::parse_count)]
    outstanding: usize,
    /// Client identities that share the load.
    #[arg(long, default_value_t = 4, value_parser = super::parse_count)]
    clients: usize,
    /// How clients prove their frames: mac or signature.
    #[arg(long, default_value = "mac", value_parser = parse_auth)]
    auth: ClientAuth,
    /// Keys the operations touch.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// The share of reads, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = super::parse_percent)]
    reads: f64,
    /// Enable linearizable reads beside the order, and ask reads there.
    #[arg(long)]
    unordered: bool,
    /// Ask reads beside the order, where f+1 equal answers are enough: they may be old.
    #[arg(long)]
    relaxed: bool,
    /// The skew of the keys, from 0 (uniform) to below 1 (YCSB has 0.99).
    #[arg(long, default_value_t = 0.0, value_parser = super::parse_skew)]
    zipf: f64,
    /// The share of operations that touch one and the same key, in percent.
    #[arg(long, default_value_t = 0.0, value_parser = super::parse_percent)]
    conflict: f64,
    /// How replicas execute.
    #[arg(long, value_enum, default_value = "single")]
    executor: ExecutorKind,
    /// Threads that execute at each replica, of the speculative executor.
    #[arg(long, default_value_t = ExecutionConfig::default().workers)]
    workers: usize,
    /// Processor time that each operation costs beside what the service does, in microseconds.
    #[arg(long, default_value_t = 0.0)]
    compute_us: f64,
    /// What is on disk before a vote or a reply leaves; async and none are for comparison.
    #[arg(long, value_enum, default_value = "sync")]
    durability: Durability,
    /// Show what it costs to have everything on disk: runs with sync and with none take turns.
    #[arg(long, conflicts_with_all = ["durability", "kill_leader_after", "byzantine", "json"])]
    compare_durability: bool,
    /// Kill the replica that leads after so many seconds of the measured time.
    #[arg(long, value_parser = super::parse_seconds)]
    kill_leader_after: Option<f64>,
    /// Let the first leader lie; an honest run of the same length comes first.
    #[arg(long, value_enum)]
    byzantine: Option<Byzantine>,
    /// Where the replicas' data directories are made, each time anew; a temporary directory if left out.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Measured time in seconds, after one second of warm-up.
    #[arg(long, default_value_t = 10.0, value_parser = super::parse_seconds)]
    seconds: f64,
    /// Operations in a client's frame at most.
    #[arg(long, default_value_t = ClientTuning::default().frame_operations_max)]
    frame_operations: usize,
    /// Frames of one client under way at most.
    #[arg(long, default_value_t = ClientTuning::default().frames_in_flight_max)]
    frames_in_flight: usize,
    /// Proposals of the leader under way at once.
    #[arg(long, default_value_t = crate::runtime::config::OrderingConfig::default().pipeline)]
    pipeline: usize,
    /// Leave the threads to the scheduler.
    #[arg(long)]
    no_pin: bool,
    /// Write the figures to this file as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Demo {
    fn cluster_options(&self, lie: Option<ByzantineStrategy>) -> ClusterOptions {
        ClusterOptions {
            replicas: usize::from(self.replicas),
            clients: self.clients,
            app: self.app,
            agreement: Agreement {
                client_auth: self.auth,
                unordered: self.unordered || self.relaxed,
                ..Agreement::default()
            },
            tuning: ClientTuning {
                frame_operations_max: self.frame_operations,
                frames_in_flight_max: self.frames_in_flight.clamp(1, 64),
                reads: match self.relaxed {
                    true => ReadLevel::Relaxed,
                    false => ReadLevel::Linearizable,
                },
                ..ClientTuning::default()
            },
            execution: ExecutionConfig {
                executor: self.executor,
                workers: self.workers.clamp(1, 64),
            },
            compute_us: self.compute_us,
            pin: !self.no_pin,
            pipeline: self.pipeline,
            durability: self.durability,
            data: self.data.clone(),
            lie,
            ..ClusterOptions::default()
        }
    }

    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        self.json.as_deref().map(super::may_write).transpose()?;
        interrupts::heed();
        if self.compare_durability {
            let directory = self.data.clone().unwrap_or_else(std::env::temp_dir);
            return demo_durability::run(&directory, |durability| {
                let options = Self {
                    durability,
                    ..self.clone()
                };
                options.run_one(None)
            });
        }
        let Some(byzantine) = self.byzantine else {
            return self.finish(&self.run_one(None)?);
        };
        if let Some(lie) = byzantine.donor_lie() {
            return super::demo_catch_up::run(&self.cluster_options(None), lie);
        }
        let honest = self.run_one(None)?;
        if crate::tools::load::is_interrupted() {
            return self.finish(&honest);
        }
        println!("honest run\n{}\nnow r0 lies", honest.table());
        let mut report = self.run_one(byzantine.lie())?;
        report.share_of_honest = Some(report.throughput_ops_s / honest.throughput_ops_s);
        self.finish(&report)
    }

    fn run_one(&self, lie: Option<ByzantineStrategy>) -> Result<Report, CommandError> {
        let cluster_options = self.cluster_options(lie);
        let cluster = LocalCluster::start(&cluster_options)?;
        println!("{} replicas linked over loopback TCP:", self.replicas);
        for replica in cluster.handles() {
            println!(
                "{} at {}\n{}",
                replica.node(),
                replica.address(),
                replica.core_map().trim_end()
            );
        }
        let (warm_up, measured) = (Duration::from_secs(1), Duration::from_secs_f64(self.seconds));
        let load = LoadOptions {
            pace: Pace::Closed {
                outstanding: self.outstanding,
            },
            shape: Shape {
                payload_bytes: self.payload,
                keys: self.keys,
                reads: self.reads / 100.0,
                unordered: self.unordered || self.relaxed,
                zipf: self.zipf,
                conflict: self.conflict / 100.0,
            },
            warm_up,
            measured,
            kill_leader_after: self.kill_leader_after.map(Duration::from_secs_f64),
        };
        interrupts::expect_none("nothing was measured")?;
        let bar = progress_bar(warm_up + measured);
        let (report, latencies) = run_load(&cluster, &cluster_options, &load, |tick| {
            bar.set_position(tick.elapsed.as_millis() as u64);
            bar.set_message(format!("{:>9} operations/s", tick.operations * 10));
        })?;
        bar.finish_and_clear();
        println!(
            "\nlatency from the intended send time\n{}",
            draw_histogram(&latencies.all_ns)
        );
        Ok(report)
    }

    fn finish(&self, report: &Report) -> Result<ExitCode, CommandError> {
        println!("{}", report.table());
        if let Some(path) = &self.json {
            let json = serde_json::to_string_pretty(report)?;
            std::fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let once = report
            .incident
            .as_ref()
            .is_none_or(|incident| incident.executed_once);
        let sound = report.agree && report.errors == 0 && once;
        Ok(if sound {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

pub(super) fn progress_bar(length: Duration) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("  {bar:40} {msg}") {
        bar.set_style(style);
    }
    bar
}
