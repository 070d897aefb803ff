//! Whether the results that clients saw can be explained by some order of the operations (Herlihy & Wing
//! 1990), searched as in Wing & Gong 1993 with the memory of Lowe 2017; key by key, which is enough
//! (locality).

use std::collections::{BTreeMap, BTreeSet};

use crate::smr::types::Time;

/// What a client did to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Wrote a value that is written once in the whole run.
    Put(u64),
    /// Read a value, or that there is none. `None` outside: it never learnt.
    Get(Option<Option<u64>>),
    /// Removed the key, and whether it was there. `None`: it never learnt.
    Delete(Option<bool>),
}

/// One operation with the time in which it took effect, if it did.
#[derive(Debug, Clone)]
pub struct Operation {
    /// What was done.
    pub action: Action,
    /// When it was submitted.
    pub from: Time,
    /// When its result came; `None` when it never did: it may take effect at any later time, or never.
    pub to: Option<Time>,
}

/// The answer of the search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Some order explains everything.
    Linearizable,
    /// No order does.
    Broken,
    /// The budget was used up: not a pass.
    Unknown,
}

/// Judges one key's history with at most `budget` steps.
#[must_use]
pub fn check(history: &[Operation], budget: usize) -> Verdict {
    let was_read = |value: u64| {
        let mut history = history.iter();
        history.any(|operation| operation.action == Action::Get(Some(Some(value))))
    };
    let was_removed = history
        .iter()
        .any(|operation| operation.action == Action::Delete(Some(true)));
    // What never returned and that nobody saw tells nothing: it may never have taken effect. A removal that
    // found something saw a write.
    let tells = |operation: &&Operation| match operation.action {
        Action::Get(_) => operation.to.is_some(),
        Action::Put(value) => operation.to.is_some() || was_removed || was_read(value),
        Action::Delete(_) => true,
    };
    let mut operations: Vec<&Operation> = history.iter().filter(tells).collect();
    // What has to come first is tried first.
    let end = |operation: &Operation| operation.to.unwrap_or(Time::from_nanos(u64::MAX));
    operations.sort_by_key(|operation| (end(operation), operation.from));
    let mut search = Search {
        operations,
        seen: BTreeSet::new(),
        budget,
    };
    search.run()
}

struct Search<'a> {
    operations: Vec<&'a Operation>,
    seen: BTreeSet<(Vec<u64>, Option<u64>)>,
    budget: usize,
}

struct Frame {
    state: Option<u64>,
    /// Which operation is tried next from here.
    next: usize,
    /// Which operation led here.
    took: usize,
}

impl Search<'_> {
    fn run(&mut self) -> Verdict {
        let mut done = vec![0u64; self.operations.len().div_ceil(64)];
        let mut stack = vec![Frame {
            state: None,
            next: 0,
            took: usize::MAX,
        }];
        while let Some(top) = stack.last_mut() {
            if self.is_complete(&done) {
                return Verdict::Linearizable;
            }
            if self.budget == 0 {
                return Verdict::Unknown;
            }
            self.budget -= 1;
            let (state, from) = (top.state, top.next);
            let harmless = match from {
                0 => self.harmless(&done, state),
                _ => None,
            };
            let (found, next) = match harmless {
                Some(found) => (Some(found), usize::MAX),
                None => {
                    let found = self.candidate(&done, state, from, |_, _| true);
                    (found, found.map_or(from, |(index, _)| index + 1))
                }
            };
            match found {
                Some((index, after)) => {
                    top.next = next;
                    done[index / 64] |= 1 << (index % 64);
                    if self.seen.insert((done.clone(), after)) {
                        stack.push(Frame {
                            state: after,
                            next: 0,
                            took: index,
                        });
                    } else {
                        done[index / 64] &= !(1 << (index % 64));
                    }
                }
                None => {
                    let took = top.took;
                    stack.pop();
                    if took != usize::MAX {
                        done[took / 64] &= !(1 << (took % 64));
                    }
                }
            }
        }
        Verdict::Broken
    }

    fn is_done(done: &[u64], index: usize) -> bool {
        done[index / 64] & (1 << (index % 64)) != 0
    }

    fn is_complete(&self, done: &[u64]) -> bool {
        let mut rest = self.operations.iter().enumerate();
        rest.all(|(index, operation)| operation.to.is_none() || Self::is_done(done, index))
    }

    /// Whether somebody still has to read the value: it is never written again.
    fn is_awaited(&self, done: &[u64], state: Option<u64>) -> bool {
        let reads = |(index, operation): (usize, &&Operation)| {
            !Self::is_done(done, index) && operation.action == Action::Get(Some(state))
        };
        state.is_some() && self.operations.iter().enumerate().any(reads)
    }

    /// An operation that may come now in any order that explains the rest: no other choice is worth a look.
    /// Such is what fits and changes nothing; and a write that nobody read over a value that nobody reads any
    /// more, unless a later removal may need it to find something.
    fn harmless(&self, done: &[u64], state: Option<u64>) -> Option<(usize, Option<u64>)> {
        // What a removal without an answer finds is its own choice: it may be needed later.
        let still = self.candidate(done, state, 0, |action, after| {
            after == state && *action != Action::Delete(None)
        });
        if still.is_some() || state.is_none() || self.is_awaited(done, state) {
            return still;
        }
        let removes = |(index, operation): (usize, &&Operation)| {
            !Self::is_done(done, index) && matches!(operation.action, Action::Delete(None | Some(true)))
        };
        if self.operations.iter().enumerate().filter(|o| removes(*o)).count() > 1 {
            return None;
        }
        self.candidate(done, state, 0, |action, after| {
            matches!(action, Action::Put(_)) && !self.is_awaited(done, after)
        })
    }

    /// The next operation from `from` on that may come now and fits the state; and the state after it.
    fn candidate(
        &self,
        done: &[u64],
        state: Option<u64>,
        from: usize,
        wanted: impl Fn(&Action, Option<u64>) -> bool,
    ) -> Option<(usize, Option<u64>)> {
        let open = |index: &usize| !Self::is_done(done, *index);
        let first_end = (0..self.operations.len())
            .filter(open)
            .filter_map(|index| self.operations[index].to)
            .min();
        (from..self.operations.len())
            .filter(|index| first_end.is_none_or(|end| self.operations[*index].from <= end))
            .filter(open)
            .filter_map(|index| Some((index, step(&self.operations[index].action, state)?)))
            .find(|(index, after)| {
                let action = &self.operations[*index].action;
                wanted(action, *after) && (*after == state || !self.is_awaited(done, state))
            })
    }
}

/// The state after an action, if its result fits the state before.
fn step(action: &Action, state: Option<u64>) -> Option<Option<u64>> {
    match action {
        Action::Put(value) => Some(Some(*value)),
        Action::Get(None) => Some(state),
        Action::Get(Some(read)) => (*read == state).then_some(state),
        Action::Delete(None) => Some(None),
        Action::Delete(Some(was_there)) => (*was_there == state.is_some()).then_some(None),
    }
}

/// Judges a history of many keys; the first key that fails, with its verdict.
#[must_use]
pub fn check_all<K: Ord + Clone>(
    histories: &BTreeMap<K, Vec<Operation>>,
    budget: usize,
) -> Option<(K, Verdict)> {
    histories.iter().find_map(|(key, history)| {
        let verdict = check(history, budget);
        (verdict != Verdict::Linearizable).then(|| (key.clone(), verdict))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(action: Action, from: u64, to: Option<u64>) -> Operation {
        Operation {
            action,
            from: Time::from_nanos(from),
            to: to.map(Time::from_nanos),
        }
    }

    #[test]
    fn a_read_sees_a_write_that_overlaps_it_or_does_not() {
        for read in [None, Some(7)] {
            let history = [
                operation(Action::Put(7), 0, Some(10)),
                operation(Action::Get(Some(read)), 5, Some(6)),
            ];
            assert_eq!(check(&history, 1000), Verdict::Linearizable);
        }
    }

    #[test]
    fn a_read_after_a_write_must_see_it() {
        let history = [
            operation(Action::Put(7), 0, Some(10)),
            operation(Action::Get(Some(None)), 11, Some(12)),
        ];
        assert_eq!(check(&history, 1000), Verdict::Broken);
    }

    #[test]
    fn a_removal_may_have_found_a_write_that_nobody_was_told_of() {
        let history = [
            operation(Action::Put(7), 0, Some(10)),
            operation(Action::Delete(Some(true)), 11, Some(12)),
            operation(Action::Put(8), 11, None),
            operation(Action::Get(Some(None)), 13, Some(14)),
            operation(Action::Delete(Some(true)), 15, Some(16)),
        ];
        assert_eq!(check(&history, 1000), Verdict::Linearizable);
        let [first, found, _, nothing, again] = history;
        assert_eq!(check(&[first, found, nothing, again], 1000), Verdict::Broken);
    }

    #[test]
    fn a_removal_that_nobody_was_told_of_may_come_where_it_is_needed() {
        let history = [
            operation(Action::Delete(None), 0, None),
            operation(Action::Put(7), 0, Some(10)),
            operation(Action::Get(Some(None)), 11, Some(12)),
        ];
        assert_eq!(check(&history, 1000), Verdict::Linearizable);
    }

    #[test]
    fn two_reads_may_not_see_a_write_and_then_not() {
        let history = [
            operation(Action::Put(7), 0, None),
            operation(Action::Get(Some(Some(7))), 1, Some(2)),
            operation(Action::Get(Some(None)), 3, Some(4)),
        ];
        assert_eq!(check(&history, 1000), Verdict::Broken);
    }

    #[test]
    fn a_write_that_never_returned_may_take_effect_late_or_never() {
        let late = [
            operation(Action::Put(7), 0, None),
            operation(Action::Get(Some(None)), 1, Some(2)),
            operation(Action::Get(Some(Some(7))), 3, Some(4)),
            operation(Action::Delete(Some(true)), 5, Some(6)),
        ];
        assert_eq!(check(&late, 1000), Verdict::Linearizable);
        assert_eq!(check(&late[..2], 1000), Verdict::Linearizable);
    }

    #[test]
    fn a_search_that_runs_out_of_its_budget_is_no_pass() {
        let history: Vec<Operation> = (0..20)
            .map(|value| operation(Action::Put(value), 0, Some(100)))
            .chain([operation(Action::Get(Some(Some(99))), 101, Some(102))])
            .collect();
        assert_eq!(check(&history, 100), Verdict::Unknown);
    }
}
