//! What a replica's counters and gauges are read as: where it stands, and every number by its name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::progress::TransferProgress;
use super::{Metrics, NAMES, Phases};
use crate::runtime::evidence::EvidenceReport;
use crate::runtime::net::framing::FramingError;
use crate::runtime::net::hello::HandshakeRefusal;
use crate::smr::messages::{AdminReply, CheckpointClaim, CheckpointTold};
use crate::smr::preprocessing::FrameRefusal;
use crate::smr::protocol::Rejection;
use crate::smr::replica::{ExecutionPhase, Participation, TransferPhase};
use crate::smr::types::{SeqNo, View};

/// Where a replica stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReplicaStatus {
    /// Its view.
    pub view: View,
    /// The last decision it executed.
    pub executed: SeqNo,
    /// The last decision it ordered.
    pub ordered: SeqNo,
    /// The last decision up to which all that it promised is on disk.
    pub durable: SeqNo,
    /// Its last stable checkpoint.
    pub stable: SeqNo,
    /// Which protocol orders.
    pub execution: ExecutionPhase,
    /// Which transfers run.
    pub transfer: TransferPhase,
    /// How far the state is, while one comes from others.
    pub progress: Option<TransferProgress>,
    /// Whether it takes part in votes.
    pub participation: Participation,
    /// Operations it executed since its start.
    pub operations: u64,
    /// Links with other replicas that are up.
    pub replica_links: u64,
    /// Links with clients that are up.
    pub client_links: u64,
    /// Its last checkpoint: taken, read back at its start, or come from others.
    pub checkpoint: Option<CheckpointClaim>,
}

impl ReplicaStatus {
    /// What it does, in words.
    #[must_use]
    pub fn phase(&self) -> String {
        let does = match (self.progress, self.transfer) {
            (Some(progress), _) => progress.to_string(),
            (None, TransferPhase::NotRunning) => self.execution.to_string(),
            (None, transfer) => transfer.to_string(),
        };
        match self.participation {
            Participation::Full => does,
            abstaining => format!("{abstaining}; {does}"),
        }
    }
}

impl Metrics {
    /// Where the replica stands.
    #[must_use]
    pub fn standing(&self) -> ReplicaStatus {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let Phases {
            execution,
            transfer,
            participation,
            begin,
        } = *self
            .phases
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        ReplicaStatus {
            ordered: SeqNo::new(read(&self.ordered)),
            durable: SeqNo::new(read(&self.durable)),
            execution,
            transfer,
            progress: begin.and_then(|begin| begin.progress(transfer, Instant::now())),
            participation,
            view: self.view(),
            executed: SeqNo::new(read(&self.executed)),
            stable: SeqNo::new(read(&self.stable)),
            operations: read(&self.operations),
            replica_links: read(&counters.replica_links_up)
                .saturating_sub(read(&counters.replica_links_down)),
            client_links: read(&counters.client_links_up).saturating_sub(read(&counters.client_links_down)),
            checkpoint: self.checkpoints().back().copied(),
        }
    }

    /// What an operator is told.
    #[must_use]
    pub fn status(&self) -> AdminReply {
        use std::fmt::Write;
        let standing = self.standing();
        let mut counters = String::new();
        self.visit(|name, value| {
            // Writing to a string does not fail.
            let _ = writeln!(counters, "{name} {value}");
        });
        self.evidence.write_lines(&mut counters);
        let told = |claim: &CheckpointClaim| CheckpointTold {
            seq: claim.seq.get(),
            digest: *claim.digest.as_bytes(),
        };
        let checkpoints = self.checkpoints().iter().map(told).collect();
        AdminReply {
            node: self.node.get(),
            view: standing.view.get(),
            executed: standing.executed.get(),
            ordered: standing.ordered.get(),
            durable: standing.durable.get(),
            phase: standing.phase(),
            transfer_pieces: standing.progress.map_or(0, |progress| progress.pieces as u64),
            transfer_pieces_of: standing.progress.map_or(0, |progress| progress.of as u64),
            transfer_bytes: standing.progress.map_or(0, |progress| progress.bytes),
            transfer_donors: standing.progress.map_or(0, |progress| progress.donors as u64),
            transfer_bytes_per_second: standing
                .progress
                .map_or(0, |progress| progress.bytes_per_second as u64),
            transfer_milliseconds_left: standing
                .progress
                .and_then(|progress| progress.seconds_left)
                .map_or(0, |left| (left * 1e3) as u64),
            stable: standing.stable.get(),
            orders: standing.execution == ExecutionPhase::OrderProtocol,
            transfers: standing.transfer != TransferPhase::NotRunning,
            abstains: standing.participation != Participation::Full,
            waits_for_space: self.counters.log_waits_for_space.load(Ordering::Relaxed) > 0,
            checkpoints,
            operations: standing.operations,
            replica_links: standing.replica_links,
            client_links: standing.client_links,
            counters,
        }
    }

    /// What this replica holds against others, and how many strangers it refused.
    #[must_use]
    pub fn evidence_report(&self) -> EvidenceReport {
        let mut strangers = BTreeMap::new();
        self.visit_refusals(|of, name, count| {
            if of == "handshake" && count > 0 {
                strangers.insert(name, count);
            }
        });
        EvidenceReport {
            peers: self.evidence.rows(),
            strangers,
            missed: self.evidence.missed(),
            clients_forgotten: self.evidence.forgotten(),
        }
    }

    /// Every counter by name.
    pub fn visit(&self, mut visit: impl FnMut(&'static str, u64)) {
        self.visit_counters(&mut visit);
        self.visit_refusals(|_, name, value| visit(name, value));
    }

    /// Every counter by name, but those of refusals by their reasons.
    pub fn visit_counters(&self, mut visit: impl FnMut(&'static str, u64)) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        visit("operations_executed", read(&self.operations));
        visit("decisions", read(&self.decisions));
        visit("protocol_messages", self.measures.protocol_messages());
        visit("batches_proposed", read(&self.batches_proposed));
        visit("frames_queued", read(&self.frames_queued));
        visit("frames_refused_by_pool", read(&self.frames_refused));
        visit("batches_refused", read(&self.batches_refused));
        visit("batches_refused_over_budget", read(&self.batches_over_budget));
        let transfers = [
            "log_transfers",
            "decisions_transferred",
            "decisions_repaired",
            "states_transferred",
            "divergences",
            "chunks_refused",
            "pieces_reused",
        ];
        for (name, counter) in transfers.into_iter().zip(&self.transfers) {
            visit(name, read(counter));
        }
        for (name, counter) in NAMES.into_iter().zip(&self.others) {
            visit(name, read(counter));
        }
        self.counters.read(&mut visit);
    }

    /// Every refusal that is counted by its reason: of what, its name, how many.
    pub fn visit_refusals(&self, mut visit: impl FnMut(&'static str, &'static str, u64)) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for error in FramingError::ALL {
            visit("record", error.name(), read(&self.framing_errors[error.index()]));
        }
        for (name, counter) in FrameRefusal::NAMES.iter().zip(&self.frame_refusals) {
            visit("frame", name, read(counter));
        }
        for refusal in HandshakeRefusal::ALL {
            let count = self.control.get().map_or(0, |control| control.refused(refusal));
            visit("handshake", refusal.name(), count);
        }
        for reason in Rejection::ALL {
            visit("message", reason.name(), read(&self.rejections[reason.index()]));
        }
    }
}
