//! One client identity, without sockets: operations in, messages out, answers in, results out.
//!
//! - Operations are gathered; [`Session::flush`], called at the end of each turn of the caller's loop, sends
//!   a frame at once while few are under way. So nothing waits when idle, and frames grow by themselves under
//!   load.
//! - An ordered frame goes to the replica believed to lead, or to all that are linked when that one is not;
//!   on a timeout to all, with growing pauses. The leader is that of the view that f+1 replicas have reached.
//! - Whoever is linked later gets the frames that were meant for it then.
//! - A replica's latest answer counts, one for each, and only if it names the digest of what was asked. How
//!   many equal ones are enough is the [`AnswerRule`](super::AnswerRule)'s.
//! - A read-only frame goes to all; if not enough equal answers come in time, or can come, its operations are
//!   read in order.
//! - A frame's sequence number is never more than the client window above the oldest one under way, so a
//!   correct replica never finds a live frame stale. An abandoned frame blocks no later one.
//! - A reply may end early, as its results are too long for one. The operations behind were not executed and
//!   are sent again.
//!
//! # Which numbers are free
//! Several processes may use one identity, one after the other or at once; each frame is numbered by its
//! session, which is one process's, and within. No clock and no file is asked: the replicas tell which
//! sessions they know, and a session begins a random step above the highest that f+1 of a quorum vouch for. f
//! liars cannot name one that is too high. If the number is too low, or two processes take the same, every
//! frame is still executed at most once, and its results go to who asked for it: replies are bound to
//! digests, and f+1 replicas say of the other frame of a number that it was not executed. It is then sent in
//! another session. After a while without frames the session begins anew: the cluster ends the sessions of an
//! identity that are too many, those first that executed nothing for longest.
//!
//! # How many answers are enough
//! n replicas, f of them faulty, q = ⌈(n+f+1)/2⌉: two sets of q share at least f+1 replicas, hence a correct
//! one. A replica that crashes and restarts with what its disk had is correct, and so is one that knows that
//! its disk forgot something.
//! - **Ordered operations alone: f+1.** One of them is correct, and what it answers was decided.
//! - **Linearizable reads beside the order: q, and then q for ordered operations as well.** Say a write ended
//!   before a read began. With q equal answers each, some correct replica gave both; it had executed the
//!   write when it answered the read, so the value read is no older. With f+1 for the write this fails: its
//!   answers may come from f liars and one correct replica, and q answers of others, none of which has
//!   executed the write yet, agree on the old value. Two reads are in order for the same reason: each value
//!   read is the state of a correct replica after some decision. (Berger, Reiser and Bessani, "Making Reads
//!   in BFT State Machine Replication Fast, Linearizable, and Live", SRDS 2021.)
//! - **Equal values are not enough for a read: they have to be of one state, or of states that include what
//!   may have been acknowledged.** A value may come back. Say a register was empty, was set, and was emptied
//!   again; the first write was acknowledged by q, of them a faulty one. A correct one that has not heard of
//!   either, one that has executed both, and the faulty one are q that read "empty"; then those two that have
//!   executed the first alone, and the faulty one, are q that read what was set: time goes back. (The paper
//!   above does not exclude it.) So each answer says of which state it is
//!   ([`StateRead`](crate::smr::messages::StateRead)), and a read ends
//!   - *with q equal answers from one state.* q that acknowledged a write include a correct one of these: the
//!     state includes the write. A later read's q include another correct one of these: it sees as much.
//!   - *with equal answers of all n.* Those correct ones of them that acknowledged the last write before are
//!     f+1 at least, of which any later q include one: the read counts as of the earliest of their states.
//!   - *with q equal answers from states after all that q others, asked before in the same read, had
//!     included:* one of those was correct and had the write, so each of these has.
//!
//!   Until then it is asked once more, and at last in order. Without faults and under load, all n answer
//!   alike, or one more round does.
//! - **This takes that the shared replica never answers a read from an earlier state than it answered from
//!   before.** Execution only goes forward while it runs; but a decision is answered before the record of it
//!   is on disk, so a restarted replica may begin before it, and a state that replaces a wrong one may be
//!   older. So a replica answers reads only from states after all that it may have answered from in earlier
//!   lives, and refuses them until then ([`Replica::reads_from`](crate::smr::replica::Replica::reads_from)
//!   says how it knows). Were it not so, all could lose power just after a write was acknowledged, and q
//!   answers agree on the old value.
//! - **It must stay live** (the second part of the same paper): a client that waits for q answers to a write
//!   needs every correct replica to answer, also those that learnt of the write from a checkpoint and never
//!   executed it. Here the replies are part of the client table, and that of every checkpoint: such a replica
//!   answers a retransmission from the table. A read that finds no q equal answers, or that too many refuse,
//!   is asked in order: there all correct replicas agree, and n−f ≥ q. What is ordered for it also moves
//!   those that refused.
//! - **Relaxed reads: f+1 equal answers.** A correct replica vouches that the state was so, once. Never a
//!   default.
//!
//! Invariant: every submitted operation comes out exactly once, with a result or an error, by its deadline.

mod opening;
mod replies;

use std::collections::BTreeMap;

use bytes::Bytes;

use super::answers::Answers;
use super::authenticator::FrameAuthenticator;
use super::calls::Calls;
use super::config::{SessionConfig, SessionCounters, SubmitError};
use super::error::CallError;
use super::frame_buffer::FrameBuffer;
use super::outcome::{Outcome, Output};
use crate::smr::execution::CLIENT_WINDOW;
use crate::smr::messages::{FrameBuilder, Mode};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{ClientId, Digest, FrameSeq, NodeId, Signers, SplitMix64, Time, View};
use opening::Question;

/// How many times the retransmission timeout doubles at most.
const BACKOFF_DOUBLINGS: u32 = 5;

#[derive(Debug)]
struct InFlight {
    mode: Mode,
    digest: Digest,
    body: Vec<u8>,
    message: Bytes,
    /// Whether `message` is signed, and who was sent it signed.
    is_signed: bool,
    signed_to: Signers,
    /// Who was sent it by a link that is still up.
    sent_to: Signers,
    /// Whether it is meant for all, or for the leader alone.
    for_all: bool,
    calls: Calls,
    timeout: Time,
    attempts: u32,
    answers: Answers,
}

/// The protocol state of one client identity.
pub struct Session {
    config: SessionConfig,
    prover: FrameAuthenticator,
    writes: FrameBuffer,
    reads: FrameBuffer,
    /// Requests to change the membership, each a frame of its own.
    changes: FrameBuffer,
    /// Whether the frame sent last writes: where both wait, they take turns.
    wrote_last: bool,
    /// Frames under way, of this session and of those before.
    frames: BTreeMap<FrameSeq, InFlight>,
    /// Reads whose equal answers were of states that differ.
    again: Vec<FrameSeq>,
    /// The session; `None` while it is not known which number is free.
    id: Option<u64>,
    /// The number of its next frame.
    next: u64,
    /// The last session that was this one's, or 0.
    last_id: u64,
    /// When a frame was under way last, or the cluster was asked which sessions it knows.
    used_at: Time,
    question: Option<Question>,
    random: SplitMix64,
    /// Replicas that are linked.
    links: Signers,
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

/// Operations that share frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Writes,
    Reads,
    Changes,
}

impl Line {
    fn of(mode: Mode) -> Self {
        match mode {
            Mode::Ordered => Self::Writes,
            Mode::Change => Self::Changes,
            Mode::Unordered | Mode::OrderedRead | Mode::Session => Self::Reads,
        }
    }
}

impl Session {
    /// A session with nothing under way and no links.
    #[must_use]
    pub fn new(config: SessionConfig) -> Self {
        let (n, weak) = (config.quorum.n(), config.quorum.weak());
        let place = (config.cluster, config.epoch);
        let gathering =
            |operations_max| FrameBuffer::new(config.process, operations_max, config.frame_bytes_max);
        Self {
            prover: FrameAuthenticator::new(config.authentication.clone(), place, weak),
            writes: gathering(config.frame_operations_max),
            reads: gathering(config.frame_operations_max),
            changes: gathering(1),
            wrote_last: false,
            frames: BTreeMap::new(),
            again: Vec::new(),
            id: None,
            next: 1,
            last_id: 0,
            used_at: Time::START,
            question: None,
            random: SplitMix64::new(config.seed),
            links: Signers::NONE,
            operations: 0,
            views: vec![View::ZERO; n],
            leader: (config.leaders)(View::ZERO, config.quorum),
            outputs: Vec::new(),
            now: Time::START,
            next_timeout: None,
            counters: SessionCounters::default(),
            config,
        }
    }

    /// Takes one operation, to be executed in the order ([`Mode::Ordered`]) or as a read (any other mode), or a
    /// request to change the membership ([`Mode::Change`]); `token` comes back with its end, at the latest at `deadline`.
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
        let (line, max) = (Line::of(mode), self.config.frame_bytes_max);
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
        if !self.gathering(line).has_room_for(operation) {
            // The gathered frame is full. Without room to send it the caller has to wait.
            if !self.is_open(now) || !self.has_room() || self.is_others_turn(line) {
                return Err(SubmitError::Full);
            }
            self.send_gathered(now, line);
            if !self.gathering(line).has_room_for(operation) {
                // What had to be sent again went first.
                return Err(SubmitError::Full);
            }
        }
        if !self.gathering(line).push(operation, token, deadline) {
            return Err(too_large);
        }
        self.wake_by(deadline);
        self.operations += 1;
        Ok(())
    }

    /// Sends what was gathered, if there is room under way. Call at the end of each turn.
    pub fn flush(&mut self, now: Time) {
        self.note_use(now);
        self.read_again();
        let mut sent = true;
        while std::mem::take(&mut sent) {
            let first = match self.wrote_last {
                true => [Line::Reads, Line::Writes],
                false => [Line::Writes, Line::Reads],
            };
            for line in [Line::Changes, first[0], first[1]] {
                if self.gathering(line).is_empty() {
                    continue;
                }
                if !self.is_open(now) {
                    return self.ask(now);
                }
                if self.has_room() {
                    self.send_gathered(now, line);
                    sent = true;
                }
            }
        }
    }

    /// A link with a replica came up: it gets what is meant for it.
    pub fn on_link_up(&mut self, now: Time, node: NodeId) {
        if node.index() >= self.views.len() {
            return;
        }
        self.links.add(node);
        match self.id {
            Some(id) => self.announce(node, id),
            None => self.ask(now),
        }
        let mut question = self.question.take();
        if let Some(question) = question.as_mut().filter(|question| !question.has_answered(node)) {
            self.send_if_meant(node, &mut question.frame);
        }
        self.question = question;
        let mut frames = std::mem::take(&mut self.frames);
        frames
            .values_mut()
            .for_each(|frame| self.send_if_meant(node, frame));
        self.frames = frames;
    }

    /// A link with a replica is down. What was sent by it may be lost.
    pub fn on_link_down(&mut self, node: NodeId) {
        self.links.remove(node);
        let question = self.question.as_mut().map(|question| &mut question.frame);
        for frame in self.frames.values_mut().chain(question) {
            frame.sent_to.remove(node);
            frame.signed_to.remove(node);
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
        self.note_use(now);
        for line in [Line::Changes, Line::Writes, Line::Reads] {
            let (client, mode) = (self.config.client, self.mode_of(line));
            let expired = self.gathering(line).expire(now, client, mode);
            self.fail(expired, CallError::NeverSent);
            if let Some(deadline) = self.gathering(line).next_deadline() {
                self.wake_by(deadline);
            }
        }
        self.ask_again(now);
        let keys: Vec<FrameSeq> = self.frames.keys().copied().collect();
        for key in keys {
            self.on_frame_time(now, key);
        }
    }

    fn on_frame_time(&mut self, now: Time, key: FrameSeq) {
        let Some(frame) = self.frames.get_mut(&key) else {
            return;
        };
        let expired = frame.calls.expire(now);
        let (deadline, timeout) = (frame.calls.next_deadline(), frame.timeout);
        if !expired.is_empty() {
            let report = frame.answers.report(self.config.quorum.n());
            self.fail(expired, CallError::DeadlineExceeded(report));
        }
        let Some(deadline) = deadline else {
            self.frames.remove(&key);
            return;
        };
        if timeout <= now {
            self.retransmit(now, key);
        } else {
            self.wake_by(timeout);
        }
        self.wake_by(deadline);
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

    /// While something is under way the session is not quiet.
    fn note_use(&mut self, now: Time) {
        self.now = self.now.max(now);
        if !self.frames.is_empty() {
            self.used_at = self.used_at.max(now);
        }
    }

    fn gathering(&mut self, line: Line) -> &mut FrameBuffer {
        match line {
            Line::Writes => &mut self.writes,
            Line::Reads => &mut self.reads,
            Line::Changes => &mut self.changes,
        }
    }

    fn mode_of(&self, line: Line) -> Mode {
        match (line, self.config.answers.unordered) {
            (Line::Writes, _) => Mode::Ordered,
            (Line::Changes, _) => Mode::Change,
            (Line::Reads, Some(_)) => Mode::Unordered,
            (Line::Reads, None) => Mode::OrderedRead,
        }
    }

    /// How many more frames may be under way.
    fn room(&self) -> usize {
        let Some(id) = self.id else { return 0 };
        let oldest = self
            .frames
            .range(FrameSeq::of(id, 0)..=FrameSeq::of(id, u64::MAX))
            .next();
        let span = oldest.map_or(0, |(oldest, _)| self.next.saturating_sub(oldest.number()));
        let in_window = CLIENT_WINDOW.saturating_sub(span) as usize;
        in_window.min(self.config.frames_in_flight_max.saturating_sub(self.frames.len()))
    }

    fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// Whether the last room is for the others, reads or writes, which wait and were not served last.
    fn is_others_turn(&self, line: Line) -> bool {
        let others = match line {
            Line::Writes if self.wrote_last => &self.reads,
            Line::Reads if !self.wrote_last => &self.writes,
            Line::Writes | Line::Reads | Line::Changes => return false,
        };
        self.room() == 1 && !others.is_empty()
    }

    fn wake_by(&mut self, at: Time) {
        self.next_timeout = Some(self.next_timeout.map_or(at, |earlier| earlier.min(at)));
    }

    fn send_gathered(&mut self, now: Time, line: Line) {
        let (Some(id), false) = (self.id, self.gathering(line).is_empty()) else {
            return;
        };
        let sequence = FrameSeq::of(id, self.next);
        self.next += 1;
        let (client, mode) = (self.config.client, self.mode_of(line));
        let (body, calls) = self.gathering(line).take(client, sequence, mode);
        self.counters.frames_sent += 1;
        self.wrote_last = line != Line::Reads;
        self.used_at = self.used_at.max(now);
        let for_all = mode == Mode::Unordered || !self.links.has(self.leader);
        let mut frame = self.frame(now, mode, body, for_all);
        frame.calls = calls;
        match for_all {
            true => self.send_to_all(&mut frame),
            false => self.send(self.leader, &mut frame),
        }
        self.frames.insert(sequence, frame);
    }

    fn frame(&mut self, now: Time, mode: Mode, body: Vec<u8>, for_all: bool) -> InFlight {
        let timeout = now.after(self.config.retransmit_timeout);
        self.wake_by(timeout);
        let is_signed = self.prover.signs(now);
        let digest = self.prover.digest(&body);
        let (body, message) = self.prover.message(body, &digest, is_signed);
        InFlight {
            mode,
            digest,
            body,
            message,
            is_signed,
            signed_to: Signers::NONE,
            sent_to: Signers::NONE,
            for_all,
            calls: Calls::default(),
            timeout,
            attempts: 0,
            answers: Answers::default(),
        }
    }

    /// Sends a frame, if the replica is linked. If not, it gets it when it is.
    fn send(&mut self, to: NodeId, frame: &mut InFlight) {
        if !self.links.has(to) {
            return;
        }
        frame.sent_to.add(to);
        if frame.is_signed {
            frame.signed_to.add(to);
        }
        let message = frame.message.clone();
        self.outputs.push(Output::Send { to, message });
    }

    fn send_to_all(&mut self, frame: &mut InFlight) {
        NodeId::all(self.config.quorum.n()).for_each(|to| self.send(to, frame));
    }

    fn send_if_meant(&mut self, to: NodeId, frame: &mut InFlight) {
        let is_meant = frame.for_all || to == self.leader;
        if is_meant && !frame.sent_to.has(to) {
            self.send(to, frame);
        }
    }

    /// Asks once more for reads whose answers were equal and of states that differ, unless all have answered
    /// alike meanwhile.
    fn read_again(&mut self) {
        for key in std::mem::take(&mut self.again) {
            let Some(mut frame) = self.frames.remove(&key) else {
                continue;
            };
            if frame.mode == Mode::Unordered {
                self.counters.reads_again += 1;
                frame.answers.clear_refusals();
                self.send_to_all(&mut frame);
            }
            self.frames.insert(key, frame);
        }
    }

    /// Asks everybody again; a read is asked in order from now on.
    fn retransmit(&mut self, now: Time, key: FrameSeq) {
        self.counters.retransmissions += 1;
        let Some(mut frame) = self.frames.remove(&key) else {
            return;
        };
        frame.for_all = true;
        if frame.mode == Mode::Unordered {
            self.counters.reads_ordered += 1;
            frame.mode = Mode::OrderedRead;
            frame.answers.clear();
            let body = in_mode(&frame.body, self.config.client, key, frame.mode);
            frame.digest = self.prover.digest(&body);
            frame.is_signed |= self.prover.signs(now);
            (frame.body, frame.message) = self.prover.message(body, &frame.digest, frame.is_signed);
        } else if self.prover.signs(now) {
            self.sign(&mut frame);
        }
        frame.answers.clear_refusals();
        self.postpone(now, &mut frame);
        if !active(Mutant::RetransmissionSkipped) {
            self.send_to_all(&mut frame);
        }
        self.frames.insert(key, frame);
    }

    fn postpone(&mut self, now: Time, frame: &mut InFlight) {
        frame.attempts += 1;
        let factor = 2u32.pow(frame.attempts.min(BACKOFF_DOUBLINGS));
        frame.timeout = now.after(self.config.retransmit_timeout.saturating_mul(factor));
        self.wake_by(frame.timeout);
    }

    fn fail(&mut self, tokens: Vec<u64>, error: CallError) {
        if tokens.is_empty() {
            return;
        }
        self.operations -= tokens.len();
        let outcome = Outcome::Failed(error);
        self.outputs.push(Output::Ended { tokens, outcome });
    }
}

/// A body of our own with its operations in another mode.
fn in_mode(body: &[u8], client: ClientId, sequence: FrameSeq, mode: Mode) -> Vec<u8> {
    let body = super::frame_buffer::open(body);
    let mut builder = FrameBuilder::of_process(body.process.to_native());
    for operation in body.operations() {
        builder.push(operation).expect("what fitted before fits again");
    }
    builder.finish(client, sequence, mode)
}
