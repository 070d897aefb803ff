//! The `atlas` command: one file per subcommand.

#[macro_use]
mod output;

mod assets;
mod bench;
mod check;
mod client;
mod demo;
mod demo_catch_up;
mod demo_durability;
mod doctor;
mod format;
mod health;
mod init;
mod init_staging;
mod inspect;
mod interrupts;
mod logs;
mod report;
mod run;
mod sim;
mod status;
mod up;
mod value;

use std::fs::OpenOptions;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Parser, Subcommand};

use crate::smr::preprocessing::ClientAuth;

/// The version, and the commit it was built from where that is known.
const VERSION: &str = env!("ATLAS_VERSION");

/// Byzantine fault tolerant state machine replication.
#[derive(Debug, Parser)]
#[command(name = "atlas", version = VERSION, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    logs: logs::LogOptions,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster and its load in this process, and show what it does.
    Demo(demo::Demo),
    /// Make the files of a new cluster.
    Init(init::Init),
    /// Make the data directory of a replica that has never run.
    Format(format::Format),
    /// Run one replica.
    Run(run::Run),
    /// Run a whole cluster on this machine, and keep it for the next time.
    Up(up::Up),
    /// Call a running cluster's service.
    Client(client::ClientCommand),
    /// Show where each replica of a running cluster stands.
    Status(status::Status),
    /// Ask a replica's process on this host whether it is well.
    Health(health::Health),
    /// Measure a running cluster.
    Bench(bench::Bench),
    /// Show the figures of a demo or a bench, or compare two.
    Report(report::ReportCommand),
    /// Run seeded clusters in virtual time, under faults and lies.
    Sim(sim::Sim),
    /// Look at replicas' data directories: superblock, log, snapshots, integrity, differences.
    #[command(subcommand)]
    Inspect(inspect::Inspect),
    /// Look at configuration files.
    #[command(subcommand)]
    Config(check::ConfigCommand),
    /// Look whether this machine can run replicas well.
    Doctor(doctor::Doctor),
    /// Print what a shell needs to complete this command's arguments.
    Completions(assets::Completions),
    /// Write the manual pages.
    Man(assets::Man),
}

/// A share in percent.
fn parse_percent(text: &str) -> Result<f64, String> {
    parse_within(text, |value| (0.0..=100.0).contains(value), "from 0 to 100")
}

/// How many of what has to be there.
fn parse_count(text: &str) -> Result<usize, String> {
    parse_within(text, |count| *count > 0, "at least 1")
}

/// The skew of keys.
fn parse_skew(text: &str) -> Result<f64, String> {
    parse_within(text, |value| (0.0..1.0).contains(value), "from 0 to below 1")
}

/// How long something lasts, in seconds.
fn parse_seconds(text: &str) -> Result<f64, String> {
    parse_within(text, |value| (0.1..=1e7).contains(value), "from 0.1 to 10000000")
}

/// Operations per second.
fn parse_rate(text: &str) -> Result<f64, String> {
    parse_within(
        text,
        |value| (0.001..=1e9).contains(value),
        "from 0.001 to 1000000000",
    )
}

fn parse_within<T: FromStr>(text: &str, is_within: impl Fn(&T) -> bool, what: &str) -> Result<T, String> {
    let value = text.parse().ok().filter(|value| is_within(value));
    value.ok_or_else(|| format!("must be {what}"))
}

fn parse_auth(text: &str) -> Result<ClientAuth, String> {
    match text {
        "mac" => Ok(ClientAuth::Mac),
        "signature" => Ok(ClientAuth::Signature),
        _ => Err("must be mac or signature".to_owned()),
    }
}

/// Sees that a file for results can be written, before they are measured.
fn may_write(path: &Path) -> Result<(), String> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened
        .map(|_| ())
        .map_err(|error| format!("--json {}: cannot be written: {error}", path.display()))
}

/// Why a command failed, in one line with its causes.
type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    output::tell_panics();
    let code = std::panic::catch_unwind(run).unwrap_or(ExitCode::from(PANICKED));
    output::finish(code)
}

/// What a process ends with that panicked, as the standard library has it.
const PANICKED: u8 = 101;

fn run() -> ExitCode {
    let Arguments { command, logs } = Arguments::parse();
    crate::runtime::shard::descriptors::raise();
    crate::runtime::shard::memory::raise_locked();
    if let Err(code) = logs::start(logs) {
        return code;
    }
    let result = match command {
        Command::Demo(demo) => demo.run(),
        Command::Init(init) => init.run(),
        Command::Format(format) => format.run(),
        Command::Run(run) => run.run(),
        Command::Up(up) => up.run(),
        Command::Client(client) => client.run(),
        Command::Status(status) => status.run(),
        Command::Health(health) => health.run(),
        Command::Bench(bench) => bench.run(),
        Command::Report(report) => report.run(),
        Command::Sim(sim) => sim.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Config(config) => config.run(),
        Command::Doctor(doctor) => doctor.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(format_args!("atlas: {error}\n"));
            ExitCode::FAILURE
        }
    }
}
