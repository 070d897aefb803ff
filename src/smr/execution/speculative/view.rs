use super::core::{Core, Task};
use super::outcome::{Access, Outcome};
use super::{Column, CrudState, KeyedState};

/// How many keys an execution may still read once it is known to be of no use: what it has read fits no state
/// that ever was, so it might go on for ever.
const OUTDATED_READS_MAX: u32 = 256;

/// Unwinds an execution that is of no use.
pub(super) struct Outdated;

/// The state as one execution sees it: reads are remembered, writes are kept back.
pub struct View<'a, S> {
    core: &'a Core<S>,
    task: &'a Task,
    outcome: &'a mut Outcome,
    /// The hashes of the keys it declared.
    declared: &'a [u64],
    outdated_reads: u32,
}

impl<'a, S: KeyedState> View<'a, S> {
    /// The view of a task. With [`Task::declares`], `declared` holds the hashes of all keys the operation
    /// touches.
    pub fn new(core: &'a Core<S>, task: &'a Task, outcome: &'a mut Outcome, declared: &'a [u64]) -> Self {
        outcome.reset(task.txn);
        outcome.certain = task.certain;
        outcome.alone = task.alone;
        outcome.early = task.early;
        Self {
            core,
            task,
            outcome,
            declared,
            outdated_reads: 0,
        }
    }

    /// Where in the outcome's bytes the value of a key is.
    fn observe(&mut self, column: Column, key: &[u8]) -> Option<std::ops::Range<usize>> {
        let hash = self.hash(column, key);
        if let Some(write) = self.outcome.written(hash, column, key) {
            return self.outcome.writes[write].value.clone();
        }
        if let Some(read) = self.outcome.found(hash, column, key) {
            return self.outcome.reads[read].value.clone();
        }
        if self.core.is_outdated(self.task) {
            self.outdated_reads += 1;
            if self.outdated_reads > OUTDATED_READS_MAX {
                std::panic::resume_unwind(Box::new(Outdated));
            }
        }
        let outcome = &mut *self.outcome;
        let kept = outcome.keep(key);
        let mut value = None;
        self.core
            .look_up(self.task, hash, (column, key), &mut |found: Option<&[u8]>| {
                value = found.map(|found| outcome.keep(found));
            });
        self.outcome.reads.push(Access {
            hash,
            column,
            key: kept,
            value: value.clone(),
        });
        value
    }

    fn write(&mut self, column: Column, key: &[u8], value: Option<&[u8]>) {
        // Where the operation still runs: nobody could be told later.
        assert!(S::has_column(column), "the state has such a column");
        let hash = self.hash(column, key);
        let outcome = &mut *self.outcome;
        let known = outcome.written(hash, column, key);
        let value = value.map(|value| outcome.keep(value));
        match known {
            Some(write) => outcome.writes[write].value = value,
            None => {
                let key = outcome.keep(key);
                outcome.writes.push(Access {
                    hash,
                    column,
                    key,
                    value,
                });
            }
        }
    }

    fn hash(&mut self, column: Column, key: &[u8]) -> u64 {
        let hash = self.core.hash(column, key);
        if self.task.declares && !self.declared.contains(&hash) {
            self.core.distrust();
        }
        hash
    }
}

impl<S: KeyedState> CrudState for View<'_, S> {
    fn create(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool {
        let is_free = self.observe(column, key).is_none();
        if is_free {
            self.write(column, key, Some(value));
        }
        is_free
    }

    fn read(&mut self, column: Column, key: &[u8]) -> Option<&[u8]> {
        let place = self.observe(column, key)?;
        Some(self.outcome.slice(&place))
    }

    fn update(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool {
        let is_there = self.observe(column, key).is_some();
        if is_there {
            self.write(column, key, Some(value));
        }
        is_there
    }

    fn delete(&mut self, column: Column, key: &[u8]) -> bool {
        let is_there = self.observe(column, key).is_some();
        if is_there {
            self.write(column, key, None);
        }
        is_there
    }

    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.write(column, key, Some(value));
    }
}
