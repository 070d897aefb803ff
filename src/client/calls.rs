use std::time::Duration;

use super::outcome::{FrameResults, Outcome, Output};
use crate::smr::messages::{Checked, ReplyBody};
use crate::smr::types::Time;

/// Calls whose deadlines lie this close together end together, the later ones early: so that a large frame
/// whose every operation has a deadline of its own is not gone through once for each.
const EXPIRY_GRAIN: Duration = Duration::from_millis(1);

/// The operations of one frame, as their callers know them: each ends on its own deadline, or all that are
/// left with the frame's results.
///
/// Invariant: a call has ended exactly when its deadline is not after `ended_until`.
#[derive(Debug, Default)]
pub(super) struct Calls {
    tokens: Vec<u64>,
    deadlines: Vec<Time>,
    /// The earliest deadline of those that have not ended.
    earliest: Option<Time>,
    ended_until: Option<Time>,
}

impl Calls {
    pub(super) fn push(&mut self, token: u64, deadline: Time) {
        debug_assert!(
            self.ended_until.is_none(),
            "a frame that is under way takes no more calls"
        );
        self.tokens.push(token);
        self.deadlines.push(deadline);
        self.earliest = Some(self.earliest.map_or(deadline, |at| at.min(deadline)));
    }

    /// How many operations the frame has, ended or not.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The next deadline; `None` once all have ended.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.earliest
    }

    /// Whether operation `index` has not ended.
    pub(super) fn is_waiting(&self, index: usize) -> bool {
        self.ended_until.is_none_or(|until| self.deadlines[index] > until)
    }

    /// Ends the calls whose deadline has come; their tokens, in order.
    pub(super) fn expire(&mut self, now: Time) -> Vec<u64> {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return Vec::new();
        }
        let until = now.after(EXPIRY_GRAIN);
        let due = (0..self.len()).filter(|index| self.is_waiting(*index) && self.deadlines[*index] <= until);
        let due = due.map(|index| self.tokens[index]).collect();
        self.earliest = self.deadlines.iter().copied().filter(|at| *at > until).min();
        self.ended_until = Some(until);
        due
    }

    /// The calls that have not ended, as if no other had been made.
    pub(super) fn into_waiting(self) -> Self {
        let mut waiting = Self::default();
        for index in (0..self.len()).filter(|index| self.is_waiting(*index)) {
            waiting.push(self.tokens[index], self.deadlines[index]);
        }
        waiting
    }

    /// Ends all that have not ended with their results, as far as there are any: one output for each unbroken
    /// run of them. How many calls those are, and the others by their places.
    pub(super) fn end_with(
        self,
        body: &Checked<ReplyBody>,
        outputs: &mut Vec<Output>,
    ) -> (usize, Vec<(usize, u64, Time)>) {
        let results = body.ends.len().min(self.len());
        let mut ended = |tokens: Vec<u64>, first| {
            let results = FrameResults::new(body.clone(), first, tokens.len());
            let outcome = Outcome::Results(results);
            outputs.push(Output::Ended { tokens, outcome });
        };
        if self.ended_until.is_none() && results == self.len() {
            ended(self.tokens, 0);
            return (results, Vec::new());
        }
        let (mut count, mut index) = (0, 0);
        while index < results {
            let first = index;
            while index < results && self.is_waiting(index) {
                index += 1;
            }
            if index > first {
                count += index - first;
                ended(self.tokens[first..index].to_vec(), first);
            }
            index += 1;
        }
        (count, self.waiting_from(results))
    }

    /// Those from this place on that have not ended, by their places.
    pub(super) fn waiting_from(&self, first: usize) -> Vec<(usize, u64, Time)> {
        (first..self.len())
            .filter(|index| self.is_waiting(*index))
            .map(|index| (index, self.tokens[index], self.deadlines[index]))
            .collect()
    }

    /// The tokens of all that have not ended, in order.
    pub(super) fn into_tokens(self) -> Vec<u64> {
        match self.ended_until {
            None => self.tokens,
            Some(_) => self.into_waiting().tokens,
        }
    }
}
