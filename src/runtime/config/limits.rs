use serde::{Deserialize, Serialize};

use crate::smr::protocol::{InvalidSetting, in_range};

/// Messages between replicas that may wait for a role.
pub const REPLICA_MESSAGE_CHANNEL: usize = 1024;
/// Decisions that may wait for execution.
pub const WORK_CHANNEL_SIZE: usize = 128;
/// Replies that may wait for the network.
pub const RESPONSE_CHANNEL_SIZE: usize = 128;
/// How long a replica waits for the others at start before it says so, in milliseconds.
pub const REPLICA_WAIT_TIME: u64 = 1000;

/// The bounds of one replica: on what it holds, and on how long it waits.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at once, of replicas and clients together.
    pub connections_max: u16,
    /// Handshakes at once.
    pub handshakes_max: usize,
    /// How long one handshake may take, in milliseconds.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub handshake_timeout_ms: u64,
    /// The first pause before a lost replica is dialled again, in milliseconds; it doubles from there.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub reconnect_min_ms: u64,
    /// The longest such pause, in milliseconds.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub reconnect_max_ms: u64,
    /// Bytes of all clients' undecided frames.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub pool_bytes_max: usize,
    /// Bytes of one client's undecided frames.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub pool_bytes_per_client: usize,
    /// Provided receive buffers of a data shard; a power of two.
    pub receive_buffers: u16,
    /// The size of each, in bytes.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub receive_buffer_bytes: usize,
    /// How long nothing may come on a link before it is closed and made again, in milliseconds: each end says
    /// something every second.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub link_silence_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            handshakes_max: 256,
            handshake_timeout_ms: 5000,
            reconnect_min_ms: 10,
            reconnect_max_ms: 1000,
            pool_bytes_max: 256 << 20,
            pool_bytes_per_client: 64 << 20,
            receive_buffers: 64,
            receive_buffer_bytes: 64 << 10,
            link_silence_ms: 5000,
        }
    }
}

impl Limits {
    pub(super) fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("connections_max", self.connections_max, 2..=16_384)?;
        in_range("handshakes_max", self.handshakes_max, 1..=4096)?;
        in_range("handshake_timeout_ms", self.handshake_timeout_ms, 10..=60_000)?;
        in_range("reconnect_min_ms", self.reconnect_min_ms, 1..=60_000)?;
        in_range(
            "reconnect_max_ms",
            self.reconnect_max_ms,
            self.reconnect_min_ms..=600_000,
        )?;
        in_range("pool_bytes_max", self.pool_bytes_max, 1 << 20..=1 << 36)?;
        in_range(
            "pool_bytes_per_client",
            self.pool_bytes_per_client,
            64 << 10..=self.pool_bytes_max,
        )?;
        in_range("receive_buffers", self.receive_buffers, 8..=4096)?;
        if !self.receive_buffers.is_power_of_two() {
            let value = self.receive_buffers.to_string();
            return Err(InvalidSetting {
                key: "receive_buffers",
                value,
                rule: "must be a power of two".into(),
            });
        }
        in_range("link_silence_ms", self.link_silence_ms, 2000..=600_000)?;
        in_range("receive_buffer_bytes", self.receive_buffer_bytes, 4096..=1 << 20)
    }
}
