//! Decisions that our own log does not give back, brought from peers.
//!
//! Execution that goes on from an older state reads what follows from the log. Where a disk does not give it
//! back, the digests are still known: one peer after the other is asked for the batches, which are believed
//! by their digests alone. Peers that have forgotten them say nothing. When everybody was asked in vain, a
//! later state is looked for beside it, and what comes first is gone on from: there may be no later state for
//! long, and no peer with these decisions either, but never both.
//!
//! Invariant: what is repaired begins right after what execution was given, and ends where what is released
//! ends: memory may have forgotten decisions of which the log does not hold yet what executing them takes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{Replica, Stack, TransferPhase};
use crate::smr::decision_log::DecisionLog;
use crate::smr::messages::{LogTransferMessage, Proposal};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Effect, Recipients, Timer};
use crate::smr::state_transfer::{StateTransferProtocol, StateTransferState};
use crate::smr::types::{Digest, NodeId, SeqNo, Time};

/// How many decisions are asked for at once.
const MENDED_MAX: usize = 16;
/// How long a peer has for the next of them.
const PATIENCE: Duration = Duration::from_millis(500);

/// Decisions that are being repaired.
#[derive(Debug)]
pub(super) struct Repair {
    /// The place of the next one.
    next: SeqNo,
    /// The batches from there on.
    wanted: VecDeque<Digest>,
    /// Those that came before their turn.
    found: BTreeMap<SeqNo, Arc<Proposal>>,
    /// Who was asked last, and how many were since something came.
    peer: usize,
    asked: usize,
    /// Everybody was asked in vain: a later state will do as well.
    looks_for_state: bool,
}

impl Repair {
    /// Up to where execution was given everything.
    pub fn fed(&self) -> SeqNo {
        self.next.minus(1)
    }

    /// Whether nothing is missing any more.
    pub fn is_done(&self) -> bool {
        self.wanted.is_empty()
    }

    fn digest(&self, seq: SeqNo) -> Option<Digest> {
        let place = (seq >= self.next).then(|| seq.since(self.next))?;
        self.wanted.get(place as usize).copied()
    }

    /// Takes a batch that is one of those that are needed; any other is given back.
    fn take(&mut self, batch: Proposal) -> Option<Proposal> {
        let wanted = self.digest(batch.seq);
        let is_it =
            wanted == Some(batch.batch.digest) || (wanted.is_some() && active(Mutant::RepairedUnchecked));
        if !is_it || self.found.contains_key(&batch.seq) {
            return Some(batch);
        }
        self.asked = 0;
        // Known by its digest: what it was decided as vouches for its clients.
        let authentic = true;
        self.found
            .insert(batch.seq, Arc::new(Proposal { authentic, ..batch }));
        None
    }

    /// The next one in order, if it is here.
    fn next(&mut self) -> Option<Arc<Proposal>> {
        let next = self.found.remove(&self.next)?;
        self.wanted.pop_front();
        self.next = self.next.next();
        Some(next)
    }
}

impl<S: Stack> Replica<S> {
    /// Whether peers are asked for decisions, or will be.
    #[must_use]
    pub fn asks_for_decisions(&self) -> bool {
        self.is_repairing() || self.transfer_phase() != TransferPhase::NotRunning
    }

    /// Whether decisions are asked for that our own log does not give back.
    #[must_use]
    pub fn is_repairing(&self) -> bool {
        self.supply.is_repairing()
    }

    /// The log does not give back what follows `fed`.
    pub(super) fn begin_repair(&mut self, now: Time, fed: SeqNo) {
        let base = self.decision_log.base();
        let end = base.min(self.supply.released());
        let logged = end.since(fed) as usize;
        let digests = self.decision_log.digests(fed.next(), logged.min(MENDED_MAX));
        let wanted: VecDeque<Digest> = digests.collect();
        if wanted.is_empty() || active(Mutant::UnreadUnrepaired) {
            return self.replace_unfed(now, fed);
        }
        self.supply.mend(Repair {
            next: fed.next(),
            wanted,
            found: BTreeMap::new(),
            peer: self.settings.node.index(),
            asked: 0,
            looks_for_state: false,
        });
        self.ask_to_mend(now);
    }

    fn ask_to_mend(&mut self, now: Time) {
        let (n, node) = (self.settings.quorum.n(), self.settings.node.index());
        let Some(repair) = self.supply.repair() else {
            return;
        };
        repair.peer = (repair.peer + 1) % n;
        if repair.peer == node {
            repair.peer = (repair.peer + 1) % n;
        }
        repair.asked += 1;
        let message = LogTransferMessage::FetchDecisions {
            first: repair.next.get(),
            count: repair.wanted.len() as u32,
        };
        let to = Recipients::One(NodeId::new(repair.peer as u16));
        self.outbox
            .send(to, message.encode(self.settings.cluster, self.settings.epoch));
        self.outbox.set_timer(Timer::Repair, now.after(PATIENCE));
    }

    /// [`Timer::Repair`] fired: the peer that was asked last did not go on.
    pub(super) fn on_repair_due(&mut self, now: Time) {
        let others = self.settings.quorum.n() - 1;
        let is_idle = self.state_transfer.state() == StateTransferState::Idle;
        let Some(repair) = self.supply.repair() else {
            // It ended otherwise meanwhile.
            return;
        };
        if repair.asked >= others && is_idle {
            repair.looks_for_state = true;
            let fed = repair.fed();
            self.begin_state_transfer(now, fed);
        }
        self.ask_to_mend(now);
    }

    /// A batch arrived. Given back if it is not to be repaired.
    pub(super) fn take_to_mend(&mut self, now: Time, batch: Proposal) -> Option<Proposal> {
        let Some(repair) = self.supply.repair() else {
            return Some(batch);
        };
        let left = repair.take(batch);
        if left.is_none() {
            self.feed_repaired(now);
        }
        left
    }

    fn feed_repaired(&mut self, now: Time) {
        while let Some(next) = self.supply.repair().and_then(Repair::next) {
            self.counters.decisions_repaired += 1;
            self.feed(next);
        }
        let Some(repaired) = self.supply.take_repair() else {
            return self.outbox.set_timer(Timer::Repair, now.after(PATIENCE));
        };
        self.outbox.push(Effect::CancelTimer(Timer::Repair));
        if repaired.looks_for_state {
            self.state_transfer.end(&mut self.outbox);
        }
        self.replay_to_executor(now);
    }
}
