//! What execution is given: each decision when it is released; or, once a state of others has taken the place
//! of its own, what follows that state until nothing is left of it.
//!
//! ```text
//!          a state is needed              installed                  all that is released was given
//!  Live ───────────────────► AwaitingState ───────► CatchingUp ─────────────────────────────────────► Live
//!                                 ▲                  │   │  ▲
//!                                 ├── nobody has it ─┘   │  └────── peers gave it ──┐
//!                                 │                      │                          │
//!                                 │                      └─ the log lacks it ─► Mending
//!                                 └────────── a later state comes first ────────────┘
//! ```
//!
//! From everywhere it leads to `AwaitingState` that a quorum contradicts the state that execution has.
//!
//! Invariant: what is executed was released: all that this replica promised up to there is on disk.

use super::repair::Repair;
use crate::smr::types::SeqNo;

/// How execution comes by its decisions. Whatever ends a course ends what belongs to it.
#[derive(Debug)]
enum Course {
    /// It is given what is released, at once.
    Live,
    /// It is given nothing: the state after this decision, or a later one, has to come before.
    AwaitingState(SeqNo),
    /// It goes on from a state that came from others, and was given everything up to this place. What is
    /// released waits in memory, or in the log.
    CatchingUp(SeqNo),
    /// The log did not give back what comes next: peers are asked for it.
    Repair(Repair),
}

/// How far execution is, and what it is given next; see the module.
#[derive(Debug)]
pub(super) struct Supply {
    course: Course,
    /// The last decision that was handed out, to execution unless it waits.
    released: SeqNo,
    /// The last decision that was executed.
    executed: SeqNo,
    /// The first place of what is being read from the log. One reading is under way at most: it goes on when
    /// the course ends that asked for it.
    reading: Option<SeqNo>,
}

impl Supply {
    /// Nothing was released.
    pub fn new() -> Self {
        Self {
            course: Course::Live,
            released: SeqNo::ZERO,
            executed: SeqNo::ZERO,
            reading: None,
        }
    }

    /// The last decision up to which all that this replica promised is on disk.
    pub fn released(&self) -> SeqNo {
        self.released
    }

    /// The last decision that was executed.
    pub fn executed(&self) -> SeqNo {
        self.executed
    }

    /// Whether execution is given what is released, and is not done with it.
    pub fn is_executing(&self) -> bool {
        matches!(self.course, Course::Live) && self.released > self.executed
    }

    /// The decision whose state, or a later one, execution waits for.
    pub fn awaited(&self) -> Option<SeqNo> {
        match self.course {
            Course::AwaitingState(seq) => Some(seq),
            Course::Live | Course::CatchingUp(_) | Course::Repair(_) => None,
        }
    }

    /// Whether execution waits for a state from others.
    pub fn awaits_state(&self) -> bool {
        self.awaited().is_some()
    }

    /// Up to where it was given everything, while it catches up and nothing has to be repaired.
    pub fn catching_up(&self) -> Option<SeqNo> {
        match self.course {
            Course::CatchingUp(fed) => Some(fed),
            Course::Live | Course::AwaitingState(_) | Course::Repair(_) => None,
        }
    }

    /// What peers are asked for because the log does not give it back.
    pub fn repair(&mut self) -> Option<&mut Repair> {
        match &mut self.course {
            Course::Repair(repair) => Some(repair),
            Course::Live | Course::AwaitingState(_) | Course::CatchingUp(_) => None,
        }
    }

    /// Whether there is such a thing.
    pub fn is_repairing(&self) -> bool {
        matches!(self.course, Course::Repair(_))
    }

    /// A decision is released, in order. Whether it is executed at once: a jump may have gone past it, and a
    /// state that includes it may come while a slow disk holds it back.
    pub fn release(&mut self, seq: SeqNo) -> bool {
        if seq <= self.released {
            return false;
        }
        self.released = seq;
        matches!(self.course, Course::Live) && seq > self.executed
    }

    /// Nothing up to this place is released any more one by one: a state includes it.
    pub fn pass(&mut self, seq: SeqNo) {
        self.released = self.released.max(seq);
    }

    /// Execution did what it was given up to here.
    pub fn on_executed(&mut self, seq: SeqNo) {
        self.executed = seq;
    }

    /// Execution is given nothing until the state after this decision, or a later one, has come.
    pub fn await_state(&mut self, seq: SeqNo) {
        self.course = Course::AwaitingState(seq);
    }

    /// That state, of others, is there.
    pub fn on_installed(&mut self, seq: SeqNo) {
        self.executed = seq;
        self.course = Course::CatchingUp(seq);
    }

    /// Everything up to this place was given to an execution that catches up.
    pub fn on_fed(&mut self, fed: SeqNo) {
        self.course = match fed < self.released {
            true => Course::CatchingUp(fed),
            false => Course::Live,
        };
    }

    /// Whether the log may be read from this place on; it is noted if so.
    pub fn may_read(&mut self, first: SeqNo) -> bool {
        let may = self.reading.is_none();
        self.reading.get_or_insert(first);
        may
    }

    /// The log was read from this place on. The place before, if what was read is what comes next.
    pub fn on_read(&mut self, first: SeqNo) -> Option<SeqNo> {
        let is_wanted = self.reading.take() == Some(first);
        self.catching_up().filter(|fed| is_wanted && fed.next() == first)
    }

    /// What comes next is not in the log.
    pub fn mend(&mut self, repair: Repair) {
        self.course = Course::Repair(repair);
    }

    /// If peers gave everything that was asked for: what that was. It is read on from there.
    pub fn take_repair(&mut self) -> Option<Repair> {
        let fed = self.repair().filter(|repair| repair.is_done())?.fed();
        match std::mem::replace(&mut self.course, Course::CatchingUp(fed)) {
            Course::Repair(repair) => Some(repair),
            Course::Live | Course::AwaitingState(_) | Course::CatchingUp(_) => None,
        }
    }

    /// A restart begins with the state after this decision.
    pub fn restore_base(&mut self, seq: SeqNo) {
        self.executed = seq;
        self.released = seq;
    }

    /// A restart finds that it goes on after this decision, whose state has to come from others.
    pub fn restore_without_state(&mut self, seq: SeqNo) {
        self.released = seq;
        self.await_state(seq);
    }

    /// A restart finds the next decision. Whether it is executed.
    pub fn restore_decision(&mut self, seq: SeqNo) -> bool {
        self.released = seq;
        let is_executed = !self.awaits_state();
        if is_executed {
            self.executed = seq;
        }
        is_executed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(number: u64) -> SeqNo {
        SeqNo::new(number)
    }

    /// One that was given the state after 100, while decisions up to 110 were released.
    fn catching_up() -> Supply {
        let mut supply = Supply::new();
        supply.pass(seq(100));
        supply.await_state(seq(100));
        for number in 101..=110 {
            assert!(!supply.release(seq(number)), "{number} waits for the state");
        }
        supply.on_installed(seq(100));
        supply
    }

    #[test]
    fn what_is_released_is_executed_at_once_unless_it_is_executed_or_passed() {
        let mut supply = Supply::new();
        assert!(supply.release(seq(1)));
        assert!(!supply.release(seq(1)), "it was");
        assert!(supply.is_executing());
        supply.on_executed(seq(1));
        assert!(!supply.is_executing());
        supply.pass(seq(5));
        assert!(!supply.release(seq(5)), "a jump went past it");
        supply.restore_base(seq(5));
        supply.on_executed(seq(7));
        assert!(!supply.release(seq(7)), "a state included it");
        assert!(supply.release(seq(8)));
    }

    #[test]
    fn execution_catches_up_until_all_that_is_released_was_given_to_it() {
        let mut supply = catching_up();
        assert_eq!(supply.catching_up(), Some(seq(100)));
        assert!(!supply.is_executing());
        supply.on_fed(seq(109));
        assert!(!supply.release(seq(111)), "it has its turn");
        supply.on_fed(seq(111));
        assert_eq!(supply.catching_up(), None);
        assert!(supply.release(seq(112)));
    }

    #[test]
    fn one_reading_is_under_way_whatever_becomes_of_what_it_was_for() {
        let mut supply = catching_up();
        assert!(supply.may_read(seq(101)));
        assert!(!supply.may_read(seq(101)));
        supply.await_state(seq(105));
        supply.on_installed(seq(105));
        assert!(!supply.may_read(seq(106)), "the other one has not ended");
        assert_eq!(supply.on_read(seq(101)), None, "nobody needs it any more");
        assert!(supply.may_read(seq(106)));
        assert_eq!(supply.on_read(seq(106)), Some(seq(105)));
        assert_eq!(supply.on_read(seq(106)), None, "nobody asked for it");
    }

    #[test]
    fn a_restart_executes_what_it_finds_unless_the_state_before_it_is_missing() {
        let mut whole = Supply::new();
        whole.restore_base(seq(10));
        assert!(whole.restore_decision(seq(11)));
        assert_eq!((whole.executed(), whole.released()), (seq(11), seq(11)));
        let mut without = Supply::new();
        without.restore_without_state(seq(10));
        assert!(!without.restore_decision(seq(11)));
        assert_eq!((without.awaited(), without.released()), (Some(seq(10)), seq(11)));
    }
}
