//! What the `atlas` command is made of, beside the replica itself.

pub mod cli;
pub mod load;
mod scratch;
