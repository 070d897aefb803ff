use super::{ExecutionEvent, Executor};
use crate::smr::messages::{Frame, Mode, RefusalReason};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::SeqNo;

/// Whether reads beside the order are answered from the state that execution has now.
///
/// Which states may answer is the orchestrator's to say
/// ([`Replica::reads_from`](crate::smr::replica::Replica::reads_from)); how far execution is, it learns
/// behind execution, and reads do not wait for it. So the gate stands where execution is.
#[derive(Debug)]
pub struct ReadGate {
    /// Reads are answered once this place was executed; not at all while `None`.
    from: Option<SeqNo>,
    /// The last decision whose effects are all in the state.
    executed: SeqNo,
    refused: u64,
}

impl ReadGate {
    /// A gate before a state that has all up to `executed`.
    #[must_use]
    pub const fn new(from: Option<SeqNo>, executed: SeqNo) -> Self {
        Self {
            from,
            executed,
            refused: 0,
        }
    }

    /// From now on these states answer.
    pub const fn serve_from(&mut self, from: Option<SeqNo>) {
        self.from = from;
    }

    /// Everything up to this place is in the state.
    pub const fn on_executed(&mut self, seq: SeqNo) {
        self.executed = seq;
    }

    /// Whether the state as it is answers.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.from.is_some_and(|from| self.executed >= from) || active(Mutant::ReadsUngated)
    }

    /// Answers a frame of reads. Which of a client's sessions are known is told from any state: one that
    /// knows too few makes nothing wrong (see [`Session`](crate::client::Session)).
    ///
    /// # Errors
    /// When the state as it is does not answer: the client is told so, and asks in order.
    pub fn serve(
        &mut self,
        executor: &mut impl Executor,
        frame: &Frame,
        events: &mut Vec<ExecutionEvent>,
    ) -> Result<(), RefusalReason> {
        if !self.is_open() && frame.mode() != Mode::Session {
            return Err(self.refuse());
        }
        executor.execute_unordered(frame, events);
        Ok(())
    }

    /// Counts a frame that is not answered; why it is not.
    pub const fn refuse(&mut self) -> RefusalReason {
        self.refused += 1;
        RefusalReason::CatchingUp
    }

    /// How many frames were not answered.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_answered_once_execution_has_passed_what_was_answered_before() {
        let mut gate = ReadGate::new(Some(SeqNo::new(7)), SeqNo::new(5));
        assert!(!gate.is_open());
        gate.on_executed(SeqNo::new(6));
        assert!(!gate.is_open());
        gate.on_executed(SeqNo::new(7));
        assert!(gate.is_open());
        gate.serve_from(None);
        assert!(!gate.is_open());
        // Another state took the place of the one that had answered.
        gate.on_executed(SeqNo::new(4));
        gate.serve_from(Some(SeqNo::new(7)));
        assert!(!gate.is_open());
        gate.on_executed(SeqNo::new(9));
        assert!(gate.is_open());
    }

    #[test]
    fn a_replica_that_never_ran_answers_at_once() {
        assert!(ReadGate::new(Some(SeqNo::ZERO), SeqNo::ZERO).is_open());
        assert!(!ReadGate::new(None, SeqNo::new(100)).is_open());
    }
}
