//! Reads beside the order: from which state on this replica answers them.
//!
//! A quorum of equal answers is linearizable because the correct replica that two quorums share never answers
//! a read from an earlier state than one from which it answered anything before
//! ([`client::session`](crate::client::Session)). While execution goes on that is so by itself. It is not
//! where execution begins again from an earlier state:
//! - *A restart.* A decision is executed and answered once its batch is on disk, and our own commit if there
//!   is one. The record that it was decided follows, and nothing waits for that: after a loss of power the
//!   log shows the batch at its place, and execution ends before it. Whether the batch was executed nobody
//!   can tell; so it counts as if it was.
//! - *A log that was lost, whole or in part:* what it showed is forgotten.
//! - *A state of others takes the place of a wrong one,* and may be older.
//!
//! **The rule.** Reads are answered from states after [`Reads::answered`], and not at all while a state is on
//! its way, or while the replica abstains. `answered` is
//! - after a restart, the last place of which the log has a batch, a decision or a jump, and no less than the
//!   snapshot that a restart begins with;
//! - when an abstention ends, the place that it waited for: all that the lost log may have shown lies before
//!   it;
//! - when a state is installed, no less than what was executed until then.
//!
//! **Why it is enough.** Whatever changed a state that answered was executed, and before that is on disk:
//! - a batch that was accepted, as [`Record::Proposal`]; one that others' words decided, that was fetched, or
//!   that a transfer brought, as [`Record::Batch`]. A decision is held back until all that was logged before
//!   it is durable. The null request has no batch on disk: it changes nothing;
//! - a state that came, as [`Record::Jump`] or by the batches after it: its installation waits for the log in
//!   the same way;
//! - what is executed a second time, because execution goes on from an older state or has to mend its log,
//!   was released once before.
//!
//! The log is cut only before a snapshot, and a restart begins with that snapshot or a later one, or waits
//! for a state.
//!
//! **What it costs.** Nothing while nobody restarts. After a restart of all, batches may be left that were
//! accepted and are not decided: once execution has passed them reads are answered again. It does when the
//! votes for them are repeated, or when anything else is ordered: a read that is refused is asked in order,
//! and is then such a thing itself.

use super::{Action, Replica, Stack};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::Record;
use crate::smr::types::SeqNo;

/// What was answered, as far as it matters.
#[derive(Debug)]
pub(super) struct Reads {
    /// What was answered before execution began where it began last, in this life or an earlier one, came
    /// from no state after this place.
    answered: SeqNo,
    /// What execution was told last.
    told: Option<SeqNo>,
}

impl Default for Reads {
    fn default() -> Self {
        let answered = SeqNo::ZERO;
        let told = Some(answered);
        Self { answered, told }
    }
}

impl Reads {
    /// What was answered before may include all up to here.
    pub fn may_have_answered(&mut self, seq: SeqNo) {
        self.answered = self.answered.max(seq);
    }

    /// The log holds this record.
    pub fn restore(&mut self, record: &Record) {
        let shown = match record {
            Record::Proposal(proposal) | Record::Batch(proposal) => proposal.seq,
            Record::Decision { seq, .. } | Record::Jump { seq, .. } => *seq,
            _ => return,
        };
        if !active(Mutant::ReadsAtOnce) {
            self.may_have_answered(shown);
        }
    }
}

impl<S: Stack> Replica<S> {
    /// Reads beside the order are answered from the states after this place, and not at all while `None`: see
    /// this module's header.
    #[must_use]
    pub fn reads_from(&self) -> Option<SeqNo> {
        let abstains = self.abstention.is_some() && !active(Mutant::ReadsWhileAbstaining);
        (!abstains && !self.supply.awaits_state()).then_some(self.reads.answered)
    }

    /// Tells execution when that changed.
    pub(super) fn tell_reads(&mut self) {
        let from = self.reads_from();
        if self.reads.told != from {
            self.reads.told = from;
            self.actions.push(Action::ServeReads(from));
        }
    }

    /// The shell has execution begin with what [`reads_from`](Self::reads_from) says now.
    pub(super) fn reads_are_told(&mut self) {
        self.reads.told = self.reads_from();
    }
}
