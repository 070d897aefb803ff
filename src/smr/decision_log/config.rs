use serde::{Deserialize, Serialize};

use super::ChainedLog;
use crate::smr::protocol::{InvalidSetting, Part, PartConfig, PartContext, in_range};

/// What the decision log keeps in memory for peers that lag behind; what they lack beyond it is read from the
/// log, or a state transfer brings it.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionLogConfig {
    /// How many decisions before a checkpoint that is stable and on disk.
    pub kept_decisions: usize,
    /// How many bytes of batches, decisions that are needed here aside.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
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

impl PartConfig for DecisionLogConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("kept_decisions", self.kept_decisions, 0..=1 << 32)?;
        in_range("kept_bytes", self.kept_bytes, 1 << 20..=1 << 40)
    }
}

impl Part for ChainedLog {
    type Config = DecisionLogConfig;

    fn make(config: &DecisionLogConfig, context: &PartContext) -> Self {
        Self::new(context.digester.clone())
            .keep_for_peers(config.kept_decisions)
            .keep_bytes(config.kept_bytes)
            .on_disk(context.has_log)
    }
}
