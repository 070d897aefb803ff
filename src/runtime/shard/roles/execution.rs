use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Instant;

use bytes::Bytes;

use super::Role;
use crate::runtime::metrics::{Metrics, count};
use crate::runtime::shard::crew::Crew;
use crate::runtime::shard::lanes::{Done, Inlet, Outgoing, Outlet, Work, answer, any_blocked};
use crate::runtime::shard::reactor::Reactor;
use crate::runtime::storage::StorageError;
use crate::runtime::storage::keeper::KeeperHandle;
use crate::smr::execution::{ExecutionEvent, Executor, ReadGate, ReadLimits, ReadQueue, Resends};
use crate::smr::messages::{ClientReply, FrameId, RefusalReason};
use crate::smr::types::{ClusterId, Epoch, Time, View};

/// Chunks of an image read in one step.
const STEP_CHUNKS: usize = 2;
/// Decisions executed in one step.
const STEP_DECISIONS: usize = 16;
/// Bytes of checkpoint work done in one step.
const STEP_BACKGROUND_BYTES: usize = 128 * 1024;

/// The lanes of the execution role.
pub(crate) struct ExecutionLanes {
    /// Decisions and resends, from consensus.
    pub decisions: Inlet<Work>,
    /// Read-only frames, from each preprocess role, on their way into the queue of reads; and tools'
    /// questions.
    pub unordered: Vec<Inlet<Work>>,
    /// What was done, to consensus.
    pub done: Outlet<Done>,
    /// Replies, to each network role; a client's is its number mod their count.
    pub replies: Vec<Outlet<Outgoing>>,
}

/// How long reads beside the order are executed in one step, but for the last one.
const STEP_READ_NANOS: u64 = 200_000;

fn nanos_since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Executes decisions and answers clients.
pub(crate) struct ExecutionRole<E: Executor> {
    executor: E,
    /// From which states reads are answered, and which read is next.
    gate: ReadGate,
    reads: ReadQueue,
    resends: Resends,
    lanes: ExecutionLanes,
    cluster: ClusterId,
    epoch: Epoch,
    events: Vec<ExecutionEvent>,
    has_background: bool,
    /// The chunks of an image that replaces the state.
    installing: Option<Receiver<Result<Bytes, StorageError>>>,
    failure: Option<StorageError>,
    keeper: Option<KeeperHandle>,
    /// The executor's helpers.
    crew: Option<Crew>,
    metrics: Arc<Metrics>,
}

impl<E: Executor> ExecutionRole<E> {
    pub fn new(
        (executor, gate): (E, ReadGate),
        (clients, read_limits): (usize, ReadLimits),
        lanes: ExecutionLanes,
        keeper: Option<KeeperHandle>,
        crew: Option<Crew>,
        (cluster, epoch): (ClusterId, Epoch),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            executor,
            gate,
            reads: ReadQueue::new(clients, read_limits),
            resends: Resends::new(clients),
            lanes,
            cluster,
            epoch,
            events: Vec::new(),
            has_background: false,
            installing: None,
            failure: None,
            keeper,
            crew,
            metrics,
        }
    }

    fn is_blocked(&mut self) -> bool {
        let replies = any_blocked(&mut self.lanes.replies);
        self.lanes.done.is_blocked() || replies
    }

    fn work(&mut self, now: Time, work: Work) {
        match work {
            Work::Decision(decision) => {
                let begin = Instant::now();
                self.executor.execute(&decision, &mut self.events);
                self.reads.spent_on_order(nanos_since(begin));
                self.has_background = true;
            }
            Work::Install(chunks) => {
                self.executor.settle(&mut self.events);
                self.installing = Some(chunks);
                self.reads.clear();
            }
            // Other replicas answer while the state is being replaced.
            Work::Digest(_) if self.installing.is_some() => {}
            Work::Unordered(frame) => {
                let id = frame.id();
                if self.installing.is_some() {
                    let reason = self.gate.refuse();
                    self.refuse(&id, reason);
                } else if !self.reads.offer(frame) {
                    count(&self.metrics.counters.reads_over_quota);
                    self.refuse(&id, RefusalReason::Overloaded);
                }
            }
            Work::ServeReads(from) => self.gate.serve_from(from),
            Work::ReplyAgain(frame) => self.reply_again(now, &frame),
            Work::Digest(answer) => {
                self.executor.settle(&mut self.events);
                // Nobody waiting for it any more is fine.
                let _ = answer.send(self.executor.digest_now());
            }
        }
    }

    /// Sends a cached reply once more, if its client may have so many.
    fn reply_again(&mut self, now: Time, frame: &FrameId) {
        if !self
            .resends
            .reply_again(now, frame, &mut self.executor, &mut self.events)
        {
            count(&self.metrics.counters.resends_refused);
        }
    }

    fn refuse(&mut self, frame: &FrameId, reason: RefusalReason) {
        let message = ClientReply::refusal(self.cluster, self.epoch, View::ZERO, frame, reason);
        answer(&mut self.lanes.replies, frame.key, message);
    }

    /// Executes reads beside the order while it is their turn; true if there were any.
    fn read(&mut self) -> bool {
        let begin = Instant::now();
        let mut any = false;
        while !self.is_blocked() && nanos_since(begin) < STEP_READ_NANOS {
            let order_waits = !self.lanes.decisions.is_empty() || self.executor.has_work();
            let Some(frame) = self.reads.next(order_waits) else {
                break;
            };
            any = true;
            let read = Instant::now();
            if let Err(reason) = self.gate.serve(&mut self.executor, &frame, &mut self.events) {
                self.refuse(&frame.id(), reason);
            }
            self.reads
                .spent(frame.key().client, nanos_since(read), order_waits);
            self.emit();
        }
        any
    }

    /// Reads some of an image; true while there is one.
    fn install(&mut self) -> bool {
        let Some(chunks) = &self.installing else {
            return false;
        };
        for _ in 0..STEP_CHUNKS {
            let error = match chunks.try_recv() {
                Ok(Ok(chunk)) => match self.executor.read_image_chunk(&chunk) {
                    Ok(()) => continue,
                    Err(source) => StorageError::Image {
                        path: "images".into(),
                        source,
                    },
                },
                Ok(Err(error)) => error,
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => match self.executor.finish_image() {
                    Ok(claim) => {
                        if let Some(keeper) = &self.keeper {
                            keeper.installed();
                        }
                        self.gate.on_executed(claim.seq);
                        self.lanes.done.push(Done::Installed {
                            seq: claim.seq,
                            windows: self.executor.client_windows(),
                        });
                        self.metrics.publish_installed(claim);
                        self.installing = None;
                        return true;
                    }
                    Err(source) => StorageError::Image {
                        path: "images".into(),
                        source,
                    },
                },
            };
            self.failure = Some(error);
            self.installing = None;
            return true;
        }
        true
    }

    fn emit(&mut self) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                ExecutionEvent::Reply { key, view, body } => {
                    let message = ClientReply::results(self.cluster, self.epoch, view, &body);
                    answer(&mut self.lanes.replies, key, message);
                }
                ExecutionEvent::Refused { frame, view, reason } => {
                    let message = ClientReply::refusal(self.cluster, self.epoch, view, &frame, reason);
                    answer(&mut self.lanes.replies, frame.key, message);
                }
                ExecutionEvent::Executed { seq, operations } => {
                    self.gate.on_executed(seq);
                    self.lanes.done.push(Done::Executed { seq, operations });
                }
                ExecutionEvent::Checkpoint(taken) => self.lanes.done.push(Done::Checkpoint(taken)),
                ExecutionEvent::Help(help) => {
                    if let Some(keeper) = &self.keeper {
                        keeper.help(help);
                    }
                }
                ExecutionEvent::Image(image) => {
                    if let Some(keeper) = &self.keeper {
                        keeper.keep(image);
                    }
                }
            }
        }
        // Only the allocation stays.
        self.events = events;
    }
}

impl<E: Executor> Role for ExecutionRole<E> {
    fn step(&mut self, now: Time, _: &mut Reactor) -> bool {
        let mut any = self.install();
        for _ in 0..STEP_DECISIONS {
            if self.installing.is_some() || !self.executor.has_room() || self.is_blocked() {
                break;
            }
            let Some(work) = self.lanes.decisions.pop() else {
                break;
            };
            any = true;
            self.work(now, work);
            self.emit();
        }
        if self.installing.is_none() && !self.is_blocked() {
            let begin = Instant::now();
            if self.executor.step(&mut self.events) {
                any = true;
                self.has_background = true;
                self.reads.spent_on_order(nanos_since(begin));
                self.emit();
            }
        }
        for lane in 0..self.lanes.unordered.len() {
            for _ in 0..STEP_DECISIONS {
                if self.is_blocked() {
                    break;
                }
                let Some(work) = self.lanes.unordered[lane].pop() else {
                    break;
                };
                any = true;
                self.work(now, work);
                self.emit();
            }
        }
        any |= self.read();
        if self.has_background && self.installing.is_none() {
            self.has_background = self
                .executor
                .background_step(STEP_BACKGROUND_BYTES, &mut self.events);
            any |= self.has_background;
            self.emit();
        }
        any
    }

    fn finish(&mut self, _: Time, _: &mut Reactor) -> bool {
        if let Some(crew) = &self.crew
            && self.executor.wants_help()
        {
            crew.ring();
        }
        self.lanes.done.ring();
        if let Some(keeper) = &self.keeper {
            // One image is written at a time; meanwhile checkpoints are taken without.
            self.executor.keep_images(!keeper.is_writing());
        }
        self.lanes.replies.iter_mut().for_each(Outlet::ring);
        let counters = &self.metrics.counters;
        counters
            .application_panics
            .store(self.executor.panics(), Ordering::Relaxed);
        counters
            .reads_refused
            .store(self.gate.refused(), Ordering::Relaxed);
        counters
            .executions_repeated
            .store(self.executor.aborts(), Ordering::Relaxed);
        false
    }

    fn has_input(&self) -> bool {
        !self.lanes.decisions.is_empty()
            || self.lanes.unordered.iter().any(|lane| !lane.is_empty())
            || self.lanes.done.has_overflow()
            || self.lanes.replies.iter().any(Outlet::has_overflow)
            || self.has_background
            || self.installing.is_some()
            || self.executor.has_work()
            || !self.reads.is_empty()
    }

    fn failure(&mut self) -> Option<StorageError> {
        self.failure.take()
    }

    fn drain(&mut self, _: bool) -> bool {
        !self.has_input() && self.executor.is_settled()
    }
}
