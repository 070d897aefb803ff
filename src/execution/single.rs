use std::cell::Cell;
use std::sync::Arc;

use super::bookkeeping::{Bookkeeping, CheckpointRule};
use super::guard::guarded;
use super::{
    Application, ExecutionEvent, Executor, ImageError, MonolithicState, PANIC_RESULT, PREPARED_OPERATIONS,
    SequenceWindow, Standing, TOO_LONG_RESULT,
};
use crate::crypto::Digester;
use crate::decision_log::Chain;
use crate::messages::{CheckpointClaim, Frame, FrameKey, Mode, Proposal, ReplyBuilder};
use crate::mutants::{Mutant, active};
use crate::types::{Epoch, SeqNo};

/// How many bytes the results of one frame have together, unless [`SingleThreaded::limit_results`] says otherwise.
pub const FRAME_RESULT_BYTES_MAX: usize = 3 << 20;

/// Executes decisions one operation after the other.
pub struct SingleThreaded<A: Application> {
    application: A,
    state: A::State,
    book: Bookkeeping<A::State>,
    result_bytes_max: usize,
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
            book: Bookkeeping::new(clients, digester, epoch, rule),
            result_bytes_max: FRAME_RESULT_BYTES_MAX,
            reply: ReplyBuilder::default(),
            panics: 0,
        }
    }

    /// Gives results beyond `bytes` in one frame as [`TOO_LONG_RESULT`]. Must be equal at every replica: replies are
    /// part of checkpoints.
    #[must_use]
    pub fn limit_results(mut self, bytes: usize) -> Self {
        self.result_bytes_max = bytes;
        self
    }

    /// The state, to look at.
    #[must_use]
    pub fn state(&self) -> &A::State {
        &self.state
    }

    /// Runs a frame's operations into the reply builder; a panic costs the one operation.
    fn run_frame(&mut self, frame: &Frame) -> usize {
        let body = frame.body();
        let mut operations = body.operations();
        let (application, state, reply) = (&self.application, &mut self.state, &mut self.reply);
        let (mode, result_bytes_max) = (frame.mode(), self.result_bytes_max);
        // Where the result of the operation that is running starts.
        let running = Cell::new(None);
        let mut prepares = mode == Mode::Ordered;
        let mut panics = 0;
        loop {
            // One catch per frame while nothing panics: each operation would cost more.
            let run = guarded(|| {
                while operations.len() > 0 {
                    if prepares {
                        let mut next: [&[u8]; PREPARED_OPERATIONS] = [&[]; PREPARED_OPERATIONS];
                        let count =
                            next.iter_mut()
                                .zip(operations.clone())
                                .fold(0, |count, (slot, operation)| {
                                    *slot = operation;
                                    count + 1
                                });
                        application.prepare(state, &next[..count]);
                    }
                    for operation in operations.by_ref().take(PREPARED_OPERATIONS) {
                        let start = reply.buffer().len();
                        running.set(Some(start));
                        match mode {
                            Mode::Ordered => {
                                state.begin_operation();
                                application.update(state, operation, reply.buffer());
                                state.keep_operation();
                            }
                            Mode::Unordered => {
                                application.unordered_execution(state, operation, reply.buffer())
                            }
                        }
                        running.set(None);
                        if reply.buffer().len() > result_bytes_max {
                            reply.buffer().truncate(start);
                            reply.buffer().extend_from_slice(TOO_LONG_RESULT);
                        }
                        reply.end_result();
                    }
                }
            });
            if run.is_ok() {
                break;
            }
            match running.take() {
                Some(start) => {
                    panics += 1;
                    if mode == Mode::Ordered && !active(Mutant::PanicKept) {
                        state.undo_operation();
                    }
                    reply.buffer().truncate(start);
                    reply.buffer().extend_from_slice(PANIC_RESULT);
                    reply.end_result();
                }
                // A hint panicked. The operations are executed without any.
                None => prepares = false,
            }
        }
        self.panics += panics;
        frame.operation_count()
    }
}

impl<A: Application> Executor for SingleThreaded<A> {
    fn execute(&mut self, decision: &Arc<Proposal>, events: &mut Vec<ExecutionEvent>) {
        self.book.begin(decision);
        let (mut operations, mut passed) = (0, 0);
        for frame in &decision.batch.frames {
            let (key, bytes) = (frame.key(), frame.counted_bytes());
            match self.book.clients.standing(key) {
                Standing::Fresh => {
                    operations += self.run_frame(frame);
                    let body = self.reply.finish(key.client, key.sequence);
                    self.book.reply(key, body, events);
                }
                // Who proposes a frame again has nobody answered again: its client asks for that by itself.
                Standing::Executed if active(Mutant::RepeatsAnswered) => self.book.reply_again(key, events),
                Standing::Executed | Standing::Stale => {}
            }
            self.book.pace_frame(bytes, decision.batch.bytes, passed);
            passed += bytes;
        }
        let Self { book, state, .. } = self;
        let with_state = |take: &mut dyn FnMut(&mut A::State)| take(state);
        book.end(decision.batch.bytes, operations, with_state, events);
    }

    fn execute_unordered(&mut self, frame: &Frame, events: &mut Vec<ExecutionEvent>) {
        self.run_frame(frame);
        let key = frame.key();
        let body = self.reply.finish(key.client, key.sequence);
        let view = self.book.view;
        events.push(ExecutionEvent::Reply { key, view, body });
    }

    fn reply_again(&mut self, key: FrameKey, events: &mut Vec<ExecutionEvent>) {
        self.book.reply_again(key, events);
    }

    fn background_step(&mut self, budget_bytes: usize, events: &mut Vec<ExecutionEvent>) -> bool {
        self.book.background_step(budget_bytes, events)
    }

    fn digest_now(&mut self) -> CheckpointClaim {
        self.book.claim_now(self.state.snapshot())
    }

    fn keep_images(&mut self, keep: bool) {
        self.book.keeps_images = keep;
    }

    fn read_image_chunk(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        self.book.read_image_chunk(&mut self.state, chunk)
    }

    fn finish_image(&mut self) -> Result<CheckpointClaim, ImageError> {
        self.book.finish_image()
    }

    fn chain(&self) -> Chain {
        self.book.chain
    }

    fn client_windows(&self) -> Vec<SequenceWindow> {
        self.book.clients.windows()
    }

    fn executed(&self) -> SeqNo {
        self.book.executed
    }

    fn panics(&self) -> u64 {
        self.panics
    }
}
