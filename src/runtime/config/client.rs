use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, Validate, Whose, load};
use super::{ClusterConfig, PartyKeys};
use crate::smr::execution::CLIENT_WINDOW;
use crate::smr::ordering::OrderingProtocol;
use crate::smr::ordering::pbft::Pbft;
use crate::smr::protocol::{InvalidSetting, LeaderRule, in_range};
use crate::smr::types::ClientId;

/// What a read beside the order promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "tools", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum ReadLevel {
    /// It sees every write that ended before it began. Asked in order where the cluster does not enable
    /// unordered reads.
    #[default]
    Linearizable,
    /// f+1 replicas agree on it, so a correct one vouches for it; it may be old. Asked in order where the
    /// cluster does not enable unordered reads.
    Relaxed,
}

/// How a client behaves; every value has a default.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTuning {
    /// How long to wait for f+1 equal replies before asking everybody, in milliseconds; doubles up to a cap.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub retransmit_timeout_ms: u64,
    /// How long a call may take as a whole, in milliseconds.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub deadline_ms: u64,
    /// The most operations gathered into one frame.
    pub frame_operations_max: usize,
    /// The most frames under way at once.
    pub frames_in_flight_max: usize,
    /// The most operations under way or waiting; more calls are refused until some are answered.
    pub operations_max: usize,
    /// What reads promise.
    pub reads: ReadLevel,
}

impl Default for ClientTuning {
    fn default() -> Self {
        Self {
            retransmit_timeout_ms: 500,
            deadline_ms: 10_000,
            frame_operations_max: 512,
            frames_in_flight_max: 32,
            operations_max: 1 << 17,
            reads: ReadLevel::default(),
        }
    }
}

/// A client's own file.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// Its number in the cluster's file.
    pub client: u32,
    /// The cluster's file, relative to this one.
    pub cluster: PathBuf,
    /// The key file, relative to this one.
    pub keys: PathBuf,
    /// How it behaves.
    #[serde(default)]
    pub tuning: ClientTuning,
}

/// Everything a client needs.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The cluster.
    pub cluster: Arc<ClusterConfig>,
    /// The client.
    pub client: ClientId,
    /// Its secrets.
    pub keys: PartyKeys,
    /// How it behaves.
    pub tuning: ClientTuning,
    /// Who leads a view, by the ordering protocol of the cluster's replicas: [`load`](Self::load) takes that of
    /// the production stacks.
    pub leaders: LeaderRule,
}

impl ClientConfig {
    /// A client of replicas that one of the production stacks runs at, tuned as usual.
    #[must_use]
    pub fn new(cluster: Arc<ClusterConfig>, client: ClientId, keys: PartyKeys) -> Self {
        Self {
            cluster,
            client,
            keys,
            tuning: ClientTuning::default(),
            leaders: Pbft::leader_of,
        }
    }

    /// Reads a client's file and those it names.
    ///
    /// # Errors
    /// Naming the file and line at fault.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file: ClientFile = load(path)?;
        let beside = |name: &Path| path.parent().unwrap_or(Path::new("")).join(name);
        let cluster_path = beside(&file.cluster);
        let cluster: ClusterConfig = load(&cluster_path)?;
        let key_path = beside(&file.keys);
        let keys = PartyKeys::load(&key_path)?;
        let owner = format!("client {}", file.client);
        let Some(entry) = cluster.clients.get(file.client as usize) else {
            return Err(ConfigError::NotListed {
                path: path.to_owned(),
                cluster: cluster_path,
                owner,
                listed: cluster.clients.len(),
            });
        };
        if entry.signing_key != keys.signing.verifying_key() || entry.link_key != keys.link.public() {
            return Err(ConfigError::KeyMismatch {
                path: key_path,
                cluster: cluster_path,
                owner,
            });
        }
        let client = ClientId::new(file.client);
        Ok(Self {
            tuning: file.tuning,
            ..Self::new(Arc::new(cluster), client, keys)
        })
    }
}

impl Validate for ClientFile {
    const WHOSE: Whose = Whose::Client;

    fn validate(&self) -> Result<(), InvalidSetting> {
        let t = &self.tuning;
        in_range("retransmit_timeout_ms", t.retransmit_timeout_ms, 1..=600_000)?;
        in_range("deadline_ms", t.deadline_ms, 1..=3_600_000)?;
        in_range("frame_operations_max", t.frame_operations_max, 1..=1 << 20)?;
        in_range(
            "frames_in_flight_max",
            t.frames_in_flight_max,
            1..=CLIENT_WINDOW as usize,
        )?;
        in_range("operations_max", t.operations_max, 1..=1 << 24)
    }
}
