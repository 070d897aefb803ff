//! Replicas of services whose state is transferred as a whole.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use futures_channel::oneshot;
use futures_lite::StreamExt;

use super::assembly::{Assembly, Ended, assemble};
use super::host::{DefaultHost, Host};
use super::{ReplicaError, ReplicaHandle, check_application};
use crate::runtime::config::{ExecutorKind, MonolithicStateReplicaConfig};
use crate::runtime::flight::{DumpCause, DumpError};
use crate::runtime::shard::ShardError;
use crate::runtime::shard::faults::Interceptor;
use crate::smr::execution::{Application, ScalableApp};
use crate::smr::replica::{DefaultStack, SpeculativeStack, Stack};

/// A replica of service `A`, built from the stack `S`, on the host `H`.
///
/// Its shards run from [`bootstrap`](Self::bootstrap) on; [`run`](Self::run) waits for their end. Both can be
/// awaited on any runtime.
pub struct MonReplica<A: Application, S: Stack = DefaultStack<A>, H: Host = DefaultHost> {
    assembly: Assembly,
    _types: PhantomData<TypesOf<A, S, H>>,
}

/// What a replica was built of.
type TypesOf<A, S, H> = fn() -> (A, S, H);

impl<A: Application> MonReplica<A> {
    /// Starts a replica: listens, dials, and takes part as soon as links are up. Its caller's thread is not
    /// held up; [`ReplicaHandle::await_quorum`] waits for links.
    ///
    /// # Errors
    /// When the configuration, the address, the topology, the files or the kernel do not allow it, or when
    /// the configuration asks for an executor that takes a [`ScalableApp`] ([`bootstrap_as_configured`]).
    pub async fn bootstrap(config: MonolithicStateReplicaConfig<A>) -> Result<Self, ReplicaError> {
        let configured = config.replica_config.execution.executor;
        if configured != ExecutorKind::Single {
            let built = ExecutorKind::Single;
            return Err(ReplicaError::Executor { configured, built });
        }
        Self::bootstrap_stack(config).await
    }
}

impl<A: ScalableApp> MonReplica<A, SpeculativeStack<A>> {
    /// As [`bootstrap`](MonReplica::bootstrap), with speculative execution on the configured number of
    /// workers.
    ///
    /// # Errors
    /// As there.
    pub async fn bootstrap_speculative(
        mut config: MonolithicStateReplicaConfig<A>,
    ) -> Result<Self, ReplicaError> {
        config.replica_config.execution.executor = ExecutorKind::Speculative;
        Self::bootstrap_stack(config).await
    }
}

impl<A: Application, S: Stack<Application = A>, H: Host> MonReplica<A, S, H> {
    /// Starts a replica of any stack on any host: how it executes is the stack's business.
    ///
    /// # Errors
    /// As [`bootstrap`](MonReplica::bootstrap).
    pub async fn bootstrap_stack(
        config: MonolithicStateReplicaConfig<A, S::Configs, H>,
    ) -> Result<Self, ReplicaError> {
        Self::bootstrap_as(config, None).await
    }

    /// Starts a replica that says what `liar` makes of its words.
    pub(crate) async fn bootstrap_as(
        config: MonolithicStateReplicaConfig<A, S::Configs, H>,
        liar: Option<Box<dyn Interceptor>>,
    ) -> Result<Self, ReplicaError> {
        let MonolithicStateReplicaConfig {
            service,
            replica_config,
            st_config,
        } = config;
        check_application(&service, &replica_config.node.cluster)?;
        let (done, assembled) = oneshot::channel();
        let name = format!("start-{}", replica_config.node.id);
        // The log is read back, which takes as long as the log is.
        let start = move || {
            let assembly = assemble::<S, H>(service, &replica_config, &st_config, liar);
            // Whoever waited may have given up; what was started ends with its handle.
            if let Err(Ok(unwanted)) = done.send(assembly) {
                unwanted.handle.shutdown();
            }
        };
        let thread = std::thread::Builder::new().name(name.clone()).spawn(start);
        thread.map_err(|source| {
            ReplicaError::Shard(ShardError::Thread {
                shard: name.clone(),
                source,
            })
        })?;
        let panicked = ShardError::Panicked {
            shard: name,
            message: "see its message above".to_owned(),
        };
        let assembly = assembled.await.map_err(|_| panicked)??;
        Ok(Self {
            assembly,
            _types: PhantomData,
        })
    }
}

/// A replica of a scalable service with the execution model its configuration names: its handle, and its end.
///
/// # Errors
/// As [`MonReplica::bootstrap`].
pub async fn bootstrap_as_configured<A: ScalableApp>(
    config: MonolithicStateReplicaConfig<A>,
) -> Result<(ReplicaHandle, BoxedRun), ReplicaError> {
    bootstrap_with_faults(config, None).await
}

/// As [`bootstrap_as_configured`]; the replica says what `liar` makes of its words.
pub(crate) async fn bootstrap_with_faults<A: ScalableApp>(
    config: MonolithicStateReplicaConfig<A>,
    liar: Option<Box<dyn Interceptor>>,
) -> Result<(ReplicaHandle, BoxedRun), ReplicaError> {
    Ok(match config.replica_config.execution.executor {
        ExecutorKind::Single => {
            let replica = MonReplica::<A>::bootstrap_as(config, liar).await?;
            (replica.handle(), Box::pin(replica.run()))
        }
        ExecutorKind::Speculative => {
            let replica = MonReplica::<A, SpeculativeStack<A>>::bootstrap_as(config, liar).await?;
            (replica.handle(), Box::pin(replica.run()))
        }
    })
}

/// What waits for the end of a replica, whatever its stack.
pub type BoxedRun = Pin<Box<dyn Future<Output = Result<(), ReplicaError>> + Send>>;

/// How long the end of a replica that failed waits for the record of its last events to be written.
const RECORD_WAIT: Duration = Duration::from_secs(2);

/// Writes what happened before a thread failed, on a thread of its own. What is returned hears of its end.
fn record_failure(handle: &ReplicaHandle, error: &ShardError) -> Receiver<()> {
    let (done, end) = mpsc::channel();
    let told = move |result: Result<PathBuf, DumpError>| {
        match result {
            Ok(path) => tracing::error!(path = %path.display(), "its last events are in this file"),
            Err(DumpError::Off) => {}
            Err(error) => tracing::warn!(%error, "its last events are not written"),
        }
        // Nobody waiting any more is fine.
        let _ = done.send(());
    };
    let flight = handle.flight();
    if let Err(error) = flight.dump_aside(DumpCause::Failure, error.to_string(), told) {
        tracing::warn!(%error, "its last events are not written");
    }
    end
}

impl<A: Application, S: Stack, H: Host> MonReplica<A, S, H> {
    /// To look at the replica, and to shut it down, from anywhere.
    #[must_use]
    pub fn handle(&self) -> ReplicaHandle {
        self.assembly.handle.clone()
    }

    /// Waits until the replica was shut down or failed.
    ///
    /// # Errors
    /// The first failure of one of its threads; the others are shut down then.
    pub async fn run(self) -> Result<(), ReplicaError> {
        let Assembly {
            handle,
            control,
            storage_worker,
            admin,
            mut ended,
            mut shards,
        } = self.assembly;
        let mut result = Ok(());
        let mut recorded = None;
        while shards > 0 {
            let Some(end) = ended.next().await else { break };
            let error = match end {
                Ended::Shard(end) => {
                    shards -= 1;
                    end.err()
                }
                Ended::Died(error) => Some(error),
            };
            if let Some(error) = error {
                tracing::error!(%error, "the replica stops: one of its threads failed");
                recorded.get_or_insert_with(|| record_failure(&handle, &error));
                result = result.and(Err(error.into()));
                handle.shutdown();
            }
        }
        let stopped = control.stop();
        drop(storage_worker);
        drop(admin);
        if let Some(recorded) = recorded {
            // A disk that hangs does not keep the replica from ending.
            let _ = recorded.recv_timeout(RECORD_WAIT);
        }
        result.and(stopped.map_err(ReplicaError::from))
    }
}
