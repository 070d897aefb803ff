use std::panic::resume_unwind;

use crate::smr::execution::apps::kv::{self, Kv};
use crate::smr::execution::{
    Application, Column, CrudState, Direct, OperationContext, Partitioned, ResultWriter, ScalableApp,
};

/// A handful of keys need no thousands of parts, and a checkpoint of them is most of what a short run
/// computes.
const PARTS: usize = 16;

/// The key that faulty clients write.
pub(super) const FAULTY_KEY: &[u8] = b"rogue";

/// What the result of every read ends with.
pub(super) const READ: u8 = b'r';

/// The key-value store in few parts, with a fault that faulty clients have found: some of their writes panic
/// when they have written.
#[derive(Debug, Clone, Copy)]
pub(super) struct SmallKv;

impl Application for SmallKv {
    type State = Partitioned<PARTS>;

    fn initial_state(&self) -> Self::State {
        Partitioned::default()
    }

    fn update(
        &self,
        state: &mut Self::State,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        self.speculatively_execute(&mut Direct(state), context, operation, result);
    }

    fn unordered_execution(
        &self,
        state: &Self::State,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        kv::read(state, operation, result);
        // Tells a read from an update that finds the same.
        result.push(READ);
    }

    fn name(&self) -> &'static str {
        Kv.name()
    }
}

impl ScalableApp for SmallKv {
    fn speculatively_execute(
        &self,
        state: &mut impl CrudState,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        Kv.speculatively_execute(state, context, operation, result);
        let is_planted = operation
            .get(3..)
            .and_then(|rest| rest.strip_prefix(FAULTY_KEY))
            .is_some_and(|value| value.len() == 8 && value[0] % 4 == 0);
        if is_planted {
            // Without the message: it is expected.
            resume_unwind(Box::new("planted"));
        }
    }

    fn declare_keys(
        &self,
        context: &OperationContext,
        operation: &[u8],
        touch: &mut dyn FnMut(Column, &[u8]),
    ) -> bool {
        Kv.declare_keys(context, operation, touch)
    }
}
