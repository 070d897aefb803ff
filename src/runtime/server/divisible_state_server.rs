//! Replicas of services whose state consists of parts.
//!
//! The protocols are those of [`MonReplica`]: every state is kept and transferred in pieces that are checked
//! one by one. What a [`DivisibleState`] adds is that it says what its pieces are, and which of them changed:
//! a checkpoint copies and digests what was written to since the last one, and a replica that lags behind is
//! sent what its own snapshot does not have.

use super::host::{DefaultHost, Host};
use super::monolithic_server::{BoxedRun, MonReplica};
use super::{ReplicaError, ReplicaHandle};
use crate::runtime::config::{DivisibleStateReplicaConfig, MonolithicStateReplicaConfig, PartConfigs};
use crate::smr::execution::{Application, DivisibleState, ScalableApp};
use crate::smr::replica::{DefaultStack, SpeculativeStack, Stack};

/// A replica of service `A`, whose state is in parts, built from the stack `S`, on the host `H`.
///
/// Its shards run from [`bootstrap`](Self::bootstrap) on; [`run`](Self::run) waits for their end. Both can be
/// awaited on any runtime.
pub struct DivStReplica<
    A: Application<State: DivisibleState>,
    S: Stack = DefaultStack<A>,
    H: Host = DefaultHost,
> {
    replica: MonReplica<A, S, H>,
}

impl<A: Application<State: DivisibleState>> DivStReplica<A> {
    /// Starts a replica: listens, dials, and takes part as soon as links are up.
    ///
    /// # Errors
    /// When the address, the topology or the kernel does not allow it.
    pub async fn bootstrap(config: DivisibleStateReplicaConfig<A>) -> Result<Self, ReplicaError> {
        let replica = MonReplica::bootstrap(pieces(config)).await?;
        Ok(Self { replica })
    }
}

impl<A: ScalableApp<State: DivisibleState>> DivStReplica<A, SpeculativeStack<A>> {
    /// As [`bootstrap`](DivStReplica::bootstrap), with speculative execution on the configured number of
    /// workers.
    ///
    /// # Errors
    /// As there.
    pub async fn bootstrap_speculative(config: DivisibleStateReplicaConfig<A>) -> Result<Self, ReplicaError> {
        let replica = MonReplica::bootstrap_speculative(pieces(config)).await?;
        Ok(Self { replica })
    }
}

impl<A: Application<State: DivisibleState>, S: Stack<Application = A>, H: Host> DivStReplica<A, S, H> {
    /// Starts a replica of any stack on any host.
    ///
    /// # Errors
    /// As [`bootstrap`](DivStReplica::bootstrap).
    pub async fn bootstrap_stack(
        config: DivisibleStateReplicaConfig<A, S::Configs, H>,
    ) -> Result<Self, ReplicaError> {
        let replica = MonReplica::bootstrap_stack(pieces(config)).await?;
        Ok(Self { replica })
    }

    /// To look at the replica, and to shut it down, from anywhere.
    #[must_use]
    pub fn handle(&self) -> ReplicaHandle {
        self.replica.handle()
    }

    /// Waits until the replica was shut down or failed.
    ///
    /// # Errors
    /// The first failure of one of its threads; the others are shut down then.
    pub async fn run(self) -> Result<(), ReplicaError> {
        self.replica.run().await
    }
}

/// A replica of a scalable service with the execution model its configuration names: its handle, and its end.
///
/// # Errors
/// As [`DivStReplica::bootstrap`].
pub async fn bootstrap_as_configured<A: ScalableApp<State: DivisibleState>>(
    config: DivisibleStateReplicaConfig<A>,
) -> Result<(ReplicaHandle, BoxedRun), ReplicaError> {
    super::monolithic_server::bootstrap_as_configured(pieces(config)).await
}

/// Parts are pieces.
fn pieces<A, P: PartConfigs, H: Host>(
    config: DivisibleStateReplicaConfig<A, P, H>,
) -> MonolithicStateReplicaConfig<A, P, H> {
    let DivisibleStateReplicaConfig {
        service,
        replica_config,
        st_config,
    } = config;
    MonolithicStateReplicaConfig {
        service,
        replica_config,
        st_config,
    }
}
