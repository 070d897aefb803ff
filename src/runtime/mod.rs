//! The shells of a replica: threads, rings, sockets, disks and clocks. They move bytes and time for
//! [`smr`](crate::smr).

#[forbid(unsafe_code)]
pub mod admin;
#[forbid(unsafe_code)]
pub mod config;
#[forbid(unsafe_code)]
pub mod evidence;
#[forbid(unsafe_code)]
pub mod flight;
#[forbid(unsafe_code)]
pub mod metrics;
pub mod net;
pub mod ring;
#[forbid(unsafe_code)]
pub mod server;
pub mod shard;
pub mod storage;
