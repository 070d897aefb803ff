//! A restart: the orchestrator hands what the log says to the protocols, and then goes on.
//!
//! ```text
//!  image (state, clients, chain) ─► restore_base
//!  every Stable record           ─► restore_stable        the window is known before the places in it
//!  every record, in order        ─► restore ─► decisions, to execution
//!                                   resume                the protocols take the steps that are allowed now
//! ```

use std::sync::Arc;

use super::{Replica, Stack};
use crate::decision_log::{Chain, DecisionLog};
use crate::execution::SequenceWindow;
use crate::messages::Proposal;
use crate::ordering::OrderingProtocol;
use crate::protocol::{Outbox, Record, RestoreError};
use crate::types::{ClientId, Lsn, SeqNo, Time};
use crate::view_transfer::ViewTransferProtocol;

impl<S: Stack> Replica<S> {
    /// The state was read from the image of the checkpoint at `seq`, which covers `chain`.
    pub fn restore_base(&mut self, seq: SeqNo, chain: Chain) {
        self.ordering.restore_base(seq);
        self.decision_log.restore_base(seq, chain);
        self.executed = seq;
        self.image_kept = seq;
    }

    /// The log holds this record about what is stable. All of them come before the first [`restore`](Self::restore).
    pub fn restore_stable(&mut self, record: &Record) {
        if matches!(record, Record::Stable { .. }) {
            self.ordering.restore(record);
        }
    }

    /// The log holds this record. The decision to execute, if it is one that the state does not include.
    ///
    /// # Errors
    /// When the record does not fit what came before: the log is damaged.
    pub fn restore(&mut self, record: &Record) -> Result<Option<Arc<Proposal>>, RestoreError> {
        match record {
            Record::Decision { seq, digest, chain } => {
                let last = self.decision_log.last();
                let proposal = self.ordering.restore_decision(*seq, *digest);
                if *seq <= last {
                    return Ok(None);
                }
                if *seq != last.next() {
                    return Err(RestoreError::Gap { last, found: *seq });
                }
                let proposal = proposal.ok_or(RestoreError::BatchMissing { seq: *seq })?;
                self.decision_log.restore(&proposal, *chain)?;
                self.executed = *seq;
                return Ok(Some(proposal));
            }
            Record::NewView(message) => {
                let start = self.view_transfer.restore_new_view(message)?;
                self.ordering.restore_view(&start);
            }
            record => {
                self.ordering.restore(record);
                self.view_transfer.restore(record);
            }
        }
        Ok(None)
    }

    /// Everything was restored, and the log continues at `next_lsn`. `windows` is what was executed, by client.
    pub fn resume(&mut self, now: Time, next_lsn: Lsn, windows: &[SequenceWindow]) {
        self.outbox = Outbox::new(next_lsn);
        self.logged_end = next_lsn;
        self.durable_end = next_lsn;
        for (client, window) in (0..).zip(windows) {
            self.pool.adopt_window(ClientId::new(client), *window);
        }
        self.ordering.resume(now, &mut self.outbox);
        if !self.view_transfer.is_active() {
            let (view, evidence) = (self.view_transfer.view(), self.ordering.evidence());
            self.view_transfer
                .on_view_left(now, view, evidence, &mut self.outbox);
        }
        self.carry_out(now);
    }
}
