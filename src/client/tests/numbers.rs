//! Which numbers a session takes, and what becomes of a frame whose number is not its own.

use super::*;

/// A session whose question was asked and not answered yet.
fn asking() -> Rig {
    let mut rig = Rig::unlinked(config(4));
    NodeId::all(4).for_each(|node| rig.session.on_link_up(ms(0), node));
    assert_eq!(rig.sent(), []);
    rig
}

/// The session of the frame that a call is sent in.
fn session_of(rig: &mut Rig, now: Time) -> u64 {
    rig.call(now, b"a", Mode::Ordered, 1);
    rig.session.flush(now);
    let sent = rig.sent();
    assert_eq!(sent.len(), 1, "it is sent at once");
    assert_eq!(sent[0].sequence, FIRST);
    sent[0].id.key.sequence.session()
}

#[test]
fn nothing_is_numbered_before_a_quorum_has_said_which_sessions_there_were() {
    let mut rig = asking();
    rig.call(ms(0), b"a", Mode::Ordered, 1);
    rig.session.flush(ms(0));
    for node in [0, 1] {
        rig.say_highest(node, 5);
        rig.session.flush(ms(0));
        assert_eq!(rig.sent(), []);
    }
    rig.say_highest(2, 5);
    rig.session.flush(ms(0));
    let sent = rig.sent();
    assert!(sent[0].id.key.sequence.session() > 5);
    assert_eq!(rig.session.counters().sessions, 1);
}

#[test]
fn f_liars_move_the_session_neither_to_the_end_of_the_numbers_nor_below_what_correct_replicas_know() {
    for lie in [0, u64::MAX] {
        let mut rig = asking();
        for (node, highest) in [(3, lie), (0, 1 << 40), (1, 1 << 40)] {
            rig.say_highest(node, highest);
        }
        let session = session_of(&mut rig, ms(0));
        assert!(session > 1 << 40, "f+1 know of one so high");
        assert!(session < 1 << 41, "{session} is far above");
    }
}

#[test]
fn answers_to_another_question_and_such_as_are_no_number_do_not_count() {
    let mut rig = asking();
    let mut other = rig.question.unwrap();
    other.digest = Digest::from_bytes([1; 32]);
    for node in 0..4 {
        rig.from(node, answer(0, &other, &[&7u64.to_le_bytes()]));
        let question = rig.question.unwrap();
        rig.from(node, answer(0, &question, &[b"seven"]));
        rig.from(
            node,
            answer(0, &question, &[&7u64.to_le_bytes(), &7u64.to_le_bytes()]),
        );
    }
    rig.call(ms(0), b"a", Mode::Ordered, 1);
    rig.session.flush(ms(0));
    assert_eq!(rig.sent(), []);
    rig.open(7);
}

#[test]
fn f_plus_1_answers_are_enough_where_no_more_come_in_time() {
    let mut rig = asking();
    rig.call(ms(0), b"a", Mode::Ordered, 1);
    rig.session.flush(ms(0));
    for node in [1, 2] {
        rig.say_highest(node, 9);
    }
    rig.pass(ms(99));
    rig.session.flush(ms(99));
    assert_eq!(rig.sent(), []);
    rig.pass(ms(100));
    rig.session.flush(ms(100));
    assert!(rig.sent()[0].id.key.sequence.session() > 9);
}

#[test]
fn a_session_that_was_quiet_for_long_begins_anew_before_it_sends() {
    let mut rig = Rig::new(config(4));
    let first = session_of(&mut rig, ms(1));
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"A"]);
    }
    rig.ends();
    assert_eq!(rig.ordered(ms(1900), b"b", 2), FIRST + 1, "not quiet for long");
    for node in [0, 1] {
        rig.answer(node, 0, FIRST + 1, &[b"B"]);
    }
    rig.ends();
    rig.call(ms(60_000), b"c", Mode::Ordered, 3);
    rig.session.flush(ms(60_000));
    rig.open(first);
    rig.session.flush(ms(60_000));
    let sent = rig.sent();
    assert!(sent[0].id.key.sequence.session() > first);
    assert_eq!(sent[0].sequence, FIRST);
}

#[test]
fn a_frame_whose_number_was_used_goes_once_more_in_another_session() {
    let mut rig = Rig::new(config(4));
    let first = session_of(&mut rig, ms(0));
    rig.refuse(0, 0, FIRST, RefusalReason::NumberUsed);
    assert_eq!(rig.outputs(), (vec![], vec![]), "one replica may lie");
    rig.refuse(3, 0, FIRST, RefusalReason::NumberUsed);
    rig.session.flush(ms(1));
    // No correct replica knows of it yet, and yet it is not taken again.
    rig.open(0);
    rig.session.flush(ms(1));
    let sent = rig.sent();
    assert_eq!(sent[0].operations, [b"a"]);
    assert!(sent[0].id.key.sequence.session() > first);
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"A"]);
    }
    assert_eq!(rig.ends(), [results(&[(1, b"A")])]);
    assert_eq!(rig.session.counters().operations_again, 1);
}

#[test]
fn answers_to_another_frame_of_the_same_number_end_nothing() {
    let mut rig = Rig::new(config(4));
    session_of(&mut rig, ms(0));
    let mut other = rig.frame(FIRST);
    other.digest = Digest::from_bytes([9; 32]);
    for node in 0..4 {
        rig.from(node, answer(0, &other, &[b"theirs"]));
        rig.from(node, refusal(0, &other, RefusalReason::Malformed));
    }
    assert_eq!(rig.ends(), []);
    assert_eq!(
        rig.session.counters().answers_ignored,
        0,
        "another process may use the identity"
    );
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"ours"]);
    }
    assert_eq!(rig.ends(), [results(&[(1, b"ours")])]);
}

#[test]
fn a_read_of_an_ended_session_is_asked_again_and_a_write_is_reported() {
    let mut rig = Rig::new(config(4));
    session_of(&mut rig, ms(0));
    rig.call(ms(0), b"get", Mode::Unordered, 2);
    rig.session.flush(ms(0));
    assert_eq!(rig.sent()[0].mode, Mode::Unordered);
    for node in [0, 1] {
        rig.refuse(node, 0, FIRST, RefusalReason::SessionEnded);
        rig.refuse(node, 0, FIRST + 1, RefusalReason::SessionEnded);
    }
    let error = CallError::Refused(RefusalReason::SessionEnded);
    assert!(
        error.to_string().contains("executed before or never will be"),
        "{error}"
    );
    assert_eq!(rig.ends(), [End::Failed(vec![1], error)]);
    rig.session.flush(ms(1));
    rig.open(1 << 30);
    rig.session.flush(ms(1));
    let again = rig.sent_to_all();
    assert_eq!((again.sequence, again.operations), (FIRST, vec![b"get".to_vec()]));
}

#[test]
fn operations_behind_the_end_of_a_reply_are_sent_once_more_in_smaller_frames() {
    let mut rig = Rig::new(config(4));
    for token in 0..4 {
        rig.call(ms(0), &[token as u8], Mode::Ordered, token);
    }
    rig.session.flush(ms(0));
    assert_eq!(rig.sent().len(), 1);
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"zero"]);
    }
    assert_eq!(rig.ends(), [results(&[(0, b"zero")])]);
    rig.session.flush(ms(1));
    let sent = rig.sent();
    let operations: Vec<_> = sent.iter().map(|sent| sent.operations.clone()).collect();
    assert_eq!(
        operations,
        [[[1]], [[2]], [[3]]],
        "one result is what a reply had room for"
    );
    for (number, token) in (FIRST + 1..).zip(1..4) {
        for node in [0, 1] {
            rig.answer(node, 0, number, &[&[token as u8]]);
        }
        assert_eq!(rig.ends(), [results(&[(token, &[token as u8])])]);
    }
    assert_eq!(rig.session.operations(), 0);
}

#[test]
fn a_deadline_holds_for_operations_that_wait_to_be_sent_once_more() {
    let mut config = config(4);
    config.frames_in_flight_max = 1;
    let mut rig = Rig::new(config);
    for (token, deadline) in [(0, 9000), (1, 9000), (2, 50)] {
        let operation = [token as u8];
        rig.session
            .submit(ms(0), &operation, Mode::Ordered, token, ms(deadline))
            .unwrap();
    }
    rig.session.flush(ms(0));
    rig.sent();
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"zero"]);
    }
    rig.ends();
    rig.session.flush(ms(1));
    assert_eq!(rig.sent()[0].operations, [[1]]);
    rig.pass(ms(50));
    assert_eq!(rig.ends(), [End::Failed(vec![2], CallError::NeverSent)]);
}

#[test]
fn what_an_operation_gave_is_told_from_what_it_failed_with() {
    let mut rig = Rig::new(config(4));
    for token in 0..4 {
        rig.call(ms(0), &[token as u8], Mode::Ordered, token);
    }
    rig.session.flush(ms(0));
    rig.sent();
    let mut builder = crate::smr::messages::ReplyBuilder::default();
    for (result, failure) in [
        (&b"value"[..], None),
        (b"no funds", Some(Failure::Application)),
        (b"", Some(Failure::TooLong)),
        (b"", Some(Failure::Panicked)),
    ] {
        builder.buffer().extend_from_slice(result);
        builder.end_result(failure);
    }
    let body = builder.finish(&rig.frame(FIRST));
    for node in [0, 1] {
        rig.from(
            node,
            ClientReply::results(CLUSTER, Epoch::ZERO, View::ZERO, &body),
        );
    }
    let refused = CallError::Application(Bytes::from_static(b"no funds"));
    assert_eq!(
        refused.to_string(),
        "the application refuses the operation: no funds"
    );
    let expected = vec![
        (0, Ok(b"value".to_vec())),
        (1, Err(refused)),
        (2, Err(CallError::ResultTooLong)),
        (3, Err(CallError::Panicked)),
    ];
    assert_eq!(rig.ends(), [End::Results(expected)]);
}

/// A session that is open, and whose link with the leader is down.
fn without_leader() -> Rig {
    let mut rig = Rig::new(config(4));
    rig.session.on_link_down(r(0));
    rig
}

#[test]
fn a_frame_for_a_leader_that_is_not_linked_goes_to_all_that_are_and_to_it_when_it_is() {
    let mut rig = without_leader();
    rig.call(ms(0), b"a", Mode::Ordered, 1);
    rig.session.flush(ms(0));
    let to: Vec<NodeId> = rig.sent().iter().map(|sent| sent.to).collect();
    assert_eq!(to, [r(1), r(2), r(3)]);
    rig.session.on_link_up(ms(7), r(0));
    let to: Vec<NodeId> = rig.sent().iter().map(|sent| sent.to).collect();
    assert_eq!(to, [r(0)], "long before it is asked again");
    assert_eq!(rig.session.counters().retransmissions, 0);
}

#[test]
fn a_frame_that_may_be_lost_with_its_link_is_sent_by_the_next_one() {
    let mut rig = Rig::new(config(4));
    rig.ordered(ms(0), b"a", 1);
    rig.session.on_link_down(r(0));
    rig.session.on_link_up(ms(3), r(0));
    assert_eq!(rig.sent()[0].to, r(0));
    rig.session.on_link_down(r(2));
    rig.session.on_link_up(ms(4), r(2));
    assert_eq!(rig.sent(), [], "it is not for a backup");
    rig.call(ms(5), b"get", Mode::Unordered, 2);
    rig.session.flush(ms(5));
    rig.sent_to_all();
    rig.session.on_link_down(r(2));
    rig.session.on_link_up(ms(6), r(2));
    let sent = rig.sent();
    assert_eq!((sent.len(), sent[0].to, sent[0].mode), (1, r(2), Mode::Unordered));
}

#[test]
fn a_first_call_is_answered_as_soon_as_the_links_are_there() {
    let mut rig = Rig::unlinked(config(4));
    rig.call(ms(0), b"a", Mode::Ordered, 1);
    rig.session.flush(ms(0));
    assert_eq!(rig.sent(), [], "nobody is there");
    for (at, node) in [(1, 1), (2, 2), (3, 3)] {
        rig.session.on_link_up(ms(at), r(node));
        assert_eq!(rig.sent(), []);
        rig.say_highest(node, 0);
        rig.session.flush(ms(at));
    }
    let to: Vec<NodeId> = rig.sent().iter().map(|sent| sent.to).collect();
    assert_eq!(to, [r(1), r(2), r(3)], "the backups pass it on");
    for node in [1, 2] {
        rig.answer(node, 0, FIRST, &[b"A"]);
    }
    assert_eq!(rig.ends(), [results(&[(1, b"A")])]);
}
