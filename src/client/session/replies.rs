//! What replicas answer, and when it is believed.

use bytes::Bytes;

use super::{InFlight, Line, Session};
use crate::client::CallError;
use crate::client::answers::Reading;
use crate::smr::messages::archived::ArchivedClientReply;
use crate::smr::messages::{
    Checked, ClientReply, Envelope, FrameId, FrameKey, Kind, Mode, RefusalReason, ReplyBody, StateRead,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{Digest, FrameSeq, NodeId, SeqNo, Time, View};

impl InFlight {
    /// The next look at the time, which is due at once, sends the frame to all; a read is asked in order from then on.
    fn ask_all_at_once(&mut self, next_timeout: &mut Option<Time>) {
        self.timeout = Time::START;
        *next_timeout = Some(Time::START);
    }
}

impl Session {
    pub(super) fn try_message(&mut self, from: NodeId, message: &Bytes) -> bool {
        // Whatever the epoch, it is members of the one that is known here who answer.
        let Ok(envelope) = Envelope::open_in_any_epoch(message, self.config.cluster) else {
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
            ArchivedClientReply::Results {
                view,
                whole,
                begun,
                body,
            } => {
                self.saw_view(from, View::new(view.to_native()));
                let read = StateRead {
                    whole: SeqNo::new(whole.to_native()),
                    begun: SeqNo::new(begun.to_native()),
                };
                self.on_results(from, read, reply.slice_of(body.as_slice()))
            }
            ArchivedClientReply::Refused {
                view,
                session,
                sequence,
                request,
                reason,
            } => {
                self.saw_view(from, View::new(view.to_native()));
                let sequence = FrameSeq::of(session.to_native(), sequence.to_native());
                let (client, digest) = (self.config.client, Digest::from_bytes(*request));
                let key = FrameKey { client, sequence };
                self.on_refused(from, &FrameId { key, digest }, (*reason).into())
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
        let quorum = self.config.quorum;
        self.leader = (self.config.leaders)(views[quorum.f()], quorum);
    }

    /// Whether correct replicas may say something of such a frame: one that was sent, now or before, by this
    /// process or by another one that uses the identity.
    fn may_be_told_of(&self, frame: &FrameKey) -> bool {
        let sequence = frame.sequence;
        let is_unsent = self.id == Some(sequence.session()) && !(1..self.next).contains(&sequence.number());
        frame.client == self.config.client && !is_unsent
    }

    fn on_results(&mut self, from: NodeId, read: StateRead, body: Bytes) -> bool {
        let Ok(checked) = Checked::<ReplyBody>::new(body) else {
            return false;
        };
        let FrameId { key, digest } = checked.frame();
        if !checked.is_sound() || !self.may_be_told_of(&key) {
            return false;
        }
        if let Some(question) = self
            .question
            .as_mut()
            .filter(|asked| asked.frame.digest == digest)
        {
            let is_answer = question.on_answer(from, &checked);
            if question.answers() >= self.config.quorum.quorum() {
                self.begin_session();
            }
            return is_answer;
        }
        let Some(frame) = self.frames.get_mut(&key.sequence) else {
            // Late answers are the rule: one more than f+1 is.
            return true;
        };
        if frame.digest != digest && !active(Mutant::ReplyDigestUnchecked) {
            // To another process's frame of this number, or to a read that is asked in order by now.
            return true;
        }
        if checked.ends.is_empty() || checked.ends.len() > frame.calls.len() {
            return false;
        }
        let (rule, n) = (self.config.answers, self.config.quorum.n());
        let mut enough = match frame.mode {
            Mode::Unordered => rule.unordered.unwrap_or(rule.ordered),
            _ => rule.ordered,
        };
        if active(Mutant::OneReplyBelieved) {
            enough = 1;
        }
        let (is_beside, body) = (frame.mode == Mode::Unordered, checked.bytes().clone());
        let reading = match is_beside && enough >= self.config.quorum.quorum() {
            true => frame.answers.add_read(from, (read, body), enough, n),
            false if frame.answers.add_body(from, body, enough) => Reading::Ended,
            false => Reading::Open,
        };
        match reading {
            Reading::Ended => self.end_frame(key.sequence, &checked),
            Reading::AskAgain => self.again.push(key.sequence),
            // Not enough can agree any more: the state moves too fast for this read.
            Reading::Open if is_beside && !frame.answers.can_agree(n, enough) => {
                frame.ask_all_at_once(&mut self.next_timeout);
            }
            Reading::Spent => frame.ask_all_at_once(&mut self.next_timeout),
            Reading::Open => {}
        }
        true
    }

    /// Enough replicas gave these results. Operations that they say nothing of were not executed.
    fn end_frame(&mut self, key: FrameSeq, body: &Checked<ReplyBody>) {
        let Some(frame) = self.frames.remove(&key) else {
            return;
        };
        let (line, all) = (Line::of(frame.mode), frame.calls.len());
        let (ended, rest) = frame.calls.end_with(body, &mut self.outputs);
        self.operations -= ended;
        let results = body.ends.len();
        self.gathering(line).on_results(results, results == all);
        self.send_later(line, &frame.body, rest);
    }

    /// Operations that were not executed go once more, under another number.
    fn send_later(&mut self, line: Line, body: &[u8], places: Vec<(usize, u64, Time)>) {
        self.counters.operations_again += places.len() as u64;
        if let Some(deadline) = places.iter().map(|(_, _, deadline)| *deadline).min() {
            self.wake_by(deadline);
            self.gathering(line).push_again(body, places);
        }
    }

    fn on_refused(&mut self, from: NodeId, refused: &FrameId, reason: RefusalReason) -> bool {
        let FrameId { key, digest } = refused;
        let mut question = self.question.take();
        if let Some(question) = question.as_mut().filter(|asked| asked.frame.digest == *digest)
            && reason == RefusalReason::MustSign
        {
            self.on_must_sign(from, &mut question.frame);
        }
        self.question = question;
        let asked = self.frames.get(&key.sequence);
        if asked.is_none_or(|frame| frame.digest != *digest) {
            return self.may_be_told_of(key);
        }
        let Some(mut frame) = self.frames.remove(&key.sequence) else {
            return true;
        };
        let believed = frame.answers.add_refusal(from, reason, self.config.quorum.weak());
        match reason {
            // Too many have no room for asking once more.
            RefusalReason::Overloaded if frame.answers.cannot_be_asked_again(&self.config) => {
                frame.ask_all_at_once(&mut self.next_timeout);
            }
            // Passing: the retransmission asks again. One honest leader is enough to say so.
            RefusalReason::Overloaded => {}
            RefusalReason::MustSign if self.prover.has_macs() => self.on_must_sign(from, &mut frame),
            // Others may answer the read. If too few are left it is asked in order, at once.
            RefusalReason::CatchingUp => {
                let enough = self.config.answers.unordered;
                let enough = enough.filter(|_| frame.mode == Mode::Unordered);
                let n = self.config.quorum.n();
                if enough.is_some_and(|enough| !frame.answers.can_agree(n, enough)) {
                    frame.ask_all_at_once(&mut self.next_timeout);
                }
            }
            RefusalReason::Unproven if believed => {
                self.frames.insert(key.sequence, frame);
                self.prove_first_up_to(key.sequence);
                return true;
            }
            RefusalReason::OrderedOnly if believed && frame.mode == Mode::Unordered => {
                frame.ask_all_at_once(&mut self.next_timeout);
            }
            RefusalReason::Unproven | RefusalReason::OrderedOnly => {}
            _ if believed => {
                self.on_refused_for_good(key.sequence.session(), frame, reason);
                return true;
            }
            _ => {}
        }
        self.frames.insert(key.sequence, frame);
        true
    }

    fn on_refused_for_good(&mut self, session: u64, frame: InFlight, reason: RefusalReason) {
        let is_of_session = matches!(
            reason,
            RefusalReason::NumberUsed | RefusalReason::SessionEnded | RefusalReason::Stale
        );
        if is_of_session && self.id == Some(session) {
            self.id = None;
        }
        // What reads may be asked twice, and what is certainly not executed as well.
        let line = Line::of(frame.mode);
        let is_safe = reason == RefusalReason::NumberUsed
            || (line == Line::Reads && (is_of_session || reason == RefusalReason::ResultsForgotten));
        if is_safe {
            let places = frame.calls.waiting_from(0);
            self.send_later(line, &frame.body, places);
        } else {
            self.fail(frame.calls.into_tokens(), CallError::Refused(reason));
        }
    }

    /// Gives replicas that want it the frame signed, once, if f+1 want it. If it is the leader alone that
    /// wants it, all others are asked.
    fn on_must_sign(&mut self, from: NodeId, frame: &mut InFlight) {
        if !self.prover.has_macs() {
            return;
        }
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
            frame.ask_all_at_once(&mut self.next_timeout);
        }
    }

    /// One of f+1 replicas is correct, and holds a signature against a leader that does not order what it was
    /// passed on. It has a client's first frame in mind, whichever it was sent: it may have an earlier one than
    /// we wait for, which others have executed and a leader that has fallen silent decided.
    fn prove_first_up_to(&mut self, key: FrameSeq) {
        let of_session = FrameSeq::of(key.session(), 0)..=key;
        let mut in_order = self
            .frames
            .range(of_session)
            .filter(|(_, frame)| frame.mode.is_ordered());
        let Some(first) = in_order.next().map(|(first, _)| *first) else {
            return;
        };
        if let Some(mut frame) = self.frames.remove(&first) {
            if !frame.is_signed {
                self.counters.frames_proven += 1;
                self.sign(&mut frame);
                self.send_to_all(&mut frame);
            }
            self.frames.insert(first, frame);
        }
    }

    pub(super) fn sign(&self, frame: &mut InFlight) {
        if !frame.is_signed {
            let body = std::mem::take(&mut frame.body);
            (frame.body, frame.message) = self.prover.message(body, &frame.digest, true);
            frame.is_signed = true;
        }
    }
}
