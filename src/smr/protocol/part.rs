//! How parts are made: each from a configuration of its own, and from what all parts of a replica share.
//!
//! A part that is to be put into a [`Stack`](crate::smr::replica::Stack) implements [`Part`]; the section of
//! the replica's file that is its own is its [`Part::Config`].

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::smr::crypto::{Digester, SigningKey, VerifyingKey};
use crate::smr::messages::CheckpointClaim;
use crate::smr::types::{ClusterId, Epoch, NodeId, Quorum};

/// What every part of one replica is made with: who it is, and what its cluster agreed on.
#[derive(Debug, Clone)]
pub struct PartContext {
    /// This replica.
    pub node: NodeId,
    /// The cluster's arithmetic.
    pub quorum: Quorum,
    /// The cluster.
    pub cluster: ClusterId,
    /// The membership.
    pub epoch: Epoch,
    /// Where the epoch begins: the checkpoint that closed the one before, which every member of this one holds
    /// for stable without another proof. [`CheckpointClaim::NONE`] in the first.
    pub base: CheckpointClaim,
    /// Digests of this cluster.
    pub digester: Digester,
    /// How many sequence numbers after the stable checkpoint are accepted.
    pub window: u64,
    /// How many bytes of one leader's proposals may be undecided at once, as they are logged.
    pub undecided_bytes_max: usize,
    /// How far a proposal's time may be from this replica's clock.
    pub clock_bound: Duration,
    /// Signs what has to travel.
    pub signing: SigningKey,
    /// Everybody's public signing keys, by replica.
    pub verifying: Vec<VerifyingKey>,
    /// Whether there is a log on disk to read decisions back from.
    pub has_log: bool,
}

/// What a part may decide for itself at one replica: a section of the replica's file.
pub trait PartConfig:
    fmt::Debug + Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Whether every value is one that the part works with. Asked of what a file says and of what a program
    /// says.
    ///
    /// # Errors
    /// The first rule that is broken.
    fn validate(&self) -> Result<(), InvalidSetting>;
}

/// A part with nothing to choose.
impl PartConfig for () {
    fn validate(&self) -> Result<(), InvalidSetting> {
        Ok(())
    }
}

/// A part of a replica: it can be made from its configuration.
pub trait Part: Sized {
    /// What it may decide for itself.
    type Config: PartConfig;

    /// The part, at the beginning of time. `config` was validated.
    fn make(config: &Self::Config, context: &PartContext) -> Self;
}

/// The configuration of a part.
pub type ConfigOf<P> = <P as Part>::Config;

/// A rule that a setting breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {value}: {rule}")]
pub struct InvalidSetting {
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: String,
    /// What it must be.
    pub rule: String,
}

/// Checks one value against an inclusive range.
///
/// # Errors
/// When it lies outside.
pub fn in_range<T: PartialOrd + ToString>(
    key: &'static str,
    value: T,
    range: std::ops::RangeInclusive<T>,
) -> Result<(), InvalidSetting> {
    if range.contains(&value) {
        return Ok(());
    }
    let rule = format!(
        "must be between {} and {}",
        range.start().to_string(),
        range.end().to_string()
    );
    Err(InvalidSetting {
        key,
        value: value.to_string(),
        rule,
    })
}
