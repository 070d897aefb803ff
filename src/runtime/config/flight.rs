use serde::{Deserialize, Serialize};

use crate::smr::protocol::{InvalidSetting, PartConfig, in_range};

/// The [flight recorder](crate::runtime::flight) of a replica: how much it remembers, and how many of its
/// records stay on disk.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct FlightConfig {
    /// Events of one shard, of 56 bytes each: half of them traffic, a quarter what others do, a quarter what
    /// the replica goes through; each part is rounded up to a power of two. With 0 nothing is recorded.
    pub events_per_shard: usize,
    /// Records in `flight/` in the data directory that failures left, and as many that somebody asked for;
    /// the oldest is removed for one more.
    pub dumps_max: usize,
}

impl Default for FlightConfig {
    fn default() -> Self {
        Self {
            events_per_shard: 4096,
            dumps_max: 8,
        }
    }
}

impl PartConfig for FlightConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        if self.events_per_shard != 0 {
            in_range("flight.events_per_shard", self.events_per_shard, 64..=1 << 20)?;
        }
        in_range("flight.dumps_max", self.dumps_max, 1..=1000)
    }
}
