use std::sync::Arc;

use super::core::{Core, Task};
use super::outcome::Outcome;
use super::view::{Outdated, View};
use crate::smr::execution::guard::guarded;
use crate::smr::execution::{Application, MonolithicState, RESULT_BYTES_MAX, ResultWriter, ScalableApp};

/// What all workers of an executor share.
pub(super) struct Shared<A: Application> {
    pub application: A,
    pub core: Core<A::State>,
    /// The longest result of an operation, in bytes.
    pub result_bytes_max: usize,
}

/// What one worker keeps from operation to operation.
pub(super) struct Scratch {
    pub outcome: Outcome,
    result: ResultWriter,
    declared: Vec<u64>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            outcome: Outcome::default(),
            result: ResultWriter::new(RESULT_BYTES_MAX),
            declared: Vec::new(),
        }
    }
}

/// What was written is the outcome's result.
fn close(result: &mut ResultWriter, outcome: &mut Outcome) {
    outcome.failure = result.end();
    result.swap_bytes(&mut outcome.result);
}

/// What one turn of a worker came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turn {
    /// An operation was executed.
    pub executed: bool,
    /// Operations were committed.
    pub committed: bool,
}

impl<A: ScalableApp> Shared<A> {
    /// Executes up to `most` operations in order where speculation is of no use; how many.
    pub fn run_alone(&self, most: usize) -> usize {
        let application = &self.application;
        let mut result = ResultWriter::new(self.result_bytes_max);
        self.core
            .execute_alone(most, |state, context, operation, outcome| {
                result.swap_bytes(&mut outcome.result);
                state.begin_operation();
                if guarded(|| application.update(state, context, operation, &mut result)).is_ok() {
                    state.keep_operation();
                } else {
                    state.undo_operation();
                    result.panicked();
                }
                close(&mut result, outcome);
            })
    }

    /// Commits, and executes one operation if there is one to execute.
    pub fn turn(&self, scratch: &mut Scratch, helps: bool) -> Turn {
        let found = self.core.next(helps);
        if let Some(task) = &found.task {
            self.run(task, scratch);
            self.core.finish(task, &mut scratch.outcome);
        }
        Turn {
            executed: found.task.is_some(),
            committed: found.committed,
        }
    }

    /// Executes a task; its outcome is then in `scratch`.
    pub fn run(&self, task: &Task, scratch: &mut Scratch) {
        let Scratch {
            outcome,
            result,
            declared,
        } = scratch;
        result.reset(self.result_bytes_max);
        declared.clear();
        if task.declares {
            let mut touch = |column, key: &[u8]| declared.push(self.core.hash(column, key));
            // What was declared when the operation was fed is not declared now: it is noticed like every
            // other lie.
            let _ = guarded(|| {
                self.application
                    .declare_keys(&task.context, &task.operation, &mut touch)
            });
        }
        let mut view = View::new(&self.core, task, outcome, declared);
        let run = guarded(|| {
            self.application
                .speculatively_execute(&mut view, &task.context, &task.operation, result);
        });
        if let Err(panic) = run
            && !panic.is::<Outdated>()
        {
            if A::State::UNDOES {
                // What it read still decides whether it would have panicked.
                outcome.writes.clear();
            }
            result.panicked();
        }
        close(result, outcome);
    }
}

/// A worker beside the executor's own thread, as the shell that gives it a thread sees it.
pub trait Helper: Send {
    /// Does one piece of work; false when there was none.
    fn work(&mut self) -> bool;

    /// Whether [`work`](Self::work) would find something. Asked before the thread sleeps.
    fn has_work(&self) -> bool;

    /// Whether operations were committed since the last call, so that the executor has something to answer.
    fn take_committed(&mut self) -> bool;
}

/// A worker of a [`Speculative`](super::Speculative) executor.
pub struct SpeculativeHelper<A: ScalableApp> {
    pub(super) shared: Arc<Shared<A>>,
    pub(super) scratch: Scratch,
    pub(super) committed: bool,
}

impl<A: ScalableApp> Helper for SpeculativeHelper<A> {
    fn work(&mut self) -> bool {
        let turn = self.shared.turn(&mut self.scratch, true);
        self.committed |= turn.committed;
        turn.executed || turn.committed
    }

    fn has_work(&self) -> bool {
        !self.shared.core.is_alone() && self.shared.core.has_work()
    }

    fn take_committed(&mut self) -> bool {
        std::mem::take(&mut self.committed)
    }
}
