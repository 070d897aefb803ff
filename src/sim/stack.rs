//! The stack of simulated replicas: each host has an executor of its own kind.

use std::marker::PhantomData;
use std::sync::Arc;

use super::SimConfig;
use super::keys::CLUSTER;
use crate::smr::crypto::{Chain, Digester};
use crate::smr::decision_log::{ChainedLog, DecisionLogConfig};
use crate::smr::execution::{
    Application, CheckpointRule, ExecutionEvent, Executor, ExecutorPart, ExecutorSettings, ScalableApp,
    SessionWindows, SingleThreaded, Speculative,
};
use crate::smr::log_transfer::RangedLogTransfer;
use crate::smr::messages::{CheckpointClaim, Frame, FrameId, Proposal, SnapshotError};
use crate::smr::ordering::pbft::{OrderingConfig, Pbft};
use crate::smr::protocol::PartContext;
use crate::smr::replica::{DefaultConfigs, PartSettings, Protocols, Stack};
use crate::smr::state_transfer::monolithic::PieceTransfer;
use crate::smr::types::{Epoch, SeqNo};
use crate::smr::view_transfer::pbft::PbftViewChange;

/// Any executor.
pub(super) struct AnyExecutor(Box<dyn Executor>);

impl Executor for AnyExecutor {
    fn execute(&mut self, decision: &Arc<Proposal>, events: &mut Vec<ExecutionEvent>) {
        self.0.execute(decision, events);
    }

    fn has_room(&self) -> bool {
        self.0.has_room()
    }

    fn step(&mut self, events: &mut Vec<ExecutionEvent>) -> bool {
        self.0.step(events)
    }

    fn has_work(&self) -> bool {
        self.0.has_work()
    }

    fn is_settled(&self) -> bool {
        self.0.is_settled()
    }

    fn wants_help(&self) -> bool {
        self.0.wants_help()
    }

    fn settle(&mut self, events: &mut Vec<ExecutionEvent>) {
        self.0.settle(events);
    }

    fn aborts(&self) -> u64 {
        self.0.aborts()
    }

    fn execute_unordered(&mut self, frame: &Frame, events: &mut Vec<ExecutionEvent>) {
        self.0.execute_unordered(frame, events);
    }

    fn reply_again(&mut self, frame: &FrameId, events: &mut Vec<ExecutionEvent>) {
        self.0.reply_again(frame, events);
    }

    fn background_step(&mut self, budget_bytes: usize, events: &mut Vec<ExecutionEvent>) -> bool {
        self.0.background_step(budget_bytes, events)
    }

    fn digest_now(&mut self) -> CheckpointClaim {
        self.0.digest_now()
    }

    fn keep_snapshots(&mut self, keep: bool) {
        self.0.keep_snapshots(keep);
    }

    fn read_snapshot_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.0.read_snapshot_chunk(chunk)
    }

    fn finish_snapshot(&mut self) -> Result<CheckpointClaim, SnapshotError> {
        self.0.finish_snapshot()
    }

    fn chain(&self) -> Chain {
        self.0.chain()
    }

    fn client_windows(&self) -> Vec<SessionWindows> {
        self.0.client_windows()
    }

    fn executed(&self) -> SeqNo {
        self.0.executed()
    }

    fn panics(&self) -> u64 {
        self.0.panics()
    }
}

impl<A: Application> ExecutorPart<A> for AnyExecutor {
    fn make(application: A, settings: &ExecutorSettings) -> Self {
        Self(Box::new(SingleThreaded::make(application, settings)))
    }
}

/// Makes the parts of a process.
pub(super) trait PartsMaker<S: Stack> {
    /// Its protocols.
    fn protocols(&self, config: &SimConfig, context: &PartContext) -> Protocols<S>;

    /// Its executor; `true` asks for the speculative one, where there is one.
    fn executor(&self, config: &SimConfig, epoch: Epoch, speculates: bool) -> S::Executor;
}

/// What executors of a run are made with.
fn settings(config: &SimConfig, epoch: Epoch) -> ExecutorSettings {
    ExecutorSettings {
        clients: config.clients(),
        digester: Digester::new(CLUSTER),
        epoch,
        rule: CheckpointRule {
            decisions: config.checkpoint_decisions,
            bytes: config.checkpoint_bytes,
            state: config.state_rule,
        },
        results: config.results,
    }
}

/// The production stack with any executor.
pub(super) struct SimStack<A>(PhantomData<fn() -> A>);

impl<A: Application> Stack for SimStack<A> {
    type Application = A;
    type Configs = DefaultConfigs;
    type Ordering = Pbft;
    type ViewTransfer = PbftViewChange;
    type DecisionLog = ChainedLog;
    type LogTransfer = RangedLogTransfer;
    type StateTransfer = PieceTransfer<A::State>;
    type Executor = AnyExecutor;
}

/// The production stack as the settings of a run have it, with executors of both kinds.
pub(super) struct Mixed<A>(pub A);

impl<A: ScalableApp + Clone> PartsMaker<SimStack<A>> for Mixed<A> {
    fn protocols(&self, config: &SimConfig, context: &PartContext) -> Protocols<SimStack<A>> {
        let settings = PartSettings {
            ordering: OrderingConfig {
                pipeline: config.pipeline,
            },
            decision_log: DecisionLogConfig {
                kept_decisions: config.kept_for_peers,
                kept_bytes: config.kept_bytes,
            },
            ..PartSettings::default()
        };
        let mut protocols = Protocols::make(&settings, context);
        // A run's timings are finer than a file's.
        protocols.view_transfer = PbftViewChange::new(context, config.timings);
        protocols
    }

    fn executor(&self, config: &SimConfig, epoch: Epoch, speculates: bool) -> AnyExecutor {
        let (application, settings) = (self.0.clone(), settings(config, epoch));
        match speculates {
            true => AnyExecutor(Box::new(Speculative::make(application, &settings))),
            false => AnyExecutor::make(application, &settings),
        }
    }
}

/// Any stack, as a replica's file would have it.
pub(super) struct Configured<S: Stack> {
    pub application: S::Application,
    pub parts: PartSettings<S::Configs>,
}

impl<S: Stack<Application: Clone>> PartsMaker<S> for Configured<S> {
    fn protocols(&self, _: &SimConfig, context: &PartContext) -> Protocols<S> {
        Protocols::make(&self.parts, context)
    }

    fn executor(&self, config: &SimConfig, epoch: Epoch, _: bool) -> S::Executor {
        S::Executor::make(self.application.clone(), &settings(config, epoch))
    }
}
