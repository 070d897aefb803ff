//! Byzantine fault tolerant state machine replication for Linux.

pub mod cli;
pub mod client;
pub mod config;
pub mod crypto;
pub mod execution;
pub mod load;
pub mod messages;
pub mod metrics;
pub mod net;
pub mod ordering;
pub mod preprocessing;
pub mod protocol;
pub mod replica;
pub mod ring;
pub mod server;
pub mod shard;
pub mod types;

pub use client::Client;
pub use server::ReplicaHandle;
pub use server::monolithic_server::MonReplica;
