use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use crate::runtime::config::ReplicaConfig;
use crate::runtime::storage::DataDirectory;

/// Make the data directory of a replica that has never run.
///
/// `atlas init` has done this for every replica of a new cluster. A replica whose directory was lost must not
/// get a new one under its old key: it might contradict what it said before.
#[derive(Debug, Args)]
pub(super) struct Format {
    /// The replica's file.
    #[arg(long)]
    config: PathBuf,
}

impl Format {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let config = ReplicaConfig::load(&self.config)?.replica_config;
        let cluster = &config.node.cluster;
        let (id, epoch) = (cluster.cluster_id(), cluster.epoch());
        DataDirectory::format(&config.db_path, id, config.node.id, epoch)?;
        println!("made {}", config.db_path.display());
        Ok(ExitCode::SUCCESS)
    }
}
