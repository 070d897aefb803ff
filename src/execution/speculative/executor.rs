use std::collections::VecDeque;
use std::sync::Arc;

use super::core::Core;
use super::outcome::Outcome;
use super::worker::{Helper, Scratch, Shared, SpeculativeHelper};
use crate::crypto::Digester;
use crate::decision_log::Chain;
use crate::execution::bookkeeping::{Bookkeeping, CheckpointRule, Distance};
use crate::execution::guard::guarded;
use crate::execution::{
    ExecutionEvent, Executor, FRAME_RESULT_BYTES_MAX, ImageError, MonolithicState, PANIC_RESULT, ScalableApp,
    SequenceWindow, Standing, TOO_LONG_RESULT,
};
use crate::messages::{CheckpointClaim, Frame, FrameKey, Proposal, ReplyBuilder};
use crate::types::{Epoch, SeqNo};

/// How many operations are under way at most: a power of two.
const WINDOW: usize = 1024;
/// How many locks the index of versions has: a power of two.
const STRIPES: usize = 1024;
/// Decisions taken that are not wholly fed.
const QUEUE: usize = 16;
/// Operations executed in one step at most.
const STEP_OPERATIONS: usize = 64;
/// The size of the table of declared keys: a power of two. Keys that share a place count as one.
const TOUCHED: usize = 1 << 16;

/// What was fed and not harvested, in order.
enum Item {
    Begin(Arc<Proposal>),
    /// A frame to be executed, and how many of its operations are left.
    Frame(FrameKey, usize),
    End(Arc<Proposal>, usize),
}

/// A decision that is being fed.
struct Feeding {
    decision: Arc<Proposal>,
    has_begun: bool,
    frame: usize,
    /// The next operation of that frame; `None` before the frame was looked at.
    operation: Option<usize>,
    operations: usize,
}

/// Executes operations on several threads at once, ahead of their turn. See the module's header.
///
/// This is the owner's part: it takes decisions, works like every other worker in its
/// [steps](Executor::step), and answers. Without helpers it executes everything itself.
pub struct Speculative<A: ScalableApp> {
    shared: Arc<Shared<A>>,
    scratch: Scratch,
    book: Bookkeeping<A::State>,
    result_bytes_max: usize,
    reply: ReplyBuilder,
    panics: u64,
    queue: VecDeque<Feeding>,
    items: VecDeque<Item>,
    /// The first operation that was not harvested.
    harvested: u64,
    /// What of each client was fed, executed or not.
    windows: Vec<SequenceWindow>,
    distance: Distance,
    /// The first operations after the checkpoints to come.
    limits: VecDeque<u64>,
    /// By the hash of a key: the number after the last operation that declared it.
    touched: Box<[u64]>,
    /// The number after the last operation that declared nothing.
    undeclared: u64,
}

impl<A: ScalableApp> Speculative<A> {
    /// An executor at the application's initial state, for clients `0..clients`.
    #[must_use]
    pub fn new(
        application: A,
        clients: usize,
        digester: Digester,
        epoch: Epoch,
        rule: CheckpointRule,
    ) -> Self {
        let core = Core::new(application.initial_state(), WINDOW, STRIPES);
        Self {
            shared: Arc::new(Shared { application, core }),
            scratch: Scratch::default(),
            book: Bookkeeping::new(clients, digester, epoch, rule),
            result_bytes_max: FRAME_RESULT_BYTES_MAX,
            reply: ReplyBuilder::default(),
            panics: 0,
            queue: VecDeque::new(),
            items: VecDeque::new(),
            harvested: 0,
            windows: vec![SequenceWindow::default(); clients],
            distance: Distance::default(),
            limits: VecDeque::new(),
            touched: vec![0; TOUCHED].into_boxed_slice(),
            undeclared: 0,
        }
    }

    /// Gives results beyond `bytes` in one frame as [`TOO_LONG_RESULT`]. Must be equal at every replica.
    #[must_use]
    pub fn limit_results(mut self, bytes: usize) -> Self {
        self.result_bytes_max = bytes;
        self
    }

    /// One more worker, to be given a thread.
    #[must_use]
    pub fn helper(&self) -> SpeculativeHelper<A> {
        SpeculativeHelper {
            shared: self.shared.clone(),
            scratch: Scratch::default(),
            committed: false,
        }
    }

    /// `count` workers beside the executor's own thread.
    #[must_use]
    pub fn helpers(&self, count: usize) -> Vec<Box<dyn Helper>> {
        let helpers = (0..count).map(|_| Box::new(self.helper()) as Box<dyn Helper>);
        helpers.collect()
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> Arc<Shared<A>> {
        self.shared.clone()
    }

    /// Answers what was committed and feeds what there is room for, without executing anything.
    pub(super) fn gather(&mut self, events: &mut Vec<ExecutionEvent>) -> bool {
        let any = self.harvest(events);
        self.feed();
        any
    }

    /// Feeds as much as there is room for.
    fn feed(&mut self) {
        while let Some(mut feeding) = self.queue.pop_front() {
            if !self.feed_decision(&mut feeding) {
                self.queue.push_front(feeding);
                break;
            }
            let decision = feeding.decision;
            if self.distance.pass(&self.book.rule, decision.batch.bytes) {
                // The next operation does not exist yet, so nobody is past it.
                self.limits.push_back(self.shared.core.tail());
                self.shared.core.set_limit(self.limits[0]);
            }
            self.items.push_back(Item::End(decision, feeding.operations));
        }
    }

    /// True when all of it was fed.
    fn feed_decision(&mut self, feeding: &mut Feeding) -> bool {
        let decision = feeding.decision.clone();
        if !std::mem::replace(&mut feeding.has_begun, true) {
            self.items.push_back(Item::Begin(decision.clone()));
        }
        while let Some(frame) = decision.batch.frames.get(feeding.frame) {
            let done = match feeding.operation {
                Some(done) => done,
                None => match self.admit(frame) {
                    false => {
                        feeding.frame += 1;
                        continue;
                    }
                    true => 0,
                },
            };
            let body = frame.body();
            for (fed, operation) in body.operations().enumerate().skip(done) {
                if !self.shared.core.has_room() {
                    feeding.operation = Some(fed);
                    return false;
                }
                self.feed_operation(frame, operation);
            }
            feeding.operations += frame.operation_count();
            feeding.frame += 1;
            feeding.operation = None;
        }
        true
    }

    /// Whether a frame is to be executed; if not, what becomes of it is noted.
    fn admit(&mut self, frame: &Frame) -> bool {
        let key = frame.key();
        let Some(window) = self.windows.get_mut(key.client.get() as usize) else {
            return false;
        };
        match window.check(key.sequence) {
            Standing::Fresh => {
                window.record(key.sequence);
                self.items.push_back(Item::Frame(key, frame.operation_count()));
                return true;
            }
            // Its client asks for its reply by itself, if it lacks that.
            Standing::Executed | Standing::Stale => {}
        }
        false
    }

    fn feed_operation(&mut self, frame: &Frame, operation: &[u8]) {
        let Self {
            shared,
            touched,
            undeclared,
            ..
        } = self;
        let (core, application) = (&shared.core, &shared.application);
        let after = core.tail() + 1;
        let mut certain_from = *undeclared;
        let declare = || {
            let mut touch = |column, key: &[u8]| {
                let place = (core.hash(column, key) >> 32) as usize % TOUCHED;
                let before = std::mem::replace(&mut touched[place], after);
                // A key that is named twice is no operation to wait for.
                if before != after {
                    certain_from = certain_from.max(before);
                }
            };
            application.declare_keys(operation, &mut touch)
        };
        // A declaration that panics is none.
        let declares = guarded(declare).unwrap_or(false);
        if !declares {
            *undeclared = after;
        }
        core.feed(
            frame.bytes().slice_ref(operation),
            declares.then_some(certain_from),
        );
    }

    /// Answers what was committed; true if there was any.
    fn harvest(&mut self, events: &mut Vec<ExecutionEvent>) -> bool {
        let mut any = false;
        while let Some(item) = self.items.pop_front() {
            match item {
                Item::Begin(decision) => self.book.begin(&decision),
                Item::Frame(key, left) => {
                    let taken = self.harvest_results(left);
                    any |= taken > 0;
                    if taken < left {
                        self.items.push_front(Item::Frame(key, left - taken));
                        return any;
                    }
                    let body = self.reply.finish(key.client, key.sequence);
                    self.book.reply(key, body, events);
                }
                Item::End(decision, operations) => self.end(&decision, operations, events),
            }
            any = true;
        }
        any
    }

    fn end(&mut self, decision: &Proposal, operations: usize, events: &mut Vec<ExecutionEvent>) {
        let core = &self.shared.core;
        let with_state = |take: &mut dyn FnMut(&mut A::State)| core.with_base_mut(take);
        if self
            .book
            .end(decision.batch.bytes, operations, with_state, events)
        {
            self.limits.pop_front();
            let next = self.limits.front().copied().unwrap_or(u64::MAX);
            core.set_limit(next);
        }
    }

    /// Takes up to `most` results; how many there were.
    fn harvest_results(&mut self, most: usize) -> usize {
        let mut taken = 0;
        while taken < most {
            let (reply, panics, bytes_max) = (&mut self.reply, &mut self.panics, self.result_bytes_max);
            let take = |outcome: &Outcome| {
                *panics += u64::from(outcome.panicked);
                let start = reply.buffer().len();
                reply.buffer().extend_from_slice(&outcome.result);
                if !outcome.panicked && reply.buffer().len() > bytes_max {
                    reply.buffer().truncate(start);
                    reply.buffer().extend_from_slice(TOO_LONG_RESULT);
                }
                reply.end_result();
            };
            if self.shared.core.harvest(self.harvested, take).is_none() {
                break;
            }
            self.harvested += 1;
            taken += 1;
        }
        taken
    }

    /// Runs a read-only operation on the committed state: nothing is committed meanwhile.
    fn read(&mut self, operation: &[u8]) {
        let start = self.reply.buffer().len();
        let (application, reply) = (&self.shared.application, &mut self.reply);
        let run = self
            .shared
            .core
            .with_base(|state| guarded(|| application.unordered_execution(state, operation, reply.buffer())));
        let replaced = match run {
            Err(_) => {
                self.panics += 1;
                Some(PANIC_RESULT)
            }
            Ok(()) => (self.reply.buffer().len() > self.result_bytes_max).then_some(TOO_LONG_RESULT),
        };
        if let Some(result) = replaced {
            self.reply.buffer().truncate(start);
            self.reply.buffer().extend_from_slice(result);
        }
        self.reply.end_result();
    }
}

impl<A: ScalableApp> Executor for Speculative<A> {
    fn execute(&mut self, decision: &Arc<Proposal>, events: &mut Vec<ExecutionEvent>) {
        while !self.has_room() {
            self.step(events);
        }
        self.queue.push_back(Feeding {
            decision: decision.clone(),
            has_begun: false,
            frame: 0,
            operation: None,
            operations: 0,
        });
        self.feed();
    }

    fn has_room(&self) -> bool {
        self.queue.len() < QUEUE
    }

    fn step(&mut self, events: &mut Vec<ExecutionEvent>) -> bool {
        let (mut any, mut left) = (false, STEP_OPERATIONS);
        while left > 0 {
            let alone = self.shared.run_alone(left);
            left -= alone;
            if alone > 0 {
                any = true;
                continue;
            }
            let turn = self.shared.turn(&mut self.scratch, false);
            any |= turn.executed || turn.committed;
            if !turn.executed {
                break;
            }
            left -= 1;
        }
        any | self.gather(events)
    }

    fn has_work(&self) -> bool {
        let core = &self.shared.core;
        let is_due = match self.items.front() {
            Some(Item::Frame(..)) => self.harvested < core.head(),
            Some(_) => true,
            None => false,
        };
        is_due || core.has_work() || (!self.queue.is_empty() && core.has_room())
    }

    fn is_settled(&self) -> bool {
        self.queue.is_empty() && self.items.is_empty()
    }

    fn wants_help(&self) -> bool {
        self.shared.core.has_work_for_many()
    }

    fn execute_unordered(&mut self, frame: &Frame, events: &mut Vec<ExecutionEvent>) {
        // The reply under construction is put aside.
        let reply = std::mem::take(&mut self.reply);
        frame
            .body()
            .operations()
            .for_each(|operation| self.read(operation));
        let key = frame.key();
        let body = std::mem::replace(&mut self.reply, reply).finish(key.client, key.sequence);
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
        assert!(self.is_settled(), "everything is settled first");
        let snapshot = self.shared.core.with_base_mut(MonolithicState::snapshot);
        self.book.claim_now(snapshot)
    }

    fn keep_images(&mut self, keep: bool) {
        self.book.keeps_images = keep;
    }

    fn read_image_chunk(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        let book = &mut self.book;
        self.shared
            .core
            .with_base_mut(|state| book.read_image_chunk(state, chunk))
    }

    fn finish_image(&mut self) -> Result<CheckpointClaim, ImageError> {
        let claim = self.book.finish_image();
        self.windows = self.book.clients.windows();
        self.distance = Distance::default();
        claim
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

    fn aborts(&self) -> u64 {
        self.shared.core.aborts()
    }
}
