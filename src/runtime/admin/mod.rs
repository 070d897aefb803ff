//! The admin endpoint of a running replica: what monitoring, probes and operators ask over HTTP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | every counter and gauge, in Prometheus' text format 0.0.4 ([`names`]) |
//! | `GET /livez` | 200 while each of its threads gives signs of life; else 503, and those that hang |
//! | `GET /readyz` | 200 while it does its part; else 503, and why not, a line each ([`Unready`]) |
//! | `GET /status` | where it stands, as JSON: its row of `atlas status --json` |
//! | `GET /debug/flight` | the last events, as a file for `atlas inspect flight` ([`flight`](crate::runtime::flight)) |
//! | `GET /debug/peers` | what was refused of each peer, as JSON ([`evidence`](crate::runtime::evidence)) |
//! | `GET /log-level`, `PUT /log-level` | the filter of logs; another one, until the next start |
//!
//! One thread serves it, off the data path: it reads what the shards publish with relaxed loads, and nothing
//! of theirs waits for it. What it does wrong is counted (`admin_failures`) and logged, and goes no further: a
//! panic while a request is answered is a 500, and a thread that died is missed by whoever scrapes.
//!
//! A connection carries one request, and is closed. Whoever asks can take of it: so many connections, of which
//! the oldest is closed for a new one; so many bytes of a head, which is all that is ever kept of a request
//! beside [`BODY_BYTES_MAX`]; and so much time, from the first byte to the last, however often something comes.
//! All three are `[admin]`'s in the replica's file ([`AdminConfig`]).

mod connection;
mod disk;
mod exposition;
mod families;
mod http;
mod log_filter;
mod measured;
pub mod names;
mod pages;
mod process;
mod server;
mod subject;
mod token;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) use disk::DataDisk;
pub use http::BODY_BYTES_MAX;
pub use log_filter::LogFilter;
pub(crate) use subject::Subject;
pub use subject::Unready;
#[cfg(feature = "tools")]
pub(crate) use token::read_token;

use self::pages::Pages;
use self::server::{Server, Stop};
use self::token::{BearerToken, TokenSlot};
use crate::runtime::config::AdminConfig;
use crate::runtime::metrics::for_same_replica;
use crate::runtime::ring::Doorbell;

/// Why there is no admin endpoint, though one is configured.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be listened at.
    #[error("admin.listen = {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The token cannot be used.
    #[error("admin.bearer_token_file = {}: {why}", path.display())]
    Token {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Others than this host could ask without a token.
    #[error("others than this host reach {address}: the admin endpoint keeps its token")]
    Open {
        /// Where it listens.
        address: SocketAddr,
    },
    /// The process is out of descriptors or threads.
    #[error("the admin endpoint cannot be started: {0}")]
    Start(#[source] io::Error),
}

/// How many bytes, connections and how much time those who ask may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    connections_max: usize,
    header_bytes_max: usize,
    request_timeout: Duration,
}

/// An endpoint that has its address, and answers nobody yet.
#[derive(Debug)]
pub(crate) struct BoundEndpoint {
    listener: TcpListener,
    address: SocketAddr,
    token: TokenSlot,
    bounds: Bounds,
}

impl BoundEndpoint {
    /// What the configuration asks for, if it asks for any.
    pub fn of(config: &AdminConfig) -> Result<Option<Self>, AdminError> {
        let Some(address) = config.address() else {
            return Ok(None);
        };
        let token = config.bearer_token_file.as_deref().map(BearerToken::load);
        let listener = TcpListener::bind(address);
        let listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        let listener = listener.map_err(|source| AdminError::Listen { address, source })?;
        Ok(Some(Self {
            address: listener.local_addr().map_err(AdminError::Start)?,
            listener,
            token: TokenSlot::new(token.transpose()?),
            bounds: Bounds {
                connections_max: config.connections_max,
                header_bytes_max: config.header_bytes_max,
                request_timeout: Duration::from_millis(config.request_timeout_ms),
            },
        }))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What replaces its token, as long as it answers.
    pub fn token(&self) -> TokenReplacer {
        TokenReplacer {
            address: self.address,
            slot: self.token.clone(),
        }
    }

    /// Answers what is asked about this replica, on a thread of this name.
    pub fn start(self, name: String, subject: Subject) -> Result<AdminEndpoint, AdminError> {
        let stop = Stop::new().map_err(AdminError::Start)?;
        let metrics = subject.metrics.clone();
        let server = Server {
            listener: self.listener,
            pages: Pages::new(subject, self.token),
            bounds: self.bounds,
            stop: stop.clone(),
            metrics: metrics.clone(),
        };
        let serve = for_same_replica(move || {
            let run = std::panic::AssertUnwindSafe(|| server.run());
            if std::panic::catch_unwind(run).is_err() {
                // The panic has told what it was about.
                crate::runtime::metrics::count(&metrics.counters.admin_failures);
                tracing::error!("the admin endpoint is gone until the next start; the replica goes on");
            }
        });
        let thread = std::thread::Builder::new().name(name).spawn(serve);
        Ok(AdminEndpoint {
            stop,
            thread: Some(thread.map_err(AdminError::Start)?),
        })
    }
}

/// Replaces the token of an endpoint that answers.
#[derive(Debug)]
pub(crate) struct TokenReplacer {
    address: SocketAddr,
    slot: TokenSlot,
}

impl TokenReplacer {
    /// From the next request on the token is the one of this file; without a file there is none any more.
    pub fn replace(&self, file: Option<&Path>) -> Result<(), AdminError> {
        let token = file.map(BearerToken::load).transpose()?;
        if token.is_none() && !self.address.ip().is_loopback() {
            return Err(AdminError::Open {
                address: self.address,
            });
        }
        self.slot.replace(token);
        Ok(())
    }
}

/// An endpoint that answers; until it is dropped.
#[derive(Debug)]
pub(crate) struct AdminEndpoint {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for AdminEndpoint {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            // What it panicked with was told and counted.
            let _ = thread.join();
        }
    }
}

impl Stop {
    fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self::at(Doorbell::new()?)))
    }
}

#[cfg(test)]
mod tests;
