//! What a lying replica may say, and that it gains nothing.

use proptest::prelude::*;

use super::*;
use crate::smr::messages::{FailedOperation, ReplyBody};

/// A session with one ordered frame of two operations under way.
fn asked() -> Rig {
    let mut rig = Rig::new(config(4));
    rig.call(ms(0), b"a", Mode::Ordered, 1);
    rig.call(ms(0), b"b", Mode::Ordered, 2);
    rig.session.flush(ms(0));
    assert_eq!(rig.sent().len(), 1);
    rig
}

fn finish(rig: &mut Rig) {
    for node in [1, 2] {
        rig.answer(node, 0, FIRST, &[b"A", b"B"]);
    }
    assert_eq!(rig.ends(), [results(&[(1, b"A"), (2, b"B")])]);
}

fn lie(frame: &FrameId, ends: Vec<u32>, failures: &[u32], results: &[u8]) -> Bytes {
    let failed = |operation: &u32| FailedOperation {
        operation: *operation,
        failure: Failure::Panicked,
    };
    let body = ReplyBody {
        client: frame.key.client.get(),
        session: frame.key.sequence.session(),
        sequence: frame.key.sequence.number(),
        request: *frame.digest.as_bytes(),
        failures: failures.iter().map(failed).collect(),
        ends,
        results: results.to_vec(),
    };
    let body = encode(Envelope::new(Kind::Reply, CLUSTER, Epoch::ZERO), &body, 64);
    ClientReply::results(CLUSTER, Epoch::ZERO, View::ZERO, &body[ENVELOPE_BYTES..])
}

#[test]
fn answers_that_no_correct_replica_gives_are_counted_and_change_nothing() {
    let mut rig = asked();
    let ours = rig.frame(FIRST);
    let mut other = ours;
    other.key.client = ClientId::new(4);
    let other_client = reply_body(&other, &[b"A", b"B"]);
    let sound = answer(0, &ours, &[b"A", b"B"]);
    let numbered = |rig: &Rig, number| rig.frame(number);
    let lies = [
        ("no results", lie(&ours, vec![], &[], b"")),
        ("too many results", lie(&ours, vec![1, 2, 2], &[], b"AB")),
        ("falling ends", lie(&ours, vec![2, 1], &[], b"AB")),
        ("ends short of the results", lie(&ours, vec![1, 1], &[], b"AB")),
        (
            "ends beyond the results",
            lie(&ours, vec![1, u32::MAX], &[], b"AB"),
        ),
        ("a failure of no operation", lie(&ours, vec![1, 2], &[2], b"AB")),
        ("a failure twice", lie(&ours, vec![1, 2], &[0, 0], b"AB")),
        ("failures out of order", lie(&ours, vec![1, 2], &[1, 0], b"AB")),
        (
            "a frame not sent yet",
            answer(0, &numbered(&rig, FIRST + 1), &[b"A", b"B"]),
        ),
        (
            "a frame before the first",
            answer(0, &numbered(&rig, 0), &[b"A", b"B"]),
        ),
        (
            "a frame at the end of the numbers",
            answer(0, &numbered(&rig, u64::MAX), &[b"A", b"B"]),
        ),
        (
            "a refusal of a frame not sent",
            refusal(0, &numbered(&rig, FIRST + 1), RefusalReason::Malformed),
        ),
        (
            "another client's frame",
            ClientReply::results(CLUSTER, Epoch::ZERO, View::ZERO, &other_client),
        ),
        (
            "no body",
            ClientReply::results(CLUSTER, Epoch::ZERO, View::ZERO, b""),
        ),
        (
            "another cluster",
            ClientReply::results(
                ClusterId::from_bytes([9; 16]),
                Epoch::ZERO,
                View::ZERO,
                &other_client,
            ),
        ),
        (
            "another epoch",
            ClientReply::results(CLUSTER, Epoch::new(1), View::ZERO, &other_client),
        ),
        ("half an answer", sound.slice(..sound.len() / 2)),
        ("nothing", Bytes::new()),
    ];
    for (count, (name, message)) in (1..).zip(lies) {
        rig.from(0, message.clone());
        rig.from(3, message);
        assert_eq!(rig.session.counters().answers_ignored, 2 * count, "{name}");
        assert_eq!(rig.ends(), [], "{name}");
    }
    rig.from(4, sound.clone());
    rig.from(u16::MAX, sound);
    assert_eq!(rig.ends(), [], "r4 is no member");
    finish(&mut rig);
}

#[test]
fn f_equal_lies_are_one_too_few_and_the_truth_still_comes_out() {
    let mut rig = Rig::new(config(7));
    rig.ordered(ms(0), b"a", 1);
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"lie"]);
        rig.answer(node, 0, FIRST, &[b"lie"]);
    }
    for node in [2, 3] {
        rig.answer(node, 0, FIRST, &[b"true"]);
    }
    assert_eq!(rig.ends(), []);
    rig.answer(4, 0, FIRST, &[b"true"]);
    assert_eq!(rig.ends(), [results(&[(1, b"true")])]);
}

#[test]
fn a_replica_that_says_everything_counts_once_for_each_and_keeps_little_in_memory() {
    let mut rig = asked();
    for lie in 0..1000u32 {
        rig.answer(0, 0, FIRST, &[&lie.to_le_bytes(), b"B"]);
    }
    rig.answer(3, 0, FIRST, &[&5u32.to_le_bytes(), b"B"]);
    assert_eq!(rig.ends(), [], "r0 does not stand by the fifth lie any more");
    finish(&mut rig);
}

#[test]
fn refusals_of_different_kinds_do_not_add_up() {
    let mut rig = asked();
    rig.refuse(0, 0, FIRST, RefusalReason::Malformed);
    rig.refuse(3, 0, FIRST, RefusalReason::Stale);
    rig.refuse(0, 0, FIRST, RefusalReason::NotAuthentic);
    assert_eq!(rig.ends(), []);
    finish(&mut rig);
}

#[test]
fn one_replica_cannot_make_a_client_sign_for_all() {
    let mut rig = asked();
    for _ in 0..100 {
        rig.refuse(3, 0, FIRST, RefusalReason::MustSign);
    }
    assert_eq!(rig.sent(), [], "r3 does not lead");
    finish(&mut rig);
    rig.call(ms(1), b"c", Mode::Ordered, 3);
    rig.session.flush(ms(1));
    assert!(!rig.sent()[0].is_signed);
}

#[test]
fn refusals_do_not_make_a_session_send_without_end() {
    let mut rig = asked();
    let mut sent = 0;
    for _ in 0..1000 {
        for node in 0..4 {
            rig.refuse(node, 0, FIRST, RefusalReason::MustSign);
            sent += rig.sent().len();
        }
    }
    assert!(sent <= 4, "{sent} messages for one frame before its timeout");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_nor_end_a_call(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cut in 0usize..200,
        flip in 0usize..200,
        bit in 0u8..8,
    ) {
        let mut rig = asked();
        rig.from(0, Bytes::from(bytes));
        let mut near = answer(0, &rig.frame(FIRST), &[b"A", b"B"]).to_vec();
        let at = flip % near.len();
        near[at] ^= 1 << bit;
        near.truncate(near.len() - cut % near.len());
        rig.from(3, Bytes::from(near));
        prop_assert_eq!(rig.ends(), []);
        finish(&mut rig);
    }
}
