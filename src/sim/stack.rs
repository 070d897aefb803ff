//! The stack of simulated replicas: each host has an executor of its own kind.

use std::marker::PhantomData;
use std::sync::Arc;

use super::Knobs;
use super::keys::CLUSTER;
use crate::smr::crypto::{Chain, Digester};
use crate::smr::decision_log::ChainedLog;
use crate::smr::execution::{
    Application, CheckpointRule, ExecutionEvent, Executor, ScalableApp, SessionWindows, SingleThreaded,
    Speculative,
};
use crate::smr::log_transfer::RangedLogTransfer;
use crate::smr::messages::{CheckpointClaim, Frame, FrameId, ImageError, Proposal};
use crate::smr::ordering::pbft::Pbft;
use crate::smr::replica::Stack;
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

    fn keep_images(&mut self, keep: bool) {
        self.0.keep_images(keep);
    }

    fn read_image_chunk(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        self.0.read_image_chunk(chunk)
    }

    fn finish_image(&mut self) -> Result<CheckpointClaim, ImageError> {
        self.0.finish_image()
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

/// Makes the executor of a process; `true` asks for the speculative one, where there is one.
pub(super) type ExecutorMaker = Box<dyn Fn(&Knobs, bool) -> AnyExecutor>;

fn rule(knobs: &Knobs) -> CheckpointRule {
    CheckpointRule {
        decisions: knobs.checkpoint_decisions,
        bytes: knobs.checkpoint_bytes,
        state: knobs.state_rule,
    }
}

/// Executors that execute one operation after the other.
pub(super) fn single<A: Application + Clone>(application: A) -> ExecutorMaker {
    Box::new(move |knobs, _| {
        let digester = Digester::new(CLUSTER);
        let (clients, rule) = (knobs.clients(), rule(knobs));
        let executor = SingleThreaded::new(application.clone(), clients, digester, Epoch::ZERO, rule);
        let executor = executor.limit_results(knobs.results);
        AnyExecutor(Box::new(executor))
    })
}

/// Executors of both kinds.
pub(super) fn mixed<A: ScalableApp + Clone>(application: A) -> ExecutorMaker {
    let single = single(application.clone());
    Box::new(move |knobs, speculates| {
        if !speculates {
            return single(knobs, false);
        }
        let digester = Digester::new(CLUSTER);
        let (clients, rule) = (knobs.clients(), rule(knobs));
        let executor = Speculative::new(application.clone(), clients, digester, Epoch::ZERO, rule);
        let executor = executor.limit_results(knobs.results);
        AnyExecutor(Box::new(executor))
    })
}

/// The production stack with any executor.
pub(super) struct SimStack<A>(PhantomData<fn() -> A>);

impl<A: Application> Stack for SimStack<A> {
    type Application = A;
    type Ordering = Pbft;
    type ViewTransfer = PbftViewChange;
    type DecisionLog = ChainedLog;
    type LogTransfer = RangedLogTransfer;
    type StateTransfer = PieceTransfer<A::State>;
    type Executor = AnyExecutor;
}
