//! What the numbers that every Atlas replica measures are called at `/metrics`.
//!
//! A counter of [`visit_counters`](crate::ReplicaHandle::visit_counters) is `atlas_NAME_total` there, unless
//! it is one of several that differ in a label: then their metric has a name of its own. Refusals, whoever
//! refused what, are [`REFUSALS`], by `of` and `reason`.
//!
//! Times are histograms. Those by `shard` are of one turn of a data shard of 64; turns and parts of them in
//! which there was nothing to do are left out. Those by `phase` are of what is on its way: of batches whose
//! place is a multiple of 16, which are the same at every replica, and of client frames whose number is a
//! multiple of 64.

/// What ordering had of a turn: messages of all protocols, timers, answers and proposals.
pub const ORDERING_PROTOCOL_POLL_TIME: &str = "atlas_consensus_turn_seconds";
/// What handling the timers took that were due together. Each time is measured.
pub const TIMEOUT_PROCESS_TIME: &str = "atlas_timeout_seconds";
/// Messages of other replicas that the protocols took: proposals, votes, and all else.
pub const OP_MESSAGES_PROCESSED: &str = "atlas_protocol_messages_total";
/// What it took to conclude a turn of ordering, of one of 64 of which something came: batches are formed, and
/// votes, records and decisions are handed on.
pub const REPLICA_PROTOCOL_RESP_PROCESS_TIME: &str = "atlas_protocol_response_seconds";
/// Operations of ordered requests that were executed.
pub const REPLICA_ORDERED_RQS_PROCESSED: &str = "atlas_operations_executed_total";
/// Decisions that passed the decision log and were given to execution.
pub const DECISION_LOG_PROCESSED: &str = "atlas_decisions_total";
/// A whole turn of a data shard, all its roles together.
pub const RUN_LATENCY_TIME: &str = "atlas_shard_turn_seconds";
/// From when execution took a sampled batch until it was executed.
pub const EXECUTION_TIME_TAKEN: &str = "atlas_execution_seconds";
/// What was refused, by `of` (what it was) and `reason`.
pub const REFUSALS: &str = "atlas_refusals_total";
/// How long sampled batches took from one step of their way to the next, by `phase`, the step they came to:
/// verified, proposed, prepared, committed, durable, executed, replied. A replica verifies no proposals of its
/// own.
pub const BATCH_PHASES: &str = "atlas_batch_phase_seconds";
/// The same of sampled client frames at the replica that their client sent them to, up to their proposal:
/// verified, proposed.
pub const FRAME_PHASES: &str = "atlas_frame_phase_seconds";
/// From the receipt of a sampled client frame until its reply is given to its link.
pub const REQUEST_TIME: &str = "atlas_request_seconds";
