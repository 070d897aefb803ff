use std::sync::Arc;

use bytes::Bytes;

use crate::smr::execution::{
    CheckpointHelp, CheckpointSnapshot, ExecutionEvent, Executor, ReadGate, ReadLimits, ReadQueue, Resends,
    SessionWindows, SnapshotError,
};
use crate::smr::messages::{
    CheckpointClaim, ClientReply, Frame, FrameId, FrameKey, Proposal, RefusalReason, TakenCheckpoint,
};
use crate::smr::types::{ClientId, ClusterId, Epoch, SeqNo, Time, UnixTime, View};

/// Where execution's results go.
pub trait ExecutionPort {
    /// To the client of a frame: its results, or why there are none.
    fn answer(&mut self, frame: FrameKey, message: Bytes);

    /// To consensus: a decision was executed, at this agreed time, with so many operations.
    fn executed(&mut self, seq: SeqNo, time: UnixTime, operations: usize);

    /// To consensus: a checkpoint was taken.
    fn checkpoint(&mut self, taken: TakenCheckpoint);

    /// To consensus: the state is that of a checkpoint of others; what it includes of each client's frames.
    fn installed(&mut self, claim: CheckpointClaim, windows: Vec<SessionWindows>);

    /// To the disk: the contents of the checkpoint that was just taken.
    fn keep(&mut self, snapshot: Box<dyn CheckpointSnapshot>);

    /// To whoever has the time: part of a checkpoint's work.
    fn help(&mut self, help: CheckpointHelp);
}

/// Executes decisions in order, reads beside them, and replaces the state when it is told to.
pub struct Execution<E: Executor> {
    executor: E,
    /// From which states reads are answered, and which read is next.
    gate: ReadGate,
    reads: ReadQueue,
    resends: Resends,
    cluster: ClusterId,
    epoch: Epoch,
    events: Vec<ExecutionEvent>,
    has_background: bool,
    /// A snapshot replaces the state: nothing else is executed meanwhile.
    is_installing: bool,
}

impl<E: Executor> Execution<E> {
    /// Execution that goes on from the executor's state, for clients `0..clients`.
    #[must_use]
    pub fn new(
        (executor, gate): (E, ReadGate),
        (clients, read_limits): (usize, ReadLimits),
        (cluster, epoch): (ClusterId, Epoch),
    ) -> Self {
        Self {
            executor,
            gate,
            reads: ReadQueue::new(clients, read_limits),
            resends: Resends::new(clients),
            cluster,
            epoch,
            events: Vec::new(),
            // What a restart left to do is done first.
            has_background: true,
            is_installing: false,
        }
    }

    /// What executes.
    #[must_use]
    pub const fn executor(&self) -> &E {
        &self.executor
    }

    /// What waits of reads.
    #[must_use]
    pub const fn reads(&self) -> &ReadQueue {
        &self.reads
    }

    /// How many frames of reads the state did not answer.
    #[must_use]
    pub const fn reads_refused(&self) -> u64 {
        self.gate.refused()
    }

    /// Whether the next decision can be taken.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.is_installing && self.executor.has_room()
    }

    /// Whether there is something to go on with, without an input.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.has_background || self.is_installing || self.executor.has_work() || !self.reads.is_empty()
    }

    /// Whether every decision that was taken is executed and answered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.executor.is_settled()
    }

    /// Takes the next decision, for which there [is room](Self::has_room).
    pub fn execute(&mut self, decision: &Arc<Proposal>, port: &mut impl ExecutionPort) {
        self.executor.execute(decision, &mut self.events);
        self.has_background = true;
        self.tell(port);
    }

    /// Goes on with decisions that were taken; true if there was anything to do.
    pub fn step(&mut self, port: &mut impl ExecutionPort) -> bool {
        if self.is_installing || !self.executor.step(&mut self.events) {
            return false;
        }
        self.has_background = true;
        self.tell(port);
        true
    }

    /// Does about so many bytes of checkpoint work; true if some is left.
    pub fn background(&mut self, budget_bytes: usize, port: &mut impl ExecutionPort) -> bool {
        if !self.has_background || self.is_installing {
            return false;
        }
        self.has_background = self.executor.background_step(budget_bytes, &mut self.events);
        self.tell(port);
        self.has_background
    }

    /// Whether the next checkpoints' contents are kept: one is written at a time, and while it is,
    /// checkpoints are taken without.
    pub fn keep_snapshots(&mut self, keep: bool) {
        self.executor.keep_snapshots(keep);
    }

    /// Has a frame of reads wait for its turn.
    ///
    /// # Errors
    /// Why it does not; its client was told.
    pub fn take_read(&mut self, frame: Frame, port: &mut impl ExecutionPort) -> Result<(), RefusalReason> {
        let id = frame.id();
        let reason = if self.is_installing {
            self.gate.refuse()
        } else if self.reads.offer(frame) {
            return Ok(());
        } else {
            RefusalReason::Overloaded
        };
        self.refuse(&id, reason, port);
        Err(reason)
    }

    /// Answers the read whose turn it is, if any: `order_waits` says whether decisions wait to be executed.
    /// `work` says what it took, given how many operations it had.
    pub fn read(
        &mut self,
        order_waits: bool,
        port: &mut impl ExecutionPort,
        work: impl FnOnce(&Frame) -> u64,
    ) -> Option<ReadTurn> {
        let frame = self.reads.next(order_waits)?;
        let served = self.gate.serve(&mut self.executor, &frame, &mut self.events);
        if let Err(reason) = served {
            self.refuse(&frame.id(), reason, port);
        }
        let client = frame.key().client;
        self.reads.spent(client, work(&frame), order_waits);
        self.tell(port);
        Some(ReadTurn {
            client,
            is_answered: served.is_ok(),
        })
    }

    /// So much work went into what is ordered: reads get their share of it.
    pub fn spent_on_order(&mut self, work: u64) {
        self.reads.spent_on_order(work);
    }

    /// Reads are answered from states after this place, and not at all while `None`.
    pub fn serve_reads(&mut self, from: Option<SeqNo>) {
        self.gate.serve_from(from);
    }

    /// Sends a cached reply again, or why there is none; false if its client had too many of those.
    pub fn reply_again(&mut self, now: Time, frame: &FrameId, port: &mut impl ExecutionPort) -> bool {
        let may = self
            .resends
            .reply_again(now, frame, &mut self.executor, &mut self.events);
        self.tell(port);
        may
    }

    /// The claim for the state as it is, once all that was taken is executed; `None` while it is replaced.
    pub fn digest_now(&mut self, port: &mut impl ExecutionPort) -> Option<CheckpointClaim> {
        if self.is_installing {
            return None;
        }
        self.executor.settle(&mut self.events);
        self.tell(port);
        Some(self.executor.digest_now())
    }

    /// The state is to be replaced: its chunks follow. Reads that wait are forgotten; other replicas answer.
    pub fn begin_install(&mut self, port: &mut impl ExecutionPort) {
        self.executor.settle(&mut self.events);
        self.tell(port);
        self.reads.clear();
        self.is_installing = true;
    }

    /// The next chunk of the snapshot.
    ///
    /// # Errors
    /// When it is none: the host's disk gave back something else than it was given.
    pub fn install_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.executor.read_snapshot_chunk(chunk)
    }

    /// All chunks were given.
    ///
    /// # Errors
    /// When they are not what the snapshot's head promised.
    pub fn finish_install(&mut self, port: &mut impl ExecutionPort) -> Result<(), SnapshotError> {
        let claim = self.executor.finish_snapshot()?;
        self.is_installing = false;
        self.has_background = true;
        self.gate.on_executed(claim.seq);
        port.installed(claim, self.executor.client_windows());
        Ok(())
    }

    fn refuse(&self, frame: &FrameId, reason: RefusalReason, port: &mut impl ExecutionPort) {
        let message = ClientReply::refusal(self.cluster, self.epoch, View::ZERO, frame, reason);
        port.answer(frame.key, message);
    }

    /// Says what the executor has done.
    fn tell(&mut self, port: &mut impl ExecutionPort) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                ExecutionEvent::Reply {
                    key,
                    view,
                    read,
                    body,
                } => {
                    let message = ClientReply::read_results(self.cluster, self.epoch, view, read, &body);
                    port.answer(key, message);
                }
                ExecutionEvent::Refused { frame, view, reason } => {
                    let message = ClientReply::refusal(self.cluster, self.epoch, view, &frame, reason);
                    port.answer(frame.key, message);
                }
                ExecutionEvent::Executed {
                    seq,
                    time,
                    operations,
                } => {
                    self.gate.on_executed(seq);
                    port.executed(seq, time, operations);
                }
                ExecutionEvent::Checkpoint(taken) => port.checkpoint(taken),
                ExecutionEvent::Help(help) => port.help(help),
                ExecutionEvent::Snapshot(snapshot) => port.keep(snapshot),
            }
        }
        // Only the allocation stays.
        self.events = events;
    }
}

/// A client's read had its turn.
#[derive(Debug, Clone, Copy)]
pub struct ReadTurn {
    /// Whose.
    pub client: ClientId,
    /// Whether the state answered it.
    pub is_answered: bool,
}
