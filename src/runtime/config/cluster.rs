use serde::{Deserialize, Serialize};

use super::PartyKeys;
use super::error::{Validate, Whose};
use super::limits::CHECKPOINT_PERIOD;
use crate::runtime::net::handshake::Directory;
use crate::smr::crypto::{LinkPublic, VerifyingKey};
use crate::smr::execution::{CLIENT_WINDOW, CheckpointRule, FRAME_RESULT_BYTES_MAX, StateRule};
use crate::smr::messages::Lengths;
use crate::smr::messages::lengths::{FRAME_LIMIT_MIN, WINDOW_MAX};
use crate::smr::preprocessing::{CheckerLimits, ClientAuth};
use crate::smr::protocol::{InvalidSetting, in_range};
use crate::smr::types::Peer;
use crate::smr::types::{ApplicationId, ClusterId, Epoch, Quorum, REPLICAS_MAX};

/// One replica as everybody knows it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ReplicaEntry {
    /// Its place: replicas are listed as 0, 1, 2, …
    pub id: u16,
    /// Where it listens, as `host:port`.
    pub address: String,
    /// Its public signing key.
    pub signing_key: VerifyingKey,
    /// Its public link key.
    pub link_key: LinkPublic,
}

/// One client as everybody knows it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClientEntry {
    /// Its number: clients are listed as 0, 1, 2, …
    pub id: u32,
    /// Its public signing key.
    pub signing_key: VerifyingKey,
    /// Its public link key.
    pub link_key: LinkPublic,
}

/// What all replicas must do alike.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Agreement {
    /// How clients prove their frames.
    pub client_auth: ClientAuth,
    /// Decisions between two checkpoints.
    pub checkpoint_decisions: u64,
    /// Bytes of batches between two checkpoints, if they come first. A frame counts as its operations and the
    /// longest proof of who sent it.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub checkpoint_bytes: u64,
    /// A state is part of a checkpoint once the log has grown by so many times its size since the last that
    /// was, or if `checkpoint_bytes` are so many times its size; the checkpoints between cover the decisions
    /// alone. What snapshots cost beside the log falls with it, and a restart has more to execute again.
    pub state_log_factor: u64,
    /// How much the log grows at most until a checkpoint includes the state, in bytes: a replica that
    /// restarts executes so much again.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub state_log_bytes_max: u64,
    /// Sequence numbers accepted after the stable checkpoint.
    pub window: u64,
    /// The most bytes of one client frame.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub frame_bytes_max: usize,
    /// The most operations of one client frame.
    pub frame_operations_max: usize,
    /// The most bytes of frames in one batch.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub batch_bytes_max: usize,
    /// The most frames in one batch.
    pub batch_frames_max: usize,
    /// How far the time of a fresh proposal may be from what a replica's own clock shows, in milliseconds:
    /// what is further from it, it does not vote for. Applications are told times that near.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub clock_bound_ms: u64,
    /// Whether reads may be answered beside the order. Linearizable ones need a quorum of equal answers, and
    /// so does every ordered operation then. Else replicas refuse them, and clients ask them in order.
    pub unordered: bool,
}

impl Default for Agreement {
    fn default() -> Self {
        Self {
            client_auth: ClientAuth::Signature,
            checkpoint_decisions: CHECKPOINT_PERIOD,
            checkpoint_bytes: 32 << 20,
            state_log_factor: 16,
            state_log_bytes_max: 4 << 30,
            window: 2 * CHECKPOINT_PERIOD,
            frame_bytes_max: 1 << 20,
            frame_operations_max: 4096,
            batch_bytes_max: 1 << 20,
            batch_frames_max: 4096,
            clock_bound_ms: 10_000,
            unordered: false,
        }
    }
}

impl Agreement {
    /// The form that the cluster's identity covers, for ever: the JSON of all fields in order. Written by
    /// hand, as it is the only JSON that a replica has to do with.
    pub(super) fn canonical(&self) -> String {
        // A field that is not named does not compile: whatever must be alike is part of the identity.
        let Self {
            client_auth,
            checkpoint_decisions,
            checkpoint_bytes,
            state_log_factor,
            state_log_bytes_max,
            window,
            frame_bytes_max,
            frame_operations_max,
            batch_bytes_max,
            batch_frames_max,
            clock_bound_ms,
            unordered,
        } = self;
        format!(
            "{{\"client_auth\":\"{client_auth}\",\
             \"checkpoint_decisions\":{checkpoint_decisions},\
             \"checkpoint_bytes\":{checkpoint_bytes},\
             \"state_log_factor\":{state_log_factor},\
             \"state_log_bytes_max\":{state_log_bytes_max},\
             \"window\":{window},\
             \"frame_bytes_max\":{frame_bytes_max},\
             \"frame_operations_max\":{frame_operations_max},\
             \"batch_bytes_max\":{batch_bytes_max},\
             \"batch_frames_max\":{batch_frames_max},\
             \"clock_bound_ms\":{clock_bound_ms},\
             \"unordered\":{unordered}}}"
        )
    }
}

/// A cluster: who is in it, and what they agree on. The same file everywhere.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The version of this file's format.
    pub format: u32,
    /// A name for people.
    pub name: String,
    /// Random, so that no two clusters are ever one.
    pub genesis: String,
    /// The application that the cluster serves: its name and version.
    pub application: ApplicationId,
    /// The membership's number.
    #[serde(default)]
    pub epoch: u64,
    /// What all replicas do alike.
    #[serde(default)]
    pub agreement: Agreement,
    /// The replicas, in order.
    pub replicas: Vec<ReplicaEntry>,
    /// The clients, in order.
    #[serde(default)]
    pub clients: Vec<ClientEntry>,
}

/// The most clients that a cluster may list.
pub(crate) const CLIENTS_MAX: usize = 1 << 20;

/// The file format this version reads.
pub(super) const FORMAT: u32 = 1;

impl ClusterConfig {
    /// A new cluster of these replicas, each with its address, and these clients.
    #[must_use]
    pub fn of<'a>(
        name: &str,
        application: ApplicationId,
        agreement: Agreement,
        replicas: impl IntoIterator<Item = (String, &'a PartyKeys)>,
        clients: impl IntoIterator<Item = &'a PartyKeys>,
    ) -> Self {
        let replicas = (0..).zip(replicas).map(|(id, (address, keys))| ReplicaEntry {
            id,
            address,
            signing_key: keys.signing.verifying_key(),
            link_key: keys.link.public(),
        });
        let clients = (0..).zip(clients).map(|(id, keys)| ClientEntry {
            id,
            signing_key: keys.signing.verifying_key(),
            link_key: keys.link.public(),
        });
        Self {
            format: FORMAT,
            name: name.to_owned(),
            genesis: hex::encode(rand::random::<[u8; 8]>()),
            application,
            epoch: 0,
            agreement,
            replicas: replicas.collect(),
            clients: clients.collect(),
        }
    }

    /// The cluster's identity: a digest over everything that must match, in a form that does not depend on
    /// how the file is written. Addresses are not part of it; they may change.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        let mut hasher = blake3::Hasher::new_derive_key("atlas-smr-replica 2026 genesis configuration");
        let mut text = |value: &str| {
            hasher.update(&(value.len() as u64).to_le_bytes());
            hasher.update(value.as_bytes());
        };
        text(&self.name);
        text(&self.genesis);
        text(self.application.name());
        text(&self.application.version().to_string());
        text(&self.agreement.canonical());
        hasher.update(&self.epoch.to_le_bytes());
        hasher.update(&(self.replicas.len() as u64).to_le_bytes());
        for replica in &self.replicas {
            hasher.update(replica.signing_key.as_bytes());
            hasher.update(replica.link_key.as_bytes());
        }
        for client in &self.clients {
            hasher.update(client.signing_key.as_bytes());
            hasher.update(client.link_key.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        ClusterId::from_bytes(id)
    }

    /// The membership's number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.epoch)
    }

    /// The cluster's arithmetic.
    ///
    /// # Panics
    /// Never for a loaded configuration: its size was checked.
    #[must_use]
    pub fn quorum(&self) -> Quorum {
        Quorum::of(self.replicas.len()).expect("a loaded configuration has a valid number of replicas")
    }

    /// The sizes preprocessing enforces.
    #[must_use]
    pub fn checker_limits(&self) -> CheckerLimits {
        CheckerLimits {
            frame_bytes_max: self.agreement.frame_bytes_max,
            frame_operations_max: self.agreement.frame_operations_max,
            batch_bytes_max: self.agreement.batch_bytes_max.max(self.agreement.frame_bytes_max),
            batch_frames_max: self.agreement.batch_frames_max,
            frame_macs: match self.agreement.client_auth {
                ClientAuth::Mac => self.replicas.len(),
                ClientAuth::Signature => 0,
            },
        }
    }

    /// How long messages and records are at most.
    #[must_use]
    pub fn lengths(&self) -> Lengths {
        let agreement = &self.agreement;
        Lengths {
            replicas: self.replicas.len(),
            window: agreement.window,
            frame_bytes_max: agreement.frame_bytes_max,
            frame_operations_max: agreement.frame_operations_max,
            frame_result_bytes_max: FRAME_RESULT_BYTES_MAX,
            batch_bytes_max: agreement.batch_bytes_max,
            batch_frames_max: agreement.batch_frames_max,
        }
    }

    /// When checkpoints are due.
    #[must_use]
    pub fn checkpoint_rule(&self) -> CheckpointRule {
        CheckpointRule {
            decisions: self.agreement.checkpoint_decisions,
            bytes: self.agreement.checkpoint_bytes,
            state: StateRule::of(
                self.agreement.checkpoint_bytes,
                self.agreement.state_log_factor,
                self.agreement.state_log_bytes_max,
            ),
        }
    }

    /// How many frames a client may have waiting in a pool.
    #[must_use]
    pub fn frames_per_client(&self) -> usize {
        CLIENT_WINDOW as usize
    }
}

impl Directory for ClusterConfig {
    fn link_key(&self, peer: Peer) -> Option<LinkPublic> {
        match peer {
            Peer::Replica(node) => self.replicas.get(node.index()).map(|replica| replica.link_key),
            Peer::Client(client) => self
                .clients
                .get(client.get() as usize)
                .map(|client| client.link_key),
        }
    }
}

/// Whether an address is `host:port`.
pub(super) fn is_host_and_port(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| {
        let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
        is_host && port.parse::<u16>().is_ok()
    })
}

fn broken(key: &'static str, value: impl ToString, rule: &str) -> InvalidSetting {
    InvalidSetting {
        key,
        value: value.to_string(),
        rule: rule.to_owned(),
    }
}

impl Validate for ClusterConfig {
    const WHOSE: Whose = Whose::Cluster;

    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("format", self.format, FORMAT..=FORMAT)?;
        in_range("replicas", self.replicas.len(), 1..=REPLICAS_MAX)?;
        in_range("clients", self.clients.len(), 0..=CLIENTS_MAX)?;
        for (index, replica) in self.replicas.iter().enumerate() {
            if usize::from(replica.id) != index {
                return Err(broken(
                    "id",
                    replica.id,
                    "replicas are listed in order: 0, 1, 2, …",
                ));
            }
            if !is_host_and_port(&replica.address) {
                return Err(broken("address", &replica.address, "must be host:port"));
            }
            let same = |other: &&ReplicaEntry| {
                other.address == replica.address
                    || other.signing_key == replica.signing_key
                    || other.link_key == replica.link_key
            };
            if let Some(other) = self.replicas[..index].iter().find(same) {
                let rule = format!("replica {} has the same address or key", other.id);
                return Err(broken("address", &replica.address, &rule));
            }
        }
        for (index, client) in self.clients.iter().enumerate() {
            if client.id as usize != index {
                return Err(broken("id", client.id, "clients are listed in order: 0, 1, 2, …"));
            }
        }
        let a = &self.agreement;
        in_range("checkpoint_decisions", a.checkpoint_decisions, 1..=WINDOW_MAX / 2)?;
        in_range("checkpoint_bytes", a.checkpoint_bytes, 1 << 16..=1 << 40)?;
        in_range("state_log_factor", a.state_log_factor, 1..=1000)?;
        in_range("state_log_bytes_max", a.state_log_bytes_max, 1 << 16..=1 << 42)?;
        // Two checkpoints fit the window: ordering goes on while one becomes stable. A view change speaks of
        // every place of it.
        in_range("window", a.window, (2 * a.checkpoint_decisions)..=WINDOW_MAX)?;
        in_range("frame_bytes_max", a.frame_bytes_max, FRAME_LIMIT_MIN..=1 << 26)?;
        in_range("frame_operations_max", a.frame_operations_max, 1..=1 << 20)?;
        in_range("batch_bytes_max", a.batch_bytes_max, 1024..=1 << 28)?;
        in_range("batch_frames_max", a.batch_frames_max, 1..=1 << 20)?;
        // Less than a second would have a slow disk or network replace leaders.
        in_range("clock_bound_ms", a.clock_bound_ms, 1000..=86_400_000)
    }
}
