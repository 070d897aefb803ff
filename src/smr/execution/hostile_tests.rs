//! Whatever an application does leaves the same state everywhere: applications that panic at every moment
//! there is, in results of any size, in copies nobody needs, on every executor and kind of state, with
//! restarts in between.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::sync::Arc;

use proptest::prelude::*;

use super::fixtures::{decision, digester, frame};
use super::*;
use crate::smr::crypto::Digester;
use crate::smr::messages::{Mode, TakenCheckpoint};
use crate::smr::types::{Digest, Epoch};

const COLUMN: Column = Column(0);
/// One that no state has.
const NO_COLUMN: Column = Column(200);
const RESULTS: ResultLimits = ResultLimits {
    operation_bytes_max: 2000,
    frame_bytes: 3000,
};

/// A payload whose end panics as well.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        resume_unwind(Box::new("the payload's end"));
    }
}

fn fail() -> ! {
    resume_unwind(Box::new("planted"))
}

/// One step of an operation, of four bytes.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Sets so many keys from this one on.
    Insert(u8, u8),
    Remove(u8, u8),
    Read(u8),
    /// Appends so many bytes to the result.
    Answer(u16),
    Panic,
    PanicTwice,
    /// Panics in the middle of a change of the state: after so many keys.
    PanicInside(u8, u8),
    /// The same, and the application catches it itself.
    Caught(u8, u8),
}

impl Step {
    fn all(operation: &[u8]) -> impl Iterator<Item = Self> + '_ {
        operation[1..]
            .as_chunks::<4>()
            .0
            .iter()
            .map(|[kind, a, b, c]| match kind % 16 {
                0..=4 => Self::Insert(*a, *b),
                5..=7 => Self::Remove(*a, *b),
                8..=9 => Self::Read(*a),
                10 => Self::Answer(u16::from_le_bytes([*b, *c]) % 4000),
                11 => Self::Panic,
                12 => Self::PanicTwice,
                13 => Self::Caught(*a, *b),
                _ => Self::PanicInside(*a, *b),
            })
    }
}

fn key(first: u8, number: u8) -> [u8; 3] {
    [first.wrapping_add(number), number / 16, 7]
}

/// What an operation does to whatever state.
trait Acts {
    fn put(&mut self, key: &[u8], value: &[u8]);
    fn remove(&mut self, key: &[u8]) -> bool;
    fn read(&mut self, key: &[u8]) -> usize;
    /// Sets keys and panics before the change has ended.
    fn fail_inside(&mut self, first: u8, count: u8);
}

fn act(state: &mut impl Acts, operation: &[u8], result: &mut ResultWriter) {
    let mut sum = operation[0];
    for step in Step::all(operation) {
        match step {
            Step::Insert(first, count) => {
                (0..count).for_each(|number| state.put(&key(first, number), &vec![sum; usize::from(sum)]));
            }
            Step::Remove(first, count) => {
                let removed = (0..count).filter(|number| state.remove(&key(first, *number)));
                sum = sum.wrapping_add(removed.count() as u8);
            }
            Step::Read(first) => sum = sum.wrapping_add(state.read(&key(first, 0)) as u8),
            Step::Answer(bytes) => result.extend_from_slice(&vec![sum; usize::from(bytes)]),
            Step::Panic => fail(),
            Step::PanicTwice => panic_any(Bomb),
            Step::PanicInside(first, count) => state.fail_inside(first, count),
            Step::Caught(first, count) => {
                let caught = catch_unwind(AssertUnwindSafe(|| state.fail_inside(first, count)));
                sum = sum.wrapping_add(caught.is_err().into());
            }
        }
    }
    result.push(sum);
}

/// Hints that panic now and then.
fn hint(operations: &[&[u8]]) {
    if operations.iter().any(|operation| operation[0] % 13 == 5) {
        fail();
    }
}

/// A map that cannot take anything back.
#[derive(Default, Clone)]
struct Plain(BTreeMap<Vec<u8>, Vec<u8>>);

impl Acts for Plain {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.insert(key.to_vec(), value.to_vec());
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        self.0.remove(key).is_some()
    }

    fn read(&mut self, key: &[u8]) -> usize {
        self.0.get(key).map_or(0, Vec::len)
    }

    fn fail_inside(&mut self, first: u8, count: u8) {
        (0..count).for_each(|number| self.put(&key(first, number), b"half"));
        fail();
    }
}

fn write_map(map: &BTreeMap<Vec<u8>, Vec<u8>>, out: &mut Vec<u8>) {
    for (key, value) in map {
        for bytes in [key, value] {
            out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            out.extend_from_slice(bytes);
        }
    }
}

fn read_map(mut bytes: &[u8]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut take = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (taken, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        bytes = rest;
        Some(taken.to_vec())
    };
    std::iter::from_fn(|| Some((take()?, take()?))).collect()
}

fn map_bytes(map: &BTreeMap<Vec<u8>, Vec<u8>>) -> u64 {
    map.iter()
        .map(|(key, value)| (key.len() + value.len()) as u64)
        .sum()
}

impl MonolithicState for Plain {
    /// Digested once in a few steps, as if it took long.
    type Snapshot = (Self, Reluctant);

    fn snapshot(&mut self) -> Self::Snapshot {
        (self.clone(), Reluctant(0))
    }

    fn digest_step(
        (state, steps): &mut Self::Snapshot,
        digester: &Digester,
        budget_bytes: usize,
        digests: &mut Vec<Digest>,
    ) -> bool {
        steps.0 = steps.0.saturating_add(budget_bytes);
        if steps.0 < 50_000 {
            return false;
        }
        let mut bytes = Vec::new();
        write_map(&state.0, &mut bytes);
        digests.push(digester.digest(crate::smr::crypto::Domain::State, &bytes));
        true
    }

    fn piece_count(_: &Self::Snapshot) -> usize {
        1
    }

    fn write_piece((state, _): &mut Self::Snapshot, out: &mut Vec<u8>) {
        write_map(&state.0, out);
    }

    fn blank() -> Self {
        Self::default()
    }

    fn read_piece(&mut self, _: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.0 = read_map(bytes);
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        map_bytes(&self.0)
    }
}

/// Does not go without a panic.
struct Reluctant(usize);

impl Drop for Reluctant {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            resume_unwind(Box::new("the end of a snapshot"));
        }
    }
}

/// A part whose end panics now and then, when nobody needs it any more.
#[derive(Default, Clone)]
struct Grumpy(BTreeMap<Vec<u8>, Vec<u8>>);

impl Drop for Grumpy {
    fn drop(&mut self) {
        if self.0.len() % 3 == 1 && !std::thread::panicking() {
            resume_unwind(Box::new("the end of a part"));
        }
    }
}

impl StatePart for Grumpy {
    fn write(&self, out: &mut Vec<u8>) {
        write_map(&self.0, out);
    }

    fn size_bytes(&self) -> u64 {
        map_bytes(&self.0)
    }
}

const PART_COUNT: usize = 4;

/// Parts of its own; `UNDOES` says whether they take back.
struct InParts<const UNDOES: bool>(Parts<Grumpy>);

impl<const UNDOES: bool> DivisibleState for InParts<UNDOES> {
    type Part = Grumpy;

    const UNDOES: bool = UNDOES;

    fn begin_operation(&mut self) {
        self.0.begin_operation();
    }

    fn keep_operation(&mut self) {
        self.0.keep_operation();
    }

    fn undo_operation(&mut self) {
        self.0.undo_operation();
    }

    fn blank() -> Self {
        Self(match UNDOES {
            true => Parts::undoing(PART_COUNT),
            false => Parts::new(PART_COUNT),
        })
    }

    fn parts(&self) -> &Parts<Grumpy> {
        &self.0
    }

    fn read_part(&mut self, number: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.0.change(number, |part| part.0 = read_map(bytes));
        Ok(())
    }
}

impl<const UNDOES: bool> Acts for InParts<UNDOES> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.change(usize::from(key[0]) % PART_COUNT, |part| {
            part.0.insert(key.to_vec(), value.to_vec());
        });
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        self.0.change(usize::from(key[0]) % PART_COUNT, |part| {
            part.0.remove(key).is_some()
        })
    }

    fn read(&mut self, key: &[u8]) -> usize {
        let part = self.0.get(usize::from(key[0]) % PART_COUNT);
        part.0.get(key).map_or(0, Vec::len)
    }

    fn fail_inside(&mut self, first: u8, count: u8) {
        let last = count.checked_sub(1).map(|last| key(first, last));
        (1..count).for_each(|number| self.put(&key(first, number - 1), b"half"));
        let part = usize::from(last.unwrap_or_default()[0]) % PART_COUNT;
        self.0.change(part, |part| {
            if let Some(last) = last {
                part.0.insert(last.to_vec(), b"half".to_vec());
            }
            fail();
        });
    }
}

impl<C: CrudState> Acts for C {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        CrudState::put(self, COLUMN, key, value);
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        self.delete(COLUMN, key)
    }

    fn read(&mut self, key: &[u8]) -> usize {
        CrudState::read(self, COLUMN, key).map_or(0, <[u8]>::len)
    }

    fn fail_inside(&mut self, first: u8, count: u8) {
        (0..count).for_each(|number| Acts::put(self, &key(first, number), b"half"));
        // Panics in the state's own code.
        CrudState::put(self, NO_COLUMN, &[first], b"nowhere");
    }
}

/// The application over states that are changed directly.
#[derive(Clone, Copy)]
struct Directly<S>(fn() -> S);

impl<S: MonolithicState + Acts> Application for Directly<S> {
    type State = S;

    fn initial_state(&self) -> S {
        (self.0)()
    }

    fn update(&self, state: &mut S, _: &OperationContext, operation: &[u8], result: &mut ResultWriter) {
        act(state, operation, result);
    }

    fn unordered_execution(&self, _: &S, _: &OperationContext, operation: &[u8], result: &mut ResultWriter) {
        result.extend_from_slice(&vec![1; operation.len() * 100]);
        fail();
    }

    fn prepare(&self, _: &S, operations: &[&[u8]]) {
        hint(operations);
    }

    fn name(&self) -> &'static str {
        "directly"
    }
}

/// The application over keyed states.
#[derive(Clone, Copy)]
struct Keyed<S>(fn() -> S);

impl<S: MonolithicState + KeyedState> Application for Keyed<S> {
    type State = S;

    fn initial_state(&self) -> S {
        (self.0)()
    }

    fn update(&self, state: &mut S, _: &OperationContext, operation: &[u8], result: &mut ResultWriter) {
        act(&mut Direct(state), operation, result);
    }

    fn unordered_execution(&self, _: &S, _: &OperationContext, _: &[u8], _: &mut ResultWriter) {
        fail();
    }

    fn prepare(&self, _: &S, operations: &[&[u8]]) {
        hint(operations);
    }

    fn name(&self) -> &'static str {
        "keyed"
    }
}

impl<S: MonolithicState + KeyedState> ScalableApp for Keyed<S> {
    fn speculatively_execute(
        &self,
        state: &mut impl CrudState,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        act(state, operation, result);
    }

    /// Sometimes nothing, sometimes not all, sometimes a panic half way.
    fn declare_keys(
        &self,
        _: &OperationContext,
        operation: &[u8],
        touch: &mut dyn FnMut(Column, &[u8]),
    ) -> bool {
        for step in Step::all(operation) {
            if let Step::Insert(first, count) | Step::Remove(first, count) = step {
                (0..count).for_each(|number| touch(COLUMN, &key(first, number)));
            }
        }
        match operation[0] % 5 {
            0 => fail(),
            1 => true,
            _ => false,
        }
    }
}

fn rule() -> CheckpointRule {
    CheckpointRule {
        decisions: 2,
        bytes: u64::MAX,
        state: StateRule {
            small_bytes: 1000,
            factor: 4,
            log_bytes_max: 6 * StateRule::DECISION_BYTES,
        },
    }
}

/// How one replica lives.
#[derive(Debug, Clone)]
struct Life {
    /// It starts again before these decisions, from its last snapshot and the decisions after it.
    restarts: Vec<usize>,
    /// What is done of a digest between decisions; 0: nothing by itself.
    budget_bytes: usize,
    /// Whether other threads help.
    helped: bool,
}

/// What a replica made of the decisions.
#[derive(Debug, PartialEq, Default)]
struct Made {
    replies: BTreeMap<(u32, u64), Bytes>,
    checkpoints: BTreeMap<SeqNo, TakenCheckpoint>,
    digest: Option<CheckpointClaim>,
}

impl Made {
    /// Whatever was made twice was made alike.
    fn take(&mut self, events: Vec<ExecutionEvent>, image: &mut Option<(SeqNo, Vec<Vec<u8>>)>, helped: bool) {
        for event in events {
            match event {
                ExecutionEvent::Reply { key, body, .. } => {
                    let reply = (key.client.get(), key.sequence.number());
                    let before = self.replies.entry(reply).or_insert_with(|| body.clone());
                    assert_eq!(*before, body, "the same reply again: {key:?}");
                }
                ExecutionEvent::Checkpoint(taken) => {
                    let before = *self.checkpoints.entry(taken.claim.seq).or_insert(taken);
                    assert_eq!(before, taken, "the same checkpoint again");
                }
                ExecutionEvent::Help(help) if helped => help.run(),
                ExecutionEvent::Snapshot(mut written) => {
                    let (mut chunks, mut chunk) = (Vec::new(), Vec::new());
                    while written.next_chunk(2000, &mut chunk) {
                        chunks.push(std::mem::take(&mut chunk));
                    }
                    *image = Some((written.claim().seq, chunks));
                }
                _ => {}
            }
        }
    }
}

fn live<E: Executor>(make: impl Fn() -> E, decisions: &[Arc<Proposal>], life: &Life) -> Made {
    let (mut made, mut image) = (Made::default(), None);
    let start = |image: &Option<(SeqNo, Vec<Vec<u8>>)>| {
        let mut executor = make();
        executor.keep_snapshots(true);
        if let Some((seq, chunks)) = image {
            for chunk in chunks {
                executor
                    .read_snapshot_chunk(chunk)
                    .expect("a snapshot of our own can be read");
            }
            assert_eq!(executor.finish_snapshot().expect("and is whole").seq, *seq);
        }
        executor
    };
    let mut executor = start(&None);
    let mut next = 0;
    let mut restarts = life.restarts.clone();
    while next < decisions.len() {
        if let Some(place) = restarts.iter().position(|at| *at == next) {
            restarts.swap_remove(place);
            guard::let_go(std::mem::replace(&mut executor, start(&image)));
            next = executor.executed().get() as usize;
            continue;
        }
        let mut events = Vec::new();
        executor.execute(&decisions[next], &mut events);
        executor.execute_unordered(
            &frame(3, next as u64 + 1, Mode::Unordered, &[vec![1]]),
            &mut Vec::new(),
        );
        if life.budget_bytes > 0 {
            executor.settle(&mut events);
            executor.background_step(life.budget_bytes, &mut events);
        }
        made.take(events, &mut image, life.helped);
        next += 1;
    }
    let mut events = Vec::new();
    executor.settle(&mut events);
    while executor.background_step(usize::MAX, &mut events) {}
    made.take(events, &mut image, life.helped);
    made.digest = Some(executor.digest_now());
    guard::let_go(executor);
    made
}

fn single<A: Application>(application: A) -> SingleThreaded<A> {
    SingleThreaded::new(application, 4, digester(), Epoch::ZERO, rule()).limit_results(RESULTS)
}

fn speculative<A: ScalableApp>(application: A) -> Speculative<A> {
    Speculative::new(application, 4, digester(), Epoch::ZERO, rule()).limit_results(RESULTS)
}

/// All replicas that live these lives make the same of the decisions; `expected` made it too.
fn compare<E: Executor>(make: impl Fn() -> E, decisions: &[Arc<Proposal>], lives: &[Life], expected: &Made) {
    for life in lives {
        let made = live(&make, decisions, life);
        assert_eq!(
            made.checkpoints.keys().collect::<Vec<_>>(),
            expected.checkpoints.keys().collect::<Vec<_>>(),
            "checkpoints at the same places: {life:?}"
        );
        assert_eq!(made, *expected, "{life:?}");
    }
}

fn in_all_kinds(decisions: &[Arc<Proposal>], lives: &[Life]) {
    let first = &lives[0];
    let plain = || single(Directly(Plain::default));
    compare(plain, decisions, lives, &live(plain, decisions, first));
    let parts = || single(Directly(<InParts<false> as DivisibleState>::blank));
    compare(parts, decisions, lives, &live(parts, decisions, first));
    let undoing = || single(Directly(<InParts<true> as DivisibleState>::blank));
    compare(undoing, decisions, lives, &live(undoing, decisions, first));
    keyed(decisions, lives, Partitioned::<PART_COUNT>::default);
    let taken_back = live(undoing, decisions, first);
    let keyed_replies = live(
        || single(Keyed(Partitioned::<PART_COUNT>::default)),
        decisions,
        first,
    )
    .replies;
    assert_eq!(
        taken_back.replies, keyed_replies,
        "what is taken back is, on every state that does"
    );
}

fn keyed<S: MonolithicState + KeyedState>(decisions: &[Arc<Proposal>], lives: &[Life], state: fn() -> S) {
    let expected = live(|| single(Keyed(state)), decisions, &lives[0]);
    compare(|| single(Keyed(state)), decisions, lives, &expected);
    compare(|| speculative(Keyed(state)), decisions, lives, &expected);
}

fn operations() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let operation = proptest::collection::vec(any::<[u8; 4]>(), 0..5);
    let operation =
        (any::<u8>(), operation).prop_map(|(first, steps)| [&[first][..], &steps.concat()].concat());
    proptest::collection::vec(operation, 1..6)
}

fn decisions() -> impl Strategy<Value = Vec<Arc<Proposal>>> {
    let frames = proptest::collection::vec(operations(), 0..3);
    proptest::collection::vec(frames, 1..14).prop_map(|decisions| {
        let sequence = Cell::new(0);
        let frames = |frames: Vec<Vec<Vec<u8>>>| {
            let frames = frames.into_iter().map(|operations| {
                sequence.set(sequence.get() + 1);
                frame(1, sequence.get(), Mode::Ordered, &operations)
            });
            frames.collect()
        };
        let decisions = decisions.into_iter().zip(1..);
        decisions.map(|(list, seq)| decision(seq, frames(list))).collect()
    })
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life = (
        proptest::collection::vec(0usize..14, 0..4),
        prop_oneof![Just(0), Just(1), Just(200), Just(usize::MAX)],
        any::<bool>(),
    );
    let life = life.prop_map(|(restarts, budget_bytes, helped)| Life {
        restarts,
        budget_bytes,
        helped,
    });
    proptest::collection::vec(life, 3)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn whatever_an_application_does_leaves_the_same_everywhere(decisions in decisions(), lives in lives()) {
        in_all_kinds(&decisions, &lives);
    }
}

#[test]
fn columns_take_back_across_columns_on_every_executor() {
    let steps = |first: u8, steps: &[[u8; 4]]| [&[first][..], &steps.concat()].concat();
    let frames = |seq: u64| {
        let operations = [
            steps(seq as u8, &[[0, seq as u8, 20, 0]]),
            steps(7, &[[5, 3, 40, 0], [0, 50, 30, 0], [15, 9, 10, 0]]),
            steps(2, &[[0, 90, 10, 0], [11, 0, 0, 0]]),
        ];
        decision(seq, vec![frame(1, seq, Mode::Ordered, &operations)])
    };
    let decisions: Vec<_> = (1..=6).map(frames).collect();
    let life = |restarts: &[usize]| Life {
        restarts: restarts.to_vec(),
        budget_bytes: 1 << 20,
        helped: true,
    };
    keyed(&decisions, &[life(&[]), life(&[5])], Columns::<2>::default);
}

/// The scene in which a cluster halted: large states whose operations each insert much, and then panic inside
/// the change.
#[test]
fn a_state_whose_changes_panicked_counts_the_same_after_a_restart() {
    const INSERTED: u32 = 20_000;
    struct Inserts;
    impl Application for Inserts {
        type State = InParts<false>;

        fn initial_state(&self) -> Self::State {
            DivisibleState::blank()
        }

        fn update(
            &self,
            state: &mut Self::State,
            _: &OperationContext,
            operation: &[u8],
            _: &mut ResultWriter,
        ) {
            state.0.change(usize::from(operation[0]) % PART_COUNT, |part| {
                for number in 0..INSERTED {
                    let key = [operation, &number.to_le_bytes()].concat();
                    part.0.insert(key, vec![1; 8]);
                }
                fail();
            });
        }

        fn unordered_execution(&self, _: &Self::State, _: &OperationContext, _: &[u8], _: &mut ResultWriter) {
        }

        fn name(&self) -> &'static str {
            "inserts"
        }
    }
    let make = || {
        let rule = CheckpointRule {
            decisions: 1,
            bytes: u64::MAX,
            state: StateRule {
                small_bytes: 1 << 20,
                factor: 1,
                log_bytes_max: 10 * StateRule::DECISION_BYTES,
            },
        };
        SingleThreaded::new(Inserts, 4, digester(), Epoch::ZERO, rule)
    };
    let decisions: Vec<_> = (1..=16u64)
        .map(|seq| decision(seq, vec![frame(1, seq, Mode::Ordered, &[vec![seq as u8]])]))
        .collect();
    let life = |restarts: &[usize]| Life {
        restarts: restarts.to_vec(),
        budget_bytes: usize::MAX,
        helped: false,
    };
    let expected = live(make, &decisions, &life(&[]));
    assert!(expected.checkpoints.values().any(|taken| taken.light.is_some()));
    compare(make, &decisions, &[life(&[3]), life(&[8, 12])], &expected);
}

/// A part whose copies panic: no operation may be blamed for it, as only some replicas make one.
#[test]
fn a_copy_that_panics_stops_the_replica_and_is_no_result() {
    #[derive(Default)]
    struct Uncopyable;
    impl Clone for Uncopyable {
        fn clone(&self) -> Self {
            fail()
        }
    }
    impl StatePart for Uncopyable {
        fn write(&self, _: &mut Vec<u8>) {}

        fn size_bytes(&self) -> u64 {
            0
        }
    }
    let mut parts = Parts::<Uncopyable>::new(1);
    let mut change = || guard::guarded(|| parts.change(0, |_| ())).is_ok();
    assert!(change(), "nobody else has it");
    let mut parts = Parts::<Uncopyable>::new(1);
    let snapshot = parts.snapshot();
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        guard::guarded(|| parts.change(0, |_| ())).is_ok()
    }));
    assert!(stopped.expect_err("it goes through").is::<StateFault>());
    drop(snapshot);
}
