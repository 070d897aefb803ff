//! One client identity, without sockets: operations in, messages out, answers in, results out.
//!
//! - Operations are gathered; [`Session::flush`], called at the end of each turn of the caller's loop, sends a frame
//!   at once while few are under way. So nothing waits when idle, and frames grow by themselves under load.
//! - An ordered frame goes to the replica believed to lead; on a timeout to all, with growing pauses. The leader is
//!   that of the view that f+1 replicas have reached.
//! - A replica's latest answer counts, one for each. How many equal ones are enough is the [`AnswerRule`]'s.
//! - A read-only frame goes to all; if not enough equal answers come in time, or can come, its operations are asked in order.
//! - A frame's sequence number is never more than the client window above the oldest one under way, so a
//!   correct replica never finds a live frame stale. An abandoned frame blocks no later one.
//!
//! # How many answers are enough
//! n replicas, f of them faulty, q = ⌈(n+f+1)/2⌉: two sets of q share at least f+1 replicas, hence a correct one. A replica that crashes and
//! restarts with what its disk had is correct, and so is one that knows that its disk forgot something.
//! - **Ordered operations alone: f+1.** One of them is correct, and what it answers was decided.
//! - **Linearizable reads beside the order: q, and then q for ordered operations as well.** Say a write ended before a read
//!   began. With q equal answers each, some correct replica gave both; it had executed the write when it answered the
//!   read, so the value read is no older. With f+1 for the write this fails: its answers may come from f liars and one correct
//!   replica, and q answers of others, none of which has executed the write yet, agree on the old value. Two reads are in order
//!   for the same reason: each value read is the state of a correct replica after some decision. (Berger, Reiser and Bessani,
//!   "Making Reads in BFT State Machine Replication Fast, Linearizable, and Live", SRDS 2021.)
//! - **This takes that the shared replica never answers a read from an earlier state than it answered from before.** Execution only goes
//!   forward while it runs; but a decision is answered before the record of it is on disk, so a restarted replica may begin before it,
//!   and a state that replaces a wrong one may be older. So a replica answers reads only from states after all that it may have
//!   answered from in earlier lives, and refuses them until then ([`Replica::reads_from`](crate::replica::Replica::reads_from) says how it
//!   knows). Were it not so, all could lose power just after a write was acknowledged, and q answers agree on the old value.
//! - **It must stay live** (the second part of the same paper): a client that waits for q answers to a write needs every
//!   correct replica to answer, also those that learnt of the write from a checkpoint and never executed it. Here the
//!   replies are part of the client table, and that of every checkpoint: such a replica answers a retransmission from
//!   the table. A read that finds no q equal answers, or that too many refuse, is asked in order: there all correct replicas agree, and
//!   n−f ≥ q. What is ordered for it also moves those that refused.
//! - **Relaxed reads: f+1 equal answers.** A correct replica vouches that the state was so, once. Never a default.
//!
//! Invariant: every submitted operation comes out exactly once, with a result or an error, by its deadline.

use std::collections::VecDeque;

use bytes::Bytes;

use super::answers::Answers;
use super::calls::Calls;
use super::config::{SessionConfig, SessionCounters, SubmitError};
use super::error::CallError;
use super::outcome::{Outcome, Output};
use super::prover::Prover;
use crate::execution::CLIENT_WINDOW;
use crate::messages::archived::{ArchivedClientReply, ArchivedRefusalReason};
use crate::messages::{
    Checked, ClientReply, Envelope, FrameBuilder, Kind, Mode, RefusalReason, ReplyBody, RequestBody,
};
use crate::mutants::{Mutant, active};
use crate::types::{FrameSeq, NodeId, Signers, Time, View};

/// How many times the retransmission timeout doubles at most.
const BACKOFF_DOUBLINGS: u32 = 5;

#[derive(Debug, Default)]
struct Gathering {
    frame: FrameBuilder,
    calls: Calls,
}

#[derive(Debug)]
struct InFlight {
    mode: Mode,
    body: Vec<u8>,
    message: Bytes,
    /// Whether `message` is signed, and who was sent it signed.
    is_signed: bool,
    signed_to: Signers,
    calls: Calls,
    timeout: Time,
    attempts: u32,
    answers: Answers,
}

/// The protocol state of one client identity.
pub struct Session {
    config: SessionConfig,
    prover: Prover,
    ordered: Gathering,
    unordered: Gathering,
    /// The mode of the frame sent last: where both wait, they take turns.
    last_sent: Mode,
    /// Frames under way by sequence number: entry i has number `first + i`; `None` once ended.
    frames: VecDeque<Option<InFlight>>,
    first: u64,
    live: usize,
    operations: usize,
    views: Vec<View>,
    leader: NodeId,
    outputs: Vec<Output>,
    /// When the session was flushed last, or looked at the time.
    now: Time,
    /// No deadline or timeout lies before this; there may be none at it.
    next_timeout: Option<Time>,
    counters: SessionCounters,
}

impl Session {
    /// A session with nothing under way.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        let (n, weak) = (config.quorum.n(), config.quorum.weak());
        let place = (config.cluster, config.epoch);
        Self {
            prover: Prover::new(config.authentication.clone(), place, weak),
            ordered: Gathering::default(),
            unordered: Gathering::default(),
            last_sent: Mode::Unordered,
            frames: VecDeque::new(),
            first: config.first_sequence,
            live: 0,
            operations: 0,
            views: vec![View::ZERO; n],
            leader: View::ZERO.leader(n),
            outputs: Vec::new(),
            now: Time::START,
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
        let mode = match self.config.answers.unordered {
            Some(_) => mode,
            None => Mode::Ordered,
        };
        let max = self.config.frame_bytes_max;
        let too_large = SubmitError::TooLarge {
            got: operation.len(),
            max,
        };
        if operation.len() > max {
            return Err(too_large);
        }
        if self.operations >= self.config.operations_max {
            return Err(SubmitError::Full);
        }
        let operations_max = self.config.frame_operations_max;
        let gathering = self.gathering(mode);
        if gathering.frame.operation_bytes() + operation.len() > max
            || gathering.calls.len() >= operations_max
        {
            // The gathered frame is full. Without room to send it the caller has to wait.
            if !self.has_room() || self.is_others_turn(mode) {
                return Err(SubmitError::Full);
            }
            self.send_gathered(now, mode);
        }
        let gathering = self.gathering(mode);
        gathering.frame.push(operation).map_err(|_| too_large)?;
        gathering.calls.push(token, deadline);
        self.wake_by(deadline);
        self.operations += 1;
        Ok(())
    }

    /// Sends what was gathered, if there is room under way. Call at the end of each turn.
    pub fn flush(&mut self, now: Time) {
        self.now = self.now.max(now);
        let turns = match self.last_sent {
            Mode::Ordered => [Mode::Unordered, Mode::Ordered],
            Mode::Unordered => [Mode::Ordered, Mode::Unordered],
        };
        for mode in turns {
            if !self.gathering(mode).calls.is_empty() && self.has_room() {
                self.send_gathered(now, mode);
            }
        }
    }

    /// A message from a replica arrived.
    pub fn on_message(&mut self, from: NodeId, message: &Bytes) {
        if !self.try_message(from, message) {
            self.counters.answers_ignored += 1;
        }
    }

    /// Ends what is past its deadline and asks again what is late.
    pub fn on_time(&mut self, now: Time) {
        if self.next_timeout.is_none_or(|at| now < at) {
            return;
        }
        self.next_timeout = None;
        self.now = self.now.max(now);
        self.expire_gathered(now, Mode::Ordered);
        self.expire_gathered(now, Mode::Unordered);
        for index in 0..self.frames.len() {
            let Some(frame) = &mut self.frames[index] else {
                continue;
            };
            let expired = frame.calls.expire(now);
            let report = (!expired.is_empty()).then(|| frame.answers.report(self.config.quorum.n()));
            let (deadline, timeout) = (frame.calls.next_deadline(), frame.timeout);
            if let Some(report) = report {
                self.fail(expired, CallError::DeadlineExceeded(report));
            }
            let Some(deadline) = deadline else {
                self.take_frame(index);
                continue;
            };
            if timeout <= now {
                self.retransmit(now, index);
            } else {
                self.wake_by(timeout);
            }
            self.wake_by(deadline);
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
        self.leader
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

    /// How many more frames may be under way.
    fn room(&self) -> usize {
        let in_window = (CLIENT_WINDOW as usize).saturating_sub(self.frames.len());
        in_window.min(self.config.frames_in_flight_max.saturating_sub(self.live))
    }

    fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// Whether the last room is for the other mode, which waits and was not served last.
    fn is_others_turn(&mut self, mode: Mode) -> bool {
        let other = match mode {
            Mode::Ordered => Mode::Unordered,
            Mode::Unordered => Mode::Ordered,
        };
        self.room() == 1 && self.last_sent == mode && !self.gathering(other).calls.is_empty()
    }

    fn wake_by(&mut self, at: Time) {
        self.next_timeout = Some(self.next_timeout.map_or(at, |earlier| earlier.min(at)));
    }

    fn send_gathered(&mut self, now: Time, mode: Mode) {
        let sequence = FrameSeq::new(self.first + self.frames.len() as u64);
        let client = self.config.client;
        let gathering = self.gathering(mode);
        if gathering.calls.is_empty() {
            return;
        }
        let body = gathering.frame.finish(client, sequence, mode);
        let calls = std::mem::take(&mut gathering.calls);
        let timeout = now.after(self.config.retransmit_timeout);
        self.wake_by(timeout);
        self.counters.frames_sent += 1;
        self.last_sent = mode;
        let to = (mode == Mode::Ordered).then_some(self.leader);
        let is_signed = self.prover.signs(now);
        let (body, message) = self.prover.message(body, is_signed);
        let mut frame = InFlight {
            mode,
            body,
            message,
            is_signed,
            signed_to: Signers::NONE,
            calls,
            timeout,
            attempts: 0,
            answers: Answers::default(),
        };
        match to {
            Some(leader) => self.send(leader, &mut frame),
            None => self.send_to_all(&mut frame),
        }
        self.frames.push_back(Some(frame));
        self.live += 1;
    }

    fn send(&mut self, to: NodeId, frame: &mut InFlight) {
        if frame.is_signed {
            frame.signed_to.add(to);
        }
        let message = frame.message.clone();
        self.outputs.push(Output::Send { to, message });
    }

    fn send_to_all(&mut self, frame: &mut InFlight) {
        NodeId::all(self.config.quorum.n()).for_each(|to| self.send(to, frame));
    }

    fn try_message(&mut self, from: NodeId, message: &Bytes) -> bool {
        let Ok(envelope) = Envelope::open(message, self.config.cluster, self.config.epoch) else {
            return false;
        };
        if envelope.kind == Kind::Link {
            return true;
        }
        if envelope.kind != Kind::Reply || from.index() >= self.views.len() {
            return false;
        }
        let Ok(reply) = Checked::<ClientReply>::body_of(message) else {
            return false;
        };
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
                self.on_refused(from, sequence.to_native(), to_reason(*reason))
            }
        }
    }

    /// A replica's view only grows; f liars move the leader by nothing unless a correct replica agrees.
    fn saw_view(&mut self, from: NodeId, view: View) {
        if view <= self.views[from.index()] {
            return;
        }
        self.views[from.index()] = view;
        let mut views = self.views.clone();
        views.sort_unstable_by(|a, b| b.cmp(a));
        self.leader = views[self.config.quorum.f()].leader(self.config.quorum.n());
    }

    /// The place of a frame that is under way, or ended behind an older one that is.
    fn index_of(&self, sequence: u64) -> Option<usize> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        (index < self.frames.len()).then_some(index)
    }

    /// Whether a frame of this session's with that number can have been sent, now or before.
    fn was_sent(&self, sequence: u64) -> bool {
        (self.config.first_sequence..self.first + self.frames.len() as u64).contains(&sequence)
    }

    fn on_results(&mut self, from: NodeId, body: Bytes) -> bool {
        let Ok(checked) = Checked::<ReplyBody>::new(body) else {
            return false;
        };
        if checked.client.to_native() != self.config.client.get() || !checked.is_sound() {
            return false;
        }
        let sequence = checked.sequence.to_native();
        let index = self.index_of(sequence);
        let Some((index, frame)) = index.and_then(|index| Some((index, self.frames[index].as_mut()?))) else {
            // Late answers are the rule: one more than f+1 is.
            return self.was_sent(sequence);
        };
        if checked.ends.len() != frame.calls.len() {
            return false;
        }
        let (rule, n) = (self.config.answers, self.config.quorum.n());
        let mut enough = match frame.mode {
            Mode::Ordered => rule.ordered,
            Mode::Unordered => rule.unordered.unwrap_or(rule.ordered),
        };
        if active(Mutant::OneReplyBelieved) {
            enough = 1;
        }
        if frame.answers.add_body(from, checked.bytes().clone(), enough) {
            if let Some(frame) = self.take_frame(index) {
                self.operations -= frame.calls.end_with(&checked, &mut self.outputs);
            }
            self.drop_ended();
        } else if frame.mode == Mode::Unordered && !frame.answers.can_agree(n, enough) {
            // Not enough can agree any more: the state moves too fast for this read.
            frame.timeout = Time::START;
            self.next_timeout = Some(Time::START);
        }
        true
    }

    fn on_refused(&mut self, from: NodeId, sequence: u64, reason: RefusalReason) -> bool {
        let index = self.index_of(sequence);
        let Some(mut frame) = index.and_then(|index| self.frames[index].take()) else {
            return self.was_sent(sequence);
        };
        let believed = frame.answers.add_refusal(from, reason, self.config.quorum.weak());
        match reason {
            // Passing: the retransmission asks again. One honest leader is enough to say so.
            RefusalReason::Overloaded => {}
            RefusalReason::MustSign if self.prover.has_macs() => self.on_must_sign(from, &mut frame),
            // Others may answer the read. If too few are left it is asked in order, at once.
            RefusalReason::CatchingUp => {
                let enough = self.config.answers.unordered;
                let enough = enough.filter(|_| frame.mode == Mode::Unordered);
                let n = self.config.quorum.n();
                if enough.is_some_and(|enough| !frame.answers.can_agree(n, enough)) {
                    frame.timeout = Time::START;
                    self.next_timeout = Some(Time::START);
                }
            }
            // One of them is correct, and holds a signature against a leader that does not order the frame.
            RefusalReason::Unproven if believed && !frame.is_signed => {
                self.counters.frames_proven += 1;
                self.sign(&mut frame);
                self.send_to_all(&mut frame);
            }
            RefusalReason::OrderedOnly if believed && frame.mode == Mode::Unordered => {
                frame.timeout = Time::START;
                self.next_timeout = Some(Time::START);
            }
            RefusalReason::Unproven | RefusalReason::OrderedOnly => {}
            _ if believed => {
                self.live -= 1;
                self.fail(frame.calls.into_tokens(), CallError::Refused(reason));
                self.drop_ended();
                return true;
            }
            _ => {}
        }
        if let Some(index) = index {
            self.frames[index] = Some(frame);
        }
        true
    }

    /// Gives replicas that want it the frame signed, once, if f+1 want it. If it is the leader alone that wants it, all others are asked.
    fn on_must_sign(&mut self, from: NodeId, frame: &mut InFlight) {
        self.prover.asked_by(self.now, from);
        if self.prover.signs(self.now) {
            let asking: Vec<NodeId> = self.prover.asking(self.now).collect();
            self.sign(frame);
            for to in asking {
                if !frame.signed_to.has(to) {
                    self.send(to, frame);
                }
            }
        } else if from == self.leader && frame.attempts == 0 {
            frame.timeout = Time::START;
            self.next_timeout = Some(Time::START);
        }
    }

    fn sign(&self, frame: &mut InFlight) {
        if !frame.is_signed {
            let (body, message) = self.prover.message(std::mem::take(&mut frame.body), true);
            (frame.body, frame.message, frame.is_signed) = (body, message, true);
        }
    }

    /// Asks everybody again; a read is asked in order from now on.
    fn retransmit(&mut self, now: Time, index: usize) {
        self.counters.retransmissions += 1;
        let Some(mut frame) = self.frames[index].take() else {
            return;
        };
        if frame.mode == Mode::Unordered {
            self.counters.reads_ordered += 1;
            frame.mode = Mode::Ordered;
            frame.answers.clear();
            let sequence = FrameSeq::new(self.first + index as u64);
            let mut builder = kept(&frame.body, |_| true);
            let body = builder.finish(self.config.client, sequence, Mode::Ordered);
            frame.is_signed |= self.prover.signs(now);
            (frame.body, frame.message) = self.prover.message(body, frame.is_signed);
        } else if self.prover.signs(now) {
            self.sign(&mut frame);
        }
        frame.answers.clear_refusals();
        frame.attempts += 1;
        let factor = 2u32.pow(frame.attempts.min(BACKOFF_DOUBLINGS));
        frame.timeout = now.after(self.config.retransmit_timeout.saturating_mul(factor));
        self.wake_by(frame.timeout);
        if !active(Mutant::RetransmissionSkipped) {
            self.send_to_all(&mut frame);
        }
        self.frames[index] = Some(frame);
    }

    /// Ends the gathered calls whose deadline has come, and forgets their operations.
    fn expire_gathered(&mut self, now: Time, mode: Mode) {
        let client = self.config.client;
        let gathering = self.gathering(mode);
        let expired = gathering.calls.expire(now);
        if !expired.is_empty() {
            let calls = std::mem::take(&mut gathering.calls);
            let body = gathering.frame.finish(client, FrameSeq::new(0), mode);
            gathering.frame = kept(&body, |index| calls.is_waiting(index));
            gathering.calls = calls.into_waiting();
            self.fail(expired, CallError::NeverSent);
        }
        if let Some(deadline) = self.gathering(mode).calls.next_deadline() {
            self.wake_by(deadline);
        }
    }

    fn take_frame(&mut self, index: usize) -> Option<InFlight> {
        let frame = self.frames[index].take()?;
        self.live -= 1;
        Some(frame)
    }

    fn fail(&mut self, tokens: Vec<u64>, error: CallError) {
        self.operations -= tokens.len();
        let outcome = Outcome::Failed(error);
        self.outputs.push(Output::Ended { tokens, outcome });
    }

    fn drop_ended(&mut self) {
        while let Some(None) = self.frames.front() {
            self.frames.pop_front();
            self.first += 1;
        }
    }
}

/// The operations of a body of our own that are to be kept, gathered again.
fn kept(body: &[u8], keep: impl Fn(usize) -> bool) -> FrameBuilder {
    let mut builder = FrameBuilder::default();
    let body =
        Checked::<RequestBody>::new(Bytes::copy_from_slice(body)).expect("an archive we just made is sound");
    for (_, operation) in body.operations().enumerate().filter(|(index, _)| keep(*index)) {
        builder.push(operation).expect("what fitted before fits again");
    }
    builder
}

fn to_reason(reason: ArchivedRefusalReason) -> RefusalReason {
    match reason {
        ArchivedRefusalReason::Malformed => RefusalReason::Malformed,
        ArchivedRefusalReason::NotAuthentic => RefusalReason::NotAuthentic,
        ArchivedRefusalReason::Overloaded => RefusalReason::Overloaded,
        ArchivedRefusalReason::Stale => RefusalReason::Stale,
        ArchivedRefusalReason::MustSign => RefusalReason::MustSign,
        ArchivedRefusalReason::CatchingUp => RefusalReason::CatchingUp,
        ArchivedRefusalReason::Unproven => RefusalReason::Unproven,
        ArchivedRefusalReason::OrderedOnly => RefusalReason::OrderedOnly,
    }
}
