//! A replica's process: what it says is passed on line by line, and it lives no longer than this one.

use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread;

use crate::smr::types::NodeId;

/// What a process did.
pub(super) enum Event {
    /// A line on its standard output.
    Result(String),
    /// A line on its standard error.
    Message(String),
    /// One of the two has ended.
    StreamEnd,
}

/// A process that is killed when this is dropped, and drains when this process is gone.
pub(super) struct ReplicaProcess {
    child: Child,
    /// The end of its standard input that keeps it running (`run --until-eof`). Nobody else has it, so that
    /// it is closed whatever becomes of this process.
    lifeline: Option<ChildStdin>,
    streams: usize,
}

impl ReplicaProcess {
    /// Starts `atlas run` as `command` has it, and tells what it does from then on.
    pub fn start(
        command: &mut Command,
        node: NodeId,
        events: SyncSender<(NodeId, Event)>,
    ) -> io::Result<Self> {
        let mut child = command
            .arg("--until-eof")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C is for this process alone, which has the others drain.
            .process_group(0)
            .spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut this = Self {
            lifeline: child.stdin.take(),
            child,
            streams: 0,
        };
        if let (Some(stdout), Some(stderr)) = (stdout, stderr) {
            pass_on(stdout, node, events.clone(), Event::Result)?;
            pass_on(stderr, node, events, Event::Message)?;
            this.streams = 2;
        }
        Ok(this)
    }

    /// Asks it to finish what it has and end.
    pub fn drain(&mut self) {
        self.lifeline = None;
    }

    /// Ends it where it is.
    pub fn kill(&mut self) {
        // An error says that it has ended already.
        let _ = self.child.kill();
    }

    /// One of its streams has ended: how the process did, once both have.
    pub fn on_stream_end(&mut self) -> Option<io::Result<ExitStatus>> {
        self.streams -= 1;
        (self.streams == 0).then(|| self.child.wait())
    }
}

impl Drop for ReplicaProcess {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// Reads a stream on a thread of its own, to its end or until nobody wants to know any more.
fn pass_on(
    stream: impl Read + Send + 'static,
    node: NodeId,
    events: SyncSender<(NodeId, Event)>,
    said: fn(String) -> Event,
) -> io::Result<()> {
    let read = move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if events.send((node, said(line))).is_err() {
                return;
            }
        }
        let _ = events.send((node, Event::StreamEnd));
    };
    let thread = thread::Builder::new().name(format!("{node}-output"));
    thread.spawn(read).map(drop)
}
