//! Pre-prepare, prepare, commit (§4.2), one rule per test.

use super::*;
use crate::smr::ordering::pbft::config::UNDECIDED_BYTES;

#[test]
fn a_leader_logs_its_proposal_before_sending_it() {
    let mut leader = Bench::new(4, 0);
    assert_eq!(
        leader.propose('a'),
        ["log 0: proposal v0 s1 a", "send all after 0"]
    );
}

#[test]
fn a_leader_commits_on_two_prepares_and_decides_on_two_commits() {
    let mut leader = Bench::new(4, 0);
    leader.propose('a');
    assert_eq!(leader.prepare(1, 1, 'a'), NOTHING);
    assert_eq!(
        leader.prepare(2, 1, 'a'),
        ["log 1: commit v0 s1 a", "vote commit v0 s1 a after 1"]
    );
    assert_eq!(leader.prepare(3, 1, 'a'), NOTHING);
    assert_eq!(leader.commit(1, 1, 'a'), NOTHING);
    assert_eq!(leader.commit(3, 1, 'a'), ["decide s1 a"]);
    assert_eq!(leader.commit(2, 1, 'a'), NOTHING);
}

#[test]
fn a_backup_prepares_a_proposal_once_it_is_logged() {
    let mut backup = Bench::new(4, 1);
    assert_eq!(
        backup.proposal(1, 'a'),
        ["log 0: proposal v0 s1 a", "vote prepare v0 s1 a after 0"]
    );
}

#[test]
fn a_backup_is_prepared_by_the_proposal_its_own_prepare_and_one_more() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    assert_eq!(
        backup.prepare(3, 1, 'a'),
        ["log 1: commit v0 s1 a", "vote commit v0 s1 a after 1"]
    );
    assert_eq!(backup.commit(0, 1, 'a'), NOTHING);
    assert_eq!(backup.commit(3, 1, 'a'), ["decide s1 a"]);
}

#[test]
fn votes_that_overtake_the_proposal_are_kept() {
    let mut backup = Bench::new(4, 1);
    for from in [2, 3] {
        assert_eq!(backup.prepare(from, 1, 'a'), NOTHING);
        assert_eq!(backup.commit(from, 1, 'a'), NOTHING);
    }
    assert_eq!(
        backup.proposal(1, 'a'),
        [
            "log 0: proposal v0 s1 a",
            "vote prepare v0 s1 a after 0",
            "log 1: commit v0 s1 a",
            "vote commit v0 s1 a after 1",
            "decide s1 a",
        ]
    );
}

#[test]
fn commits_alone_do_not_make_a_batch_prepared() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    backup.commit(0, 1, 'a');
    backup.commit(2, 1, 'a');
    assert_eq!(
        backup.prepare(2, 1, 'a'),
        [
            "log 1: commit v0 s1 a",
            "vote commit v0 s1 a after 1",
            "decide s1 a"
        ]
    );
}

#[test]
fn votes_for_another_digest_do_not_count() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    assert_eq!(backup.prepare(2, 1, 'b'), NOTHING);
    assert_eq!(backup.commit(2, 1, 'b'), NOTHING);
    assert_eq!(backup.commit(3, 1, 'b'), NOTHING);
    assert_eq!(
        backup.prepare(3, 1, 'a'),
        ["log 1: commit v0 s1 a", "vote commit v0 s1 a after 1"]
    );
}

#[test]
fn one_replica_counts_once_however_often_it_votes() {
    let mut leader = Bench::new(4, 0);
    leader.propose('a');
    leader.prepare(1, 1, 'a');
    for _ in 0..3 {
        assert_eq!(leader.prepare(1, 1, 'a'), ["refused r1 v0 s1 Duplicate"]);
    }
    leader.prepare(2, 1, 'a');
    leader.commit(1, 1, 'a');
    assert_eq!(leader.commit(1, 1, 'a'), ["refused r1 v0 s1 Duplicate"]);
}

#[test]
fn a_second_different_vote_is_refused_and_the_first_stands() {
    let mut backup = Bench::new(4, 1);
    backup.prepare(2, 1, 'b');
    assert_eq!(backup.prepare(2, 1, 'a'), ["refused r2 v0 s1 ConflictingVote"]);
    backup.commit(2, 1, 'a');
    assert_eq!(backup.commit(2, 1, 'b'), ["refused r2 v0 s1 ConflictingVote"]);
    assert_eq!(backup.proposal(1, 'a').len(), 2, "one prepare is not enough");
}

#[test]
fn a_vote_under_our_own_name_is_refused() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    assert_eq!(backup.prepare(1, 1, 'a'), ["refused r1 v0 s1 Duplicate"]);
    assert_eq!(backup.commit(1, 1, 'a'), ["refused r1 v0 s1 Duplicate"]);
}

#[test]
fn a_prepare_of_the_leader_is_refused() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    assert_eq!(backup.prepare(0, 1, 'a'), ["refused r0 v0 s1 LeaderPrepare"]);
}

#[test]
fn only_the_leader_proposes() {
    let mut backup = Bench::new(4, 1);
    assert_eq!(
        backup.proposal_with(2, (0, 1), 'a', true),
        ["refused r2 v0 s1 NotLeader"]
    );
    let mut leader = Bench::new(4, 0);
    assert_eq!(
        leader.proposal_with(0, (0, 1), 'a', true),
        ["refused r0 v0 s1 NotLeader"]
    );
    assert_eq!(backup.pbft.free_slots(), 0);
}

#[test]
fn a_second_proposal_for_one_place_is_equivocation_and_the_same_one_a_duplicate() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    assert_eq!(backup.proposal(1, 'a'), ["refused r0 v0 s1 Duplicate"]);
    assert_eq!(backup.proposal(1, 'b'), ["refused r0 v0 s1 Equivocation"]);
}

#[test]
fn messages_of_a_view_to_come_are_kept_within_bounds() {
    let mut backup = Bench::new(4, 1);
    for seq in 1..=PIPELINE as u64 {
        assert_eq!(backup.proposal_with(2, (2, seq), 'a', true), NOTHING);
    }
    assert_eq!(
        backup.proposal_with(2, (2, 4), 'a', true),
        ["refused r2 v2 s4 FutureView"]
    );
    for seq in 1..=2 * WINDOW {
        assert_eq!(backup.vote(3, vote_for(Phase::Commit, 9, seq, 'a')), NOTHING);
    }
    assert_eq!(
        backup.vote(3, vote_for(Phase::Commit, 9, 1, 'a')),
        ["refused r3 v9 s1 FutureView"]
    );
    assert_eq!(
        backup.vote(3, vote_for(Phase::Commit, 8, 1, 'a')),
        ["refused r3 v8 s1 FutureView"],
        "the sender has left view 8"
    );
    assert_eq!(backup.vote(3, vote_for(Phase::Commit, 10, 1, 'a')), NOTHING);
}

#[test]
fn only_the_leader_of_a_view_to_come_may_propose_in_it() {
    let mut backup = Bench::new(4, 1);
    assert_eq!(
        backup.proposal_with(3, (2, 1), 'a', true),
        ["refused r3 v2 s1 NotLeader"]
    );
}

#[test]
fn messages_outside_the_window_are_refused() {
    let mut backup = Bench::new(4, 1);
    assert_eq!(backup.proposal(0, 'a'), ["refused r0 v0 s0 BelowWindow"]);
    assert_eq!(backup.prepare(2, 0, 'a'), ["refused r2 v0 s0 BelowWindow"]);
    let beyond = backup.proposal(2 * WINDOW + 1, 'a');
    assert_eq!(
        beyond,
        ["refused r0 v0 s17 AboveWindow"],
        "no correct leader is a window ahead of a quorum"
    );
    assert_eq!(backup.commit(2, u64::MAX, 'a').len(), 1);
    assert_eq!(
        backup.proposal(WINDOW, 'a').len(),
        2,
        "the high watermark itself is inside"
    );
}

#[test]
fn a_batch_we_cannot_authenticate_needs_f_others_beside_its_leader() {
    let mut backup = Bench::new(7, 1);
    assert_eq!(
        backup.proposal_with(0, (0, 1), 'a', false),
        NOTHING,
        "the leader may be the client's accomplice"
    );
    assert_eq!(backup.prepare(2, 1, 'a'), NOTHING, "and one more");
    assert_eq!(
        backup.prepare(3, 1, 'a'),
        ["log 0: proposal v0 s1 a", "vote prepare v0 s1 a after 0"]
    );
    let mut backup = Bench::new(4, 1);
    assert_eq!(backup.proposal_with(0, (0, 1), 'a', false), NOTHING);
    assert_eq!(
        backup.prepare(2, 1, 'a'),
        [
            "log 0: proposal v0 s1 a",
            "vote prepare v0 s1 a after 0",
            "log 1: commit v0 s1 a",
            "vote commit v0 s1 a after 1",
        ]
    );
}

#[test]
fn prepares_for_another_batch_vouch_for_nothing() {
    let mut backup = Bench::new(7, 1);
    backup.proposal_with(0, (0, 1), 'a', false);
    backup.prepare(2, 1, 'b');
    backup.prepare(3, 1, 'b');
    assert_eq!(backup.prepare(4, 1, 'a'), NOTHING);
    assert_eq!(
        backup.prepare(5, 1, 'a'),
        ["log 0: proposal v0 s1 a", "vote prepare v0 s1 a after 0"]
    );
}

#[test]
fn instances_that_commit_out_of_order_are_decided_in_order() {
    let mut backup = Bench::new(4, 1);
    for (seq, letter) in [(1, 'a'), (2, 'b'), (3, 'c')] {
        backup.proposal(seq, letter);
        backup.prepare(2, seq, letter);
        backup.commit(2, seq, letter);
    }
    assert_eq!(backup.commit(3, 3, 'c'), NOTHING);
    assert_eq!(backup.commit(3, 2, 'b'), NOTHING);
    assert_eq!(
        backup.commit(3, 1, 'a'),
        ["decide s1 a", "decide s2 b", "decide s3 c"]
    );
    assert_eq!(backup.pbft.decided(), SeqNo::new(3));
}

#[test]
fn a_leader_has_as_many_proposals_under_way_as_its_pipeline_allows() {
    let mut leader = Bench::new(4, 0);
    for (k, letter) in ['a', 'b', 'c'].into_iter().enumerate() {
        assert_eq!(leader.pbft.free_slots(), PIPELINE - k);
        leader.propose(letter);
    }
    assert_eq!(leader.pbft.free_slots(), 0);
    for (seq, letter) in [(2, 'b'), (1, 'a')] {
        leader.prepare(1, seq, letter);
        leader.prepare(2, seq, letter);
        leader.commit(1, seq, letter);
        leader.commit(2, seq, letter);
    }
    assert_eq!(leader.pbft.free_slots(), 2, "two of three are decided");
}

#[test]
fn a_leader_stops_at_the_high_watermark() {
    let mut leader = Bench::new(1, 0);
    for _ in 0..WINDOW {
        assert!(leader.pbft.free_slots() > 0);
        leader.propose('a');
    }
    assert_eq!(leader.pbft.free_slots(), 0, "nothing is stable yet");
    leader.own_checkpoint(5, 'k');
    assert_eq!(leader.pbft.free_slots(), PIPELINE);
}

#[test]
#[should_panic(expected = "only a leader with a free slot proposes")]
fn proposing_without_a_free_slot_is_a_bug() {
    Bench::new(4, 1).propose('a');
}

#[test]
fn a_single_replica_decides_alone() {
    let mut only = Bench::new(1, 0);
    assert_eq!(
        only.propose('a'),
        [
            "log 0: proposal v0 s1 a",
            "send all after 0",
            "log 1: commit v0 s1 a",
            "vote commit v0 s1 a after 1",
            "decide s1 a",
        ]
    );
}

#[test]
fn seven_replicas_prepare_with_four_and_commit_with_five() {
    let mut backup = Bench::new(7, 3);
    backup.proposal(1, 'a');
    backup.prepare(1, 1, 'a');
    assert_eq!(backup.prepare(2, 1, 'a'), NOTHING);
    assert_eq!(backup.prepare(4, 1, 'a').len(), 2, "own, 1, 2 and 4");
    for from in [0, 1, 2] {
        assert_eq!(backup.commit(from, 1, 'a'), NOTHING);
    }
    assert_eq!(backup.commit(6, 1, 'a'), ["decide s1 a"]);
}

#[test]
fn a_leader_that_proposes_for_all_places_but_the_next_is_kept_within_its_bytes() {
    let mut backup = Bench::new(4, 1);
    backup.pbft.context.undecided_bytes_max = 3 * UNDECIDED_BYTES;
    for seq in 2..=4 {
        assert_eq!(backup.proposal(seq, 'a').len(), 2);
    }
    assert_eq!(backup.proposal(5, 'a'), ["refused r0 v0 s5 OverBudget"]);
    backup.decide(1, 'a');
    assert_eq!(
        backup.pbft.decided(),
        SeqNo::new(1),
        "the next place is always taken"
    );
    assert_eq!(backup.proposal(5, 'a'), ["refused r0 v0 s5 OverBudget"]);
    backup.decide(2, 'a');
    assert_eq!(backup.proposal(5, 'a').len(), 2, "there is room again");
    // Another view counts for itself.
    backup.enter(1, claim(0, '0'), "");
    assert_eq!(backup.pbft.undecided_bytes, 0);
}

#[test]
fn a_correct_leader_keeps_to_half_of_the_bytes_that_others_take() {
    let mut leader = Bench::new(4, 0);
    leader.pbft.context.undecided_bytes_max = 3 * UNDECIDED_BYTES;
    leader.propose('a');
    assert!(leader.pbft.free_slots() > 0);
    leader.propose('b');
    assert_eq!(leader.pbft.free_slots(), 0);
    for node in [1, 2] {
        leader.prepare(node, 1, 'a');
        leader.commit(node, 1, 'a');
    }
    assert!(leader.pbft.free_slots() > 0);
}

#[test]
fn a_proposal_from_another_time_is_refused_unless_others_decided_it() {
    let at = |seconds: u64| UnixTime::EPOCH.after(Duration::from_secs(seconds));
    let mut backup = Bench::new(4, 1);
    backup.pbft.on_wall_clock(Time::START, at(1000));
    let refused = |seq| [format!("refused r0 v0 s{seq} ClockOutOfBounds")];
    for seconds in [0, 989, 1011] {
        assert_eq!(backup.proposal_at(1, 'a', at(seconds)), refused(1));
    }
    assert_eq!(
        backup.proposal_at(1, 'a', at(1010)),
        ["log 0: proposal v0 s1 a", "vote prepare v0 s1 a after 0"]
    );
    assert_eq!(backup.pbft.next_time(Time::START), at(1010));
    for from in [0, 2, 3] {
        assert_eq!(backup.commit(from, 2, 'b'), NOTHING);
    }
    assert_eq!(backup.proposal_at(2, 'c', at(5000)), refused(2));
    let taken = backup.proposal_at(2, 'b', at(5000));
    assert_eq!(taken, ["log 1: proposal v0 s2 b", "vote prepare v0 s2 b after 1"]);
}

#[test]
fn a_leader_that_others_have_overtaken_proposes_within_its_window() {
    let mut leader = Bench::new(4, 0);
    let window = leader.pbft.context.window;
    let claim = CheckpointClaim {
        seq: SeqNo::new(10 * window),
        digest: digest('s'),
    };
    let none = [];
    leader
        .pbft
        .jump(Time::START, claim.seq, claim, &none, &mut leader.out);
    assert!(leader.pbft.free_slots() > 0);
    let mut seq = claim.seq;
    while seq < leader.pbft.high() {
        seq = seq.next();
        let decided = Proposal {
            view: View::ZERO,
            seq,
            batch: Arc::new(Batch::null()),
            message: bytes::Bytes::new(),
            authentic: true,
        };
        leader
            .pbft
            .on_transferred(Time::START, &Arc::new(decided), &mut leader.out);
    }
    assert_eq!(leader.pbft.decided(), leader.pbft.high());
    assert_eq!(leader.pbft.free_slots(), 0, "it would speak for what is beyond");
}
