//! What is about the whole, and no module's own.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("protocol.md")]
pub mod protocol {}

#[doc = include_str!("membership.md")]
pub mod membership {}

#[doc = include_str!("storage.md")]
pub mod storage {}

#[doc = include_str!("costs.md")]
pub mod costs {}

#[doc = include_str!("operations.md")]
pub mod operations {}

#[doc = include_str!("testing.md")]
pub mod testing {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}
