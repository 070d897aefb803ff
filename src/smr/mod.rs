//! What a replica decides: deterministic and sans-io. No socket, file, thread, wall clock or order of a hash
//! table is known here, and nothing of [`runtime`](crate::runtime), [`client`](crate::client),
//! [`sim`](crate::sim) or [`tools`](crate::tools): bytes and time are handed in, effects are handed out.

#[forbid(unsafe_code)]
pub mod crypto;
#[forbid(unsafe_code)]
pub mod decision_log;
#[forbid(unsafe_code)]
pub mod execution;
#[forbid(unsafe_code)]
pub mod log_transfer;
#[forbid(unsafe_code)]
pub mod membership;
pub mod messages;
#[forbid(unsafe_code)]
pub mod mutants;
#[forbid(unsafe_code)]
pub mod node;
#[forbid(unsafe_code)]
pub mod ordering;
#[forbid(unsafe_code)]
pub mod preprocessing;
#[forbid(unsafe_code)]
pub mod protocol;
#[forbid(unsafe_code)]
pub mod reconfiguration;
#[forbid(unsafe_code)]
pub mod replica;
#[forbid(unsafe_code)]
pub mod state_transfer;
#[forbid(unsafe_code)]
pub mod types;
#[forbid(unsafe_code)]
pub mod view_transfer;
