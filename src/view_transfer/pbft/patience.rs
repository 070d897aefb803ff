//! How long a replica waits before it asks for another leader.

use std::time::Duration;

use crate::types::Time;
use crate::view_transfer::{Proven, Waiting};

/// The waiting of one replica: for progress in a view, and for a view to begin. Each view change without progress in
/// between doubles it, up to a cap; progress sets it back (§4.5.2: so that some correct leader finally has enough time).
#[derive(Debug)]
pub(super) struct Patience {
    base: Duration,
    max: Duration,
    now: Duration,
    /// A view change was started since the last progress.
    tried: bool,
    /// Since when requests wait.
    waiting: Waiting,
    /// The request that waited longest when what is pending was shared.
    shared: Option<Time>,
    last_progress: Time,
    entered: Time,
    /// Whether the progress timer runs.
    pub(super) armed: bool,
}

impl Patience {
    pub(super) fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            now: base,
            tried: false,
            waiting: Waiting::default(),
            shared: None,
            last_progress: Time::START,
            entered: Time::START,
            armed: false,
        }
    }

    /// Another view is asked for: how long it may take to begin.
    pub(super) fn try_view(&mut self) -> Duration {
        if self.tried {
            self.now = self.now.saturating_mul(2).min(self.max);
        }
        self.tried = true;
        self.now
    }

    pub(super) fn timeout(&self) -> Duration {
        self.now
    }

    pub(super) fn set_waiting(&mut self, waiting: Waiting) {
        self.waiting = waiting;
    }

    pub(super) fn on_progress(&mut self, now: Time) {
        self.last_progress = now;
        self.tried = false;
        self.now = self.base;
    }

    /// There is something to execute: nobody waits for the leader yet. No progress, or view changes that fail would not take longer.
    pub(super) fn on_executing(&mut self, now: Time) {
        self.last_progress = now;
    }

    pub(super) fn on_entered(&mut self, now: Time) {
        self.entered = now;
    }

    /// When the leader is suspected, if nothing is executed until then: a full timeout after the latest of the
    /// request's arrival, the last execution, and the beginning of the view. So a loaded replica that goes on executing
    /// never suspects anybody, however long its queue.
    ///
    /// Only a request that proves itself to everybody speaks against a leader: MACs may convince those alone whom a client chose. Of a client that was asked
    /// for a signature when half of the time was over, the leader has the other half.
    pub(super) fn deadline(&self) -> Option<Time> {
        let Proven { since, at } = self.waiting.proven?;
        Some(self.full_wait(since).max(at.after(self.now / 2)))
    }

    fn full_wait(&self, since: Time) -> Time {
        since.max(self.last_progress).max(self.entered).after(self.now)
    }

    /// When there is something to do next if nothing is executed until then: to share what is pending, or to suspect the leader.
    pub(super) fn next(&self) -> Option<Time> {
        self.share_at().or(self.deadline())
    }

    /// Half the time before the leader is suspected, once for each request that waits longest: if only this replica has it, the others have the
    /// other half to see it ordered, or to suspect the leader as well.
    fn share_at(&self) -> Option<Time> {
        let oldest = self
            .waiting
            .oldest
            .filter(|_| self.shared != self.waiting.oldest)?;
        Some(Time::START.after(self.full_wait(oldest).since(Time::START) - self.now / 2))
    }

    /// Whether what is pending is to be shared now.
    pub(super) fn begins_to_share(&mut self, now: Time) -> bool {
        let begins = self.share_at().is_some_and(|at| at <= now);
        if begins {
            self.shared = self.waiting.oldest;
        }
        begins
    }

    /// How long a request has waited in this view that may be held against the leader.
    pub(super) fn proven_age(&self, now: Time) -> Duration {
        let at = self.waiting.proven.map(|proven| proven.at);
        at.map_or(Duration::ZERO, |at| now.since(at.max(self.entered)))
    }

    /// How long any request has waited in this view.
    pub(super) fn oldest_age(&self, now: Time) -> Duration {
        let oldest = self.waiting.oldest;
        oldest.map_or(Duration::ZERO, |oldest| now.since(oldest.max(self.entered)))
    }
}
