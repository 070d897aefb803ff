use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::smr::messages::AdminReply;
use crate::smr::types::{Digest, NodeId};

/// What one replica says of itself, as `atlas status --json` and the admin endpoint show it. What a replica
/// of another version does not say is zero or nothing when it is read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicaRow {
    /// The replica.
    pub node: String,
    /// Why it did not answer.
    pub error: Option<String>,
    /// Its view.
    pub view: u64,
    /// The last decision it ordered.
    pub ordered: u64,
    /// The last decision up to which all that it promised is on disk.
    pub durable: u64,
    /// The last decision it executed.
    pub executed: u64,
    /// Its last stable checkpoint.
    pub stable: u64,
    /// How many decisions it executed less than the replica that executed most, where others were asked too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// What it does, in words.
    pub phase: String,
    /// Operations it executed.
    pub operations: u64,
    /// Links with other replicas that are up.
    pub replica_links: u64,
    /// Links with clients that are up.
    pub client_links: u64,
    /// The last checkpoint it took; 0 if it took none since its start.
    pub checkpoint: u64,
    /// The beginning of its digest.
    pub checkpoint_digest: String,
    /// How far the state is that comes from other replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferRow>,
    /// Its counters.
    pub counters: BTreeMap<String, u64>,
}

/// A state on its way to a replica.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TransferRow {
    /// Pieces that are here.
    pub pieces: u64,
    /// Pieces there are.
    pub pieces_of: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Replicas that send them.
    pub donors: u64,
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// `None` while that is not known.
    pub seconds_left: Option<f64>,
}

impl ReplicaRow {
    /// What it answered.
    #[must_use]
    pub fn of(answer: &AdminReply) -> Self {
        let checkpoint = answer.checkpoints.last();
        let digest = checkpoint.map_or(Digest::ZERO, |last| Digest::from_bytes(last.digest));
        Self {
            view: answer.view,
            ordered: answer.ordered,
            durable: answer.durable,
            executed: answer.executed,
            stable: answer.stable,
            phase: answer.phase.clone(),
            operations: answer.operations,
            replica_links: answer.replica_links,
            client_links: answer.client_links,
            checkpoint: checkpoint.map_or(0, |last| last.seq),
            checkpoint_digest: digest.short().to_string(),
            transfer: TransferRow::of(answer),
            counters: read_counters(&answer.counters),
            ..Self::unanswered(NodeId::new(answer.node), None)
        }
    }

    /// All zero: it did not answer, for this reason.
    #[must_use]
    pub fn unanswered(node: NodeId, error: Option<String>) -> Self {
        Self {
            node: node.to_string(),
            error,
            view: 0,
            ordered: 0,
            durable: 0,
            executed: 0,
            stable: 0,
            lag: None,
            phase: String::new(),
            operations: 0,
            replica_links: 0,
            client_links: 0,
            checkpoint: 0,
            checkpoint_digest: Digest::ZERO.short().to_string(),
            transfer: None,
            counters: BTreeMap::new(),
        }
    }
}

impl TransferRow {
    fn of(answer: &AdminReply) -> Option<Self> {
        let left = answer.transfer_milliseconds_left;
        (answer.transfer_pieces_of > 0).then(|| Self {
            pieces: answer.transfer_pieces,
            pieces_of: answer.transfer_pieces_of,
            bytes: answer.transfer_bytes,
            donors: answer.transfer_donors,
            bytes_per_second: answer.transfer_bytes_per_second,
            seconds_left: (left > 0).then_some(left as f64 / 1e3),
        })
    }
}

/// Counters as they come: a name and a value on each line.
fn read_counters(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}
