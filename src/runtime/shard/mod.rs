//! Shards: pinned threads with their own event loops, and the roles they run.
//!
//! A *data shard* (`data`) is a thread with one io_uring ring ([`reactor`]). It runs roles in turns:
//! reap completions, step every role, finish every role, sleep when none had anything to do.
//! Roles talk through lanes (SPSC rings with doorbells), also when they share a shard: then nobody
//! needs waking.

mod alarm;
mod buffers;
pub mod control;
pub mod cores;
pub mod crew;
pub(crate) mod data;
pub mod descriptors;
pub(crate) mod faults;
mod keepalive;
pub(crate) mod lanes;
pub mod memory;
pub mod network_node;
pub(crate) mod poll;
pub mod probe;
pub mod pulse;
pub mod reactor;
pub(crate) mod roles;
mod send_queue;
pub mod signals;
pub mod wires;

pub use alarm::Alarm;
pub(crate) use alarm::panicked;
pub use data::ShardError;
