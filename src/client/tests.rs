//! A session among replicas that the tests play: every output is read back as a replica would read it.

mod lies;
mod rules;
mod world;

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;

use super::outcome::{Outcome, Output};
use super::*;
use crate::crypto::{Digester, Domain, LinkSecret, MacKey, SigningKey};
use crate::messages::archived::ArchivedAuthenticator;
use crate::messages::{
    ClientReply, ENVELOPE_BYTES, Envelope, Frame, Kind, Mode, RefusalReason, ReplyBody, encode,
};
use crate::types::{ClientId, ClusterId, Epoch, FrameSeq, NodeId, Quorum, Time, View};

const CLUSTER: ClusterId = ClusterId::from_bytes(*b"cluster-of-calls");
const CLIENT: ClientId = ClientId::new(3);
const FIRST: u64 = 1_000_000;
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
        first_sequence: FIRST,
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
    sequence: u64,
    mode: Mode,
    operations: Vec<Vec<u8>>,
    is_signed: bool,
}

/// Reads a message as replica `to` does. Panics when that replica would refuse it for anything but its kind of proof.
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
        sequence: frame.key().sequence.get(),
        mode: frame.mode(),
        operations: frame.body().operations().map(<[u8]>::to_vec).collect(),
        is_signed,
    }
}

/// How some operations ended, with what each caller got.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Results(Vec<(u64, Vec<u8>)>),
    Failed(Vec<u64>, CallError),
}

fn read_end(tokens: Vec<u64>, outcome: Outcome) -> End {
    match outcome {
        Outcome::Results(results) => {
            assert_eq!(tokens.len(), results.results().len(), "one result per operation");
            let results = results.results().map(|result| results.slice_of(result).to_vec());
            End::Results(tokens.into_iter().zip(results).collect())
        }
        Outcome::Failed(error) => End::Failed(tokens, error),
    }
}

fn reply_body(client: ClientId, sequence: u64, results: &[&[u8]]) -> Vec<u8> {
    let mut builder = crate::messages::ReplyBuilder::default();
    for result in results {
        builder.buffer().extend_from_slice(result);
        builder.end_result();
    }
    builder.finish(client, FrameSeq::new(sequence)).to_vec()
}

fn answer(view: u64, sequence: u64, results: &[&[u8]]) -> Bytes {
    let body = reply_body(CLIENT, sequence, results);
    ClientReply::results(CLUSTER, Epoch::ZERO, View::new(view), &body)
}

fn refusal(view: u64, sequence: u64, reason: RefusalReason) -> Bytes {
    ClientReply::refusal(
        CLUSTER,
        Epoch::ZERO,
        View::new(view),
        FrameSeq::new(sequence),
        reason,
    )
}

/// A session and what it said.
struct Rig {
    session: Session,
    n: usize,
}

impl Rig {
    fn new(config: SessionConfig) -> Self {
        let n = config.quorum.n();
        let session = Session::new(config);
        Self { session, n }
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
                Output::Send { to, message } => sent.push(read_frame(to, &message)),
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

fn results(pairs: &[(u64, &[u8])]) -> End {
    End::Results(
        pairs
            .iter()
            .map(|(token, result)| (*token, result.to_vec()))
            .collect(),
    )
}
