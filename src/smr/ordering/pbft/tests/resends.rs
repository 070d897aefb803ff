//! Status, and what it brings.

use super::*;

fn status(decided: u64, slots: &[u8]) -> Status {
    Status {
        view: 0,
        active: true,
        stable: 0,
        decided,
        view_changes: Vec::new(),
        asks: true,
        slots: slots.to_vec(),
        disputed: Vec::new(),
        complaint: 0,
    }
}

/// Replica 1 after one decision, which a stable checkpoint covers.
fn with_stable_checkpoint() -> Bench {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    backup.own_checkpoint(1, 'k');
    backup.checkpoint(0, 1, 'k');
    backup.checkpoint(2, 1, 'k');
    backup
}

#[test]
fn a_replica_asks_when_it_decided_nothing_between_two_statuses() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    backup.status_due();
    assert!(
        !backup.pbft.standing().asks,
        "the first status compares with nothing"
    );
    backup.status_due();
    let standing = backup.pbft.standing();
    assert!(standing.asks);
    assert_eq!(
        standing.slots[..2],
        [1, 0],
        "it has a proposal for s1 and nothing else"
    );
    backup.prepare(2, 1, 'a');
    assert_eq!(backup.pbft.standing().slots[0], 1 | 2);
    backup.decide(1, 'a');
    backup.status_due();
    assert!(!backup.pbft.standing().asks);
}

#[test]
fn a_leader_sends_proposals_and_commits_again() {
    let mut leader = Bench::new(4, 0);
    leader.propose('a');
    leader.propose('b');
    leader.prepare(1, 1, 'a');
    leader.prepare(2, 1, 'a');
    assert_eq!(
        leader.status(3, 0, &status(0, &[0, 1])),
        ["send r3 after 2", "send [commit v0 s1 a] r3 after 2"]
    );
}

#[test]
fn a_backup_sends_votes_again() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    backup.prepare(2, 1, 'a');
    backup.proposal(2, 'b');
    assert_eq!(
        backup.status(3, 0, &status(0, &[1, 1, 0])),
        ["send [prepare v0 s1 a, commit v0 s1 a, prepare v0 s2 b] r3 after 2"]
    );
    assert_eq!(
        backup.status(2, 0, &status(0, &[1 | 2, 1 | 2])),
        ["send [commit v0 s1 a] r2 after 2"]
    );
}

#[test]
fn a_status_that_does_not_ask_is_not_answered_and_one_that_repeats_itself_neither() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    let quiet = Status {
        asks: false,
        ..status(0, &[])
    };
    assert_eq!(backup.status(3, 0, &quiet), NOTHING);
    assert_eq!(backup.status(3, 0, &status(0, &[])).len(), 1);
    assert_eq!(backup.status(3, 99, &status(0, &[])), NOTHING, "no amplifier");
    assert_eq!(backup.status(3, 100, &status(0, &[])).len(), 1);
}

#[test]
fn decisions_and_checkpoints_are_sent_to_a_peer_that_lacks_them() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    backup.decide(2, 'b');
    backup.own_checkpoint(1, 'k');
    assert_eq!(
        backup.status(3, 0, &status(0, &[0])),
        [
            "send r3 after 4",
            "send decisions s1a s2b r3 after 4",
            "send [prepare v0 s1 a, commit v0 s1 a] r3 after 4",
        ],
        "f+1 others may not have decided: the votes count as well"
    );
}

#[test]
fn a_stable_checkpoint_is_sent_with_its_whole_proof() {
    let mut backup = with_stable_checkpoint();
    let answer = backup.status(3, 0, &status(0, &[0]));
    assert_eq!(
        answer[0], "send stable by [0, 1, 2] r3 after 2",
        "others may be silent"
    );
    let knows = Status {
        stable: 1,
        ..status(1, &[])
    };
    assert_eq!(backup.status(3, 100, &knows), NOTHING);
}

#[test]
fn f_plus_one_equal_words_decide() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    assert_eq!(backup.decisions(2, &[(1, 'a')]), NOTHING);
    assert_eq!(
        backup.decisions(2, &[(1, 'a')]),
        NOTHING,
        "one replica is one word"
    );
    assert_eq!(
        backup.decisions(2, &[(1, 'x')]),
        ["refused r2 v0 s1 ConflictingVote"]
    );
    assert_eq!(backup.decisions(3, &[(1, 'a')]), ["decide s1 a"]);
}

#[test]
fn words_about_different_batches_do_not_add_up() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    backup.decisions(2, &[(1, 'a')]);
    assert_eq!(backup.decisions(3, &[(1, 'b')]), NOTHING);
    assert_eq!(backup.decisions(0, &[(1, 'b')]).len(), 2, "b is fetched");
}

#[test]
fn a_decision_whose_frames_we_lack_is_fetched_and_decided() {
    let mut backup = Bench::new(4, 1);
    backup.decisions(2, &[(1, 'a'), (2, 'b')]);
    assert_eq!(
        backup.decisions(3, &[(1, 'a'), (2, 'b')]),
        ["send fetch s1a s2b r3 now", "send fetch s1a s2b r0 now"]
    );
    assert_eq!(backup.batch(3, 2, 'b'), ["log 0: batch s2 b"]);
    assert_eq!(
        backup.batch(3, 1, 'a'),
        ["log 1: batch s1 a", "decide s1 a", "decide s2 b"]
    );
}

#[test]
fn a_quorum_of_commits_decides_what_the_leader_kept_from_us() {
    let mut backup = Bench::new(4, 1);
    for from in [0, 2, 3] {
        assert_eq!(backup.commit(from, 1, 'a'), NOTHING);
    }
    backup.status_due();
    assert_eq!(
        backup.status_due(),
        ["send fetch s1a r3 now", "send fetch s1a r0 now"]
    );
    assert_eq!(backup.batch(3, 1, 'a'), ["log 0: batch s1 a", "decide s1 a"]);
}

#[test]
fn a_leader_that_shows_us_another_batch_than_the_others_does_not_stop_us() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'x');
    for from in [0, 2, 3] {
        backup.commit(from, 1, 'a');
    }
    assert_eq!(backup.batch(3, 1, 'a'), ["log 1: batch s1 a", "decide s1 a"]);
}

#[test]
fn batches_are_sent_to_who_asks_for_them_decided_or_not() {
    let mut backup = with_stable_checkpoint();
    backup.proposal(2, 'b');
    let wanted = [(1, 'a'), (2, 'b'), (2, 'x'), (9, 'a')]
        .map(|(seq, letter)| BatchRef::new(SeqNo::new(seq), &digest(letter)));
    backup
        .pbft
        .on_fetch(Time::START, NodeId::new(3), &wanted, &mut backup.out);
    assert_eq!(
        backup.told(),
        ["send batch s1 a r3 now", "send batch s2 b r3 now"]
    );
    backup
        .pbft
        .on_fetch(Time::START, NodeId::new(3), &wanted, &mut backup.out);
    assert_eq!(backup.told(), NOTHING, "no amplifier");
}

#[test]
fn a_batch_decided_by_others_word_before_it_was_accepted_is_in_the_log_for_a_restart() {
    let mut backup = Bench::new(4, 1);
    // Its client's MACs do not convince us, and nobody prepared it yet.
    assert_eq!(backup.proposal_with(0, (0, 1), 'a', false), NOTHING);
    backup.decisions(2, &[(1, 'a')]);
    assert_eq!(
        backup.decisions(3, &[(1, 'a')]),
        ["log 0: batch s1 a", "decide s1 a"]
    );
}

#[test]
fn decisions_are_named_by_their_places_also_where_the_log_ended_before_the_checkpoint() {
    let mut backup = Bench::new(4, 1);
    let decision = |seq: u64, letter: char| {
        Arc::new(Proposal {
            view: View::ZERO,
            seq: SeqNo::new(seq),
            batch: batch(letter),
            message: bytes::Bytes::new(),
            authentic: true,
        })
    };
    // Two decisions are in the log, the snapshot has all up to the fourth, and the fifth is made now.
    for (seq, letter) in [(1, 'a'), (2, 'b'), (5, 'e')] {
        backup.pbft.resend.remember(decision(seq, letter));
    }
    backup.pbft.decided = SeqNo::new(5);
    let told = ["send decisions s5e r3 now"];
    assert_eq!(
        backup.status(3, 0, &status(0, &[])),
        told,
        "the fifth, not the third"
    );
    assert_eq!(backup.status(3, 200, &status(4, &[])), told);
}
