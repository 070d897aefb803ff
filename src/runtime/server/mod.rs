//! The doors: a replica as a value to bootstrap, run, look at and shut down.
//!
//! ```no_run
//! use atlas_smr_replica::config::ReplicaConfig;
//! use atlas_smr_replica::execution::apps::kv::Kv;
//! use atlas_smr_replica::MonReplica;
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let loaded = ReplicaConfig::load("cluster/r0.toml".as_ref())?;
//! let replica = MonReplica::bootstrap(loaded.serving(Kv)).await?;
//! let handle = replica.handle(); // to shut down, and to look at
//! # let _ = handle;
//! replica.run().await?;
//! # Ok(())
//! # }
//! ```

mod assembly;
pub(crate) mod descriptors;
pub mod divisible_state_server;
mod handle;
mod host;
mod listen;
pub mod monolithic_server;
mod recovery;
mod repair;
mod roles;
mod storage_workers;
mod supervisor;
mod watched;
mod wiring;

pub use handle::{ReplicaHandle, own_cpu_time, thread_cpu_time};
pub use host::{DefaultHost, Host};
pub use repair::replace_lost_directory;
pub use supervisor::Supervisor;

use std::io;

use crate::runtime::admin::AdminError;
use crate::runtime::config::{ClusterConfig, ExecutorKind, InvalidSetting, TopologyError};
use crate::runtime::shard::ShardError;
use crate::runtime::shard::control::ControlError;
use crate::runtime::shard::descriptors::TooFew;
use crate::runtime::storage::StorageError;
use crate::smr::execution::{Application, application_id};
use crate::smr::preprocessing::ClientAuth;
use crate::smr::types::{ApplicationId, ApplicationNameError, SeqNo};

/// Whether the program's application is the cluster's.
fn check_application<A: Application>(application: &A, cluster: &ClusterConfig) -> Result<(), ReplicaError> {
    let (program, cluster) = (application_id(application)?, cluster.application);
    match program == cluster {
        true => Ok(()),
        false => Err(ReplicaError::Application { program, cluster }),
    }
}

/// What else helps against too few descriptors.
fn lower(connections_max: u16, lack: TooFew) -> String {
    match u64::from(connections_max).checked_sub(lack.needed - lack.limit) {
        Some(enough @ 8..) => format!(", or set connections_max = {enough} under [limits]"),
        _ => String::new(),
    }
}

/// Why a replica does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The admin endpoint cannot be had.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A setting is not what its part works with.
    #[error("configuration: {0}")]
    Setting(#[from] InvalidSetting),
    /// The configuration asks for another way of executing than the program has.
    #[error(
        "the configuration says executor = \"{configured}\", and this program executes {built}: start it with the one, or build it with the other"
    )]
    Executor {
        /// What the configuration says.
        configured: ExecutorKind,
        /// What the program was built with.
        built: ExecutorKind,
    },
    /// The files end elsewhere than whoever starts the replica expects.
    #[error("next_consensus_seq = {}: on disk the next one is {}", expected.get(), found.get())]
    NextSeq {
        /// What the configuration says.
        expected: SeqNo,
        /// What was found.
        found: SeqNo,
    },
    /// The topology does not fit this machine.
    #[error("topology: {0}")]
    Topology(#[from] TopologyError),
    /// A client's link key makes no MAC key.
    #[error("client {client}: its link key is of small order, and client_auth is {auth}")]
    ClientKey {
        /// The client.
        client: u32,
        /// How clients prove their frames.
        auth: ClientAuth,
    },
    /// The process may not have as many descriptors as the configuration lets it need.
    #[error(
        "limits.connections_max = {connections_max}: {source}; raise the limit (`ulimit -n {}`, or `LimitNOFILE={}` in the unit){}",
        source.needed, source.needed, lower(*connections_max, *source)
    )]
    Descriptors {
        /// What the configuration says.
        connections_max: u16,
        /// What is needed, and what there is.
        source: TooFew,
    },
    /// The process is out of descriptors.
    #[error("cannot make a doorbell: {0}")]
    Doorbell(#[source] io::Error),
    /// The program has another application than the cluster.
    #[error("the program serves {program}, the cluster {cluster}, according to cluster.toml")]
    Application {
        /// What the program has.
        program: ApplicationId,
        /// What the cluster's genesis names.
        cluster: ApplicationId,
    },
    /// The program's application has a name that none can have.
    #[error(transparent)]
    ApplicationName(#[from] ApplicationNameError),
    /// The data directory cannot be used.
    #[error("data directory {0}")]
    Storage(#[from] StorageError),
    /// The thread that keeps snapshots and segments cannot be made.
    #[error("cannot start the thread that keeps snapshots and segments: {0}")]
    StorageWorker(#[source] io::Error),
    /// The control shard does not start, or panicked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A data shard does not start, or failed.
    #[error(transparent)]
    Shard(#[from] ShardError),
}

#[cfg(test)]
mod tests;
