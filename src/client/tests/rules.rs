//! Each rule of the session's header: input, then exactly what comes out.

use super::*;
use crate::runtime::config::ReadLevel;

#[test]
fn an_idle_session_sends_at_once_to_the_leader_and_ends_at_f_plus_1_equal_answers() {
    let mut rig = Rig::new(config(4));
    rig.call(ms(0), b"a", Mode::Ordered, 7);
    assert_eq!(rig.sent(), [], "nothing leaves before the turn ends");
    rig.session.flush(ms(0));
    let sent = rig.sent();
    let expected = Sent {
        to: r(0),
        sequence: FIRST,
        mode: Mode::Ordered,
        operations: vec![b"a".to_vec()],
        is_signed: false,
        ..sent[0].clone()
    };
    assert_eq!(sent, [expected]);
    assert_eq!(rig.session.next_timeout(), Some(ms(100)));
    rig.answer(2, 0, FIRST, &[b"A"]);
    assert_eq!(rig.ends(), []);
    rig.answer(2, 0, FIRST, &[b"A"]);
    assert_eq!(
        rig.ends(),
        [],
        "one replica counts once, however often it answers"
    );
    rig.answer(1, 0, FIRST, &[b"A"]);
    assert_eq!(rig.ends(), [results(&[(7, b"A")])]);
    rig.answer(3, 0, FIRST, &[b"A"]);
    assert_eq!(rig.ends(), [], "the third answer is late, not wrong");
    assert_eq!(rig.session.operations(), 0);
    assert_eq!(rig.session.counters().answers_ignored, 0);
    rig.pass(ms(60_000));
    assert_eq!((rig.sent(), rig.session.next_timeout()), (vec![], None));
}

#[test]
fn operations_gather_into_full_frames_while_frames_are_under_way() {
    let mut config = config(4);
    config.frames_in_flight_max = 1;
    let mut rig = Rig::new(config);
    rig.ordered(ms(0), b"first", 0);
    for token in 1..=4 {
        rig.call(ms(1), &[token as u8], Mode::Ordered, token);
        rig.session.flush(ms(1));
    }
    assert_eq!(rig.sent(), []);
    let full = rig.session.submit(ms(1), b"x", Mode::Ordered, 9, ms(1000));
    assert_eq!(
        full,
        Err(SubmitError::Full),
        "the next frame is full and may not leave"
    );
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"!"]);
    }
    assert_eq!(rig.ends(), [results(&[(0, b"!")])]);
    rig.session.flush(ms(2));
    let sent = rig.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].operations, [[1], [2], [3], [4]]);
    for node in [0, 1] {
        rig.answer(node, 0, FIRST + 1, &[b"1", b"", b"333", b"4"]);
    }
    let expected = results(&[(1, b"1"), (2, b""), (3, b"333"), (4, b"4")]);
    assert_eq!(
        rig.ends(),
        [expected],
        "each caller gets its own operation's result"
    );
}

#[test]
fn a_frame_is_never_larger_than_its_limits() {
    let mut rig = Rig::new(config(4));
    let big = vec![1; 600];
    for token in 0..3 {
        rig.call(ms(0), &big, Mode::Ordered, token);
    }
    rig.session.flush(ms(0));
    let sizes: Vec<usize> = rig.sent().iter().map(|sent| sent.operations.len()).collect();
    assert_eq!(sizes, [1, 1, 1], "two of them are more than a thousand bytes");
    let got = rig.session.submit(ms(0), &[0; 1001], Mode::Ordered, 9, ms(1));
    assert_eq!(got, Err(SubmitError::TooLarge { got: 1001, max: 1000 }));
    assert_eq!(rig.session.operations(), 3);
}

#[test]
fn more_operations_than_the_limit_are_refused_until_some_end() {
    let mut config = config(4);
    config.operations_max = 2;
    let mut rig = Rig::new(config);
    rig.ordered(ms(0), b"a", 0);
    rig.call(ms(0), b"b", Mode::Unordered, 1);
    let full = rig.session.submit(ms(0), b"c", Mode::Ordered, 2, ms(1000));
    assert_eq!(full, Err(SubmitError::Full));
    for node in [2, 3] {
        rig.answer(node, 0, FIRST, &[b"A"]);
    }
    rig.call(ms(0), b"c", Mode::Ordered, 2);
}

#[test]
fn a_late_frame_is_asked_of_everybody_with_growing_capped_pauses() {
    let mut rig = Rig::new(config(4));
    let end = ms(600_000);
    rig.session.submit(ms(0), b"a", Mode::Ordered, 0, end).unwrap();
    rig.session.flush(ms(0));
    let first = rig.sent().remove(0);
    let mut pauses = Vec::new();
    let mut last = ms(0);
    for _ in 0..9 {
        let at = rig.session.next_timeout().unwrap();
        rig.session.on_time(at);
        assert_eq!(rig.sent_to_all(), first, "it is the very same frame");
        pauses.push(at.since(last).as_millis());
        last = at;
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 3200, 3200, 3200]);
    assert_eq!(rig.session.counters().retransmissions, 9);
    for node in [0, 3] {
        rig.answer(node, 0, FIRST, &[b"A"]);
    }
    assert_eq!(
        rig.ends(),
        [results(&[(0, b"A")])],
        "answers to any of them count"
    );
}

#[test]
fn a_call_that_gets_no_f_plus_1_equal_answers_says_at_its_deadline_who_said_what() {
    let mut rig = Rig::new(config(4));
    rig.ordered(ms(0), b"a", 5);
    rig.answer(1, 0, FIRST, &[b"one"]);
    rig.answer(2, 0, FIRST, &[b"two"]);
    rig.pass(ms(9_999));
    rig.outputs();
    rig.refuse(3, 0, FIRST, RefusalReason::Overloaded);
    rig.pass(ms(10_000));
    let frame = rig.frame(FIRST);
    let digest = |result: &[u8]| {
        let body = reply_body(&frame, &[result]);
        hex::encode(&blake3::hash(&body).as_bytes()[..4])
    };
    let said = vec![
        Silence::Silent(r(0)),
        Silence::Answered(r(1), digest(b"one")),
        Silence::Answered(r(2), digest(b"two")),
        Silence::Refused(r(3), RefusalReason::Overloaded),
    ];
    let error = CallError::DeadlineExceeded(said);
    let text = error.to_string();
    for part in [
        "r0 silent",
        "r1 answered ",
        "r3 refused: this client's pending requests fill its quota",
        "may still be executed",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text:?}");
    }
    assert_eq!(rig.ends(), [End::Failed(vec![5], error)]);
    assert_eq!((rig.session.operations(), rig.session.next_timeout()), (0, None));
    rig.ordered(ms(10_001), b"b", 6);
}

#[test]
fn a_call_that_was_never_sent_says_so_and_is_never_sent_later() {
    let mut config = config(4);
    config.frames_in_flight_max = 1;
    let mut rig = Rig::new(config);
    rig.ordered(ms(0), b"first", 0);
    rig.session
        .submit(ms(0), b"short", Mode::Ordered, 1, ms(50))
        .unwrap();
    rig.session
        .submit(ms(0), b"long", Mode::Ordered, 2, ms(5000))
        .unwrap();
    rig.session.flush(ms(0));
    rig.pass(ms(50));
    assert_eq!(rig.ends(), [End::Failed(vec![1], CallError::NeverSent)]);
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"!"]);
    }
    rig.session.flush(ms(60));
    let (sent, ends) = rig.outputs();
    assert_eq!(ends, [results(&[(0, b"!")])]);
    assert_eq!(sent[0].operations, [b"long"]);
    for node in [0, 1] {
        rig.answer(node, 0, FIRST + 1, &[b"L"]);
    }
    assert_eq!(rig.ends(), [results(&[(2, b"L")])]);
}

#[test]
fn a_short_deadline_ends_its_own_call_and_no_other_of_its_frame() {
    let mut rig = Rig::new(config(4));
    for (token, deadline) in [(0, 5000), (1, 50), (2, 5000), (3, 70)] {
        let operation = [token as u8];
        rig.session
            .submit(ms(0), &operation, Mode::Ordered, token, ms(deadline))
            .unwrap();
    }
    rig.session.flush(ms(0));
    assert_eq!(rig.sent().len(), 1);
    let silent = CallError::DeadlineExceeded(NodeId::all(4).map(Silence::Silent).collect());
    assert_eq!(rig.session.next_timeout(), Some(ms(50)));
    rig.pass(ms(69));
    assert_eq!(rig.ends(), [End::Failed(vec![1], silent.clone())]);
    rig.pass(ms(70));
    assert_eq!(rig.ends(), [End::Failed(vec![3], silent)]);
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"zero", b"one", b"two", b"three"]);
    }
    assert_eq!(
        rig.ends(),
        [results(&[(0, b"zero")]), results(&[(2, b"two")])],
        "those left get the results of their own operations"
    );
    assert_eq!(rig.session.operations(), 0);
}

#[test]
fn an_abandoned_frame_blocks_no_later_one_but_a_live_one_holds_the_window() {
    let mut rig = Rig::new(config(4));
    rig.session
        .submit(ms(0), b"slow", Mode::Ordered, 0, ms(9))
        .unwrap();
    rig.session.flush(ms(0));
    assert_eq!(rig.sent().len(), 1);
    for token in 1..64 {
        let sequence = rig.ordered(ms(1), b"x", token);
        for node in [0, 1] {
            rig.answer(node, 0, sequence, &[b"X"]);
        }
        assert_eq!(rig.ends().len(), 1);
    }
    rig.call(ms(2), b"beyond", Mode::Ordered, 64);
    rig.session.flush(ms(2));
    assert_eq!(rig.sent(), [], "65 numbers do not fit the window of 64");
    rig.pass(ms(9));
    assert_eq!(rig.ends().len(), 1);
    rig.session.flush(ms(9));
    assert_eq!(rig.sent()[0].sequence, FIRST + 64);
}

#[test]
fn a_read_goes_to_all_and_in_order_when_all_disagree() {
    let mut rig = Rig::new(config(4));
    rig.call(ms(0), b"get", Mode::Unordered, 1);
    rig.session.flush(ms(0));
    assert_eq!(rig.sent_to_all().mode, Mode::Unordered);
    for (node, result) in [(0, b"v1"), (1, b"v2"), (2, b"v3")] {
        rig.answer(node, 0, FIRST, &[result]);
    }
    assert_eq!(rig.sent(), []);
    rig.answer(3, 0, FIRST, &[b"v4"]);
    rig.pass(ms(1));
    let again = rig.sent_to_all();
    assert_eq!((again.mode, again.sequence), (Mode::OrderedRead, FIRST));
    assert_eq!(again.operations, [b"get"]);
    for node in [1, 2] {
        rig.answer(node, 0, FIRST, &[b"v5"]);
    }
    assert_eq!(rig.ends(), [results(&[(1, b"v5")])]);
}

/// A read that is under way.
fn reading() -> Rig {
    let quorum = Quorum::of(4).unwrap();
    let mut rig = Rig::new(SessionConfig {
        answers: AnswerRule::new(quorum, true, ReadLevel::Linearizable),
        ..config(4)
    });
    rig.call(ms(0), b"get", Mode::Unordered, 1);
    rig.session.flush(ms(0));
    rig.sent_to_all();
    rig
}

#[test]
fn equal_values_of_states_that_differ_end_a_read_only_if_all_replicas_say_so() {
    let states = [(0, 0), (9, 9), (0, 0), (3, 4)];
    let mut rig = reading();
    for (node, state) in (0..).zip(states) {
        assert_eq!(rig.ends(), []);
        rig.reads(node, FIRST, state, b"none");
    }
    assert_eq!(rig.ends(), [results(&[(1, b"none")])]);
    // One state, which others have gone on from.
    let mut rig = reading();
    for (node, state) in [(0, (5, 5)), (1, (6, 6)), (2, (5, 5)), (3, (5, 5))] {
        assert_eq!(rig.ends(), []);
        rig.reads(node, FIRST, state, b"none");
    }
    assert_eq!(rig.ends(), [results(&[(1, b"none")])]);
}

#[test]
fn a_read_of_states_that_differ_is_asked_again_and_ends_with_states_after_all_of_them() {
    let mut rig = reading();
    // r3 has executed what the others may not have: they may have read what was before it.
    for (node, state) in [(0, (0, 0)), (1, (0, 0)), (3, (2, 3))] {
        rig.reads(node, FIRST, state, b"none");
    }
    rig.session.flush(ms(1));
    assert_eq!(rig.sent_to_all().mode, Mode::Unordered);
    rig.session.flush(ms(1));
    assert_eq!(rig.sent(), [], "once");
    assert_eq!(rig.session.counters().reads_again, 1);
    rig.reads(3, FIRST, (4, 4), b"none");
    rig.reads(0, FIRST, (3, 3), b"none");
    assert_eq!(rig.ends(), [], "r1 has not said that it has executed as much");
    rig.reads(1, FIRST, (5, 6), b"none");
    assert_eq!(rig.ends(), [results(&[(1, b"none")])]);
}

#[test]
fn a_state_that_a_liar_makes_up_holds_a_read_up_by_no_more_than_an_order() {
    let made_up = (u64::MAX, u64::MAX);
    // The others say more, and the liar's word is not needed.
    let mut rig = reading();
    for (node, state) in [(0, made_up), (1, (5, 6)), (2, (6, 6)), (3, (4, 6))] {
        rig.reads(node, FIRST, state, if node == 0 { b"lie!" } else { b"none" });
    }
    rig.session.flush(ms(1));
    rig.sent_to_all();
    for node in [1, 2, 3] {
        rig.reads(node, FIRST, (6, 7), b"none");
    }
    assert_eq!(rig.ends(), [results(&[(1, b"none")])]);
    // It is needed, and what it says can never be reached.
    let mut rig = reading();
    let again = |rig: &mut Rig| {
        for (node, state) in [(0, made_up), (1, (5, 6)), (2, (6, 6))] {
            rig.reads(node, FIRST, state, b"none");
        }
    };
    again(&mut rig);
    rig.session.flush(ms(1));
    assert_eq!(rig.sent_to_all().mode, Mode::Unordered);
    again(&mut rig);
    rig.pass(ms(2));
    assert_eq!(rig.sent_to_all().mode, Mode::OrderedRead);
}

#[test]
fn a_read_that_too_many_have_no_room_to_answer_again_is_asked_in_order_at_once() {
    let mut rig = reading();
    for (node, state) in [(0, (1, 1)), (1, (1, 1)), (2, (2, 2))] {
        rig.refuse(3, 0, FIRST, RefusalReason::Overloaded);
        rig.reads(node, FIRST, state, b"none");
    }
    rig.session.flush(ms(1));
    assert_eq!(rig.sent_to_all().mode, Mode::Unordered);
    rig.refuse(3, 0, FIRST, RefusalReason::Overloaded);
    rig.pass(ms(2));
    assert_eq!(rig.sent(), [], "three are enough");
    rig.refuse(0, 0, FIRST, RefusalReason::Overloaded);
    rig.pass(ms(3));
    assert_eq!(rig.sent_to_all().mode, Mode::OrderedRead);
}

#[test]
fn a_read_without_enough_answers_is_asked_in_order_after_its_timeout() {
    let mut rig = Rig::new(config(4));
    rig.call(ms(0), b"get", Mode::Unordered, 1);
    rig.session.flush(ms(0));
    rig.sent_to_all();
    rig.answer(0, 0, FIRST, &[b"v1"]);
    rig.pass(ms(100));
    assert_eq!(rig.sent_to_all().mode, Mode::OrderedRead);
    assert_eq!(rig.session.counters().reads_ordered, 1);
}

#[test]
fn a_read_that_too_many_refuse_until_they_have_caught_up_is_asked_in_order_at_once() {
    let mut rig = Rig::new(config(4));
    rig.call(ms(0), b"get", Mode::Unordered, 1);
    rig.session.flush(ms(0));
    rig.sent_to_all();
    rig.answer(0, 0, FIRST, &[b"v1"]);
    for node in [1, 2] {
        assert_eq!(rig.sent(), []);
        rig.refuse(node, 0, FIRST, RefusalReason::CatchingUp);
    }
    assert_eq!(rig.sent(), [], "r3 may still agree with r0");
    rig.refuse(3, 0, FIRST, RefusalReason::CatchingUp);
    rig.pass(ms(1));
    assert_eq!(rig.sent_to_all().mode, Mode::OrderedRead);
    assert_eq!(rig.session.counters().reads_ordered, 1);
    // In order nobody's refusal counts for that.
    for node in 0..4 {
        rig.refuse(node, 0, FIRST, RefusalReason::CatchingUp);
    }
    for node in [1, 2] {
        rig.answer(node, 0, FIRST, &[b"v2"]);
    }
    assert_eq!(rig.ends(), [results(&[(1, b"v2")])]);
}

#[test]
fn late_answers_to_a_read_do_not_hide_those_to_its_ordered_form() {
    let mut rig = Rig::new(config(4));
    rig.call(ms(0), b"get", Mode::Unordered, 1);
    rig.session.flush(ms(0));
    rig.sent_to_all();
    let read = rig.frame(FIRST);
    rig.pass(ms(100));
    rig.outputs();
    for node in 0..4 {
        rig.from(node, answer(0, &read, &[b"old"]));
    }
    assert_eq!(rig.ends(), [], "they answer another question");
    assert_eq!(rig.session.counters().answers_ignored, 0, "which was asked");
    for (node, result) in [(0, b"v1"), (1, b"v2"), (2, b"v3"), (3, b"v4")] {
        rig.answer(node, 0, FIRST, &[result]);
    }
    assert_eq!(rig.ends(), []);
    for node in [3, 0] {
        rig.answer(node, 0, FIRST, &[b"v5"]);
    }
    assert_eq!(rig.ends(), [results(&[(1, b"v5")])]);
}

#[test]
fn reads_and_writes_take_turns_when_there_is_room_for_one() {
    let mut config = config(4);
    config.frames_in_flight_max = 1;
    config.frame_operations_max = 1;
    let mut rig = Rig::new(config);
    let mut sequence = rig.ordered(ms(0), b"w0", 0);
    rig.call(ms(0), b"w", Mode::Ordered, 1);
    rig.call(ms(0), b"r", Mode::Unordered, 2);
    let mut modes = Vec::new();
    for token in 3..9 {
        for node in [0, 1] {
            rig.answer(node, 0, sequence, &[b"!"]);
        }
        // Writes press in first; reads must not wait for ever behind them.
        let _ = rig.session.submit(ms(1), b"w", Mode::Ordered, token, ms(5000));
        let _ = rig
            .session
            .submit(ms(1), b"r", Mode::Unordered, 10 * token, ms(5000));
        rig.session.flush(ms(1));
        let (sent, _) = rig.outputs();
        modes.push(sent[0].mode);
        sequence = sent[0].sequence;
    }
    let (reads, writes) = ([Mode::Unordered], [Mode::Ordered]);
    assert_eq!(modes, [reads, writes, reads, writes, reads, writes].concat());
}

#[test]
fn a_refusal_for_good_counts_from_f_plus_1_replicas() {
    for reason in [
        RefusalReason::Malformed,
        RefusalReason::NotAuthentic,
        RefusalReason::Stale,
        RefusalReason::SessionEnded,
        RefusalReason::ResultsForgotten,
    ] {
        let mut rig = Rig::new(config(4));
        rig.ordered(ms(0), b"a", 1);
        rig.refuse(0, 0, FIRST, reason);
        rig.refuse(0, 0, FIRST, reason);
        assert_eq!(rig.ends(), []);
        rig.refuse(2, 0, FIRST, reason);
        assert_eq!(rig.ends(), [End::Failed(vec![1], CallError::Refused(reason))]);
        assert_eq!(rig.session.operations(), 0);
    }
}

#[test]
fn an_overloaded_cluster_is_asked_again_until_it_answers() {
    let mut rig = Rig::new(config(4));
    rig.ordered(ms(0), b"a", 1);
    for node in 0..4 {
        rig.refuse(node, 0, FIRST, RefusalReason::Overloaded);
    }
    assert_eq!(rig.ends(), [], "overload passes");
    rig.pass(ms(100));
    rig.sent_to_all();
    for node in [0, 1] {
        rig.answer(node, 0, FIRST, &[b"A"]);
    }
    assert_eq!(rig.ends(), [results(&[(1, b"A")])]);
}

#[test]
fn frames_are_signed_once_f_plus_1_replicas_want_it_and_no_longer_than_they_do() {
    let mut rig = Rig::new(config(4));
    rig.ordered(ms(0), b"a", 1);
    rig.refuse(3, 0, FIRST, RefusalReason::MustSign);
    assert_eq!(rig.sent(), [], "one that does not lead waits for the next time");
    rig.pass(ms(100));
    assert!(!rig.sent_to_all().is_signed);
    rig.refuse(2, 0, FIRST, RefusalReason::MustSign);
    let to: Vec<_> = rig.sent().iter().map(|sent| (sent.to, sent.is_signed)).collect();
    assert_eq!(to, [(r(2), true), (r(3), true)]);
    rig.refuse(2, 0, FIRST, RefusalReason::MustSign);
    assert_eq!(rig.sent(), [], "it is told once");
    rig.refuse(0, 0, FIRST, RefusalReason::MustSign);
    assert!(matches!(&rig.sent()[..], [sent] if sent.to == r(0) && sent.is_signed));
    rig.call(ms(200), b"b", Mode::Ordered, 2);
    rig.session.flush(ms(200));
    assert!(rig.sent()[0].is_signed, "and so is what comes later");
    rig.call(ms(60_101), b"c", Mode::Ordered, 3);
    rig.session.flush(ms(60_101));
    let last = rig.sent().pop().unwrap();
    assert!(!last.is_signed, "nobody has asked for a minute");
}

#[test]
fn a_leader_that_alone_wants_signatures_has_all_others_asked() {
    let mut rig = Rig::new(config(4));
    rig.ordered(ms(0), b"a", 1);
    rig.refuse(0, 0, FIRST, RefusalReason::MustSign);
    rig.pass(ms(0));
    assert!(!rig.sent_to_all().is_signed);
    rig.refuse(0, 0, FIRST, RefusalReason::MustSign);
    rig.pass(ms(1));
    assert_eq!(rig.sent(), [], "once");
}

#[test]
fn the_first_frame_that_a_client_waits_for_is_signed_whichever_replicas_ask_about() {
    let mut rig = Rig::new(config(4));
    let numbers = [1, 2, 3].map(|token| rig.ordered(ms(0), b"a", token));
    rig.answer(1, 0, numbers[0], &[b"x"]);
    rig.answer(2, 0, numbers[0], &[b"x"]);
    assert_eq!(rig.ends().len(), 1);
    for node in [1, 2, 3] {
        rig.refuse(node, 0, numbers[2], RefusalReason::Unproven);
    }
    let sent = rig.sent_to_all();
    assert!(sent.is_signed && sent.sequence == numbers[1]);
}

#[test]
fn a_frame_is_signed_when_f_plus_1_replicas_hold_it_against_their_leader() {
    let mut rig = Rig::new(config(4));
    rig.ordered(ms(0), b"a", 1);
    for _ in 0..10 {
        rig.refuse(1, 0, FIRST, RefusalReason::Unproven);
    }
    assert_eq!(rig.sent(), []);
    rig.refuse(2, 0, FIRST, RefusalReason::Unproven);
    assert!(rig.sent_to_all().is_signed);
    rig.refuse(3, 0, FIRST, RefusalReason::Unproven);
    assert_eq!(rig.sent(), [], "once");
    rig.call(ms(1), b"b", Mode::Ordered, 2);
    rig.session.flush(ms(1));
    assert!(!rig.sent()[0].is_signed, "it is about that frame alone");
}

#[test]
fn a_read_that_the_cluster_does_not_answer_beside_the_order_is_asked_in_order() {
    let mut rig = Rig::new(config(4));
    rig.call(ms(0), b"a", Mode::Unordered, 1);
    rig.session.flush(ms(0));
    rig.sent_to_all();
    rig.refuse(1, 0, FIRST, RefusalReason::OrderedOnly);
    rig.pass(ms(0));
    assert_eq!(rig.sent(), []);
    rig.refuse(2, 0, FIRST, RefusalReason::OrderedOnly);
    rig.pass(ms(0));
    assert_eq!(rig.sent_to_all().mode, Mode::OrderedRead);
}

#[test]
fn the_leader_is_that_of_the_view_that_f_plus_1_replicas_reached() {
    let mut rig = Rig::new(config(7));
    let mut views = Vec::new();
    for (node, view) in [(6, u64::MAX), (5, u64::MAX - 1), (0, 3), (1, 4), (2, 4)] {
        rig.refuse(node, view, FIRST, RefusalReason::Overloaded);
        views.push(rig.session.leader());
    }
    // Highest views of three distinct replicas: 0, 0, 3, 4, 4.
    assert_eq!(views, [r(0), r(0), r(3), r(4), r(4)]);
    rig.refuse(1, 2, FIRST, RefusalReason::Overloaded);
    assert_eq!(rig.session.leader(), r(4), "no replica goes back");
    rig.call(ms(0), b"a", Mode::Ordered, 1);
    rig.session.flush(ms(0));
    assert_eq!(rig.sent()[0].to, r(4));
}

#[test]
fn a_client_of_one_replica_believes_it() {
    let mut rig = Rig::new(config(1));
    rig.ordered(ms(0), b"a", 1);
    rig.answer(0, 0, FIRST, &[b"A"]);
    assert_eq!(rig.ends(), [results(&[(1, b"A")])]);
}
