//! Nothing: every operation gives an empty result. For measuring what everything else costs.

use crate::smr::crypto::Digester;
use crate::smr::execution::{
    Application, Column, CrudState, KeyedState, MonolithicState, OperationContext, ResultWriter, ScalableApp,
};
use crate::smr::messages::SnapshotError;
use crate::smr::types::Digest;

/// The application.
#[derive(Debug, Clone, Copy, Default)]
pub struct Null;

/// No state.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nothing;

impl MonolithicState for Nothing {
    type Snapshot = Self;

    const UNDOES: bool = true;

    fn snapshot(&mut self) -> Self {
        Self
    }

    fn digest_step(_: &mut Self, _: &Digester, _: usize, _: &mut Vec<Digest>) -> bool {
        true
    }

    fn piece_count(_: &Self) -> usize {
        0
    }

    fn write_piece(_: &mut Self, _: &mut Vec<u8>) {}

    fn blank() -> Self {
        Self
    }

    fn read_piece(&mut self, _: usize, _: &[u8]) -> Result<(), SnapshotError> {
        Err(SnapshotError::State)
    }
}

impl KeyedState for Nothing {
    fn get(&self, _: Column, _: &[u8]) -> Option<&[u8]> {
        None
    }

    fn put(&mut self, _: Column, _: &[u8], _: &[u8]) {}

    fn remove(&mut self, _: Column, _: &[u8]) -> bool {
        false
    }
}

impl ScalableApp for Null {
    fn speculatively_execute(
        &self,
        _: &mut impl CrudState,
        _: &OperationContext,
        _: &[u8],
        _: &mut ResultWriter,
    ) {
    }

    fn declare_keys(&self, _: &OperationContext, _: &[u8], _: &mut dyn FnMut(Column, &[u8])) -> bool {
        true
    }
}

impl Application for Null {
    type State = Nothing;

    fn initial_state(&self) -> Nothing {
        Nothing
    }

    fn update(&self, _: &mut Nothing, _: &OperationContext, _: &[u8], _: &mut ResultWriter) {}

    fn unordered_execution(&self, _: &Nothing, _: &OperationContext, _: &[u8], _: &mut ResultWriter) {}

    fn name(&self) -> &'static str {
        "null"
    }
}
