//! What a replica keeps for others and gives to others, and how long it waits for what others give.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Broken, in_range};
use crate::smr::log_transfer::LogTransferTuning;
use crate::smr::replica::TransferLimits;
use crate::smr::state_transfer::monolithic::PieceTransferTuning;

/// What the decision log keeps in memory for peers that lag behind; what they lack beyond it is read from the
/// log, or a state transfer brings it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionLogConfig {
    /// How many decisions before a checkpoint that is stable and on disk.
    pub kept_decisions: usize,
    /// How many bytes of batches, decisions that are needed here aside.
    #[serde(deserialize_with = "super::units::bytes")]
    pub kept_bytes: usize,
}

impl Default for DecisionLogConfig {
    fn default() -> Self {
        Self {
            kept_decisions: 4096,
            kept_bytes: 64 << 20,
        }
    }
}

/// The transfer of decisions.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LogTransferConfig {
    /// How long a donor may owe batches before others are asked, in milliseconds.
    #[serde(deserialize_with = "super::units::milliseconds")]
    pub patience_ms: u64,
}

impl Default for LogTransferConfig {
    fn default() -> Self {
        Self {
            patience_ms: LogTransferTuning::default().patience.as_millis() as u64,
        }
    }
}

impl LogTransferConfig {
    /// The same, as the protocol takes it.
    #[must_use]
    pub fn tuning(&self) -> LogTransferTuning {
        LogTransferTuning {
            patience: Duration::from_millis(self.patience_ms),
        }
    }
}

/// The transfer of states, and what a replica sends for transfers at all.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct StateTransferConfig {
    /// How long a donor may say nothing before others are asked, in milliseconds.
    #[serde(deserialize_with = "super::units::milliseconds")]
    pub patience_ms: u64,
    /// How many bytes a second one peer is sent for its transfers of state and decisions.
    #[serde(deserialize_with = "super::units::bytes")]
    pub donor_bytes_per_second: u64,
    /// The same while this replica serves clients: what it gives must not cost them much.
    #[serde(deserialize_with = "super::units::bytes")]
    pub donor_bytes_per_second_serving: u64,
    /// How many of them at once, after a pause.
    #[serde(deserialize_with = "super::units::bytes")]
    pub donor_burst_bytes: u64,
    /// How many bytes of decisions may wait for a state before others are not listened to until it has come.
    #[serde(deserialize_with = "super::units::bytes")]
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

    /// What the orchestrator takes of it.
    #[must_use]
    pub fn limits(&self) -> TransferLimits {
        TransferLimits {
            donor_bytes_per_second: self.donor_bytes_per_second,
            donor_bytes_per_second_serving: self.donor_bytes_per_second_serving,
            donor_burst_bytes: self.donor_burst_bytes,
            waiting_bytes_max: self.waiting_bytes_max,
        }
    }

    pub(super) fn validate(&self) -> Result<(), Broken> {
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
        let answer = crate::smr::state_transfer::monolithic::ANSWER_BYTES as u64;
        in_range("donor_burst_bytes", self.donor_burst_bytes, 4 * answer..=1 << 40)?;
        in_range("waiting_bytes_max", self.waiting_bytes_max, 16 << 20..=1 << 40)
    }
}

impl DecisionLogConfig {
    pub(super) fn validate(&self) -> Result<(), Broken> {
        in_range("kept_decisions", self.kept_decisions, 0..=1 << 32)?;
        in_range("kept_bytes", self.kept_bytes, 1 << 20..=1 << 40)
    }
}

impl LogTransferConfig {
    pub(super) fn validate(&self) -> Result<(), Broken> {
        in_range("patience_ms", self.patience_ms, 50..=600_000)
    }
}
