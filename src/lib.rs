//! Byzantine fault tolerant state machine replication for Linux.

pub mod config;
pub mod crypto;
pub mod execution;
pub mod messages;
pub mod metrics;
pub mod net;
pub mod ordering;
pub mod preprocessing;
pub mod protocol;
pub mod replica;
pub mod ring;
pub mod shard;
pub mod types;
