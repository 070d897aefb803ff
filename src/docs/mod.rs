//! What is about the whole, and no module's own.

#[doc = include_str!("costs.md")]
pub mod costs {}

#[doc = include_str!("operations.md")]
pub mod operations {}
