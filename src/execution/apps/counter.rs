//! One number. An operation of eight bytes adds them as u64 (wrapping) and gives the sum; an empty one reads it.

use super::MALFORMED;
use crate::crypto::{Digester, Domain};
use crate::execution::{Application, ImageError, MonolithicState};
use crate::types::Digest;

/// The application.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counter;

/// The number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count(u64);

/// The number, until it was written.
#[derive(Debug, Clone, Copy)]
pub struct FrozenCount {
    count: u64,
    is_written: bool,
}

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
    type Snapshot = FrozenCount;

    fn snapshot(&mut self) -> FrozenCount {
        FrozenCount {
            count: self.0,
            is_written: false,
        }
    }

    fn digest_step(snapshot: &mut FrozenCount, digester: &Digester, _: usize) -> Option<Digest> {
        Some(digester.digest(Domain::State, &snapshot.count.to_le_bytes()))
    }

    fn write_chunk(snapshot: &mut FrozenCount, _: usize, chunk: &mut Vec<u8>) -> bool {
        if std::mem::replace(&mut snapshot.is_written, true) {
            return false;
        }
        chunk.extend_from_slice(&snapshot.count.to_le_bytes());
        true
    }

    fn blank() -> Self {
        Self::default()
    }

    fn read_chunk(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        self.0 = value(chunk).ok_or(ImageError::State)?;
        Ok(())
    }
}

impl Application for Counter {
    type State = Count;

    fn initial_state(&self) -> Count {
        Count::default()
    }

    fn update(&self, state: &mut Count, operation: &[u8], result: &mut Vec<u8>) {
        if let Some(amount) = value(operation) {
            state.0 = state.0.wrapping_add(amount);
            result.extend_from_slice(&state.0.to_le_bytes());
        } else {
            self.unordered_execution(state, operation, result);
        }
    }

    fn unordered_execution(&self, state: &Count, operation: &[u8], result: &mut Vec<u8>) {
        match operation {
            [] => result.extend_from_slice(&state.0.to_le_bytes()),
            _ => result.push(MALFORMED),
        }
    }

    fn name(&self) -> &'static str {
        "counter"
    }
}
