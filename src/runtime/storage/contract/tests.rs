use super::*;
use crate::runtime::storage::{
    AlignedBuffer, GroupWriter, LogWriter, Outcome, PersistentLogConfig, Released,
};

/// What a log does wrong.
trait Fault: Send + 'static {
    const PROMISES_EARLY: bool = false;
    const WRITES_TWICE: bool = false;
    const SKIPS_WHAT_WAS_CUT_SHORT: bool = false;
    const NEVER_WRITES: bool = false;
    const CUTS_TOO_MUCH: bool = false;
}

struct Sound;
struct Early;
struct Twice;
struct Short;
struct Idle;
struct Greedy;

impl Fault for Sound {}
impl Fault for Early {
    const PROMISES_EARLY: bool = true;
}
impl Fault for Twice {
    const WRITES_TWICE: bool = true;
}
impl Fault for Short {
    const SKIPS_WHAT_WAS_CUT_SHORT: bool = true;
}
impl Fault for Greedy {
    const CUTS_TOO_MUCH: bool = true;
}
impl Fault for Idle {
    const NEVER_WRITES: bool = true;
}

/// A log with a fault.
struct Faulty<F> {
    log: LogWriter,
    end: Lsn,
    /// How long the write under way is, and which.
    writing: Option<(u64, u64, usize)>,
    fault: std::marker::PhantomData<F>,
}

impl<F: Fault> GroupWriter for Faulty<F> {
    fn has_room(&self, record: &Record) -> bool {
        self.log.has_room(record)
    }

    fn append(&mut self, record: &Record) -> Lsn {
        let lsn = self.log.append(record);
        self.end = lsn.next();
        lsn
    }

    fn cut(&mut self, cut: LogCut) -> Option<Released> {
        self.log.cut(match F::CUTS_TOO_MUCH {
            true => LogCut {
                seq: SeqNo::new(u64::MAX),
                before: self.end,
                ..cut
            },
            false => cut,
        })
    }

    fn segments_from(&self, seq: SeqNo) -> Vec<u64> {
        self.log.segments_from(seq)
    }

    fn wanted_segment(&self) -> Option<(u64, u64)> {
        GroupWriter::wanted_segment(&self.log)
    }

    fn add_segment(&mut self, index: u64) {
        self.log.add_segment(index);
    }

    fn durable(&self) -> Lsn {
        match F::PROMISES_EARLY {
            true => self.end,
            false => self.log.durable(),
        }
    }
}

impl<F: Fault> SmrPersistentLog for Faulty<F> {
    type Config = PersistentLogConfig;

    fn make(_: &PersistentLogConfig, settings: WriterSettings, tail: &Tail) -> Self {
        Self {
            log: LogWriter::resume(settings, tail),
            end: tail.next_lsn,
            writing: None,
            fault: std::marker::PhantomData,
        }
    }

    fn memory(&self) -> Vec<&AlignedBuffer> {
        self.log.memory()
    }

    fn next_write(&mut self) -> Option<LogWrite> {
        if F::NEVER_WRITES {
            return None;
        }
        if let Some((segment, offset, _)) = self.writing.filter(|_| F::WRITES_TWICE) {
            let (buffer, bytes) = (AlignedBuffer::new(0, BLOCK_BYTES), 0..BLOCK_BYTES);
            return Some(LogWrite {
                segment,
                offset,
                buffer,
                bytes,
            });
        }
        let write = self.log.next_write()?;
        self.writing = Some((write.segment, write.offset, write.bytes.len()));
        Some(write)
    }

    fn on_written(&mut self, buffer: AlignedBuffer, outcome: Outcome) -> Result<(), StorageError> {
        let whole = self.writing.take().map_or(0, |(.., bytes)| bytes);
        let outcome = match outcome {
            Ok(_) if F::SKIPS_WHAT_WAS_CUT_SHORT => Ok(whole),
            outcome => outcome,
        };
        self.log.on_written(buffer, outcome)
    }

    fn is_idle(&self) -> bool {
        self.log.is_idle()
    }

    fn waits_for_space(&self) -> bool {
        self.log.waits_for_space()
    }

    fn is_short_of_space(&self) -> bool {
        self.log.is_short_of_space()
    }

    fn used_bytes(&self) -> u64 {
        self.log.used_bytes()
    }
}

fn broken<F: Fault>() -> BrokenLogRule {
    let checked = check_log_contract::<Faulty<F>>(&PersistentLogConfig::default(), 0..20);
    checked.unwrap_err().broken
}

#[test]
fn the_log_of_production_keeps_the_contract() {
    check_log_contract::<LogWriter>(&PersistentLogConfig::default(), 0..40).unwrap();
    check_log_contract::<Faulty<Sound>>(&PersistentLogConfig::default(), 0..5).unwrap();
}

#[test]
fn what_a_log_does_wrong_is_found_and_named() {
    assert!(matches!(broken::<Early>(), BrokenLogRule::Promised { .. }));
    assert!(matches!(broken::<Twice>(), BrokenLogRule::TwoWrites));
    assert!(matches!(broken::<Idle>(), BrokenLogRule::Stuck));
    let greedy = broken::<Greedy>();
    assert!(matches!(greedy, BrokenLogRule::Released), "{greedy}");
    let short = broken::<Short>();
    assert!(matches!(short, BrokenLogRule::Promised { .. }), "{short}");
}
