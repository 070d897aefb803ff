//! Between the network and consensus: client frames are checked, hashed, and gathered into batches.
//!
//! | upon | the room answers |
//! |---|---|
//! | frames of clients, directly or forwarded | [`FrameChecker::check_frames`]: a [`Frame`](crate::smr::messages::Frame) or a [`FrameRefusal`] for each |
//! | one frame from its client's link | [`FrameChecker::take_frame`], and [`FrameChecker::verify`] at the end of the turn |
//! | a pre-prepare | [`FrameChecker::check_proposal`]: a [`Proposal`](crate::smr::messages::Proposal), or why its leader is faulty |
//! | a replica's message with frames | [`PeerVerifyGate::check`]: one of the last two, as far as its sender may have signatures verified |
//! | a checked frame | [`RequestPool::offer`]: queued, known, or refused |
//! | a free slot of consensus | [`RequestPool::take_batch`]: the next batch, fair among clients |
//! | a decision | [`RequestPool::on_decided`]: its frames leave the pool and never come back |
//! | a lost view | [`RequestPool::return_in_flight`]: what was proposed is queued again |
//!
//! A [`FrameChecker`] keeps nothing from one call to the next but the directory of clients, so any number of
//! preprocess shards can run one each. What must be known of all frames at once (duplicates, quotas,
//! fairness) is the [`RequestPool`]'s, which consensus owns.
//!
//! # Invariants
//! - A frame's body is hashed once per arrival, here; batch digests are made of those digests.
//! - Whether a proposal is refused depends only on its bytes and on what all replicas have in common. What
//!   one replica alone can judge (its own MAC) never refuses a proposal; it clears `authentic`.
//! - A frame is in the pool at most once, and never again once it was decided.

mod changes;
mod clients;
mod frames;
mod gate;
mod pool;
mod proposals;

pub use crate::smr::membership::ClientAuth;
pub use clients::{ClientDirectory, ClientKeys, RequireSignature};
pub use frames::{
    Authenticity, CheckerLimits, Effort, FrameChecker, FrameRefusal, FrameSource, RefusedFrame,
};
pub use gate::{ExpectedTraffic, FromPeer, GateLimits, PeerRefusal, PeerVerifyGate};
pub use pool::{Offer, PoolLimits, RequestPool};
pub use proposals::batch_digest;
pub(crate) use proposals::has_time_alone;

#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
mod proposal_tests;
#[cfg(test)]
mod tests;
