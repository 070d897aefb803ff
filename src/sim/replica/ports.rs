//! The node's ports in the simulator: what one part tells another comes at once or in the same turn, and all
//! of it is said.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Said;
use crate::sim::checker::Refusal;
use crate::sim::disk::SimDisk;
use crate::smr::decision_log::LoggedRange;
use crate::smr::execution::{CheckpointHelp, CheckpointSnapshot, SessionWindows};
use crate::smr::membership::EpochHistory;
use crate::smr::messages::archived::ArchivedClientReply;
use crate::smr::messages::{
    Checked, CheckpointClaim, ClientReply, Frame, FrameId, FrameKey, Mode, Proposal, TakenCheckpoint,
};
use crate::smr::node::{Consensus, ConsensusPort, Execution, ExecutionPort, LogEntry, PreprocessingPort};
use crate::smr::preprocessing::{ClientDirectory, FrameRefusal, FromPeer, PeerRefusal};
use crate::smr::protocol::{LogCut, Recipients, Record, SnapshotEvent, SnapshotTask};
use crate::smr::replica::Stack;
use crate::smr::types::{ClientId, Lsn, NodeId, SeqNo, Time, UnixTime};

/// What consensus has for execution.
pub(super) enum Work {
    Decision(Arc<Proposal>),
    ReplyAgain(FrameId),
    ServeReads(Option<SeqNo>),
    Install(SeqNo),
}

/// Where consensus' decisions go.
pub(super) struct Decisions<'a> {
    pub world: Time,
    pub disk: &'a mut SimDisk,
    pub clients: &'a ClientDirectory,
    pub work: &'a mut VecDeque<Work>,
    /// What the disk answers at once.
    pub snapshots: Vec<SnapshotEvent>,
    pub said: &'a mut Vec<Said>,
}

impl ConsensusPort for Decisions<'_> {
    fn send(&mut self, to: Recipients, message: Bytes) {
        self.said.push(Said::ToReplicas { to, message });
    }

    fn pass_on(&mut self, to: Recipients, message: Bytes) {
        self.send(to, message);
    }

    fn answer(&mut self, frame: FrameKey, message: Bytes) {
        let to = frame.client;
        self.said.push(Said::ToClient { to, message });
    }

    fn execute(&mut self, decision: Arc<Proposal>) {
        self.said.push(Said::Execute(decision.clone()));
        self.work.push_back(Work::Decision(decision));
    }

    fn reply_again(&mut self, frame: FrameId) {
        self.work.push_back(Work::ReplyAgain(frame));
    }

    fn serve_reads(&mut self, from: Option<SeqNo>) {
        self.work.push_back(Work::ServeReads(from));
    }

    fn install(&mut self, seq: SeqNo) {
        self.work.push_back(Work::Install(seq));
    }

    fn log(&mut self, lsn: Lsn, record: Record) {
        self.disk.log(self.world, LogEntry::Record { lsn, record });
    }

    fn cut_log(&mut self, cut: LogCut) {
        self.disk.log(self.world, LogEntry::Cut(cut));
    }

    fn read_log(&mut self, range: LoggedRange) {
        self.disk.log(self.world, LogEntry::Read(range));
    }

    fn snapshot(&mut self, task: SnapshotTask) {
        self.snapshots
            .extend(self.disk.serve_snapshot_task(self.world, &task));
    }

    fn require_signature(&mut self, client: ClientId, must_sign: bool) {
        self.clients.require_signature(client, must_sign);
        self.said.push(Said::MustSign { client, must_sign });
    }

    fn abstention_over(&mut self) {
        self.disk.disk_state.mark = None;
        self.said.push(Said::AbstentionOver);
    }

    fn stable(&mut self, claim: CheckpointClaim) {
        self.said.push(Said::Stable(claim));
    }

    fn diverged(&mut self, _: CheckpointClaim, ours: CheckpointClaim) {
        self.said.push(Said::Diverged { ours });
    }

    fn fell_behind(&mut self, stable: SeqNo) {
        self.said.push(Said::FellBehind(stable));
    }

    fn epoch_ended(&mut self, history: EpochHistory) {
        self.said.push(Said::EpochEnded(Box::new(history)));
    }
}

/// Where execution's results go.
pub(super) struct Results<'a, S: Stack> {
    pub now: Time,
    pub world: Time,
    pub consensus: &'a mut Consensus<S>,
    pub disk: &'a mut SimDisk,
    /// Operations that were executed in order.
    pub operations: u64,
    /// What is answered are reads beside the order: replicas may answer from different states.
    pub reads: bool,
    pub said: &'a mut Vec<Said>,
}

impl<S: Stack> ExecutionPort for Results<'_, S> {
    fn answer(&mut self, frame: FrameKey, message: Bytes) {
        if !self.reads
            && let Ok(reply) = Checked::<ClientReply>::body_of(&message)
            && let ArchivedClientReply::Results { body, .. } = &*reply
        {
            let (key, body) = (frame, reply.slice_of(body.as_slice()));
            self.said.push(Said::Reply { key, body });
        }
        let to = frame.client;
        self.said.push(Said::ToClient { to, message });
    }

    fn executed(&mut self, seq: SeqNo, time: UnixTime, operations: usize) {
        self.consensus.on_executed(self.now, seq, operations);
        self.operations += operations as u64;
        self.said.push(Said::Executed {
            seq,
            time,
            operations,
        });
    }

    fn checkpoint(&mut self, taken: TakenCheckpoint) {
        self.said.push(Said::Checkpoint(taken));
        self.consensus.on_checkpoint(self.now, taken);
    }

    fn installed(&mut self, claim: CheckpointClaim, windows: Vec<SessionWindows>) {
        self.disk.installed(self.world);
        self.said.push(Said::Installed(claim));
        self.consensus.on_installed(self.now, claim.seq, &windows);
    }

    fn keep(&mut self, mut snapshot: Box<dyn CheckpointSnapshot>) {
        self.disk.keep_snapshot(self.world, &mut *snapshot);
    }

    // Nobody has the time.
    fn help(&mut self, _: CheckpointHelp) {}
}

/// Where what passes preprocessing goes: consensus and execution take it at once.
pub(super) struct Passed<'a, S: Stack> {
    pub execution: &'a mut Execution<S::Executor>,
    pub over_budget: &'a mut u64,
    pub reads_refused: &'a mut u64,
    pub results: Results<'a, S>,
}

impl<S: Stack> PreprocessingPort for Passed<'_, S> {
    fn ordered(&mut self, frame: Frame) {
        self.results.consensus.on_frame(self.results.now, frame);
    }

    fn of_peer(&mut self, from: NodeId, told: FromPeer) {
        self.results.consensus.on_peer(self.results.now, from, told);
    }

    fn read(&mut self, frame: Frame) -> bool {
        let (client, operations) = (frame.key().client, frame.operation_count() as u64);
        let is_read = frame.mode() == Mode::Unordered;
        if self.execution.take_read(frame, &mut self.results).is_err() {
            *self.reads_refused += 1;
        } else {
            let bytes = self.execution.reads().bytes();
            self.results.said.push(Said::ReadWaits {
                client,
                is_read,
                operations,
                bytes,
            });
        }
        // Execution has told the client if there was no room for it.
        true
    }

    fn answer(&mut self, frame: FrameKey, message: Bytes) {
        let to = frame.client;
        self.results.said.push(Said::ToClient { to, message });
    }

    fn refused(&mut self, from: NodeId, refusal: PeerRefusal) {
        *self.over_budget += u64::from(refusal.is_over_budget());
        let refusal = Refusal::Frames(refusal);
        self.results.said.push(Said::Refused { from, refusal });
    }

    fn refused_frame(&mut self, _: FrameRefusal) {}
}

/// Tells nobody: for looking at a state when a run has ended.
pub(super) struct Deaf;

impl ExecutionPort for Deaf {
    fn answer(&mut self, _: FrameKey, _: Bytes) {}

    fn executed(&mut self, _: SeqNo, _: UnixTime, _: usize) {}

    fn checkpoint(&mut self, _: TakenCheckpoint) {}

    fn installed(&mut self, _: CheckpointClaim, _: Vec<SessionWindows>) {}

    fn keep(&mut self, _: Box<dyn CheckpointSnapshot>) {}

    fn help(&mut self, _: CheckpointHelp) {}
}
