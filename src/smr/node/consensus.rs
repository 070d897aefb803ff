use std::sync::Arc;

use bytes::Bytes;

use crate::smr::decision_log::{LoggedDecisions, LoggedRange};
use crate::smr::execution::SessionWindows;
use crate::smr::membership::EpochHistory;
use crate::smr::messages::{
    Checked, CheckpointClaim, ClientReply, ENVELOPE_BYTES, Frame, FrameId, FrameKey, Proposal, SystemMessage,
    TakenCheckpoint,
};
use crate::smr::preprocessing::{ExpectedTraffic, FromPeer};
use crate::smr::protocol::{LogCut, Recipients, Record, SnapshotEvent, SnapshotTask};
use crate::smr::replica::{Action, Replica, Stack};
use crate::smr::types::{ClientId, ClusterId, Epoch, Lsn, NodeId, SeqNo, Time, UnixTime};

/// Where consensus' decisions and messages go.
pub trait ConsensusPort {
    /// To replicas: a whole message.
    fn send(&mut self, to: Recipients, message: Bytes);

    /// To replicas: a whole message with clients' frames, which agreement does not wait for.
    fn pass_on(&mut self, to: Recipients, message: Bytes);

    /// To the client of a frame: why it gets no results.
    fn answer(&mut self, frame: FrameKey, message: Bytes);

    /// To execution: the next decision.
    fn execute(&mut self, decision: Arc<Proposal>);

    /// To execution: a client asks for a cached reply.
    fn reply_again(&mut self, frame: FrameId);

    /// To execution: from which states reads beside the order are answered; from none while `None`.
    fn serve_reads(&mut self, from: Option<SeqNo>);

    /// To execution and the disk: replace the state by the snapshot of this checkpoint, which is complete.
    fn install(&mut self, seq: SeqNo);

    /// To the log: the next record.
    fn log(&mut self, lsn: Lsn, record: Record);

    /// To the log: what is not needed any more.
    fn cut_log(&mut self, cut: LogCut);

    /// To the log: decisions are to be read back.
    fn read_log(&mut self, range: LoggedRange);

    /// To the disk: something to do with the snapshot of a checkpoint that is transferred.
    fn snapshot(&mut self, task: SnapshotTask);

    /// To preprocessing: whether a client has to sign.
    fn require_signature(&mut self, client: ClientId, must_sign: bool);

    /// To the disk: this replica abstains no longer, and begins with no abstention after its next start.
    fn abstention_over(&mut self);

    /// A checkpoint became stable.
    fn stable(&mut self, claim: CheckpointClaim);

    /// The own state is not the one that a quorum signed.
    fn diverged(&mut self, stable: CheckpointClaim, ours: CheckpointClaim);

    /// The others have forgotten what this replica lacks; it has to reach this checkpoint.
    fn fell_behind(&mut self, stable: SeqNo);

    /// To the host: the epoch has ended, which is on disk. It is to end this replica, and to begin with a new one in
    /// the last epoch of this history.
    fn epoch_ended(&mut self, history: EpochHistory);
}

/// Runs the orchestrator: gives it its inputs, and carries out what it answers.
///
/// After some inputs comes one [`turn`](Self::turn).
pub struct Consensus<S: Stack> {
    replica: Replica<S>,
    cluster: ClusterId,
    epoch: Epoch,
    expectations: ExpectedTraffic,
    /// Whether a record counts as kept when it was made.
    trusts_memory: bool,
    /// Whether there was an input since the last turn.
    heard: bool,
}

impl<S: Stack> Consensus<S> {
    /// Runs this replica. `trusts_memory` has records count as durable when they are made, without
    /// [`on_durable`](Self::on_durable).
    #[must_use]
    pub fn new(
        replica: Replica<S>,
        expectations: ExpectedTraffic,
        (cluster, epoch): (ClusterId, Epoch),
        trusts_memory: bool,
    ) -> Self {
        let this = Self {
            replica,
            cluster,
            epoch,
            expectations,
            trusts_memory,
            // What a restart left to do is done in the first turn.
            heard: true,
        };
        this.tell_expectations();
        this
    }

    /// The replica that is run.
    #[must_use]
    pub const fn replica(&self) -> &Replica<S> {
        &self.replica
    }

    /// The host's clock shows this time of day: said before the first turn, and every second or so.
    pub fn on_wall_clock(&mut self, now: Time, unix: UnixTime) {
        self.replica.on_wall_clock(now, unix);
    }

    /// It is this late.
    pub fn on_time(&mut self, now: Time) {
        self.heard |= self.replica.next_timeout().is_some_and(|due| due <= now);
        self.replica.on_time(now);
    }

    /// A replica's message without frames, envelope included; false when it is none of this protocol.
    pub fn on_message(&mut self, now: Time, from: NodeId, message: &Bytes) -> bool {
        let replica = self.hear();
        Checked::<SystemMessage>::body_of(message)
            .is_ok_and(|checked| replica.on_message(now, from, &checked, message))
    }

    /// A message about epochs, envelope included, of a peer in any epoch; false when it is none.
    pub fn on_reconfiguration(&mut self, now: Time, from: NodeId, message: &Bytes) -> bool {
        let body = message.get(ENVELOPE_BYTES..).unwrap_or_default();
        self.hear().on_reconfiguration(now, from, body)
    }

    /// A replica said something in another epoch.
    pub fn on_other_epoch(&mut self, now: Time, from: NodeId, epoch: Epoch) {
        self.hear().on_other_epoch(now, from, epoch);
    }

    /// A frame that is to be ordered, by its client's link.
    pub fn on_frame(&mut self, now: Time, frame: Frame) {
        self.hear().on_frame(now, frame);
    }

    /// Part of a replica's message with frames.
    pub fn on_peer(&mut self, now: Time, from: NodeId, told: FromPeer) {
        let replica = self.hear();
        match told {
            FromPeer::Frame(frame) => replica.on_passed_on(now, frame),
            FromPeer::Disputed(key, seq) => replica.on_disputed(key, seq),
            FromPeer::Proposal(proposal) => replica.on_proposal(now, from, *proposal),
            FromPeer::Batch(batch) => replica.on_batch(now, from, *batch),
        }
    }

    /// Execution has executed a decision.
    pub fn on_executed(&mut self, now: Time, seq: SeqNo, operations: usize) {
        self.hear().on_executed(now, seq, operations);
    }

    /// Execution has taken a checkpoint.
    pub fn on_checkpoint(&mut self, now: Time, taken: TakenCheckpoint) {
        self.hear().on_checkpoint_taken(now, taken);
    }

    /// Execution has replaced its state by that of a checkpoint.
    pub fn on_installed(&mut self, now: Time, seq: SeqNo, windows: &[SessionWindows]) {
        self.hear().on_installed(now, seq, windows);
    }

    /// Every record before this position is on disk.
    pub fn on_durable(&mut self, end: Lsn) {
        if !self.trusts_memory {
            self.hear().on_durable(end);
        }
    }

    /// The contents of an own checkpoint are on disk.
    pub fn on_snapshot_kept(&mut self, now: Time, seq: SeqNo) {
        self.hear().on_snapshot_kept(now, seq);
    }

    /// Something was done with the snapshot of a checkpoint that is transferred.
    pub fn on_snapshot(&mut self, now: Time, event: SnapshotEvent) {
        self.hear().on_snapshot(now, event);
    }

    /// Decisions were read back from the log.
    pub fn on_logged(&mut self, now: Time, read: LoggedDecisions) {
        self.hear().on_logged(now, read);
    }

    /// Concludes from what was heard since the last turn, and carries out what is due; true if something was.
    pub fn turn(&mut self, now: Time, port: &mut impl ConsensusPort) -> bool {
        if std::mem::take(&mut self.heard) {
            self.replica.finish_turn(now);
        }
        let (mut acted, mut kept) = self.dispatch_actions(port);
        while let Some(end) = kept.filter(|_| self.trusts_memory) {
            self.replica.on_durable(end);
            self.replica.finish_turn(now);
            let more = self.dispatch_actions(port);
            acted |= more.0;
            kept = more.1;
        }
        acted
    }

    /// Has preprocessing know what is expected of other replicas now.
    pub fn tell_expectations(&self) {
        let replica = &self.replica;
        self.expectations
            .tell(replica.view(), replica.asks_for_decisions());
    }

    /// The replica, for an input: the next turn concludes from it.
    const fn hear(&mut self) -> &mut Replica<S> {
        self.heard = true;
        &mut self.replica
    }

    /// Whether there was anything, and the end of what was logged.
    fn dispatch_actions(&mut self, port: &mut impl ConsensusPort) -> (bool, Option<Lsn>) {
        let (mut any, mut logged) = (false, None);
        let view = self.replica.view();
        for action in self.replica.drain_actions() {
            any = true;
            match action {
                Action::ToReplicas { to, message } => port.send(to, message),
                Action::PassOn { to, message } => port.pass_on(to, message),
                Action::Refuse { frame, reason } => {
                    let message = ClientReply::refusal(self.cluster, self.epoch, view, &frame, reason);
                    port.answer(frame.key, message);
                }
                Action::Execute(decision) => port.execute(decision),
                Action::ReplyAgain(frame) => port.reply_again(frame),
                Action::ServeReads(from) => port.serve_reads(from),
                Action::RequireSignature { client, must_sign } => port.require_signature(client, must_sign),
                Action::Log { lsn, record } => {
                    logged = Some(lsn.next());
                    port.log(lsn, record);
                }
                Action::CutLog(cut) => port.cut_log(cut),
                Action::ReadLog(range) => port.read_log(range),
                Action::Snapshot(SnapshotTask::Install(seq)) => port.install(seq),
                Action::Snapshot(task) => port.snapshot(task),
                Action::AbstentionOver => port.abstention_over(),
                Action::Stable(claim) => port.stable(claim),
                Action::Diverged { stable, ours } => port.diverged(stable, ours),
                Action::FellBehind { stable } => port.fell_behind(stable),
                Action::EpochEnded(history) => port.epoch_ended(*history),
            }
        }
        (any, logged)
    }
}
