//! One number. An operation of eight bytes adds them as u64 (wrapping) and gives the sum; an empty one reads it.

use super::MALFORMED;
use crate::crypto::{Digester, Domain};
use crate::execution::{Application, MonolithicState};
use crate::types::Digest;

/// The application.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counter;

/// The number.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count(u64);

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
    type Snapshot = Self;

    fn snapshot(&mut self) -> Self {
        *self
    }

    fn digest_step(snapshot: &mut Self, digester: &Digester, _: usize) -> Option<Digest> {
        Some(digester.digest(Domain::State, &snapshot.0.to_le_bytes()))
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
