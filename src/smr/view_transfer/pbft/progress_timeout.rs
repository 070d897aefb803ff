//! How long a replica waits before it asks for another leader.

use std::time::Duration;

use crate::smr::mutants::{Mutant, active};
use crate::smr::types::Time;
use crate::smr::view_transfer::{Proven, Waiting};

/// In each period with waits the timeout loses this share of what it has beyond twice the longest wait that
/// is remembered.
const DECAY: u32 = 8;
/// And that one this share of itself.
const FADE: u32 = 256;

/// The waiting of one replica: for progress in a view, and for a view to begin.
///
/// **It grows** when a view is left that made no progress, or whose waits that did end well had taken more
/// than half of it: to twice as much, up to a cap (§4.5.2: so that some correct leader finally has enough
/// time). The second is so because the paper's rule alone never learns: where replicas are far apart, a new
/// view soon executes what it began with, and the timeout that the next request needs would be forgotten at
/// once, view after view.
///
/// **It shrinks** towards twice the longest wait of the view, which fades in minutes, and never below what is
/// configured; and only in periods with waits that ended well, for nothing else shows that less is enough.
/// Seconds are too short to go by: most waits are much shorter than the longest, and a timeout for those
/// would be too short again and again.
///
/// A leader that makes others wait for as long as it may cannot raise it, but keep it where it is, and double
/// it by being replaced: once for each turn of a faulty replica.
#[derive(Debug)]
pub(super) struct ProgressTimeout {
    base: Duration,
    max: Duration,
    now: Duration,
    /// Something was executed in this view.
    progressed: bool,
    /// The longest wait in this view that ended with something to execute, as far as it has not faded.
    longest: Duration,
    /// There was such a wait in this period.
    waited: bool,
    /// Since when requests wait.
    waiting: Waiting,
    /// The request that waited longest when what is pending was shared.
    shared: Option<Time>,
    last_progress: Time,
    entered: Time,
    /// Whether the progress timer runs.
    pub(super) armed: bool,
}

impl ProgressTimeout {
    pub(super) fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            now: base,
            progressed: true,
            longest: Duration::ZERO,
            waited: false,
            waiting: Waiting::default(),
            shared: None,
            last_progress: Time::START,
            entered: Time::START,
            armed: false,
        }
    }

    /// Another view is asked for, or entered unasked: how long it may take to begin, and then to execute
    /// something.
    pub(super) fn try_view(&mut self) -> Duration {
        let is_tight = self.longest.saturating_mul(2) > self.now && !active(Mutant::TimeoutForgotten);
        if !self.progressed || is_tight {
            self.now = self.now.saturating_mul(2).min(self.max);
        }
        self.progressed = false;
        (self.longest, self.waited) = (Duration::ZERO, false);
        self.now
    }

    /// A period ended.
    pub(super) fn end_period(&mut self) {
        if std::mem::take(&mut self.waited) {
            let enough = self.longest.saturating_mul(2).clamp(self.base, self.now);
            self.now -= (self.now - enough) / DECAY;
            self.longest -= self.longest / FADE;
        }
    }

    /// How much longer than configured a view is given, because that proved necessary.
    pub(super) fn learnt(&self) -> Duration {
        self.now - self.base
    }

    pub(super) fn timeout(&self) -> Duration {
        self.now
    }

    pub(super) fn set_waiting(&mut self, waiting: Waiting) {
        self.waiting = waiting;
    }

    /// Operations were executed; `in_view` says whether a view has begun and was not left.
    pub(super) fn on_progress(&mut self, now: Time, in_view: bool) {
        self.end_wait(now, in_view);
        self.progressed |= in_view;
        if active(Mutant::TimeoutForgotten) {
            self.now = self.base;
        }
    }

    /// There is something to execute: nobody waits for the leader yet. No progress, or view changes that fail
    /// would not take longer.
    pub(super) fn on_executing(&mut self, now: Time, in_view: bool) {
        self.end_wait(now, in_view);
    }

    fn end_wait(&mut self, now: Time, in_view: bool) {
        if let Some(oldest) = self.waiting.oldest.filter(|_| in_view) {
            let waited = now.since(self.waits_from(oldest));
            self.longest = self.longest.max(waited);
            self.waited = true;
        }
        self.last_progress = now;
    }

    pub(super) fn on_entered(&mut self, now: Time) {
        self.entered = now;
    }

    /// When the leader is suspected, if nothing is executed until then: a full timeout after the latest of
    /// the request's arrival, the last execution, and the beginning of the view. So a loaded replica that
    /// goes on executing never suspects anybody, however long its queue.
    ///
    /// Only a request that proves itself to everybody speaks against a leader: MACs may convince those alone
    /// whom a client chose. Of a client that was asked for a signature when half of the time was over, the
    /// leader has the other half.
    pub(super) fn deadline(&self) -> Option<Time> {
        let Proven { since, at } = self.waiting.proven?;
        Some(self.full_wait(since).max(at.after(self.now / 2)))
    }

    fn full_wait(&self, since: Time) -> Time {
        self.waits_from(since).after(self.now)
    }

    fn waits_from(&self, since: Time) -> Time {
        since.max(self.last_progress).max(self.entered)
    }

    /// When there is something to do next if nothing is executed until then: to share what is pending, or to
    /// suspect the leader.
    pub(super) fn next(&self) -> Option<Time> {
        self.share_at().or(self.deadline())
    }

    /// Half the time before the leader is suspected, once for each request that waits longest: if only this
    /// replica has it, the others have the other half to see it ordered, or to suspect the leader as well.
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
