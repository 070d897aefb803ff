//! What packages carry beside the binary: completions and manual pages.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, CommandError};

/// Print what a shell needs to complete this command's arguments.
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "atlas", &mut script);
        print!("{}", String::from_utf8_lossy(&script));
        Ok(ExitCode::SUCCESS)
    }
}

/// Write the manual pages: one for the command, one for each subcommand.
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Where they go; made if it is not there.
    #[arg(long)]
    out: PathBuf,
}

impl Man {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.out.display());
        std::fs::create_dir_all(&self.out).map_err(failed)?;
        clap_mangen::generate_to(Arguments::command(), &self.out).map_err(failed)?;
        println!("wrote the manual pages to {}", self.out.display());
        Ok(ExitCode::SUCCESS)
    }
}
