use serde::{Deserialize, Serialize};

use crate::smr::protocol::InvalidSetting;
use crate::smr::types::Epoch;

/// Which memberships a replica takes for its cluster's.
///
/// Whoever has the signing keys of a quorum of an ended epoch can sign another end of it, and a false cluster
/// from there on. A party that knows a later epoch is not deceived by them: see
/// [`membership`](crate::docs::membership).
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ReconfigurationConfig {
    /// The earliest epoch that this replica takes part in: a membership before it is refused.
    pub epoch_min: u64,
}

impl ReconfigurationConfig {
    /// Whether the membership that a replica has is one that it takes.
    ///
    /// # Errors
    /// When it is of an earlier epoch.
    pub(super) fn check(&self, known: Epoch) -> Result<(), InvalidSetting> {
        if known.get() >= self.epoch_min {
            return Ok(());
        }
        Err(InvalidSetting {
            key: "epoch_min",
            value: self.epoch_min.to_string(),
            rule: format!("the membership that this replica has is of epoch {known}, which is before that"),
        })
    }
}
