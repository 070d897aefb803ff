use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::runtime::evidence::EvidenceRow;
use crate::smr::messages::AdminReply;
use crate::smr::types::{ClusterId, Digest, NodeId, Quorum};

/// What one replica says of itself, as `atlas status --json` and the admin endpoint show it. What a replica
/// of another version does not say is zero or nothing when it is read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReplicaRow {
    /// The replica.
    pub node: String,
    /// Its cluster's identity, as far as that is known.
    pub cluster: String,
    /// How many replicas that has; 0 while that is not known.
    pub replicas: usize,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// What it does, in words.
    pub phase: String,
    /// Operations it executed since its start.
    pub operations: u64,
    /// Links with other replicas that are up.
    pub replica_links: u64,
    /// Links with clients that are up.
    pub client_links: u64,
    /// Whether it is in a view, not between two.
    pub orders: bool,
    /// Whether decisions or a state come from others.
    pub transfers: bool,
    /// Whether it votes for nothing, because it may have forgotten what it promised.
    pub abstains: bool,
    /// Whether nothing is logged, hence nothing voted, because the disk or the log's budget is full.
    pub waits_for_space: bool,
    /// Its last checkpoint: taken, read back at its start, or come from others; 0 if there is none.
    pub checkpoint: u64,
    /// The beginning of its digest.
    pub checkpoint_digest: Option<String>,
    /// The last ones of one state, in order and without gaps.
    pub checkpoints: Vec<CheckpointRow>,
    /// How far the state is that comes from other replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferRow>,
    /// Its counters.
    pub counters: BTreeMap<String, u64>,
    /// What was refused of each of its peers; the first rows, replicas' before clients'.
    pub evidence: Vec<EvidenceRow>,
}

/// A checkpoint of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRow {
    /// The last decision it includes.
    pub seq: u64,
    /// Its digest, in hexadecimal.
    pub digest: String,
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
        let short = |digest: [u8; 32]| Digest::from_bytes(digest).short();
        let rows = answer.checkpoints.iter().map(|told| CheckpointRow {
            seq: told.seq,
            digest: hex::encode(told.digest),
        });
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
            checkpoint_digest: checkpoint.map(|last| short(last.digest)),
            checkpoints: rows.collect(),
            orders: answer.orders,
            transfers: answer.transfers,
            abstains: answer.abstains,
            waits_for_space: answer.waits_for_space,
            transfer: TransferRow::of(answer),
            counters: read_counters(&answer.counters),
            evidence: answer.counters.lines().filter_map(EvidenceRow::of_line).collect(),
            ..Self::unanswered(NodeId::new(answer.node).to_string(), None)
        }
    }

    /// The same, of a replica of this cluster.
    #[must_use]
    pub fn in_cluster(self, cluster: ClusterId, quorum: Quorum) -> Self {
        Self {
            cluster: cluster.to_string(),
            replicas: quorum.n(),
            ..self
        }
    }

    /// All zero: the replica of this name did not answer, for this reason.
    #[must_use]
    pub fn unanswered(node: String, error: Option<String>) -> Self {
        Self {
            node,
            cluster: String::new(),
            replicas: 0,
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
            orders: false,
            transfers: false,
            abstains: false,
            waits_for_space: false,
            checkpoint: 0,
            checkpoint_digest: None,
            checkpoints: Vec::new(),
            transfer: None,
            counters: BTreeMap::new(),
            evidence: Vec::new(),
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

/// Counters as they come: a name and a value on each line. Lines whose values are no numbers are others'.
fn read_counters(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}
