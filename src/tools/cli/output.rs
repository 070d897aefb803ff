//! What the command says: results, messages and logs. No line of them panics, whoever stopped reading; and
//! none holds a replica up.
//!
//! Messages and logs go to standard error through a thread of their own and a bounded queue. When nobody
//! reads, or whoever reads hangs, lines are lost and counted; the next that is written is followed by their
//! number. The results of a command that prints and ends go to standard output directly: with `| head` the
//! rest is dropped, and with a full disk the command says so and fails. A replica's go through a thread too
//! ([`never_block`]).
//!
//! The macros here have the names of the standard library's, and are what this room's modules mean by them.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing::Level;

use super::logs::{is_json, of_message};

/// A line on standard output.
macro_rules! println {
    () => { $crate::tools::cli::output::out(format_args!("\n")) };
    ($($argument:tt)*) => {
        $crate::tools::cli::output::out(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// Text on standard output.
macro_rules! print {
    ($($argument:tt)*) => { $crate::tools::cli::output::out(format_args!($($argument)*)) };
}

/// A line on standard error.
macro_rules! eprintln {
    ($($argument:tt)*) => {
        $crate::tools::cli::output::message(format_args!("{}\n", format_args!($($argument)*)))
    };
}

/// Lines that may wait for whoever reads them.
const LINES_WAITING: usize = 4096;

/// How long an ending process waits for its last lines to be taken.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Line {
    Text(Vec<u8>),
    /// Everything before this was written.
    Flush(SyncSender<()>),
}

/// One of the standard streams, written by a thread of its own.
struct Stream {
    lines: SyncSender<Line>,
    lost: AtomicU64,
}

impl Stream {
    fn start(name: &str, mut to: impl Write + Send + 'static) -> Option<Self> {
        let (lines, waiting) = sync_channel(LINES_WAITING);
        let thread = std::thread::Builder::new().name(name.to_owned());
        let write = move || write_all(&waiting, &mut to);
        thread.spawn(write).ok()?;
        Some(Self {
            lines,
            lost: AtomicU64::new(0),
        })
    }

    fn push(&self, text: Vec<u8>) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            let note = format!("({lost} lines are missing here: nobody read them in time)\n");
            if self.lines.try_send(Line::Text(note.into_bytes())).is_ok() {
                self.lost.fetch_sub(lost, Ordering::Relaxed);
            }
        }
        if self.lines.try_send(Line::Text(text)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything was written, but not for long.
    fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            let _ = wait.recv_timeout(LAST_LINES);
        }
    }
}

fn write_all(lines: &Receiver<Line>, to: &mut impl Write) {
    for line in lines {
        match line {
            // Nobody is left to be told that it cannot be written.
            Line::Text(text) => drop(to.write_all(&text).and_then(|()| to.flush())),
            Line::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Standard error, from the first message on; `None` inside when no thread could be made.
static MESSAGES: OnceLock<Option<Stream>> = OnceLock::new();
/// Standard output, of a command that must not wait for its reader.
static RESULTS: OnceLock<Option<Stream>> = OnceLock::new();
/// Why standard output takes nothing any more, but that its reader is gone.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);
/// Nothing more is written there.
static IS_GONE: AtomicBool = AtomicBool::new(false);

/// From now on results wait for nobody either.
pub(super) fn never_block() {
    RESULTS.get_or_init(|| Stream::start("results", io::stdout()));
}

/// Writes to standard output.
pub(super) fn out(text: Arguments<'_>) {
    out_bytes(text.to_string().as_bytes());
}

/// Writes to standard output what need not be text.
pub(super) fn out_bytes(bytes: &[u8]) {
    if let Some(Some(stream)) = RESULTS.get() {
        return stream.push(bytes.to_vec());
    }
    if IS_GONE.load(Ordering::Acquire) {
        return;
    }
    if let Err(error) = io::stdout().write_all(bytes) {
        fail(error);
    }
}

fn fail(error: io::Error) {
    IS_GONE.store(true, Ordering::Release);
    if error.kind() != ErrorKind::BrokenPipe {
        FAILURE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
    }
}

/// Writes a line to standard error; where logs are for programs, as one of theirs.
pub(super) fn message(text: Arguments<'_>) {
    push_message(of_message(Level::WARN, text.to_string()));
}

/// Passes a line of another process on, behind a label; objects of logs as they are.
pub(super) fn relay(label: &str, line: &str) {
    if line.starts_with('{') && is_json() {
        push_message(format!("{line}\n").into_bytes());
    } else {
        message(format_args!("{label}{line}\n"));
    }
}

/// The same, about what ends a command or a replica.
pub(super) fn error(text: Arguments<'_>) {
    push_message(of_message(Level::ERROR, text.to_string()));
}

fn push_message(text: Vec<u8>) {
    match MESSAGES.get_or_init(|| Stream::start("messages", io::stderr())) {
        Some(stream) => stream.push(text),
        None => drop(io::stderr().write_all(&text)),
    }
}

/// Where logs are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        push_message(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether what is written there may have colours: a terminal shows them, and `NO_COLOR` does not forbid them.
pub(super) fn may_colour(stream: &impl IsTerminal) -> bool {
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_plain && stream.is_terminal()
}

/// From now on a panic is told like every other message: a thread must not hang in its last words.
pub(super) fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        error(format_args!("thread '{name}' {panic}\n"));
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            error(format_args!("{trace}\n"));
        }
    }));
}

/// Has the last lines written, and says what the process ends with.
pub(super) fn finish(code: ExitCode) -> ExitCode {
    if let Some(Some(stream)) = RESULTS.get() {
        stream.flush();
    } else if let Err(error) = io::stdout().flush() {
        fail(error);
    }
    let failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let code = match failure {
        Some(error) => {
            self::error(format_args!("atlas: cannot write the output: {error}\n"));
            ExitCode::FAILURE
        }
        None => code,
    };
    flush_messages();
    code
}

/// Has the last messages written, but does not wait for who takes none.
pub(super) fn flush_messages() {
    if let Some(Some(stream)) = MESSAGES.get() {
        stream.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Takes a line only when it is allowed to.
    struct Slow(mpsc::Receiver<()>, mpsc::Sender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            let _ = self.1.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_nobody_takes_are_lost_and_counted_and_hold_nobody_up() {
        let (allow, allowed) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let stream = Stream::start("slow", Slow(allowed, tell)).unwrap();
        for number in 0..2 * LINES_WAITING {
            stream.push(format!("{number}\n").into_bytes());
        }
        drop(allow);
        for number in 0..LINES_WAITING {
            assert_eq!(told.recv().unwrap(), format!("{number}\n").into_bytes());
        }
        // One more line than the queue has may be in the writer's hands.
        stream.flush();
        stream.push(b"last\n".to_vec());
        stream.flush();
        let rest: Vec<String> = told
            .try_iter()
            .map(|line| String::from_utf8(line).unwrap())
            .collect();
        let (last, before) = rest.split_last().unwrap();
        assert_eq!(last, "last\n");
        let note = before.last().unwrap();
        assert!(
            note.contains("lines are missing here: nobody read them in time"),
            "{note}"
        );
    }

    #[test]
    fn a_stream_that_takes_nothing_harms_nobody() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(ErrorKind::BrokenPipe.into())
            }
        }
        let stream = Stream::start("broken", Broken).unwrap();
        stream.push(b"a line\n".to_vec());
        stream.flush();
        stream.push(b"another\n".to_vec());
        stream.flush();
        assert_eq!(stream.lost.load(Ordering::Relaxed), 0);
    }
}
