//! The simulator: a whole cluster in virtual time, from one seed.
//!
//! ```text
//!   seed ──► Plan: config, network, faults, liars ──► World ──► RunReport
//!                                                      │
//!       hosts: ProposalGate + Replica + executor       │  one queue of events: messages, turns, syncs,
//!       disks, clocks, clients, links, liars           │  clients' calls and timeouts, faults
//!                                                      ▼
//!                                  checkers, with their own arithmetic
//! ```
//!
//! The replicas are the ones that run in production, fed with encoded messages by the steps of the shards'
//! roles; only the network, the disk and the clock are replaced. Everything follows from the seed: two runs
//! of one seed have the same digest over every message delivered and every decision executed.
//!
//! - [`run`] plays one seed of a [`Profile`] over the key-value store and gives a [`RunReport`];
//! - [`Cluster`] lets applications run on a simulated cluster in tests;
//! - `atlas sim` plays many seeds, and one seed readably;
//! - [`mutants`](crate::smr::mutants) are faults planted in the protocol: each must be found.
//!
//! **What is judged.** Safety all the time. Progress: whatever honest clients asked is done within
//! [`PROGRESS_BOUND`](plan::PROGRESS_BOUND) of virtual time after the network, disks and clocks have healed,
//! with up to f replicas that lie or are gone, and whatever other clients do. Replicas that crash and restart
//! with what they had on disk are not faulty; those whose disk was wiped, rolled back or rotted are, and
//! count among the f.

mod app;
mod byzantine;
pub mod checker;
mod clients;
mod cluster;
mod contract;
mod disk;
#[doc(hidden)]
pub mod fuzz;
mod homes;
mod keys;
mod network;
pub mod plan;
mod replica;
mod rng;
mod run;
mod stack;
mod world;

pub use byzantine::ByzantineStrategy;
#[cfg(feature = "tools")]
pub(crate) use byzantine::{Liar, Sent};
pub use checker::{Rule, Violation};
pub use clients::FaultyClient;
pub use cluster::{Cluster, ClusterBuilder, SimCallError};
pub use contract::{ContractError, check_contract};
pub use network::NetworkProfile;
pub use plan::{Profile, SimConfig};
pub use rng::SimRng;
pub use run::{RunReport, TWINS_PATTERNS, pair_names, run, run_plan, run_twins_pattern};
