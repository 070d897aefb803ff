//! One simulated replica: the node that the shards run, in one thread; its ports are in [`ports`].

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::checker::Refusal;
use super::disk::{DiskSettings, DiskState, SimDisk};
use super::keys::{CLUSTER, Keyring};
use super::stack::PartsMaker;
use super::{SimConfig, SimRng};
use crate::runtime::storage::restart::{RestartObserver, RestartSettings, Restored, restart};
use crate::runtime::storage::{RecordReader, StorageError};
use crate::smr::crypto::{Digester, Given, verdicts_given};
use crate::smr::execution::{CheckpointSnapshot, Executor, ReadGate, ReadLimits};
use crate::smr::membership::EpochHistory;
use crate::smr::messages::{
    Batch, CheckpointClaim, ENVELOPE_BYTES, FrameKey, Mode, Proposal, TakenCheckpoint,
};
use crate::smr::node::{Consensus, Execution, Preprocessing, Route, route};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::preprocessing::{ClientDirectory, ExpectedTraffic, FrameChecker, PeerVerifyGate, PoolLimits};
use crate::smr::protocol::{Recipients, Record, SnapshotEvent};
use crate::smr::replica::{OrderingOf, Replica, Stack};
use crate::smr::types::{ClientId, ClusterId, Epoch, Lsn, NodeId, Peer, Quorum, SeqNo, Time, UnixTime, View};

mod parts;
mod ports;

use parts::{disk_budget, epoch_of, make_replica, read_history};
use ports::{Deaf, Decisions, Passed, Results, Work};

/// Bytes of checkpoint work done in one turn: little, so that decisions come in between.
const BACKGROUND_BYTES: usize = 64 << 10;

/// Reads beside the order that are executed in one turn, but for those of the last frame.
const TURN_READS: u64 = 32;

fn read_limits(config: &SimConfig) -> ReadLimits {
    let PoolLimits {
        frames_per_client,
        bytes_per_client,
        bytes_max,
    } = config.pool;
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
        time: UnixTime,
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
    /// The epoch has ended: the next ones are known.
    EpochEnded(Box<EpochHistory>),
}

/// What the disk has done since the last turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Durable {
    /// The log's new end.
    pub log: Option<Lsn>,
    /// The last checkpoint whose contents were written.
    pub snapshot: Option<SeqNo>,
    /// The checkpoint of others with which a restart begins now.
    pub adopted: Option<SeqNo>,
}

impl Durable {
    pub fn is_some(&self) -> bool {
        self.log.is_some() || self.snapshot.is_some() || self.adopted.is_some()
    }
}

/// What a restart has read back.
#[derive(Default)]
pub(super) struct ReadBack {
    pub records: Vec<Record>,
    pub replayed: Vec<Arc<Proposal>>,
    /// Its snapshot was of a state that a quorum contradicts.
    pub was_contradicted: bool,
}

impl ReadBack {
    /// Whether the log has every decision up to this one, and no place was passed over.
    pub fn is_whole_up_to(&self, last: SeqNo) -> bool {
        let mut decided = (1..=last.get()).peekable();
        for record in &self.records {
            match record {
                Record::Jump { .. } => return false,
                Record::Decision { seq, .. } => {
                    decided.next_if_eq(&seq.get());
                }
                _ => {}
            }
        }
        decided.peek().is_none()
    }
}

impl RestartObserver for ReadBack {
    fn on_record(&mut self, record: &Record) {
        self.records.push(record.clone());
    }

    fn on_replayed(&mut self, decision: &Arc<Proposal>) {
        self.replayed.push(decision.clone());
    }

    // The run's story and its counts tell of damage.
    fn on_damaged_snapshot(&mut self, error: &StorageError, _: bool) {
        self.was_contradicted = matches!(error, StorageError::Contradicted { .. });
    }

    fn on_damaged_log(&mut self, _: &StorageError) {}
}

/// Preprocessing, consensus, execution and the disk of one replica.
pub(super) struct SimReplica<S: Stack> {
    identity: (ClusterId, Epoch),
    preprocessing: Preprocessing,
    consensus: Consensus<S>,
    execution: Execution<S::Executor>,
    clients: ClientDirectory,
    /// What consensus has decided and execution has not seen.
    work: VecDeque<Work>,
    /// What preprocessing was told last of what is expected.
    expected: (View, bool),
    /// Frames and batches that were refused because of what their sender had verified before.
    pub over_budget: u64,
    /// What each peer had sent, when it was looked at last, that no correct replica sends.
    offences: Vec<u64>,
    /// Reads that were refused.
    pub reads_refused: u64,
    /// Operations that were executed in order in this turn.
    ordered: u64,
    inbox: VecDeque<(Peer, Bytes)>,
    pub disk: SimDisk,
    /// What a restart found to be written still.
    closing: Option<Box<dyn CheckpointSnapshot>>,
    /// The next decision that has frames is executed wrongly.
    misexecutes: bool,
}

/// A replica that nothing has happened to.
pub(super) fn fresh_replica<S: Stack>(
    node: NodeId,
    config: &SimConfig,
    maker: &dyn PartsMaker<S>,
) -> Replica<S> {
    make_replica(node, config, maker, None)
}

/// What judges frames.
fn checker_of(
    node: NodeId,
    config: &SimConfig,
    directory: &ClientDirectory,
    history: Option<&EpochHistory>,
) -> FrameChecker {
    let (digester, limits) = (Digester::new(CLUSTER), config.limits);
    let (n, directory) = (config.replicas, directory.clone());
    let checker = FrameChecker::new(node, n, config.auth, limits, digester, directory);
    let checker = checker.with_reads(config.unordered);
    match history {
        Some(history) => checker.with_membership(history.membership().clone()),
        None => checker,
    }
}

impl<S: Stack> SimReplica<S> {
    /// Starts a process on the disk that `disk_state` holds.
    ///
    /// # Errors
    /// When it refuses to start: what is on the disk is damaged, or not there.
    pub fn start(
        node: NodeId,
        config: &SimConfig,
        (maker, speculates): (&dyn PartsMaker<S>, bool),
        disk_state: &mut DiskState,
        rng: SimRng,
    ) -> Result<(Self, Restored, ReadBack), StorageError> {
        let digester = Digester::new(CLUSTER);
        disk_state.open(CLUSTER, node)?;
        let history = read_history(config, &disk_state.history);
        let (epoch, base) = epoch_of(history.as_ref());
        let identity = (CLUSTER, epoch);
        let mut replica = make_replica(node, config, maker, history.as_ref());
        let mut executor = maker.executor(config, epoch, speculates);
        let mut read_back = ReadBack::default();
        let quorum = Quorum::of(config.replicas).expect("a simulated cluster has a valid size");
        let reader = RecordReader::new(digester.clone(), config.limits);
        let settings = RestartSettings {
            reader: reader.clone(),
            can_abstain: quorum.n() > quorum.quorum(),
            base,
        };
        let mut restored = restart(disk_state, &settings, &mut replica, &mut executor, &mut read_back)?;
        executor.keep_snapshots(true);
        let record_bytes_max = config.lengths().log_record();
        let segment_bytes = config.segment_bytes.max(record_bytes_max as u64 + 4096) / 4096 * 4096 + 4096;
        let settings = DiskSettings {
            sync_us: config.sync_us,
            segment_bytes,
            segments_max: disk_budget(config, segment_bytes).segments_max(),
            record_bytes_max,
            short_percent: 5,
            write_syncs: config.write_syncs,
        };
        let directory = Keyring::get().directory(node, config.clients(), config.auth);
        let expectations = ExpectedTraffic::default();
        let checker = checker_of(node, config, &directory, history.as_ref());
        let gate = PeerVerifyGate::with_limits(
            Quorum::of(config.replicas).expect("a simulated cluster has a valid size"),
            OrderingOf::<S>::leader_of,
            expectations.clone(),
            config.gate,
        );
        let reads = ReadGate::new(replica.reads_from(), executor.executed());
        let this = Self {
            identity,
            preprocessing: Preprocessing::new(checker, gate, identity),
            expected: (replica.view(), false),
            consensus: Consensus::new(replica, expectations, identity, false),
            execution: Execution::new(
                (executor, reads),
                (config.clients(), read_limits(config)),
                identity,
            ),
            clients: directory,
            work: VecDeque::new(),
            over_budget: 0,
            offences: vec![0; config.replicas],
            reads_refused: 0,
            ordered: 0,
            inbox: VecDeque::new(),
            disk: SimDisk::new(disk_state.clone(), (&restored, reader), settings, rng),
            closing: restored.closing.take(),
            misexecutes: false,
        };
        Ok((this, restored, read_back))
    }

    /// The epoch that it is in.
    pub const fn epoch(&self) -> Epoch {
        self.identity.1
    }

    /// A message arrived; it is looked at in the next turn.
    pub fn receive(&mut self, from: Peer, message: Bytes) {
        self.inbox.push_back((from, message));
    }

    /// The protocols.
    pub const fn replica(&self) -> &Replica<S> {
        self.consensus.replica()
    }

    /// How many frames of reads the state did not answer.
    pub const fn reads_unanswered(&self) -> u64 {
        self.execution.reads_refused()
    }

    /// Whether a turn would find work at once.
    pub fn has_work(&self) -> bool {
        !self.inbox.is_empty() || self.execution.has_work()
    }

    /// The claim for the state as it is, at the end of a run: nobody is told what was still to be executed.
    pub fn digest_now(&mut self) -> CheckpointClaim {
        let claim = self.execution.digest_now(&mut Deaf);
        claim.expect("a snapshot is installed in one step")
    }

    /// The host's clock shows this time of day.
    pub fn on_wall_clock(&mut self, now: Time, unix: UnixTime) {
        self.consensus.on_wall_clock(now, unix);
    }

    /// One turn: everything that arrived, what the disk has done, what is due. `now` is the host's clock,
    /// `world` that of the disk.
    pub fn turn(&mut self, now: Time, world: Time, durable: Durable, said: &mut Vec<Said>) {
        if let Some(mut closing) = self.closing.take() {
            self.disk.keep_snapshot(world, &mut *closing);
        }
        self.consensus.on_time(now);
        if let Some(end) = durable.log {
            self.consensus.on_durable(end);
        }
        if let Some(seq) = durable.snapshot {
            self.consensus.on_snapshot_kept(now, seq);
        }
        if let Some(seq) = durable.adopted {
            self.consensus.on_snapshot(now, SnapshotEvent::Completed(seq));
        }
        while let Some((from, message)) = self.inbox.pop_front() {
            self.take(now, world, from, message, said);
        }
        let (preprocessing, mut passed) = self.preprocessing(now, world, said);
        preprocessing.verify(&mut passed);
        let (execution, mut results) = self.execution(now, world, said);
        execution.step(&mut results);
        execution.background(BACKGROUND_BYTES, &mut results);
        let operations = results.operations;
        self.spend(operations);
        while self.decide(now, world, said) || self.work(now, world, said) {}
        self.read(now, world, said);
        self.tell_offences(said);
        self.execution.keep_snapshots(!self.disk.is_writing_snapshot());
        self.expected = (self.replica().view(), self.replica().asks_for_decisions());
        self.consensus.tell_expectations();
    }

    /// A message of a link.
    fn take(&mut self, now: Time, world: Time, from: Peer, message: Bytes, said: &mut Vec<Said>) {
        let (before, lies) = (verdicts_given(), self.replica().counters().chunks_refused);
        match (route(&message, from, self.identity), from) {
            (Ok(Route::Consensus(from)), _) => {
                if !self.consensus.on_message(now, from, &message) {
                    let refusal = Refusal::Archive;
                    said.push(Said::Refused { from, refusal });
                }
                if self.replica().counters().chunks_refused > lies {
                    let refusal = Refusal::Piece;
                    said.push(Said::Refused { from, refusal });
                }
            }
            (Ok(Route::Frames(from)), _) => {
                let (preprocessing, mut passed) = self.preprocessing(now, world, said);
                // What was verified for clients is not on account of this replica.
                preprocessing.verify(&mut passed);
                let before = verdicts_given();
                preprocessing.take_message(now, from, &message, &mut passed);
                return self.tell_effort(from, &message, before, said);
            }
            (Ok(Route::Request(client)), _) => {
                let (preprocessing, mut passed) = self.preprocessing(now, world, said);
                preprocessing.take_frame(client, message.slice(ENVELOPE_BYTES..), &mut passed);
            }
            (Ok(Route::Reconfiguration(from)), _) => {
                if !self.consensus.on_reconfiguration(now, from, &message) {
                    let refusal = Refusal::Archive;
                    said.push(Said::Refused { from, refusal });
                }
            }
            (Ok(Route::OtherEpoch(from, epoch)), _) => self.consensus.on_other_epoch(now, from, epoch),
            // Nobody asks, and there are no links.
            (Ok(Route::Question(_) | Route::Link), _) => {}
            (Err(error), Peer::Replica(from)) => {
                let refusal = Refusal::Unroutable(error);
                said.push(Said::Refused { from, refusal });
            }
            (Err(_), Peer::Client(_)) => {}
        }
        if let Peer::Replica(from) = from {
            self.tell_effort(from, &message, before, said);
        }
    }

    /// Says what the protocols refused since the last turn as misbehaviour.
    fn tell_offences(&mut self, said: &mut Vec<Said>) {
        let replica = self.consensus.replica();
        for (node, known) in NodeId::all(self.offences.len()).zip(&mut self.offences) {
            let offences = replica.offences(node);
            if offences.count > *known
                && let Some(last) = offences.last
            {
                *known = offences.count;
                let (from, refusal) = (node, Refusal::Protocol(last));
                said.push(Said::Refused { from, refusal });
            }
        }
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

    /// Lets consensus conclude; true if it did something.
    fn decide(&mut self, now: Time, world: Time, said: &mut Vec<Said>) -> bool {
        for read in self.disk.take_read() {
            said.push(Said::ReadLog(read.decisions.len()));
            self.consensus.on_logged(now, read);
        }
        let mut decisions = Decisions {
            world,
            disk: &mut self.disk,
            clients: &self.clients,
            work: &mut self.work,
            snapshots: Vec::new(),
            said,
        };
        let acted = self.consensus.turn(now, &mut decisions);
        for event in decisions.snapshots {
            self.consensus.on_snapshot(now, event);
        }
        acted
    }

    /// Lets execution do what consensus has decided; true if there was something.
    fn work(&mut self, now: Time, world: Time, said: &mut Vec<Said>) -> bool {
        let mut any = false;
        while let Some(work) = self.work.pop_front() {
            any = true;
            match work {
                Work::Decision(decision) => {
                    let decision = self.as_executed(decision, said);
                    let (execution, mut results) = self.execution(now, world, said);
                    while !execution.has_room() {
                        execution.step(&mut results);
                    }
                    execution.execute(&decision, &mut results);
                    let operations = results.operations;
                    self.spend(operations);
                }
                Work::ReplyAgain(frame) => {
                    let (execution, mut results) = self.execution(now, world, said);
                    execution.reply_again(now, &frame, &mut results);
                }
                Work::ServeReads(from) => self.execution.serve_reads(from),
                Work::Install(seq) => {
                    let chunks = self.disk.snapshot_chunks(seq);
                    let (execution, mut results) = self.execution(now, world, said);
                    execution.begin_install(&mut results);
                    let read = chunks.iter().try_for_each(|chunk| execution.install_chunk(chunk));
                    read.and_then(|()| execution.finish_install(&mut results))
                        .expect("what was checked piece by piece can be read");
                }
            }
        }
        any
    }

    /// Executes some reads beside the order: work is counted in operations.
    fn read(&mut self, now: Time, world: Time, said: &mut Vec<Said>) {
        let order_waits = std::mem::take(&mut self.ordered) > 0;
        let mut left = TURN_READS;
        while left > 0 {
            let first = said.len();
            let (execution, mut results) = self.execution(now, world, said);
            results.reads = true;
            let (mut operations, mut is_read) = (0, false);
            let turn = execution.read(order_waits, &mut results, |frame| {
                is_read = frame.mode() == Mode::Unordered;
                operations = frame.operation_count() as u64;
                operations
            });
            let Some(turn) = turn else { break };
            let answers = said.split_off(first);
            said.push(Said::ReadTurn(turn.client));
            if turn.is_answered && is_read {
                said.push(Said::Read(self.execution.executor().executed()));
            }
            said.extend(answers);
            left = left.saturating_sub(operations);
        }
    }

    /// So many operations were executed in order.
    fn spend(&mut self, operations: u64) {
        self.ordered += operations;
        self.execution.spent_on_order(operations);
    }

    /// Execution, and where its results go.
    fn execution<'a>(
        &'a mut self,
        now: Time,
        world: Time,
        said: &'a mut Vec<Said>,
    ) -> (&'a mut Execution<S::Executor>, Results<'a, S>) {
        let (_, passed) = self.preprocessing(now, world, said);
        (passed.execution, passed.results)
    }

    /// Preprocessing, and where what passes goes.
    fn preprocessing<'a>(
        &'a mut self,
        now: Time,
        world: Time,
        said: &'a mut Vec<Said>,
    ) -> (&'a mut Preprocessing, Passed<'a, S>) {
        let results = Results {
            now,
            world,
            consensus: &mut self.consensus,
            disk: &mut self.disk,
            operations: 0,
            reads: false,
            said,
        };
        let passed = Passed {
            execution: &mut self.execution,
            over_budget: &mut self.over_budget,
            reads_refused: &mut self.reads_refused,
            results,
        };
        (&mut self.preprocessing, passed)
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::app::SmallKv;
    use crate::sim::stack::Mixed;

    #[test]
    fn a_log_that_says_of_no_view_as_late_as_the_superblock_is_refused() {
        let (node, config) = (NodeId::new(1), SimConfig::calm(4, 1));
        let mut disk_state = DiskState::format("disk", CLUSTER, node, 7);
        let start = |disk_state: &mut DiskState| {
            SimReplica::start(
                node,
                &config,
                (&Mixed(SmallKv), false),
                disk_state,
                SimRng::new(1),
            )
            .err()
        };
        assert!(start(&mut disk_state).is_none());
        disk_state.update(|superblock| superblock.cut(1, View::new(3)));
        let refused = start(&mut disk_state).expect("what was said in view 3 is lost");
        assert!(
            refused.to_string().contains("records of views are lost"),
            "{refused}"
        );
    }
}
