use std::sync::Arc;

use crate::smr::execution::{CheckpointSnapshot, ExecutionEvent, Executor};
use crate::smr::messages::{CheckpointClaim, Proposal, TakenCheckpoint};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Record, RestoreError};
use crate::smr::replica::{ExecutorOf, Replica, Stack};
use crate::smr::types::{Lsn, SeqNo, Time};

/// What the log says of checkpoints and of the decisions that lead to them: which snapshot a restart may
/// begin with, and whether it can do without one.
#[derive(Debug, Default)]
pub struct CheckpointHistory {
    /// The records about what is stable.
    stables: Vec<Record>,
    /// What this replica signed and nobody contradicted yet.
    own: Vec<CheckpointClaim>,
    /// What it signed of a state that was found to be wrong.
    wrong: Vec<CheckpointClaim>,
    /// The log has every decision up to this one, from the first on.
    decided: SeqNo,
    /// It says that places were passed over, because a state was to come from others.
    has_jumped: bool,
}

impl CheckpointHistory {
    /// Of an epoch that begins with this checkpoint, which a quorum signed.
    #[must_use]
    pub fn beginning_with(base: CheckpointClaim) -> Self {
        let known = (base != CheckpointClaim::NONE).then(|| Record::Stable {
            claim: base,
            proof: Vec::new(),
        });
        Self {
            stables: known.into_iter().collect(),
            ..Self::default()
        }
    }

    /// The records about what is stable, in order.
    #[must_use]
    pub fn stables(&self) -> &[Record] {
        &self.stables
    }

    /// The log's next record.
    pub fn take(&mut self, record: Record) {
        match record {
            Record::Checkpoint(checkpoint) => {
                let claim = checkpoint.claim();
                let is_other = |own: &CheckpointClaim| own.seq == claim.seq && *own != claim;
                if self.own.iter().any(is_other) {
                    // The state that it signed before was lost in a restart.
                    self.own.clear();
                }
                self.own.push(claim);
            }
            Record::Stable { claim, .. } => {
                let is_other = |own: &CheckpointClaim| own.seq == claim.seq && *own != claim;
                if self.own.iter().any(is_other) {
                    // What it signed later was of the same state.
                    let later = self.own.iter().filter(|own| own.seq >= claim.seq);
                    self.wrong.extend(later.copied());
                    self.own.clear();
                }
                self.own.retain(|own| own.seq > claim.seq);
                self.stables.push(record);
            }
            Record::Decision { seq, .. } if seq == self.decided.next() && !self.has_jumped => {
                self.decided = seq;
            }
            Record::Jump { .. } => self.has_jumped = true,
            _ => {}
        }
    }

    /// Whether the log leads from the initial state to this checkpoint and beyond, without a state of others:
    /// who has no snapshot of it executes the log instead.
    #[must_use]
    pub fn leads_to(&self, seq: SeqNo) -> bool {
        self.decided >= seq && !active(Mutant::WholeLogUnused)
    }

    /// Whether a quorum signed something else than this snapshot, or what comes before it on the same state
    /// was contradicted.
    #[must_use]
    pub fn contradicts(&self, snapshot: CheckpointClaim) -> bool {
        let is_other = |record: &Record| matches!(record, Record::Stable { claim, .. } if claim.seq == snapshot.seq && *claim != snapshot);
        let is_contradicted = self.wrong.contains(&snapshot) || self.stables.iter().any(is_other);
        is_contradicted && !active(Mutant::ContradictedSnapshotBelieved)
    }
}

/// Has a new replica and its executor, which read the snapshot to begin with, go through the log.
pub struct Replay<'a, S: Stack> {
    replica: &'a mut Replica<S>,
    executor: &'a mut ExecutorOf<S>,
    done: Replayed,
}

/// What there was in the log.
#[derive(Debug, Default)]
pub struct Replayed {
    /// How many records.
    pub records: u64,
    /// How many decisions were executed again.
    pub decisions: u64,
    /// The checkpoints that were taken again.
    pub claims: Vec<TakenCheckpoint>,
    /// The contents of the one that closes the epoch, if the last decision was among them: they may not be on disk.
    pub closing: Option<Box<dyn CheckpointSnapshot>>,
}

impl<'a, S: Stack> Replay<'a, S> {
    /// Begins.
    #[must_use]
    pub fn new(replica: &'a mut Replica<S>, executor: &'a mut ExecutorOf<S>) -> Self {
        Self {
            replica,
            executor,
            done: Replayed::default(),
        }
    }

    /// The log's next record; the decision that was executed again because of it, if one was.
    ///
    /// # Errors
    /// When it does not follow from what came before.
    pub fn record(&mut self, record: &Record) -> Result<Option<Arc<Proposal>>, RestoreError> {
        self.done.records += 1;
        let decision = self.replica.restore(record)?;
        if let Some(decision) = &decision {
            let mut events = Vec::new();
            self.executor.execute(decision, &mut events);
            self.done.decisions += 1;
            self.take_events(events);
        }
        Ok(decision)
    }

    /// Clients got their replies before, or ask again.
    fn take_events(&mut self, events: Vec<ExecutionEvent>) {
        for event in events {
            match event {
                ExecutionEvent::Checkpoint(taken) => self.done.claims.push(taken),
                ExecutionEvent::Snapshot(snapshot) if snapshot.is_needed() => {
                    self.done.closing = Some(snapshot);
                }
                _ => {}
            }
        }
    }

    /// The log ends here; the replica goes on from the snapshot that was read, if one was, and from there.
    #[must_use]
    pub fn finish(mut self, snapshot: Option<CheckpointClaim>, end: Lsn) -> Replayed {
        if let Some(claim) = snapshot {
            self.replica.restore_snapshot(claim);
        }
        let mut events = Vec::new();
        self.executor.settle(&mut events);
        while self.executor.background_step(usize::MAX, &mut events) {}
        self.take_events(events);
        let windows = match self.replica.awaits_state() {
            // What was read of a state, if anything, is not the one to come.
            true => Vec::new(),
            false => self.executor.client_windows(),
        };
        self.replica.resume(Time::START, end, &windows);
        for taken in &self.done.claims {
            self.replica.on_checkpoint_taken(Time::START, *taken);
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::crypto::Chain;
    use crate::smr::messages::SignedCheckpoint;
    use crate::smr::types::Digest;

    fn claim(seq: u64, letter: char) -> CheckpointClaim {
        CheckpointClaim {
            seq: SeqNo::new(seq),
            digest: Digest::from_bytes([letter as u8; 32]),
        }
    }

    fn signed(seq: u64, letter: char) -> Record {
        Record::Checkpoint(SignedCheckpoint {
            seq,
            digest: [letter as u8; 32],
            signer: 0,
            signature: [0; 64],
        })
    }

    fn stable(seq: u64, letter: char) -> Record {
        Record::Stable {
            claim: claim(seq, letter),
            proof: Vec::new(),
        }
    }

    #[test]
    fn a_log_leads_from_the_initial_state_as_far_as_no_decision_is_missing() {
        let decision = |seq| Record::Decision {
            seq: SeqNo::new(seq),
            digest: Digest::ZERO,
            chain: Chain::START,
        };
        let jump = || Record::Jump {
            seq: SeqNo::new(9),
            chain: Chain::START,
        };
        let leads_to = |records: Vec<Record>| {
            let mut told = CheckpointHistory::default();
            records.into_iter().for_each(|record| told.take(record));
            (1..9)
                .take_while(|seq| told.leads_to(SeqNo::new(*seq)))
                .last()
                .unwrap_or(0)
        };
        assert_eq!(leads_to(vec![]), 0);
        assert_eq!(leads_to((1..5).map(decision).collect()), 4);
        assert_eq!(leads_to([1, 2, 4].map(decision).to_vec()), 2);
        assert_eq!(leads_to([2, 3].map(decision).to_vec()), 0, "it was cut");
        assert_eq!(leads_to(vec![decision(1), jump(), decision(2)]), 1);
    }

    #[test]
    fn a_snapshot_is_wrong_if_what_it_follows_was_contradicted_and_right_if_it_was_taken_after_that() {
        let told = |records: Vec<Record>| {
            let mut told = CheckpointHistory::default();
            records.into_iter().for_each(|record| told.take(record));
            told
        };
        let found_out = told(vec![signed(12, 'w'), signed(18, 'w'), stable(12, 'r')]);
        assert!(found_out.contradicts(claim(18, 'w')));
        assert!(!found_out.contradicts(claim(6, 'r')));
        let lost = told(vec![signed(18, 'w'), signed(18, 'r'), stable(18, 'r')]);
        assert!(
            !lost.contradicts(claim(18, 'r')),
            "the wrong state was lost in a restart, and made again right"
        );
        assert!(lost.contradicts(claim(18, 'w')));
    }
}
