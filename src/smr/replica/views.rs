//! Views that are left and begin, as the orchestrator sees them.

use super::{ExecutionPhase, Replica, Stack};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::types::{ClientId, Time, View};
use crate::smr::view_transfer::ViewTransferProtocol;

impl<S: Stack> Replica<S> {
    /// Which protocol is at work.
    #[must_use]
    pub fn phase(&self) -> ExecutionPhase {
        match self.view_transfer.is_active() {
            true => ExecutionPhase::OrderProtocol,
            false => ExecutionPhase::ViewTransferProtocol,
        }
    }

    /// [`ExecutionPhase::ViewTransferProtocol`] begins.
    pub(super) fn leave_view(&mut self, now: Time, view: View) {
        if view <= self.ordering.view() {
            return;
        }
        self.counters.view_changes += 1;
        let evidence = self.ordering.leave_view(view);
        self.name_disputed(now);
        let ended = self.ends_abstention(view);
        self.view_transfer
            .on_view_left(now, view, evidence, &mut self.outbox);
        self.dispatch_effects(now);
        self.mark_abstention_over(ended);
    }

    /// [`ExecutionPhase::OrderProtocol`] begins. What was proposed in the last view may be lost: it is queued again, here or
    /// at the new leader.
    pub(super) fn enter_view(&mut self, now: Time, view: View) {
        let Some(start) = self.view_transfer.take_start() else {
            debug_assert!(
                false,
                "a view transfer has a start for each view that it has begin"
            );
            return;
        };
        self.counters.views_entered += 1;
        let ended = self.ends_abstention(view);
        self.mark_abstention_over(ended);
        self.ordering.enter_view(now, &start, &mut self.outbox);
        self.dispatch_effects(now);
        self.pool.return_in_flight();
        self.name_disputed(now);
        let must_sign: Vec<ClientId> = self.disputes.must_sign().collect();
        must_sign
            .into_iter()
            .for_each(|client| self.drop_unsigned(client));
        let forwarded = match self.ordering.is_leading() {
            true => Vec::new(),
            false => self.pending_frames(),
        };
        self.forwarding.on_view_begins(forwarded);
    }
}
