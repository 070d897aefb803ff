use serde::{Deserialize, Serialize};

use super::Pbft;
use crate::smr::protocol::{InvalidSetting, Part, PartConfig, PartContext, in_range};

/// What the ordering protocol may decide for itself at one replica.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct OrderingConfig {
    /// How many proposals this replica has undecided at once while it leads.
    pub pipeline: usize,
}

impl Default for OrderingConfig {
    fn default() -> Self {
        Self { pipeline: 8 }
    }
}

impl PartConfig for OrderingConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("pipeline", self.pipeline, 1..=1024)
    }
}

impl Part for Pbft {
    type Config = OrderingConfig;

    fn make(config: &OrderingConfig, context: &PartContext) -> Self {
        Self::new(config.clone(), context.clone())
    }
}

/// The usual limit on one leader's undecided bytes for batches of at most so many: some dozens of the usual
/// ones, a few of very long ones. A leader that proposes for all places but the next fills no more of the log
/// and of memory; see [`PartContext::undecided_bytes_max`].
#[must_use]
pub const fn undecided_bytes_max(batch_bytes_max: usize) -> usize {
    let few = 4 * (batch_bytes_max + UNDECIDED_BYTES);
    if few > UNDECIDED_BYTES_MAX {
        few
    } else {
        UNDECIDED_BYTES_MAX
    }
}

/// See [`undecided_bytes_max`].
const UNDECIDED_BYTES_MAX: usize = 64 << 20;

/// What an undecided proposal counts as beside its message: a group of the log of its own.
pub(super) const UNDECIDED_BYTES: usize = 4096;
