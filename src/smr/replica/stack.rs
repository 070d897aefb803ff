use std::marker::PhantomData;

use crate::smr::decision_log::{ChainedLog, DecisionLog};
use crate::smr::execution::{Application, Executor, ScalableApp, SingleThreaded, Speculative};
use crate::smr::log_transfer::{LogTransferProtocol, RangedLogTransfer};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::ordering::pbft::Pbft;
use crate::smr::state_transfer::StateTransferProtocol;
use crate::smr::state_transfer::monolithic::PieceTransfer;
use crate::smr::view_transfer::ViewTransferProtocol;
use crate::smr::view_transfer::pbft::PbftViewChange;

/// The protocols a replica is built from: swapping one is changing one associated type.
pub trait Stack: Sized + Send + 'static {
    /// The service.
    type Application: Application;
    /// How batches are ordered.
    type Ordering: OrderingProtocol + Send;
    /// How leaders are replaced.
    type ViewTransfer: ViewTransferProtocol + Send;
    /// How decisions are kept.
    type DecisionLog: DecisionLog + Send;
    /// How decisions come from other replicas.
    type LogTransfer: LogTransferProtocol + Send;
    /// How states come from other replicas.
    type StateTransfer: StateTransferProtocol + Send;
    /// How decisions are executed.
    type Executor: Executor + 'static;
}

/// The ordering protocol of a stack.
pub type OrderingOf<S> = <S as Stack>::Ordering;
/// The view transfer protocol of a stack.
pub type ViewTransferOf<S> = <S as Stack>::ViewTransfer;
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
    type Ordering = Pbft;
    type ViewTransfer = PbftViewChange;
    type DecisionLog = ChainedLog;
    type LogTransfer = RangedLogTransfer;
    type StateTransfer = PieceTransfer<A::State>;
    type Executor = Speculative<A>;
}
