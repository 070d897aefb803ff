//! The `atlas` command: one file per subcommand.

mod demo;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Byzantine fault tolerant state machine replication.
#[derive(Debug, Parser)]
#[command(name = "atlas", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster and its load in this process, and show what it does.
    Demo(demo::Demo),
}

/// Why a command failed, in one line with its causes.
type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ATLAS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let result = match Arguments::parse().command {
        Command::Demo(demo) => demo.run(),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("atlas: {error}");
            ExitCode::FAILURE
        }
    }
}
