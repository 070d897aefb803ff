//! One number. An operation of eight bytes adds them as u64 (wrapping) and gives the sum; an empty one reads
//! it.

use super::MALFORMED;
use crate::smr::crypto::{Digester, Domain};
use crate::smr::execution::{
    Application, Column, CrudState, Direct, KeyedState, MonolithicState, OperationContext, ResultWriter,
    ScalableApp,
};
use crate::smr::messages::SnapshotError;
use crate::smr::types::Digest;

/// The application.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counter;

/// The number, in little-endian bytes: under the empty key of column 0.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    number: [u8; 8],
    /// Before the operation that runs.
    before: [u8; 8],
}

const COLUMN: Column = Column(0);

/// The operation that adds `amount`.
#[must_use]
pub fn add(amount: u64) -> Vec<u8> {
    amount.to_le_bytes().to_vec()
}

/// The operation that reads the number.
#[must_use]
pub fn read() -> Vec<u8> {
    Vec::new()
}

/// The number in a result; `None` for an error.
#[must_use]
pub fn value(result: &[u8]) -> Option<u64> {
    result.try_into().ok().map(u64::from_le_bytes)
}

impl MonolithicState for Count {
    type Snapshot = u64;

    const UNDOES: bool = true;

    fn begin_operation(&mut self) {
        self.before = self.number;
    }

    fn undo_operation(&mut self) {
        self.number = self.before;
    }

    fn snapshot(&mut self) -> u64 {
        u64::from_le_bytes(self.number)
    }

    fn digest_step(snapshot: &mut u64, digester: &Digester, _: usize, digests: &mut Vec<Digest>) -> bool {
        digests.push(digester.digest(Domain::State, &snapshot.to_le_bytes()));
        true
    }

    fn piece_count(_: &u64) -> usize {
        1
    }

    fn write_piece(snapshot: &mut u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&snapshot.to_le_bytes());
    }

    fn blank() -> Self {
        Self::default()
    }

    fn size_bytes(&self) -> u64 {
        8
    }

    fn read_piece(&mut self, _: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.number = bytes.try_into().map_err(|_| SnapshotError::State)?;
        Ok(())
    }
}

impl KeyedState for Count {
    fn get(&self, column: Column, key: &[u8]) -> Option<&[u8]> {
        (column == COLUMN && key.is_empty()).then_some(&self.number)
    }

    /// Other keys, and values of another length, are not kept.
    fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        if let (COLUMN, [], Ok(count)) = (column, key, value.try_into()) {
            self.number = count;
        }
    }

    /// The number is never removed.
    fn remove(&mut self, _: Column, _: &[u8]) -> bool {
        false
    }
}

impl ScalableApp for Counter {
    fn speculatively_execute(
        &self,
        state: &mut impl CrudState,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        let count = state.read(COLUMN, &[]).and_then(value).unwrap_or(0);
        let count = match (operation, value(operation)) {
            ([], _) => count,
            (_, Some(amount)) => {
                let sum = count.wrapping_add(amount);
                state.put(COLUMN, &[], &sum.to_le_bytes());
                sum
            }
            _ => return result.fail(MALFORMED),
        };
        result.extend_from_slice(&count.to_le_bytes());
    }
}

impl Application for Counter {
    type State = Count;

    fn initial_state(&self) -> Count {
        Count::default()
    }

    fn update(
        &self,
        state: &mut Count,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        self.speculatively_execute(&mut Direct(state), context, operation, result);
    }

    fn unordered_execution(
        &self,
        state: &Count,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        match operation {
            [] => result.extend_from_slice(&state.number),
            _ => result.fail(MALFORMED),
        }
    }

    fn name(&self) -> &'static str {
        "counter"
    }
}
