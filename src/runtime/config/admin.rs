use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::smr::protocol::{InvalidSetting, PartConfig, in_range};

/// The [admin endpoint](crate::runtime::admin) of a replica: where it listens, who may ask, and what one who
/// asks can take of it. There is none unless `listen` is set.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where it listens, as an address and a port; port 0 is any that is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// The file of the token that every request has to name, relative to the replica's file. Without one,
    /// whoever reaches the address may ask: only programs on this host can be allowed to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bearer_token_file: Option<PathBuf>,
    /// Connections at once; one more ends the oldest.
    pub connections_max: usize,
    /// Bytes of a request's line and headers.
    #[serde(deserialize_with = "crate::smr::protocol::units::bytes")]
    pub header_bytes_max: usize,
    /// How long one request may take, from the connection to the last byte of the answer, in milliseconds.
    #[serde(deserialize_with = "crate::smr::protocol::units::milliseconds")]
    pub request_timeout_ms: u64,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: None,
            bearer_token_file: None,
            connections_max: 16,
            header_bytes_max: 8 << 10,
            request_timeout_ms: 5000,
        }
    }
}

impl AdminConfig {
    /// Where it listens; `None` if there is no endpoint, or not at an address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.listen.as_ref()?.parse().ok()
    }

    /// Descriptors that it may need: of connections, of one that is about to be refused, to listen, to be
    /// woken, and to look at the process.
    pub(crate) fn descriptors(&self) -> u64 {
        self.listen
            .as_ref()
            .map_or(0, |_| self.connections_max as u64 + 4)
    }
}

impl PartConfig for AdminConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        if let Some(listen) = &self.listen {
            let refused = |rule: &str| InvalidSetting {
                key: "admin.listen",
                value: listen.clone(),
                rule: rule.to_owned(),
            };
            let address = self.address().ok_or_else(|| {
                refused(
                    "must be an address and a port, as 127.0.0.1:9464: a name may come to mean another host",
                )
            })?;
            if !address.ip().is_loopback() && self.bearer_token_file.is_none() {
                return Err(refused(
                    "others than this host reach it: bearer_token_file under [admin] must name a token",
                ));
            }
        }
        in_range("admin.connections_max", self.connections_max, 1..=256)?;
        in_range("admin.header_bytes_max", self.header_bytes_max, 512..=64 << 10)?;
        in_range("admin.request_timeout_ms", self.request_timeout_ms, 100..=60_000)
    }
}
