//! A data directory that was lost becomes one that a replica can go on with: without its promises.

use super::ReplicaError;
use super::host::Host;
use crate::runtime::config::{PartConfigs, ReplicaConfig};
use crate::runtime::storage::{StorageError, replace_directory};

/// Whether the others can tell this replica enough for it to vote again one day.
pub(super) fn can_abstain<P: PartConfigs, H: Host>(config: &ReplicaConfig<P, H>) -> bool {
    let quorum = config.node.cluster.quorum();
    quorum.n() > quorum.quorum()
}

/// Makes a new data directory in the place of a lost one; what is left of that is kept beside it. True if
/// there was need.
///
/// The replica that starts with it has forgotten everything it promised, and abstains until that does not
/// matter any more.
///
/// # Errors
/// In a cluster too small for it, or when the disk cannot do it.
pub fn replace_lost_directory<P: PartConfigs, H: Host>(
    config: &ReplicaConfig<P, H>,
) -> Result<bool, ReplicaError> {
    let cluster = &config.node.cluster;
    match crate::runtime::storage::read_superblock(&config.db_path) {
        Ok(_) | Err(StorageError::Foreign { .. }) => return Ok(false),
        Err(error) if !can_abstain(config) => return Err(error.into()),
        Err(_) => {}
    }
    let identity = (cluster.cluster_id(), config.node.id, cluster.epoch());
    let aside = replace_directory(&config.db_path, identity)?;
    tracing::error!(
        directory = %config.db_path.display(),
        evidence = aside.map(|path| path.display().to_string()),
        "the data directory was lost, and a new one was made: this replica abstains from votes until what it may have promised does not \
         matter any more"
    );
    Ok(true)
}
