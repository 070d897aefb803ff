//! Between the network and consensus: client frames are checked, hashed, and gathered into batches.
//!
//! [`FrameChecker`] keeps no state between frames, so any number of preprocess shards can run one each. What must be
//! known of all frames at once (duplicates, quotas, fairness) is the [`RequestPool`]'s, which consensus owns.

mod checker;
mod clients;
mod pool;

pub use checker::{CheckerLimits, FrameChecker, FrameRefusal, batch_digest};
pub use clients::{ClientAuth, ClientDirectory, ClientKeys};
pub use pool::{Offer, PoolLimits, RequestPool};

#[cfg(test)]
mod tests;
