//! A restart: the orchestrator hands what the log says to the protocols, and then goes on.
//!
//! ```text
//!  snapshot (state, clients, chain) ─► restore_base
//!  every Stable record           ─► restore_stable        the window is known before the places in it
//!  every record, in order        ─► restore ─► decisions, to execution
//!                                   resume                the protocols take the steps that are allowed now
//! ```

use std::sync::Arc;

use super::{Replica, Stack};
use crate::smr::crypto::Chain;
use crate::smr::decision_log::DecisionLog;
use crate::smr::execution::SessionWindows;
use crate::smr::messages::{CheckpointClaim, Proposal};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{Outbox, Record, RestoreError};
use crate::smr::types::{ClientId, Lsn, SeqNo, Time};
use crate::smr::view_transfer::ViewTransferProtocol;

impl<S: Stack> Replica<S> {
    /// The state was read from the snapshot of the checkpoint at `seq`, which covers `chain`.
    pub fn restore_base(&mut self, seq: SeqNo, chain: Chain) {
        self.ordering.restore_base(seq);
        self.decision_log.restore_base(seq, chain);
        self.supply.restore_base(seq);
        self.reads.may_have_answered(seq);
        self.checkpoints.restore_base(seq);
    }

    /// The log was read to its end, on a state that was read from the snapshot of this checkpoint. That
    /// snapshot may have come from others, in the place of a state of which the log still says what we
    /// signed; what says that a quorum signed another need not have been written.
    pub fn restore_snapshot(&mut self, claim: CheckpointClaim) {
        self.ordering.restore_snapshot(claim);
        self.restore_closing_state(claim);
    }

    /// These snapshots are on disk, as what their heads say.
    pub fn restore_snapshots(&mut self, snapshots: impl Iterator<Item = CheckpointClaim>) {
        for claim in snapshots {
            self.checkpoints.restore_snapshot(claim);
        }
    }

    /// The snapshot of the checkpoint at `seq` cannot be read: its state has to come from others.
    pub fn restore_without_snapshot(&mut self, seq: SeqNo) {
        self.ordering.restore_base(seq);
        self.decision_log.restore_base_unproved(seq);
        self.reads.may_have_answered(seq);
        self.supply.restore_without_state(seq);
    }

    /// Whether execution waits for a state from others.
    #[must_use]
    pub fn awaits_state(&self) -> bool {
        self.supply.awaits_state()
    }

    /// The log holds this record about what is stable. All of them come before the first
    /// [`restore`](Self::restore).
    ///
    /// # Errors
    /// When the ordering protocol cannot read it.
    pub fn restore_stable(&mut self, record: &Record) -> Result<(), RestoreError> {
        if let Record::Stable { claim, proof } = record {
            self.checkpoints.remember_certificate(*claim, proof.clone());
            self.ordering.restore(record)?;
        }
        Ok(())
    }

    /// The log holds this record. The decision to execute, if it is one that the state does not include.
    ///
    /// # Errors
    /// When the record does not fit what came before: the log is damaged.
    pub fn restore(&mut self, record: &Record) -> Result<Option<Arc<Proposal>>, RestoreError> {
        self.reads.restore(record);
        self.restore_epochs(record)?;
        match record {
            Record::Decision { seq, digest, chain } => {
                let last = self.decision_log.last();
                let proposal = self.ordering.restore_decision(*seq, *digest);
                if *seq <= last {
                    self.decision_log.restore_earlier(*seq, *digest, *chain);
                    return Ok(None);
                }
                if *seq != last.next() {
                    return Err(RestoreError::Gap { last, found: *seq });
                }
                let proposal = proposal.ok_or(RestoreError::BatchMissing { seq: *seq })?;
                self.decision_log.restore(&proposal, *chain)?;
                if !self.supply.restore_decision(*seq) {
                    return Ok(None);
                }
                self.decision_log.keep_after(*seq);
                return Ok(Some(proposal));
            }
            Record::Jump { .. } if active(Mutant::JumpRecordForgotten) => {}
            Record::Jump { seq, chain } => {
                // Later ones than the snapshot that was read, if any: the state did not come before the
                // restart.
                if *seq > self.decision_log.last() {
                    self.ordering.restore_base(*seq);
                    self.decision_log.restore_base(*seq, *chain);
                    self.supply.restore_without_state(*seq);
                }
            }
            Record::Reconfiguration(_) => {}
            // One that the log was cut inside of is restored where it was written again.
            Record::ViewTransfer(_) => {
                if let Some(start) = self.view_transfer.restore(record)? {
                    self.ordering.restore_view(&start);
                }
            }
            record => {
                if let Record::Proposal(proposal) | Record::Batch(proposal) = record {
                    let batch = proposal.batch.digest;
                    self.decision_log.restore_batch(proposal.seq, batch);
                }
                self.ordering.restore(record)?;
                self.view_transfer.restore(record)?;
            }
        }
        Ok(None)
    }

    /// Everything was restored, and the log continues at `next_lsn`. `windows` is what was executed, by
    /// client.
    pub fn resume(&mut self, now: Time, next_lsn: Lsn, windows: &[SessionWindows]) {
        self.outbox = Outbox::new(next_lsn);
        self.promises.resume(next_lsn);
        for (client, window) in (0..).zip(windows) {
            self.pool.adopt_windows(ClientId::new(client), window.clone());
        }
        self.resume_epoch_end(now);
        self.ordering.resume(now, &mut self.outbox);
        if !self.view_transfer.is_active() {
            let (view, evidence) = (self.view_transfer.view(), self.ordering.evidence());
            self.view_transfer
                .on_view_left(now, view, evidence, &mut self.outbox);
        }
        self.dispatch_effects(now);
        if let Some(seq) = self.supply.awaited() {
            self.begin_state_transfer(now, seq.minus(1));
        }
        // The others may have gone on: they are asked before their statuses come.
        if self.settings.quorum.n() > 1 {
            self.begin_log_transfer(now);
        }
        self.reads_are_told();
    }
}
