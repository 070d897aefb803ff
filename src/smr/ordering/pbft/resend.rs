//! Giving peers what they lack, and asking for what we lack.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Pbft, vote};
use crate::smr::messages::{
    BatchRef, Phase, Proposal, STATUS_SLOTS, SlotStatus, Status, SyncMessage, SystemMessage, Vote,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{OrderingProgress, Outbox, Recipients, Record, Rejected, Rejection};
use crate::smr::types::{NodeId, SeqNo, Time};

/// How many batches are asked for in one message.
pub(super) const FETCHED_AT_ONCE: usize = STATUS_SLOTS;
/// How many bytes of batches answer one message, about.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// A peer's status or fetch is answered at most once in this time: a faulty one must not make us its
/// amplifier.
const ANSWER_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of decisions that are kept for peers below the window.
const HISTORY_BYTES_MAX: usize = 64 << 20;

/// What is kept for peers that lag behind, and when they were answered last.
#[derive(Debug)]
pub(super) struct Resend {
    /// The last decisions, without gaps: all above the low watermark, and below it as many as a window holds,
    /// within `HISTORY_BYTES_MAX`.
    history: VecDeque<Arc<Proposal>>,
    history_bytes: usize,
    /// By peer: when its status and its fetch were answered.
    answered: Vec<[Option<Time>; 2]>,
    decided_at_last_status: Option<SeqNo>,
    /// Peers told us of decisions since the last status.
    catching_up: bool,
    asks: bool,
    turn: usize,
}

/// What is answered, for the pause between answers.
#[derive(Clone, Copy)]
enum Asked {
    Status,
    Fetch,
}

impl Resend {
    pub(super) fn new(n: usize) -> Self {
        Self {
            history: VecDeque::new(),
            history_bytes: 0,
            answered: vec![[None; 2]; n],
            decided_at_last_status: None,
            catching_up: false,
            asks: false,
            turn: 0,
        }
    }

    /// Keeps a decision, just made or read from the log. A log may end before the checkpoint that a restart
    /// begins with: what lies before such a gap is forgotten.
    pub(super) fn remember(&mut self, decision: Arc<Proposal>) {
        let last = self.history.back().map(|last| last.seq);
        if last.is_some_and(|last| last.next() != decision.seq) {
            self.restart();
        }
        self.history_bytes += decision.kept_bytes();
        self.history.push_back(decision);
    }

    /// The low watermark moved to `low`: forgets what lies a window below it, and more if that is too much.
    pub(super) fn forget(&mut self, low: SeqNo, window: u64) {
        while let Some(oldest) = self.history.front() {
            let spare = oldest.seq <= low && self.history_bytes > HISTORY_BYTES_MAX;
            if oldest.seq > low.minus(window) && !spare {
                break;
            }
            self.history_bytes -= oldest.kept_bytes();
            self.history.pop_front();
        }
    }

    /// Forgets everything.
    pub(super) fn restart(&mut self) {
        self.history.clear();
        self.history_bytes = 0;
    }

    /// Has the next status ask for what we lack.
    pub(super) fn ask_next(&mut self) {
        self.catching_up = true;
    }

    fn decision(&self, seq: SeqNo) -> Option<&Arc<Proposal>> {
        let first = self.history.front()?.seq;
        (seq >= first).then(|| self.history.get(seq.since(first) as usize))?
    }

    fn may_answer(&mut self, now: Time, from: NodeId, asked: Asked) -> bool {
        let Some(last) = self.answered.get_mut(from.index()) else {
            return false;
        };
        let last = &mut last[asked as usize];
        if last.is_some_and(|last| now.since(last) < ANSWER_PAUSE) && !active(Mutant::StatusFloodAnswered) {
            return false;
        }
        *last = Some(now);
        true
    }

    pub(super) fn next_turn(&mut self) -> usize {
        self.turn = self.turn.wrapping_add(1);
        self.turn
    }
}

impl Pbft {
    /// Our status is about to be sent: it asks if nothing was decided since the last one.
    pub(super) fn on_status_due(&mut self, out: &mut Outbox) {
        let stuck = self.resend.decided_at_last_status == Some(self.decided);
        let behind = std::mem::take(&mut self.resend.catching_up) || self.stable.seq > self.decided;
        self.resend.asks = stuck || behind;
        self.resend.decided_at_last_status = Some(self.decided);
        if self.resend.asks {
            self.fetch_wanted(out);
        }
    }

    pub(super) fn stand(&self) -> OrderingProgress {
        let last = self.decided.plus(STATUS_SLOTS as u64).min(self.high());
        let slots = self.decided.get() + 1..=last.get();
        OrderingProgress {
            stable: self.stable.seq,
            decided: self.decided,
            asks: self.resend.asks,
            slots: match self.resend.asks {
                true => slots.map(|seq| self.peek(SeqNo::new(seq)).status()).collect(),
                false => Vec::new(),
            },
            disputed: Vec::new(),
        }
    }

    pub(super) fn answer_status(&mut self, now: Time, from: NodeId, status: &Status, out: &mut Outbox) {
        let silent = active(Mutant::StatusUnanswered);
        if silent
            || !status.asks
            || from == self.context.node
            || !self.resend.may_answer(now, from, Asked::Status)
        {
            return;
        }
        let to = Recipients::One(from);
        let stable = SeqNo::new(status.stable);
        let is_later = self.stable.seq > stable && !self.proof.is_empty();
        if is_later {
            // Our signature alone is not enough where the others that signed with us are silent, or gone.
            let message = SyncMessage::Stable(self.proof.clone());
            let message = message.encode(self.context.cluster, self.context.epoch);
            self.send_again(to, message, out);
        }
        let known = if is_later { self.stable.seq } else { stable };
        let checkpoints = self.checkpoints.own_after(self.context.node, known);
        let checkpoints: Vec<_> = checkpoints.collect();
        for checkpoint in checkpoints {
            let message = SystemMessage::checkpoint(self.context.cluster, self.context.epoch, checkpoint);
            self.send_again(to, message, out);
        }
        let decided = SeqNo::new(status.decided);
        let decisions: Vec<BatchRef> = (1..=STATUS_SLOTS as u64)
            .map(|distance| decided.plus(distance))
            .take_while(|seq| *seq <= self.decided)
            .filter_map(|seq| Some(BatchRef::new(seq, &self.resend.decision(seq)?.batch.digest)))
            .collect();
        if !decisions.is_empty() {
            let message = SyncMessage::Decisions(decisions);
            let message = message.encode(self.context.cluster, self.context.epoch);
            self.send_again(to, message, out);
        }
        if status.view == self.view.get() && status.active && self.active {
            self.answer_slots(to, decided, &status.slots, out);
        }
    }

    /// Sends what we said in this view about slots of which the peer lacks something.
    fn answer_slots(&mut self, to: Recipients, decided: SeqNo, slots: &[u8], out: &mut Outbox) {
        let (view, leading) = (self.view, self.is_leading());
        let mut votes: Vec<Vote> = Vec::new();
        let mut proposals: Vec<Bytes> = Vec::new();
        for (distance, place) in (1..).zip(slots.iter().take(STATUS_SLOTS)) {
            let (seq, theirs) = (decided.plus(distance), SlotStatus(*place));
            if seq <= self.low || seq > self.high() {
                continue;
            }
            let slot = self.peek(seq);
            let Some(proposal) = slot.proposal.as_ref().filter(|_| slot.accepted) else {
                continue;
            };
            let digest = proposal.batch.digest;
            if leading && slot.chosen.is_none() && !theirs.has(SlotStatus::PROPOSED) {
                proposals.push(proposal.message.clone());
            }
            if !leading && !theirs.has(SlotStatus::PREPARED) {
                votes.push(vote(Phase::Prepare, view, seq, digest));
            }
            if slot.prepared && !theirs.has(SlotStatus::COMMITTED) {
                votes.push(vote(Phase::Commit, view, seq, digest));
            }
        }
        let mut bytes = 0;
        for message in proposals {
            bytes += message.len();
            self.send_again(to, message, out);
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
        }
        if !votes.is_empty() {
            let message = SystemMessage::votes(self.context.cluster, self.context.epoch, votes);
            self.send_again(to, message, out);
        }
    }

    /// Sends something that may promise what we logged not long ago.
    fn send_again(&self, to: Recipients, message: Bytes, out: &mut Outbox) {
        match self.promise {
            Some(promise) => out.send_again(to, message, promise),
            None => out.send(to, message),
        }
    }

    pub(super) fn answer_fetch(&mut self, now: Time, from: NodeId, wanted: &[BatchRef], out: &mut Outbox) {
        if from == self.context.node || !self.resend.may_answer(now, from, Asked::Fetch) {
            return;
        }
        let mut bytes = 0;
        for wanted in wanted.iter().take(FETCHED_AT_ONCE) {
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
            let (seq, digest) = (wanted.seq(), wanted.digest());
            let decided = self.resend.decision(seq).filter(|p| p.batch.digest == digest);
            let in_window = seq > self.low && seq <= self.high();
            let body = decided.or_else(|| in_window.then(|| self.peek(seq).body(&digest))?);
            if let Some(body) = body {
                let (cluster, epoch) = (self.context.cluster, self.context.epoch);
                let message = SyncMessage::batch(cluster, epoch, body.view, seq, &body.batch);
                bytes += message.len();
                out.send(Recipients::One(from), message);
            }
        }
    }

    /// Takes a batch we asked for.
    pub(super) fn try_batch(&mut self, batch: Proposal, out: &mut Outbox) -> Result<(), Rejection> {
        let (seq, digest) = (batch.seq, batch.batch.digest);
        if seq <= self.low {
            return Err(Rejection::BelowWindow);
        }
        if seq > self.high() {
            return Err(Rejection::AboveWindow);
        }
        let slot = self.slot(seq);
        if slot.wanted() != Some(digest) {
            return Err(Rejection::Duplicate);
        }
        // Asked for by digest, it was vouched for: by a quorum, or by the rules of the view's beginning.
        let batch = Arc::new(Proposal {
            authentic: true,
            ..batch
        });
        slot.keep(batch.clone(), true);
        let chosen = slot.chosen == Some(digest);
        self.persist(Record::Batch(batch), out);
        if chosen && self.active {
            self.install_chosen(seq, digest, out);
        }
        self.decide(out);
        Ok(())
    }

    pub(super) fn take_decisions(&mut self, from: NodeId, decisions: &[BatchRef], out: &mut Outbox) {
        let weak = match active(Mutant::OneDecisionBelieved) {
            true => 1,
            false => self.context.quorum.weak(),
        };
        if from == self.context.node || from.index() >= self.context.quorum.n() {
            return;
        }
        let mut any = false;
        for decision in decisions.iter().take(STATUS_SLOTS) {
            let (seq, digest) = (decision.seq(), decision.digest());
            if seq <= self.decided || seq > self.high() {
                continue;
            }
            let view = self.view;
            let slot = self.slot(seq);
            if let Err(reason) = slot.decisions.add(from, digest) {
                if reason.is_misbehaviour() {
                    out.push(crate::smr::protocol::Effect::Rejected(Rejected {
                        from,
                        view,
                        seq,
                        reason,
                    }));
                }
                continue;
            }
            if slot.outcome.is_none() && slot.decisions.count(&digest) >= weak {
                slot.outcome = Some(digest);
                any = true;
            }
        }
        if any {
            self.resend.catching_up = true;
            self.decide(out);
            self.fetch_wanted(out);
        }
    }
}
