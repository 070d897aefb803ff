use std::sync::Arc;

use bytes::Bytes;

use super::consensus_record::record_refusal;
use super::phase_timer::PhaseTimer;
use crate::runtime::evidence::{EvidenceKind, Exhibit};
use crate::runtime::flight::{FlightEvent, FlightKind, FlightPen};
use crate::runtime::metrics::Metrics;
use crate::runtime::shard::faults::Faults;
use crate::runtime::shard::lanes::{LinkSender, Outgoing, Work, answer, any_blocked};
use crate::runtime::storage::AbstentionMark;
use crate::runtime::storage::snapshot_transfer::SnapshotTransferHandle;
use crate::smr::decision_log::LoggedRange;
use crate::smr::membership::EpochHistory;
use crate::smr::messages::{CheckpointClaim, Family, FrameId, FrameKey, Proposal};
use crate::smr::node::{ConsensusPort, LogEntry};
use crate::smr::preprocessing::ClientDirectory;
use crate::smr::protocol::{LogCut, Recipients, Record, SnapshotTask};
use crate::smr::types::{ClientId, Digest, Lsn, Peer, SeqNo, Time};

/// Chunks of a snapshot that are read ahead of execution.
const INSTALL_CHUNKS: usize = 8;

/// Where decisions and messages go.
pub(super) struct Port {
    /// When this step began.
    pub now: Time,
    pub work: LinkSender<Work>,
    pub log: Option<LinkSender<LogEntry>>,
    pub outgoing: Vec<LinkSender<Outgoing>>,
    pub clients: ClientDirectory,
    /// The snapshots of checkpoints that are transferred; `None` when nothing is kept on disk.
    pub snapshot_transfer: Option<SnapshotTransferHandle>,
    /// Lies in the data directory while this replica abstains.
    pub mark: Option<AbstentionMark>,
    /// A demonstration's lies, if this replica tells any.
    pub faults: Option<Faults>,
    pub pen: FlightPen,
    pub timer: PhaseTimer,
    pub metrics: Arc<Metrics>,
}

impl Port {
    fn record(&self, kind: FlightKind, seq: SeqNo, number: u64) {
        let event = FlightEvent::of(kind).seq(seq).numbers(number, 0);
        self.pen.record(self.now, event);
    }

    pub fn is_blocked(&mut self) -> bool {
        let outgoing = any_blocked(&mut self.outgoing);
        let log = self.log.as_mut().is_some_and(LinkSender::is_blocked);
        self.work.is_blocked() | outgoing | log
    }

    pub fn has_overflow(&self) -> bool {
        self.work.has_overflow()
            || self.log.as_ref().is_some_and(LinkSender::has_overflow)
            || self.outgoing.iter().any(LinkSender::has_overflow)
    }

    pub fn ring(&mut self) {
        self.work.ring();
        if let Some(log) = &mut self.log {
            log.ring();
        }
        self.outgoing.iter_mut().for_each(LinkSender::ring);
    }

    /// Each network role has links to some of the replicas.
    fn tell(&mut self, family: Family, to: Recipients, message: &Bytes) {
        if let Some(faults) = &mut self.faults {
            return faults.say(self.now, to, message, &mut self.outgoing);
        }
        for outgoing in &mut self.outgoing {
            let message = message.clone();
            outgoing.push(Outgoing::Replicas { family, to, message });
        }
    }

    fn push_log(&mut self, entry: LogEntry) {
        if let Some(log) = &mut self.log {
            log.push(entry);
        }
    }
}

impl ConsensusPort for Port {
    fn send(&mut self, to: Recipients, message: Bytes) {
        self.tell(Family::of(&message), to, &message);
    }

    fn pass_on(&mut self, to: Recipients, message: Bytes) {
        self.tell(Family::Application, to, &message);
    }

    fn answer(&mut self, frame: FrameKey, message: Bytes) {
        answer(&mut self.outgoing, frame, message);
    }

    fn execute(&mut self, decision: Arc<Proposal>) {
        let metrics = &self.metrics;
        let times = self.timer.on_released(&decision, || metrics.measures.now());
        self.work.push(Work::Decision(decision, times));
    }

    fn reply_again(&mut self, frame: FrameId) {
        self.work.push(Work::ReplyAgain(frame));
    }

    fn serve_reads(&mut self, from: Option<SeqNo>) {
        self.work.push(Work::ServeReads(from));
    }

    fn install(&mut self, seq: SeqNo) {
        if let Some(snapshot_transfer) = &self.snapshot_transfer {
            let (sender, chunks) = std::sync::mpsc::sync_channel(INSTALL_CHUNKS);
            snapshot_transfer.stream(seq, sender);
            self.work.push(Work::Install(chunks));
        }
    }

    fn log(&mut self, lsn: Lsn, record: Record) {
        let metrics = &self.metrics;
        self.timer.on_record(&record, || metrics.measures.now());
        self.push_log(LogEntry::Record { lsn, record });
    }

    fn cut_log(&mut self, cut: LogCut) {
        self.push_log(LogEntry::Cut(cut));
    }

    fn read_log(&mut self, range: LoggedRange) {
        self.push_log(LogEntry::Read(range));
    }

    fn snapshot(&mut self, task: SnapshotTask) {
        if let Some(snapshot_transfer) = &self.snapshot_transfer {
            snapshot_transfer.ask(task);
        }
    }

    fn require_signature(&mut self, client: ClientId, must_sign: bool) {
        tracing::info!(%client, must_sign, "a client's MACs are disputed");
        self.clients.require_signature(client, must_sign);
        let client = Peer::Client(client);
        let event = FlightEvent::of(FlightKind::MustSign).with(Some(client));
        self.pen.record(self.now, event.numbers(u64::from(must_sign), 0));
        if must_sign {
            let disputed = (client, EvidenceKind::MacsDisputed, 1);
            record_refusal(&self.pen, &self.metrics, self.now, disputed, Exhibit::default());
        }
    }

    fn abstention_over(&mut self) {
        tracing::warn!("this replica votes again: what it had forgotten does not matter any more");
        let mark = self.mark.take();
        // Nobody waits for it, and the disk must not hold up this shard.
        std::thread::spawn(move || {
            if let Some(Err(error)) = mark.map(|mark| mark.remove()) {
                tracing::error!(%error, "it abstains once more after its next start");
            }
        });
    }

    fn stable(&mut self, claim: CheckpointClaim) {
        tracing::debug!(seq = %claim.seq, "checkpoint stable");
        self.record(FlightKind::CheckpointStable, claim.seq, beginning(&claim.digest));
    }

    fn diverged(&mut self, stable: CheckpointClaim, ours: CheckpointClaim) {
        tracing::error!(
            ?stable,
            ?ours,
            "this replica's state is not the one a quorum signed"
        );
        self.record(FlightKind::Diverged, stable.seq, 0);
    }

    fn fell_behind(&mut self, stable: SeqNo) {
        tracing::info!(%stable, "this replica fell behind");
        self.record(FlightKind::FellBehind, stable, 0);
    }

    fn epoch_ended(&mut self, history: EpochHistory) {
        // No membership is given to a replica here, and so none changes.
        let epoch = history.membership().head().epoch();
        tracing::error!(%epoch, "the epoch has ended");
    }
}

/// The first bytes of a digest, as they are written in hexadecimal.
pub(super) fn beginning(digest: &Digest) -> u64 {
    let first = digest.as_bytes().first_chunk();
    first.map_or(0, |first| u64::from_be_bytes(*first))
}
