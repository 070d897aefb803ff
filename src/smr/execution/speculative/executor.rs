use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::core::Core;
use super::outcome::Outcome;
use super::worker::{Helper, Scratch, Shared, SpeculativeHelper};
use crate::smr::crypto::{Chain, Digester};
use crate::smr::execution::execution_ledger::{CheckpointRule, Distance, ExecutionLedger};
use crate::smr::execution::guard::guarded;
use crate::smr::execution::{
    DecisionContext, ExecutionEvent, Executor, ExecutorPart, ExecutorSettings, FrameStatus, MonolithicState,
    OperationContext, ResultLimits, ResultWriter, ScalableApp, SessionWindows,
};
use crate::smr::messages::{
    CheckpointClaim, Failure, Frame, FrameId, Mode, Proposal, ReplyBuilder, SnapshotError, StateRead,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{Epoch, SeqNo, View};

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
    Begin(DecisionContext, View),
    /// A frame to be executed, and how many of its operations are left.
    Frame(FrameId, usize),
    /// A read-only frame, to be executed on the state as the operations before it leave it.
    Read(Frame, OperationContext),
    End(Arc<Proposal>),
}

/// A decision that is being fed.
struct Feeding {
    decision: Arc<Proposal>,
    has_begun: bool,
    frame: usize,
    /// How many operations come before that frame.
    place: usize,
    /// The next operation of that frame; `None` before the frame was looked at.
    operation: Option<usize>,
}

impl Feeding {
    /// A frame is done with: all of it was fed, or nothing of it is to be.
    fn pass(&mut self, frame: &Frame) {
        self.frame += 1;
        self.place += frame.operation_count();
        self.operation = None;
    }
}

/// Executes operations on several threads at once, ahead of their turn. See the module's header.
///
/// This is the owner's part: it takes decisions, works like every other worker in its
/// [steps](Executor::step), and answers. Without helpers it executes everything itself.
pub struct Speculative<A: ScalableApp> {
    shared: Arc<Shared<A>>,
    scratch: Scratch,
    book: ExecutionLedger<A::State>,
    limits_of_results: ResultLimits,
    reply: ReplyBuilder,
    /// Takes the results of reads.
    result: ResultWriter,
    /// Operations of the decision that is being harvested.
    operations: usize,
    panics: u64,
    queue: VecDeque<Feeding>,
    items: VecDeque<Item>,
    /// The first operation that was not harvested.
    harvested: u64,
    /// What of each client was fed, executed or not.
    windows: Vec<SessionWindows>,
    /// The decision that was fed last, or is being fed.
    fed: DecisionContext,
    distance: Distance,
    /// The first operations after the checkpoints and read-only frames to come.
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
        let limits = ResultLimits::default();
        let mut core = Core::new(application.initial_state(), WINDOW, STRIPES);
        core.limit_frames(limits.frame_bytes);
        let book = ExecutionLedger::new(clients, digester, epoch, rule);
        Self {
            shared: Arc::new(Shared {
                application,
                core,
                result_bytes_max: limits.operation_bytes_max,
            }),
            scratch: Scratch::default(),
            fed: book.executed,
            book,
            limits_of_results: limits,
            reply: ReplyBuilder::default(),
            result: ResultWriter::default(),
            operations: 0,
            panics: 0,
            queue: VecDeque::new(),
            items: VecDeque::new(),
            harvested: 0,
            windows: vec![SessionWindows::default(); clients],
            distance: Distance::default(),
            limits: VecDeque::new(),
            touched: vec![0; TOUCHED].into_boxed_slice(),
            undeclared: 0,
        }
    }

    /// Other limits of results. Must be equal at every replica.
    ///
    /// # Panics
    /// When helpers were made before.
    #[must_use]
    pub fn limit_results(mut self, limits: ResultLimits) -> Self {
        let shared = Arc::get_mut(&mut self.shared).expect("limits are set before there are helpers");
        shared.core.limit_frames(limits.frame_bytes);
        shared.result_bytes_max = limits.operation_bytes_max;
        self.result.reset(limits.operation_bytes_max);
        self.limits_of_results = limits;
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
            if self.distance.pass(&self.book.rule, &decision.batch) {
                self.stop_commits();
            }
            self.items.push_back(Item::End(decision));
        }
    }

    /// What is fed from now on is not committed before the owner says so. The next operation does not exist
    /// yet, so nobody is past it.
    fn stop_commits(&mut self) {
        self.limits.push_back(self.shared.core.tail());
        self.shared.core.set_limit(self.limits[0]);
    }

    /// The owner has done what commits waited for.
    fn go_on_committing(&mut self) {
        self.limits.pop_front();
        let next = self.limits.front().copied().unwrap_or(u64::MAX);
        self.shared.core.set_limit(next);
    }

    /// True when all of it was fed.
    fn feed_decision(&mut self, feeding: &mut Feeding) -> bool {
        let decision = feeding.decision.clone();
        if !std::mem::replace(&mut feeding.has_begun, true) {
            self.fed = self.book.context_after(self.fed, &decision);
            self.items.push_back(Item::Begin(self.fed, decision.view));
        }
        while let Some(frame) = decision.batch.frames.get(feeding.frame) {
            let place = feeding.place as u32;
            let first = OperationContext::new(self.fed, frame.key().client, place);
            let Some(done) = feeding
                .operation
                .or_else(|| self.admit(frame, first).then_some(0))
            else {
                feeding.pass(frame);
                continue;
            };
            let body = frame.body();
            for (fed, operation) in body.operations().enumerate().skip(done) {
                if !self.shared.core.has_room() {
                    feeding.operation = Some(fed);
                    return false;
                }
                self.feed_operation(frame, operation, first.at(place + fed as u32), fed == 0);
            }
            feeding.pass(frame);
        }
        true
    }

    /// Whether a frame's operations are to be fed; if not, what becomes of it is noted.
    fn admit(&mut self, frame: &Frame, first: OperationContext) -> bool {
        let id = frame.id();
        let Some(windows) = self.windows.get_mut(id.key.client.get() as usize) else {
            return false;
        };
        match windows.check(id.key.sequence) {
            FrameStatus::Fresh => {
                windows.record(id.key.sequence);
                if frame.mode().writes() || active(Mutant::ReadUpdates) {
                    self.items.push_back(Item::Frame(id, frame.operation_count()));
                    return true;
                }
                self.stop_commits();
                self.items.push_back(Item::Read(frame.clone(), first));
            }
            // Its client asks for its reply by itself, if it lacks that.
            FrameStatus::Executed | FrameStatus::Stale | FrameStatus::Ended => {}
        }
        false
    }

    fn feed_operation(&mut self, frame: &Frame, operation: &[u8], context: OperationContext, opens: bool) {
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
            application.declare_keys(&context, operation, &mut touch)
        };
        // A declaration that panics is none.
        let declares = guarded(declare).unwrap_or(false);
        if !declares {
            *undeclared = after;
        }
        core.feed(
            frame.bytes().slice_ref(operation),
            context,
            opens,
            declares.then_some(certain_from),
        );
    }

    /// Answers what was committed; true if there was any.
    fn harvest(&mut self, events: &mut Vec<ExecutionEvent>) -> bool {
        let mut any = false;
        while let Some(item) = self.items.pop_front() {
            match item {
                Item::Begin(context, view) => self.book.begin(context, view),
                Item::Frame(frame, left) => {
                    let taken = self.harvest_results(left);
                    any |= taken > 0;
                    if taken < left {
                        self.items.push_front(Item::Frame(frame, left - taken));
                        return any;
                    }
                    self.operations += self.reply.results();
                    let body = self.reply.finish(&frame);
                    self.book.reply(&frame, body, events);
                }
                Item::Read(frame, first) => {
                    let (body, operations) = self.read(&frame, first);
                    self.operations += operations;
                    self.book.reply(&frame.id(), body, events);
                    self.go_on_committing();
                }
                Item::End(decision) => self.end(&decision, events),
            }
            any = true;
        }
        any
    }

    fn end(&mut self, decision: &Proposal, events: &mut Vec<ExecutionEvent>) {
        let operations = std::mem::take(&mut self.operations);
        let core = &self.shared.core;
        let with_state = |take: &mut dyn FnMut(&mut A::State)| core.with_base_mut(take);
        if self.book.end(&decision.batch, operations, with_state, events) {
            self.go_on_committing();
        }
    }

    /// Takes up to `most` results; how many there were.
    fn harvest_results(&mut self, most: usize) -> usize {
        let mut taken = 0;
        while taken < most {
            let (reply, panics) = (&mut self.reply, &mut self.panics);
            let take = |outcome: &Outcome| {
                if !outcome.is_put_off {
                    *panics += u64::from(outcome.failure == Some(Failure::Panicked));
                    reply.buffer().extend_from_slice(&outcome.result);
                    reply.end_result(outcome.failure);
                }
            };
            if self.shared.core.harvest(self.harvested, take).is_none() {
                break;
            }
            self.harvested += 1;
            taken += 1;
        }
        taken
    }

    /// Runs a read-only frame on the committed state, as far as its results leave room: nothing is committed
    /// meanwhile. The reply, and how many operations were executed.
    fn read(&mut self, frame: &Frame, first: OperationContext) -> (Bytes, usize) {
        if frame.mode() == Mode::Change {
            return (self.book.change_reply(&frame.id()), 1);
        }
        // The reply under construction may be another.
        let mut reply = ReplyBuilder::default();
        let (application, result) = (&self.shared.application, &mut self.result);
        let (panics, frame_bytes) = (&mut self.panics, self.limits_of_results.frame_bytes);
        result.swap_bytes(reply.buffer());
        self.shared.core.with_base(|state| {
            let mut context = first.reading();
            for operation in frame.body().operations() {
                if result.bytes().len() >= frame_bytes {
                    break;
                }
                let run = guarded(|| application.unordered_execution(state, &context, operation, result));
                if run.is_err() {
                    *panics += 1;
                    result.panicked();
                }
                let failure = result.end();
                reply.end_result_at(result.bytes().len(), failure);
                context = context.next();
            }
        });
        result.swap_bytes(reply.buffer());
        let operations = reply.results();
        (reply.finish(&frame.id()), operations)
    }
}

impl<A: ScalableApp> ExecutorPart<A> for Speculative<A> {
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

    fn helpers(&self, threads: usize) -> Vec<Box<dyn Helper>> {
        Self::helpers(self, threads)
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
            place: 0,
            operation: None,
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
        if frame.mode() == Mode::Session {
            return self.book.tell_sessions(&frame.id(), events);
        }
        let first = OperationContext::new(self.book.executed, frame.key().client, 0);
        let (body, _) = self.read(frame, first);
        // What is committed may be ahead of what was gathered.
        let executed = self.book.executed.seq;
        let whole = if self.is_settled() {
            executed
        } else {
            executed.minus(1)
        };
        let begun = self.fed.seq.max(executed);
        self.book
            .answer_read(&frame.id(), StateRead { whole, begun }, body, events);
    }

    fn reply_again(&mut self, frame: &FrameId, events: &mut Vec<ExecutionEvent>) {
        self.book.reply_again(frame, events);
    }

    fn background_step(&mut self, budget_bytes: usize, events: &mut Vec<ExecutionEvent>) -> bool {
        self.book.background_step(budget_bytes, events)
    }

    fn digest_now(&mut self) -> CheckpointClaim {
        assert!(self.is_settled(), "everything is settled first");
        let snapshot = self.shared.core.with_base_mut(MonolithicState::snapshot);
        self.book.claim_now(snapshot)
    }

    fn keep_snapshots(&mut self, keep: bool) {
        self.book.keeps_snapshots = keep;
    }

    fn read_snapshot_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        let book = &mut self.book;
        self.shared
            .core
            .with_base_mut(|state| book.read_snapshot_chunk(state, chunk))
    }

    fn finish_snapshot(&mut self) -> Result<CheckpointClaim, SnapshotError> {
        let claim = self.book.finish_snapshot();
        self.windows = self.book.clients.windows();
        self.fed = self.book.executed;
        self.distance = Distance::default();
        claim
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

    fn aborts(&self) -> u64 {
        self.shared.core.aborts()
    }
}
