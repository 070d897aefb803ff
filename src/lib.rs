//! Byzantine fault tolerant state machine replication for Linux.

pub mod types;
