use std::sync::Arc;

use proptest::prelude::*;

use super::apps::{bank, counter, kv};
use super::fixtures::{decision, digester, frame};
use super::*;
use crate::smr::crypto::Digester;
use crate::smr::messages::{Authenticator, Failure, Frame, Mode, OperationResult, ReplyBody, RequestFrame};
use crate::smr::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq};

fn executor<A: Application>(application: A, decisions: u64) -> SingleThreaded<A> {
    let rule = CheckpointRule {
        decisions,
        bytes: u64::MAX,
        state: StateRule::ALWAYS,
    };
    SingleThreaded::new(application, 4, digester(), Epoch::ZERO, rule)
}

/// What a client sees of one operation.
type Seen = Result<Vec<u8>, (Failure, Vec<u8>)>;

fn value(bytes: &[u8]) -> Seen {
    Ok(bytes.to_vec())
}

fn error(bytes: &str) -> Seen {
    Err((Failure::Application, bytes.as_bytes().to_vec()))
}

fn seen(result: OperationResult<'_>) -> Seen {
    match result {
        OperationResult::Value(value) => Ok(value.to_vec()),
        OperationResult::Error(error) => Err((Failure::Application, error.to_vec())),
        OperationResult::TooLong => Err((Failure::TooLong, Vec::new())),
        OperationResult::Panicked => Err((Failure::Panicked, Vec::new())),
    }
}

fn results(events: &[ExecutionEvent]) -> Vec<Vec<Seen>> {
    let replies = events.iter().filter_map(|event| match event {
        ExecutionEvent::Reply { body, .. } => Some(body.clone()),
        _ => None,
    });
    let split = |body| {
        let body = crate::smr::messages::Checked::<ReplyBody>::new(body).unwrap();
        assert!(body.is_sound());
        body.results().map(seen).collect()
    };
    replies.map(split).collect()
}

fn checkpoints(executor: &mut impl Executor, events: &mut Vec<ExecutionEvent>) -> Vec<CheckpointClaim> {
    while executor.background_step(100, events) {}
    let claims = events.iter().filter_map(|event| match event {
        ExecutionEvent::Checkpoint(taken) => Some(taken.claim),
        _ => None,
    });
    claims.collect()
}

#[test]
fn a_frame_is_executed_once_however_often_it_is_decided() {
    let mut executor = executor(apps::counter::Counter, 100);
    let add = frame(
        1,
        10,
        Mode::Ordered,
        &[apps::counter::add(5), apps::counter::add(7)],
    );
    let mut events = Vec::new();
    executor.execute(&decision(1, vec![add.clone(), add.clone()]), &mut events);
    executor.execute(&decision(2, vec![add]), &mut events);
    let expected = vec![value(&5u64.to_le_bytes()), value(&12u64.to_le_bytes())];
    assert_eq!(
        results(&events),
        vec![expected],
        "its client asks for its reply by itself, if it lacks that"
    );
    let operations: Vec<usize> = events
        .iter()
        .filter_map(|event| match event {
            ExecutionEvent::Executed { operations, .. } => Some(*operations),
            _ => None,
        })
        .collect();
    assert_eq!(operations, [2, 0]);
}

#[test]
fn a_stale_frame_and_a_stranger_are_skipped_without_a_reply() {
    let mut executor = executor(apps::counter::Counter, 100);
    let mut events = Vec::new();
    let frames = vec![
        frame(1, 1000, Mode::Ordered, &[apps::counter::add(1)]),
        frame(1, 1000 - CLIENT_WINDOW, Mode::Ordered, &[apps::counter::add(1)]),
        frame(1, 1001 - CLIENT_WINDOW, Mode::Ordered, &[apps::counter::add(1)]),
        frame(77, 1, Mode::Ordered, &[apps::counter::add(1)]),
    ];
    executor.execute(&decision(1, frames), &mut events);
    assert_eq!(results(&events).len(), 2);
}

#[test]
fn an_unordered_frame_reads_and_changes_nothing() {
    let mut executor = executor(kv::Kv, 100);
    let mut events = Vec::new();
    executor.execute(
        &decision(
            1,
            vec![frame(0, 1, Mode::Ordered, &[kv::put(b"k", b"v").unwrap()])],
        ),
        &mut events,
    );
    events.clear();
    let reads = [
        kv::get(b"k").unwrap(),
        kv::get(b"other").unwrap(),
        kv::put(b"k", b"w").unwrap(),
    ];
    executor.execute_unordered(&frame(0, 2, Mode::Unordered, &reads), &mut events);
    assert_eq!(
        results(&events),
        vec![vec![value(b"\x01v"), value(&[0]), error(apps::MALFORMED)]]
    );
    assert_eq!(executor.state().get(b"k"), Some(&b"v"[..]));
}

/// Panics on the operation `[13]`.
struct Fragile;

impl Application for Fragile {
    type State = PartitionedStore;

    fn initial_state(&self) -> PartitionedStore {
        PartitionedStore::default()
    }

    fn update(
        &self,
        state: &mut PartitionedStore,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        result.extend_from_slice(b"half a result");
        state.put(operation, b"");
        assert_ne!(operation, [13], "planted");
    }

    fn unordered_execution(
        &self,
        _: &PartitionedStore,
        _: &OperationContext,
        _: &[u8],
        _: &mut ResultWriter,
    ) {
    }

    fn name(&self) -> &'static str {
        "fragile"
    }
}

#[test]
fn a_panicking_operation_gets_the_defined_result_and_the_rest_of_the_frame_goes_on() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut executor = executor(Fragile, 100);
    let mut events = Vec::new();
    let operations = [vec![1], vec![13], vec![13], vec![2]];
    executor.execute(
        &decision(1, vec![frame(0, 1, Mode::Ordered, &operations)]),
        &mut events,
    );
    std::panic::set_hook(hook);
    let (whole, panicked) = (value(b"half a result"), Err((Failure::Panicked, Vec::new())));
    let expected = vec![whole.clone(), panicked.clone(), panicked, whole];
    assert_eq!(results(&events), vec![expected]);
    assert_eq!(
        (executor.panics(), executor.state().len()),
        (2, 2),
        "what panicked left nothing"
    );
}

#[test]
fn checkpoints_fall_at_the_same_decisions_and_freeze_the_state_while_execution_goes_on() {
    let run = |digest_at_once: bool| {
        let mut executor = executor(kv::Kv, 3);
        let (mut events, mut claims) = (Vec::new(), Vec::new());
        for seq in 1..=7u64 {
            let put = kv::put(&(seq % 3).to_le_bytes(), &seq.to_le_bytes()).unwrap();
            executor.execute(
                &decision(seq, vec![frame(0, seq, Mode::Ordered, &[put])]),
                &mut events,
            );
            if digest_at_once {
                claims = checkpoints(&mut executor, &mut events);
            }
        }
        claims = if digest_at_once {
            claims
        } else {
            checkpoints(&mut executor, &mut events)
        };
        claims
    };
    let claims = run(true);
    assert_eq!(
        claims.iter().map(|claim| claim.seq.get()).collect::<Vec<_>>(),
        [3, 6]
    );
    assert_ne!(claims[0].digest, claims[1].digest);
    assert_eq!(
        claims,
        run(false),
        "when the digest is computed does not change it"
    );
}

fn digest_of(store: &mut PartitionedStore) -> Digest {
    let (mut snapshot, mut pieces) = (store.snapshot(), Vec::new());
    while !PartitionedStore::digest_step(&mut snapshot, &digester(), 1000, &mut pieces) {}
    state_digest(&pieces, &digester())
}

proptest! {
    #[test]
    fn the_window_agrees_with_a_set(sequences in proptest::collection::vec(1u64..300, 1..300)) {
        let mut window = SequenceWindow::default();
        let mut seen = std::collections::BTreeSet::new();
        for sequence in sequences {
            let highest = seen.last().copied().unwrap_or(0);
            let expected = match sequence {
                s if s + CLIENT_WINDOW <= highest => FrameStatus::Stale,
                s if seen.contains(&s) => FrameStatus::Executed,
                _ => FrameStatus::Fresh,
            };
            prop_assert_eq!(window.check(FrameSeq::new(sequence)), expected);
            if expected == FrameStatus::Fresh {
                window.record(FrameSeq::new(sequence));
                seen.insert(sequence);
            }
        }
    }

    #[test]
    fn equal_contents_have_equal_digests_whatever_their_history(
        writes in proptest::collection::vec((0u8..30, any::<Option<u16>>()), 0..200),
    ) {
        let mut store = PartitionedStore::default();
        let mut model = std::collections::BTreeMap::new();
        for (step, (key, value)) in writes.iter().enumerate() {
            match value {
                Some(value) => {
                    store.put(&[*key], &value.to_le_bytes());
                    model.insert(*key, *value);
                }
                None => prop_assert_eq!(store.delete(&[*key]), model.remove(key).is_some()),
            }
            if step % 7 == 0 {
                let _ = digest_of(&mut store);
            }
        }
        let mut fresh = PartitionedStore::default();
        for (key, value) in model.iter().rev() {
            fresh.put(&[*key], &value.to_le_bytes());
        }
        prop_assert_eq!(store.len(), model.len());
        prop_assert_eq!(digest_of(&mut store), digest_of(&mut fresh));
    }

    #[test]
    fn no_bytes_panic_an_application_and_transfers_conserve_the_total(
        junk in proptest::collection::vec(any::<u8>(), 0..40),
        transfers in proptest::collection::vec((0u64..5, 0u64..5, 0u64..200), 0..60),
    ) {
        let (bank_app, kv_app) = (bank::Bank, kv::Kv);
        let (mut accounts, mut keys) = (bank_app.initial_state(), kv_app.initial_state());
        let mut result = ResultWriter::default();
        let context = OperationContext::default();
        bank_app.update(&mut accounts, &context, &junk, &mut result);
        kv_app.update(&mut keys, &context, &junk, &mut result);
        kv_app.unordered_execution(&keys, &context, &junk, &mut result);
        let mut accounts = bank_app.initial_state();
        for account in 0..5 {
            bank_app.update(&mut accounts, &context, &bank::deposit(account, 100), &mut result);
        }
        for (from, to, amount) in transfers {
            bank_app.update(&mut accounts, &context, &bank::transfer(from, to, amount), &mut result);
        }
        let mut total = 0;
        for account in 0..5 {
            result.clear();
            bank_app.unordered_execution(&accounts, &context, &bank::balance(account), &mut result);
            total += counter::value(result.as_slice()).unwrap();
        }
        prop_assert_eq!(total, 500);
    }
}

/// Panics when told of the operation `[13]`, and gives results of ten bytes.
struct Nervous;

impl Application for Nervous {
    type State = PartitionedStore;

    fn initial_state(&self) -> PartitionedStore {
        PartitionedStore::default()
    }

    fn update(
        &self,
        state: &mut PartitionedStore,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        state.put(operation, b"");
        result.extend_from_slice(&[7; 10]);
    }

    fn unordered_execution(
        &self,
        _: &PartitionedStore,
        _: &OperationContext,
        _: &[u8],
        _: &mut ResultWriter,
    ) {
    }

    fn prepare(&self, _: &PartitionedStore, operations: &[&[u8]]) {
        assert!(!operations.contains(&&[13][..]), "planted");
    }

    fn name(&self) -> &'static str {
        "nervous"
    }
}

#[test]
fn a_hint_that_panics_costs_nothing_but_hints() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut executor = executor(Nervous, 100);
    let mut events = Vec::new();
    let operations: Vec<Vec<u8>> = (0..20).map(|byte| vec![byte]).collect();
    executor.execute(
        &decision(1, vec![frame(0, 1, Mode::Ordered, &operations)]),
        &mut events,
    );
    std::panic::set_hook(hook);
    assert_eq!(results(&events), vec![vec![value(&[7; 10]); 20]]);
    assert_eq!((executor.panics(), executor.state().len()), (0, 20));
}

/// Operations of different frames.
fn limited(operation_bytes_max: usize, frame_bytes: usize) -> (Vec<Vec<Seen>>, usize) {
    let limits = ResultLimits {
        operation_bytes_max,
        frame_bytes,
    };
    let mut executor = executor(Nervous, 100).limit_results(limits);
    let mut events = Vec::new();
    let operations: Vec<Vec<u8>> = (0..4).map(|byte| vec![byte]).collect();
    let frames = vec![
        frame(0, 1, Mode::Ordered, &operations),
        frame(0, 2, Mode::Ordered, &operations[..1]),
    ];
    executor.execute(&decision(1, frames), &mut events);
    (results(&events), executor.state().len())
}

#[test]
fn a_result_beyond_the_limit_of_one_is_dropped_and_its_operation_takes_effect() {
    let too_long = Err((Failure::TooLong, Vec::new()));
    let expected = vec![vec![too_long.clone(); 4], vec![too_long]];
    assert_eq!(limited(9, 1000), (expected, 4));
}

#[test]
fn a_frame_whose_results_leave_no_room_is_executed_no_further() {
    let expected = vec![vec![value(&[7; 10]); 3], vec![value(&[7; 10])]];
    assert_eq!(
        limited(10, 25),
        (expected, 3),
        "each frame has the room for itself"
    );
    let expected = vec![vec![value(&[7; 10])], vec![value(&[7; 10])]];
    assert_eq!(limited(10, 1), (expected, 1), "one operation is always executed");
}

/// Updates and reads tell themselves apart.
struct Told;

impl Application for Told {
    type State = PartitionedStore;

    fn initial_state(&self) -> PartitionedStore {
        PartitionedStore::default()
    }

    fn update(
        &self,
        state: &mut PartitionedStore,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        state.put(operation, b"");
        result.extend_from_slice(b"update");
    }

    fn unordered_execution(
        &self,
        _: &PartitionedStore,
        _: &OperationContext,
        _: &[u8],
        result: &mut ResultWriter,
    ) {
        result.extend_from_slice(b"read");
    }

    fn name(&self) -> &'static str {
        "told"
    }
}

#[test]
fn a_read_in_the_order_reads_and_its_frame_is_executed_once() {
    let mut executor = executor(Told, 100);
    let mut events = Vec::new();
    let read = frame(0, 1, Mode::OrderedRead, &[b"a".to_vec()]);
    executor.execute(&decision(1, vec![read.clone(), read]), &mut events);
    assert_eq!(
        results(&events),
        vec![vec![value(b"read")]],
        "its client asks for its reply by itself, if it lacks that"
    );
    assert_eq!(executor.state().len(), 0);
    assert!(matches!(
        events.last(),
        Some(ExecutionEvent::Executed { operations: 1, .. })
    ));
}

#[test]
fn who_asked_the_other_frame_of_a_number_is_told_that_it_is_not_executed() {
    let mut executor = executor(apps::counter::Counter, 100);
    let mut events = Vec::new();
    let [ours, theirs] = [5, 7].map(|amount| frame(1, 10, Mode::Ordered, &[apps::counter::add(amount)]));
    executor.execute(&decision(1, vec![ours.clone(), theirs.clone()]), &mut events);
    executor.reply_again(&theirs.id(), &mut events);
    executor.reply_again(&ours.id(), &mut events);
    let refusals = events.iter().filter_map(|event| match event {
        ExecutionEvent::Refused { frame, reason, .. } => Some((*frame, *reason)),
        _ => None,
    });
    assert_eq!(
        refusals.collect::<Vec<_>>(),
        [(theirs.id(), RefusalReason::NumberUsed)],
        "when it asks again"
    );
    assert_eq!(results(&events), vec![vec![value(&5u64.to_le_bytes())]; 2]);
    events.clear();
    executor.reply_again(&frame(1, 11, Mode::Ordered, &[vec![]]).id(), &mut events);
    assert!(events.is_empty(), "it may still be executed");
}

#[test]
fn a_client_is_told_the_highest_of_its_sessions() {
    let mut executor = executor(apps::counter::Counter, 100);
    let highest = |executor: &mut SingleThreaded<_>| {
        let mut events = Vec::new();
        executor.execute_unordered(&frame(1, 3, Mode::Session, &[vec![]]), &mut events);
        results(&events)
    };
    assert_eq!(highest(&mut executor), vec![vec![value(&0u64.to_le_bytes())]]);
    let add = fixtures::frame_of(1, FrameSeq::of(70, 1), Mode::Ordered, &[apps::counter::add(1)]);
    executor.execute(&decision(1, vec![add]), &mut Vec::new());
    assert_eq!(highest(&mut executor), vec![vec![value(&70u64.to_le_bytes())]]);
}

#[test]
fn replies_that_are_too_many_are_forgotten_and_their_numbers_are_not() {
    let mut table = ClientTable::new(1);
    let id = |number| frame(0, number, Mode::Ordered, &[vec![]]).id();
    let reply = Bytes::from(vec![0; 3 << 20]);
    for number in 1..=3 {
        table.record(&id(number), reply.clone());
    }
    assert_eq!(table.reply(&id(1)), Some(Err(RefusalReason::ResultsForgotten)));
    assert_eq!(table.reply(&id(3)), Some(Ok(&reply)));
    let mut other = id(1);
    other.digest = Digest::from_bytes([1; 32]);
    assert_eq!(table.reply(&other), Some(Err(RefusalReason::NumberUsed)));
    let (mut bytes, mut read) = (Vec::new(), ClientTable::new(1));
    table.write_entry(0, &mut bytes);
    read.read_entry(0, &bytes).unwrap();
    assert_eq!(
        read.entry_digest(0, &digester()),
        table.entry_digest(0, &digester())
    );
    assert_eq!(read.reply(&other), Some(Err(RefusalReason::NumberUsed)));
    for cut in 0..bytes.len().min(200) {
        assert!(ClientTable::new(1).read_entry(0, &bytes[..cut]).is_err());
    }
}

#[test]
fn the_session_that_executed_nothing_for_longest_ends_when_they_are_too_many() {
    let mut sessions = SessionWindows::default();
    let record = |sessions: &mut SessionWindows, session| sessions.record(FrameSeq::of(session, 1));
    for session in 1..=SESSIONS_MAX as u64 {
        assert_eq!(record(&mut sessions, session), None);
    }
    assert_eq!(sessions.record(FrameSeq::of(1, 2)), None, "1 is at work");
    assert_eq!(record(&mut sessions, 1000), Some(2));
    let check = |sessions: &SessionWindows, session, number| sessions.check(FrameSeq::of(session, number));
    assert_eq!(check(&sessions, 2, 2), FrameStatus::Ended);
    assert_eq!(check(&sessions, 1, 2), FrameStatus::Executed);
    assert_eq!(check(&sessions, 1, 3), FrameStatus::Fresh);
    assert_eq!(
        check(&sessions, 500, 1),
        FrameStatus::Fresh,
        "sessions begin in any order"
    );
    assert_eq!(check(&sessions, 1000 + SESSION_STEP_MAX, 1), FrameStatus::Fresh);
    assert_eq!(
        check(&sessions, 1001 + SESSION_STEP_MAX, 1),
        FrameStatus::Ended,
        "no single frame uses the numbers up"
    );
    assert_eq!(sessions.highest(), 1000);
}

#[test]
fn every_reply_inside_the_window_is_remembered_whatever_the_order_of_execution() {
    let mut table = ClientTable::new(1);
    let id = |number| FrameId {
        key: FrameKey {
            client: ClientId::new(0),
            sequence: FrameSeq::new(number),
        },
        digest: Digest::ZERO,
    };
    let (low, high) = ([64].into_iter().chain(1..64), [127].into_iter().chain(65..127));
    for sequence in low.chain(high) {
        table.record(&id(sequence), Bytes::copy_from_slice(&sequence.to_le_bytes()));
    }
    for sequence in 64..=127u64 {
        assert_eq!(
            table.reply(&id(sequence)),
            Some(Ok(&Bytes::copy_from_slice(&sequence.to_le_bytes())))
        );
    }
    let megabyte = Bytes::from(vec![0; 1 << 20]);
    (200..220).for_each(|sequence| table.record(&id(sequence), megabyte.clone()));
    let remembered = (1..300).filter(|sequence| matches!(table.reply(&id(*sequence)), Some(Ok(_))));
    assert_eq!(remembered.collect::<Vec<_>>(), (212..220).collect::<Vec<_>>());
}

#[test]
fn a_digest_under_load_is_done_before_the_next_checkpoint_is_due() {
    let mut executor = executor(kv::Kv, 20);
    let mut events = Vec::new();
    for seq in 1..=31u64 {
        let puts: Vec<_> = (0..64u64)
            .map(|number| kv::put(&(seq * 64 + number).to_le_bytes(), &[1; 4096]).unwrap())
            .collect();
        executor.execute(
            &decision(seq, vec![frame(0, seq, Mode::Ordered, &puts)]),
            &mut events,
        );
    }
    let claimed = events
        .iter()
        .any(|event| matches!(event, ExecutionEvent::Checkpoint(taken) if taken.claim.seq.get() == 20));
    assert!(claimed, "nobody called for background work");
}

#[test]
fn a_digest_is_done_in_time_when_bytes_end_the_way_and_a_large_decision_does_it_frame_by_frame() {
    let rule = CheckpointRule {
        decisions: 1_000_000,
        bytes: 4 << 20,
        state: StateRule::ALWAYS,
    };
    let digester = Digester::new(ClusterId::from_bytes([3; 16]));
    let mut executor = SingleThreaded::new(kv::Kv, 8, digester, Epoch::ZERO, rule);
    let mut claims_at = Vec::new();
    for seq in 1..=20u64 {
        let mut events = Vec::new();
        let frames = (0..8u32).map(|client| {
            let puts: Vec<_> = (0..16u64)
                .map(|number| kv::put(&(seq * 999 + number).to_le_bytes(), &[1; 4096]).unwrap())
                .collect();
            frame(client, seq, Mode::Ordered, &puts)
        });
        executor.execute(&decision(seq, frames.collect()), &mut events);
        claims_at.extend(events.into_iter().filter_map(|event| match event {
            ExecutionEvent::Checkpoint(taken) => Some((taken.claim.seq.get(), seq)),
            _ => None,
        }));
    }
    // Eight decisions of half a MiB and more are 4 MiB.
    let (checkpoint, at) = claims_at[0];
    assert_eq!(checkpoint, 8);
    assert!(
        at <= 8 + 5,
        "the digest was paced by decisions alone: {claims_at:?}"
    );
}

proptest! {
    #[test]
    fn a_store_agrees_with_a_map_and_its_snapshots_with_the_past(
        steps in proptest::collection::vec((0u16..400, proptest::option::of(0usize..300)), 0..600),
        frozen_at in 0usize..600,
    ) {
        // Keys whose place is equal share a part, which fills, grows, empties and is compacted.
        let keys: Vec<u32> = (0..).filter(|key: &u32| partitioned::place(&key.to_le_bytes(), PARTS) < 8).take(400).collect();
        let mut store = PartitionedStore::default();
        let mut model = std::collections::BTreeMap::new();
        let mut frozen = None;
        for (step, (key, value)) in steps.iter().enumerate() {
            if step == frozen_at {
                let mut same = PartitionedStore::default();
                model.iter().for_each(|(key, value): (&[u8; 4], &Vec<u8>)| same.put(key, value));
                frozen = Some((store.snapshot(), digest_of(&mut same)));
            }
            let key = keys[usize::from(*key)].to_le_bytes();
            match value {
                Some(bytes) => {
                    let value = vec![step as u8; *bytes];
                    store.put(&key, &value);
                    model.insert(key, value);
                }
                None => prop_assert_eq!(store.delete(&key), model.remove(&key).is_some()),
            }
            prop_assert_eq!(store.get(&key), model.get(&key).map(Vec::as_slice));
        }
        for key in &keys {
            let key = key.to_le_bytes();
            prop_assert_eq!(store.get(&key), model.get(&key).map(Vec::as_slice));
        }
        prop_assert_eq!(store.len(), model.len());
        if let Some((mut snapshot, expected)) = frozen {
            let left = PartitionedStore::digest_left_bytes(&snapshot);
            let mut pieces = Vec::new();
            prop_assert!(PartitionedStore::digest_step(&mut snapshot, &digester(), usize::MAX, &mut pieces));
            prop_assert_eq!(state_digest(&pieces, &digester()), expected);
            prop_assert!(left >= 4096 && PartitionedStore::digest_left_bytes(&snapshot) == 0);
        }
    }
}

fn snapshot_of(
    executor: &mut impl Executor,
    events: &mut Vec<ExecutionEvent>,
) -> (CheckpointClaim, Vec<Vec<u8>>) {
    while executor.background_step(usize::MAX, events) {}
    let image = events.iter_mut().find_map(|event| match event {
        ExecutionEvent::Snapshot(image) => Some(image),
        _ => None,
    });
    let image = image.expect("the checkpoint has a snapshot");
    let mut chunks = Vec::new();
    loop {
        let mut chunk = Vec::new();
        if !image.next_chunk(100, &mut chunk) {
            return (image.claim(), chunks);
        }
        chunks.push(chunk);
    }
}

#[test]
fn an_snapshot_gives_back_state_clients_and_what_they_amount_to() {
    let mut first = executor(kv::Kv, 3);
    first.keep_snapshots(true);
    let mut events = Vec::new();
    let put = |seq: u64| {
        let puts: Vec<_> = (0..20u64)
            .map(|key| kv::put(&(seq * 20 + key).to_le_bytes(), &[seq as u8; 30]).unwrap())
            .collect();
        decision(seq, vec![frame(seq as u32 % 2, seq, Mode::Ordered, &puts)])
    };
    (1..=3).for_each(|seq| first.execute(&put(seq), &mut events));
    let (claim, chunks) = snapshot_of(&mut first, &mut events);
    assert_eq!(Some(&claim), checkpoints(&mut first, &mut events).first());

    let mut second = executor(kv::Kv, 3);
    second.execute(&put(1), &mut Vec::new());
    for chunk in &chunks {
        second.read_snapshot_chunk(chunk).unwrap();
    }
    assert_eq!(second.finish_snapshot(), Ok(claim));
    assert_eq!(second.client_windows(), first.client_windows());
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for seq in 4..=6 {
        first.execute(&put(seq), &mut one);
        second.execute(&put(seq), &mut other);
    }
    assert_eq!(results(&one), results(&other));
    assert_eq!(first.digest_now(), second.digest_now());
}

#[test]
fn a_damaged_snapshot_is_never_taken_for_the_whole_one() {
    let mut whole = executor(counter::Counter, 1);
    whole.keep_snapshots(true);
    let mut events = Vec::new();
    let adds = [counter::add(5)];
    whole.execute(&decision(1, vec![frame(0, 1, Mode::Ordered, &adds)]), &mut events);
    let (_, chunks) = snapshot_of(&mut whole, &mut events);
    let claim = whole.digest_now();
    for chunk in 0..chunks.len() {
        for bit in 0..chunks[chunk].len() * 8 {
            let mut damaged = chunks.clone();
            damaged[chunk][bit / 8] ^= 1 << (bit % 8);
            let mut executor = executor(counter::Counter, 1);
            let read = damaged
                .iter()
                .try_for_each(|chunk| executor.read_snapshot_chunk(chunk));
            let told = read.and_then(|()| executor.finish_snapshot());
            assert_ne!(told, Ok(claim), "chunk {chunk}, bit {bit}");
        }
    }
}

#[test]
fn pieces_longer_than_a_chunk_come_in_slices_that_fit_together_again() {
    let mut first = executor(kv::Kv, 1);
    first.keep_snapshots(true);
    let mut events = Vec::new();
    let puts = [
        kv::put(b"long", &[7; 5000]).unwrap(),
        kv::put(b"short", b"s").unwrap(),
    ];
    first.execute(&decision(1, vec![frame(0, 1, Mode::Ordered, &puts)]), &mut events);
    let (claim, chunks) = snapshot_of(&mut first, &mut events);
    let slices = |chunk: &&Vec<u8>| matches!(SnapshotChunk::parse(chunk), Ok(SnapshotChunk::Slice(_)));
    assert!(chunks.iter().filter(slices).count() >= 50);
    let mut second = executor(kv::Kv, 1);
    chunks
        .iter()
        .for_each(|chunk| second.read_snapshot_chunk(chunk).unwrap());
    assert_eq!(second.finish_snapshot(), Ok(claim));
    assert_eq!(second.digest_now(), claim);
    // What an earlier attempt kept of a long piece lies beside the whole of it.
    let mut twice = executor(kv::Kv, 1);
    for chunk in &chunks {
        let is_slice = slices(&chunk);
        (0..1 + usize::from(is_slice)).for_each(|_| twice.read_snapshot_chunk(chunk).unwrap());
    }
    assert_eq!(twice.finish_snapshot(), Ok(claim));
    let swapped = chunks.iter().position(|chunk| slices(&chunk)).unwrap();
    let mut chunks = chunks;
    chunks.swap(swapped, swapped + 1);
    let mut third = executor(kv::Kv, 1);
    let read = chunks
        .iter()
        .try_for_each(|chunk| third.read_snapshot_chunk(chunk));
    assert!(read.and_then(|()| third.finish_snapshot()).is_err());
}

/// A rule under which a state of more than 100 bytes is included when the log has grown by three decisions.
fn light_rule() -> CheckpointRule {
    CheckpointRule {
        decisions: 1,
        bytes: u64::MAX,
        state: StateRule {
            small_bytes: 100,
            factor: u64::MAX,
            log_bytes_max: 3 * StateRule::DECISION_BYTES,
        },
    }
}

fn put_decision(seq: u64, value: &[u8]) -> Arc<Proposal> {
    let put = kv::put(b"key", value).unwrap();
    decision(seq, vec![frame(0, seq, Mode::Ordered, &[put])])
}

fn taken(executor: &mut impl Executor, events: &mut Vec<ExecutionEvent>) -> Vec<TakenCheckpoint> {
    executor.settle(events);
    while executor.background_step(usize::MAX, events) {}
    let checkpoints = events.iter().filter_map(|event| match event {
        ExecutionEvent::Checkpoint(taken) => Some(*taken),
        _ => None,
    });
    checkpoints.collect()
}

#[test]
fn frames_with_macs_and_the_same_frames_signed_bring_checkpoints_about_at_the_same_places() {
    const MACS: usize = 7;
    let places = |authenticator: fn(u64) -> Authenticator, speculates: bool| {
        let rule = CheckpointRule {
            decisions: 1000,
            bytes: 4096,
            state: StateRule {
                small_bytes: 0,
                factor: u64::MAX,
                log_bytes_max: 5 * 4096 + 30 * StateRule::DECISION_BYTES,
            },
        };
        let mut executor: Box<dyn Executor> = match speculates {
            true => Box::new(Speculative::new(kv::Kv, 4, digester(), Epoch::ZERO, rule)),
            false => Box::new(SingleThreaded::new(kv::Kv, 4, digester(), Epoch::ZERO, rule)),
        };
        let mut events = Vec::new();
        for seq in 1..=100u64 {
            let put = kv::put(&seq.to_le_bytes(), &vec![1; seq as usize]).unwrap();
            let body = frame(1, seq, Mode::Ordered, &[put]).archived().body.to_vec();
            let authenticator = authenticator(seq);
            let bytes = RequestFrame { body, authenticator }.to_archive();
            let frame = Frame::check(bytes, 10, 4096, |_| Digest::ZERO).unwrap();
            executor.execute(&decision(seq, vec![frame.allowing_for(MACS)]), &mut events);
        }
        executor.settle(&mut events);
        while executor.background_step(usize::MAX, &mut events) {}
        let taken = events.iter().filter_map(|event| match event {
            ExecutionEvent::Checkpoint(taken) => Some((taken.claim, taken.light.is_some())),
            _ => None,
        });
        taken.collect::<Vec<_>>()
    };
    fn macs(_: u64) -> Authenticator {
        Authenticator::Macs(vec![[1; 16]; MACS])
    }
    fn signed(_: u64) -> Authenticator {
        Authenticator::Signature([1; 64])
    }
    fn mixed(seq: u64) -> Authenticator {
        if seq.is_multiple_of(3) {
            macs(seq)
        } else {
            signed(seq)
        }
    }
    let expected = places(macs, false);
    assert!(expected.len() > 3 && expected.iter().any(|(_, is_light)| !is_light));
    assert_eq!(places(signed, false), expected);
    assert_eq!(places(mixed, false), expected);
    assert_eq!(places(macs, true), expected);
    assert_eq!(places(mixed, true), expected);
}

#[test]
fn only_checkpoints_of_a_small_state_or_after_much_log_include_it_and_the_others_name_it() {
    let run = |executor: &mut dyn Executor| {
        let mut events = Vec::new();
        for seq in 1..=9 {
            let value = if seq < 3 { 10 } else { 1000 };
            executor.execute(&put_decision(seq, &vec![seq as u8; value]), &mut events);
            executor.settle(&mut events);
        }
        events
    };
    let mut single = SingleThreaded::new(kv::Kv, 4, digester(), Epoch::ZERO, light_rule());
    let mut speculative = Speculative::new(kv::Kv, 4, digester(), Epoch::ZERO, light_rule());
    let (mut events, mut others) = (run(&mut single), run(&mut speculative));
    let checkpoints = taken(&mut single, &mut events);
    assert_eq!(checkpoints, taken(&mut speculative, &mut others));
    let kinds: Vec<bool> = checkpoints.iter().map(|taken| taken.light.is_none()).collect();
    // A decision counts as its batch as well, so that the third after the last is enough.
    assert_eq!(kinds, [true, true, false, false, true, false, false, true, false]);
    let mut last = CheckpointClaim::NONE;
    for taken in checkpoints {
        match taken.light {
            None => last = taken.claim,
            Some(light) => {
                assert_eq!((light.seq, light.state), (taken.claim.seq, last));
                assert_eq!(light.claim(&digester()), taken.claim);
            }
        }
    }
}

#[test]
fn who_starts_from_a_state_takes_the_same_checkpoints_from_there_on() {
    let mut whole = SingleThreaded::new(kv::Kv, 4, digester(), Epoch::ZERO, light_rule());
    whole.keep_snapshots(true);
    let mut events = Vec::new();
    for seq in 1..=12 {
        whole.execute(&put_decision(seq, &[seq as u8; 500]), &mut events);
        while whole.background_step(usize::MAX, &mut events) {}
    }
    let checkpoints = taken(&mut whole, &mut events);
    let images: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event {
            ExecutionEvent::Snapshot(image) => Some(image),
            _ => None,
        })
        .collect();
    assert!(images.len() >= 3, "{} snapshots", images.len());
    // One that was somewhere else before: what it counted there does not matter.
    let mut other = SingleThreaded::new(kv::Kv, 4, digester(), Epoch::ZERO, light_rule());
    let mut events = Vec::new();
    for seq in 1..=2 {
        other.execute(&put_decision(seq, &[seq as u8; 500]), &mut events);
    }
    for mut image in images {
        let (seq, mut chunk) = (image.claim().seq, Vec::new());
        while image.next_chunk(1 << 16, &mut chunk) {
            other.read_snapshot_chunk(&chunk).unwrap();
            chunk.clear();
        }
        assert_eq!(other.finish_snapshot().unwrap().seq, seq);
        let mut events = Vec::new();
        for seq in seq.get() + 1..=12 {
            other.execute(&put_decision(seq, &[seq as u8; 500]), &mut events);
        }
        let expected: Vec<_> = checkpoints.iter().filter(|taken| taken.claim.seq > seq).collect();
        let found = taken(&mut other, &mut events);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn the_size_of_a_store_follows_from_its_contents() {
    let mut store = PartitionedStore::default();
    assert_eq!(store.size_bytes(), 0);
    store.put(b"a", &[1; 100]);
    store.put(b"b", &[2; 10]);
    store.put(b"a", &[3; 5]);
    let two = store.size_bytes();
    store.put(b"c", &[4; 4000]);
    assert!(store.delete(b"c") && !store.delete(b"c"));
    assert_eq!(store.size_bytes(), two);
    let mut other = PartitionedStore::default();
    other.put(b"b", &[2; 10]);
    other.put(b"a", &[3; 5]);
    assert_eq!(other.size_bytes(), two);
    store.delete(b"a");
    store.delete(b"b");
    assert_eq!(store.size_bytes(), 0);
}

/// Everything of a snapshot, as it is written.
fn written(mut snapshot: PartsSnapshot<KeyedPart>) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new(); PARTS];
    pieces
        .iter_mut()
        .for_each(|piece| PartitionedStore::write_piece(&mut snapshot, piece));
    pieces
}

#[test]
fn a_piece_is_written_in_the_order_of_whole_keys_and_its_digest_is_that_of_its_bytes() {
    // Alike in the first bytes, shorter than those, with zeros at their end; a value as long as what is
    // hashed at once, and around it.
    let beginnings: [&[u8]; 5] = [b"", b"a", b"a\0", b"aaaaaaaa", b"aaaaaaaa\0"];
    let ends = (0u32..5000).map(|number| (number.wrapping_mul(0x9e37_79b9)).to_le_bytes());
    let keys = ends.flat_map(|end| beginnings.map(|beginning| [beginning, &end[..]].concat()));
    let keys: Vec<Vec<u8>> = keys.chain(beginnings.map(<[u8]>::to_vec)).collect();
    let mut store = PartitionedStore::default();
    let mut expected = vec![std::collections::BTreeMap::new(); PARTS];
    for (number, key) in keys.iter().enumerate() {
        let value = match number % 500 {
            0 => vec![number as u8; (64 << 10) - 30 + number / 500],
            _ => vec![number as u8; number % 40],
        };
        store.put(key, &value);
        expected[partitioned::place(key, PARTS)].insert(key.clone(), value);
    }
    let mut digests = Vec::new();
    PartitionedStore::digest_step(&mut store.snapshot(), &digester(), usize::MAX, &mut digests);
    for ((piece, digest), pairs) in written(store.snapshot()).iter().zip(digests).zip(expected) {
        let mut sorted = Vec::new();
        for (key, value) in pairs {
            sorted.extend_from_slice(&(key.len() as u32).to_le_bytes());
            sorted.extend_from_slice(&(value.len() as u32).to_le_bytes());
            sorted.extend_from_slice(&key);
            sorted.extend_from_slice(&value);
        }
        assert!(*piece == sorted, "the pairs of one part, in order");
        assert_eq!(
            digest,
            digester().digest(crate::smr::crypto::Domain::State, piece)
        );
    }
}

proptest! {
    #[test]
    fn memory_that_is_used_again_has_nothing_left_of_what_was_in_it(
        rounds in proptest::collection::vec(
            (proptest::collection::vec((0u16..200, proptest::option::of(0usize..300)), 0..100), 0u8..4),
            1..12,
        ),
    ) {
        let keys: Vec<u32> = (0..).filter(|key: &u32| partitioned::place(&key.to_le_bytes(), PARTS) < 4).take(200).collect();
        let mut store = PartitionedStore::default();
        let mut model = std::collections::BTreeMap::new();
        let mut frozen = Vec::new();
        for (step, (writes, end)) in rounds.into_iter().enumerate() {
            let mut same = PartitionedStore::default();
            model.iter().for_each(|(key, value): (&[u8; 4], &Vec<u8>)| same.put(key, value));
            frozen.push((store.snapshot(), same));
            if step % 2 == 0 {
                store.copy_help().unwrap().run();
            }
            for (key, value) in writes {
                let key = keys[usize::from(key)].to_le_bytes();
                match value {
                    Some(bytes) => {
                        let value = vec![step as u8; bytes];
                        store.put(&key, &value);
                        model.insert(key, value);
                    }
                    None => prop_assert_eq!(store.delete(&key), model.remove(&key).is_some()),
                }
            }
            // Snapshots end in every way there is, and give their memory back: dropped, digested with help,
            // written.
            if end > 0 {
                let (mut snapshot, mut same) = frozen.remove(0);
                let expected = same.snapshot();
                match end {
                    1 => drop(snapshot),
                    2 => {
                        PartitionedStore::digest_help(&snapshot, &digester()).unwrap().run();
                        let mut pieces = Vec::new();
                        PartitionedStore::digest_step(&mut snapshot, &digester(), usize::MAX, &mut pieces);
                        prop_assert_eq!(state_digest(&pieces, &digester()), digest_of(&mut same));
                    }
                    _ => prop_assert!(written(snapshot) == written(expected)),
                }
            }
            for key in &keys {
                let key = key.to_le_bytes();
                prop_assert_eq!(store.get(&key), model.get(&key).map(Vec::as_slice));
            }
        }
        let mut same = PartitionedStore::default();
        model.iter().for_each(|(key, value)| same.put(key, value));
        prop_assert_eq!(digest_of(&mut store), digest_of(&mut same));
    }
}

#[test]
fn what_help_has_digested_is_not_left_to_do() {
    let mut store = PartitionedStore::default();
    (0..1000u32).for_each(|key| store.put(&key.to_le_bytes(), &[7; 100]));
    let snapshot = store.snapshot();
    let before = PartitionedStore::digest_left_bytes(&snapshot);
    let help = PartitionedStore::digest_help(&snapshot, &digester()).unwrap();
    assert_eq!(PartitionedStore::digest_left_bytes(&snapshot), before);
    help.run();
    let after = PartitionedStore::digest_left_bytes(&snapshot);
    assert!(before >= 100_000 + after, "{before} {after}");
}

#[test]
fn help_is_asked_for_in_the_quarters_of_the_way_to_a_large_state_and_changes_no_checkpoint() {
    let mut helped = SingleThreaded::new(kv::Kv, 4, digester(), Epoch::ZERO, light_rule());
    let mut alone = SingleThreaded::new(kv::Kv, 4, digester(), Epoch::ZERO, light_rule());
    let (mut states, mut asked) = (Vec::new(), Vec::new());
    for seq in 1..=12u64 {
        let (mut events, mut others) = (Vec::new(), Vec::new());
        // The first three leave a state that is small enough to be always included.
        let put = put_decision(seq, &vec![seq as u8; if seq <= 3 { 10 } else { 5000 }]);
        helped.execute(&put, &mut events);
        alone.execute(&put, &mut others);
        let (one, other) = (taken(&mut helped, &mut events), taken(&mut alone, &mut others));
        assert_eq!(one, other);
        let with_state = one.iter().filter(|taken| taken.light.is_none());
        states.extend(with_state.map(|taken| taken.claim.seq.get()));
        for event in events {
            if let ExecutionEvent::Help(help) = event {
                help.run();
                asked.push(seq);
            }
        }
    }
    assert_eq!(states, [1, 2, 3, 6, 9, 12]);
    assert_eq!(
        asked,
        [4, 5, 7, 8, 10, 11],
        "once in each that ends with a decision"
    );
}
