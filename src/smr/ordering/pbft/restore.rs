//! A restart: what the log says becomes what was known when it was written.
//!
//! Nothing is said here. A slot gets back exactly what its records prove: a vote that is not in the log was
//! never sent, and [`Pbft::go_on`] casts it like any other, with a record of its own.

use std::sync::Arc;

use super::{Pbft, ViewStart};
use crate::smr::messages::{PbftRecord, Phase, Proposal, SlotDigest, Vote};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{Outbox, Persisted, Record, RestoreError};
use crate::smr::types::{Digest, SeqNo, View};

impl Pbft {
    pub(super) fn start_after(&mut self, seq: SeqNo) {
        self.decided = self.decided.max(seq);
        self.promise = Some(Persisted::RESTORED);
        self.restore_low();
    }

    pub(super) fn take_record(&mut self, record: &Record) -> Result<(), RestoreError> {
        self.promise = Some(Persisted::RESTORED);
        let unreadable = |_| RestoreError::Unreadable { protocol: "ordering" };
        let own = match record {
            Record::Ordering { contents, .. } => Some(PbftRecord::read(contents).map_err(unreadable)?),
            _ => None,
        };
        let view = match (record, own) {
            (Record::Proposal(proposal), _) => Some(proposal.view),
            (_, Some(PbftRecord::Vote(vote))) => Some(vote.view()),
            _ => None,
        };
        if view.is_some_and(|view| self.is_to_come(view)) {
            // What began this view was cut off, and written again further on.
            self.unplaced.push(record.clone());
        }
        match record {
            Record::Proposal(proposal) => self.take_proposal(proposal),
            Record::Batch(proposal) if self.is_inside(proposal.seq) => {
                self.slot(proposal.seq).keep(proposal.clone(), true);
            }
            Record::Checkpoint(checkpoint) => {
                let (node, stable) = (self.context.node, self.stable.seq);
                self.checkpoints.restore_own(node, *checkpoint, stable);
            }
            Record::Stable { claim, proof } if claim.seq > self.stable.seq => {
                self.stable = *claim;
                self.proof.clone_from(proof);
                self.checkpoints.certify(*claim, self.context.node);
                self.restore_low();
            }
            // Known before: where it lies in the log, it may have contradicted what was said until then.
            Record::Stable { claim, .. } => {
                self.checkpoints.settle(*claim, self.context.node);
            }
            Record::View(view) if *view > self.view && !active(Mutant::ViewRecordForgotten) => {
                self.view = *view;
                self.active = false;
            }
            _ => {}
        }
        match own {
            Some(PbftRecord::Vote(_)) if active(Mutant::VoteRecordForgotten) => {}
            Some(PbftRecord::Vote(vote)) => self.take_vote(&vote),
            Some(PbftRecord::Announced(placed)) => self.take_announced(&placed),
            None => {}
        }
        Ok(())
    }

    pub(super) fn take_view(&mut self, start: &ViewStart) {
        if start.view < self.view {
            return;
        }
        // The new view may be there twice: it is written again before the log is cut.
        let is_first = start.view > self.view || !self.active;
        if is_first {
            self.begin(start);
        }
        if start.stable.seq > self.stable.seq {
            self.stable = start.stable;
            self.proof.clone_from(&start.proof);
            self.checkpoints.certify(start.stable, self.context.node);
            self.restore_low();
        }
        self.restore_ahead();
        if is_first {
            let unplaced = std::mem::take(&mut self.unplaced);
            for record in &unplaced {
                // It was read once.
                let _ = self.take_record(record);
            }
        }
    }

    pub(super) fn take_decision(&mut self, seq: SeqNo, digest: Digest) -> Option<Arc<Proposal>> {
        let view = self.view;
        if !self.is_inside(seq) {
            return None;
        }
        let slot = self.slot(seq);
        slot.outcome = Some(digest);
        let proposal = slot.proposal_of(view, seq, &digest)?;
        self.clock.note(&proposal.batch);
        // Those that the snapshot covers may be all that a peer lacks, if it is not stable yet.
        self.resend.remember(proposal.clone());
        if seq == self.decided.next() {
            self.note_end(&proposal);
            self.decided = seq;
            self.restore_low();
        }
        Some(proposal)
    }

    /// Takes every step that is allowed now.
    pub(super) fn go_on(&mut self, out: &mut Outbox) {
        self.unplaced = Vec::new();
        self.decide(out);
        if self.active {
            self.install_backlog(out);
            for number in self.low.get() + 1..=self.high().get() {
                let seq = SeqNo::new(number);
                match self.peek(seq).chosen {
                    Some(digest) => self.install_chosen(seq, digest, out),
                    None => self.advance(seq, out),
                }
            }
        }
        self.fetch_wanted(out);
    }

    pub(super) fn records_to_carry(&self) -> Vec<Record> {
        let stable = Record::Stable {
            claim: self.stable,
            proof: self.proof.clone(),
        };
        // Who is in the epoch knows what it begins with.
        let mut records = match self.stable == self.context.base {
            true => Vec::new(),
            false => vec![stable],
        };
        records.append(&mut self.announced_records());
        records
    }

    fn take_announced(&mut self, placed: &SlotDigest) {
        let (view, seq) = (View::new(placed.view), SeqNo::new(placed.seq));
        let digest = Digest::from_bytes(placed.digest);
        if self.is_inside(seq) {
            self.slot(seq).pre_prepare(view, digest, true);
        } else if seq > self.high() {
            let entries = self.announced_ahead.entry(seq).or_default();
            entries.add(view, digest, true, None);
        }
    }

    fn is_inside(&self, seq: SeqNo) -> bool {
        seq > self.low && seq <= self.high()
    }

    fn take_proposal(&mut self, proposal: &Arc<Proposal>) {
        let (view, seq, digest) = (proposal.view, proposal.seq, proposal.batch.digest);
        let (node, leading) = (self.context.node, self.leader() == self.context.node);
        if leading && view == self.view && !active(Mutant::ProposalRecordForgotten) {
            self.proposed = self.proposed.max(seq);
        }
        if !self.is_inside(seq) {
            return;
        }
        let is_current = view == self.view && self.active;
        let slot = self.slot(seq);
        if active(Mutant::ProposalRecordForgotten) {
            return slot.keep(proposal.clone(), true);
        }
        if !is_current {
            // Of another view: it is in Q, and nothing was said in this one.
            slot.keep(proposal.clone(), true);
            slot.pre_prepare(view, digest, true);
            return;
        }
        slot.proposal = Some(proposal.clone());
        slot.accept(view, digest, true);
        if !leading {
            let _ = slot.prepares.add(node, digest);
        }
        self.clock.note(&proposal.batch);
    }

    fn take_vote(&mut self, vote: &Vote) {
        let (view, seq, digest) = (vote.view(), vote.seq(), vote.digest());
        let node = self.context.node;
        if !self.is_inside(seq) {
            return;
        }
        let is_current = view == self.view && self.active;
        let slot = self.slot(seq);
        match (vote.phase, is_current) {
            (Phase::Prepare, true) => {
                slot.proposal = slot.proposal_of(view, seq, &digest);
                let _ = slot.prepares.add(node, digest);
                slot.accept(view, digest, true);
            }
            (Phase::Commit, true) => {
                slot.prepare(view, digest);
                let _ = slot.commits.add(node, digest);
            }
            (Phase::Prepare, false) => slot.pre_prepare(view, digest, true),
            (Phase::Commit, false) => slot.note_prepared(view, digest),
        }
    }

    /// Moves the window up to what is both stable and decided, as it was moved before the restart.
    fn restore_low(&mut self) {
        let low = self.stable.seq.min(self.decided);
        for seq in self.low.get() + 1..=low.get().min(self.high().get()) {
            self.slot(SeqNo::new(seq)).clear();
        }
        self.low = self.low.max(low);
        self.resend.forget(self.low, self.context.window);
        self.restore_ahead();
    }

    fn restore_ahead(&mut self) {
        self.reach_announced();
        while let Some((seq, digest)) = self.next_ahead() {
            if seq > self.low {
                self.slot(seq).chosen = Some(digest);
            }
        }
    }
}
