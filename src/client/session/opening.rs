//! Which numbers are free: the question to the replicas, and the session that begins with their answers.

use std::time::Duration;

use super::{InFlight, Session};
use crate::client::Output;
use crate::smr::messages::{
    Checked, Envelope, FrameBuilder, Kind, LinkMessage, Mode, OperationResult, ReplyBody, encode,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{FrameSeq, NodeId, Quorum, Time};

/// A session whose last frame ended so long ago is not gone on with: the next frame begins a new one, so that
/// none that the cluster may have ended meanwhile is used.
pub(super) const QUIET: Duration = Duration::from_secs(2);

/// A new session's number is at random as far above the highest one known at most: processes that begin at
/// the same moment, and know the same sessions, choose different ones.
const STEP: u64 = 1 << 20;

/// The question where the client stands, and what each replica said.
#[derive(Debug)]
pub(super) struct Question {
    pub frame: InFlight,
    pub asked_at: Time,
    answers: Vec<Option<u64>>,
}

impl Question {
    pub(super) fn new(frame: InFlight, asked_at: Time, n: usize) -> Self {
        Self {
            frame,
            asked_at,
            answers: vec![None; n],
        }
    }

    /// Counts an answer, if it is one.
    pub(super) fn on_answer(&mut self, from: NodeId, body: &Checked<ReplyBody>) -> bool {
        let mut results = body.results();
        let (Some(OperationResult::Value(value)), None) = (results.next(), results.next()) else {
            return false;
        };
        let Ok(highest) = value.try_into().map(u64::from_le_bytes) else {
            return false;
        };
        self.answers[from.index()] = Some(highest);
        true
    }

    pub(super) fn has_answered(&self, node: NodeId) -> bool {
        self.answers[node.index()].is_some()
    }

    pub(super) fn answers(&self) -> usize {
        self.answers.iter().flatten().count()
    }

    /// The highest session that a correct replica vouches for: f+1 replicas know of one so high. `None` when
    /// too few have answered. However high f liars say it is, no correct replica's word is passed over.
    pub(super) fn highest(&self, quorum: Quorum) -> Option<u64> {
        let mut said: Vec<u64> = self.answers.iter().flatten().copied().collect();
        said.sort_unstable_by(|a, b| b.cmp(a));
        let place = match active(Mutant::SessionFromOne) {
            true => 0,
            false => quorum.f(),
        };
        said.get(place).copied()
    }
}

impl Session {
    /// Whether frames can be numbered.
    pub(super) fn is_open(&self, now: Time) -> bool {
        let is_quiet = self.frames.is_empty() && now.since(self.used_at) > QUIET;
        self.id.is_some() && !is_quiet
    }

    /// Asks all which sessions they know.
    pub(super) fn ask(&mut self, now: Time) {
        if self.question.is_some() {
            return;
        }
        self.id = None;
        let mut builder = FrameBuilder::of_process(self.config.process);
        builder.push(&[]).expect("nothing fits");
        let sequence = FrameSeq::of(0, self.random.any());
        let body = builder.finish(self.config.client, sequence, Mode::Session);
        let mut frame = self.frame(now, Mode::Session, body, true);
        self.send_to_all(&mut frame);
        self.question = Some(Question::new(frame, now, self.config.quorum.n()));
    }

    pub(super) fn ask_again(&mut self, now: Time) {
        let Some(mut question) = self.question.take() else {
            return;
        };
        if question.frame.timeout > now {
            self.wake_by(question.frame.timeout);
            self.question = Some(question);
            return;
        }
        let is_enough = question.answers() >= self.config.quorum.weak();
        if self.prover.signs(now) {
            self.sign(&mut question.frame);
        }
        self.postpone(now, &mut question.frame);
        for node in NodeId::all(self.config.quorum.n()) {
            if !question.has_answered(node) {
                self.send(node, &mut question.frame);
            }
        }
        self.question = Some(question);
        if is_enough {
            self.begin_session();
        }
    }

    /// Enough replicas told which sessions they know: this one is another.
    pub(super) fn begin_session(&mut self) {
        let Some(question) = self.question.take() else {
            return;
        };
        let Some(highest) = question.highest(self.config.quorum) else {
            self.question = Some(question);
            return;
        };
        let id = highest
            .max(self.last_id)
            .saturating_add(1 + self.random.below(STEP));
        (self.id, self.last_id, self.next) = (Some(id), id, 1);
        self.used_at = self.used_at.max(question.asked_at);
        self.counters.sessions += 1;
        self.links.iter().for_each(|node| self.announce(node, id));
    }

    /// Tells a replica which session its link serves.
    pub(super) fn announce(&mut self, to: NodeId, id: u64) {
        let envelope = Envelope::new(Kind::Link, self.config.cluster, self.config.epoch);
        let message = encode(envelope, &LinkMessage::Session(id), 16);
        self.outputs.push(Output::Send { to, message });
    }
}
