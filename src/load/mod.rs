//! Load and local clusters: what the demo, the benches and the tests measure with. Everything runs over the real
//! sockets, threads and client library.
//!
//! Latency is taken from the intended send time: in a closed loop when the operation could first be sent, in an open
//! loop when its turn came, whether or not it could be sent then (no coordinated omission).

pub mod calibrate;
mod cluster;
mod donors;
mod driver;
mod fill;
mod report;
mod run;
mod workload;

pub use cluster::{ClusterOptions, LocalCluster, LocalError};
pub use donors::DonorLie;
pub use driver::{Control, LoadDriver, Pace, Tally};
pub use fill::{Filling, fill};
pub use report::{Incident, LatencyReport, Report, draw_histogram};
pub use run::{LoadOptions, RunError, Tick, run_load};
pub use workload::{Shape, Workload};
