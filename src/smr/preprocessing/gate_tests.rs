use std::time::Duration;

use bytes::Bytes;

use super::tests::{CLUSTER, REPLICAS, checker, with_macs, with_signature};
use super::*;
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::{Batch, BatchError, Checked, Frame, PrePrepare, SyncMessage, SystemMessage};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::ordering::pbft::Pbft;
use crate::smr::protocol::Rate;
use crate::smr::types::{Epoch, NodeId, Quorum, SeqNo, Time, UnixTime, View};

const LIMITS: GateLimits = GateLimits {
    unasked: rate(8, 4),
    forwarded: rate(5, 10),
    lies: rate(4, 2),
};
/// Four clients take their turns within this, at ten a second.
const TURN_MS: u64 = 400;

const fn rate(burst: u64, per_second: u64) -> Rate {
    Rate { burst, per_second }
}

/// A gate in front of replica 1, and its checker.
struct Door {
    gate: PeerVerifyGate,
    checker: FrameChecker,
    expectations: ExpectedTraffic,
}

impl Door {
    fn new(auth: ClientAuth) -> Self {
        let (quorum, expectations) = (Quorum::of(REPLICAS).unwrap(), ExpectedTraffic::default());
        Self {
            gate: PeerVerifyGate::with_limits(quorum, Pbft::leader_of, expectations.clone(), LIMITS),
            checker: checker(1, auth),
            expectations,
        }
    }

    fn signed() -> Self {
        Self::new(ClientAuth::Signature)
    }

    /// What becomes of a message of replica `from`, a word for each thing that is told.
    fn check(&mut self, ms: u64, from: u16, message: &Bytes) -> Vec<Result<String, PeerRefusal>> {
        let checked = Checked::<SystemMessage>::body_of(message).unwrap();
        let now = Time::START.after(Duration::from_millis(ms));
        let mut told = Vec::new();
        let message = (&checked, message);
        self.gate
            .check(now, NodeId::new(from), &mut self.checker, message, |result| {
                told.push(result.map(|passed| match passed {
                    FromPeer::Frame(frame) => format!("frame of {}", frame.key().client.get()),
                    FromPeer::Disputed(key, _) => format!("dispute of {}", key.client.get()),
                    FromPeer::Proposal(proposal) => format!("proposal of {}", proposal.batch.frames.len()),
                    FromPeer::Batch(batch) => format!("batch of {}", batch.batch.frames.len()),
                }));
            });
        told
    }

    fn passes(&mut self, ms: u64, from: u16, message: &Bytes) -> bool {
        self.check(ms, from, message).iter().all(Result::is_ok)
    }
}

fn frames_of(frames: &[Bytes]) -> Vec<Frame> {
    let digester = Digester::new(CLUSTER);
    let digest_of = |body: &[u8]| digester.digest(Domain::RequestFrame, body);
    let check = |bytes: &Bytes| Frame::check(bytes.clone(), 8, 4096, digest_of).unwrap();
    frames.iter().map(check).collect()
}

fn batch_of(frames: &[Bytes]) -> Batch {
    let frames = frames_of(frames);
    let time = UnixTime::from_nanos(7 * u64::from(!frames.is_empty()));
    Batch {
        digest: batch_digest(&Digester::new(CLUSTER), time, &frames),
        time,
        bytes: frames.iter().map(|frame| frame.bytes().len()).sum(),
        frames,
    }
}

fn proposal(view: u64, frames: &[Bytes]) -> Bytes {
    let (view, seq) = (View::new(view), SeqNo::new(1));
    PrePrepare::encode(CLUSTER, Epoch::ZERO, view, seq, &batch_of(frames))
}

fn response(frames: &[Bytes]) -> Bytes {
    SyncMessage::batch(CLUSTER, Epoch::ZERO, View::ZERO, SeqNo::new(1), &batch_of(frames))
}

fn forwarded(frames: &[Bytes]) -> Bytes {
    SystemMessage::forwarded_requests(CLUSTER, Epoch::ZERO, &frames_of(frames))
}

/// So many frames of a client, signed by it.
fn signed(client: u32, count: u64) -> Vec<Bytes> {
    (1..=count)
        .map(|sequence| with_signature(client, sequence, client))
        .collect()
}

/// So many frames of a client, signed by another one.
fn forged(client: u32, count: u64) -> Vec<Bytes> {
    (1..=count)
        .map(|sequence| with_signature(client, sequence, client + 1))
        .collect()
}

fn over_budget() -> Result<String, PeerRefusal> {
    Err(FrameRefusal::OverBudget.into())
}

#[test]
fn only_the_leader_proposes_and_in_its_view_as_much_as_it_likes() {
    let mut door = Door::signed();
    door.expectations.tell(View::new(6), false);
    let all = [Ok("proposal of 6".to_owned())];
    for _ in 0..100 {
        assert_eq!(door.check(0, 2, &proposal(6, &signed(0, 6))), all);
    }
    assert_eq!(
        door.check(0, 3, &proposal(6, &signed(0, 1))),
        [Err(BatchError::NotLeader.into())]
    );
    // Perhaps the next view begins here a little later than there.
    let early = proposal(7, &signed(0, 6));
    assert_eq!(door.check(0, 3, &early), all);
    assert_eq!(door.check(0, 3, &early), [Err(BatchError::OverBudget(6).into())]);
    assert_eq!(door.check(1000, 3, &early), all, "time passes");
    door.expectations.tell(View::new(7), false);
    assert_eq!(door.check(1000, 3, &early), all);
}

#[test]
fn batches_that_nobody_asked_for_are_verified_in_part_and_those_of_a_transfer_all() {
    let mut door = Door::signed();
    let four = response(&signed(0, 4));
    let taken = (0..100).filter(|_| door.passes(0, 3, &four)).count();
    assert_eq!(taken, 2);
    let later = (1..=8000).filter(|ms| door.passes(*ms, 3, &four)).count();
    assert_eq!(later, 8, "four signatures a second");
    assert!(door.passes(8000, 2, &four), "it costs nobody else anything");
    door.expectations.tell(View::ZERO, true);
    assert!((0..100).all(|_| door.passes(8000, 3, &four)));
}

#[test]
fn whoever_lies_in_what_is_expected_is_not_believed_without_limit_any_more() {
    let mut door = Door::signed();
    door.expectations.tell(View::new(2), true);
    let lie = proposal(2, &forged(0, 3));
    let found = [Err(BatchError::NotAuthentic(0).into())];
    assert_eq!(door.check(0, 2, &lie), found);
    assert_eq!(door.check(0, 2, &lie), found, "one signature was left");
    let refused = |count| [Err(BatchError::OverBudget(count).into())];
    assert_eq!(door.check(0, 2, &lie), refused(3));
    assert_eq!(door.check(0, 2, &proposal(2, &signed(0, 1))), refused(1));
    assert_eq!(door.check(0, 2, &response(&signed(0, 2))), refused(2));
    assert_eq!(door.check(0, 2, &forwarded(&signed(0, 1))), [over_budget()]);
    assert!(
        door.passes(0, 3, &response(&signed(0, 6))),
        "it costs nobody else anything"
    );
    assert!(
        door.passes(1500, 2, &proposal(2, &signed(0, 6))),
        "a fault that has passed is forgiven"
    );
}

#[test]
fn a_peer_that_never_lies_may_propose_for_ever() {
    let mut door = Door::signed();
    door.expectations.tell(View::new(2), false);
    // It has used up what nobody asked for and what it passes on.
    while door.passes(0, 2, &response(&signed(0, 4))) {}
    while door.passes(0, 2, &forwarded(&signed(0, 4))) {}
    assert!((0..100).all(|_| door.passes(0, 2, &proposal(2, &signed(0, 6)))));
}

#[test]
fn frames_passed_on_are_verified_within_an_allowance_and_then_one_of_each_client_in_its_turn() {
    let mut door = Door::signed();
    let flood = forwarded(&signed(0, 40));
    let passed = |told: &[Result<String, PeerRefusal>]| told.iter().filter(|told| told.is_ok()).count();
    let told = door.check(0, 3, &flood);
    assert_eq!(told.len(), 40);
    assert_eq!(passed(&told), 5 + 1, "a burst, and one in its client's turn");
    assert_eq!(told[39], over_budget());
    assert_eq!(passed(&door.check(0, 3, &flood)), 0);
    let other = |count| forwarded(&signed(1, count));
    assert_eq!(
        passed(&door.check(0, 3, &other(6))),
        1,
        "another client has its turn"
    );
    let soon = TURN_MS - 1;
    let third = forwarded(&signed(2, 6));
    assert_eq!(
        passed(&door.check(soon, 3, &third)),
        3 + 1,
        "what was earned, and its turn"
    );
    assert_eq!(passed(&door.check(soon, 3, &other(1))), 0);
    assert_eq!(
        passed(&door.check(TURN_MS, 3, &third)),
        1,
        "one takes all that is earned"
    );
    assert_eq!(
        passed(&door.check(TURN_MS, 3, &other(6))),
        1,
        "and the other's turn comes nevertheless"
    );
    assert_eq!(
        passed(&door.check(TURN_MS, 2, &flood)),
        6,
        "each peer's is its own"
    );
}

#[test]
fn whoever_passes_on_forged_frames_has_no_signature_verified_until_it_has_paid() {
    let mut door = Door::signed();
    let told = door.check(0, 3, &forwarded(&forged(0, 10)));
    let verified = told
        .iter()
        .filter(|told| **told == Err(FrameRefusal::Signature.into()));
    assert_eq!(verified.count(), 6);
    for client in 0..3 {
        let told = door.check(0, 3, &forwarded(&signed(client, 1)));
        assert_eq!(told, [over_budget()], "not even in a client's turn");
    }
    assert!(door.passes(0, 2, &forwarded(&signed(0, 1))));
    assert!(door.passes(1500, 3, &forwarded(&signed(0, 1))));
}

#[test]
fn macs_that_are_bad_here_and_good_elsewhere_cost_who_passes_them_on_nothing() {
    let mut door = Door::new(ClientAuth::Mac);
    door.expectations.tell(View::new(2), false);
    let bad: Vec<Bytes> = (1..=6).map(|sequence| with_macs(0, sequence, Some(1))).collect();
    for _ in 0..100 {
        let told = door.check(0, 2, &forwarded(&bad));
        assert!(told.iter().all(|told| *told == Err(FrameRefusal::Mac.into())));
        let told = door.check(0, 2, &proposal(2, &bad));
        assert_eq!(told.len(), 7);
        assert_eq!(told[0], Ok("dispute of 0".to_owned()));
        assert_eq!(told[6], Ok("proposal of 6".to_owned()));
    }
    assert!(
        door.passes(0, 2, &forwarded(&signed(1, 5))),
        "nothing was charged"
    );
    assert!(door.passes(0, 2, &response(&signed(1, 6))), "nor here");
}

#[test]
fn strangers_and_messages_without_frames_have_nothing_verified() {
    let mut door = Door::signed();
    let message = [Err(PeerRefusal::Message)];
    let votes = SystemMessage::votes(CLUSTER, Epoch::ZERO, Vec::new());
    assert_eq!(door.check(0, 2, &votes), message);
    assert_eq!(door.check(0, 9, &forwarded(&signed(0, 1))), message);
    assert_eq!(
        door.check(0, 9, &response(&signed(0, 1))),
        message,
        "nobody is replica 9"
    );
    let unknown = forwarded(&[with_signature(9, 1, 9)]);
    for _ in 0..100 {
        let told = door.check(0, 2, &unknown);
        assert_eq!(told, [Err(FrameRefusal::UnknownClient.into())]);
    }
    assert_eq!(door.checker.effort(), Effort::default());
    assert!(
        door.passes(0, 2, &forwarded(&signed(0, 5))),
        "strangers use up nothing"
    );
}

#[test]
fn a_null_request_is_proposed_whatever_was_used_up() {
    let mut door = Door::signed();
    while door.passes(0, 3, &response(&signed(0, 4))) {}
    assert!(door.passes(0, 3, &proposal(3, &[])), "it has no signature");
}

#[test]
fn the_limits_of_production_leave_correct_peers_room_and_one_core_is_enough() {
    for n in [4, 7, 64] {
        let GateLimits {
            unasked, forwarded, ..
        } = GateLimits::of(n);
        // What a replica has pending is passed on when a view begins: as many frames, about.
        assert!(forwarded.burst >= 2 * 4096);
        assert!(unasked.per_second * n as u64 <= 40_000);
        assert!(unasked.per_second > 0 && forwarded.per_second > 0);
    }
}
