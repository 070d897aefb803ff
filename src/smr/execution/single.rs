use std::cell::Cell;
use std::sync::Arc;

use super::execution_ledger::{CheckpointRule, ExecutionLedger};
use super::guard::guarded;
use super::{
    Application, ExecutionEvent, Executor, ExecutorPart, ExecutorSettings, FrameStatus, MonolithicState,
    OperationContext, PREPARED_OPERATIONS, ResultLimits, ResultWriter, SessionWindows, SnapshotError,
};
use crate::smr::crypto::{Chain, Digester};
use crate::smr::messages::{
    CheckpointClaim, Frame, FrameId, Mode, Operations, Proposal, ReplyBuilder, StateRead,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{Epoch, SeqNo};

/// Executes decisions one operation after the other.
pub struct SingleThreaded<A: Application> {
    application: A,
    state: A::State,
    book: ExecutionLedger<A::State>,
    limits: ResultLimits,
    result: ResultWriter,
    reply: ReplyBuilder,
    panics: u64,
}

impl<A: Application> SingleThreaded<A> {
    /// An executor at the application's initial state, for clients `0..clients`.
    #[must_use]
    pub fn new(
        application: A,
        clients: usize,
        digester: Digester,
        epoch: Epoch,
        rule: CheckpointRule,
    ) -> Self {
        let state = application.initial_state();
        Self {
            application,
            state,
            book: ExecutionLedger::new(clients, digester, epoch, rule),
            limits: ResultLimits::default(),
            result: ResultWriter::default(),
            reply: ReplyBuilder::default(),
            panics: 0,
        }
    }

    /// Other limits of results. Must be equal at every replica: replies are part of checkpoints.
    #[must_use]
    pub fn limit_results(mut self, limits: ResultLimits) -> Self {
        self.limits = limits;
        self.result.reset(limits.operation_bytes_max);
        self
    }

    /// The state, to look at.
    #[must_use]
    pub fn state(&self) -> &A::State {
        &self.state
    }

    /// Runs a frame's operations into the reply builder, as many as its results leave room for; how many. A
    /// panic costs the one operation. `first` operations of the decision come before it.
    fn run_frame(&mut self, frame: &Frame, first: usize) -> usize {
        let body = frame.body();
        let mut operations = body.operations();
        let Self {
            application,
            state,
            reply,
            result,
            ..
        } = self;
        let (writes, frame_bytes) = (frame.mode().writes(), self.limits.frame_bytes);
        let mut prepares = writes;
        let mut context = OperationContext::new(self.book.executed, frame.key().client, first as u32);
        if !writes {
            context = context.reading();
        }
        let is_running = Cell::new(false);
        let mut panics = 0;
        result.swap_bytes(reply.buffer());
        let mut end = |context: &mut OperationContext, result: &mut ResultWriter| {
            let failure = result.end();
            reply.end_result_at(result.bytes().len(), failure);
            *context = context.next();
        };
        loop {
            // One catch per frame while nothing panics: each operation would cost more.
            let run = guarded(|| {
                while operations.len() > 0 && result.bytes().len() < frame_bytes {
                    if prepares {
                        prepare(application, state, &operations);
                    }
                    for _ in 0..PREPARED_OPERATIONS {
                        if result.bytes().len() >= frame_bytes {
                            break;
                        }
                        let Some(operation) = operations.next() else { break };
                        is_running.set(true);
                        if writes || active(Mutant::ReadUpdates) {
                            state.begin_operation();
                            application.update(state, &context, operation, result);
                            state.keep_operation();
                        } else {
                            application.unordered_execution(state, &context, operation, result);
                        }
                        is_running.set(false);
                        end(&mut context, result);
                    }
                }
            });
            if run.is_ok() {
                break;
            }
            match is_running.take() {
                true => {
                    panics += 1;
                    if writes && !active(Mutant::PanicKept) {
                        state.undo_operation();
                    }
                    result.panicked();
                    end(&mut context, result);
                }
                // A hint panicked. The operations are executed without any.
                false => prepares = false,
            }
        }
        result.swap_bytes(reply.buffer());
        self.panics += panics;
        self.reply.results()
    }
}

/// Tells the application which operations come next.
fn prepare<A: Application>(application: &A, state: &A::State, operations: &Operations<'_>) {
    let mut next: [&[u8]; PREPARED_OPERATIONS] = [&[]; PREPARED_OPERATIONS];
    let slots = next.iter_mut().zip(operations.clone());
    let count = slots.map(|(slot, operation)| *slot = operation).count();
    application.prepare(state, &next[..count]);
}

impl<A: Application> ExecutorPart<A> for SingleThreaded<A> {
    fn make(application: A, settings: &ExecutorSettings) -> Self {
        let digester = settings.digester.clone();
        Self::new(
            application,
            settings.clients,
            digester,
            settings.epoch,
            settings.rule,
        )
        .limit_results(settings.results)
    }
}

impl<A: Application> Executor for SingleThreaded<A> {
    fn execute(&mut self, decision: &Arc<Proposal>, events: &mut Vec<ExecutionEvent>) {
        let context = self.book.context_after(self.book.executed, decision);
        self.book.begin(context, decision.view);
        let (mut operations, mut passed, mut place) = (0, 0, 0);
        for frame in &decision.batch.frames {
            let (id, bytes) = (frame.id(), frame.counted_bytes());
            match self.book.clients.standing(id.key) {
                FrameStatus::Fresh if frame.mode() == Mode::Change => {
                    operations += 1;
                    let body = self.book.change_reply(&id);
                    self.book.reply(&id, body, events);
                }
                FrameStatus::Fresh => {
                    operations += self.run_frame(frame, place);
                    let body = self.reply.finish(&id);
                    self.book.reply(&id, body, events);
                }
                // Who proposes a frame again has nobody answered again: its client asks for that by itself.
                FrameStatus::Executed if active(Mutant::RepeatsAnswered) => {
                    self.book.reply_again(&id, events)
                }
                FrameStatus::Executed | FrameStatus::Stale | FrameStatus::Ended => {}
            }
            self.book.pace_frame(bytes, decision.batch.bytes, passed);
            passed += bytes;
            place += frame.operation_count();
        }
        let Self { book, state, .. } = self;
        let with_state = |take: &mut dyn FnMut(&mut A::State)| take(state);
        book.end(&decision.batch, operations, with_state, events);
    }

    fn execute_unordered(&mut self, frame: &Frame, events: &mut Vec<ExecutionEvent>) {
        if frame.mode() == Mode::Session {
            return self.book.tell_sessions(&frame.id(), events);
        }
        self.run_frame(frame, 0);
        let body = self.reply.finish(&frame.id());
        let seq = self.book.executed.seq;
        let read = StateRead {
            whole: seq,
            begun: seq,
        };
        self.book.answer_read(&frame.id(), read, body, events);
    }

    fn reply_again(&mut self, frame: &FrameId, events: &mut Vec<ExecutionEvent>) {
        self.book.reply_again(frame, events);
    }

    fn background_step(&mut self, budget_bytes: usize, events: &mut Vec<ExecutionEvent>) -> bool {
        self.book.background_step(budget_bytes, events)
    }

    fn digest_now(&mut self) -> CheckpointClaim {
        self.book.claim_now(self.state.snapshot())
    }

    fn keep_snapshots(&mut self, keep: bool) {
        self.book.keeps_snapshots = keep;
    }

    fn read_snapshot_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.book.read_snapshot_chunk(&mut self.state, chunk)
    }

    fn finish_snapshot(&mut self) -> Result<CheckpointClaim, SnapshotError> {
        self.book.finish_snapshot()
    }

    fn chain(&self) -> Chain {
        self.book.executed.chain
    }

    fn client_windows(&self) -> Vec<SessionWindows> {
        self.book.clients.windows()
    }

    fn executed(&self) -> SeqNo {
        self.book.executed.seq
    }

    fn panics(&self) -> u64 {
        self.panics
    }
}
