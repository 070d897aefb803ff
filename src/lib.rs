//! Byzantine fault tolerant state machine replication for Linux.

pub mod messages;
pub mod protocol;
pub mod types;
