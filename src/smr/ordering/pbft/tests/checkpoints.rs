//! Checkpoints and garbage collection (§4.3).

use super::*;

#[test]
fn an_own_checkpoint_is_signed_logged_and_sent() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    assert_eq!(
        backup.own_checkpoint(1, 'k'),
        ["log 2: checkpoint s1 k", "send all after 2"]
    );
}

#[test]
fn a_quorum_of_equal_checkpoints_is_stable_and_moves_the_window() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    backup.decide(2, 'b');
    backup.own_checkpoint(2, 'k');
    assert_eq!(backup.checkpoint(0, 2, 'k'), NOTHING);
    assert_eq!(
        backup.proposal(WINDOW + 2, 'z'),
        NOTHING,
        "the leader's window is ahead of ours"
    );
    let beyond = backup.proposal(2 * WINDOW + 1, 'z');
    assert_eq!(beyond, ["refused r0 v0 s17 AboveWindow"]);
    assert_eq!(
        backup.checkpoint(3, 2, 'k'),
        [
            "stable s2 k by [0, 1, 3]",
            "log 5: proposal v0 s10 z",
            "vote prepare v0 s10 z after 5",
        ],
        "the slot of s2 is free, and what waited for it is not lost"
    );
    assert_eq!(backup.pbft.stable(), SeqNo::new(2));
    assert_eq!(backup.prepare(2, 2, 'b'), ["refused r2 v0 s2 BelowWindow"]);
}

#[test]
fn votes_for_places_just_above_the_window_count_once_it_reaches_them() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    backup.decide(2, 'b');
    backup.own_checkpoint(2, 'k');
    backup.checkpoint(0, 2, 'k');
    for message in [
        backup.proposal(WINDOW + 1, 'z'),
        backup.prepare(2, WINDOW + 1, 'z'),
    ] {
        assert_eq!(message, NOTHING);
    }
    let moved = backup.checkpoint(3, 2, 'k');
    assert_eq!(
        moved.last().map(String::as_str),
        Some("vote commit v0 s9 z after 6"),
        "{moved:?}"
    );
}

#[test]
fn a_checkpoint_may_lie_anywhere() {
    let mut only = Bench::new(1, 0);
    only.propose('a');
    assert_eq!(
        only.own_checkpoint(1, 'k'),
        ["log 2: checkpoint s1 k", "send all after 2", "stable s1 k by [0]"]
    );
}

#[test]
fn checkpoints_with_different_digests_do_not_add_up() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    backup.own_checkpoint(1, 'k');
    assert_eq!(backup.checkpoint(0, 1, 'x'), NOTHING);
    assert_eq!(backup.checkpoint(2, 1, 'k'), NOTHING);
    assert_eq!(backup.checkpoint(3, 1, 'k'), ["stable s1 k by [1, 2, 3]"]);
}

#[test]
fn a_replica_whose_state_differs_from_the_quorums_is_told() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    backup.own_checkpoint(1, 'x');
    backup.checkpoint(0, 1, 'k');
    backup.checkpoint(2, 1, 'k');
    assert_eq!(
        backup.checkpoint(3, 1, 'k'),
        ["diverged s1 k ours x", "stable s1 k by [0, 2, 3]"]
    );
}

#[test]
fn what_a_replica_said_of_a_wrong_state_is_not_held_against_the_one_that_replaced_it() {
    let mut backup = Bench::new(4, 1);
    for seq in 1..=3 {
        backup.decide(seq, 'a');
        backup.own_checkpoint(seq, 'x');
    }
    for from in [0, 2] {
        backup.checkpoint(from, 1, 'k');
    }
    let told = backup.checkpoint(3, 1, 'k');
    assert_eq!(told[0], "diverged s1 k ours x");
    // The state at 1 comes. A quorum signs the next one before it was executed again here, and the one after
    // it later.
    for from in [0, 2] {
        backup.checkpoint(from, 2, 'l');
    }
    assert_eq!(backup.checkpoint(3, 2, 'l'), ["stable s2 l by [0, 2, 3]"]);
    assert_eq!(backup.own_checkpoint(2, 'l'), NOTHING);
    backup.own_checkpoint(3, 'm');
    backup.checkpoint(0, 3, 'm');
    assert_eq!(backup.checkpoint(2, 3, 'm'), ["stable s3 m by [0, 1, 2]"]);
}

#[test]
fn what_was_said_of_a_state_that_a_restart_made_again_and_right_is_not_held_against_it() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    backup.own_checkpoint(1, 'x');
    backup.own_checkpoint(1, 'k');
    backup.checkpoint(0, 1, 'k');
    assert_eq!(backup.checkpoint(2, 1, 'k'), ["stable s1 k by [0, 1, 2]"]);
}

#[test]
fn a_replica_whose_execution_is_slow_is_told_as_well() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    for from in [0, 2, 3] {
        backup.checkpoint(from, 1, 'k');
    }
    assert_eq!(backup.pbft.stable(), SeqNo::new(1));
    assert_eq!(backup.own_checkpoint(1, 'x'), ["diverged s1 k ours x"]);
    assert_eq!(backup.own_checkpoint(1, 'k'), NOTHING);
}

#[test]
fn a_replica_that_lags_behind_a_stable_checkpoint_decides_what_is_under_way() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    backup.prepare(2, 1, 'a');
    backup.decide(2, 'b');
    for from in [0, 2] {
        backup.checkpoint(from, 2, 'k');
    }
    assert_eq!(backup.checkpoint(3, 2, 'k'), ["stable s2 k by [0, 2, 3]"]);
    backup.commit(0, 1, 'a');
    assert_eq!(backup.commit(2, 1, 'a'), ["decide s1 a", "decide s2 b"]);
    assert_eq!(backup.commit(3, 1, 'a'), ["refused r3 v0 s1 BelowWindow"]);
    assert_eq!(
        backup.proposal(WINDOW + 2, 'z').len(),
        2,
        "the window moved with the decisions"
    );
}

#[test]
fn a_replica_whose_window_the_stable_checkpoint_left_fell_behind() {
    let mut backup = Bench::new(4, 1);
    for from in [0, 2] {
        assert_eq!(backup.checkpoint(from, WINDOW + 1, 'k'), NOTHING);
    }
    assert_eq!(
        backup.checkpoint(3, WINDOW + 1, 'k'),
        ["stable s9 k by [0, 2, 3]", "fell behind s9"]
    );
    assert_eq!(backup.pbft.decided(), SeqNo::ZERO, "no decision is skipped");
}

#[test]
fn a_stable_checkpoint_is_believed_with_its_proof_alone_whoever_sends_it() {
    let mut backup = Bench::new(4, 1);
    let proof = |seq, letter| [0, 2, 3].map(|signer| signed_by(signer, seq, letter));
    let refused = |seq: u64| vec![format!("refused r3 v0 s{seq} BadSignature")];
    assert_eq!(backup.stable(3, &[]), NOTHING);
    assert_eq!(backup.stable(3, &proof(1, 'k')[..2]), refused(1));
    let [one, two, _] = proof(1, 'k');
    assert_eq!(
        backup.stable(3, &[one, two, two]),
        refused(1),
        "signers count, not signatures"
    );
    assert_eq!(backup.stable(3, &[one, two, signed_by(3, 1, 'l')]), refused(1));
    let forged = SignedCheckpoint { signer: 3, ..two };
    assert_eq!(backup.stable(3, &[one, two, forged]), refused(1));
    let padded: Vec<_> = proof(1, 'k').into_iter().chain([forged, forged]).collect();
    assert_eq!(backup.stable(3, &padded), refused(1), "nothing rides on a proof");
    let first = backup.stable(3, &proof(1, 'k'));
    assert_eq!(first, ["stable s1 k by [0, 2, 3]"]);
    assert_eq!(backup.stable(3, &proof(1, 'k')), ["refused r3 v0 s1 BelowWindow"]);
    let far = backup.stable(3, &proof(WINDOW + 2, 'm'));
    assert_eq!(far, ["stable s10 m by [0, 2, 3]", "fell behind s10"]);
}

#[test]
fn checkpoints_must_be_signed_by_their_sender() {
    let mut backup = Bench::new(4, 1);
    let mut send = |from: u16, signed: SignedCheckpoint| {
        backup
            .pbft
            .on_checkpoint(Time::START, NodeId::new(from), signed, &mut backup.out);
        backup.told()
    };
    assert_eq!(send(2, signed_by(3, 1, 'k')), ["refused r2 v0 s1 BadSignature"]);
    let forged = SignedCheckpoint {
        signer: 2,
        ..signed_by(3, 1, 'k')
    };
    assert_eq!(send(2, forged), ["refused r2 v0 s1 BadSignature"]);
    let moved = SignedCheckpoint {
        seq: 2,
        ..signed_by(2, 1, 'k')
    };
    assert_eq!(send(2, moved), ["refused r2 v0 s2 BadSignature"]);
    assert_eq!(send(9, signed_by(2, 1, 'k')), ["refused r9 v0 s1 BadSignature"]);
}

#[test]
fn one_signer_counts_once_and_is_held_to_its_first_claim() {
    let mut backup = Bench::new(4, 1);
    backup.checkpoint(2, 1, 'k');
    assert_eq!(backup.checkpoint(2, 1, 'k'), ["refused r2 v0 s1 Duplicate"]);
    assert_eq!(backup.checkpoint(2, 1, 'x'), ["refused r2 v0 s1 ConflictingVote"]);
}

#[test]
fn checkpoints_at_or_below_the_stable_one_are_refused() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    backup.decide(2, 'b');
    for from in [0, 2, 3] {
        backup.checkpoint(from, 2, 'k');
    }
    assert_eq!(backup.checkpoint(0, 1, 'k'), ["refused r0 v0 s1 BelowWindow"]);
    assert_eq!(backup.checkpoint(0, 2, 'k'), ["refused r0 v0 s2 BelowWindow"]);
}

#[test]
fn a_signer_of_many_checkpoints_takes_the_place_of_its_own_only() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    for seq in 1_000..1_100 {
        assert_eq!(backup.checkpoint(2, seq, 'x'), NOTHING);
    }
    assert_eq!(backup.pbft.checkpoints.kept(), 4);
    backup.own_checkpoint(1, 'k');
    backup.checkpoint(0, 1, 'k');
    assert_eq!(backup.checkpoint(3, 1, 'k'), ["stable s1 k by [0, 1, 3]"]);
}

#[test]
fn of_what_proves_a_stable_checkpoint_exactly_a_quorum_is_kept_in_order_of_signers() {
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|node| signed_by(node, 2, 'k'));
    let invalid = SignedCheckpoint {
        signature: [5; 64],
        ..second
    };
    let of_others = SignedCheckpoint { signer: 3, ..first };
    let stranger = SignedCheckpoint { signer: 999, ..first };
    let other = signed_by(1, 2, 'x');
    let signers = |proof: &[SignedCheckpoint]| {
        let mut backup = Bench::new(4, 1);
        backup.stable(0, proof);
        let evidence = backup.pbft.evidence();
        let kept: Vec<u16> = evidence.proof.iter().map(|signed| signed.signer).collect();
        let is_stable = backup.pbft.stable() == SeqNo::new(2);
        assert_eq!(is_stable, !kept.is_empty());
        kept
    };
    assert_eq!(signers(&[third, first, second]), [0, 1, 2]);
    assert_eq!(
        signers(&[fourth, third, second, first]),
        [1, 2, 3],
        "a quorum is enough"
    );
    for extra in [invalid, first, of_others, stranger, other] {
        assert_eq!(signers(&[first, extra, third, fourth]), [0, 2, 3], "{extra:?}");
    }
    assert_eq!(signers(&[first, invalid, third]), [0_u16; 0], "too few");
    assert_eq!(signers(&[first, first, third]), [0_u16; 0], "one twice");
    let long = [first, second, third, fourth, first];
    assert_eq!(signers(&long), [0_u16; 0], "more than there are replicas");
}

#[test]
fn what_an_earlier_life_signed_of_a_state_that_it_lost_is_not_held_against_a_later_one() {
    let mut backup = Bench::new(4, 1);
    for seq in 1..=2 {
        backup.decide(seq, 'a');
    }
    // Two restarts ago the state was wrong; the last life made it again, right, and signed that.
    for letter in ['w', 'k'] {
        let signed = signed_by(1, 2, letter);
        backup.pbft.restore(&Record::Checkpoint(signed)).unwrap();
    }
    assert_eq!(backup.own_checkpoint(2, 'k'), NOTHING, "it was signed before");
    backup.checkpoint(0, 2, 'k');
    assert_eq!(backup.checkpoint(3, 2, 'k'), ["stable s2 k by [0, 1, 3]"]);
}
