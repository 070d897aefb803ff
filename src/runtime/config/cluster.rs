use serde::{Deserialize, Serialize};

use super::PartyKeys;
use super::error::{Validate, Whose};
use crate::runtime::net::handshake::Directory;
use crate::smr::crypto::{LinkPublic, VerifyingKey};
use crate::smr::execution::{CLIENT_WINDOW, CheckpointRule, FRAME_RESULT_BYTES_MAX, StateRule};
use crate::smr::membership::{
    Agreement, CLIENTS_MAX, ClientAuth, ClientRights, GENESIS_TEXT_BYTES_MAX, Genesis, Member,
    MembershipError, OPERATORS_MAX, RegisteredClient, is_host_and_port,
};
use crate::smr::messages::Lengths;
use crate::smr::preprocessing::CheckerLimits;
use crate::smr::protocol::{InvalidSetting, in_range};
use crate::smr::types::{
    ApplicationId, ClientId, ClusterId, Epoch, NodeId, PROTOCOL_VERSION, Peer, Quorum, REPLICAS_MAX,
};

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

/// One operator as everybody knows it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct OperatorEntry {
    /// Its number: operators are listed as 0, 1, 2, …
    pub id: u16,
    /// Its public signing key.
    pub signing_key: VerifyingKey,
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
    /// The membership's number: zero, as the file is the founding one.
    #[serde(default)]
    pub epoch: u64,
    /// The protocol version that the cluster begins with.
    #[serde(default = "first_protocol_version")]
    pub protocol_version: u16,
    /// How many operators have to sign a change of the cluster.
    #[serde(default)]
    pub operators_threshold: u16,
    /// What all replicas do alike.
    #[serde(default)]
    pub agreement: Agreement,
    /// The replicas, in order.
    pub replicas: Vec<ReplicaEntry>,
    /// The clients, in order.
    #[serde(default)]
    pub clients: Vec<ClientEntry>,
    /// Who may change the cluster, in order. If there are none it never changes.
    #[serde(default)]
    pub operators: Vec<OperatorEntry>,
}

/// The file format this version reads.
pub(super) const FORMAT: u32 = 1;

/// The protocol version of files that name none, as none did before there was another one: part of what they
/// mean, whatever later releases speak.
const FIRST_PROTOCOL_VERSION: u16 = 3;

fn first_protocol_version() -> u16 {
    FIRST_PROTOCOL_VERSION
}

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
            operators: Vec::new(),
            operators_threshold: 0,
            protocol_version: PROTOCOL_VERSION,
        }
    }

    /// What the cluster is born with, as this file says it. Addresses are not part of it; they may change.
    #[must_use]
    pub fn genesis(&self) -> Genesis {
        let members = self.replicas.iter().map(|replica| Member {
            id: NodeId::new(replica.id),
            signing_key: replica.signing_key,
            link_key: replica.link_key,
            addresses: Vec::new(),
        });
        let clients = self.clients.iter().map(|client| RegisteredClient {
            id: ClientId::new(client.id),
            signing_key: client.signing_key,
            link_key: client.link_key,
            rights: ClientRights::ALL,
            operations_per_second: None,
        });
        Genesis {
            name: self.name.clone(),
            random: self.genesis.clone(),
            members: members.collect(),
            clients: clients.collect(),
            operators: self
                .operators
                .iter()
                .map(|operator| operator.signing_key)
                .collect(),
            operators_threshold: self.operators_threshold,
            agreement: self.agreement.clone(),
            application: self.application,
            protocol_version: self.protocol_version,
        }
    }

    /// The cluster's identity: the digest of its [genesis](Self::genesis), which does not depend on how the
    /// file is written.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        self.genesis().cluster_id()
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

fn broken(key: &'static str, value: impl ToString, rule: &str) -> InvalidSetting {
    InvalidSetting {
        key,
        value: value.to_string(),
        rule: rule.to_owned(),
    }
}

/// What of a file is no cluster's genesis, by the key that says it.
fn setting_of(error: MembershipError) -> InvalidSetting {
    match error {
        MembershipError::KeyTwice {
            key, purpose, first, ..
        } => broken(purpose.name(), key, &format!("{first} has the same key")),
        MembershipError::BadKey { key, purpose, .. } => broken(
            purpose.name(),
            key,
            "must be a key that only its owner can use: let `atlas init` make one",
        ),
        MembershipError::OperatorTwice(key) => {
            broken("signing_key", key, "another operator has the same key")
        }
        MembershipError::Threshold {
            threshold,
            operators: 0,
        } => broken("operators_threshold", threshold, "there are no [[operators]]"),
        MembershipError::Threshold { threshold, operators } => broken(
            "operators_threshold",
            threshold,
            &format!("must be between 1 and {operators}, the number of [[operators]]"),
        ),
        MembershipError::GenesisText(what, bytes) => {
            let key = if what == "name" { "name" } else { "genesis" };
            let rule = format!("must have at most {GENESIS_TEXT_BYTES_MAX} bytes");
            broken(key, format!("({bytes} bytes)"), &rule)
        }
        MembershipError::Agreement(broken) => broken,
        other => broken("replicas", "(all)", &other.to_string()),
    }
}

impl ClusterConfig {
    fn check_replicas(&self) -> Result<(), InvalidSetting> {
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
            let same = |other: &&ReplicaEntry| other.address == replica.address;
            if let Some(other) = self.replicas[..index].iter().find(same) {
                let rule = format!("replica {} has the same address", other.id);
                return Err(broken("address", &replica.address, &rule));
            }
        }
        Ok(())
    }
}

impl Validate for ClusterConfig {
    const WHOSE: Whose = Whose::Cluster;

    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("format", self.format, FORMAT..=FORMAT)?;
        in_range(
            "protocol_version",
            self.protocol_version,
            FIRST_PROTOCOL_VERSION..=PROTOCOL_VERSION,
        )?;
        if self.epoch != 0 {
            let rule = "must be 0: this file is the founding membership, and stays as it is";
            return Err(broken("epoch", self.epoch, rule));
        }
        in_range("replicas", self.replicas.len(), 1..=REPLICAS_MAX)?;
        in_range("clients", self.clients.len(), 0..=CLIENTS_MAX)?;
        in_range("operators", self.operators.len(), 0..=OPERATORS_MAX)?;
        self.check_replicas()?;
        for (index, client) in self.clients.iter().enumerate() {
            if client.id as usize != index {
                return Err(broken("id", client.id, "clients are listed in order: 0, 1, 2, …"));
            }
        }
        for (index, operator) in self.operators.iter().enumerate() {
            if usize::from(operator.id) != index {
                let rule = "operators are listed in order: 0, 1, 2, …";
                return Err(broken("id", operator.id, rule));
            }
        }
        self.agreement.validate()?;
        self.genesis().membership().map(|_| ()).map_err(setting_of)
    }
}
