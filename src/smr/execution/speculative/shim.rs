//! The primitives that `core`, `versions` and `view` are built from, under one roof:
//! `tests/speculative_loom.rs` compiles those files against a module of this name that holds loom's, so the
//! model runs the code that ships.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
pub(super) use std::sync::{Mutex, MutexGuard, RwLock};
