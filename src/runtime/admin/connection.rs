//! One connection: a request comes, its answer goes, and the end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Instant;

use super::http::{Parsed, Response, parse, request_bytes_max};
use crate::runtime::shard::poll::Awaited;

/// What is read at once.
const CHUNK_BYTES: usize = 4096;
/// What is thrown away of what comes after a request, so that the answer is not lost by it: a connection that
/// is closed with something unread is reset.
const LEFTOVER_BYTES_MAX: usize = 64 << 10;

/// A connection of somebody who asks.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// It is closed then, whatever it waits for.
    pub deadline: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The request, as far as it came.
    Reading(Vec<u8>),
    Writing {
        answer: Vec<u8>,
        written: usize,
    },
    /// All is written; the other end has not closed yet, and may send so much more.
    Closing {
        left: usize,
    },
}

/// How far one step brought a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It waits for the other end.
    Waits,
    /// It is over.
    Over,
}

impl Connection {
    /// Of a socket that does not block.
    pub fn new(stream: TcpStream, deadline: Instant) -> Self {
        Self {
            stream,
            deadline,
            state: State::Reading(Vec::new()),
        }
    }

    /// What it waits for.
    pub fn awaited(&self) -> Awaited {
        let descriptor = self.stream.as_raw_fd();
        match self.state {
            State::Reading(_) | State::Closing { .. } => Awaited::input(descriptor),
            State::Writing { .. } => Awaited::room(descriptor),
        }
    }

    /// Whether its request is not complete yet.
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::Reading(_))
    }

    /// Goes on as far as it goes without waiting. `answer` makes the bytes of the answer to what came.
    pub fn advance(&mut self, header_bytes_max: usize, answer: impl FnOnce(Parsed) -> Vec<u8>) -> Progress {
        if let State::Reading(request) = &mut self.state {
            let parsed = match read(&mut self.stream, request, header_bytes_max) {
                Some(Parsed::Partial) => return Progress::Waits,
                Some(parsed) => parsed,
                None => return Progress::Over,
            };
            self.state = State::Writing {
                answer: answer(parsed),
                written: 0,
            };
        }
        if let State::Writing { answer, written } = &mut self.state {
            while *written < answer.len() {
                match self.stream.write(&answer[*written..]) {
                    Ok(count @ 1..) => *written += count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waits,
                    _ => return Progress::Over,
                }
            }
            if self.stream.shutdown(Shutdown::Write).is_err() {
                return Progress::Over;
            }
            self.state = State::Closing {
                left: LEFTOVER_BYTES_MAX,
            };
        }
        self.discard()
    }

    /// Throws away what comes after the request.
    fn discard(&mut self) -> Progress {
        let State::Closing { left } = &mut self.state else {
            return Progress::Waits;
        };
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(count) if count > 0 && count < *left => *left -= count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waits,
                _ => return Progress::Over,
            }
        }
    }

    /// Tells the other end why it is over, if it takes that at once.
    pub fn dismiss(mut self, response: &Response) {
        // What came and was not looked at would have the answer lost.
        self.state = State::Closing {
            left: LEFTOVER_BYTES_MAX,
        };
        self.discard();
        let _ = self.stream.write(&response.encode(false));
    }
}

/// Reads what has come, once. `None` when nothing will come any more.
fn read(stream: &mut TcpStream, request: &mut Vec<u8>, header_bytes_max: usize) -> Option<Parsed> {
    let mut chunk = [0; CHUNK_BYTES];
    // All that fits was looked at, and was no part of a request: there is always room.
    let room = request_bytes_max(header_bytes_max).saturating_sub(request.len());
    match stream.read(&mut chunk[..room.min(CHUNK_BYTES)]) {
        Ok(count @ 1..) => {
            request.extend_from_slice(&chunk[..count]);
            Some(parse(request, header_bytes_max))
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Some(Parsed::Partial)
        }
        _ => None,
    }
}
