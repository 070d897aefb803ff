//! The `atlas` command: one file per subcommand.

#[macro_use]
mod output;

mod admin_endpoints;
mod admin_page;
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
mod top;
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

// What each command is for stands at its own type, whose first line is what `atlas help` lists, and the whole
// of it what `atlas COMMAND --help` shows: documentation here would hide it. `about` is for a shorter line.
#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Init(init::Init),
    Format(format::Format),
    Run(run::Run),
    Up(up::Up),
    Client(client::ClientCommand),
    Status(status::Status),
    Top(top::Top),
    Health(health::Health),
    Bench(bench::Bench),
    #[command(about = "Show the figures of a demo or a bench, or compare two")]
    Report(report::ReportCommand),
    Sim(sim::Sim),
    #[command(
        subcommand,
        about = "Look at replicas' data directories: superblock, log, snapshots, integrity, differences"
    )]
    Inspect(inspect::Inspect),
    #[command(subcommand)]
    Config(check::ConfigCommand),
    Doctor(doctor::Doctor),
    Completions(assets::Completions),
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
        Command::Top(top) => top.run(),
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

#[cfg(test)]
mod tests {
    use clap::{Args, CommandFactory};

    use super::*;

    type Augment = fn(clap::Command) -> clap::Command;

    /// Every command, and what its own type says of it.
    const OWN: &[(&str, Augment)] = &[
        ("demo", demo::Demo::augment_args),
        ("init", init::Init::augment_args),
        ("format", format::Format::augment_args),
        ("run", run::Run::augment_args),
        ("up", up::Up::augment_args),
        ("client", client::ClientCommand::augment_args),
        ("status", status::Status::augment_args),
        ("top", top::Top::augment_args),
        ("health", health::Health::augment_args),
        ("bench", bench::Bench::augment_args),
        ("report", report::ReportCommand::augment_args),
        ("sim", sim::Sim::augment_args),
        ("inspect", inspect::Inspect::augment_subcommands),
        ("inspect log", inspect::log::Log::augment_args),
        ("inspect diff", inspect::diff::Diff::augment_args),
        ("inspect flight", inspect::flight::Flight::augment_args),
        ("config", check::ConfigCommand::augment_subcommands),
        ("doctor", doctor::Doctor::augment_args),
        ("completions", assets::Completions::augment_args),
        ("man", assets::Man::augment_args),
    ];

    /// A command by the words that are typed.
    fn command(name: &str) -> clap::Command {
        name.split(' ').fold(Arguments::command(), |command, word| {
            let found = command.find_subcommand(word);
            found.unwrap_or_else(|| panic!("{name}: no {word}")).clone()
        })
    }

    #[test]
    fn long_help_is_all_that_a_command_has_to_say_and_the_list_has_one_line_of_it() {
        let mut with_more = 0;
        for (name, augment) in OWN {
            let (mut shown, own) = (command(name), augment(clap::Command::new("own")));
            let line = shown.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!line.is_empty() && !line.contains('\n'), "{name}: {line}");
            assert!(line.len() <= 90, "{name} has one line in the list: {line}");
            let Some(whole) = own.get_long_about().map(ToString::to_string) else {
                continue;
            };
            with_more += 1;
            let long = shown
                .get_long_about()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert_eq!(long, whole, "{name}: its line hides the rest");
            assert!(long.len() > line.len(), "{name}: {long}");
            let help = shown.render_long_help().to_string();
            let last = whole.lines().last().unwrap_or_default();
            // It may be wrapped.
            let end = last.split(' ').next_back().unwrap_or_default();
            assert!(help.contains(end), "{name}: {help}");
        }
        assert!(
            with_more >= 8,
            "commands have more to say than a line: {with_more}"
        );
    }

    #[test]
    fn every_command_is_in_the_table_of_this_test() {
        let commands = Arguments::command();
        for shown in commands.get_subcommands() {
            let name = shown.get_name();
            assert!(OWN.iter().any(|(own, _)| *own == name), "{name}");
        }
    }
}
