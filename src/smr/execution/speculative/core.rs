//! The scheduler and the multi-version memory: see the module's header for the protocol.

use std::hash::BuildHasher;
use std::sync::{PoisonError, TryLockError};

use bytes::Bytes;
use foldhash::fast::RandomState;

use super::outcome::Outcome;
use super::shim::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering, RwLock, fence};
use super::throttle::Throttle;
use super::versions::Versions;
use super::{Column, KeyedState, OperationContext};

/// Where an operation stands. An execution is named by the operation and its incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Nothing, or what was there was taken out.
    Empty,
    /// Never executed.
    Ready,
    /// Being executed.
    Running,
    /// Being executed, and what it read has changed meanwhile.
    Outdated,
    /// Executed.
    Executed,
    /// Executed, and what it read has changed since.
    Aborted,
    /// Executed, and compared with the final state before it.
    Validating,
    /// Final: part of the state.
    Committed,
}

/// A slot's state in one word: which of the operations that share the slot, which execution, and its phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    lap: u32,
    incarnation: u32,
    phase: Phase,
}

/// Executions of one operation are counted up to here; the count then stays, which only costs a needless
/// repetition.
const INCARNATION_MAX: u32 = (1 << 24) - 1;

impl State {
    fn pack(self) -> u64 {
        u64::from(self.lap) << 32 | u64::from(self.incarnation) << 8 | self.phase as u64
    }

    fn unpack(word: u64) -> Self {
        let phase = match word as u8 {
            1 => Phase::Ready,
            2 => Phase::Running,
            3 => Phase::Outdated,
            4 => Phase::Executed,
            5 => Phase::Aborted,
            6 => Phase::Validating,
            7 => Phase::Committed,
            _ => Phase::Empty,
        };
        Self {
            lap: (word >> 32) as u32,
            incarnation: word as u32 >> 8,
            phase,
        }
    }

    fn at(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }
}

/// One place of the window.
#[derive(Debug)]
struct Slot {
    state: AtomicU64,
    input: Mutex<Input>,
    outcome: Mutex<Outcome>,
}

#[derive(Debug, Default, Clone)]
struct Input {
    operation: Bytes,
    context: OperationContext,
    /// Operations before this one are to be committed before it may be executed by its declared keys alone.
    certain_from: Option<u64>,
    /// Whether it is the first operation of its frame.
    opens: bool,
}

/// What is known where operations are committed.
#[derive(Debug)]
struct Commits {
    throttle: Throttle,
    /// Bytes of the results of the head's frame so far.
    frame_bytes: usize,
}

/// An execution to be done.
#[derive(Debug, Clone)]
pub struct Task {
    /// The operation.
    pub operation: Bytes,
    /// What it may know beside the state.
    pub context: OperationContext,
    /// Its number.
    pub txn: u64,
    /// Which execution of it.
    pub(super) incarnation: u32,
    /// Whether it declared what it touches.
    pub declares: bool,
    /// Whether all of that is final.
    pub certain: bool,
    /// Operations executed [alone](Core::execute_alone) before it began.
    pub(super) alone: u64,
    /// Whether operations before it are not committed.
    pub(super) early: bool,
    state: State,
}

/// What looking for work gave.
#[derive(Debug)]
pub struct Found {
    /// An execution that the caller must do and [finish](Core::finish).
    pub task: Option<Task>,
    /// Whether operations were committed.
    pub committed: bool,
}

/// The window of operations under way, their versions, and the state they are committed to. Shared by all
/// workers; one of them, the owner, feeds and harvests.
#[derive(Debug)]
pub struct Core<S> {
    base: RwLock<S>,
    slots: Box<[Slot]>,
    versions: Versions,
    hasher: RandomState,
    /// The first operation that was not fed.
    tail: AtomicU64,
    /// The first operation that is not committed. Written by who holds `commit`.
    head: AtomicU64,
    /// No operation before this one waits for an execution: a hint, which may be late.
    cursor: AtomicU64,
    /// How far behind the head operations are executed.
    ahead: AtomicU64,
    /// Operations from here on are not committed yet: a checkpoint comes first.
    limit: AtomicU64,
    /// Some operation touched what it had not declared: declarations count for nothing any more.
    distrusts: AtomicBool,
    /// Executions that were of no use.
    aborts: AtomicU64,
    /// Operations executed on the state itself, with nothing under way beside them that could notice.
    alone: AtomicU64,
    commit: Mutex<Commits>,
    /// A frame with results of so many bytes or more is not executed any further.
    frame_bytes: usize,
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic leaves behind is judged by validation like everything else.
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: KeyedState> Core<S> {
    /// A window of `slots` operations (a power of two) over `base`.
    pub fn new(base: S, slots: usize, stripes: usize) -> Self {
        let slot = |_| Slot {
            state: AtomicU64::new(0),
            input: Mutex::new(Input::default()),
            outcome: Mutex::new(Outcome::default()),
        };
        Self {
            base: RwLock::new(base),
            slots: (0..slots).map(slot).collect(),
            versions: Versions::new(stripes),
            hasher: RandomState::default(),
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
            cursor: AtomicU64::new(0),
            ahead: AtomicU64::new(slots as u64),
            limit: AtomicU64::new(u64::MAX),
            distrusts: AtomicBool::new(false),
            aborts: AtomicU64::new(0),
            alone: AtomicU64::new(0),
            commit: Mutex::new(Commits {
                throttle: Throttle::new(slots as u64),
                frame_bytes: 0,
            }),
            frame_bytes: usize::MAX,
        }
    }

    /// A frame with results of `bytes` or more is not executed any further.
    pub fn limit_frames(&mut self, bytes: usize) {
        self.frame_bytes = bytes;
    }

    fn slot(&self, txn: u64) -> &Slot {
        &self.slots[txn as usize & (self.slots.len() - 1)]
    }

    fn lap(&self, txn: u64) -> u32 {
        (txn / self.slots.len() as u64) as u32
    }

    /// The hash of a key, for declarations and the index of versions.
    pub fn hash(&self, column: Column, key: &[u8]) -> u64 {
        self.hasher.hash_one((column.0, key))
    }

    /// Looks at the committed state. Nothing is committed meanwhile.
    pub fn with_base<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.base.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Acts on the committed state.
    pub fn with_base_mut<R>(&self, act: impl FnOnce(&mut S) -> R) -> R {
        act(&mut self.base.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Owner: whether one more operation fits the window.
    pub fn has_room(&self) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        State::unpack(self.slot(tail).state.load(Ordering::Acquire)).phase == Phase::Empty
    }

    /// Owner: the number of the next operation.
    pub fn tail(&self) -> u64 {
        self.tail.load(Ordering::Relaxed)
    }

    /// The first operation that is not committed.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Executions that were of no use so far.
    pub fn aborts(&self) -> u64 {
        self.aborts.load(Ordering::Relaxed)
    }

    /// Owner: takes the next operation, which `opens` its frame or not; there must be room. With
    /// `certain_from`, it may be executed without validation once all operations before that one are
    /// committed.
    pub fn feed(&self, operation: Bytes, context: OperationContext, opens: bool, certain_from: Option<u64>) {
        let txn = self.tail.load(Ordering::Relaxed);
        let slot = self.slot(txn);
        *held(&slot.input) = Input {
            operation,
            context,
            certain_from,
            opens,
        };
        let state = State {
            lap: self.lap(txn),
            incarnation: 0,
            phase: Phase::Ready,
        };
        slot.state.store(state.pack(), Ordering::Release);
        // Pairs with the loads of `tail` in `claim` and `commit`.
        self.tail.store(txn + 1, Ordering::Release);
    }

    /// Owner: nothing from operation `limit` on is committed until this is called again.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Release);
    }

    /// Owner: takes operation `txn` out if it is committed.
    pub fn harvest<R>(&self, txn: u64, take: impl FnOnce(&Outcome) -> R) -> Option<R> {
        let slot = self.slot(txn);
        let state = State::unpack(slot.state.load(Ordering::Acquire));
        if state.phase != Phase::Committed || state.lap != self.lap(txn) {
            return None;
        }
        held(&slot.input).operation = Bytes::new();
        let taken = take(&held(&slot.outcome));
        slot.state.store(state.at(Phase::Empty).pack(), Ordering::Release);
        Some(taken)
    }

    /// Whether [`next`](Self::next) would find something to do.
    pub fn has_work(&self) -> bool {
        self.head_is_due() || self.cursor.load(Ordering::Acquire) < self.bound()
    }

    /// How many operations from the head on are executed from now on; with 1 there is no speculation.
    pub fn set_ahead(&self, ahead: u64) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// Whether speculation is of no use at the moment: the owner executes operations in order, on the state
    /// itself.
    pub fn is_alone(&self) -> bool {
        self.ahead.load(Ordering::Relaxed) <= 1
    }

    /// Whether more than one worker would find something to do.
    pub fn has_work_for_many(&self) -> bool {
        !self.is_alone() && self.cursor.load(Ordering::Relaxed).saturating_add(1) < self.bound()
    }

    /// Owner: executes up to `most` operations at the head on the state itself, as long as speculation is of
    /// no use and none of them was executed before; how many. There is nothing to validate: all before each
    /// of them is final, and nothing is committed meanwhile. Call [`next`](Self::next) after it.
    pub fn execute_alone(
        &self,
        most: usize,
        mut execute: impl FnMut(&mut S, &OperationContext, &[u8], &mut Outcome),
    ) -> usize {
        if !self.is_alone() {
            return 0;
        }
        let Some(mut commits) = self.try_commit_lock() else {
            return 0;
        };
        let mut done = 0;
        while done < most && self.is_alone() {
            let head = self.head.load(Ordering::Relaxed);
            if head >= self.tail.load(Ordering::Acquire) || head >= self.limit.load(Ordering::Acquire) {
                break;
            }
            let state = self.state(head);
            if state.phase != Phase::Ready || !self.change(head, state, state.at(Phase::Validating)) {
                break;
            }
            let slot = self.slot(head);
            let is_put_off = self.is_put_off(head, &mut commits);
            let (operation, context) = {
                let mut input = held(&slot.input);
                (std::mem::take(&mut input.operation), input.context)
            };
            {
                let mut outcome = held(&slot.outcome);
                outcome.reset(head);
                outcome.is_put_off = is_put_off;
                if !is_put_off {
                    self.with_base_mut(|base| execute(base, &context, &operation, &mut outcome));
                    commits.frame_bytes += outcome.result.len();
                }
            }
            // After the writes: whoever began with the new count reads them. Pairs with the load in `start`.
            self.alone.fetch_add(1, Ordering::Release);
            self.commit_head(head, state, false, &mut commits.throttle);
            let _ = self
                .cursor
                .compare_exchange(head, head + 1, Ordering::AcqRel, Ordering::Relaxed);
            done += 1;
        }
        done
    }

    /// Commits what can be committed, and finds an execution to do: that of the head first, else the next in
    /// order. A helper leaves operations to the owner while that executes them [alone](Self::execute_alone).
    pub fn next(&self, helps: bool) -> Found {
        let mut found = Found {
            task: None,
            committed: false,
        };
        loop {
            let Some(mut commits) = self.try_commit_lock() else {
                // Who holds it looks at the head once more after letting go.
                break;
            };
            found.task = self.commit(&mut commits, helps, &mut found.committed);
            drop(commits);
            // Pairs with the fence in `finish`: either who finished the head finds the lock free, or its end
            // is seen here.
            fence(Ordering::SeqCst);
            if found.task.is_some() || (helps && self.is_alone()) || !self.head_is_due() {
                break;
            }
        }
        if found.task.is_none() && !(helps && self.is_alone()) {
            found.task = self.claim();
        }
        found
    }

    /// The right to commit, unless somebody has it.
    ///
    /// # Panics
    /// When whoever had it panicked: nobody knows what is in the state.
    fn try_commit_lock(&self) -> Option<MutexGuard<'_, Commits>> {
        match self.commit.try_lock() {
            Ok(commits) => Some(commits),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => panic!("the state panicked while an operation was committed"),
        }
    }

    fn state(&self, txn: u64) -> State {
        State::unpack(self.slot(txn).state.load(Ordering::Acquire))
    }

    /// Operations from here on are not executed yet.
    fn bound(&self) -> u64 {
        let reach = self.head.load(Ordering::Acquire) + self.ahead.load(Ordering::Relaxed);
        self.tail.load(Ordering::Acquire).min(reach)
    }

    /// Whether the head waits for somebody.
    fn head_is_due(&self) -> bool {
        let head = self.head.load(Ordering::Acquire);
        if head >= self.tail.load(Ordering::Acquire) || head >= self.limit.load(Ordering::Acquire) {
            return false;
        }
        let state = self.state(head);
        state.lap == self.lap(head)
            && matches!(
                state.phase,
                Phase::Ready | Phase::Outdated | Phase::Executed | Phase::Aborted
            )
    }

    /// Commits from the head on. Gives the head's execution if it needs one: all before it is final, so what
    /// it reads will be.
    fn commit(&self, commits: &mut Commits, helps: bool, committed: &mut bool) -> Option<Task> {
        loop {
            let head = self.head.load(Ordering::Relaxed);
            if head >= self.tail.load(Ordering::Acquire) || head >= self.limit.load(Ordering::Acquire) {
                return None;
            }
            let state = self.state(head);
            match state.phase {
                // Someone executes it, on the state as it is.
                Phase::Running => return None,
                Phase::Executed => {
                    // From here on nobody else changes it.
                    let validating = state.at(Phase::Validating);
                    if !self.change(head, state, validating) {
                        continue;
                    }
                    if self.is_put_off(head, commits) {
                        held(&self.slot(head).outcome).is_put_off = true;
                    } else if !self.apply(head) {
                        self.aborts.fetch_add(1, Ordering::Relaxed);
                        return self.start(head, validating);
                    }
                    let was_early = {
                        let outcome = held(&self.slot(head).outcome);
                        if !outcome.is_put_off {
                            commits.frame_bytes += outcome.result.len();
                        }
                        outcome.early
                    };
                    self.commit_head(head, state, was_early, &mut commits.throttle);
                    *committed = true;
                }
                Phase::Ready if helps && self.is_alone() => return None,
                Phase::Ready | Phase::Aborted | Phase::Outdated => {
                    if let Some(task) = self.start(head, state) {
                        return Some(task);
                    }
                }
                Phase::Empty | Phase::Validating | Phase::Committed => return None,
            }
        }
    }

    /// Whether the results of the head's frame leave no room for it.
    fn is_put_off(&self, head: u64, commits: &mut Commits) -> bool {
        if held(&self.slot(head).input).opens {
            commits.frame_bytes = 0;
        }
        commits.frame_bytes >= self.frame_bytes
    }

    /// The head's outcome is part of the state.
    fn commit_head(&self, head: u64, state: State, was_early: bool, throttle: &mut Throttle) {
        let committed = state.at(Phase::Committed).pack();
        self.slot(head).state.store(committed, Ordering::Release);
        self.head.store(head + 1, Ordering::Release);
        if let Some(ahead) = throttle.on_commit(was_early, self.aborts()) {
            self.set_ahead(ahead);
        }
    }

    /// Validates the head's outcome against the final state before it and makes it part of the state. An
    /// execution is a function of what it read: had it run now, the outcome would be the same.
    fn apply(&self, head: u64) -> bool {
        let outcome = held(&self.slot(head).outcome);
        let distrusts = self.distrusts.load(Ordering::Acquire);
        // Nobody looks at what an operation touches that is executed alone.
        let is_certain = outcome.certain && !distrusts && outcome.alone == self.alone.load(Ordering::Acquire);
        let is_valid = |base: &S| {
            let mut reads = outcome.reads.iter();
            reads.all(|read| base.get(read.column, outcome.slice(&read.key)) == outcome.value(read))
        };
        if outcome.certain && distrusts {
            return false;
        }
        if outcome.writes.is_empty() {
            return is_certain || self.with_base(is_valid);
        }
        self.with_base_mut(|base| {
            if !is_certain && !is_valid(base) {
                return false;
            }
            for write in &outcome.writes {
                let key = outcome.slice(&write.key);
                match outcome.value(write) {
                    Some(value) => base.put(write.column, key, value),
                    None => {
                        base.remove(write.column, key);
                    }
                }
            }
            true
        })
    }

    /// Finds the next operation that waits for an execution.
    fn claim(&self) -> Option<Task> {
        loop {
            let txn = self.cursor.load(Ordering::Acquire);
            if txn >= self.bound() {
                return None;
            }
            let state = self.state(txn);
            let is_waiting =
                state.lap == self.lap(txn) && matches!(state.phase, Phase::Ready | Phase::Aborted);
            let task = if is_waiting { self.start(txn, state) } else { None };
            // Fails when something before it has to be executed again.
            let _ = self
                .cursor
                .compare_exchange(txn, txn + 1, Ordering::AcqRel, Ordering::Relaxed);
            if task.is_some() {
                return task;
            }
        }
    }

    fn change(&self, txn: u64, from: State, to: State) -> bool {
        let state = &self.slot(txn).state;
        state
            .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes an execution, unless the operation's state has changed.
    fn start(&self, txn: u64, from: State) -> Option<Task> {
        let slot = self.slot(txn);
        let to = State {
            incarnation: (from.incarnation + 1).min(INCARNATION_MAX),
            ..from.at(Phase::Running)
        };
        if !self.change(txn, from, to) {
            return None;
        }
        let input = held(&slot.input).clone();
        let alone = self.alone.load(Ordering::Acquire);
        let head = self.head.load(Ordering::Acquire);
        let certain =
            input.certain_from.is_some_and(|from| head >= from) && !self.distrusts.load(Ordering::Acquire);
        Some(Task {
            txn,
            operation: input.operation,
            context: input.context,
            incarnation: to.incarnation,
            declares: input.certain_from.is_some(),
            certain,
            alone,
            early: txn > head,
            state: to,
        })
    }

    /// Publishes an execution; gives back an outcome whose buffers can be used again. Every task must end
    /// here.
    pub fn finish(&self, task: &Task, outcome: &mut Outcome) {
        let slot = self.slot(task.txn);
        {
            let mut published = held(&slot.outcome);
            let done = task.state.at(Phase::Executed);
            if self.change(task.txn, task.state, done) {
                std::mem::swap(&mut *published, outcome);
                self.publish(task, &published, outcome);
            } else {
                self.discard(task);
            }
        }
        // Pairs with the fence in `next`.
        fence(Ordering::SeqCst);
    }

    fn discard(&self, task: &Task) {
        self.aborts.fetch_add(1, Ordering::Relaxed);
        let outdated = task.state.at(Phase::Outdated);
        // Otherwise someone else executes it already, or did.
        if self.change(task.txn, outdated, outdated.at(Phase::Aborted)) {
            self.cursor.fetch_min(task.txn, Ordering::AcqRel);
        }
    }

    /// Makes an outcome's writes visible to later operations; those that read something else before are to be
    /// executed again. `earlier` is what the slot held before.
    fn publish(&self, task: &Task, outcome: &Outcome, earlier: &Outcome) {
        let (txn, head) = (task.txn, self.head.load(Ordering::Acquire));
        let is_same = earlier.txn == txn && task.incarnation > 1;
        let before = if is_same { &earlier.writes[..] } else { &[] };
        for write in &outcome.writes {
            self.versions.on_write(write.hash, txn, task.incarnation, head);
            let key = outcome.slice(&write.key);
            let mut before = before.iter();
            let known = before.find(|other| {
                (other.hash, other.column) == (write.hash, write.column) && earlier.slice(&other.key) == key
            });
            if known.is_none_or(|other| earlier.value(other) != outcome.value(write)) {
                self.outdate_readers(write.hash, txn);
            }
        }
        for gone in before {
            if !outcome.writes.iter().any(|write| write.hash == gone.hash) {
                self.versions.on_unwritten(gone.hash, txn);
                self.outdate_readers(gone.hash, txn);
            }
        }
    }

    fn outdate_readers(&self, hash: u64, txn: u64) {
        self.versions.readers_after(hash, txn, |reader, incarnation| {
            let running = State {
                lap: self.lap(reader),
                incarnation,
                phase: Phase::Running,
            };
            let executed = running.at(Phase::Executed);
            if !self.change(reader, running, running.at(Phase::Outdated))
                && self.change(reader, executed, executed.at(Phase::Aborted))
            {
                self.aborts.fetch_add(1, Ordering::Relaxed);
                self.cursor.fetch_min(reader, Ordering::AcqRel);
            }
        });
    }

    /// Whether what this execution read has changed meanwhile.
    pub(super) fn is_outdated(&self, task: &Task) -> bool {
        self.slot(task.txn).state.load(Ordering::Relaxed) != task.state.pack()
    }

    /// Looks a key up for an execution: in the nearest earlier operation that wrote it, else in the state.
    /// Validation judges later whether it was the right value.
    pub(super) fn look_up(
        &self,
        task: &Task,
        hash: u64,
        (column, key): (Column, &[u8]),
        found: &mut dyn FnMut(Option<&[u8]>),
    ) {
        if !task.certain {
            let head = self.head.load(Ordering::Acquire);
            let writer = self.versions.on_read(hash, task.txn, task.incarnation, head);
            if let Some(writer) = writer
                && self.read_version(writer, hash, (column, key), found)
            {
                return;
            }
        }
        self.with_base(|base| found(base.get(column, key)));
    }

    fn read_version(
        &self,
        writer: u64,
        hash: u64,
        (column, key): (Column, &[u8]),
        found: &mut dyn FnMut(Option<&[u8]>),
    ) -> bool {
        let outcome = held(&self.slot(writer).outcome);
        if outcome.txn != writer {
            return false;
        }
        match outcome.written(hash, column, key) {
            Some(write) => {
                found(outcome.value(&outcome.writes[write]));
                true
            }
            None => false,
        }
    }

    /// An operation touched what it had not declared.
    pub(super) fn distrust(&self) {
        self.distrusts.store(true, Ordering::Release);
    }
}
