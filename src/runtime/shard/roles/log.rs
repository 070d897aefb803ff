use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Role, STEP_MESSAGES};
use crate::runtime::metrics::Metrics;
use crate::runtime::shard::lanes::{Inlet, LogEntry, Logged, Outlet};
use crate::runtime::shard::reactor::{Completion, Reactor, Token};
use crate::runtime::storage::keeper::{KeeperHandle, Kept};
use crate::runtime::storage::shelf::ShelfHandle;
use crate::runtime::storage::{LogOperation, LogWriter, StorageError};
use crate::smr::node::KeeperTask;
use crate::smr::types::{Lsn, Time};

const WRITE: u8 = 1;

/// How long to wait before a segment is asked for again that there was no space for.
const SPACE_PAUSE: Duration = Duration::from_secs(1);

/// The lanes of the log role.
pub(crate) struct LogLanes {
    /// Records, from consensus.
    pub entries: Inlet<LogEntry>,
    /// What the keeper did.
    pub kept: Inlet<Kept>,
    /// What is on disk, to consensus.
    pub logged: Outlet<Logged>,
}

/// Writes the persistent log on the shard's own ring, one group of records at a time.
pub(crate) struct LogRole {
    owner: u8,
    writer: LogWriter,
    /// Whether the writer's buffers are registered with the ring; unknown before the first write.
    is_registered: Option<bool>,
    files: BTreeMap<u64, File>,
    keeper: KeeperHandle,
    shelf: ShelfHandle,
    lanes: LogLanes,
    /// A record there was no room for yet.
    waiting: Option<LogEntry>,
    /// The segment the keeper was asked for.
    asked: Option<u64>,
    /// There was no space: ask again then.
    ask_again_at: Option<Time>,
    /// There was no space: write again then.
    write_again_at: Option<Time>,
    /// The last segment that was asked for could not be made for lack of space.
    lacks_segment: bool,
    /// The last write that came to its end had no space.
    lacks_space: bool,
    told: Lsn,
    failure: Option<StorageError>,
    metrics: Arc<Metrics>,
}

impl LogRole {
    pub fn new(
        owner: u8,
        writer: LogWriter,
        files: BTreeMap<u64, File>,
        (keeper, shelf): (KeeperHandle, ShelfHandle),
        lanes: LogLanes,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            owner,
            told: writer.durable(),
            writer,
            is_registered: None,
            files,
            keeper,
            shelf,
            lanes,
            waiting: None,
            asked: None,
            ask_again_at: None,
            write_again_at: None,
            lacks_segment: false,
            lacks_space: false,
            failure: None,
            metrics,
        }
    }

    fn take_kept(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some(kept) = self.lanes.kept.pop() {
            any = true;
            match kept {
                Kept::Segment { index, file } => {
                    self.asked = None;
                    self.lacks_segment = false;
                    self.files.insert(index, file);
                    self.writer.add_segment(index);
                }
                Kept::NoSegment => {
                    self.ask_again_at = Some(now.after(SPACE_PAUSE));
                    self.lacks_segment = true;
                }
                Kept::Failed(error) => self.failure = Some(error),
                Kept::Image(_) | Kept::Adopted(_) => {}
            }
        }
        if self.ask_again_at.is_some_and(|at| at <= now) {
            self.ask_again_at = None;
            self.asked = None;
        }
        any
    }

    fn take_entries(&mut self) -> bool {
        let mut any = false;
        for _ in 0..4 * STEP_MESSAGES {
            let Some(entry) = self.waiting.take().or_else(|| self.lanes.entries.pop()) else {
                break;
            };
            match entry {
                LogEntry::Record { lsn, record } => {
                    if !self.writer.has_room(&record) {
                        self.waiting = Some(LogEntry::Record { lsn, record });
                        break;
                    }
                    let at = self.writer.append(&record);
                    assert_eq!(at, lsn, "records are logged in the order of their positions");
                }
                LogEntry::Read(range) => {
                    let segments = self.writer.segments_from(range.first);
                    self.shelf.read_log(range, segments);
                }
                LogEntry::Cut(cut) => {
                    if let Some(released) = self.writer.cut(cut) {
                        for index in &released.gone {
                            self.files.remove(index);
                        }
                        self.keeper.ask(KeeperTask::Release(released));
                    }
                }
            }
            any = true;
        }
        any
    }

    /// Whether nothing is written until somebody makes room: an operator, or a checkpoint. To try again is
    /// not to have room: that is told when a segment was made, or a write came to its end.
    fn is_short_of_space(&self) -> bool {
        let is_at_bound = self.writer.waits_for_space() && self.writer.wanted_segment().is_none();
        self.lacks_segment || self.lacks_space || is_at_bound
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
        if self.writer.is_short_of_space() {
            let again_at = *self.write_again_at.get_or_insert_with(|| {
                tracing::error!("no space to write the log: nothing is voted until there is");
                now.after(SPACE_PAUSE)
            });
            if now < again_at {
                return false;
            }
        }
        self.write_again_at = None;
        let mut operation = self.writer.next_operation();
        let is_synced = matches!(operation, Some(LogOperation::Sync { .. }));
        if is_synced {
            // Each write was on the disk when it completed: cheaper than a sync of its own, see
            // `benches/log`.
            self.metrics.counters.log_syncs.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.writer.on_complete(Ok(0)) {
                self.failure = Some(error);
                return false;
            }
            operation = self.writer.next_operation();
        }
        let Some(LogOperation::Write { segment, offset }) = operation else {
            return is_synced;
        };
        let Some(file) = self.files.get(&segment) else {
            self.failure = Some(StorageError::Log {
                doing: "opening a segment",
                source: std::io::ErrorKind::NotFound.into(),
            });
            return false;
        };
        let fd = file.as_raw_fd();
        let is_registered = *self
            .is_registered
            .get_or_insert_with(|| register(&self.writer, reactor));
        let (bytes, token) = (self.writer.bytes(), self.token(WRITE));
        // SAFETY: the group under way stays where it is and unchanged until its write completed; this role is
        // dropped only after the ring has cancelled what is under way. Its file stays in `files` that long:
        // a segment is cut only when a later one is written to.
        unsafe {
            match is_registered {
                true => reactor.write_fixed(fd, bytes, self.writer.buffer(), offset, token),
                false => reactor.write(fd, bytes, offset, token),
            }
        }
        true
    }
}

/// Registers the writer's buffers with the ring that writes them; false when they have to be written without.
fn register(writer: &LogWriter, reactor: &mut Reactor) -> bool {
    // SAFETY: the buffers live as long as the writer, and their role is dropped after its shard's ring.
    let registered = unsafe { reactor.register_buffers(&writer.buffers()) };
    registered
        .inspect_err(|error| {
            tracing::warn!(%error, "the log's buffers cannot be registered, writes cost more: raise the locked memory, see `atlas doctor`");
        })
        .is_ok()
}

impl Role for LogRole {
    fn step(&mut self, now: Time, _: &mut Reactor) -> bool {
        let kept = self.take_kept(now);
        if self.lanes.logged.is_blocked() {
            return kept;
        }
        self.take_entries() | kept
    }

    fn finish(&mut self, now: Time, reactor: &mut Reactor) -> bool {
        let operated = self.operate(now, reactor);
        if self.asked.is_none()
            && let Some(index) = self.writer.wanted_segment()
        {
            self.asked = Some(index);
            let bytes = self.writer.segment_bytes();
            self.keeper.ask(KeeperTask::Prepare { index, bytes });
        }
        let durable = self.writer.durable();
        if durable > self.told {
            self.told = durable;
            self.lanes.logged.push(Logged::Durable(durable));
        }
        self.lanes.logged.ring();
        let counters = &self.metrics.counters;
        counters
            .image_bytes
            .store(self.keeper.image_bytes(), Ordering::Relaxed);
        counters
            .log_waits_for_space
            .store(u64::from(self.is_short_of_space()), Ordering::Relaxed);
        counters
            .log_bytes
            .store(self.writer.used_bytes(), Ordering::Relaxed);
        operated
    }

    fn on_completion(&mut self, _: &mut Reactor, completion: Completion) {
        let outcome = usize::try_from(completion.result).map_err(|_| -completion.result);
        if let Err(error) = self.writer.on_complete(outcome) {
            self.failure = Some(error);
        }
        self.lacks_space = self.writer.is_short_of_space();
    }

    fn has_input(&self) -> bool {
        (self.waiting.is_none() && !self.lanes.entries.is_empty())
            || !self.lanes.kept.is_empty()
            || self.lanes.logged.has_overflow()
    }

    fn next_timeout(&self) -> Option<Time> {
        self.ask_again_at.into_iter().chain(self.write_again_at).min()
    }

    fn drain(&mut self, finishing: bool) -> bool {
        finishing && !self.has_input() && (self.writer.is_idle() || self.writer.waits_for_space())
    }

    fn failure(&mut self) -> Option<StorageError> {
        self.failure.take()
    }
}
