//! Shards: pinned threads with their own event loops, and the roles they run.

mod buffers;
pub mod reactor;
