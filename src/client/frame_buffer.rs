use std::collections::VecDeque;

use bytes::Bytes;

use super::calls::Calls;
use crate::smr::messages::{Checked, FrameBuilder, Mode, RequestBody};
use crate::smr::types::{ClientId, FrameSeq, Time};

/// An operation that was sent before and is known not to have been executed.
#[derive(Debug)]
struct Again {
    operation: Vec<u8>,
    token: u64,
    deadline: Time,
}

/// Operations that wait to be sent, reads or writes.
#[derive(Debug)]
pub(super) struct FrameBuffer {
    process: u64,
    frame: FrameBuilder,
    calls: Calls,
    /// These go first.
    again: VecDeque<Again>,
    /// As many operations as a frame is given: fewer once their results were too long for one reply.
    operations_max: usize,
    bytes_max: usize,
    /// As many as it may be given.
    limit: usize,
}

impl FrameBuffer {
    pub(super) fn new(process: u64, operations_max: usize, bytes_max: usize) -> Self {
        Self {
            process,
            frame: FrameBuilder::of_process(process),
            calls: Calls::default(),
            again: VecDeque::new(),
            operations_max,
            bytes_max,
            limit: operations_max,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.again.is_empty()
    }

    /// Whether one more operation fits the frame that is gathered.
    pub(super) fn has_room_for(&self, operation: &[u8]) -> bool {
        self.calls.len() < self.operations_max
            && self.frame.operation_bytes() + operation.len() <= self.bytes_max
    }

    /// Takes an operation; false when it fits no frame.
    pub(super) fn push(&mut self, operation: &[u8], token: u64, deadline: Time) -> bool {
        let fits = self.frame.push(operation).is_ok();
        if fits {
            self.calls.push(token, deadline);
        }
        fits
    }

    /// Takes operations of a body of our own that are to be sent once more, by their places there.
    pub(super) fn push_again(&mut self, body: &[u8], places: Vec<(usize, u64, Time)>) {
        let body = open(body);
        let mut operations = body.operations().enumerate();
        for (place, token, deadline) in places {
            let operation = operations.find(|(other, _)| *other == place);
            let (_, operation) = operation.expect("the calls of a frame are its operations");
            self.again.push_back(Again {
                operation: operation.to_vec(),
                token,
                deadline,
            });
        }
    }

    /// A reply had room for so many results: of them all, or only of some.
    pub(super) fn on_results(&mut self, results: usize, were_all: bool) {
        self.operations_max = match were_all {
            true => (2 * self.operations_max).min(self.limit),
            false => results.clamp(1, self.operations_max),
        };
    }

    /// The body of the next frame and its calls.
    pub(super) fn take(&mut self, client: ClientId, sequence: FrameSeq, mode: Mode) -> (Vec<u8>, Calls) {
        if self.again.is_empty() {
            let body = self.frame.finish(client, sequence, mode);
            return (body, std::mem::take(&mut self.calls));
        }
        let (mut frame, mut calls) = (FrameBuilder::of_process(self.process), Calls::default());
        while let Some(next) = self.again.front()
            && calls.len() < self.operations_max
            && frame.operation_bytes() + next.operation.len() <= self.bytes_max
        {
            let Some(next) = self.again.pop_front() else { break };
            frame
                .push(&next.operation)
                .expect("what fitted before fits again");
            calls.push(next.token, next.deadline);
        }
        (frame.finish(client, sequence, mode), calls)
    }

    /// Ends the calls whose deadline has come, and forgets their operations.
    pub(super) fn expire(&mut self, now: Time, client: ClientId, mode: Mode) -> Vec<u64> {
        let mut expired = self.calls.expire(now);
        if !expired.is_empty() {
            let calls = std::mem::take(&mut self.calls);
            let body = open(&self.frame.finish(client, FrameSeq::default(), mode));
            for (_, operation) in body
                .operations()
                .enumerate()
                .filter(|(place, _)| calls.is_waiting(*place))
            {
                self.frame.push(operation).expect("what fitted before fits again");
            }
            self.calls = calls.into_waiting();
        }
        let due = self.again.iter().filter(|again| again.deadline <= now);
        expired.extend(due.map(|again| again.token));
        self.again.retain(|again| again.deadline > now);
        expired
    }

    pub(super) fn next_deadline(&self) -> Option<Time> {
        let again = self.again.iter().map(|again| again.deadline);
        again.chain(self.calls.next_deadline()).min()
    }
}

/// A body of our own.
pub(super) fn open(body: &[u8]) -> Checked<RequestBody> {
    Checked::new(Bytes::copy_from_slice(body)).expect("an archive we just made is sound")
}
