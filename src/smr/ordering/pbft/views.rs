//! Leaving a view and beginning one (§4.4).

use super::slot::Slot;
use super::{Pbft, ViewEvidence, ViewStart, records};
use crate::smr::messages::{BatchRef, SlotDigest, SyncMessage};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{Outbox, Recipients, Record};
use crate::smr::types::{Digest, NodeId, SeqNo, View};

impl Pbft {
    pub(super) fn leave(&mut self, next: View) -> ViewEvidence {
        debug_assert!(next > self.view, "views only grow");
        if active(Mutant::OldViewVoted) {
            return self.carried();
        }
        self.view = next;
        self.active = false;
        self.carried()
    }

    /// h with its proof, P and Q.
    pub(super) fn carried(&self) -> ViewEvidence {
        let mut evidence = ViewEvidence {
            stable: self.stable,
            proof: self.proof.clone(),
            prepared: Vec::new(),
            pre_prepared: Vec::new(),
        };
        let forgets = active(Mutant::PreparedForgotten);
        let first = self.stable.seq.max(self.low).next();
        for number in first.get()..=self.high().get() {
            let seq = SeqNo::new(number);
            let slot = self.peek(seq);
            if let (Some((view, digest)), false) = (slot.last_prepared(), forgets) {
                evidence.prepared.push(SlotDigest::new(seq, &digest, view));
            }
            evidence.pre_prepared.extend(slot.pre_prepared().placed(seq));
        }
        // Our window may end before the stable checkpoint, if we lack decisions: what that covers is in no
        // view change.
        let before = self.high().max(self.stable.seq);
        let last = self.stable.seq.plus(self.context.window);
        let ahead = self.announced_ahead.iter();
        for (seq, entries) in ahead.filter(|(seq, _)| **seq > before && **seq <= last) {
            evidence.pre_prepared.extend(entries.placed(*seq));
        }
        if active(Mutant::PrePreparedForgotten) {
            evidence.pre_prepared.clear();
        }
        evidence
    }

    pub(super) fn enter(&mut self, start: &ViewStart, out: &mut Outbox) {
        self.begin(start);
        if start.stable.seq > self.stable.seq {
            self.adopt_stable(start.stable, start.proof.clone(), out);
        }
        self.install_backlog(out);
        self.fetch_wanted(out);
        self.has_moved = true;
    }

    /// Notes that a view begins, and the batches it begins with.
    pub(super) fn begin(&mut self, start: &ViewStart) {
        debug_assert!(start.view >= self.view, "views only grow");
        self.view = start.view;
        self.active = true;
        self.slots.iter_mut().for_each(Slot::begin_view);
        self.undecided_bytes = 0;
        self.view_floor = start.last();
        self.proposed = start.last();
        self.new_view_backlog.clear();
        let places = (1..).map(|distance| start.stable.seq.plus(distance));
        let chosen = places.zip(start.chosen.iter().copied());
        self.new_view_backlog
            .extend(chosen.filter(|(seq, _)| *seq > self.low));
        if self.leader() == self.context.node {
            self.announce();
        }
        self.new_view_backlog.reverse();
    }

    /// The view that begins is ours: our NEW-VIEW was our pre-prepare of all that it chose, whether we have
    /// the batches or not. The others prepare without a further word of ours, so it has to be in Q: else too
    /// few might have it there (A2).
    fn announce(&mut self) {
        for (seq, digest) in &self.new_view_backlog {
            let entries = self.announced_ahead.entry(*seq).or_default();
            entries.add(self.view, *digest, false, None);
        }
    }

    /// What was announced of places that are in the window now becomes theirs.
    pub(super) fn reach_announced(&mut self) {
        let (low, high, stable) = (self.low, self.high(), self.stable.seq);
        while let Some(first) = self.announced_ahead.first_entry()
            && *first.key() <= high.max(stable)
        {
            let (seq, entries) = first.remove_entry();
            if seq > low && seq <= high {
                self.slot(seq).take_pre_prepared(&entries);
            }
        }
    }

    /// Of Q what no record about its place shows: the new view that does is not written again for ever.
    pub(super) fn announced_records(&self) -> Vec<Record> {
        if active(Mutant::AnnouncedForgotten) {
            return Vec::new();
        }
        let places = (self.low.get() + 1..=self.high().get()).map(SeqNo::new);
        let inside = places.flat_map(|seq| self.peek(seq).pre_prepared().unlogged(seq));
        let ahead = self.announced_ahead.iter();
        let ahead = ahead.flat_map(|(seq, entries)| entries.unlogged(*seq));
        inside.chain(ahead).map(records::announced).collect()
    }

    pub(super) fn next_ahead(&mut self) -> Option<(SeqNo, Digest)> {
        let high = self.high();
        self.new_view_backlog.pop_if(|(seq, _)| *seq <= high)
    }

    /// Puts the batches the view began with into their slots, as far as the window reaches. Nothing is said
    /// about them after the view was left.
    pub(super) fn install_backlog(&mut self, out: &mut Outbox) {
        self.reach_announced();
        while let Some((seq, digest)) = self.next_ahead() {
            if seq <= self.low {
                continue;
            }
            self.slot(seq).chosen = Some(digest);
            if self.active {
                self.install_chosen(seq, digest, out);
            }
        }
    }

    /// Starts the view's batch of a place, if its frames are at hand.
    pub(super) fn install_chosen(&mut self, seq: SeqNo, digest: Digest, out: &mut Outbox) {
        let view = self.view;
        let slot = self.slot(seq);
        if slot.proposal.is_none() {
            slot.proposal = slot.proposal_of(view, seq, &digest);
        }
        self.advance(seq, out);
    }

    /// Asks f+1 peers for the batches we know by digest only: one of them is correct. Who is asked turns with
    /// each call.
    pub(super) fn fetch_wanted(&mut self, out: &mut Outbox) {
        let wanted: Vec<BatchRef> = (self.decided.next().get()..=self.high().get())
            .map(SeqNo::new)
            .filter_map(|seq| Some(BatchRef::new(seq, &self.peek(seq).wanted()?)))
            .take(super::resend::FETCHED_AT_ONCE)
            .collect();
        if wanted.is_empty() || active(Mutant::FetchSkipped) {
            return;
        }
        let (n, node) = (self.context.quorum.n(), self.context.node);
        let turn = self.resend.next_turn();
        let peers = (0..n)
            .map(|step| NodeId::new(((node.index() + 1 + turn + step) % n) as u16))
            .filter(|peer| *peer != node);
        for peer in peers.take(self.context.quorum.weak()) {
            let message = SyncMessage::FetchBatches(wanted.clone());
            let message = message.encode(self.context.cluster, self.context.epoch);
            out.send(Recipients::One(peer), message);
        }
    }
}
