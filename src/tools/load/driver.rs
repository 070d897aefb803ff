use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::Workload;
use crate::client::{Completion, Driver, Outcome, Session, SubmitError};
use crate::smr::types::Time;

/// When operations are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// This many under way at any time, over all clients together.
    Closed {
        /// Operations under way.
        outstanding: usize,
    },
    /// This many per second, whatever becomes of them.
    Open {
        /// Operations per second.
        rate: f64,
    },
}

/// What a load found while it was measured.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Latencies in nanoseconds, from the intended send time.
    pub latency_ns: Histogram<u64>,
    /// Operations that ended with the expected result.
    pub completed: u64,
    /// Operations that ended without a result.
    pub failed: u64,
    /// Operations with another result than expected.
    pub unexpected: u64,
    /// What the last failure said.
    pub last_error: Option<String>,
}

impl Tally {
    fn new() -> Self {
        // One microsecond of resolution up to a minute, at three significant figures.
        let latency_ns = Histogram::new_with_bounds(1, 60_000_000_000, 3)
            .expect("the bounds of the latency histogram are valid");
        Self {
            latency_ns,
            completed: 0,
            failed: 0,
            unexpected: 0,
            last_error: None,
        }
    }
}

/// Steers a running load from another thread, and shows how it goes.
#[derive(Debug)]
pub struct Control {
    /// Operations are sent.
    sending: AtomicBool,
    /// Ends are counted in the tally.
    measuring: AtomicBool,
    /// Operations ended so far, in any phase.
    pub ended: AtomicU64,
    /// Operations sent so far.
    pub sent: AtomicU64,
    tally: Mutex<Tally>,
}

impl Control {
    /// A load that sends nothing yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            sending: AtomicBool::new(false),
            measuring: AtomicBool::new(false),
            ended: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            tally: Mutex::new(Tally::new()),
        })
    }

    /// Starts or stops sending.
    pub fn send(&self, on: bool) {
        self.sending.store(on, Ordering::Release);
    }

    /// Starts or stops counting.
    pub fn measure(&self, on: bool) {
        self.measuring.store(on, Ordering::Release);
    }

    /// Whether everything that was sent has ended.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.ended.load(Ordering::Acquire) == self.sent.load(Ordering::Acquire)
    }

    /// What was found.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What is said of a result that no operation of the load gives.
fn unexpected(value: &[u8]) -> String {
    let start = hex::encode(&value[..value.len().min(16)]);
    format!(
        "a result of {} bytes, beginning with {start}, that no such operation gives",
        value.len()
    )
}

/// Generates load on an engine's thread. The names of operations are their intended send times, so nothing is
/// kept per operation.
pub struct LoadDriver {
    workload: Workload,
    pace: Pace,
    control: Arc<Control>,
    deadline: Duration,
    /// Operations each session may still send (closed loop).
    allowance: Vec<usize>,
    /// When the next operation is due (open loop), and whose turn it is.
    next_due: Option<Time>,
    turn: usize,
    /// A session refused an operation: the next end of some makes room.
    is_full: bool,
    /// Operations per step, so that a step stays bounded.
    step_operations: usize,
}

impl LoadDriver {
    /// The load of `sessions` clients together.
    #[must_use]
    pub fn new(
        workload: Workload,
        pace: Pace,
        sessions: usize,
        deadline: Duration,
        control: Arc<Control>,
    ) -> Self {
        let allowance = match pace {
            Pace::Closed { outstanding } => (0..sessions)
                .map(|session| (outstanding + sessions - 1 - session) / sessions)
                .collect(),
            Pace::Open { .. } => vec![0; sessions],
        };
        Self {
            workload,
            pace,
            control,
            deadline,
            allowance,
            next_due: None,
            turn: 0,
            is_full: false,
            step_operations: 16_384,
        }
    }

    /// Submits an operation; false when there is no room for it now.
    fn submit(&mut self, now: Time, intended: Time, session: &mut Session) -> bool {
        let deadline = now.after(self.deadline);
        let (operation, mode) = self.workload.next_operation();
        match session.submit(now, operation, mode, intended.as_nanos(), deadline) {
            Ok(()) => true,
            Err(SubmitError::Full) => false,
            // None of them ever fits: to try again is of no use.
            Err(error @ SubmitError::TooLarge { .. }) => {
                let mut tally = self.control.tally.lock().unwrap_or_else(PoisonError::into_inner);
                tally.failed += 1;
                tally.last_error = Some(error.to_string());
                false
            }
        }
    }

    fn step_closed(&mut self, now: Time, sessions: &mut [Session]) -> u64 {
        let mut sent = 0;
        for (number, session) in sessions.iter_mut().enumerate() {
            while self.allowance[number] > 0 && sent < self.step_operations as u64 {
                if !self.submit(now, now, session) {
                    self.is_full = true;
                    break;
                }
                self.allowance[number] -= 1;
                sent += 1;
            }
        }
        sent
    }

    fn step_open(&mut self, now: Time, rate: f64, sessions: &mut [Session]) -> u64 {
        let gap = Duration::from_secs_f64(1.0 / rate);
        let mut due = self.next_due.unwrap_or(now);
        let mut sent = 0;
        while due <= now && sent < self.step_operations as u64 {
            let turn = self.turn % sessions.len();
            if !self.submit(now, due, &mut sessions[turn]) {
                self.is_full = true;
                break;
            }
            self.turn += 1;
            sent += 1;
            due = due.after(gap);
        }
        self.next_due = Some(due);
        sent
    }
}

impl Driver for LoadDriver {
    fn step(&mut self, now: Time, sessions: &mut [Session]) -> bool {
        if !self.control.sending.load(Ordering::Acquire) {
            self.next_due = None;
            return false;
        }
        let sent = match self.pace {
            Pace::Closed { .. } => self.step_closed(now, sessions),
            Pace::Open { rate } => self.step_open(now, rate, sessions),
        };
        self.control.sent.fetch_add(sent, Ordering::Release);
        sent > 0
    }

    fn on_ended(&mut self, now: Time, completion: Completion) {
        let Completion {
            session,
            tokens,
            outcome,
        } = completion;
        if matches!(self.pace, Pace::Closed { .. }) {
            self.allowance[session] += tokens.len();
        }
        if self.control.measuring.load(Ordering::Acquire) {
            let mut tally = self.control.tally.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Outcome::Results(body) => {
                    let mut bad = 0;
                    for (place, result) in body.results().enumerate() {
                        if !self.workload.is_expected(result) {
                            bad += 1;
                            let value = body.values().nth(place);
                            tally.last_error = value.map(|value| match value {
                                Err(error) => error.to_string(),
                                Ok(value) => unexpected(&value),
                            });
                        }
                    }
                    tally.unexpected += bad;
                    tally.completed += tokens.len() as u64 - bad;
                    // Operations submitted together share their time: one entry counts them all.
                    for run in tokens.chunk_by(|a, b| a == b) {
                        let latency = now.as_nanos().saturating_sub(run[0]).max(1);
                        tally.latency_ns.saturating_record_n(latency, run.len() as u64);
                    }
                }
                Outcome::Failed(error) => {
                    tally.failed += tokens.len() as u64;
                    tally.last_error = Some(error.to_string());
                }
            }
        }
        self.control
            .ended
            .fetch_add(tokens.len() as u64, Ordering::Release);
    }

    fn has_input(&self) -> bool {
        !self.is_full
            && self.control.sending.load(Ordering::Acquire)
            && self.allowance.iter().any(|allowance| *allowance > 0)
    }

    fn next_timeout(&self) -> Option<Time> {
        self.next_due.filter(|_| !self.is_full)
    }
}
