use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::core::Task;
use super::worker::Scratch;
use super::*;
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::Alarm;
use crate::runtime::shard::crew::HelperThreads;
use crate::smr::crypto::Digester;
use crate::smr::execution::{
    Application, CheckpointRule, Columns, Direct, ExecutionEvent, Executor, OperationContext, ResultLimits,
    ResultWriter, ScalableApp, SingleThreaded, Speculative, StateRule, fixtures,
};
use crate::smr::messages::{
    Checked, CheckpointClaim, FrameKey, Mode, OperationResult, Proposal, RefusalReason, ReplyBody,
};
use crate::smr::types::{ClusterId, Epoch, FrameSeq, SeqNo, UnixTime};

/// Runs little programs: each operation is a list of steps over a few keys in two columns. What a step reads
/// decides what later steps of the same operation write, and some operations panic half way.
#[derive(Clone, Copy)]
struct Programs;

/// What the first byte of an operation says of its keys.
const DECLARES: u8 = 1;
const LIES: u8 = 2;

impl Programs {
    fn key_of(step: &[u8]) -> (Column, [u8; 1]) {
        (Column(step[1] >> 7), [step[1] & 7])
    }
}

/// A byte that depends on all that an operation is told.
fn told(context: &OperationContext) -> u8 {
    let numbers = [
        context.client().get().into(),
        context.decision().get(),
        context.place().into(),
        context.epoch().get(),
        context.time().as_nanos(),
        context.is_read().into(),
    ];
    let bytes = numbers.map(u64::to_le_bytes);
    let seed = context.seed();
    let all = bytes.as_flattened().iter().chain(&seed);
    all.fold(0u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte))
}

impl ScalableApp for Programs {
    fn speculatively_execute(
        &self,
        state: &mut impl CrudState,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        let mut sum = 0u8;
        for step in operation[1..].chunks_exact(2) {
            let (column, key) = Self::key_of(step);
            let value = vec![sum ^ step[1]; 1 + usize::from(sum % 5)];
            match step[0] % 7 {
                0 => {
                    if let Some(value) = state.read(column, &key) {
                        result.extend_from_slice(value);
                        sum = value
                            .iter()
                            .fold(sum ^ 0x55, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
                    }
                }
                1 => sum = sum.wrapping_add(state.create(column, &key, &value).into()),
                2 => sum = sum.wrapping_add(state.update(column, &key, &value).into()),
                3 => sum = sum.wrapping_add(state.delete(column, &key).into()),
                4 => state.put(column, &key, &value),
                5 => {
                    let more = if step[0] > 5 { told(context) } else { step[1] };
                    sum = sum.wrapping_mul(7).wrapping_add(more);
                }
                _ if sum % 16 == 9 => std::panic::resume_unwind(Box::new("the operation fails")),
                _ => {}
            }
        }
        result.push(sum);
    }

    fn declare_keys(
        &self,
        _: &OperationContext,
        operation: &[u8],
        touch: &mut dyn FnMut(Column, &[u8]),
    ) -> bool {
        let steps = operation[1..].chunks_exact(2);
        let skipped = usize::from(operation[0] == LIES);
        for step in steps.skip(skipped) {
            let (column, key) = Self::key_of(step);
            touch(column, &key);
        }
        operation[0] == DECLARES || operation[0] == LIES
    }
}

impl Application for Programs {
    type State = Columns<2>;

    fn initial_state(&self) -> Columns<2> {
        Columns::default()
    }

    fn update(
        &self,
        state: &mut Columns<2>,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        self.speculatively_execute(&mut Direct(state), context, operation, result);
    }

    fn unordered_execution(
        &self,
        state: &Columns<2>,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        for step in operation[1..].chunks_exact(2) {
            let (column, key) = Self::key_of(step);
            result.extend_from_slice(state.get(column, &key).unwrap_or(b"-"));
            result.push(told(context));
        }
    }

    fn name(&self) -> &'static str {
        "programs"
    }
}

type Program = Vec<u8>;

fn decision(seq: u64, frames: &[(u32, u64, Vec<Program>)]) -> Arc<Proposal> {
    let frames = frames.iter().map(|(client, number, operations)| {
        // Some frames are reads in the order, and some of other sessions.
        let mode = match number % 5 {
            0 => Mode::OrderedRead,
            _ => Mode::Ordered,
        };
        fixtures::frame_of(*client, FrameSeq::of(number % 3, *number), mode, operations)
    });
    fixtures::decision(seq, frames.collect())
}

/// What an executor made of decisions.
#[derive(Debug, PartialEq)]
struct Made {
    replies: Vec<(FrameKey, Bytes)>,
    refused: Vec<(FrameKey, RefusalReason)>,
    executed: Vec<(SeqNo, UnixTime, usize)>,
    checkpoints: Vec<CheckpointClaim>,
    digest: CheckpointClaim,
    panics: u64,
}

fn made(executor: &mut impl Executor, mut events: Vec<ExecutionEvent>) -> Made {
    executor.settle(&mut events);
    while executor.background_step(1000, &mut events) {}
    let mut made = Made {
        replies: Vec::new(),
        refused: Vec::new(),
        executed: Vec::new(),
        checkpoints: Vec::new(),
        digest: executor.digest_now(),
        panics: executor.panics(),
    };
    for event in events {
        match event {
            ExecutionEvent::Reply { key, body, .. } => made.replies.push((key, body)),
            ExecutionEvent::Refused { frame, reason, .. } => made.refused.push((frame.key, reason)),
            ExecutionEvent::Executed {
                seq,
                time,
                operations,
            } => made.executed.push((seq, time, operations)),
            ExecutionEvent::Checkpoint(taken) => made.checkpoints.push(taken.claim),
            ExecutionEvent::Snapshot(_) | ExecutionEvent::Help(_) => {}
        }
    }
    made
}

const RULE: CheckpointRule = CheckpointRule {
    decisions: 3,
    bytes: u64::MAX,
    state: StateRule::ALWAYS,
};

/// So short that replies end early and results are too long now and then.
const LIMITS: ResultLimits = ResultLimits {
    operation_bytes_max: 12,
    frame_bytes: 20,
};

fn digester() -> Digester {
    Digester::new(ClusterId::from_bytes([1; 16]))
}

fn sequential(decisions: &[Arc<Proposal>]) -> Made {
    let mut executor = SingleThreaded::new(Programs, 4, digester(), Epoch::ZERO, RULE).limit_results(LIMITS);
    let mut events = Vec::new();
    decisions
        .iter()
        .for_each(|decision| executor.execute(decision, &mut events));
    made(&mut executor, events)
}

fn speculative() -> Speculative<Programs> {
    Speculative::new(Programs, 4, digester(), Epoch::ZERO, RULE).limit_results(LIMITS)
}

fn programs() -> impl Strategy<Value = Vec<Arc<Proposal>>> {
    let steps = prop::collection::vec(any::<[u8; 2]>(), 0..6);
    let operation = (
        prop_oneof![Just(0u8), Just(DECLARES), Just(DECLARES), Just(LIES)],
        steps,
    );
    let operation = operation.prop_map(|(declares, steps)| {
        let mut program = vec![declares];
        program.extend(steps.concat());
        program
    });
    // Sequence numbers repeat: frames that were executed before, and stale ones.
    let frame = (0..5u32, 1..100u64, prop::collection::vec(operation, 1..8));
    let batches = prop::collection::vec(prop::collection::vec(frame, 0..5), 1..9);
    batches.prop_map(|batches| {
        let numbered = batches.iter().enumerate();
        numbered
            .map(|(index, frames)| decision(index as u64 + 1, frames))
            .collect()
    })
}

/// One of several workers that take turns on one thread: between executing and publishing others get their
/// turns.
#[derive(Default)]
struct VirtualWorker {
    scratch: Scratch,
    running: Option<Task>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_schedule_of_any_number_of_workers_gives_the_sequential_outcome(
        decisions in programs(),
        workers in 1..6usize,
        schedule in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let mut executor = speculative();
        let shared = executor.shared();
        let mut workers: Vec<VirtualWorker> = (0..workers).map(|_| VirtualWorker::default()).collect();
        let mut events = Vec::new();
        let mut next = decisions.iter();
        for turn in &schedule {
            let turn = usize::from(*turn);
            if turn % 7 == 0 {
                if let Some(decision) = next.next() {
                    executor.execute(decision, &mut events);
                }
                continue;
            }
            if turn % 7 == 1 {
                executor.gather(&mut events);
                continue;
            }
            if turn % 7 == 2 {
                // Speculation ends, or begins again.
                shared.core.set_ahead(if turn % 2 == 0 { 1 } else { 64 });
                shared.run_alone(turn % 4);
                continue;
            }
            let count = workers.len();
            let number = turn / 7 % count;
            let worker = &mut workers[number];
            match worker.running.take() {
                Some(task) => shared.core.finish(&task, &mut worker.scratch.outcome),
                None => {
                    worker.running = shared.core.next(number > 0).task;
                    if let Some(task) = &worker.running {
                        shared.run(task, &mut worker.scratch);
                    }
                }
            }
        }
        for worker in &mut workers {
            if let Some(task) = worker.running.take() {
                shared.core.finish(&task, &mut worker.scratch.outcome);
            }
        }
        next.for_each(|decision| executor.execute(decision, &mut events));
        prop_assert_eq!(made(&mut executor, events), sequential(&decisions));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn threads_give_the_sequential_outcome(decisions in programs(), helpers in 1..4usize) {
        let mut executor = speculative();
        let doorbell = Doorbell::new().unwrap();
        let helpers = executor.helpers(helpers).into_iter().map(|helper| (helper, None)).collect();
        let crew = HelperThreads::start("test", helpers, &doorbell, &Alarm::default()).unwrap();
        let mut events = Vec::new();
        for decision in &decisions {
            executor.execute(decision, &mut events);
            crew.ring();
        }
        while !executor.is_settled() {
            if executor.step(&mut events) {
                continue;
            }
            doorbell.prepare_park();
            if !executor.has_work() && !executor.is_settled() {
                doorbell.wait(None).unwrap();
            }
            doorbell.unpark();
            doorbell.clear();
        }
        drop(crew);
        prop_assert_eq!(made(&mut executor, events), sequential(&decisions));
    }
}

/// Operations that all add to one key.
fn chain(operations: usize) -> Arc<Proposal> {
    let program = vec![0, 0, 0, 5, 3, 4, 0];
    // Results of four bytes leave room for six operations of a frame.
    let frames: Vec<_> = (0..operations as u64)
        .step_by(5)
        .map(|number| (0, 3 * number + 1, vec![program.clone(); 5.min(operations)]))
        .collect();
    decision(1, &frames)
}

#[test]
fn a_decision_larger_than_the_window_of_operations_is_executed() {
    let decision = chain(3000);
    let mut executor = speculative();
    let mut events = Vec::new();
    executor.execute(&decision, &mut events);
    assert_eq!(made(&mut executor, events), sequential(&[decision]));
}

#[test]
fn a_reader_that_was_too_early_is_executed_again_when_the_writer_publishes() {
    let mut executor = speculative();
    executor.execute(&chain(2), &mut Vec::new());
    let shared = executor.shared();
    let (mut first, mut second) = (Scratch::default(), Scratch::default());
    let writer = shared.core.next(false).task.unwrap();
    let reader = shared.core.next(false).task.unwrap();
    shared.run(&reader, &mut second);
    shared.core.finish(&reader, &mut second.outcome);
    shared.run(&writer, &mut first);
    shared.core.finish(&writer, &mut first.outcome);
    assert_eq!(
        shared.core.aborts(),
        1,
        "publishing marks the reader before its turn to be validated"
    );
    let again = shared.core.next(false).task.unwrap();
    assert_eq!(again.txn, reader.txn);
}

#[test]
fn declared_operations_without_common_keys_are_executed_without_validation() {
    let program = |key: u8| vec![DECLARES, 0, key, 4, key];
    let mut executor = speculative();
    let operations = vec![program(1), program(2), program(1)];
    executor.execute(&decision(1, &[(0, 1, operations)]), &mut Vec::new());
    let core = &executor.shared().core;
    let certain: Vec<bool> = (0..3).map(|_| core.next(false).task.unwrap().certain).collect();
    assert_eq!(certain, [true, true, false]);
}

#[test]
fn a_declaration_that_leaves_a_key_out_changes_no_outcome() {
    // The first writes key 1 and declares only key 2; the second declares and reads key 1.
    let liar = vec![LIES, 4, 1, 4, 2];
    let honest = vec![DECLARES, 0, 1, 4, 3];
    let decisions = [decision(1, &[(0, 1, vec![liar, honest])])];
    let mut executor = speculative();
    let mut events = Vec::new();
    executor.execute(&decisions[0], &mut events);
    let shared = executor.shared();
    let (mut first, mut second) = (Scratch::default(), Scratch::default());
    let lying = shared.core.next(false).task.unwrap();
    let trusting = shared.core.next(false).task.unwrap();
    assert!(trusting.certain);
    shared.run(&trusting, &mut second);
    shared.core.finish(&trusting, &mut second.outcome);
    shared.run(&lying, &mut first);
    shared.core.finish(&lying, &mut first.outcome);
    assert_eq!(made(&mut executor, events), sequential(&decisions));
}

#[test]
fn a_panicking_operation_is_answered_with_an_error_and_counted_once() {
    // 9 is what the second step leaves: the third panics, after the first wrote.
    let failing = vec![0, 4, 1, 5, 9, 6, 0];
    let reading = vec![0, 1, 1];
    let decisions = [decision(1, &[(0, 1, vec![failing, reading])])];
    let expected = sequential(&decisions);
    assert_eq!(expected.panics, 1);
    let reply = Checked::<ReplyBody>::new(expected.replies[0].1.clone()).unwrap();
    let results: Vec<_> = reply.results().collect();
    assert!(
        matches!(
            results[..],
            [OperationResult::Panicked, OperationResult::Value(_)]
        ),
        "{results:?}"
    );
    let mut executor = speculative();
    let mut events = Vec::new();
    executor.execute(&decisions[0], &mut events);
    assert_eq!(made(&mut executor, events), expected);
}

#[test]
fn an_snapshot_of_one_executor_restores_the_other() {
    let decisions: Vec<_> = (1..=3)
        .map(|seq| decision(seq, &[(0, seq, vec![vec![0, 5, 7, 4, 1, 4, 0x81]])]))
        .collect();
    let mut executor = speculative();
    executor.keep_snapshots(true);
    let mut events = Vec::new();
    decisions
        .iter()
        .for_each(|decision| executor.execute(decision, &mut events));
    executor.settle(&mut events);
    while executor.background_step(usize::MAX, &mut events) {}
    let snapshot = events.into_iter().find_map(|event| match event {
        ExecutionEvent::Snapshot(snapshot) => Some(snapshot),
        _ => None,
    });
    let mut snapshot = snapshot.expect("a checkpoint was due");
    let mut other = SingleThreaded::new(Programs, 4, digester(), Epoch::ZERO, RULE).limit_results(LIMITS);
    let mut third = speculative();
    let mut chunk = Vec::new();
    while snapshot.next_chunk(100, &mut chunk) {
        other.read_snapshot_chunk(&chunk).unwrap();
        third.read_snapshot_chunk(&chunk).unwrap();
        chunk.clear();
    }
    assert_eq!(other.finish_snapshot().unwrap(), snapshot.claim());
    assert_eq!(third.finish_snapshot().unwrap(), snapshot.claim());
    let next = decision(4, &[(0, 3, vec![vec![0]]), (0, 4, vec![vec![0, 0, 1]])]);
    let (mut events, mut same) = (Vec::new(), Vec::new());
    other.execute(&next, &mut events);
    third.execute(&next, &mut same);
    assert_eq!(made(&mut third, same), made(&mut other, events));
}
