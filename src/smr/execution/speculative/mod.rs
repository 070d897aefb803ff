//! Speculative execution on several threads: operations run before it is certain what those before them
//! wrote, and again where they read the wrong thing. The outcome is that of executing them one after the
//! other.
//!
//! After Block-STM (Gelashvili et al., PPoPP 2023): operations have numbers in the order of the decisions; a
//! multi-version memory holds, for each key, the writes of the operations that are not committed; an
//! operation reads the nearest write before its own number; operations are validated in order and executed
//! again where validation fails.
//!
//! ```text
//!   decisions ─feed─►  window of operations   ─harvest─► replies, in order
//!                head ▼                  ▼ tail
//!        committed │ executed · running · ready │
//!                  ▲ validate, apply to the state
//! ```
//!
//! # What happens
//! - **feed**: the owner (the execution role) appends the operations of a decision to the window, whatever is
//!   under way before them: there is no barrier between batches. A checkpoint is one limit that commits wait
//!   at until the state is frozen; executions go on beyond it.
//! - **execute**: any worker takes the next operation in order, runs it on a [`View`] that remembers reads
//!   and keeps writes back, and publishes the outcome. Operations after it that read one of its keys too
//!   early are marked at once: they are executed again without waiting for their turn to be validated.
//! - **commit**: whoever finishes tries to take the commit lock and goes on from the head: each outcome is
//!   validated against the state, which now holds all earlier writes, and applied. If what it read is not
//!   what stands there, the same worker executes it again at once; at the head everything it reads is final,
//!   so that execution holds. So in the worst case, every operation in conflict with the one before, one
//!   worker executes the operations one after the other, as the single-threaded executor does.
//! - **harvest**: the owner takes committed outcomes in order, and answers frame by frame.
//!
//! - **read in the order**: a read-only frame is a limit like a checkpoint. Commits wait before it until the
//!   owner has read the state there; executions go on beyond it.
//! - **results without end**: whether an operation is executed depends on how long the results before it in
//!   its frame are, which is known where it is committed. There one that is put off becomes an operation that
//!   did nothing.
//!
//! # Why it is right
//! Invariant: an outcome becomes part of the state only when every value it read equals the one in the state
//! that all earlier operations left. An operation is a function of the values it reads, hence its writes and
//! its result, a panic included, are those of sequential execution. Nothing else is relied upon: marks,
//! versions and hints only save work.
//!
//! An operation that [declares its keys](super::ScalableApp::declare_keys) is executed without validation
//! when all earlier operations that declare one of these are committed, and all that declare nothing. What it
//! reads is then final, unless one of the others touches what it did not declare; that is noticed during its
//! execution, hence before it is committed, and from then on declarations count for nothing.
//!
//! # Deviations from the paper
//! - Validation compares values, not versions, and happens at commit only, so it is done once per operation;
//!   the paper's eager validation is replaced by the readers that publishing finds in the index.
//! - A read that finds the write of an aborted execution takes the old value instead of waiting: it is marked
//!   when the new one comes.
//! - Blocks have no end: the window slides.
//! - How far ahead operations are executed adapts to how many of these executions are used and how many are
//!   wasted. Where more are wasted, helpers are left asleep and the owner executes operations one after the
//!   other on the state itself, as the single-threaded executor does; now and then speculation is tried
//!   again, less and less often while it is in vain.

mod core;
mod executor;
mod outcome;
mod shim;
mod throttle;
mod versions;
mod view;
mod worker;

pub use self::core::{Core, Found, Task};
pub use executor::Speculative;
pub use outcome::Outcome;
pub use view::View;
pub use worker::{Helper, SpeculativeHelper};

use super::{Column, CrudState, KeyedState, OperationContext};
use crate::smr::messages::Failure;

#[cfg(test)]
mod tests;
