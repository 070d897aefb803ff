//! The last decision of an epoch, and the state that the next one begins with.

use super::apps::kv::{self, Kv};
use super::fixtures::{decision, digester, frame};
use super::*;
use crate::smr::messages::{Checked, Mode, OperationResult, ReplyBody};

/// Checkpoints are far off, and have no state while it is large.
const RULE: CheckpointRule = CheckpointRule {
    decisions: 1000,
    bytes: u64::MAX,
    state: StateRule {
        small_bytes: 0,
        factor: 1000,
        log_bytes_max: u64::MAX,
    },
};

fn single(clients: usize, epoch: u64) -> Box<dyn Executor> {
    Box::new(SingleThreaded::new(
        Kv,
        clients,
        digester(),
        Epoch::new(epoch),
        RULE,
    ))
}

fn speculative(clients: usize, epoch: u64) -> Box<dyn Executor> {
    Box::new(Speculative::new(Kv, clients, digester(), Epoch::new(epoch), RULE))
}

/// What closing an epoch amounts to: claim, chunks of the contents, and the reply.
fn close(executor: &mut dyn Executor) -> (CheckpointClaim, Vec<Vec<u8>>, Bytes) {
    let mut events = Vec::new();
    let put = kv::put(b"key", b"value").unwrap();
    executor.execute(
        &decision(1, vec![frame(0, 1, Mode::Ordered, &[put])]),
        &mut events,
    );
    let change = frame(1, 1, Mode::Change, &[b"a request".to_vec()]);
    executor.execute(&decision(2, vec![change]), &mut events);
    executor.settle(&mut events);
    while executor.background_step(usize::MAX, &mut events) {}
    let (mut claims, mut chunks, mut replies) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        match event {
            ExecutionEvent::Checkpoint(taken) => claims.push(taken),
            ExecutionEvent::Snapshot(mut snapshot) => {
                assert!(snapshot.is_needed());
                let mut chunk = Vec::new();
                while snapshot.next_chunk(64, &mut chunk) {
                    chunks.push(std::mem::take(&mut chunk));
                }
            }
            ExecutionEvent::Reply { body, .. } => replies.push(body),
            _ => {}
        }
    }
    let [taken] = claims[..] else {
        panic!("one checkpoint is taken: {claims:?}");
    };
    assert_eq!(
        (taken.claim.seq, taken.light),
        (SeqNo::new(2), None),
        "it has the state"
    );
    assert!(
        !chunks.is_empty(),
        "its contents are kept, though nobody asked for any"
    );
    (taken.claim, chunks, replies.pop().expect("both were answered"))
}

#[test]
fn the_last_decision_of_an_epoch_is_answered_and_its_state_kept_by_every_executor_alike() {
    let all = [single, speculative].map(|make| close(&mut *make(3, 4)));
    assert_eq!(all[0], all[1]);
    let reply = Checked::<ReplyBody>::new(all[0].2.clone()).unwrap();
    let results: Vec<_> = reply.results().collect();
    assert_eq!(
        results,
        [OperationResult::Value(&5u64.to_le_bytes())],
        "the next epoch"
    );
}

#[test]
fn the_next_epoch_begins_with_that_state_and_room_for_clients_that_came() {
    let (claim, chunks, _) = close(&mut *single(3, 4));
    let read = |mut executor: Box<dyn Executor>| {
        let read = chunks
            .iter()
            .try_for_each(|chunk| executor.read_snapshot_chunk(chunk));
        read.and_then(|()| executor.finish_snapshot())
            .map(|claim| (claim, executor))
    };
    for make in [single, speculative] {
        let (known, mut executor) = read(make(5, 5)).unwrap();
        assert_eq!(known, claim);
        assert_eq!(executor.client_windows().len(), 5);
        // What was executed is not executed again, and a new client is served.
        let mut events = Vec::new();
        let again = frame(0, 1, Mode::Ordered, &[kv::put(b"key", b"other").unwrap()]);
        let new = frame(4, 1, Mode::OrderedRead, &[kv::get(b"key").unwrap()]);
        executor.execute(&decision(3, vec![again, new]), &mut events);
        executor.settle(&mut events);
        let operations = events.iter().find_map(|event| match event {
            ExecutionEvent::Executed { operations, .. } => Some(*operations),
            _ => None,
        });
        assert_eq!(operations, Some(1));
    }
    assert!(read(single(2, 5)).is_err(), "clients are never fewer");
    assert!(read(single(3, 3)).is_err(), "it is of a later epoch");
}
