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
//! Waking costs a system call, so it is made only for a shard that said it sleeps: the consumer sets its flag,
//! looks at its rings once more, then sleeps; the producer pushes, then looks at the flag.

mod doorbell;
mod park;
mod shim;
mod spsc;

pub use doorbell::Doorbell;
pub use park::ParkFlag;
pub use spsc::{Consumer, Producer, channel};

#[cfg(test)]
mod tests;
