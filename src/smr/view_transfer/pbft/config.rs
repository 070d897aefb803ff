use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PbftViewChange;
use crate::smr::protocol::{InvalidSetting, Part, PartConfig, PartContext, in_range};

/// How long the view change waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewTimings {
    /// How long requests may wait without any execution before the leader is suspected, and how long a view
    /// may take to begin.
    pub timeout: Duration,
    /// The cap of that, when view changes fail one after the other.
    pub timeout_max: Duration,
    /// The time between two statuses; at least 100 ms, the pause between two answers to one peer.
    pub status_period: Duration,
    /// The time between two reviews of the leader.
    pub review_period: Duration,
    /// How long one request may wait in a view while others are executed; two review periods and a half at
    /// least, whatever it says.
    pub fairness: Duration,
}

impl Default for ViewTimings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_millis(1000),
            timeout_max: Duration::from_secs(30),
            status_period: Duration::from_millis(250),
            review_period: Duration::from_millis(1000),
            fairness: Duration::from_secs(8),
        }
    }
}

/// How long a replica waits before it asks for another leader, and how often it tells where it stands.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ViewTransferConfig {
    /// How long requests may wait without any execution before the leader is suspected, and how long a view
    /// may take to begin, in milliseconds: at least. What proves necessary is learnt.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub timeout_ms: u64,
    /// The cap of that, when views do not work out one after the other, in milliseconds.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub timeout_max_ms: u64,
    /// The time between two statuses, in milliseconds.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub status_period_ms: u64,
    /// The time between two reviews of the leader's throughput, in milliseconds.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub review_period_ms: u64,
    /// How long one request may wait in a view while others are executed, in milliseconds; two review periods
    /// and a half at least.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub fairness_ms: u64,
}

impl Default for ViewTransferConfig {
    fn default() -> Self {
        let timings = ViewTimings::default();
        Self {
            timeout_ms: timings.timeout.as_millis() as u64,
            timeout_max_ms: timings.timeout_max.as_millis() as u64,
            status_period_ms: timings.status_period.as_millis() as u64,
            review_period_ms: timings.review_period.as_millis() as u64,
            fairness_ms: timings.fairness.as_millis() as u64,
        }
    }
}

impl ViewTransferConfig {
    /// The same, as the protocol takes it.
    #[must_use]
    pub fn timings(&self) -> ViewTimings {
        ViewTimings {
            timeout: Duration::from_millis(self.timeout_ms),
            timeout_max: Duration::from_millis(self.timeout_max_ms),
            status_period: Duration::from_millis(self.status_period_ms),
            review_period: Duration::from_millis(self.review_period_ms),
            fairness: Duration::from_millis(self.fairness_ms),
        }
    }
}

impl PartConfig for ViewTransferConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("timeout_ms", self.timeout_ms, 20..=600_000)?;
        in_range("timeout_max_ms", self.timeout_max_ms, self.timeout_ms..=3_600_000)?;
        in_range("status_period_ms", self.status_period_ms, 100..=60_000)?;
        in_range("review_period_ms", self.review_period_ms, 100..=600_000)?;
        in_range("fairness_ms", self.fairness_ms, self.timeout_ms..=3_600_000)
    }
}

impl Part for PbftViewChange {
    type Config = ViewTransferConfig;

    fn make(config: &ViewTransferConfig, context: &PartContext) -> Self {
        Self::new(context, config.timings())
    }
}
