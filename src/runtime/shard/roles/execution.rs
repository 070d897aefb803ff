use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use bytes::Bytes;

use super::Role;
use crate::runtime::config::RoleKind;
use crate::runtime::flight::{FlightEvent, FlightKind, FlightPen};
use crate::runtime::metrics::{Lane, Measure, Metrics, Recorder, count};
use crate::runtime::shard::crew::HelperThreads;
use crate::runtime::shard::lanes::{
    DecisionTimes, Done, LinkReceiver, LinkSender, Outgoing, Work, answer, any_blocked,
};
use crate::runtime::shard::reactor::Reactor;
use crate::runtime::storage::StorageError;
use crate::runtime::storage::storage_worker::StorageWorkerHandle;
use crate::smr::execution::{CheckpointHelp, CheckpointSnapshot, Executor, SessionWindows};
use crate::smr::messages::{CheckpointClaim, FrameKey, RefusalReason, TakenCheckpoint};
use crate::smr::node::{Execution, ExecutionPort};
use crate::smr::types::{SeqNo, Time, UnixTime};

/// Chunks of a snapshot read in one step.
const STEP_CHUNKS: usize = 2;
/// Decisions executed in one step.
const STEP_DECISIONS: usize = 16;
/// Bytes of checkpoint work done in one step.
const STEP_BACKGROUND_BYTES: usize = 128 * 1024;

/// The lanes of the execution role.
pub(crate) struct ExecutionLanes {
    /// Decisions and resends, from consensus.
    pub decisions: LinkReceiver<Work>,
    /// Read-only frames, from each preprocess role, on their way into the queue of reads; and tools'
    /// questions.
    pub unordered: Vec<LinkReceiver<Work>>,
    /// What was done, to consensus.
    pub done: LinkSender<Done>,
    /// Replies, to each network role; a client's is its number mod their count.
    pub replies: Vec<LinkSender<Outgoing>>,
}

/// How long reads beside the order are executed in one step, but for the last one.
const STEP_READ_NANOS: u64 = 200_000;

fn nanos_since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Moves decisions, reads and chunks from lanes to [`Execution`], and its results into others.
pub(crate) struct ExecutionRole<E: Executor> {
    execution: Execution<E>,
    inputs: Inputs,
    port: Port,
    /// The chunks of a snapshot that replaces the state.
    installing: Option<Receiver<Result<Bytes, StorageError>>>,
    failure: Option<StorageError>,
    /// The executor's helpers.
    crew: Option<HelperThreads>,
}

struct Inputs {
    decisions: LinkReceiver<Work>,
    unordered: Vec<LinkReceiver<Work>>,
}

/// Where results go.
struct Port {
    done: LinkSender<Done>,
    replies: Vec<LinkSender<Outgoing>>,
    storage_worker: Option<StorageWorkerHandle>,
    metrics: Arc<Metrics>,
    pen: FlightPen,
    now: Time,
    recorder: Arc<Recorder>,
    /// Decisions that are timed and not executed, in order, and when each was taken.
    timed: VecDeque<(Box<DecisionTimes>, Time)>,
}

impl Port {
    /// A decision is executed, and the replies to it are on their way to the links.
    fn time_executed(&mut self, seq: SeqNo) {
        // One that a state of others took the place of is never executed.
        while self.timed.front().is_some_and(|(times, _)| times.seq < seq) {
            self.timed.pop_front();
        }
        if self.timed.front().is_none_or(|(times, _)| times.seq > seq) {
            return;
        }
        let Some((times, taken)) = self.timed.pop_front() else {
            return;
        };
        let executed = self.metrics.measures.now();
        if times.is_sampled {
            let (waited, took) = (executed.since(times.released), executed.since(taken));
            self.recorder.record_time(Measure::BatchExecuted, waited);
            self.recorder.record_time(Measure::Execution, took);
            let lanes = self.replies.iter_mut();
            lanes.for_each(|lane| lane.push(Outgoing::Replied { executed }));
        }
        let networks = self.replies.len();
        for (client, received) in times.requests {
            self.replies[client.get() as usize % networks].push(Outgoing::Answered { received });
        }
    }

    fn is_blocked(&mut self) -> bool {
        let replies = any_blocked(&mut self.replies);
        self.done.is_blocked() || replies
    }
}

impl ExecutionPort for Port {
    fn answer(&mut self, frame: FrameKey, message: Bytes) {
        answer(&mut self.replies, frame, message);
    }

    fn executed(&mut self, seq: SeqNo, _: UnixTime, operations: usize) {
        self.time_executed(seq);
        self.done.push(Done::Executed { seq, operations });
        let event = FlightEvent::of(FlightKind::Executed).seq(seq);
        self.pen.record(self.now, event.numbers(operations as u64, 0));
    }

    fn checkpoint(&mut self, taken: TakenCheckpoint) {
        self.done.push(Done::Checkpoint(taken));
    }

    fn installed(&mut self, claim: CheckpointClaim, windows: Vec<SessionWindows>) {
        if let Some(storage_worker) = &self.storage_worker {
            storage_worker.installed();
        }
        let seq = claim.seq;
        self.done.push(Done::Installed { seq, windows });
        self.metrics.publish_installed(claim);
    }

    fn keep(&mut self, snapshot: Box<dyn CheckpointSnapshot>) {
        if let Some(storage_worker) = &self.storage_worker {
            storage_worker.keep(snapshot);
        }
    }

    fn help(&mut self, help: CheckpointHelp) {
        if let Some(storage_worker) = &self.storage_worker {
            storage_worker.help(help);
        }
    }
}

impl<E: Executor> ExecutionRole<E> {
    pub fn new(
        execution: Execution<E>,
        lanes: ExecutionLanes,
        storage_worker: Option<StorageWorkerHandle>,
        crew: Option<HelperThreads>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            execution,
            inputs: Inputs {
                decisions: lanes.decisions,
                unordered: lanes.unordered,
            },
            port: Port {
                done: lanes.done,
                replies: lanes.replies,
                storage_worker,
                recorder: metrics.measures.recorder(),
                metrics,
                pen: FlightPen::default(),
                now: Time::START,
                timed: VecDeque::new(),
            },
            installing: None,
            failure: None,
            crew,
        }
    }

    fn work(&mut self, now: Time, work: Work) {
        match work {
            Work::Decision(decision, times) => {
                if let Some(times) = times {
                    let taken = self.port.metrics.measures.now();
                    self.port.timed.push_back((times, taken));
                }
                let begin = Instant::now();
                self.execution.execute(&decision, &mut self.port);
                self.execution.spent_on_order(nanos_since(begin));
            }
            Work::Install(chunks) => {
                self.execution.begin_install(&mut self.port);
                self.installing = Some(chunks);
            }
            Work::Unordered(frame) => {
                if self.execution.take_read(frame, &mut self.port) == Err(RefusalReason::Overloaded) {
                    count(&self.port.metrics.counters.reads_over_quota);
                }
            }
            Work::ServeReads(from) => self.execution.serve_reads(from),
            Work::ReplyAgain(frame) => {
                if !self.execution.reply_again(now, &frame, &mut self.port) {
                    count(&self.port.metrics.counters.resends_refused);
                }
            }
            Work::Digest(answer) => {
                if let Some(claim) = self.execution.digest_now(&mut self.port) {
                    // Nobody waiting for it any more is fine.
                    let _ = answer.send(claim);
                }
            }
        }
    }

    /// Executes reads beside the order while it is their turn; true if there were any.
    fn read(&mut self) -> bool {
        let begin = Instant::now();
        let mut any = false;
        while !self.port.is_blocked() && nanos_since(begin) < STEP_READ_NANOS {
            let order_waits = !self.inputs.decisions.is_empty() || self.execution.executor().has_work();
            let read = Instant::now();
            let turn = self
                .execution
                .read(order_waits, &mut self.port, |_| nanos_since(read));
            if turn.is_none() {
                break;
            }
            any = true;
        }
        any
    }

    /// Reads some of a snapshot; true while there is one.
    fn install(&mut self) -> bool {
        let Some(chunks) = &self.installing else {
            return false;
        };
        let damaged = |source| StorageError::Snapshot {
            path: "images".into(),
            source,
        };
        for _ in 0..STEP_CHUNKS {
            let ended = match chunks.try_recv() {
                Ok(Ok(chunk)) => match self.execution.install_chunk(&chunk) {
                    Ok(()) => continue,
                    Err(source) => Err(damaged(source)),
                },
                Ok(Err(error)) => Err(error),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => {
                    self.execution.finish_install(&mut self.port).map_err(damaged)
                }
            };
            self.failure = ended.err();
            self.installing = None;
            return true;
        }
        true
    }
}

impl<E: Executor> Role for ExecutionRole<E> {
    fn kind(&self) -> Option<RoleKind> {
        Some(RoleKind::Execution)
    }

    fn record_with(&mut self, pen: FlightPen) {
        self.port.pen = pen;
    }

    fn step(&mut self, now: Time, _: &mut Reactor) -> bool {
        self.port.now = now;
        let mut any = self.install();
        for _ in 0..STEP_DECISIONS {
            if !self.execution.has_room() || self.port.is_blocked() {
                break;
            }
            let Some(work) = self.inputs.decisions.pop() else {
                break;
            };
            any = true;
            self.work(now, work);
        }
        if !self.port.is_blocked() {
            let begin = Instant::now();
            if self.execution.step(&mut self.port) {
                any = true;
                self.execution.spent_on_order(nanos_since(begin));
            }
        }
        for lane in 0..self.inputs.unordered.len() {
            for _ in 0..STEP_DECISIONS {
                if self.port.is_blocked() {
                    break;
                }
                let Some(work) = self.inputs.unordered[lane].pop() else {
                    break;
                };
                any = true;
                self.work(now, work);
            }
        }
        any |= self.read();
        any | self.execution.background(STEP_BACKGROUND_BYTES, &mut self.port)
    }

    fn finish(&mut self, now: Time, _: &mut Reactor) -> bool {
        let (execution, port) = (&mut self.execution, &mut self.port);
        if let Some(crew) = &self.crew
            && execution.executor().wants_help()
        {
            crew.ring();
        }
        port.done.ring();
        if let Some(storage_worker) = &port.storage_worker {
            // One snapshot is written at a time; meanwhile checkpoints are taken without.
            execution.keep_snapshots(!storage_worker.is_writing());
        }
        port.replies.iter_mut().for_each(LinkSender::ring);
        let counters = &port.metrics.counters;
        let publish = |counter: &AtomicU64, value| counter.store(value, Ordering::Relaxed);
        let panics = execution.executor().panics();
        let before = counters.application_panics.load(Ordering::Relaxed);
        publish(&counters.application_panics, panics);
        if panics > before {
            let event = FlightEvent::of(FlightKind::ApplicationPanicked).seq(execution.executor().executed());
            port.pen.record(now, event.numbers(panics - before, 0));
        }
        publish(&counters.reads_refused, execution.reads_refused());
        publish(&counters.executions_repeated, execution.executor().aborts());
        false
    }

    fn observe(&mut self) {
        let (inputs, recorder) = (&self.inputs, &self.port.recorder);
        recorder.record_depth(Lane::Decisions, inputs.decisions.len());
        let reads = inputs.unordered.iter();
        reads.for_each(|lane| recorder.record_depth(Lane::Reads, lane.len()));
    }

    fn has_input(&self) -> bool {
        !self.inputs.decisions.is_empty()
            || self.inputs.unordered.iter().any(|lane| !lane.is_empty())
            || self.port.done.has_overflow()
            || self.port.replies.iter().any(LinkSender::has_overflow)
            || self.execution.has_work()
    }

    fn failure(&mut self) -> Option<StorageError> {
        self.failure.take()
    }

    fn drain(&mut self, _: bool) -> bool {
        !self.has_input() && self.execution.is_settled()
    }
}
