//! What a control shard counts, and how often it speaks of it.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::runtime::net::hello::HandshakeRefusal;

const REFUSALS: usize = HandshakeRefusal::ALL.len();

/// The counters of one control shard. They order nothing, hence relaxed throughout.
#[derive(Debug, Default)]
pub struct ControlCounters {
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    links_accepted: AtomicU64,
    links_dialled: AtomicU64,
    unreachable: AtomicU64,
    unresolved: AtomicU64,
    refused: [AtomicU64; REFUSALS],
    refused_by_peer: [AtomicU64; REFUSALS],
}

impl ControlCounters {
    /// Connections taken from the listening socket.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Failed attempts to take one: out of descriptors or memory, or gone before it was taken.
    #[must_use]
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Relaxed)
    }

    /// Links that others dialled and that came up.
    #[must_use]
    pub fn links_accepted(&self) -> u64 {
        self.links_accepted.load(Relaxed)
    }

    /// Links that we dialled and that came up.
    #[must_use]
    pub fn links_dialled(&self) -> u64 {
        self.links_dialled.load(Relaxed)
    }

    /// Attempts at a peer whose address did not answer.
    #[must_use]
    pub fn unreachable(&self) -> u64 {
        self.unreachable.load(Relaxed)
    }

    /// Attempts at a peer whose address did not resolve, or who has no listed key.
    #[must_use]
    pub fn unresolved(&self) -> u64 {
        self.unresolved.load(Relaxed)
    }

    /// Accepted connections that we refused for this reason.
    #[must_use]
    pub fn refused(&self, refusal: HandshakeRefusal) -> u64 {
        self.refused[refusal.index()].load(Relaxed)
    }

    /// Dialled connections that ended for this reason: the peer's verdict, or ours on what it said.
    #[must_use]
    pub fn refused_by_peer(&self, refusal: HandshakeRefusal) -> u64 {
        self.refused_by_peer[refusal.index()].load(Relaxed)
    }

    pub(super) fn on_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    pub(super) fn on_accept_error(&self) {
        self.accept_errors.fetch_add(1, Relaxed);
    }

    pub(super) fn on_link(&self, dialled: bool) {
        let counter = if dialled {
            &self.links_dialled
        } else {
            &self.links_accepted
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn on_refused(&self, refusal: HandshakeRefusal) {
        self.refused[refusal.index()].fetch_add(1, Relaxed);
    }

    pub(super) fn on_refused_by_peer(&self, refusal: HandshakeRefusal) {
        self.refused_by_peer[refusal.index()].fetch_add(1, Relaxed);
    }

    pub(super) fn on_unreachable(&self) {
        self.unreachable.fetch_add(1, Relaxed);
    }

    pub(super) fn on_unresolved(&self) {
        self.unresolved.fetch_add(1, Relaxed);
    }
}

/// Lets one line per interval through and counts the others, so that a flood of refusals is no flood of logs.
#[derive(Debug)]
pub(super) struct LogGate {
    interval: Duration,
    last: Cell<Option<Instant>>,
    held_back: Cell<u64>,
}

impl LogGate {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            last: Cell::new(None),
            held_back: Cell::new(0),
        }
    }

    /// How many lines were held back since the last one, if a line may be written at `now`.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        match self.last.get() {
            Some(last) if now.saturating_duration_since(last) < self.interval => {
                self.held_back.set(self.held_back.get() + 1);
                None
            }
            _ => {
                self.last.set(Some(now));
                Some(self.held_back.replace(0))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_passes_one_line_per_interval_and_counts_the_rest() {
        let gate = LogGate::new(Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(gate.pass(start), Some(0));
        for ms in 1..=5 {
            assert_eq!(gate.pass(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(gate.pass(start + Duration::from_secs(1)), Some(5));
        assert_eq!(gate.pass(start + Duration::from_secs(2)), Some(0));
    }

    #[test]
    fn refusals_are_counted_by_kind_and_by_side() {
        let counters = ControlCounters::default();
        counters.on_refused(HandshakeRefusal::WrongKey);
        counters.on_refused_by_peer(HandshakeRefusal::Capacity);
        assert_eq!(counters.refused(HandshakeRefusal::WrongKey), 1);
        assert_eq!(counters.refused(HandshakeRefusal::Capacity), 0);
        assert_eq!(counters.refused_by_peer(HandshakeRefusal::Capacity), 1);
    }
}
