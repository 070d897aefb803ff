//! What the numbers that every Atlas replica measures are called at `/metrics`.
//!
//! A counter of [`visit_counters`](crate::ReplicaHandle::visit_counters) is `atlas_NAME_total` there, unless
//! it is one of several that differ in a label: then their metric has a name of its own. Refusals, whoever
//! refused what, are [`REFUSALS`], by `of` and `reason`.
//!
//! Times are histograms of one turn of a data shard of 64, by `shard`; turns and parts of them in which there
//! was nothing to do are left out.
//!
//! `TIMEOUT_PROCESS_TIME` and `REPLICA_PROTOCOL_RESP_PROCESS_TIME` have no name: timeouts and protocols'
//! answers are handled in the midst of a turn, and telling them apart would take a look at the clock for each.

/// What ordering had of a turn: messages of all protocols, timers, answers and proposals.
pub const ORDERING_PROTOCOL_POLL_TIME: &str = "atlas_consensus_turn_seconds";
/// What execution had of a turn; with the speculative executor, without what its other threads did meanwhile.
pub const EXECUTION_TIME_TAKEN: &str = "atlas_execution_turn_seconds";
/// A whole turn of a data shard, all its roles together.
pub const RUN_LATENCY_TIME: &str = "atlas_shard_turn_seconds";
/// Messages of the ordering protocol, and all others, that came from replicas and clients, by `peer`.
pub const OP_MESSAGES_PROCESSED: &str = "atlas_messages_received_total";
/// Operations of ordered requests that were executed.
pub const REPLICA_ORDERED_RQS_PROCESSED: &str = "atlas_operations_executed_total";
/// Decisions that passed the decision log and were given to execution.
pub const DECISION_LOG_PROCESSED: &str = "atlas_decisions_total";
/// What was refused, by `of` (what it was) and `reason`.
pub const REFUSALS: &str = "atlas_refusals_total";
