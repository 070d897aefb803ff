//! Links between parties, without sockets: who speaks first, what is proven, and how bytes become messages.
//!
//! 1. [`hello`]: in clear, a fixed block that names protocol version, cluster, epoch and identities, so that
//!    a misconfigured peer learns why it is refused.
//! 2. [`handshake`]: Noise XK over it. Both ends prove the static keys that the cluster's configuration
//!    lists.
//! 3. [`framing`]: sealed records that carry many messages each.
//!
//! The shells move the bytes: control shards and dialers for the first two, data shards for the third.

pub mod framing;
pub mod handshake;
pub mod hello;
pub mod pool;

#[cfg(test)]
mod tests;
