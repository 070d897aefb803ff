//! Clients' frames on their way into the pool, and what their clients are told of them.

use super::forwarding::OVERDUE;
use super::mac_disputes::Change;
use super::{Action, ExecutionPhase, Replica, Stack};
use crate::smr::messages::{Frame, FrameId, FrameKey, RefusalReason};
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::preprocessing::Offer;
use crate::smr::protocol::Timer;
use crate::smr::types::{ClientId, SeqNo, Time};

impl<S: Stack> Replica<S> {
    /// A client's frame arrived by its own link, checked by preprocessing. What it costs to answer is its client's own.
    pub fn on_frame(&mut self, now: Time, frame: Frame) {
        let id = frame.id();
        let is_signed = frame.is_signed();
        match self.offer(now, frame, true) {
            // What is signed has nothing to prove: there is no room for it.
            Offer::Queued | Offer::Duplicate | Offer::OverQuota
                if !is_signed && self.asks_for_proof(now, id.key.client) =>
            {
                self.ask_for_proof(id);
            }
            Offer::Queued | Offer::Duplicate => {}
            Offer::AlreadyDecided if active(Mutant::ReplyAgainSkipped) => {}
            Offer::AlreadyDecided => self.actions.push(Action::ReplyAgain(id)),
            Offer::Stale => self.refuse(id, RefusalReason::Stale),
            Offer::SessionEnded => self.refuse(id, RefusalReason::SessionEnded),
            Offer::OverQuota => self.refuse(id, RefusalReason::Overloaded),
        }
    }

    /// A frame that another replica passed on arrived, checked by preprocessing. Its client hears nothing of it: a faulty replica could pass
    /// on without end what others would have to answer, and send its answers to clients itself.
    pub fn on_passed_on(&mut self, now: Time, frame: Frame) {
        let id = frame.id();
        let offer = self.offer(now, frame, false);
        if offer == Offer::AlreadyDecided && active(Mutant::PassedOnAnswered) {
            self.actions.push(Action::ReplyAgain(id));
        }
    }

    /// Takes a frame into the pool, and has it passed on to the leader: a client sends to the leader alone until it loses patience with it.
    fn offer(&mut self, now: Time, frame: Frame, is_own: bool) -> Offer {
        // What is pending when a view begins is passed on then; what waits behind an earlier frame of its client leaves the way to that.
        let passes_on = !self.ordering.is_leading()
            && self.phase() == ExecutionPhase::OrderProtocol
            && self.forwarding.has_room()
            && !self.pool.waits_for_earlier(now, &frame, OVERDUE);
        let forwarded = passes_on.then(|| frame.clone());
        let offer = self.pool.offer(now, frame);
        let is_new = offer == Offer::Queued || (offer == Offer::Duplicate && is_own);
        if is_new && let Some(frame) = forwarded {
            self.forwarding.pass(now, frame);
        }
        match offer {
            Offer::Queued => self.counters.frames_queued += 1,
            Offer::Duplicate => self.counters.frames_duplicate += 1,
            Offer::AlreadyDecided | Offer::Stale | Offer::SessionEnded | Offer::OverQuota => {}
        }
        self.counters.frames_crowded_out = self.pool.crowded_out();
        offer
    }

    fn refuse(&mut self, frame: FrameId, reason: RefusalReason) {
        self.counters.frames_refused += 1;
        self.actions.push(Action::Refuse { frame, reason });
    }

    /// A frame was proposed for this place whose MAC failed here.
    pub fn on_disputed(&mut self, key: FrameKey, seq: SeqNo) {
        self.counters.frames_disputed += 1;
        self.disputes.add(key, seq);
    }

    /// The view is lost. Perhaps for frames whose MACs convinced some replicas and not enough of them.
    pub(super) fn name_disputed(&mut self, now: Time) {
        let (pool, decided) = (&self.pool, self.ordering.decided());
        let is_decided = |key, seq| seq <= decided || pool.is_decided(key);
        if self.disputes.on_view_lost(now, is_decided) {
            // The next leader has to know before it proposes the same again.
            self.timers.set(Timer::Status, now);
        }
    }

    /// Who has to sign begins to, and who had to does not have to any more.
    pub(super) fn settle_disputes(&mut self, now: Time) {
        if active(Mutant::DisputesIgnored) {
            return;
        }
        for Change { client, must_sign } in self.disputes.settle(now) {
            self.actions.push(Action::RequireSignature { client, must_sign });
            if must_sign {
                self.counters.signatures_required += 1;
                self.drop_unsigned(client);
            }
        }
    }

    /// What a client has pending with MACs needs a signature.
    pub(super) fn drop_unsigned(&mut self, client: ClientId) {
        for frame in self.pool.drop_unsigned(client) {
            self.refuse(frame, RefusalReason::MustSign);
        }
    }
}
