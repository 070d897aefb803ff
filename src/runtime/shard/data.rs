//! A data shard: one thread, one ring, some roles.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::pulse::Pulse;
use super::reactor::{Reactor, ReactorError, Token, until};
use super::roles::Role;
use crate::runtime::flight::{FlightEvent, FlightKind, FlightPen};
use crate::runtime::metrics::{Metrics, SAMPLED_EVERY, TurnTimes};
use crate::runtime::ring::Doorbell;
use crate::runtime::storage::StorageError;
use crate::smr::types::Time;

/// The owner number of the shard's own operations; roles have theirs below.
const SHARD: u8 = u8::MAX;

/// How long a replica drains at most before it stops all the same.
const DRAIN_MAX: Duration = Duration::from_secs(2);

const DRAINING: u8 = 1;
const FINISHING: u8 = 2;
const HALTED: u8 = 3;

/// How far a replica's life has come; its shards follow.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lifecycle(Arc<AtomicU8>);

impl Lifecycle {
    /// Asks every shard to finish what it has and stop.
    pub fn drain(&self) {
        self.0.fetch_max(DRAINING, Ordering::AcqRel);
    }

    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Acquire) >= DRAINING
    }

    /// Everything taken was decided, executed and answered: shards may end.
    fn finish(&self) {
        self.0.fetch_max(FINISHING, Ordering::AcqRel);
    }

    /// Has every shard stop where it is.
    pub fn halt(&self) {
        self.0.store(HALTED, Ordering::Release);
    }

    pub fn is_halted(&self) -> bool {
        self.0.load(Ordering::Acquire) == HALTED
    }

    fn is_finishing(&self) -> bool {
        self.0.load(Ordering::Acquire) >= FINISHING
    }
}

/// What a shard's thread needs besides its roles.
pub(crate) struct ShardContext {
    pub name: String,
    /// The core to pin to; `None` leaves the thread to the scheduler.
    pub core: Option<usize>,
    pub doorbell: Doorbell,
    pub lifecycle: Lifecycle,
    pub started: Instant,
    /// How long to look for work before sleeping.
    pub spin: Duration,
    pub files: u32,
    pub receive_buffers: u16,
    pub receive_buffer_bytes: usize,
    /// Beats at every turn.
    pub pulse: Pulse,
    pub metrics: Arc<Metrics>,
    /// Its own, which it alone writes.
    pub times: Arc<TurnTimes>,
    /// The same.
    pub pen: FlightPen,
}

/// Why a shard ended early.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The ring could not be made.
    #[error("shard {shard}: {source}")]
    Reactor {
        /// The shard.
        shard: String,
        /// Why.
        source: ReactorError,
    },
    /// The ring failed.
    #[error("shard {shard}: io_uring_enter failed: {source}")]
    Ring {
        /// The shard.
        shard: String,
        /// Why.
        source: std::io::Error,
    },
    /// The thread could not be made.
    #[error("shard {shard}: the thread cannot be started: {source}")]
    Thread {
        /// The shard.
        shard: String,
        /// Why.
        source: std::io::Error,
    },
    /// The disk failed.
    #[error("shard {shard}: {source}")]
    Storage {
        /// The shard.
        shard: String,
        /// Why.
        source: StorageError,
    },
    /// The thread panicked: a bug.
    #[error("thread {shard} panicked: {message}")]
    Panicked {
        /// The shard.
        shard: String,
        /// What it said.
        message: String,
    },
}

/// Runs a shard until its replica has drained. Called on the shard's own thread.
pub(crate) fn run(context: &ShardContext, roles: &mut [Box<dyn Role>]) -> Result<(), ShardError> {
    if let Some(core) = context.core
        && !core_affinity::set_for_current(core_affinity::CoreId { id: core })
    {
        tracing::warn!(shard = context.name, core, "the thread could not be pinned");
    }
    let mut reactor = Reactor::new(
        context.files,
        context.receive_buffers,
        context.receive_buffer_bytes,
    )
    .map_err(|source| ShardError::Reactor {
        shard: context.name.clone(),
        source,
    })?;
    let result = Shard {
        context,
        reactor: &mut reactor,
        drain_until: None,
        idle_since: None,
        until_sample: 0,
        parts: Vec::with_capacity(roles.len()),
    }
    .turns(roles);
    // Nothing may complete into the roles' memory after they are dropped.
    reactor.cancel_all();
    result
}

struct Shard<'a> {
    context: &'a ShardContext,
    reactor: &'a mut Reactor,
    drain_until: Option<Instant>,
    idle_since: Option<Instant>,
    /// Turns before the next one that is measured.
    until_sample: u32,
    /// Whether each role did anything in the turn that is measured, and for how long; kept for its memory.
    parts: Vec<(bool, Duration)>,
}

impl Shard<'_> {
    fn turns(&mut self, roles: &mut [Box<dyn Role>]) -> Result<(), ShardError> {
        let pen = &self.context.pen;
        pen.record(self.now(), FlightEvent::of(FlightKind::Started));
        self.arm_doorbell();
        loop {
            if let Err(source) = self.reactor.turn() {
                return Err(self.ring_error(source));
            }
            self.complete(roles);
            self.context.pulse.beat();
            let now = self.now();
            let busy = match self.until_sample.checked_sub(1) {
                Some(left) => {
                    self.until_sample = left;
                    self.step(roles, now)
                }
                None => {
                    self.until_sample = SAMPLED_EVERY - 1;
                    self.step_measured(roles, now)
                }
            };
            self.context
                .metrics
                .counters
                .shard_turns
                .fetch_add(1, Ordering::Relaxed);
            if self.context.lifecycle.is_halted() {
                return Ok(());
            }
            if let Some(source) = roles.iter_mut().find_map(|role| role.failure()) {
                let shard = self.context.name.clone();
                return Err(ShardError::Storage { shard, source });
            }
            if self.context.lifecycle.is_draining() && self.is_drained(roles) {
                return Ok(());
            }
            if busy {
                self.idle_since = None;
            } else if self.has_spun() {
                self.park(roles).map_err(|source| self.ring_error(source))?;
            }
        }
    }

    /// What the roles do in one turn; whether they did anything.
    fn step(&mut self, roles: &mut [Box<dyn Role>], now: Time) -> bool {
        let mut busy = false;
        for role in roles.iter_mut() {
            busy |= role.step(now, self.reactor);
        }
        for role in roles.iter_mut().rev() {
            busy |= role.finish(now, self.reactor);
        }
        busy
    }

    /// The same, with a look at the lanes before it, and at the clock after each role.
    fn step_measured(&mut self, roles: &mut [Box<dyn Role>], now: Time) -> bool {
        roles.iter_mut().for_each(|role| role.observe());
        let begun = Instant::now();
        let mut last = begun;
        let mut lap = || {
            let at = Instant::now();
            at.duration_since(std::mem::replace(&mut last, at))
        };
        let parts = &mut self.parts;
        parts.clear();
        for role in roles.iter_mut() {
            let busy = role.step(now, self.reactor);
            parts.push((busy, lap()));
        }
        for (role, (busy, spent)) in roles.iter_mut().zip(parts.iter_mut()).rev() {
            *busy |= role.finish(now, self.reactor);
            *spent += lap();
        }
        let times = &self.context.times;
        for (role, (_, spent)) in roles.iter().zip(parts.iter()).filter(|(_, (busy, _))| *busy) {
            if let Some(kind) = role.kind() {
                times.record_role(kind, *spent);
            }
        }
        let busy = parts.iter().any(|(busy, _)| *busy);
        if busy {
            times.record_turn(begun.elapsed());
        }
        busy
    }

    fn ring_error(&self, source: std::io::Error) -> ShardError {
        ShardError::Ring {
            shard: self.context.name.clone(),
            source,
        }
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.context.started.elapsed().as_nanos() as u64)
    }

    fn has_spun(&mut self) -> bool {
        self.context.spin.is_zero()
            || self.idle_since.get_or_insert_with(Instant::now).elapsed() >= self.context.spin
    }

    fn is_drained(&mut self, roles: &mut [Box<dyn Role>]) -> bool {
        if self.drain_until.is_none() {
            let pen = &self.context.pen;
            pen.record(self.now(), FlightEvent::of(FlightKind::Draining));
        }
        let deadline = *self.drain_until.get_or_insert_with(|| Instant::now() + DRAIN_MAX);
        let finishing = self.context.lifecycle.is_finishing();
        // Every role hears of it, whatever the others say.
        let drained = roles
            .iter_mut()
            .fold(true, |all, role| role.drain(finishing) & all)
            && finishing;
        if roles.iter().any(|role| role.is_settled()) {
            self.context.lifecycle.finish();
        }
        drained || Instant::now() >= deadline
    }

    /// Sleeps until a completion, a doorbell or the next timer, unless there is input after all.
    fn park(&mut self, roles: &mut [Box<dyn Role>]) -> std::io::Result<()> {
        let doorbell = &self.context.doorbell;
        doorbell.prepare_park();
        if !roles.iter().any(|role| role.has_input()) {
            let now = self.now();
            let deadline = roles.iter().filter_map(|role| role.next_timeout()).min();
            let mut timeout = deadline.map(|deadline| until(now, deadline));
            if self.context.lifecycle.is_draining() {
                timeout = Some(timeout.unwrap_or(DRAIN_POLL).min(DRAIN_POLL));
            }
            self.context
                .metrics
                .counters
                .shard_parks
                .fetch_add(1, Ordering::Relaxed);
            self.reactor.wait(timeout)?;
            self.complete(roles);
        }
        self.context.doorbell.unpark();
        Ok(())
    }

    fn complete(&mut self, roles: &mut [Box<dyn Role>]) {
        let completions = self.reactor.take_completions();
        for completion in &completions {
            match roles.get_mut(usize::from(completion.token.owner)) {
                Some(role) => role.on_completion(self.reactor, *completion),
                None => {
                    self.context.doorbell.clear();
                    self.arm_doorbell();
                }
            }
        }
        self.reactor.return_completions(completions);
    }

    fn arm_doorbell(&mut self) {
        let token = Token {
            owner: SHARD,
            operation: 0,
            slot: 0,
            generation: 0,
        };
        self.reactor.poll_readable(self.context.doorbell.fd(), token);
    }
}

/// How often a draining shard looks again without being woken.
const DRAIN_POLL: Duration = Duration::from_millis(5);
