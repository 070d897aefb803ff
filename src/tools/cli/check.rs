use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;

use super::CommandError;
use crate::runtime::config::{ClientConfig, ClusterConfig, Durability, ReplicaConfig, Topology, load};
use crate::runtime::shard::cores::Cores;
use crate::runtime::storage::DataDirectory;

/// Look at configuration files.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Check a cluster's, a replica's or a client's file, and those it names.
    Check {
        /// The file.
        file: PathBuf,
        /// Print what was found as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// What a start would refuse, as far as this machine shows it.
fn would_run(config: &ReplicaConfig) -> Result<(), CommandError> {
    let threads = config.preprocessor_threads;
    Topology::of_replica(&config.topology, &Cores::of_process(), threads, config.node.id)
        .map_err(|error| format!("topology: {error}"))?;
    if config.durability != Durability::None {
        let cluster = config.node.cluster.cluster_id();
        let path = &config.db_path;
        let checked = DataDirectory::expect_writable(path).and_then(|()| match path.exists() {
            true => DataDirectory::expect_of(path, cluster, config.node.id),
            // Files are checked before a directory is made as well.
            false => Ok(()),
        });
        checked.map_err(|error| format!("data directory {error}"))?;
    }
    Ok(())
}

/// What a start would say of a data directory that is not there, though it can be made.
fn missing(config: &ReplicaConfig) -> Option<String> {
    let is_missing = config.durability != Durability::None && !config.db_path.exists();
    let cluster = config.node.cluster.cluster_id();
    let refused = DataDirectory::expect_of(&config.db_path, cluster, config.node.id).err();
    refused.filter(|_| is_missing).map(|refused| refused.to_string())
}

impl ConfigCommand {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let Self::Check { file, json } = self;
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let sets = |key: &str| {
            text.lines().any(|line| {
                line.strip_prefix(key)
                    .is_some_and(|rest| rest.trim_start().starts_with('='))
            })
        };
        // A file is taken for what its first keys make it.
        if sets("node") {
            check_replica(file, *json)?;
        } else if sets("client") {
            check_client(file, *json)?;
        } else {
            check_cluster(file, *json)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show(found: &serde_json::Value) -> Result<(), CommandError> {
    println!("{}", serde_json::to_string_pretty(found)?);
    Ok(())
}

/// What a replica's file says.
fn check_replica(file: &Path, json: bool) -> Result<(), CommandError> {
    let loaded = ReplicaConfig::load(file)?;
    let config = loaded.replica_config;
    would_run(&config)?;
    let cluster = &config.node.cluster;
    if json {
        return show(&serde_json::json!({
            "kind": "replica",
            "node": config.node.id.to_string(),
            "cluster": cluster.name,
            "cluster_id": cluster.cluster_id().to_string(),
            "application": cluster.application.to_string(),
            "listen": config.node.listen,
            "db_path": config.db_path,
            "durability": config.durability.to_string(),
            "admin": config.admin.listen,
            "data_missing": missing(&config),
        }));
    }
    println!(
        "✔ replica {} of cluster {} ({})",
        config.node.id,
        cluster.name,
        cluster.cluster_id()
    );
    println!(
        "  serves {}, listens at {}, data in {}",
        cluster.application,
        config.node.listen,
        config.db_path.display()
    );
    if let Some(admin) = &config.admin.listen {
        println!("  admin endpoint at http://{admin}");
    }
    if let Some(missing) = missing(&config) {
        println!("  ! data directory {missing}");
    }
    Ok(())
}

/// What a client's file says.
fn check_client(file: &Path, json: bool) -> Result<(), CommandError> {
    let config = ClientConfig::load(file)?;
    if json {
        return show(&serde_json::json!({
            "kind": "client",
            "client": config.client.to_string(),
            "cluster": config.cluster.name,
            "cluster_id": config.cluster.cluster_id().to_string(),
            "application": config.cluster.application.to_string(),
        }));
    }
    println!(
        "✔ client {} of cluster {} ({}), which serves {}",
        config.client,
        config.cluster.name,
        config.cluster.cluster_id(),
        config.cluster.application
    );
    Ok(())
}

/// What a cluster's file says.
fn check_cluster(file: &Path, json: bool) -> Result<(), CommandError> {
    let cluster: ClusterConfig = load(file)?;
    let (quorum, lengths) = (cluster.quorum(), cluster.lengths());
    if json {
        return show(&serde_json::json!({
            "kind": "cluster",
            "cluster": cluster.name,
            "cluster_id": cluster.cluster_id().to_string(),
            "application": cluster.application.to_string(),
            "replicas": quorum.n(),
            "faults_tolerable": quorum.f(),
            "clients": cluster.clients.len(),
            "operators": cluster.operators.len(),
            "operators_threshold": cluster.operators_threshold,
            "client_auth": cluster.agreement.client_auth.to_string(),
            "replica_message_bytes_max": lengths.replica_message(),
            "view_change_bytes_max": lengths.view_change(),
            "reply_bytes_max": lengths.reply(),
            "segment_bytes_min": lengths.segment_bytes_min(),
        }));
    }
    println!(
        "✔ cluster {} ({}) serves {}",
        cluster.name,
        cluster.cluster_id(),
        cluster.application
    );
    println!(
        "  {} replicas tolerate {} faulty; {} clients, auth {}",
        quorum.n(),
        quorum.f(),
        cluster.clients.len(),
        cluster.agreement.client_auth
    );
    println!(
        "  messages between replicas have at most {} KiB, a view change {} KiB, an answer to a client {} KiB; segments of the log at least {} MiB",
        lengths.replica_message().div_ceil(1 << 10),
        lengths.view_change().div_ceil(1 << 10),
        lengths.reply().div_ceil(1 << 10),
        lengths.segment_bytes_min() >> 20
    );
    match cluster.operators.len() {
        0 => println!("  ! there are no operators: nothing about this cluster can ever be changed"),
        all => println!(
            "  {} of {all} operators have to sign a change",
            cluster.operators_threshold
        ),
    }
    if quorum.f() == 0 {
        println!("  ! fewer than four replicas tolerate no fault: for development only");
    }
    Ok(())
}
