//! A key-value store.
//!
//! | operation | bytes | result |
//! |---|---|---|
//! | put | `1`, key length u16, key, value | `0` |
//! | get | `2`, key length u16, key | `1` and the value, or `0` |
//! | delete | `3`, key length u16, key | `1` if it was there, else `0` |

use super::MALFORMED;
use crate::smr::execution::{
    Application, Column, CrudState, Direct, OperationContext, Partitioned, PartitionedStore, ResultWriter,
    ScalableApp,
};

const PUT: u8 = 1;
const GET: u8 = 2;
const DELETE: u8 = 3;

const COLUMN: Column = Column(0);

/// The application.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kv;

/// A key is longer than 65,535 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key has {0} bytes, at most 65535 are allowed")]
pub struct KeyTooLong(pub usize);

fn head(kind: u8, key: &[u8], extra: usize) -> Result<Vec<u8>, KeyTooLong> {
    let length = u16::try_from(key.len()).map_err(|_| KeyTooLong(key.len()))?;
    let mut operation = Vec::with_capacity(3 + key.len() + extra);
    operation.push(kind);
    operation.extend_from_slice(&length.to_le_bytes());
    operation.extend_from_slice(key);
    Ok(operation)
}

/// The operation that sets `key` to `value`.
///
/// # Errors
/// When the key is too long.
pub fn put(key: &[u8], value: &[u8]) -> Result<Vec<u8>, KeyTooLong> {
    let mut operation = head(PUT, key, value.len())?;
    operation.extend_from_slice(value);
    Ok(operation)
}

/// The operation that reads `key`.
///
/// # Errors
/// When the key is too long.
pub fn get(key: &[u8]) -> Result<Vec<u8>, KeyTooLong> {
    head(GET, key, 0)
}

/// The operation that removes `key`.
///
/// # Errors
/// When the key is too long.
pub fn delete(key: &[u8]) -> Result<Vec<u8>, KeyTooLong> {
    head(DELETE, key, 0)
}

/// The value in the result of a get; `None` when the key was not there.
#[must_use]
pub fn value(result: &[u8]) -> Option<&[u8]> {
    match result {
        [1, value @ ..] => Some(value),
        _ => None,
    }
}

/// Kind, key and value of an operation; `None` when it cannot be read.
fn parse(operation: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = operation.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (key, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((kind, key, value))
}

fn answer(value: Option<&[u8]>, result: &mut ResultWriter) {
    match value {
        Some(value) => {
            result.push(1);
            result.extend_from_slice(value);
        }
        None => result.push(0),
    }
}

/// What a read beside the order finds.
pub(crate) fn read<const P: usize>(state: &Partitioned<P>, operation: &[u8], result: &mut ResultWriter) {
    match parse(operation) {
        Some((GET, key, [])) => answer(state.get(key), result),
        _ => result.fail(MALFORMED),
    }
}

impl Application for Kv {
    type State = PartitionedStore;

    fn initial_state(&self) -> PartitionedStore {
        PartitionedStore::default()
    }

    fn update(
        &self,
        state: &mut PartitionedStore,
        context: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        self.speculatively_execute(&mut Direct(state), context, operation, result);
    }

    fn unordered_execution(
        &self,
        state: &PartitionedStore,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        read(state, operation, result);
    }

    fn prepare(&self, state: &PartitionedStore, operations: &[&[u8]]) {
        state.touch(
            operations
                .iter()
                .filter_map(|operation| Some(parse(operation)?.1)),
        );
    }

    fn name(&self) -> &'static str {
        "kv"
    }
}

impl ScalableApp for Kv {
    fn speculatively_execute(
        &self,
        state: &mut impl CrudState,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        match parse(operation) {
            Some((PUT, key, value)) => {
                state.put(COLUMN, key, value);
                result.push(0);
            }
            Some((DELETE, key, [])) => result.push(u8::from(state.delete(COLUMN, key))),
            Some((GET, key, [])) => answer(state.read(COLUMN, key), result),
            _ => result.fail(MALFORMED),
        }
    }

    fn declare_keys(
        &self,
        _: &OperationContext,
        operation: &[u8],
        touch: &mut dyn FnMut(Column, &[u8]),
    ) -> bool {
        if let Some((_, key, _)) = parse(operation) {
            touch(COLUMN, key);
        }
        true
    }
}
