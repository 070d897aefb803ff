//! A data directory whose log is damaged, or that was lost, becomes one that a replica can go on with: without its promises.

use super::ReplicaError;
use crate::config::ReplicaConfig;
use crate::crypto::Digester;
use crate::messages::archived::{ArchivedSystemMessage, ArchivedViewTransferMessage};
use crate::messages::{Checked, SystemMessage};
use crate::protocol::Record;
use crate::replica::Forgotten;
use crate::storage::{
    AbstentionMark, DataDirectory, RecordReader, Remains, StorageError, replace_directory, set_log_aside,
};
use crate::types::View;

/// Whether the others can tell this replica enough for it to vote again one day.
fn can_abstain(config: &ReplicaConfig) -> bool {
    let quorum = config.node.cluster.quorum();
    quorum.n() > quorum.quorum()
}

/// Sets a damaged log aside and marks the directory, so that the replica abstains until it may vote again.
///
/// # Errors
/// `damage` itself, in a cluster that is too small; or when the disk cannot do it.
pub(super) fn repair_log(
    config: &ReplicaConfig,
    digester: &Digester,
    directory: &mut DataDirectory,
    damage: StorageError,
) -> Result<(), ReplicaError> {
    if !can_abstain(config) {
        return Err(damage.into());
    }
    let mark = AbstentionMark::of(directory.path());
    let told = last_view(config, digester, directory)?;
    let view = match (mark.is_set(), mark.view()) {
        (false, _) => told,
        (true, before) => before.zip(told).map(|(before, told)| before.max(told)),
    };
    mark.set(&damage.to_string(), view)?;
    let aside = set_log_aside(directory.path())?;
    // Nothing is missed from now on of what was set aside.
    directory.update(|superblock| (superblock.log_start, superblock.log_end) = (1, 0))?;
    tracing::error!(
        error = %damage,
        evidence = %aside.display(),
        "the log is damaged, and votes in it may be forgotten; the state comes from other replicas, and this replica abstains from votes \
         until what it may have promised does not matter any more"
    );
    Ok(())
}

/// What this replica may have forgotten, if its directory is marked.
pub(super) fn forgotten(config: &ReplicaConfig, directory: &DataDirectory) -> Option<Forgotten> {
    let mark = AbstentionMark::of(directory.path());
    mark.is_set().then(|| Forgotten {
        window: config.node.cluster.agreement.window,
        view: mark.view().map(View::new),
    })
}

/// The last view that the log, as far as it is left, says this replica may have asked for. What it logged of a view after the last
/// gap shows that all it asked for before the gap was no later: views only grow.
fn last_view(
    config: &ReplicaConfig,
    digester: &Digester,
    directory: &DataDirectory,
) -> Result<Option<u64>, StorageError> {
    let reader = RecordReader::new(digester.clone(), config.node.cluster.checker_limits());
    // Where a segment is missing, what it said is not known.
    let Ok(segments) = directory.segments() else {
        return Ok(None);
    };
    let remains = Remains::of(directory.superblock(), &segments)?;
    let mut last = None;
    remains.each(|raw| {
        let view = match reader.read(raw.bytes) {
            Ok(Record::Vote(vote)) => Some(vote.view()),
            Ok(Record::Proposal(proposal)) => Some(proposal.view),
            Ok(Record::View(view)) => Some(view),
            Ok(Record::NewView(message)) => new_view(&message),
            _ => None,
        };
        last = last.max(view.map(View::get));
    })?;
    Ok(last)
}

fn new_view(message: &bytes::Bytes) -> Option<View> {
    let message = Checked::<SystemMessage>::body_of(message).ok()?;
    match &*message {
        ArchivedSystemMessage::ViewTransferMessage(ArchivedViewTransferMessage::NewView(new_view)) => {
            Some(new_view.to_new_view().view())
        }
        _ => None,
    }
}

/// Makes a new data directory in the place of a lost one; what is left of that is kept beside it. True if there was need.
///
/// The replica that starts with it has forgotten everything it promised, and abstains until that does not matter any more.
///
/// # Errors
/// In a cluster too small for it, or when the disk cannot do it.
pub fn replace_lost_directory(config: &ReplicaConfig) -> Result<bool, ReplicaError> {
    let cluster = &config.node.cluster;
    match crate::storage::read_superblock(&config.db_path) {
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
