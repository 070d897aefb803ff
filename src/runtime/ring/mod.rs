//! Bounded rings between shards, and the doorbell that wakes a parked one.
//!
//! ```text
//!  producer ──push──►  [ slot | slot | slot | … ]  ──pop──► consumer
//!     │                 tail ▲            ▲ head               │
//!     └── ring_if_parked ──► doorbell (eventfd) ──► io_uring ──┘
//! ```
//!
//! A ring has one producer and one consumer and never grows: what does not fit is handed back, and the
//! producer stops taking input of its own until there are credits again. That is the back-pressure that ends
//! at the client.
//!
//! Waking costs a system call, so it is made only for a shard that said it sleeps: the consumer sets its
//! flag, looks at its rings once more, then sleeps; the producer pushes, then looks at the flag.
//!
//! Both are model-checked by loom: `cargo test --test ring_loom`.
//!
//! Why not the rtrb crate: ours is as fast, and small enough to be modelled together with the doorbell. On
//! two cores of an AMD EPYC (Zen 4, virtual, with other work on it), 40-byte items, 1024 slots, by `cargo
//! bench --bench ring`: push and pop on one thread 6.2 ns (rtrb 6.3), pushing and draining 32 on one thread
//! 7.9 ns an item (8.0), from thread to thread 15.6 ns (16.1; median ratio of seven runs 0.99, from 0.95 to
//! 1.05), drained in batches of 32 15.5 ns (16.3; 0.95, from 0.90 to 1.04).

mod doorbell;
mod park;
mod shim;
mod spsc;

pub use doorbell::Doorbell;
pub use park::ParkFlag;
pub use spsc::{Consumer, Producer, channel};

#[cfg(test)]
mod tests;
