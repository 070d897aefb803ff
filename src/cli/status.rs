use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use crate::client::status;
use crate::config::ClientConfig;
use crate::types::{Digest, NodeId};

/// Show where each replica of a running cluster stands. Exit code 0: all answer; 1: a quorum does; 2: no quorum.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// A client's file, as `atlas init` makes it. No other process may use this client meanwhile.
    #[arg(long)]
    config: PathBuf,
    /// Also print every counter that is not zero.
    #[arg(long)]
    counters: bool,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let config = ClientConfig::load(&self.config)?;
        let quorum = config.cluster.quorum();
        println!(
            "{:<5} {:>5} {:>10} {:>10} {:>12} {:>9} {:>8}  checkpoint",
            "node", "view", "executed", "stable", "operations", "replicas", "clients"
        );
        let mut answered = 0;
        for node in NodeId::all(quorum.n()) {
            match status(&config, node) {
                Ok(s) => {
                    answered += 1;
                    println!(
                        "{:<5} {:>5} {:>10} {:>10} {:>12} {:>9} {:>8}  {} at {}",
                        node.to_string(),
                        s.view,
                        s.executed,
                        s.stable,
                        s.operations,
                        s.replica_links,
                        s.client_links,
                        Digest::from_bytes(s.checkpoint_digest).short(),
                        s.checkpoint
                    );
                    if self.counters {
                        s.counters
                            .lines()
                            .filter(|line| !line.ends_with(" 0"))
                            .for_each(|line| println!("      {line}"));
                    }
                }
                Err(reason) => println!("{:<5} ✗ {reason}", node.to_string()),
            }
        }
        let code = match answered {
            all if all == quorum.n() => 0,
            some if some >= quorum.quorum() => 1,
            _ => 2,
        };
        println!("{answered} of {} answer; {} needed", quorum.n(), quorum.quorum());
        Ok(ExitCode::from(code))
    }
}
