//! The scheduler and the multi-version memory of speculative execution in every interleaving of a few small
//! programs, as far as the stated number of preemptions reaches.
//!
//! The shipped files are compiled here once more, against loom's primitives: `cargo test --release --test
//! speculative_loom`.

use bytes::Bytes;
use loom::sync::Arc;
use loom::thread;

#[expect(dead_code, reason = "the model uses a part of what ships")]
#[path = "../src/smr/execution/speculative"]
mod speculative {
    mod shim {
        pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
        pub(super) use loom::sync::{Mutex, MutexGuard, RwLock};
    }

    pub mod core;
    pub mod outcome;
    mod throttle;
    mod versions;
    pub mod view;

    pub use super::crud::{Column, CrudState, KeyedState};

    /// `src/smr/execution/context.rs` has the real one.
    #[derive(Debug, Default, Clone, Copy)]
    pub struct OperationContext;

    /// `src/smr/messages/client.rs` has the real one.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Failure {}
}

/// The interfaces of `src/smr/execution/crud.rs`, whose own file names the stores of the crate.
#[expect(dead_code, reason = "the model uses a part of what ships")]
mod crud {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Column(pub u8);

    pub trait KeyedState: Send + Sync {
        fn has_column(_: Column) -> bool {
            true
        }
        fn get(&self, column: Column, key: &[u8]) -> Option<&[u8]>;
        fn put(&mut self, column: Column, key: &[u8], value: &[u8]);
        fn remove(&mut self, column: Column, key: &[u8]) -> bool;
    }

    pub trait CrudState {
        fn create(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool;
        fn read(&mut self, column: Column, key: &[u8]) -> Option<&[u8]>;
        fn update(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool;
        fn delete(&mut self, column: Column, key: &[u8]) -> bool;
        fn put(&mut self, column: Column, key: &[u8], value: &[u8]);
    }
}

use speculative::core::Core;
use speculative::outcome::Outcome;
use speculative::view::View;
use speculative::{Column, CrudState, KeyedState, OperationContext};

/// A few cells, one byte each; no byte is 0 once written.
#[derive(Debug, Default)]
struct Cells([u8; 4]);

impl KeyedState for Cells {
    fn get(&self, _: Column, key: &[u8]) -> Option<&[u8]> {
        let cell = &self.0[usize::from(key[0])..=usize::from(key[0])];
        (cell[0] != 0).then_some(cell)
    }

    fn put(&mut self, _: Column, key: &[u8], value: &[u8]) {
        self.0[usize::from(key[0])] = value[0];
    }

    fn remove(&mut self, _: Column, key: &[u8]) -> bool {
        std::mem::take(&mut self.0[usize::from(key[0])]) != 0
    }
}

const COLUMN: Column = Column(0);

/// An operation of two bytes: reads the first cell, writes what depends on it to the second, answers what it
/// read.
fn run(state: &mut impl CrudState, operation: &[u8], result: &mut Vec<u8>) {
    let read = state.read(COLUMN, &operation[..1]).map_or(0, |value| value[0]);
    state.put(COLUMN, &operation[1..2], &[2 * read + 1]);
    result.push(read);
}

/// Acts on the state itself.
struct Direct<'a>(&'a mut Cells);

impl CrudState for Direct<'_> {
    fn create(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool {
        let is_free = self.0.get(column, key).is_none();
        if is_free {
            self.0.put(column, key, value);
        }
        is_free
    }

    fn read(&mut self, column: Column, key: &[u8]) -> Option<&[u8]> {
        self.0.get(column, key)
    }

    fn update(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool {
        let is_there = self.0.get(column, key).is_some();
        if is_there {
            self.0.put(column, key, value);
        }
        is_there
    }

    fn delete(&mut self, column: Column, key: &[u8]) -> bool {
        self.0.remove(column, key)
    }

    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.0.put(column, key, value);
    }
}

/// Works until nothing is left to do for this worker.
fn work(core: &Core<Cells>, outcome: &mut Outcome, helps: bool) {
    let mut has_finished = false;
    // As the threads that ship do: who finished an execution looks once more before it sleeps.
    while std::mem::take(&mut has_finished) || (core.has_work() && !(helps && core.is_alone())) {
        let alone = |state: &mut Cells, _: &OperationContext, operation: &[u8], outcome: &mut Outcome| {
            run(&mut Direct(state), operation, &mut outcome.result);
        };
        if !helps && core.execute_alone(1, alone) > 0 {
            has_finished = true;
            continue;
        }
        let found = core.next(helps);
        let Some(task) = found.task else {
            if !found.committed {
                // Somebody else holds the commit lock.
                thread::yield_now();
            }
            continue;
        };
        let mut result = Vec::new();
        let declared = [
            core.hash(COLUMN, &task.operation[..1]),
            core.hash(COLUMN, &task.operation[1..2]),
        ];
        run(
            &mut View::new(core, &task, outcome, &declared),
            &task.operation,
            &mut result,
        );
        outcome.result = result;
        core.finish(&task, outcome);
        has_finished = true;
    }
}

/// Two workers execute the operations; every result and the final state are those of executing them in order,
/// and nobody leaves work behind. With `rests`, speculation ends while they work.
fn explore(operations: &'static [[u8; 2]], declared: bool, rests: bool, preemptions: usize) {
    let mut builder = loom::model::Builder::new();
    // Without optimisation two preemptions take minutes; they are for release builds.
    let bound = if cfg!(debug_assertions) { 1 } else { preemptions };
    builder.preemption_bound = Some(bound);
    builder.check(move || {
        let core = Arc::new(Core::new(Cells::default(), 4, 1));
        for (txn, operation) in operations.iter().enumerate() {
            let conflicts = |other: &[u8; 2]| operation.iter().any(|cell| other.contains(cell));
            let after = operations[..txn]
                .iter()
                .rposition(conflicts)
                .map_or(0, |other| other as u64 + 1);
            core.feed(
                Bytes::copy_from_slice(operation),
                OperationContext,
                true,
                declared.then_some(after),
            );
        }
        let shared = core.clone();
        let helper = thread::spawn(move || work(&shared, &mut Outcome::default(), true));
        if rests {
            core.set_ahead(1);
        }
        work(&core, &mut Outcome::default(), false);
        helper.join().unwrap();
        if rests {
            // What the helper committed woke the owner.
            work(&core, &mut Outcome::default(), false);
        }
        assert_eq!(core.head(), operations.len() as u64, "everything is committed");
        let mut expected = Cells::default();
        for (txn, operation) in operations.iter().enumerate() {
            let read = expected.get(COLUMN, &operation[..1]).map_or(0, |value| value[0]);
            expected.put(COLUMN, &operation[1..2], &[2 * read + 1]);
            let result = core.harvest(txn as u64, |outcome| outcome.result.clone());
            assert_eq!(result, Some(vec![read]), "operation {txn}");
        }
        core.with_base(|state| assert_eq!(state.0, expected.0));
    });
}

#[test]
fn two_operations_on_one_key_give_the_sequential_outcome() {
    explore(&[[0, 0], [0, 0]], false, false, 2);
}

#[test]
fn two_operations_without_a_common_key_give_the_sequential_outcome() {
    explore(&[[0, 0], [1, 1]], false, false, 2);
}

#[test]
fn a_chain_of_three_keys_gives_the_sequential_outcome() {
    explore(&[[0, 1], [1, 2], [2, 3]], false, false, 2);
}

#[test]
fn declared_operations_give_the_sequential_outcome_without_validation() {
    explore(&[[0, 1], [1, 2]], true, false, 2);
}

#[test]
fn speculation_that_ends_half_way_gives_the_sequential_outcome() {
    explore(&[[0, 0], [0, 1], [1, 0]], false, true, 2);
    explore(&[[0, 1], [1, 2]], true, true, 2);
}
