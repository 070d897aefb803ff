//! The client: one identity, many callers.
//!
//! ```text
//!  callers ──► bounded queue ──► Session (gathers, authenticates, counts answers) ──► links to all replicas
//!                      engine thread: one ring, like a data shard                 dialer thread: handshakes
//! ```
//!
//! A [`Session`] is the protocol of one client identity, without sockets. An [`Engine`] runs sessions on a
//! thread with a ring of its own. [`Client`] is the door for applications: calls from any number of threads
//! or tasks, on any runtime, are gathered into frames without waiting when nothing is under way.
//!
//! A result is accepted when f+1 distinct replicas gave the same: one of them is correct. Where reads beside the
//! order are enabled it takes a quorum, for ordered calls too; both are linearizable then ([`Session`] has the
//! reasons), and relaxed reads, which the caller asks for, may be stale by what is under way. Several processes
//! may use one identity.

mod answers;
mod authenticator;
mod call_driver;
mod calls;
mod config;
mod dialer;
mod engine;
mod error;
mod frame_buffer;
mod outcome;
mod session;
mod status;
mod typed;

pub use authenticator::Authentication;
pub use call_driver::{Client, ConnectError, Reply};
pub use config::{AnswerRule, SessionConfig, SessionCounters, SubmitError};
pub use engine::{Completion, Driver, Engine, EngineError, EngineHandle};
pub use error::{CallError, Silence};
pub use outcome::{FrameResults, Outcome, Output};
pub use session::Session;
pub use status::status;
pub use typed::{TypedCallError, TypedClient, typed_result};

#[cfg(test)]
mod tests;
