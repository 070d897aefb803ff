use crate::smr::protocol::{Rejected, Rejection};

/// What one peer sent that no correct replica sends.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offences {
    /// How many messages.
    pub count: u64,
    /// The last of them.
    pub last: Option<Rejected>,
}

/// What a replica counted since it started. Plain numbers: the shell publishes them.
#[derive(Debug, Clone, Default)]
pub struct ReplicaCounters {
    /// Client frames taken into the pool.
    pub frames_queued: u64,
    /// Client frames that were waiting already.
    pub frames_duplicate: u64,
    /// Client frames refused by the pool.
    pub frames_refused: u64,
    /// Batches this replica proposed.
    pub batches_proposed: u64,
    /// Prepares and commits this replica cast.
    pub votes_cast: u64,
    /// Decisions given to execution.
    pub decisions: u64,
    /// Operations executed.
    pub operations_executed: u64,
    /// Views this replica left, asking for another.
    pub view_changes: u64,
    /// Views that began here.
    pub views_entered: u64,
    /// Client frames passed on to the leader.
    pub frames_forwarded: u64,
    /// Log transfers begun.
    pub log_transfers: u64,
    /// Decisions that came by log transfer.
    pub decisions_transferred: u64,
    /// Decisions that the own log did not give back, and peers did.
    pub decisions_repaired: u64,
    /// States installed that came from others.
    pub states_transferred: u64,
    /// Chunks of states that were not what the certificate covers: a donor lied.
    pub chunks_refused: u64,
    /// Pieces of states that were taken out of own snapshots.
    pub pieces_reused: u64,
    /// Own checkpoints that a quorum's contradicted.
    pub divergences: u64,
    /// Checkpoints that became stable.
    pub checkpoints_stable: u64,
    /// Replicas' messages not listened to because too much waited for the disk.
    pub messages_backpressured: u64,
    /// Client frames that made room for lower ones of their clients.
    pub frames_crowded_out: u64,
    /// Client frames that waited long and were passed on to the leader once more.
    pub frames_urged: u64,
    /// Frames proposed whose MACs failed here.
    pub frames_disputed: u64,
    /// Clients that had to sign from then on, for a while.
    pub signatures_required: u64,
    /// Clients asked for a signature that can be held against the leader.
    pub proofs_asked: u64,
    /// Replicas' messages refused, by [`Rejection::index`].
    pub rejected: [u64; Rejection::ALL.len()],
}

impl ReplicaCounters {
    pub(super) fn reject(&mut self, reason: Rejection) {
        self.rejected[reason.index()] += 1;
    }

    /// Messages refused that no correct replica sends.
    #[must_use]
    pub fn misbehaviour(&self) -> u64 {
        Rejection::ALL
            .iter()
            .filter(|r| r.is_misbehaviour())
            .map(|r| self.rejected[r.index()])
            .sum()
    }
}
