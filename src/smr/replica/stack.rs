use std::marker::PhantomData;

use super::Protocols;
use crate::smr::decision_log::{ChainedLog, DecisionLog, DecisionLogConfig};
use crate::smr::execution::{Application, ExecutorPart, ScalableApp, SingleThreaded, Speculative};
use crate::smr::log_transfer::{LogTransferConfig, LogTransferProtocol, RangedLogTransfer};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::ordering::pbft::{OrderingConfig, Pbft};
use crate::smr::protocol::{InvalidSetting, Part, PartConfig, PartContext};
use crate::smr::state_transfer::monolithic::PieceTransfer;
use crate::smr::state_transfer::{StateTransferConfig, StateTransferPartConfig, StateTransferProtocol};
use crate::smr::view_transfer::ViewTransferProtocol;
use crate::smr::view_transfer::pbft::{PbftViewChange, ViewTransferConfig};

/// The protocols a replica is built from: swapping one is changing one associated type.
pub trait Stack: Sized + Send + 'static {
    /// The service.
    type Application: Application;
    /// How its parts are configured.
    type Configs: PartConfigs;
    /// How batches are ordered.
    type Ordering: OrderingProtocol + Part<Config = <Self::Configs as PartConfigs>::Ordering> + Send;
    /// How leaders are replaced.
    type ViewTransfer: ViewTransferProtocol<
            Evidence = <Self::Ordering as OrderingProtocol>::Evidence,
            Start = <Self::Ordering as OrderingProtocol>::Start,
        > + Part<Config = <Self::Configs as PartConfigs>::ViewTransfer>
        + Send;
    /// How decisions are kept.
    type DecisionLog: DecisionLog + Part<Config = <Self::Configs as PartConfigs>::DecisionLog> + Send;
    /// How decisions come from other replicas.
    type LogTransfer: LogTransferProtocol + Part<Config = <Self::Configs as PartConfigs>::LogTransfer> + Send;
    /// How states come from other replicas.
    type StateTransfer: StateTransferProtocol
        + Part<Config = <Self::Configs as PartConfigs>::StateTransfer>
        + Send;
    /// How decisions are executed.
    type Executor: ExecutorPart<Self::Application> + 'static;
}

/// How the parts of a stack are configured, by kind: the sections of a replica's file that are theirs.
pub trait PartConfigs: Sized + std::fmt::Debug + Clone + PartialEq + Eq + Send + Sync + 'static {
    /// `[ordering]`
    type Ordering: PartConfig;
    /// `[view_transfer]`
    type ViewTransfer: PartConfig;
    /// `[decision_log]`
    type DecisionLog: PartConfig;
    /// `[log_transfer]`
    type LogTransfer: PartConfig;
    /// `[state_transfer]`
    type StateTransfer: StateTransferPartConfig;
}

/// The configurations of the parts of [`DefaultStack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultConfigs;

impl PartConfigs for DefaultConfigs {
    type Ordering = OrderingConfig;
    type ViewTransfer = ViewTransferConfig;
    type DecisionLog = DecisionLogConfig;
    type LogTransfer = LogTransferConfig;
    type StateTransfer = StateTransferConfig;
}

/// What the parts of one replica decide for themselves.
#[derive(Debug, Clone)]
pub struct PartSettings<P: PartConfigs = DefaultConfigs> {
    /// How batches are ordered.
    pub ordering: P::Ordering,
    /// How leaders are replaced.
    pub view_transfer: P::ViewTransfer,
    /// How decisions are kept.
    pub decision_log: P::DecisionLog,
    /// How decisions come from other replicas.
    pub log_transfer: P::LogTransfer,
    /// How states come from other replicas.
    pub state_transfer: P::StateTransfer,
}

impl<P: PartConfigs> Default for PartSettings<P> {
    fn default() -> Self {
        Self {
            ordering: P::Ordering::default(),
            view_transfer: P::ViewTransfer::default(),
            decision_log: P::DecisionLog::default(),
            log_transfer: P::LogTransfer::default(),
            state_transfer: P::StateTransfer::default(),
        }
    }
}

impl<P: PartConfigs> PartSettings<P> {
    /// Whether every part works with what was chosen for it.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        self.ordering.validate()?;
        self.view_transfer.validate()?;
        self.decision_log.validate()?;
        self.log_transfer.validate()?;
        self.state_transfer.validate()
    }
}

impl<S: Stack> Protocols<S> {
    /// Every protocol of the stack, at the beginning of time. The settings were validated.
    #[must_use]
    pub fn make(settings: &PartSettings<S::Configs>, context: &PartContext) -> Self {
        Self {
            ordering: Part::make(&settings.ordering, context),
            view_transfer: Part::make(&settings.view_transfer, context),
            decision_log: Part::make(&settings.decision_log, context),
            log_transfer: Part::make(&settings.log_transfer, context),
            state_transfer: Part::make(&settings.state_transfer, context),
        }
    }
}

/// The ordering protocol of a stack.
pub type OrderingOf<S> = <S as Stack>::Ordering;
/// The view transfer protocol of a stack.
pub type ViewTransferOf<S> = <S as Stack>::ViewTransfer;
/// What the ordering protocol of a stack says beside proposals.
pub type MessageOf<S> = <OrderingOf<S> as OrderingProtocol>::Message;
/// What the view transfer protocol of a stack says.
pub type ViewMessageOf<S> = <ViewTransferOf<S> as ViewTransferProtocol>::Message;
/// The decision log of a stack.
pub type DecisionLogOf<S> = <S as Stack>::DecisionLog;
/// The log transfer of a stack.
pub type LogTransferOf<S> = <S as Stack>::LogTransfer;
/// The state transfer of a stack.
pub type StateTransferOf<S> = <S as Stack>::StateTransfer;
/// The executor of a stack.
pub type ExecutorOf<S> = <S as Stack>::Executor;
/// The application of a stack.
pub type ApplicationOf<S> = <S as Stack>::Application;

/// The production stack: PBFT, single-threaded execution.
pub struct DefaultStack<A>(PhantomData<fn() -> A>);

impl<A: Application> Stack for DefaultStack<A> {
    type Application = A;
    type Configs = DefaultConfigs;
    type Ordering = Pbft;
    type ViewTransfer = PbftViewChange;
    type DecisionLog = ChainedLog;
    type LogTransfer = RangedLogTransfer;
    type StateTransfer = PieceTransfer<A::State>;
    type Executor = SingleThreaded<A>;
}

/// The production stack with speculative execution on several threads.
pub struct SpeculativeStack<A>(PhantomData<fn() -> A>);

impl<A: ScalableApp> Stack for SpeculativeStack<A> {
    type Application = A;
    type Configs = DefaultConfigs;
    type Ordering = Pbft;
    type ViewTransfer = PbftViewChange;
    type DecisionLog = ChainedLog;
    type LogTransfer = RangedLogTransfer;
    type StateTransfer = PieceTransfer<A::State>;
    type Executor = Speculative<A>;
}
