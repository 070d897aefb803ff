//! What a directory holds: nothing yet, a cluster, or something else.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::runtime::config::{AppKind, ClusterConfig, ReplicaConfig, load};
use crate::smr::types::NodeId;
use crate::tools::cli::CommandError;
use crate::tools::cli::init_staging::{ASIDE, CLUSTER_FILE};

/// Whether a cluster can be made in `dir` without touching what is somebody else's; false if it has one.
///
/// # Errors
/// When it has files, but no cluster's.
pub(super) fn is_vacant(dir: &Path) -> Result<bool, CommandError> {
    let entries = match fs::read_dir(dir) {
        // A link that leads nowhere is something.
        Err(error) if error.kind() == ErrorKind::NotFound && dir.symlink_metadata().is_err() => {
            return Ok(true);
        }
        entries => entries.map_err(at(dir))?,
    };
    if dir.join(CLUSTER_FILE).symlink_metadata().is_ok() {
        return Ok(false);
    }
    for entry in entries {
        let entry = entry.map_err(at(dir))?;
        // What an `init` leaves that was killed hinders no other.
        if !entry.file_name().to_string_lossy().starts_with(ASIDE) {
            return Err(format!(
                "{} exists, but {CLUSTER_FILE} does not: {} is no cluster's directory; name another one, or an empty one",
                entry.path().display(),
                dir.display()
            )
            .into());
        }
    }
    Ok(true)
}

/// A cluster all of whose replicas can run here, and no other `atlas up` meanwhile.
pub(super) struct ClusterFiles {
    pub cluster: ClusterConfig,
    pub app: AppKind,
    /// In order.
    pub replicas: Vec<ReplicaConfig>,
    dir: PathBuf,
    /// Held as long as the cluster runs.
    _lock: File,
}

impl ClusterFiles {
    /// Reads the files as the replicas will.
    pub fn open(dir: &Path) -> Result<Self, CommandError> {
        let lock = File::open(dir).map_err(at(dir))?;
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            return Err(format!("{}: another `atlas up` runs this cluster", dir.display()).into());
        }
        let cluster: ClusterConfig = load(&dir.join(CLUSTER_FILE))?;
        let mut this = Self {
            app: AppKind::of(cluster.application)?,
            replicas: Vec::new(),
            dir: dir.to_owned(),
            cluster,
            _lock: lock,
        };
        for node in NodeId::all(this.cluster.replicas.len()) {
            let file = this.replica_file(node);
            let config = ReplicaConfig::load(&file)?.replica_config;
            if config.node.id != node || config.node.cluster.cluster_id() != this.cluster.cluster_id() {
                return Err(format!(
                    "{}: this is not the file of {node} of the cluster in {}",
                    file.display(),
                    dir.display()
                )
                .into());
            }
            this.replicas.push(config);
        }
        Ok(this)
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A replica's own file.
    pub fn replica_file(&self, node: NodeId) -> PathBuf {
        self.dir.join(format!("{node}.toml"))
    }

    /// The first client's file that is here.
    pub fn client_file(&self) -> Option<PathBuf> {
        let mut clients = self.cluster.clients.iter();
        clients.find_map(|client| {
            let file = self.dir.join(format!("c{}.toml", client.id));
            file.exists().then_some(file)
        })
    }

    /// The highest port that a replica listens at, of those that can be told.
    pub fn last_port(&self) -> u16 {
        let addresses = self.cluster.replicas.iter();
        let ports = addresses.filter_map(|replica| replica.address.rsplit_once(':')?.1.parse().ok());
        ports.max().unwrap_or(0)
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}
