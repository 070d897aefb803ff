//! Whether this replica has fallen behind, by what f+1 peers say in their statuses.

use std::time::Duration;

use crate::smr::types::{NodeId, SeqNo, Time};

/// A replica so many decisions behind f+1 others has them transferred; fewer come with the next status.
const LAG_DECISIONS: u64 = 32;
/// A gap that does not close for so long is not small, whatever its size.
const GAP_PATIENCE: Duration = Duration::from_secs(1);

/// Where the peers are, and where this replica stands still.
#[derive(Debug)]
pub(super) struct Lag {
    /// f+1.
    weak: usize,
    /// By peer: its last decision, as it says.
    decided: Vec<SeqNo>,
    /// By peer: how many decisions it was behind this replica when it said so. To be looked at alone.
    behind: Vec<u64>,
    /// Our own last decision, and since when.
    moved: (SeqNo, Time),
    /// The end of the window for which peers were asked out of turn last.
    status_requested_at: SeqNo,
}

impl Lag {
    /// For n replicas, of which `weak` hold a correct one.
    pub fn new(n: usize, weak: usize) -> Self {
        Self {
            weak,
            decided: vec![SeqNo::ZERO; n],
            behind: vec![0; n],
            moved: (SeqNo::ZERO, Time::START),
            status_requested_at: SeqNo::ZERO,
        }
    }

    /// The place that f+1 peers have reached, or say so.
    pub fn reached(&self) -> SeqNo {
        let mut decided = self.decided.clone();
        decided.sort_unstable_by(|a, b| b.cmp(a));
        decided.get(self.weak - 1).copied().unwrap_or(SeqNo::ZERO)
    }

    /// How many decisions a peer was behind this replica when it last said how far it is.
    pub fn of(&self, peer: NodeId) -> u64 {
        self.behind.get(peer.index()).copied().unwrap_or(0)
    }

    /// A peer says how far it is; this replica is `here`. Whether decisions have to be transferred.
    pub fn on_status(&mut self, now: Time, from: NodeId, decided: SeqNo, here: SeqNo) -> bool {
        if let Some(known) = self.decided.get_mut(from.index()) {
            *known = decided;
        }
        if let Some(behind) = self.behind.get_mut(from.index()) {
            *behind = here.since(decided);
        }
        let reached = self.reached();
        if self.moved.0 != here || reached <= here {
            self.moved = (here, now);
        }
        let is_stuck = reached > here && now.since(self.moved.1) >= GAP_PATIENCE;
        let is_far = reached > here.plus(LAG_DECISIONS);
        is_far || is_stuck
    }

    /// The window ends here, and peers have what moves it. Whether they are asked at once for the first time,
    /// and not with the next status in its turn.
    pub fn hurries(&mut self, decided: SeqNo) -> bool {
        let hurries = self.status_requested_at < decided;
        self.status_requested_at = self.status_requested_at.max(decided);
        hurries
    }
}
