use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::RangedLogTransfer;
use crate::smr::protocol::{InvalidSetting, Part, PartConfig, PartContext, in_range};

/// What may be chosen freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTransferTuning {
    /// How long a donor may owe us batches.
    pub patience: Duration,
}

impl Default for LogTransferTuning {
    fn default() -> Self {
        Self {
            patience: Duration::from_millis(500),
        }
    }
}

/// The transfer of decisions.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LogTransferConfig {
    /// How long a donor may owe batches before others are asked, in milliseconds.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
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

impl PartConfig for LogTransferConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("patience_ms", self.patience_ms, 50..=600_000)
    }
}

impl Part for RangedLogTransfer {
    type Config = LogTransferConfig;

    fn make(config: &LogTransferConfig, context: &PartContext) -> Self {
        let PartContext {
            node,
            quorum,
            cluster,
            epoch,
            ..
        } = *context;
        Self::new(node, quorum, cluster, epoch).tuned(config.tuning())
    }
}
