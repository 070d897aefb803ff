use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Role, STEP_MESSAGES};
use crate::runtime::config::RoleKind;
use crate::runtime::flight::{FlightEvent, FlightKind, FlightPen};
use crate::runtime::metrics::{Lane, Measure, Metrics, Recorder};
use crate::runtime::shard::lanes::{LinkReceiver, LinkSender, Logged};
use crate::runtime::shard::reactor::{Completion, Reactor, Token};
use crate::runtime::storage::snapshot_transfer::SnapshotTransferHandle;
use crate::runtime::storage::storage_worker::{StorageEvent, StorageWorkerHandle};
use crate::runtime::storage::{LogWrite, SmrPersistentLog, StorageError};
use crate::smr::decision_log::LoggedRange;
use crate::smr::node::{Log, LogEntry, LogPort, StorageTask};
use crate::smr::types::{Lsn, Time};

const WRITE: u8 = 1;

/// How long to wait before what there was no space for is written again.
const SPACE_PAUSE: Duration = Duration::from_secs(1);

/// The lanes of the log role.
pub(crate) struct LogLanes {
    /// Records, from consensus.
    pub entries: LinkReceiver<LogEntry>,
    /// What the storage worker did.
    pub kept: LinkReceiver<StorageEvent>,
    /// What is on disk, to consensus.
    pub logged: LinkSender<Logged>,
}

/// Writes the persistent log on the shard's own ring, one group of records at a time.
pub(crate) struct LogRole<L> {
    owner: u8,
    log: Log<L>,
    port: Port,
    /// Whether the log's memory is registered with the ring; unknown before the first turn.
    is_registered: Option<bool>,
    /// What is being written. Invariant: its memory is left alone until its completion.
    under_way: Option<LogWrite>,
    entries: LinkReceiver<LogEntry>,
    kept: LinkReceiver<StorageEvent>,
    /// There was no space: write again then.
    write_again_at: Option<Time>,
    /// The last write that came to its end had no space.
    lacks_space: bool,
    failure: Option<StorageError>,
    metrics: Arc<Metrics>,
    record: LogRecord,
    /// Where this role measures.
    recorder: Arc<Recorder>,
    /// When what is being written was given to the kernel.
    sync_begun: Time,
}

/// What was recorded last of the log.
#[derive(Default)]
struct LogRecord {
    pen: FlightPen,
    durable: Lsn,
    lacks_space: bool,
}

/// Where the log's wishes go.
struct Port {
    files: BTreeMap<u64, File>,
    /// The segment that is being written to.
    writing: Option<u64>,
    storage_worker: StorageWorkerHandle,
    snapshot_transfer: SnapshotTransferHandle,
    logged: LinkSender<Logged>,
}

impl LogPort for Port {
    fn storage(&mut self, task: StorageTask) {
        if let StorageTask::Release(released) = &task {
            for index in &released.gone {
                assert_ne!(
                    self.writing,
                    Some(*index),
                    "a log keeps the segment that is written to"
                );
                self.files.remove(index);
            }
        }
        self.storage_worker.ask(task);
    }

    fn read(&mut self, range: LoggedRange, segments: Vec<u64>) {
        self.snapshot_transfer.read_log(range, segments);
    }

    fn durable(&mut self, end: Lsn) {
        self.logged.push(Logged::Durable(end));
    }
}

impl<L: SmrPersistentLog> LogRole<L> {
    pub fn new(
        owner: u8,
        writer: L,
        files: BTreeMap<u64, File>,
        (storage_worker, snapshot_transfer): (StorageWorkerHandle, SnapshotTransferHandle),
        lanes: LogLanes,
        metrics: Arc<Metrics>,
    ) -> Self {
        let LogLanes {
            entries,
            kept,
            logged,
        } = lanes;
        Self {
            owner,
            log: Log::new(writer),
            port: Port {
                files,
                writing: None,
                storage_worker,
                snapshot_transfer,
                logged,
            },
            is_registered: None,
            under_way: None,
            entries,
            kept,
            write_again_at: None,
            lacks_space: false,
            failure: None,
            recorder: metrics.measures.recorder(),
            metrics,
            record: LogRecord::default(),
            sync_begun: Time::START,
        }
    }

    /// Records how far the log is, and what keeps it from going on.
    fn record_turn(&mut self, now: Time) {
        let lacks_space = self.is_short_of_space();
        let (record, durable) = (&mut self.record, self.log.writer.durable());
        if durable != record.durable {
            record.durable = durable;
            let event = FlightEvent::of(FlightKind::Written);
            record.pen.record(now, event.numbers(durable.get(), 0));
        }
        if lacks_space != record.lacks_space {
            record.lacks_space = lacks_space;
            let kind = match lacks_space {
                true => FlightKind::NoSpace,
                false => FlightKind::Space,
            };
            record.pen.record(now, FlightEvent::of(kind));
        }
        if self.failure.is_some() {
            let event = FlightEvent::of(FlightKind::StorageFailed);
            record.pen.record(now, event);
        }
    }

    fn take_kept(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some(kept) = self.kept.pop() {
            any = true;
            match kept {
                StorageEvent::Segment { index, file } => {
                    self.port.files.insert(index, file);
                    self.log.on_segment(index);
                }
                StorageEvent::NoSegment => self.log.on_no_segment(now),
                StorageEvent::Failed(error) => self.failure = Some(error),
                StorageEvent::Snapshot(_) | StorageEvent::Adopted(_) => {}
            }
        }
        any
    }

    fn take_entries(&mut self) -> bool {
        let mut any = false;
        for _ in 0..4 * STEP_MESSAGES {
            if self.log.is_behind() {
                break;
            }
            let Some(entry) = self.entries.pop() else {
                break;
            };
            self.log.take(entry, &mut self.port);
            any = true;
        }
        any
    }

    /// Whether nothing is written until somebody makes room: an operator, or a checkpoint. To try again is
    /// not to have room: that is told when a segment was made, or a write came to its end.
    fn is_short_of_space(&self) -> bool {
        let writer = &self.log.writer;
        let is_at_bound = writer.waits_for_space() && writer.wanted_segment().is_none();
        self.log.lacks_segment() || self.lacks_space || is_at_bound
    }

    fn token(&self, operation: u8) -> Token {
        Token {
            owner: self.owner,
            operation,
            slot: 0,
            generation: 0,
        }
    }

    fn operate(&mut self, now: Time, reactor: &mut Reactor) -> bool {
        if self.failure.is_some() {
            return false;
        }
        if self.log.writer.is_short_of_space() {
            let again_at = *self.write_again_at.get_or_insert_with(|| {
                tracing::error!("no space to write the log: nothing is voted until there is");
                now.after(SPACE_PAUSE)
            });
            if now < again_at {
                return false;
            }
        }
        self.write_again_at = None;
        if self.under_way.is_some() {
            return false;
        }
        // Before its first write: what is lent then is not among the log's memory.
        let is_registered = *self
            .is_registered
            .get_or_insert_with(|| register(&self.log.writer, reactor));
        let Some(write) = self.log.writer.next_write() else {
            return false;
        };
        let Some(file) = self.port.files.get(&write.segment) else {
            self.failure = Some(StorageError::Log {
                doing: "opening a segment",
                source: std::io::ErrorKind::NotFound.into(),
            });
            return false;
        };
        let (fd, token) = (file.as_raw_fd(), self.token(WRITE));
        self.port.writing = Some(write.segment);
        self.sync_begun = self.metrics.measures.now();
        let write = self.under_way.insert(write);
        let bytes = &write.buffer[write.bytes.clone()];
        // Each write is on the disk when it completes: cheaper than a sync of its own, see `benches/log`.
        //
        // SAFETY: the memory is this role's while the write is under way, and not touched; this role is
        // dropped only after the ring has cancelled what is under way. The file stays in `files` that long:
        // the port sees to it.
        unsafe {
            match is_registered {
                true => reactor.write_fixed(fd, bytes, write.buffer.number(), write.offset, token),
                false => reactor.write(fd, bytes, write.offset, token),
            }
        }
        true
    }
}

/// Registers the log's memory with the ring that writes it; false when it has to be written without.
fn register(log: &impl SmrPersistentLog, reactor: &mut Reactor) -> bool {
    let registered = reactor.register_buffers(&log.memory());
    registered
        .inspect_err(|error| {
            tracing::warn!(%error, "the log's buffers cannot be registered, writes cost more: raise the locked memory, see `atlas doctor`");
        })
        .is_ok()
}

impl<L: SmrPersistentLog> Role for LogRole<L> {
    fn kind(&self) -> Option<RoleKind> {
        Some(RoleKind::Log)
    }

    fn record_with(&mut self, pen: FlightPen) {
        self.record = LogRecord {
            pen,
            durable: self.log.writer.durable(),
            lacks_space: false,
        };
    }

    fn step(&mut self, now: Time, _: &mut Reactor) -> bool {
        let kept = self.take_kept(now);
        if self.port.logged.is_blocked() {
            return kept;
        }
        self.take_entries() | kept
    }

    fn finish(&mut self, now: Time, reactor: &mut Reactor) -> bool {
        let operated = self.operate(now, reactor);
        let told = self.log.told();
        self.log.turn(now, &mut self.port);
        self.port.logged.ring();
        let counters = &self.metrics.counters;
        counters
            .snapshot_bytes
            .store(self.port.storage_worker.snapshot_bytes(), Ordering::Relaxed);
        counters
            .log_waits_for_space
            .store(u64::from(self.is_short_of_space()), Ordering::Relaxed);
        counters
            .log_bytes
            .store(self.log.writer.used_bytes(), Ordering::Relaxed);
        self.record_turn(now);
        operated || self.log.told() > told
    }

    fn on_completion(&mut self, _: &mut Reactor, completion: Completion) {
        let outcome = usize::try_from(completion.result).map_err(|_| -completion.result);
        let Some(write) = self.under_way.take() else {
            return;
        };
        self.port.writing = None;
        let took = self.metrics.measures.now().since(self.sync_begun);
        if outcome.is_ok() {
            self.recorder.record_time(Measure::LogSync, took);
            self.recorder.record(Measure::LogSyncBytes, write.bytes.len());
        }
        let durable = self.log.writer.durable();
        if let Err(error) = self.log.writer.on_written(write.buffer, outcome) {
            self.failure = Some(error);
        }
        if self.log.writer.durable() > durable {
            self.metrics.counters.log_syncs.fetch_add(1, Ordering::Relaxed);
        }
        self.lacks_space = self.log.writer.is_short_of_space();
    }

    fn observe(&mut self) {
        self.recorder.record_depth(Lane::Records, self.entries.len());
    }

    fn has_input(&self) -> bool {
        (!self.log.is_behind() && !self.entries.is_empty())
            || !self.kept.is_empty()
            || self.port.logged.has_overflow()
    }

    fn next_timeout(&self) -> Option<Time> {
        self.log
            .next_timeout()
            .into_iter()
            .chain(self.write_again_at)
            .min()
    }

    fn drain(&mut self, finishing: bool) -> bool {
        finishing && !self.has_input() && (self.log.writer.is_idle() || self.log.writer.waits_for_space())
    }

    fn failure(&mut self) -> Option<StorageError> {
        self.failure.take()
    }
}
