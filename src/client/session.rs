//! One client identity, without sockets: operations in, messages out, answers in, results out.
//!
//! - Operations are gathered; [`Session::flush`], called at the end of each turn of the caller's loop, sends a frame
//!   at once while few are under way. So nothing waits when idle, and frames grow by themselves under load.
//! - An ordered frame goes to the replica believed to lead; on a timeout to all, with growing pauses. The leader is
//!   that of the view that f+1 replicas have reached.
//! - A read-only frame goes to all; if no f+1 equal answers come in time, its operations are asked in order.
//! - A frame's sequence number is never more than the client window above the oldest one under way, so a
//!   correct replica never finds a live frame stale. An abandoned frame blocks no later one.
//!
//! Invariant: every submitted operation comes out exactly once, with a result or an error, by its deadline.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::answers::Answers;
use super::error::CallError;
use crate::crypto::{Digester, Domain, MacKey, SigningKey};
use crate::execution::CLIENT_WINDOW;
use crate::messages::archived::{ArchivedClientReply, ArchivedRefusalReason};
use crate::messages::{
    Authenticator, Checked, ClientReply, Envelope, FrameBuilder, Kind, Mode, RefusalReason, ReplyBody,
    RequestFrame, encode,
};
use crate::types::{ClientId, ClusterId, Epoch, FrameSeq, NodeId, Quorum, Time, View};

/// How the client proves its frames.
#[derive(Debug, Clone)]
pub enum Authentication {
    /// By one signature.
    Signature(SigningKey),
    /// By one MAC per replica, in order; and by signature once replicas ask for it.
    Macs(Vec<MacKey>, SigningKey),
}

/// What a session must know.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The membership.
    pub epoch: Epoch,
    /// The client.
    pub client: ClientId,
    /// The cluster's arithmetic.
    pub quorum: Quorum,
    /// How frames are proven.
    pub authentication: Authentication,
    /// The most operations in a frame.
    pub frame_operations_max: usize,
    /// The most bytes of operations in a frame.
    pub frame_bytes_max: usize,
    /// The most frames under way.
    pub frames_in_flight_max: usize,
    /// The most operations under way or gathered.
    pub operations_max: usize,
    /// How long to wait for answers before asking everybody.
    pub retransmit_timeout: Duration,
    /// The number of the first frame: the clock in microseconds, so that a restarted client never repeats one.
    pub first_sequence: u64,
}

/// What the session wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a message to a replica.
    Send {
        /// The replica.
        to: NodeId,
        /// The message, envelope included.
        message: Bytes,
    },
    /// Operations have ended, in the order in which they were submitted to their frame.
    Ended {
        /// The caller's names of the operations.
        tokens: Vec<u64>,
        /// Their results, or why there are none.
        outcome: Outcome,
    },
}

/// How the operations of a frame ended.
#[derive(Debug)]
pub enum Outcome {
    /// f+1 replicas agree on these results, one per operation.
    Results(Checked<ReplyBody>),
    /// None of them has a result.
    Failed(CallError),
}

/// An operation is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// Too many are under way.
    #[error("too many operations are under way")]
    Full,
    /// It is larger than a frame may be.
    #[error("the operation has {got} bytes, at most {max} fit a frame")]
    TooLarge {
        /// Its size.
        got: usize,
        /// The limit.
        max: usize,
    },
}

/// What a session counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Frames sent for the first time.
    pub frames_sent: u64,
    /// Frames sent again to everybody.
    pub retransmissions: u64,
    /// Answers that are not sound, not for us, or for nothing under way.
    pub answers_ignored: u64,
    /// Read-only frames asked again in order.
    pub reads_ordered: u64,
}

/// How many times the retransmission timeout doubles at most.
const BACKOFF_DOUBLINGS: u32 = 5;

#[derive(Debug, Default)]
struct Gathering {
    frame: FrameBuilder,
    tokens: Vec<u64>,
    deadline: Option<Time>,
}

#[derive(Debug)]
struct InFlight {
    mode: Mode,
    body: Vec<u8>,
    message: Bytes,
    tokens: Vec<u64>,
    deadline: Time,
    timeout: Time,
    attempts: u32,
    answers: Answers,
}

/// The protocol state of one client identity.
pub struct Session {
    config: SessionConfig,
    digester: Digester,
    must_sign: bool,
    ordered: Gathering,
    unordered: Gathering,
    /// Frames under way by sequence number: entry i has number `first + i`; `None` once ended.
    frames: VecDeque<Option<InFlight>>,
    first: u64,
    live: usize,
    operations: usize,
    views: Vec<View>,
    outputs: Vec<Output>,
    /// The earliest deadline or timeout may be earlier than this, never later.
    next_timeout: Option<Time>,
    counters: SessionCounters,
}

impl Session {
    /// A session with nothing under way.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        Self {
            digester: Digester::new(config.cluster),
            must_sign: false,
            ordered: Gathering::default(),
            unordered: Gathering::default(),
            frames: VecDeque::new(),
            first: config.first_sequence,
            live: 0,
            operations: 0,
            views: vec![View::ZERO; config.quorum.n()],
            outputs: Vec::new(),
            next_timeout: None,
            counters: SessionCounters::default(),
            config,
        }
    }

    /// Takes one operation; `token` comes back with its end, at the latest at `deadline`.
    ///
    /// # Errors
    /// When it is too large, or too many are under way.
    pub fn submit(
        &mut self,
        now: Time,
        operation: &[u8],
        mode: Mode,
        token: u64,
        deadline: Time,
    ) -> Result<(), SubmitError> {
        let max = self.config.frame_bytes_max;
        if operation.len() > max {
            return Err(SubmitError::TooLarge {
                got: operation.len(),
                max,
            });
        }
        if self.operations >= self.config.operations_max {
            return Err(SubmitError::Full);
        }
        let gathering = self.gathering(mode);
        if gathering.frame.operation_bytes() + operation.len() > max
            || gathering.tokens.len() >= self.config.frame_operations_max
        {
            // The gathered frame is full. Without room to send it the caller has to wait.
            if !self.has_room() {
                return Err(SubmitError::Full);
            }
            self.send_gathered(now, mode);
        }
        let gathering = self.gathering(mode);
        gathering
            .frame
            .push(operation)
            .map_err(|_| SubmitError::TooLarge {
                got: operation.len(),
                max,
            })?;
        gathering.tokens.push(token);
        gathering.deadline = Some(
            gathering
                .deadline
                .map_or(deadline, |earlier| earlier.min(deadline)),
        );
        self.wake_by(deadline);
        self.operations += 1;
        Ok(())
    }

    /// Sends what was gathered, if there is room under way. Call at the end of each turn.
    pub fn flush(&mut self, now: Time) {
        for mode in [Mode::Ordered, Mode::Unordered] {
            if !self.gathering(mode).tokens.is_empty() && self.has_room() {
                self.send_gathered(now, mode);
            }
        }
    }

    /// A message from a replica arrived.
    pub fn on_message(&mut self, now: Time, from: NodeId, message: &Bytes) {
        if !self.try_message(now, from, message) {
            self.counters.answers_ignored += 1;
        }
    }

    /// Ends what is past its deadline and asks again what is late.
    pub fn on_time(&mut self, now: Time) {
        if self.next_timeout.is_none_or(|at| now < at) {
            return;
        }
        self.next_timeout = None;
        for mode in [Mode::Ordered, Mode::Unordered] {
            let gathering = self.gathering(mode);
            if gathering.deadline.is_some_and(|deadline| deadline <= now) {
                let gathering = std::mem::take(gathering);
                self.end(
                    gathering.tokens,
                    Outcome::Failed(CallError::DeadlineExceeded(Vec::new())),
                );
            }
            if let Some(deadline) = self.gathering(mode).deadline {
                self.wake_by(deadline);
            }
        }
        for index in 0..self.frames.len() {
            let Some(frame) = &self.frames[index] else {
                continue;
            };
            if frame.deadline <= now {
                let report = frame.answers.report(self.config.quorum.n());
                self.end_frame(index, Outcome::Failed(CallError::DeadlineExceeded(report)));
            } else if frame.timeout <= now {
                self.retransmit(now, index);
            } else {
                let at = frame.timeout.min(frame.deadline);
                self.wake_by(at);
            }
        }
        self.drop_ended();
    }

    /// When [`on_time`](Self::on_time) must be called next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        self.next_timeout
    }

    /// What the session wants done since the last call; the allocation stays.
    pub fn drain_outputs(&mut self) -> std::vec::Drain<'_, Output> {
        self.outputs.drain(..)
    }

    /// How many operations are under way or gathered.
    #[must_use]
    pub fn operations(&self) -> usize {
        self.operations
    }

    /// The replica believed to lead: that of the view which f+1 replicas have reached.
    #[must_use]
    pub fn leader(&self) -> NodeId {
        let mut views = self.views.clone();
        views.sort_unstable_by(|a, b| b.cmp(a));
        views[self.config.quorum.f()].leader(self.config.quorum.n())
    }

    /// What was counted so far.
    #[must_use]
    pub fn counters(&self) -> SessionCounters {
        self.counters
    }

    fn gathering(&mut self, mode: Mode) -> &mut Gathering {
        match mode {
            Mode::Ordered => &mut self.ordered,
            Mode::Unordered => &mut self.unordered,
        }
    }

    /// Whether one more frame may be under way.
    fn has_room(&self) -> bool {
        self.live < self.config.frames_in_flight_max && (self.frames.len() as u64) < CLIENT_WINDOW
    }

    fn wake_by(&mut self, at: Time) {
        self.next_timeout = Some(self.next_timeout.map_or(at, |earlier| earlier.min(at)));
    }

    fn send_gathered(&mut self, now: Time, mode: Mode) {
        let sequence = FrameSeq::new(self.first + self.frames.len() as u64);
        let client = self.config.client;
        let gathering = self.gathering(mode);
        let body = gathering.frame.finish(client, sequence, mode);
        let tokens = std::mem::take(&mut gathering.tokens);
        let Some(deadline) = gathering.deadline.take() else {
            return;
        };
        let message = self.authenticate(&body);
        let timeout = now.after(self.config.retransmit_timeout);
        self.wake_by(timeout);
        self.counters.frames_sent += 1;
        match mode {
            Mode::Ordered => {
                let to = self.leader();
                self.outputs.push(Output::Send {
                    to,
                    message: message.clone(),
                });
            }
            Mode::Unordered => self.send_to_all(&message),
        }
        let answers = Answers::default();
        self.frames.push_back(Some(InFlight {
            mode,
            body,
            message,
            tokens,
            deadline,
            timeout,
            attempts: 0,
            answers,
        }));
        self.live += 1;
    }

    fn send_to_all(&mut self, message: &Bytes) {
        let all = NodeId::all(self.config.quorum.n());
        self.outputs.extend(all.map(|to| Output::Send {
            to,
            message: message.clone(),
        }));
    }

    /// The whole message for a frame with this body.
    fn authenticate(&self, body: &[u8]) -> Bytes {
        let digest = self.digester.digest(Domain::RequestFrame, body);
        let authenticator = match &self.config.authentication {
            Authentication::Macs(keys, _) if !self.must_sign => {
                Authenticator::Macs(keys.iter().map(|key| key.mac(&digest)).collect())
            }
            Authentication::Macs(_, key) | Authentication::Signature(key) => {
                Authenticator::Signature(key.sign(Domain::RequestFrame, &digest))
            }
        };
        let envelope = Envelope::new(Kind::Request, self.config.cluster, self.config.epoch);
        let frame = RequestFrame {
            body: body.to_vec(),
            authenticator,
        };
        encode(envelope, &frame, body.len() + 160)
    }

    fn try_message(&mut self, now: Time, from: NodeId, message: &Bytes) -> bool {
        let Ok(envelope) = Envelope::open(message, self.config.cluster, self.config.epoch) else {
            return false;
        };
        if envelope.kind == Kind::Link {
            return true;
        }
        let Ok(reply) = Checked::<ClientReply>::body_of(message) else {
            return false;
        };
        if envelope.kind != Kind::Reply || from.index() >= self.views.len() {
            return false;
        }
        match &*reply {
            ArchivedClientReply::Results { view, body } => {
                self.saw_view(from, View::new(view.to_native()));
                let body = reply.slice_of(body.as_slice());
                self.on_results(from, body)
            }
            ArchivedClientReply::Refused {
                view,
                sequence,
                reason,
            } => {
                self.saw_view(from, View::new(view.to_native()));
                self.on_refused(now, from, sequence.to_native(), to_reason(*reason))
            }
        }
    }

    /// A replica's view only grows; a liar moves the leader by nothing unless f others agree.
    fn saw_view(&mut self, from: NodeId, view: View) {
        let known = &mut self.views[from.index()];
        *known = view.max(*known);
    }

    /// The place of a frame under way.
    fn index_of(&self, sequence: u64) -> Option<usize> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.frames.get(index)?.as_ref().map(|_| index)
    }

    fn on_results(&mut self, from: NodeId, body: Bytes) -> bool {
        let Ok(checked) = Checked::<ReplyBody>::new(body) else {
            return false;
        };
        if checked.client.to_native() != self.config.client.get() {
            return false;
        }
        let Some(index) = self.index_of(checked.sequence.to_native()) else {
            return true;
        };
        let Some(frame) = &mut self.frames[index] else {
            return true;
        };
        if !checked.is_sound() || checked.ends.len() != frame.tokens.len() {
            return false;
        }
        let (weak, n) = (self.config.quorum.weak(), self.config.quorum.n());
        if frame
            .answers
            .add_body(from, checked.bytes().clone(), weak)
            .is_some()
        {
            self.end_frame(index, Outcome::Results(checked));
            self.drop_ended();
        } else if frame.mode == Mode::Unordered && frame.answers.all_answered(n) {
            // Everybody answered and no f+1 agree: the state moves too fast for this read.
            frame.timeout = Time::START;
            self.next_timeout = Some(Time::START);
        }
        true
    }

    fn on_refused(&mut self, now: Time, from: NodeId, sequence: u64, reason: RefusalReason) -> bool {
        let Some(index) = self.index_of(sequence) else {
            return false;
        };
        let Some(frame) = &mut self.frames[index] else {
            return false;
        };
        let weak = self.config.quorum.weak();
        match reason {
            // Passing: the retransmission asks again. One honest leader is enough to say so.
            RefusalReason::Overloaded => {
                frame.answers.add_refusal(from, reason, weak);
            }
            // Signing more than necessary does no harm: believed from anybody.
            RefusalReason::MustSign if matches!(self.config.authentication, Authentication::Macs(..)) => {
                frame.answers.add_refusal(from, reason, weak);
                if !self.must_sign {
                    self.must_sign = true;
                    frame.timeout = now;
                    self.next_timeout = Some(now);
                }
            }
            _ => {
                if let Some(reason) = frame.answers.add_refusal(from, reason, weak) {
                    self.end_frame(index, Outcome::Failed(CallError::Refused(reason)));
                    self.drop_ended();
                }
            }
        }
        true
    }

    /// Asks everybody again; a read is asked in order from now on.
    fn retransmit(&mut self, now: Time, index: usize) {
        self.counters.retransmissions += 1;
        let Some(mut frame) = self.frames[index].take() else {
            return;
        };
        let mut resign = self.must_sign && frame.attempts == 0;
        if frame.mode == Mode::Unordered {
            self.counters.reads_ordered += 1;
            frame.mode = Mode::Ordered;
            frame.answers.clear();
            frame.body = self.reordered(&frame.body);
            resign = true;
        }
        if resign {
            frame.message = self.authenticate(&frame.body);
        }
        frame.answers.clear_refusals();
        frame.attempts += 1;
        let pause = self.config.retransmit_timeout * 2u32.pow(frame.attempts.min(BACKOFF_DOUBLINGS));
        frame.timeout = now.after(pause);
        self.wake_by(frame.timeout.min(frame.deadline));
        let message = frame.message.clone();
        self.frames[index] = Some(frame);
        self.send_to_all(&message);
    }

    /// The body of a read-only frame as an ordered one with the same number.
    fn reordered(&self, body: &[u8]) -> Vec<u8> {
        let Ok(checked) = Checked::<crate::messages::RequestBody>::new(Bytes::copy_from_slice(body)) else {
            return body.to_vec();
        };
        let mut builder = FrameBuilder::default();
        for operation in checked.operations() {
            // It fitted before.
            let _ = builder.push(operation);
        }
        builder.finish(self.config.client, checked.sequence(), Mode::Ordered)
    }

    fn end_frame(&mut self, index: usize, outcome: Outcome) {
        if let Some(frame) = self.frames[index].take() {
            self.live -= 1;
            self.end(frame.tokens, outcome);
        }
    }

    fn end(&mut self, tokens: Vec<u64>, outcome: Outcome) {
        self.operations -= tokens.len();
        self.outputs.push(Output::Ended { tokens, outcome });
    }

    fn drop_ended(&mut self) {
        while let Some(None) = self.frames.front() {
            self.frames.pop_front();
            self.first += 1;
        }
    }
}

fn to_reason(reason: ArchivedRefusalReason) -> RefusalReason {
    match reason {
        ArchivedRefusalReason::Malformed => RefusalReason::Malformed,
        ArchivedRefusalReason::NotAuthentic => RefusalReason::NotAuthentic,
        ArchivedRefusalReason::Overloaded => RefusalReason::Overloaded,
        ArchivedRefusalReason::Stale => RefusalReason::Stale,
        ArchivedRefusalReason::MustSign => RefusalReason::MustSign,
    }
}
