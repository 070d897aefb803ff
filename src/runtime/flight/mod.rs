//! The flight recorder: the last events of each shard of a replica, kept in memory, and written to a file when
//! something went wrong or somebody asks.
//!
//! ```text
//!  shard d0 ──pen──► rings of fixed size ──┐
//!  shard d1 ──pen──► rings of fixed size ──┼─► FlightDump ─► file, or GET /debug/flight ─► atlas inspect flight
//!  control  ──pen──► rings of fixed size ──┘
//! ```
//!
//! **Who writes.** The shells: each thread to memory of its own, which was allocated before it began. An event
//! is a dozen relaxed stores; nothing is allocated, no lock is taken, no clock is read but that of the turn.
//!
//! **Who reads** copies what is there and throws away what may have been overwritten meanwhile
//! (`flight/ring.rs`). It never holds a writer up.
//!
//! **What pushes out what.** A shard has a ring for traffic (messages, decisions, writes), one for what others
//! do (links, refusals), and one for what the replica itself goes through (views, checkpoints, transfers, the
//! disk, failures): half, a quarter and a quarter of its events. So a busy second does not push out the last
//! view change, and nobody can have the replica's own story forgotten by connecting or lying very often.
//!
//! **When it is written to a file**: when a thread fails and the replica stops with an error, and on SIGUSR1
//! (`atlas run`), into `flight/` in the data directory. So many of either cause are kept
//! ([`FlightConfig`](crate::runtime::config::FlightConfig)). A replica that is killed, or aborted by a
//! supervisor, writes none.

mod dumps;
mod event;
mod file;
mod message_topic;
mod recorder;
mod ring;

pub use dumps::DumpError;
pub use event::{FlightEvent, FlightKind, close_code, timer_code};
pub use file::{DumpCause, FORMAT_VERSION, FlightDump, FlightFileError, ShardEvents};
pub use message_topic::MessageTopic;
pub use recorder::{FlightIdentity, FlightPen, FlightRecorder};

#[cfg(test)]
mod tests;
