use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::monolithic::{PieceTransfer, PieceTransferTuning};
use crate::smr::execution::MonolithicState;
use crate::smr::protocol::{InvalidSetting, Part, PartConfig, PartContext, in_range};

/// What a replica gives to others, and what it keeps while it waits for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// How many bytes a second a peer is sent for its transfers.
    pub donor_bytes_per_second: u64,
    /// The same while this replica serves clients.
    pub donor_bytes_per_second_serving: u64,
    /// How many of them at once, after a pause.
    pub donor_burst_bytes: u64,
    /// How many bytes of decisions may wait for a state before nothing more is listened to.
    pub waiting_bytes_max: usize,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            donor_bytes_per_second: 1 << 30,
            donor_bytes_per_second_serving: 32 << 20,
            donor_burst_bytes: 64 << 20,
            waiting_bytes_max: 1 << 30,
        }
    }
}

/// The configuration of a state transfer: it says as well what the replica sends to others.
pub trait StateTransferPartConfig: PartConfig {
    /// What the replica gives to others, whatever protocol asks for it.
    fn limits(&self) -> TransferLimits {
        TransferLimits::default()
    }
}

/// A state transfer with nothing to choose.
impl StateTransferPartConfig for () {}

/// The transfer of states, and what a replica sends for transfers at all.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct StateTransferConfig {
    /// How long a donor may say nothing before others are asked, in milliseconds.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub patience_ms: u64,
    /// How many bytes a second one peer is sent for its transfers of state and decisions.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub donor_bytes_per_second: u64,
    /// The same while this replica serves clients: what it gives must not cost them much.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub donor_bytes_per_second_serving: u64,
    /// How many of them at once, after a pause.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub donor_burst_bytes: u64,
    /// How many bytes of decisions may wait for a state before others are not listened to until it has come.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub waiting_bytes_max: usize,
}

impl Default for StateTransferConfig {
    fn default() -> Self {
        let (limits, tuning) = (TransferLimits::default(), PieceTransferTuning::default());
        Self {
            patience_ms: tuning.patience.as_millis() as u64,
            donor_bytes_per_second: limits.donor_bytes_per_second,
            donor_bytes_per_second_serving: limits.donor_bytes_per_second_serving,
            donor_burst_bytes: limits.donor_burst_bytes,
            waiting_bytes_max: limits.waiting_bytes_max,
        }
    }
}

impl StateTransferConfig {
    /// What the protocol takes of it.
    #[must_use]
    pub fn tuning(&self) -> PieceTransferTuning {
        PieceTransferTuning {
            patience: Duration::from_millis(self.patience_ms),
        }
    }
}

impl PartConfig for StateTransferConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("patience_ms", self.patience_ms, 50..=600_000)?;
        in_range(
            "donor_bytes_per_second",
            self.donor_bytes_per_second,
            1 << 20..=1 << 40,
        )?;
        in_range(
            "donor_bytes_per_second_serving",
            self.donor_bytes_per_second_serving,
            1 << 20..=self.donor_bytes_per_second,
        )?;
        // Less than an answer would never be sent.
        let answer = super::monolithic::ANSWER_BYTES as u64;
        in_range("donor_burst_bytes", self.donor_burst_bytes, 4 * answer..=1 << 40)?;
        in_range("waiting_bytes_max", self.waiting_bytes_max, 16 << 20..=1 << 40)
    }
}

impl StateTransferPartConfig for StateTransferConfig {
    fn limits(&self) -> TransferLimits {
        TransferLimits {
            donor_bytes_per_second: self.donor_bytes_per_second,
            donor_bytes_per_second_serving: self.donor_bytes_per_second_serving,
            donor_burst_bytes: self.donor_burst_bytes,
            waiting_bytes_max: self.waiting_bytes_max,
        }
    }
}

impl<S: MonolithicState> Part for PieceTransfer<S> {
    type Config = StateTransferConfig;

    fn make(config: &StateTransferConfig, context: &PartContext) -> Self {
        let (cluster, epoch) = (context.cluster, context.epoch);
        let n = context.quorum.n();
        Self::new(context.node, n, cluster, epoch, context.digester.clone()).tuned(config.tuning())
    }
}
