//! The endpoint's thread: takes connections, and serves them all by turns.

use std::collections::VecDeque;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Bounds;
use super::connection::{Connection, Progress};
use super::http::{Method, Parsed, Response};
use super::pages::Pages;
use crate::runtime::metrics::{Metrics, count};
use crate::runtime::ring::Doorbell;
use crate::runtime::shard::poll::{Awaited, poll};

/// How long nothing is tried again that the process lacks descriptors or memory for.
const PAUSE: Duration = Duration::from_millis(100);

/// Ends the thread.
#[derive(Debug)]
pub(super) struct Stop {
    is_stopped: AtomicBool,
    bell: Doorbell,
}

impl Stop {
    pub fn at(bell: Doorbell) -> Self {
        Self {
            is_stopped: AtomicBool::new(false),
            bell,
        }
    }

    pub fn stop(&self) {
        // Pairs with the load of the thread, which looks after it was woken.
        self.is_stopped.store(true, Ordering::Release);
        self.bell.ring();
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }
}

/// Serves connections until it is stopped.
#[derive(Debug)]
pub(super) struct Server {
    /// Does not block.
    pub listener: TcpListener,
    pub pages: Pages,
    pub bounds: Bounds,
    pub stop: Arc<Stop>,
    pub metrics: Arc<Metrics>,
}

impl Server {
    pub fn run(&self) {
        // The oldest first.
        let mut connections: VecDeque<Connection> = VecDeque::new();
        let mut listens_again: Option<Instant> = None;
        let mut awaited = Vec::new();
        while !self.stop.is_stopped() {
            let now = Instant::now();
            self.end_late(&mut connections, now);
            listens_again = listens_again.filter(|again| *again > now);
            awaited.clear();
            awaited.push(Awaited::input(self.stop.bell.fd()));
            awaited.push(match listens_again {
                None => Awaited::input(self.listener.as_raw_fd()),
                Some(_) => Awaited::nothing(),
            });
            awaited.extend(connections.iter().map(Connection::awaited));
            let deadlines = connections.iter().map(|connection| connection.deadline);
            let next = deadlines.chain(listens_again).min();
            if let Err(error) = poll(&mut awaited, next.map(|next| next.saturating_duration_since(now))) {
                self.fail("the endpoint cannot wait", &error);
                std::thread::sleep(PAUSE);
                continue;
            }
            let mut ready = awaited[2..].iter().map(Awaited::is_ready);
            connections.retain_mut(|connection| {
                !ready.next().unwrap_or(false) || self.serve(connection) == Progress::Waits
            });
            if awaited[1].is_ready()
                && let Err(error) = self.accept(&mut connections)
            {
                self.fail("a connection cannot be taken", &error);
                listens_again = Some(Instant::now() + PAUSE);
            }
        }
    }

    fn fail(&self, what: &str, error: &io::Error) {
        count(&self.metrics.counters.admin_failures);
        tracing::warn!(%error, "admin endpoint: {what}");
    }

    /// Takes the connections there are; one that is too many ends the oldest.
    fn accept(&self, connections: &mut VecDeque<Connection>) -> io::Result<()> {
        // One more than there may be: those that are there are served in between.
        for _ in 0..=self.bounds.connections_max {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // It was gone before it was taken.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.admit(stream, connections)?;
        }
        Ok(())
    }

    fn admit(&self, stream: TcpStream, connections: &mut VecDeque<Connection>) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        if connections.len() >= self.bounds.connections_max
            && let Some(oldest) = connections.pop_front()
        {
            self.end(oldest, &Response::text(503, "there are too many connections\n"));
        }
        let deadline = Instant::now() + self.bounds.request_timeout;
        connections.push_back(Connection::new(stream, deadline));
        Ok(())
    }

    /// Ends the connections that took all their time.
    fn end_late(&self, connections: &mut VecDeque<Connection>, now: Instant) {
        // Each has as much: the oldest are the first.
        while connections.front().is_some_and(|oldest| oldest.deadline <= now) {
            if let Some(late) = connections.pop_front() {
                self.end(late, &Response::text(408, "the request did not come in time\n"));
            }
        }
    }

    /// Ends a connection before its time; with an answer, if it has none yet.
    fn end(&self, connection: Connection, response: &Response) {
        if connection.is_asking() {
            count(&self.metrics.counters.admin_requests_refused);
            connection.dismiss(response);
        }
    }

    fn serve(&self, connection: &mut Connection) -> Progress {
        connection.advance(self.bounds.header_bytes_max, |parsed| self.answer(parsed))
    }

    /// The answer to a request, or to what is none.
    fn answer(&self, parsed: Parsed) -> Vec<u8> {
        let counters = &self.metrics.counters;
        let (response, is_head) = match parsed {
            Parsed::Whole(request) => {
                let answer = std::panic::AssertUnwindSafe(|| self.pages.answer(&request));
                let response = std::panic::catch_unwind(answer).unwrap_or_else(|_| {
                    // The panic has told what it was about.
                    count(&counters.admin_failures);
                    Response::text(500, "this page is broken; the replica goes on\n")
                });
                (response, request.method == Some(Method::Head))
            }
            Parsed::Refused(response) => (response, false),
            Parsed::Partial => (Response::text(400, "this is no request\n"), false),
        };
        count(match response.status {
            400..500 => &counters.admin_requests_refused,
            _ => &counters.admin_requests,
        });
        response.encode(is_head)
    }
}
