//! One simulated replica: the parts and the order of steps are those of the shards' roles, in one thread.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::checker::Refusal;
use super::disk::{DiskSettings, Platter, SimDisk};
use super::keys::{CLUSTER, Keyring};
use super::stack::{AnyExecutor, SimStack};
use super::{Dice, Knobs};
use crate::runtime::net::hello::Peer;
use crate::runtime::storage::restart::{RestartSettings, Restored, Witness, restart};
use crate::runtime::storage::{RecordReader, StorageError};
use crate::smr::crypto::{Digester, Given, verdicts_given};
use crate::smr::execution::{
    Application, ExecutionEvent, Executor, ReadGate, ReadLimits, ReadQueue, Resends,
};
use crate::smr::messages::{
    Batch, Checked, CheckpointClaim, ClientReply, ENVELOPE_BYTES, Envelope, Frame, FrameId, FrameKey, Kind,
    Mode, Proposal, RefusalReason, SystemMessage, TakenCheckpoint,
};
use crate::smr::preprocessing::{
    Expectations, FrameChecker, FrameRefusal, FromPeer, PoolLimits, ProposalGate,
};
use crate::smr::protocol::{ImageEvent, ImageTask, Recipients, Record};
use crate::smr::replica::{Action, Replica};
use crate::smr::types::{ClientId, Epoch, Lsn, NodeId, Quorum, SeqNo, Time, View};

mod parts;

use parts::{disk_budget, make_replica};

/// Bytes of checkpoint work done in one turn: little, so that decisions come in between.
const BACKGROUND_BYTES: usize = 64 << 10;

/// Reads beside the order that are executed in one turn, but for those of the last frame.
const TURN_READS: u64 = 32;

fn read_limits(knobs: &Knobs) -> ReadLimits {
    let PoolLimits {
        frames_per_client,
        bytes_per_client,
        bytes_max,
    } = knobs.pool;
    ReadLimits {
        burst: TURN_READS,
        ..ReadLimits::of_pool(frames_per_client, bytes_per_client, bytes_max)
    }
}

/// What a replica did in one turn, in order.
pub(super) enum Said {
    ToReplicas {
        to: Recipients,
        message: Bytes,
    },
    ToClient {
        to: ClientId,
        message: Bytes,
    },
    Execute(Arc<Proposal>),
    Executed {
        seq: SeqNo,
        operations: usize,
    },
    Reply {
        key: FrameKey,
        body: Bytes,
    },
    Checkpoint(TakenCheckpoint),
    Stable(CheckpointClaim),
    Diverged {
        ours: CheckpointClaim,
    },
    FellBehind(SeqNo),
    /// So many decisions were read back from the log.
    ReadLog(usize),
    /// It votes again.
    AbstentionOver,
    /// So many signatures were verified because of a replica's message.
    Verified {
        from: NodeId,
        message: Bytes,
        given: Given,
        /// Its view when the turn began, and whether it asked for decisions that it lacked.
        expected: (View, bool),
    },
    /// Something of another replica was refused.
    Refused {
        from: NodeId,
        refusal: Refusal,
    },
    /// A read beside the order waits, and all that wait have so many bytes.
    ReadWaits {
        client: ClientId,
        is_read: bool,
        operations: u64,
        bytes: usize,
    },
    /// The first read of a client that waits has its turn.
    ReadTurn(ClientId),
    /// A client has to sign from now on, or not any more.
    MustSign {
        client: ClientId,
        must_sign: bool,
    },
    /// A state from others replaced the replica's own.
    Installed(CheckpointClaim),
    /// A decision was executed wrongly.
    Misexecuted,
    /// Reads beside the order were answered, from the state after this place.
    Read(SeqNo),
}

/// What the disk has done since the last turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Durable {
    /// The log's new end.
    pub log: Option<Lsn>,
    /// The last checkpoint whose contents were written.
    pub image: Option<SeqNo>,
    /// The checkpoint of others with which a restart begins now.
    pub adopted: Option<SeqNo>,
}

impl Durable {
    pub fn is_some(&self) -> bool {
        self.log.is_some() || self.image.is_some() || self.adopted.is_some()
    }
}

/// What a restart has read back.
#[derive(Default)]
pub(super) struct ReadBack {
    pub records: Vec<Record>,
    pub replayed: Vec<Arc<Proposal>>,
}

impl Witness for ReadBack {
    fn on_record(&mut self, record: &Record) {
        self.records.push(record.clone());
    }

    fn on_replayed(&mut self, decision: &Arc<Proposal>) {
        self.replayed.push(decision.clone());
    }

    // The run's story and its counts tell of damage.
    fn on_damaged_image(&mut self, _: &StorageError) {}

    fn on_damaged_log(&mut self, _: &StorageError) {}
}

/// Preprocessing, consensus, execution and the disk of one replica.
pub(super) struct SimReplica<A: Application> {
    checker: FrameChecker,
    gate: ProposalGate,
    expectations: Expectations,
    /// What these were told last.
    expected: (View, bool),
    /// Frames and batches that were refused because of what their sender had verified before.
    pub over_budget: u64,
    /// What each peer had sent, when it was looked at last, that no correct replica sends.
    offences: Vec<u64>,
    pub replica: Replica<SimStack<A>>,
    executor: AnyExecutor,
    pub gate_of_reads: ReadGate,
    reads: ReadQueue,
    resends: Resends,
    /// Reads that were refused.
    pub reads_refused: u64,
    /// Operations that were executed in order in this turn.
    ordered: u64,
    events: Vec<ExecutionEvent>,
    inbox: VecDeque<(Peer, Bytes)>,
    has_background: bool,
    reader: RecordReader,
    pub disk: SimDisk,
    /// The next decision that has frames is executed wrongly.
    misexecutes: bool,
}

/// A replica that nothing has happened to.
pub(super) fn fresh_replica<A: Application>(node: NodeId, knobs: &Knobs) -> Replica<SimStack<A>> {
    make_replica(node, knobs, &Digester::new(CLUSTER))
}

impl<A: Application> SimReplica<A> {
    /// Starts a process on the disk that `platter` holds.
    ///
    /// # Errors
    /// When it refuses to start: what is on the disk is damaged, or not there.
    pub fn start(
        node: NodeId,
        knobs: &Knobs,
        mut executor: AnyExecutor,
        platter: &mut Platter,
        dice: Dice,
    ) -> Result<(Self, Restored, ReadBack), StorageError> {
        let digester = Digester::new(CLUSTER);
        platter.open(CLUSTER, node)?;
        let mut replica = make_replica(node, knobs, &digester);
        let mut read_back = ReadBack::default();
        let quorum = Quorum::of(knobs.replicas).expect("a simulated cluster has a valid size");
        let reader = RecordReader::new(digester.clone(), knobs.limits);
        let settings = RestartSettings {
            reader: reader.clone(),
            window: knobs.window,
            can_abstain: quorum.n() > quorum.quorum(),
        };
        let restored = restart(platter, &settings, &mut replica, &mut executor, &mut read_back)?;
        executor.keep_images(true);
        let record_bytes_max = knobs.lengths().log_record();
        let segment_bytes = knobs.segment_bytes.max(record_bytes_max as u64 + 4096) / 4096 * 4096 + 4096;
        let settings = DiskSettings {
            sync_us: knobs.sync_us,
            segment_bytes,
            segments_max: disk_budget(knobs, segment_bytes).segments_max(),
            record_bytes_max,
            short_percent: 5,
            write_syncs: knobs.write_syncs,
        };
        let keys = Keyring::get();
        let directory = keys.directory(node, knobs.clients(), knobs.auth);
        let expectations = Expectations::default();
        let expected = (replica.view(), false);
        expectations.tell(expected.0, expected.1);
        let this = Self {
            checker: FrameChecker::new(
                node,
                knobs.replicas,
                knobs.auth,
                knobs.limits,
                digester,
                directory,
            )
            .with_reads(knobs.unordered),
            gate: ProposalGate::with_limits(knobs.replicas, expectations.clone(), knobs.gate),
            expectations,
            expected,
            over_budget: 0,
            offences: vec![0; knobs.replicas],
            gate_of_reads: ReadGate::new(replica.reads_from(), executor.executed()),
            replica,
            executor,
            reads: ReadQueue::new(knobs.clients(), read_limits(knobs)),
            resends: Resends::new(knobs.clients()),
            reads_refused: 0,
            ordered: 0,
            events: Vec::new(),
            inbox: VecDeque::new(),
            // What the restart allows is done in the first turn.
            has_background: true,
            reader,
            disk: SimDisk::new(platter.clone(), &restored, settings, dice),
            misexecutes: false,
        };
        Ok((this, restored, read_back))
    }

    /// A message arrived; it is looked at in the next turn.
    pub fn receive(&mut self, from: Peer, message: Bytes) {
        self.inbox.push_back((from, message));
    }

    /// Whether a turn would find work at once.
    pub fn has_work(&self) -> bool {
        self.has_background || !self.inbox.is_empty() || self.executor.has_work() || !self.reads.is_empty()
    }

    /// The claim for the state as it is.
    pub fn digest_now(&mut self) -> CheckpointClaim {
        let mut events = Vec::new();
        self.executor.settle(&mut events);
        self.executor.digest_now()
    }

    /// One turn: everything that arrived, what the disk has done, what is due. `now` is the host's clock,
    /// `world` that of the disk.
    pub fn turn(&mut self, now: Time, world: Time, durable: Durable, said: &mut Vec<Said>) {
        self.replica.on_time(now);
        if let Some(end) = durable.log {
            self.replica.on_durable(end);
        }
        if let Some(seq) = durable.image {
            self.replica.on_image_kept(now, seq);
        }
        if let Some(seq) = durable.adopted {
            self.replica.on_image(now, ImageEvent::Completed(seq));
        }
        while let Some((from, message)) = self.inbox.pop_front() {
            self.route(now, from, message, said);
        }
        self.verify_waiting(now, said);
        if self.executor.has_work() {
            self.has_background |= self.executor.step(&mut self.events);
            self.report(now, world, said);
        }
        if self.has_background {
            self.has_background = self.executor.background_step(BACKGROUND_BYTES, &mut self.events);
            self.report(now, world, said);
        }
        let mut actions: Vec<Action> = Vec::new();
        loop {
            self.replica.finish_turn(now);
            actions.extend(self.replica.drain_actions());
            if actions.is_empty() {
                break;
            }
            for action in actions.drain(..) {
                self.act(now, world, action, said);
            }
        }
        self.read(said);
        self.tell_offences(said);
        self.executor.keep_images(!self.disk.is_writing_image());
        self.expected = (self.replica.view(), self.replica.asks_for_decisions());
        self.expectations.tell(self.expected.0, self.expected.1);
    }

    fn route(&mut self, now: Time, from: Peer, message: Bytes, said: &mut Vec<Said>) {
        let envelope = match (Envelope::open(&message, CLUSTER, Epoch::ZERO), from) {
            (Ok(envelope), _) => envelope,
            (Err(error), Peer::Replica(from)) => {
                let refusal = Refusal::Envelope(error);
                return said.push(Said::Refused { from, refusal });
            }
            (Err(_), Peer::Client(_)) => return,
        };
        match (from, envelope.kind) {
            (Peer::Replica(from), Kind::System) => self.take_message(now, from, &message, said),
            (Peer::Replica(from), Kind::SystemWithFrames) => self.take_frames(now, from, &message, said),
            (Peer::Client(client), Kind::Request) => {
                match self.checker.take_frame(client, message.slice(ENVELOPE_BYTES..)) {
                    Ok(Some(frame)) => self.pass(now, frame, said),
                    Ok(None) => {}
                    Err((frame, refusal)) => Self::refuse(frame, &refusal, said),
                }
            }
            _ => {}
        }
    }

    fn take_message(&mut self, now: Time, from: NodeId, message: &Bytes, said: &mut Vec<Said>) {
        let Ok(checked) = Checked::<SystemMessage>::body_of(message) else {
            let refusal = Refusal::Archive;
            return said.push(Said::Refused { from, refusal });
        };
        let (before, lies) = (verdicts_given(), self.replica.counters().chunks_refused);
        self.replica.on_message(now, from, &checked, message);
        if self.replica.counters().chunks_refused > lies {
            let refusal = Refusal::Piece;
            said.push(Said::Refused { from, refusal });
        }
        self.tell_effort(from, message, before, said);
    }

    /// Says what the protocols refused since the last turn as misbehaviour.
    fn tell_offences(&mut self, said: &mut Vec<Said>) {
        for (node, known) in NodeId::all(self.offences.len()).zip(&mut self.offences) {
            let offences = self.replica.offences(node);
            if offences.count > *known
                && let Some(last) = offences.last
            {
                *known = offences.count;
                let (from, refusal) = (node, Refusal::Protocol(last));
                said.push(Said::Refused { from, refusal });
            }
        }
    }

    fn take_frames(&mut self, now: Time, from: NodeId, message: &Bytes, said: &mut Vec<Said>) {
        let Ok(checked) = Checked::<SystemMessage>::body_of(message) else {
            let refusal = Refusal::Archive;
            return said.push(Said::Refused { from, refusal });
        };
        // Signatures of frames taken before are judged first: the verifier is one.
        self.verify_waiting(now, said);
        let before = verdicts_given();
        let (replica, over_budget) = (&mut self.replica, &mut self.over_budget);
        self.gate.check(
            now,
            from,
            &mut self.checker,
            (&checked, message),
            |told| match told {
                Ok(FromPeer::Frame(frame)) => replica.on_passed_on(now, frame),
                Ok(FromPeer::Disputed(key)) => replica.on_disputed(key),
                Ok(FromPeer::Proposal(proposal)) => replica.on_proposal(now, from, proposal),
                Ok(FromPeer::Batch(batch)) => replica.on_batch(now, from, batch),
                Err(refusal) => {
                    *over_budget += u64::from(refusal.is_over_budget());
                    let refusal = Refusal::Frames(refusal);
                    said.push(Said::Refused { from, refusal });
                }
            },
        );
        self.tell_effort(from, message, before, said);
    }

    /// Says how many signatures were verified because of a message, if any.
    fn tell_effort(&self, from: NodeId, message: &Bytes, before: Given, said: &mut Vec<Said>) {
        let now = verdicts_given();
        let given = Given {
            verdicts: now.verdicts - before.verdicts,
            invalid: now.invalid - before.invalid,
        };
        if given.verdicts > 0 {
            said.push(Said::Verified {
                from,
                message: message.clone(),
                given,
                expected: self.expected,
            });
        }
    }

    fn verify_waiting(&mut self, now: Time, said: &mut Vec<Said>) {
        if self.checker.waiting() == 0 {
            return;
        }
        let mut verdicts = Vec::with_capacity(self.checker.waiting());
        self.checker
            .verify(|frame, verdict| verdicts.push((frame, verdict)));
        for (frame, verdict) in verdicts {
            match verdict {
                Ok(()) => self.pass(now, frame, said),
                Err(refusal) => Self::refuse(Some(frame.id()), &refusal, said),
            }
        }
    }

    fn pass(&mut self, now: Time, frame: Frame, said: &mut Vec<Said>) {
        if frame.mode().is_ordered() {
            self.replica.on_frame(now, frame);
        } else {
            let (id, operations) = (frame.id(), frame.operation_count() as u64);
            let is_read = frame.mode() == Mode::Unordered;
            if !self.reads.offer(frame) {
                self.reads_refused += 1;
                return said.push(refused(&id, View::ZERO, RefusalReason::Overloaded));
            }
            said.push(Said::ReadWaits {
                client: id.key.client,
                is_read,
                operations,
                bytes: self.reads.bytes(),
            });
        }
    }

    fn refuse(frame: Option<FrameId>, refusal: &FrameRefusal, said: &mut Vec<Said>) {
        if let Some(frame) = frame {
            said.push(refused(&frame, View::ZERO, refusal.reason()));
        }
    }

    /// Executes some reads beside the order: work is counted in operations.
    fn read(&mut self, said: &mut Vec<Said>) {
        let order_waits = std::mem::take(&mut self.ordered) > 0;
        let mut left = TURN_READS;
        while left > 0
            && let Some(frame) = self.reads.next(order_waits)
        {
            let (client, operations) = (frame.key().client, frame.operation_count() as u64);
            said.push(Said::ReadTurn(client));
            match self
                .gate_of_reads
                .serve(&mut self.executor, &frame, &mut self.events)
            {
                Ok(()) => {
                    if frame.mode() == Mode::Unordered {
                        said.push(Said::Read(self.executor.executed()));
                    }
                    self.report_unordered(said);
                }
                Err(reason) => said.push(refused(&frame.id(), View::ZERO, reason)),
            }
            self.reads.spent(client, operations, order_waits);
            left = left.saturating_sub(operations);
        }
    }

    fn act(&mut self, now: Time, world: Time, action: Action, said: &mut Vec<Said>) {
        match action {
            Action::ToReplicas { to, message } => said.push(Said::ToReplicas { to, message }),
            Action::Refuse { frame, reason } => said.push(refused(&frame, self.replica.view(), reason)),
            Action::Execute(decision) => {
                said.push(Said::Execute(decision.clone()));
                while !self.executor.has_room() {
                    self.executor.step(&mut self.events);
                }
                let decision = self.as_executed(decision, said);
                self.executor.execute(&decision, &mut self.events);
                self.has_background = true;
                self.report(now, world, said);
            }
            Action::ReplyAgain(frame) => {
                self.resends
                    .reply_again(now, &frame, &mut self.executor, &mut self.events);
                self.report(now, world, said);
            }
            Action::Log { lsn, record } => self.disk.append(world, lsn, record),
            Action::ServeReads(from) => self.gate_of_reads.serve_from(from),
            Action::RequireSignature { client, must_sign } => {
                self.checker.require_signature(client, must_sign);
                said.push(Said::MustSign { client, must_sign });
            }
            Action::CutLog(cut) => self.disk.cut(world, cut),
            Action::ReadLog(range) => {
                let read = self.disk.read_log(&self.reader, range);
                said.push(Said::ReadLog(read.decisions.len()));
                self.replica.on_logged(now, read);
            }
            Action::Image(ImageTask::Install(seq)) => self.install(now, world, seq, said),
            Action::Image(task) => {
                for event in self.disk.shelve(world, task) {
                    self.replica.on_image(now, event);
                }
            }
            Action::Stable(claim) => said.push(Said::Stable(claim)),
            Action::Diverged { ours, .. } => said.push(Said::Diverged { ours }),
            Action::AbstentionOver => {
                self.disk.platter.mark = None;
                said.push(Said::AbstentionOver);
            }
            Action::FellBehind { stable } => said.push(Said::FellBehind(stable)),
        }
    }

    /// A bit flips, or a bug strikes: the next decision that has frames leaves another state than it should.
    pub fn misexecute(&mut self) {
        self.misexecutes = true;
    }

    /// The decision as execution takes it.
    fn as_executed(&mut self, decision: Arc<Proposal>, said: &mut Vec<Said>) -> Arc<Proposal> {
        if decision.batch.frames.is_empty() || !std::mem::take(&mut self.misexecutes) {
            return decision;
        }
        said.push(Said::Misexecuted);
        let lost = Batch {
            frames: Vec::new(),
            ..Batch::clone(&decision.batch)
        };
        Arc::new(Proposal {
            batch: Arc::new(lost),
            ..Proposal::clone(&decision)
        })
    }

    /// Replaces the state by an image that came from others.
    fn install(&mut self, now: Time, world: Time, seq: SeqNo, said: &mut Vec<Said>) {
        self.executor.settle(&mut self.events);
        self.report(now, world, said);
        self.reads.clear();
        let chunks = self.disk.image_chunks(seq);
        let read = chunks
            .iter()
            .try_for_each(|chunk| self.executor.read_image_chunk(chunk));
        let claim = read
            .and_then(|()| self.executor.finish_image())
            .expect("what was checked piece by piece can be read");
        self.disk.installed(world);
        self.gate_of_reads.on_executed(claim.seq);
        said.push(Said::Installed(claim));
        self.replica
            .on_installed(now, seq, &self.executor.client_windows());
        self.has_background = true;
    }

    /// Tells consensus and the clients what execution has done.
    fn report(&mut self, now: Time, world: Time, said: &mut Vec<Said>) {
        for event in std::mem::take(&mut self.events) {
            match event {
                ExecutionEvent::Reply { key, view, body } => {
                    let message = ClientReply::results(CLUSTER, Epoch::ZERO, view, &body);
                    said.push(Said::Reply { key, body });
                    said.push(Said::ToClient {
                        to: key.client,
                        message,
                    });
                }
                ExecutionEvent::Refused { frame, view, reason } => said.push(refused(&frame, view, reason)),
                ExecutionEvent::Executed { seq, operations } => {
                    self.gate_of_reads.on_executed(seq);
                    self.replica.on_executed(now, seq, operations);
                    self.ordered += operations as u64;
                    self.reads.spent_on_order(operations as u64);
                    said.push(Said::Executed { seq, operations });
                }
                ExecutionEvent::Checkpoint(taken) => {
                    said.push(Said::Checkpoint(taken));
                    self.replica.on_checkpoint_taken(now, taken);
                }
                // Nobody has the time.
                ExecutionEvent::Help(_) => {}
                ExecutionEvent::Image(mut image) => self.disk.keep_image(world, &mut *image),
            }
        }
    }

    fn report_unordered(&mut self, said: &mut Vec<Said>) {
        for event in std::mem::take(&mut self.events) {
            if let ExecutionEvent::Reply { key, view, body } = event {
                let message = ClientReply::results(CLUSTER, Epoch::ZERO, view, &body);
                said.push(Said::ToClient {
                    to: key.client,
                    message,
                });
            }
        }
    }
}

fn refused(frame: &FrameId, view: View, reason: RefusalReason) -> Said {
    Said::ToClient {
        to: frame.key.client,
        message: ClientReply::refusal(CLUSTER, Epoch::ZERO, view, frame, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::app::SmallKv;
    use crate::sim::stack::single;

    #[test]
    fn a_log_that_says_of_no_view_as_late_as_the_superblock_is_refused() {
        let (node, knobs) = (NodeId::new(1), Knobs::calm(4, 1));
        let mut platter = Platter::format("disk", CLUSTER, node, 7);
        let start = |platter: &mut Platter| {
            let executor = single(SmallKv)(&knobs, false);
            SimReplica::<SmallKv>::start(node, &knobs, executor, platter, Dice::new(1)).err()
        };
        assert!(start(&mut platter).is_none());
        platter.update(|superblock| superblock.cut(1, View::new(3)));
        let refused = start(&mut platter).expect("what was said in view 3 is lost");
        assert!(
            refused.to_string().contains("records of views are lost"),
            "{refused}"
        );
    }
}
