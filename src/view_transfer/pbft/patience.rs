//! How long a replica waits before it asks for another leader.

use std::time::Duration;

use crate::types::Time;

/// The waiting of one replica: for progress in a view, and for a view to begin. Each view change without progress in
/// between doubles it, up to a cap; progress sets it back (§4.5.2: so that some correct leader finally has enough time).
#[derive(Debug)]
pub(super) struct Patience {
    base: Duration,
    max: Duration,
    now: Duration,
    /// A view change was started since the last progress.
    tried: bool,
    /// When the request that waits longest arrived.
    pending: Option<Time>,
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
            pending: None,
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

    pub(super) fn set_pending(&mut self, oldest: Option<Time>) {
        self.pending = oldest;
    }

    pub(super) fn on_progress(&mut self, now: Time) {
        self.last_progress = now;
        self.tried = false;
        self.now = self.base;
    }

    pub(super) fn on_entered(&mut self, now: Time) {
        self.entered = now;
    }

    /// When the leader is suspected, if nothing is executed until then: a full timeout after the latest of the oldest
    /// request's arrival, the last execution, and the beginning of the view. So a loaded replica that goes on executing
    /// never suspects anybody, however long its queue.
    pub(super) fn deadline(&self) -> Option<Time> {
        let oldest = self.pending?;
        Some(oldest.max(self.last_progress).max(self.entered).after(self.now))
    }

    /// When there is something to do next if nothing is executed until then: to share what is pending, or to suspect the leader.
    pub(super) fn next(&self) -> Option<Time> {
        self.share_at().or(self.deadline())
    }

    /// Half the time before the leader is suspected, once for each request that waits longest: if only this replica has it, the others have the
    /// other half to see it ordered, or to suspect the leader as well.
    fn share_at(&self) -> Option<Time> {
        let deadline = self.deadline().filter(|_| self.shared != self.pending)?;
        Some(Time::START.after(deadline.since(Time::START) - self.now / 2))
    }

    /// Whether what is pending is to be shared now.
    pub(super) fn begins_to_share(&mut self, now: Time) -> bool {
        let begins = self.share_at().is_some_and(|at| at <= now);
        if begins {
            self.shared = self.pending;
        }
        begins
    }

    /// How long the oldest request has waited in this view.
    pub(super) fn oldest_age(&self, now: Time) -> Duration {
        self.pending
            .map_or(Duration::ZERO, |oldest| now.since(oldest.max(self.entered)))
    }
}
