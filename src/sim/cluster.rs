//! A simulated cluster for users' own applications.

use std::time::Duration;

use super::byzantine::ByzantineStrategy;
use super::checker::Violation;
use super::network::NetworkProfile;
use super::plan::{Fault, Plan, Profile, SimConfig};
use super::stack::Configured;
use super::world::World;
use crate::client::{CallError, TypedCallError, typed_result};
use crate::runtime::config::ReadLevel;
use crate::smr::execution::{Application, TypedApplication, encode_request};
use crate::smr::messages::Mode;
use crate::smr::replica::{DefaultStack, PartSettings, Stack};
use crate::smr::types::{ClientId, Digest, NodeId, SeqNo, Time};

/// How a [`Cluster`] is made.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    seed: u64,
    config: SimConfig,
    network: NetworkProfile,
    liars: Vec<(usize, Vec<ByzantineStrategy>)>,
}

impl ClusterBuilder {
    /// So many replicas, from 1 to 10; four if not said.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.config.replicas = replicas.clamp(1, crate::smr::types::REPLICAS_MAX);
        self
    }

    /// So many clients, at least one; one if not said.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.config.honest_clients = clients.max(1);
        self
    }

    /// The seed that everything follows from; 1 if not said.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// This replica lies in these ways, from the start. Together with those that crash, at most f of n = 3f+1
    /// replicas may be faulty if the others are to go on.
    #[must_use]
    pub fn liar(mut self, node: NodeId, lies: &[ByzantineStrategy]) -> Self {
        self.liars.push((node.index(), lies.to_vec()));
        self
    }

    /// How the links behave; calm if not said.
    #[must_use]
    pub fn network_profile(mut self, network: NetworkProfile) -> Self {
        self.network = network;
        self
    }

    /// Whether reads beside the order are linearizable, and cost ordered operations a quorum of answers; if
    /// not said, no.
    #[must_use]
    pub fn unordered(mut self, unordered: bool) -> Self {
        self.config.unordered = unordered;
        self
    }

    /// What reads promise; linearizable if not said.
    #[must_use]
    pub fn reads(mut self, reads: ReadLevel) -> Self {
        self.config.relaxed = reads == ReadLevel::Relaxed;
        self
    }

    /// Starts replicas of `application`, of the production stack.
    #[must_use]
    pub fn start<A: Application + Clone>(self, application: A) -> Cluster<A> {
        self.start_stack(application, PartSettings::default())
    }

    /// Starts replicas of `application` of any stack, their parts configured alike.
    ///
    /// # Panics
    /// When a part does not work with its configuration.
    #[must_use]
    pub fn start_stack<S: Stack<Application: Clone>>(
        self,
        application: S::Application,
        parts: PartSettings<S::Configs>,
    ) -> Cluster<S::Application, S> {
        if let Err(broken) = parts.validate() {
            panic!("{broken}");
        }
        let plan = Plan {
            network: self.network,
            liars: self.liars,
            calm_from: Time::from_nanos(u64::MAX),
            ..Plan::quiet(Profile::Net, self.seed, self.config)
        };
        Cluster {
            world: World::new(&plan, Configured { application, parts }),
        }
    }
}

/// A cluster of simulated replicas of one application, driven by hand.
///
/// ```
/// use std::time::Duration;
/// use atlas_smr_replica::execution::apps::counter::{self, Counter};
/// use atlas_smr_replica::sim::Cluster;
/// use atlas_smr_replica::types::NodeId;
///
/// let mut cluster = Cluster::new(Counter);
/// for expected in 1..=3 {
///     let sum = cluster.call(&counter::add(1), Duration::from_secs(1)).unwrap();
///     assert_eq!(counter::value(&sum), Some(expected));
/// }
/// // One of four replicas may fail.
/// cluster.crash(NodeId::new(3));
/// let sum = cluster.call(&counter::add(1), Duration::from_secs(1)).unwrap();
/// assert_eq!(counter::value(&sum), Some(4));
/// cluster.check().unwrap();
/// ```
pub struct Cluster<A: Application, S: Stack<Application = A> = DefaultStack<A>> {
    world: World<S>,
}

/// A call did not end in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimCallError {
    /// No f+1 equal answers within the time; the operation may still be executed.
    #[error("no f+1 equal answers in time")]
    TimedOut,
    /// The client was told why there is no result.
    #[error(transparent)]
    Failed(#[from] CallError),
}

impl From<SimCallError> for CallError {
    fn from(error: SimCallError) -> Self {
        match error {
            SimCallError::TimedOut => Self::DeadlineExceeded(Vec::new()),
            SimCallError::Failed(error) => error,
        }
    }
}

impl<A: Application + Clone> Cluster<A> {
    /// Four replicas, one client, a calm network.
    #[must_use]
    pub fn new(application: A) -> Self {
        Self::builder().start(application)
    }

    /// A cluster with other settings.
    #[must_use]
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            seed: 1,
            config: SimConfig {
                unordered: true,
                relaxed: true,
                ..SimConfig::calm(4, 1)
            },
            network: NetworkProfile::calm(),
            liars: Vec::new(),
        }
    }
}

impl<A: TypedApplication, S: Stack<Application = A>> Cluster<A, S> {
    /// As [`call_as`](Self::call_as), in the application's types.
    ///
    /// # Errors
    /// As [`TypedClient::call`](crate::client::TypedClient::call).
    ///
    /// # Panics
    /// When there is no such client.
    pub fn call_typed(
        &mut self,
        client: ClientId,
        request: &A::Request,
        within: Duration,
    ) -> Result<A::Reply, TypedCallError<A::Error>> {
        self.ask_typed(client, request, Mode::Ordered, within)
    }

    /// As [`read_as`](Self::read_as), in the application's types.
    ///
    /// # Errors
    /// As [`TypedClient::read`](crate::client::TypedClient::read).
    ///
    /// # Panics
    /// When there is no such client.
    pub fn read_typed(
        &mut self,
        client: ClientId,
        request: &A::Request,
        within: Duration,
    ) -> Result<A::Reply, TypedCallError<A::Error>> {
        self.ask_typed(client, request, Mode::Unordered, within)
    }

    fn ask_typed(
        &mut self,
        client: ClientId,
        request: &A::Request,
        mode: Mode,
        within: Duration,
    ) -> Result<A::Reply, TypedCallError<A::Error>> {
        let operation = encode_request::<A>(request)?;
        typed_result::<A>(
            self.ask(client, &operation, mode, within)
                .map_err(CallError::from),
        )
    }
}

impl<A: Application, S: Stack<Application = A>> Cluster<A, S> {
    /// Executes one ordered operation and lets virtual time pass until its result is known.
    ///
    /// # Errors
    /// When there is none within this much virtual time.
    pub fn call(&mut self, operation: &[u8], within: Duration) -> Result<Vec<u8>, SimCallError> {
        self.call_as(ClientId::new(0), operation, within)
    }

    /// As [`call`](Self::call), by another [client](ClusterBuilder::clients) than the first.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn call_as(
        &mut self,
        client: ClientId,
        operation: &[u8],
        within: Duration,
    ) -> Result<Vec<u8>, SimCallError> {
        self.ask(client, operation, Mode::Ordered, within)
    }

    /// Executes one read-only operation: beside the order where that gives what
    /// [reads](ClusterBuilder::reads) promise, else in order.
    ///
    /// # Errors
    /// When there is none within this much virtual time.
    pub fn read(&mut self, operation: &[u8], within: Duration) -> Result<Vec<u8>, SimCallError> {
        self.read_as(ClientId::new(0), operation, within)
    }

    /// As [`read`](Self::read), by another [client](ClusterBuilder::clients) than the first.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn read_as(
        &mut self,
        client: ClientId,
        operation: &[u8],
        within: Duration,
    ) -> Result<Vec<u8>, SimCallError> {
        self.ask(client, operation, Mode::Unordered, within)
    }

    fn ask(
        &mut self,
        client: ClientId,
        operation: &[u8],
        mode: Mode,
        within: Duration,
    ) -> Result<Vec<u8>, SimCallError> {
        let client = client.get() as usize;
        assert!(
            client < self.world.config.honest_clients,
            "there is no client {client}"
        );
        let until = self.world.now.after(within);
        let call = self
            .world
            .call_at(self.world.now, client, operation.to_vec(), mode);
        while self.world.calls[call].end.is_none() && self.world.step(until) {}
        match &self.world.calls[call].end {
            Some((_, result)) => Ok(result.clone()?),
            None => Err(SimCallError::TimedOut),
        }
    }

    /// Lets virtual time pass.
    pub fn run_for(&mut self, duration: Duration) {
        let until = self.world.now.after(duration);
        while self.world.step(until) {}
        self.world.now = self.world.now.max(until);
    }

    /// A replica loses power for good.
    pub fn crash(&mut self, node: NodeId) {
        if node.index() < self.world.hosts.len() {
            self.world.crash(node.index());
        }
    }

    /// Cuts these replicas off from the others until [`heal`](Self::heal); what is sent meanwhile is lost.
    pub fn cut_off(&mut self, nodes: &[NodeId]) {
        let is_inside = |host: &usize| nodes.iter().any(|node| node.index() == *host);
        let (from, to): (Vec<usize>, Vec<usize>) = (0..self.world.hosts.len()).partition(is_inside);
        let until = self.world.now.after(Duration::from_secs(1 << 30));
        self.world.network.lose_at_cuts();
        self.world.strike(&Fault::Partition {
            from,
            to,
            both: true,
            until,
        });
    }

    /// Ends every partition.
    pub fn heal(&mut self) {
        self.world.network.heal();
    }

    /// How much virtual time has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.world.now.since(Time::START)
    }

    /// The last decision of each replica and the digest of its state after it.
    pub fn states(&mut self) -> Vec<(SeqNo, Digest)> {
        let hosts = self.world.hosts.iter_mut();
        hosts
            .map(|host| host.sim.digest_now())
            .map(|claim| (claim.seq, claim.digest))
            .collect()
    }

    /// Whether every rule held so far, and replicas at the same decision have the same state.
    ///
    /// # Errors
    /// The first rule that was broken: the application is not deterministic, or the protocol is wrong.
    pub fn check(&mut self) -> Result<(), Violation> {
        self.world.check_end(false);
        self.world.violation.clone().map_or(Ok(()), Err)
    }
}
