//! Clusters in one process, for the examples: what `atlas init` puts into files, made in memory.
#![allow(dead_code)]

use std::thread::JoinHandle;

use atlas_smr_replica::ReplicaHandle;
use atlas_smr_replica::config::{Agreement, ClientConfig, LoadedReplica, StateTransferConfig};
use atlas_smr_replica::server::ReplicaError;
use futures_lite::future::block_on;
use tempfile::TempDir;

#[path = "../shared/configs.rs"]
mod configs;

/// What four replicas and some clients are told. The replicas' directories go with it.
pub struct Local {
    /// As `ReplicaConfig::load("r0.toml")` gives it.
    pub replicas: Vec<LoadedReplica>,
    /// As `ClientConfig::load("c0.toml")` gives it.
    pub clients: Vec<ClientConfig>,
    _data: TempDir,
}

impl Local {
    pub fn new(application: &str, clients: u32) -> Self {
        let data = tempfile::tempdir().unwrap();
        let made = configs::configure_for(application, data.path(), Agreement::default(), clients);
        let replicas = made.0.into_iter().map(|replica_config| LoadedReplica {
            replica_config,
            st_config: StateTransferConfig::default(),
        });
        Self {
            replicas: replicas.collect(),
            clients: made.1,
            _data: data,
        }
    }
}

/// A replica that runs; dropped, it drains and ends.
pub struct Running {
    pub handle: ReplicaHandle,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Waits for the replica's end on a thread.
    pub fn new(
        handle: ReplicaHandle,
        end: impl Future<Output = Result<(), ReplicaError>> + Send + 'static,
    ) -> Self {
        let thread = std::thread::spawn(move || block_on(end).unwrap());
        Self {
            handle,
            thread: Some(thread),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shutdown();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|ended| ended.is_ok()));
    }
}
