//! A service whose operations cost processor time, for measuring: those of another one, with so much work
//! between what they read and what they write.

use crate::smr::execution::{
    Application, Column, CrudState, Direct, OperationContext, ResultWriter, ScalableApp,
};

/// The application, around another one.
#[derive(Debug, Clone, Copy)]
pub struct Compute<A> {
    inner: A,
    rounds: u64,
    declares: bool,
}

impl<A> Compute<A> {
    /// Adds `rounds` of [`burn`] to every ordered operation.
    #[must_use]
    pub fn new(inner: A, rounds: u64) -> Self {
        Self {
            inner,
            rounds,
            declares: true,
        }
    }

    /// The same, but operations declare no keys: every execution is validated.
    #[must_use]
    pub fn undeclared(self) -> Self {
        Self {
            declares: false,
            ..self
        }
    }
}

/// Keeps the processor busy for so many rounds, of a few nanoseconds each; how long depends on the machine.
pub fn burn(rounds: u64) {
    let mut value = rounds;
    for _ in 0..rounds {
        value = std::hint::black_box(value)
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .rotate_left(29);
    }
    std::hint::black_box(value);
}

/// The state as the inner application sees it: before the first write comes the work.
struct Burning<'a, C> {
    state: &'a mut C,
    rounds: u64,
}

impl<C> Burning<'_, C> {
    fn work(&mut self) {
        burn(std::mem::take(&mut self.rounds));
    }
}

impl<C: CrudState> CrudState for Burning<'_, C> {
    fn create(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool {
        self.work();
        self.state.create(column, key, value)
    }

    fn read(&mut self, column: Column, key: &[u8]) -> Option<&[u8]> {
        self.state.read(column, key)
    }

    fn update(&mut self, column: Column, key: &[u8], value: &[u8]) -> bool {
        self.work();
        self.state.update(column, key, value)
    }

    fn delete(&mut self, column: Column, key: &[u8]) -> bool {
        self.work();
        self.state.delete(column, key)
    }

    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.work();
        self.state.put(column, key, value);
    }
}

impl<A: ScalableApp> Application for Compute<A> {
    type State = A::State;

    fn initial_state(&self) -> A::State {
        self.inner.initial_state()
    }

    fn update(
        &self,
        state: &mut A::State,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        if self.rounds == 0 {
            return self.inner.update(state, context, operation, result);
        }
        self.speculatively_execute(&mut Direct(state), context, operation, result);
    }

    fn unordered_execution(
        &self,
        state: &A::State,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        burn(self.rounds);
        self.inner.unordered_execution(state, context, operation, result);
    }

    fn prepare(&self, state: &A::State, operations: &[&[u8]]) {
        self.inner.prepare(state, operations);
    }

    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn version(&self) -> u32 {
        self.inner.version()
    }
}

impl<A: ScalableApp> ScalableApp for Compute<A> {
    fn speculatively_execute(
        &self,
        state: &mut impl CrudState,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        let mut burning = Burning {
            state,
            rounds: self.rounds,
        };
        self.inner
            .speculatively_execute(&mut burning, context, operation, result);
        burning.work();
    }

    fn declare_keys(
        &self,
        context: &OperationContext,
        operation: &[u8],
        touch: &mut dyn FnMut(Column, &[u8]),
    ) -> bool {
        self.declares && self.inner.declare_keys(context, operation, touch)
    }
}
