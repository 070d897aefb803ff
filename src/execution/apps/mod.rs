//! The built-in applications.

pub mod bank;
pub mod compute;
pub mod counter;
pub mod kv;
pub mod null;

/// The result of an operation that cannot be read.
pub const MALFORMED: u8 = 0xfe;
