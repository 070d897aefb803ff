//! Where code of the application is called, and what a panic there means.
//!
//! | called | a panic in it |
//! |---|---|
//! | [`update`](super::Application::update), [`speculatively_execute`](super::ScalableApp::speculatively_execute) | is the operation's result, the same at every replica |
//! | [`unordered_execution`](super::Application::unordered_execution) | is the read's result; nothing can have changed |
//! | [`prepare`](super::Application::prepare), [`declare_keys`](super::ScalableApp::declare_keys) | costs what the hint would have saved |
//! | `Drop` of what nobody needs any more: parts, snapshots, states | costs nothing; what is left of the value is leaked |
//! | work of a checkpoint on another thread ([`CheckpointHelp`](super::CheckpointHelp)) | is help that was not given |
//! | `Clone`, `size_bytes` of a part, `put` of a [`KeyedState`](super::KeyedState) that commits, taking an operation back | stops the replica: [`StateFault`] |
//! | snapshots, digests and pieces of a checkpoint, `initial_state`, `blank`, `read_piece` | stops the replica, which says so |
//!
//! A copy of a part is made, or let go, when a digest or a snapshot happens to have it as well, which is
//! another moment at each replica. Were a panic there taken for one of the operation that runs at that
//! moment, its result, and the state, would differ from replica to replica. So it never is.
//!
//! What cannot be caught at all ends the process: a panic while another one unwinds (`Drop` again), memory
//! that is not there, a stack that is too small. An application bounds by itself what an operation makes it
//! allocate and how deep it recurses.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What a state did on its own account, inside an operation, panicked: no operation's result. Unwinds to
/// whoever stops the replica.
#[derive(Debug)]
pub struct StateFault(&'static str);

impl std::fmt::Display for StateFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the application's state panicked while {}", self.0)
    }
}

/// What an application panicked with, to be looked at; let go without another panic.
pub(super) struct Payload(Option<Box<dyn Any + Send>>);

impl Payload {
    /// Whether it is a `T`.
    pub fn is<T: Any>(&self) -> bool {
        self.0.as_ref().is_some_and(|payload| payload.is::<T>())
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(payload) = self.0.take() {
            let_go(payload);
        }
    }
}

/// Runs code of an application.
///
/// # Errors
/// What it panicked with.
///
/// # Panics
/// With the [`StateFault`] that it panicked with.
pub(super) fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, Payload> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| match payload.is::<StateFault>() {
        true => resume_unwind(payload),
        false => Payload(Some(payload)),
    })
}

/// Runs what a state does on its own account, `while` something.
///
/// # Panics
/// With a [`StateFault`] when it panics.
pub(super) fn or_fault<T>(doing: &'static str, run: impl FnOnce() -> T) -> T {
    guarded(run).unwrap_or_else(|payload| {
        drop(payload);
        resume_unwind(Box::new(StateFault(doing)))
    })
}

/// Drops a value of an application. What its `Drop` panics with is of no interest to anybody.
pub(super) fn let_go<T>(value: T) {
    if !std::mem::needs_drop::<T>() {
        return;
    }
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // It might panic once more.
        std::mem::forget(payload);
    }
}

/// A value that is [let go](let_go) when it is dropped.
#[derive(Debug)]
pub(super) struct LetGo<T>(Option<T>);

impl<T> LetGo<T> {
    pub fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// The value.
    pub fn get(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }

    /// The value, to change it.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl<T> Drop for LetGo<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            let_go(value);
        }
    }
}
