//! Asks every replica at once, each on a thread of its own: one that is dead or hangs holds up nobody.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::answer::{Answer, METRICS_BYTES_MAX};
use super::sources::Source;
use crate::tools::cli::admin_page::{self, STATUS_BYTES_MAX};

/// How long a replica may take to answer one question.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a question.
#[derive(Debug)]
pub(super) struct Report {
    /// Which of the sources.
    pub replica: usize,
    /// When the answer was there.
    pub at: Instant,
    /// Or why there is none.
    pub answer: Result<Answer, String>,
}

/// Threads that ask when they are told to; they end with this.
#[derive(Debug)]
pub(super) struct Asker {
    threads: Vec<SyncSender<()>>,
    reports: Receiver<Report>,
}

impl Asker {
    /// For these replicas, by their places.
    pub fn start(sources: Vec<Source>) -> io::Result<Self> {
        let (tell, reports) = sync_channel(2 * sources.len());
        let mut threads = Vec::new();
        for (replica, source) in sources.into_iter().enumerate() {
            let (ask, asked) = sync_channel(1);
            let tell = tell.clone();
            let thread = thread::Builder::new().name(format!("ask-{replica}"));
            thread.spawn(move || answer_all(replica, &source, &asked, &tell))?;
            threads.push(ask);
        }
        Ok(Self { threads, reports })
    }

    /// Asks each replica, but those that have not answered the last question but one.
    pub fn ask(&self) {
        for thread in &self.threads {
            // Full: it is still at it.
            let _ = thread.try_send(());
        }
    }

    /// The next report, if one comes in so much time.
    pub fn report(&self, wait: Duration) -> Option<Report> {
        self.reports.recv_timeout(wait).ok()
    }
}

fn answer_all(replica: usize, source: &Source, asked: &Receiver<()>, tell: &SyncSender<Report>) {
    while asked.recv().is_ok() {
        let answer = ask(source);
        let report = Report {
            replica,
            at: Instant::now(),
            answer,
        };
        if tell.send(report).is_err() {
            return;
        }
    }
}

/// Asks one replica for its two pages.
fn ask(source: &Source) -> Result<Answer, String> {
    let deadline = Instant::now() + PATIENCE;
    let address = source
        .address
        .as_deref()
        .ok_or("its admin endpoint is not known")?;
    let get = |path, bytes_max| {
        let token = source.token.as_ref().map(|token| token.as_str());
        admin_page::get(address, path, token, bytes_max, deadline).map_err(|error| error.to_string())
    };
    let status = get("/status", STATUS_BYTES_MAX)?;
    let metrics = get("/metrics", METRICS_BYTES_MAX);
    Answer::of(&status, metrics.as_deref().map_err(Clone::clone))
}
