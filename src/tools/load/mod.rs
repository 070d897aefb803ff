//! Load and local clusters: what the demo, the benches and the tests measure with. Everything runs over the
//! real sockets, threads and client library.
//!
//! Latency is taken from the intended send time: in a closed loop when the operation could first be sent, in
//! an open loop when its turn came, whether or not it could be sent then (no coordinated omission).

//!
//! What was found is kept as [`Results`]: one file, drawn by [`page`] and compared by [`compare`].

pub mod calibrate;
mod chart;
mod cluster;
mod compare;
mod donors;
mod driver;
mod fill;
pub mod hdr;
mod latencies;
mod liars;
mod limits;
mod page;
mod report;
mod results;
mod run;
mod states;
mod table;
mod workload;
mod worth;

pub use cluster::{ClusterOptions, LocalCluster, LocalError};
pub use compare::{CaseComparison, Comparison, Verdict, compare};
pub use donors::DonorLie;
pub use driver::{Control, LoadDriver, Pace, Tally};
pub use fill::{Filling, fill};
pub use latencies::{Interval, Latencies};
pub use limits::{Limits, LimitsError};
pub use page::page;
pub(super) use report::grouped;
pub use report::{Incident, LatencyReport, Report, draw_histogram, median};
pub use results::{Group, Parameters, Results, ResultsError, Row};
pub use run::{INTERRUPTED, LoadOptions, RunError, Tick, is_interrupted, machine, run_load};
pub use states::States;
pub use table::{table_head, table_row};
pub use workload::{Shape, Workload};
pub use worth::{measured_nothing, rate_missed, sent_nothing};
