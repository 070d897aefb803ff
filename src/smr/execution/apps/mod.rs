//! The built-in applications.

pub mod bank;
pub mod compute;
pub mod counter;
pub mod kv;
pub mod null;

/// What is said of an operation that cannot be read.
pub const MALFORMED: &str = "malformed operation";
