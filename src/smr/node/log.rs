use std::collections::VecDeque;
use std::time::Duration;

use super::{Released, StorageTask};
use crate::smr::decision_log::LoggedRange;
use crate::smr::protocol::{LogCut, Record};
use crate::smr::types::{Lsn, SeqNo, Time};

/// How long to wait before a segment is asked for again that there was no space for.
const SPACE_PAUSE: Duration = Duration::from_secs(1);

/// Consensus → log.
#[derive(Debug)]
pub enum LogEntry {
    /// The next record.
    Record {
        /// Its position.
        lsn: Lsn,
        /// What it says.
        record: Record,
    },
    /// Everything about places up to this one may go.
    Cut(LogCut),
    /// Decisions are to be read back.
    Read(LoggedRange),
}

/// Gathers records into groups, and knows in which segments they are. What it writes is carried out beside
/// this.
pub trait GroupWriter {
    /// Whether a record can be taken now.
    fn has_room(&self, record: &Record) -> bool;

    /// Takes a record, for which there [is room](Self::has_room); its position.
    fn append(&mut self, record: &Record) -> Lsn;

    /// What comes before this is not needed any more: what goes, if anything does.
    fn cut(&mut self, cut: LogCut) -> Option<Released>;

    /// The segments that may hold the batch of a decision at this place, in order.
    fn segments_from(&self, seq: SeqNo) -> Vec<u64>;

    /// The segment that is needed next, and may exist; and its size.
    fn wanted_segment(&self) -> Option<(u64, u64)>;

    /// A segment can be written to.
    fn add_segment(&mut self, index: u64);

    /// Everything before this position is on disk.
    fn durable(&self) -> Lsn;
}

/// Where the log's wishes go.
pub trait LogPort {
    /// To the storage worker.
    fn storage(&mut self, task: StorageTask);

    /// To whoever reads decisions back: which, and the segments that may hold them.
    fn read(&mut self, range: LoggedRange, segments: Vec<u64>);

    /// To consensus: everything before this position is on disk.
    fn durable(&mut self, end: Lsn);
}

/// Takes what consensus has for the log, in order, as far as there is room; asks for segments, one at a time;
/// and says what is on disk.
#[derive(Debug)]
pub struct Log<W> {
    /// Writes what was taken.
    pub writer: W,
    /// What there was no room for yet, and what comes after it.
    entries: VecDeque<LogEntry>,
    /// The segment that was asked for.
    asked: Option<u64>,
    /// There was no space for it: it is asked for again then.
    ask_again_at: Option<Time>,
    lacks_segment: bool,
    told: Lsn,
}

impl<W: GroupWriter> Log<W> {
    /// A log that goes on where this writer does.
    #[must_use]
    pub fn new(writer: W) -> Self {
        Self {
            told: writer.durable(),
            writer,
            entries: VecDeque::new(),
            asked: None,
            ask_again_at: None,
            lacks_segment: false,
        }
    }

    /// What was said to be on disk: a restart finds at least this.
    #[must_use]
    pub const fn told(&self) -> Lsn {
        self.told
    }

    /// Whether what was taken waits for room.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Whether the last segment that was asked for could not be made for lack of space.
    #[must_use]
    pub const fn lacks_segment(&self) -> bool {
        self.lacks_segment
    }

    /// When the next [turn](Self::turn) is due, if nothing comes before.
    #[must_use]
    pub const fn next_timeout(&self) -> Option<Time> {
        self.ask_again_at
    }

    /// Takes what comes next.
    pub fn take(&mut self, entry: LogEntry, port: &mut impl LogPort) {
        self.entries.push_back(entry);
        self.go_on(port);
    }

    /// The segment that was asked for can be used.
    pub fn on_segment(&mut self, index: u64) {
        self.asked = None;
        self.lacks_segment = false;
        self.writer.add_segment(index);
    }

    /// There is no space for the segment that was asked for.
    pub fn on_no_segment(&mut self, now: Time) {
        self.ask_again_at = Some(now.after(SPACE_PAUSE));
        self.lacks_segment = true;
    }

    /// Goes on with what waits, asks for what is needed, and says what is on disk.
    pub fn turn(&mut self, now: Time, port: &mut impl LogPort) {
        if self.ask_again_at.is_some_and(|at| at <= now) {
            self.ask_again_at = None;
            self.asked = None;
        }
        self.go_on(port);
        if self.asked.is_none()
            && let Some((index, bytes)) = self.writer.wanted_segment()
        {
            self.asked = Some(index);
            port.storage(StorageTask::Prepare { index, bytes });
        }
        let durable = self.writer.durable();
        if durable > self.told {
            self.told = durable;
            port.durable(durable);
        }
    }

    fn go_on(&mut self, port: &mut impl LogPort) {
        while let Some(entry) = self.entries.pop_front() {
            match entry {
                LogEntry::Record { lsn, record } if !self.writer.has_room(&record) => {
                    self.entries.push_front(LogEntry::Record { lsn, record });
                    return;
                }
                LogEntry::Record { lsn, record } => {
                    let at = self.writer.append(&record);
                    assert_eq!(at, lsn, "records are logged in the order of their positions");
                }
                LogEntry::Cut(cut) => {
                    if let Some(released) = self.writer.cut(cut) {
                        port.storage(StorageTask::Release(released));
                    }
                }
                LogEntry::Read(range) => {
                    let segments = self.writer.segments_from(range.first);
                    port.read(range, segments);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smr::crypto::Chain;
    use crate::smr::types::{Digest, NodeId, View};

    /// A writer with room for so many records; each segment holds one.
    struct Short {
        room: usize,
        end: Lsn,
        durable: Lsn,
        segments: Vec<u64>,
    }

    impl GroupWriter for Short {
        fn has_room(&self, _: &Record) -> bool {
            self.room > 0
        }

        fn append(&mut self, _: &Record) -> Lsn {
            self.room -= 1;
            let at = self.end;
            self.end = at.next();
            at
        }

        fn cut(&mut self, cut: LogCut) -> Option<Released> {
            let (log_start, view) = (2, cut.view);
            let gone = vec![self.segments.remove(0)];
            Some(Released {
                log_start,
                view,
                gone,
            })
        }

        fn segments_from(&self, _: SeqNo) -> Vec<u64> {
            self.segments.clone()
        }

        fn wanted_segment(&self) -> Option<(u64, u64)> {
            (self.segments.len() < 3).then_some((self.segments.len() as u64 + 1, 7))
        }

        fn add_segment(&mut self, index: u64) {
            self.segments.push(index);
        }

        fn durable(&self) -> Lsn {
            self.durable
        }
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Wish {
        StorageWork(StorageTask),
        Read(Vec<u64>),
        Durable(Lsn),
    }

    impl LogPort for Vec<Wish> {
        fn storage(&mut self, task: StorageTask) {
            self.push(Wish::StorageWork(task));
        }

        fn read(&mut self, _: LoggedRange, segments: Vec<u64>) {
            self.push(Wish::Read(segments));
        }

        fn durable(&mut self, end: Lsn) {
            self.push(Wish::Durable(end));
        }
    }

    fn log(room: usize, segments: Vec<u64>) -> Log<Short> {
        Log::new(Short {
            room,
            end: Lsn::ZERO,
            durable: Lsn::ZERO,
            segments,
        })
    }

    fn record(lsn: Lsn) -> LogEntry {
        let record = Record::Decision {
            seq: SeqNo::new(1),
            digest: Digest::ZERO,
            chain: Chain::START,
        };
        LogEntry::Record { lsn, record }
    }

    #[test]
    fn what_comes_after_a_record_without_room_waits_for_it() {
        let (mut log, mut wishes) = (log(1, vec![1, 2, 3]), Vec::new());
        log.take(record(Lsn::ZERO), &mut wishes);
        assert!(!log.is_behind());
        log.take(record(Lsn::ZERO.next()), &mut wishes);
        log.take(
            LogEntry::Cut(LogCut {
                seq: SeqNo::new(1),
                before: Lsn::ZERO,
                view: View::ZERO,
            }),
            &mut wishes,
        );
        let range = LoggedRange {
            to: Some(NodeId::new(1)),
            first: SeqNo::new(1),
            digests: Vec::new(),
            bytes_max: 0,
        };
        log.take(LogEntry::Read(range), &mut wishes);
        assert!(log.is_behind() && wishes.is_empty());
        (log.writer.room, log.writer.durable) = (1, Lsn::ZERO.next());
        log.turn(Time::START, &mut wishes);
        let released = Released {
            log_start: 2,
            view: View::ZERO,
            gone: vec![1],
        };
        let expected = [
            Wish::StorageWork(StorageTask::Release(released)),
            Wish::Read(vec![2, 3]),
            Wish::StorageWork(StorageTask::Prepare { index: 3, bytes: 7 }),
            Wish::Durable(Lsn::ZERO.next()),
        ];
        assert_eq!(wishes, expected);
        assert!(!log.is_behind());
        assert_eq!(log.told(), Lsn::ZERO.next());
    }

    #[test]
    fn a_segment_is_asked_for_once_and_after_a_lack_of_space_once_more() {
        let (mut log, mut wishes) = (log(1, Vec::new()), Vec::new());
        let ask = |wishes: &mut Vec<Wish>| std::mem::take(wishes).len();
        log.turn(Time::START, &mut wishes);
        log.turn(Time::START, &mut wishes);
        assert_eq!(ask(&mut wishes), 1);
        log.on_no_segment(Time::START);
        log.turn(Time::START, &mut wishes);
        assert_eq!(ask(&mut wishes), 0, "it waits");
        let due = log.next_timeout().expect("it is asked for again");
        log.turn(due, &mut wishes);
        assert_eq!(ask(&mut wishes), 1);
        assert!(log.lacks_segment(), "to try again is not to have room");
        log.on_segment(1);
        assert!(!log.lacks_segment());
        log.turn(due, &mut wishes);
        assert_eq!(ask(&mut wishes), 1, "the next one");
    }
}
