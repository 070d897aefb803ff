//! A session among replicas that the tests play: every output is read back as a replica would read it.

mod lies;
mod numbers;
mod rules;
mod world;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use super::outcome::{Outcome, Output};
use super::*;
use crate::smr::crypto::{Digester, Domain, LinkSecret, MacKey, SigningKey};
use crate::smr::messages::archived::ArchivedAuthenticator;
use crate::smr::messages::{
    ClientReply, ENVELOPE_BYTES, Envelope, Failure, Frame, FrameId, FrameKey, Kind, Mode, RefusalReason,
    StateRead, encode,
};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::ordering::pbft::Pbft;
use crate::smr::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, NodeId, Quorum, SeqNo, Time, View};

const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-calls");
const CLIENT: ClientId = ClientId::new(3);
/// The number of a session's first frame.
const FIRST: u64 = 1;
const TIMEOUT: Duration = Duration::from_millis(100);

fn ms(millis: u64) -> Time {
    Time::from_nanos(millis * 1_000_000)
}

fn r(index: u16) -> NodeId {
    NodeId::new(index)
}

fn replica_secret(node: NodeId) -> LinkSecret {
    LinkSecret::from_bytes(&[10 + node.get() as u8; 32])
}

fn client_secret() -> LinkSecret {
    LinkSecret::from_bytes(&[200; 32])
}

fn signing_key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

/// A client with MACs, of a cluster of `n`.
fn config(n: usize) -> SessionConfig {
    let keys = NodeId::all(n).map(|node| {
        let theirs = replica_secret(node).public();
        MacKey::between(&client_secret(), &theirs, CLUSTER).unwrap()
    });
    SessionConfig {
        cluster: CLUSTER,
        epoch: Epoch::ZERO,
        client: CLIENT,
        quorum: Quorum::of(n).unwrap(),
        leaders: Pbft::leader_of,
        answers: AnswerRule {
            ordered: Quorum::of(n).unwrap().weak(),
            unordered: Some(Quorum::of(n).unwrap().weak()),
        },
        authentication: Authentication::Macs(keys.collect(), signing_key()),
        frame_operations_max: 4,
        frame_bytes_max: 1000,
        frames_in_flight_max: 64,
        operations_max: 1000,
        retransmit_timeout: TIMEOUT,
        seed: 7,
        process: 7,
    }
}

/// What each replica checks our MACs with.
static MAC_KEYS: LazyLock<Vec<MacKey>> = LazyLock::new(|| {
    let keys = NodeId::all(10)
        .map(|node| MacKey::between(&replica_secret(node), &client_secret().public(), CLUSTER).unwrap());
    keys.collect()
});

/// A frame as the replica it was sent to finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sent {
    to: NodeId,
    id: FrameId,
    sequence: u64,
    mode: Mode,
    operations: Vec<Vec<u8>>,
    is_signed: bool,
}

/// Reads a message as replica `to` does. Panics when that replica would refuse it for anything but its kind
/// of proof.
fn read_frame(to: NodeId, message: &Bytes) -> Sent {
    let envelope = Envelope::open(message, CLUSTER, Epoch::ZERO).unwrap();
    assert_eq!(envelope.kind, Kind::Request);
    let digester = Digester::new(CLUSTER);
    let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
    let frame = Frame::check(message.slice(ENVELOPE_BYTES..), 1 << 20, 1 << 20, digest_of).unwrap();
    assert_eq!(frame.key().client, CLIENT);
    let is_signed = match &frame.archived().authenticator {
        ArchivedAuthenticator::Signature(signature) => {
            let key = signing_key().verifying_key();
            key.verify(Domain::RequestFrame, frame.digest(), signature)
                .expect("the signature is the client's");
            true
        }
        ArchivedAuthenticator::Macs(macs) => {
            let key = &MAC_KEYS[to.index()];
            assert!(
                key.verify(frame.digest(), &macs[to.index()]),
                "the MAC is the client's"
            );
            false
        }
    };
    Sent {
        to,
        id: frame.id(),
        sequence: frame.key().sequence.number(),
        mode: frame.mode(),
        operations: frame.body().operations().map(<[u8]>::to_vec).collect(),
        is_signed,
    }
}

/// How some operations ended, with what each caller got.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Results(Vec<(u64, Result<Vec<u8>, CallError>)>),
    Failed(Vec<u64>, CallError),
}

fn read_end(tokens: Vec<u64>, outcome: Outcome) -> End {
    match outcome {
        Outcome::Results(results) => {
            assert_eq!(tokens.len(), results.results().len(), "one result per operation");
            let results = results.values().map(|value| value.map(Vec::from));
            End::Results(tokens.into_iter().zip(results).collect())
        }
        Outcome::Failed(error) => End::Failed(tokens, error),
    }
}

fn reply_body(frame: &FrameId, results: &[&[u8]]) -> Vec<u8> {
    let mut builder = crate::smr::messages::ReplyBuilder::default();
    for result in results {
        builder.buffer().extend_from_slice(result);
        builder.end_result(None);
    }
    builder.finish(frame).to_vec()
}

fn answer(view: u64, frame: &FrameId, results: &[&[u8]]) -> Bytes {
    let body = reply_body(frame, results);
    ClientReply::results(CLUSTER, Epoch::ZERO, View::new(view), &body)
}

fn refusal(view: u64, frame: &FrameId, reason: RefusalReason) -> Bytes {
    ClientReply::refusal(CLUSTER, Epoch::ZERO, View::new(view), frame, reason)
}

/// A session and what it said.
struct Rig {
    session: Session,
    n: usize,
    /// The frames it sent last under each number, and the question it asked last.
    frames: BTreeMap<u64, FrameId>,
    question: Option<FrameId>,
}

impl Rig {
    fn new(config: SessionConfig) -> Self {
        let mut rig = Self::unlinked(config);
        NodeId::all(rig.n).for_each(|node| rig.session.on_link_up(ms(0), node));
        rig.open(0);
        rig
    }

    /// A session that no replica is linked with.
    fn unlinked(config: SessionConfig) -> Self {
        Self {
            n: config.quorum.n(),
            session: Session::new(config),
            frames: BTreeMap::new(),
            question: None,
        }
    }

    /// The replicas say that they know no session above this one.
    fn open(&mut self, highest: u64) {
        assert_eq!(self.sent(), [], "nothing but the question is asked");
        for node in 0..self.n as u16 {
            self.say_highest(node, highest);
        }
        assert_eq!(self.outputs(), (vec![], vec![]));
    }

    fn say_highest(&mut self, node: u16, highest: u64) {
        let question = self.question.expect("it was asked");
        self.from(node, answer(0, &question, &[&highest.to_le_bytes()]));
    }

    /// The frame of a number as it was sent last; one that was not sent has no digest.
    fn frame(&self, number: u64) -> FrameId {
        let known = self.frames.get(&number).copied();
        let session = self
            .frames
            .values()
            .next()
            .map_or(0, |frame| frame.key.sequence.session());
        known.unwrap_or(FrameId {
            key: FrameKey {
                client: CLIENT,
                sequence: FrameSeq::of(session, number),
            },
            digest: Digest::ZERO,
        })
    }

    fn answer(&mut self, node: u16, view: u64, number: u64, results: &[&[u8]]) {
        self.from(node, answer(view, &self.frame(number), results));
    }

    /// What a replica read, in the state after `whole` and before what follows `begun`.
    fn reads(&mut self, node: u16, number: u64, (whole, begun): (u64, u64), value: &[u8]) {
        let state = StateRead {
            whole: SeqNo::new(whole),
            begun: SeqNo::new(begun),
        };
        let body = reply_body(&self.frame(number), &[value]);
        let message = ClientReply::read_results(CLUSTER, Epoch::ZERO, View::ZERO, state, &body);
        self.from(node, message);
    }

    fn refuse(&mut self, node: u16, view: u64, number: u64, reason: RefusalReason) {
        self.from(node, refusal(view, &self.frame(number), reason));
    }

    /// Submits one call with ten seconds to go.
    fn call(&mut self, now: Time, operation: &[u8], mode: Mode, token: u64) {
        let deadline = now.after(Duration::from_secs(10));
        self.session
            .submit(now, operation, mode, token, deadline)
            .unwrap();
    }

    /// Submits and flushes one ordered call, which must be sent; its frame's number.
    fn ordered(&mut self, now: Time, operation: &[u8], token: u64) -> u64 {
        self.call(now, operation, Mode::Ordered, token);
        self.session.flush(now);
        let sent = self.sent();
        assert_eq!(sent.len(), 1, "an ordered frame goes to the leader alone");
        sent[0].sequence
    }

    fn outputs(&mut self) -> (Vec<Sent>, Vec<End>) {
        let (mut sent, mut ends) = (Vec::new(), Vec::new());
        for output in self.session.drain_outputs() {
            match output {
                Output::Send { message, .. } if is_link_message(&message) => {}
                Output::Send { to, message } => {
                    let frame = read_frame(to, &message);
                    if frame.mode == Mode::Session {
                        self.question = Some(frame.id);
                        continue;
                    }
                    self.frames.insert(frame.sequence, frame.id);
                    sent.push(frame);
                }
                Output::Ended { tokens, outcome } => ends.push(read_end(tokens, outcome)),
            }
        }
        (sent, ends)
    }

    fn sent(&mut self) -> Vec<Sent> {
        let (sent, ends) = self.outputs();
        assert_eq!(ends, [], "nothing has ended");
        sent
    }

    fn ends(&mut self) -> Vec<End> {
        let (sent, ends) = self.outputs();
        assert_eq!(sent, [], "nothing is sent");
        ends
    }

    /// Everybody is sent the same frame, once each, in order; that frame as r0 got it.
    fn sent_to_all(&mut self) -> Sent {
        let sent = self.sent();
        let first = sent[0].clone();
        let expected: Vec<Sent> = NodeId::all(self.n)
            .map(|to| Sent { to, ..first.clone() })
            .collect();
        assert_eq!(sent, expected);
        first
    }

    fn from(&mut self, node: u16, message: Bytes) {
        self.session.on_message(r(node), &message);
    }

    /// Time passes up to `until`, as a shell lets it pass: no timer is late.
    fn pass(&mut self, until: Time) {
        while let Some(at) = self.session.next_timeout().filter(|at| *at <= until) {
            self.session.on_time(at);
            assert!(
                self.session.next_timeout().is_none_or(|next| next > at),
                "a timer that fired is due again at once"
            );
        }
    }
}

fn is_link_message(message: &Bytes) -> bool {
    Envelope::open(message, CLUSTER, Epoch::ZERO).is_ok_and(|envelope| envelope.kind == Kind::Link)
}

fn results(pairs: &[(u64, &[u8])]) -> End {
    End::Results(
        pairs
            .iter()
            .map(|(token, result)| (*token, Ok(result.to_vec())))
            .collect(),
    )
}
