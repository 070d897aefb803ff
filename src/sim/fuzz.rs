//! The decoders that a stranger reaches, each as a function of bytes, for `tests/fuzz.rs`.
//!
//! A [`Target`] knows valid inputs to begin with, which mostly come out of simulated runs, and takes one
//! input after the other. It says in a few words what became of an input: an input that has new words is
//! worth keeping. What is accepted is encoded again and must give the same value back.

mod capture;
mod epochs;
mod flight;
mod lone;
mod targets;

pub(super) use capture::{Captured, kind_of};
pub use targets::{TARGETS, Target};

use crate::smr::types::{ClusterId, Epoch};

const CLUSTER: ClusterId = super::keys::CLUSTER;
const EPOCH: Epoch = Epoch::ZERO;
