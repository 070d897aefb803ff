//! Conditions A1, A2 and B on hand-made sets of view changes; n = 4 unless said.

use super::super::choice::choose;
use super::*;

/// A view change with (seq, letter, view) entries in P and Q; unsigned, for the choice looks at no signature.
fn message(signer: u16, stable: u64, p: &[(u64, char, u64)], q: &[(u64, char, u64)]) -> ViewChange {
    let placed = |(seq, letter, view): &(u64, char, u64)| {
        SlotDigest::new(SeqNo::new(*seq), &digest(*letter), View::new(*view))
    };
    let mut pre_prepared: Vec<SlotDigest> = q.iter().map(placed).collect();
    pre_prepared.sort_unstable();
    ViewChange {
        view: 9,
        stable_seq: stable,
        stable_digest: *digest('k').as_bytes(),
        stable_proof: Vec::new(),
        prepared: p.iter().map(placed).collect(),
        pre_prepared,
        signer,
        signature: [0; 64],
    }
}

/// The batches chosen, `0` for null; `None` while a place is open.
fn chosen(n: usize, messages: &[ViewChange]) -> Option<String> {
    let messages: Vec<&ViewChange> = messages.iter().collect();
    let start = choose(View::new(9), &messages, Quorum::of(n).unwrap())?;
    let letter = |digest: &Digest| match digest.as_bytes()[0] {
        0 => '0',
        byte => char::from(byte),
    };
    Some(start.chosen.iter().map(letter).collect())
}

#[test]
fn nothing_prepared_begins_with_nothing() {
    let messages = [0, 1, 2].map(|node| message(node, 0, &[], &[(1, 'a', 0)]));
    assert_eq!(chosen(4, &messages).unwrap(), "");
}

#[test]
fn a_batch_prepared_at_one_replica_is_chosen_if_f_plus_one_accepted_it() {
    let a = [(1, 'a', 0)];
    let messages = [
        message(0, 0, &a, &a),
        message(1, 0, &[], &a),
        message(2, 0, &[], &[]),
    ];
    assert_eq!(chosen(4, &messages).unwrap(), "a");
}

#[test]
fn a_batch_that_one_replica_claims_to_have_prepared_is_not_chosen_without_a2() {
    let a = [(1, 'a', 0)];
    let liar = message(0, 0, &a, &a);
    let honest = |node| message(node, 0, &[], &[]);
    assert_eq!(
        chosen(4, &[liar.clone(), honest(1), honest(2)]),
        None,
        "S is too small"
    );
    assert_eq!(chosen(4, &[liar, honest(1), honest(2), honest(3)]).unwrap(), "0");
}

#[test]
fn a2_asks_for_the_view_as_well() {
    let claimed = message(0, 0, &[(1, 'a', 5)], &[(1, 'a', 5)]);
    let older = |node| message(node, 0, &[], &[(1, 'a', 3)]);
    assert_eq!(chosen(4, &[claimed.clone(), older(1), older(2)]), None);
    let later = message(2, 0, &[], &[(1, 'a', 6)]);
    assert_eq!(chosen(4, &[claimed, older(1), later]).unwrap(), "a");
}

#[test]
fn the_batch_prepared_in_the_latest_view_is_chosen() {
    let early = [(1, 'a', 1)];
    let late = [(1, 'b', 2)];
    let messages = [
        message(0, 0, &early, &[(1, 'a', 1), (1, 'b', 2)]),
        message(1, 0, &late, &late),
        message(2, 0, &early, &early),
    ];
    assert_eq!(chosen(4, &messages).unwrap(), "b");
}

#[test]
fn a1_refuses_a_batch_when_another_was_prepared_later() {
    // b in view 2 lacks A2; a in view 1 lacks A1, for only two messages permit it.
    let messages = [
        message(0, 0, &[(1, 'a', 1)], &[(1, 'a', 1)]),
        message(1, 0, &[(1, 'b', 2)], &[(1, 'b', 2)]),
        message(2, 0, &[(1, 'a', 1)], &[(1, 'a', 1)]),
    ];
    assert_eq!(chosen(4, &messages), None);
    let mut more = messages.to_vec();
    more.push(message(3, 0, &[(1, 'a', 1)], &[(1, 'a', 1)]));
    assert_eq!(
        chosen(4, &more).unwrap(),
        "a",
        "three of four permit it now: b was a lie"
    );
}

#[test]
fn two_batches_claimed_for_one_view_leave_the_place_open() {
    let messages = [
        message(0, 0, &[(1, 'a', 1)], &[(1, 'a', 1)]),
        message(1, 0, &[(1, 'b', 1)], &[(1, 'b', 1)]),
        message(2, 0, &[], &[(1, 'a', 1), (1, 'b', 1)]),
    ];
    assert_eq!(
        chosen(4, &messages),
        None,
        "one of them lies, and S does not tell who"
    );
}

#[test]
fn gaps_are_filled_with_null_requests() {
    let p = [(2, 'b', 0), (4, 'd', 0)];
    let messages = [0, 1, 2].map(|node| message(node, 0, &p, &p));
    assert_eq!(chosen(4, &messages).unwrap(), "0b0d");
}

#[test]
fn the_view_starts_after_the_latest_stable_checkpoint() {
    let p = [(2, 'b', 0), (3, 'c', 0)];
    let messages = [
        message(0, 0, &p, &p),
        message(1, 2, &[(3, 'c', 0)], &[(3, 'c', 0)]),
        message(2, 1, &p, &p),
    ];
    let all: Vec<&ViewChange> = messages.iter().collect();
    let start = choose(View::new(9), &all, Quorum::of(4).unwrap()).unwrap();
    assert_eq!(start.stable.seq, SeqNo::new(2));
    assert_eq!(start.last(), SeqNo::new(3));
    assert_eq!(chosen(4, &messages).unwrap(), "c");
}

#[test]
fn a_committed_batch_is_chosen_from_every_quorum_with_any_lie() {
    // d is committed at s1 in view 3: replicas 0, 1, 2 prepared it. 3 lies as it likes, or is late.
    let d = [(1, 'd', 3)];
    let correct = [0, 1].map(|node| message(node, 0, &d, &d));
    let lies = [
        message(3, 0, &[], &[]),
        message(3, 0, &[(1, 'x', 3)], &[(1, 'x', 3)]),
        message(3, 0, &[(1, 'x', 8)], &[(1, 'x', 8)]),
        message(3, 0, &[(1, 'x', 1)], &[(1, 'x', 1)]),
    ];
    for lie in lies {
        let mut messages = correct.to_vec();
        messages.push(lie);
        let choice = chosen(4, &messages);
        assert!(
            choice.is_none() || choice.as_deref() == Some("d"),
            "{choice:?} from {messages:?}"
        );
        messages.push(message(2, 0, &d, &d));
        assert_eq!(
            chosen(4, &messages).unwrap(),
            "d",
            "all correct replicas settle it"
        );
    }
}

#[test]
fn the_choice_does_not_depend_on_the_order_of_the_view_changes() {
    let messages = [
        message(0, 0, &[(1, 'a', 1), (2, 'b', 0)], &[(1, 'a', 1), (2, 'b', 0)]),
        message(1, 0, &[(1, 'a', 1)], &[(1, 'a', 1), (2, 'b', 0)]),
        message(2, 0, &[(2, 'b', 0)], &[(1, 'a', 1), (2, 'b', 0)]),
        message(3, 0, &[(3, 'c', 0)], &[(3, 'c', 0)]),
    ];
    let expected = chosen(4, &messages);
    assert_eq!(expected.as_deref(), Some("ab0"));
    let mut turned = messages.to_vec();
    for _ in 0..4 {
        turned.rotate_left(1);
        assert_eq!(chosen(4, &turned), expected);
        turned.swap(0, 1);
        assert_eq!(chosen(4, &turned), expected);
    }
}

#[test]
fn seven_replicas_need_five_for_a1_and_three_for_a2() {
    let a = [(1, 'a', 0)];
    let with = |accepted: u16| -> Vec<ViewChange> {
        let p = |node: u16| if node == 0 { a.as_slice() } else { &[] };
        let q = |node: u16| if node < accepted { a.as_slice() } else { &[] };
        (0..5).map(|node| message(node, 0, p(node), q(node))).collect()
    };
    assert_eq!(chosen(7, &with(2)), None);
    assert_eq!(chosen(7, &with(3)).unwrap(), "a");
}
