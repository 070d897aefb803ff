//! Leaving views and beginning them (§4.4).

use super::*;
use crate::smr::messages::SlotDigest;

const BEGINNING: CheckpointClaim = CheckpointClaim {
    seq: SeqNo::ZERO,
    digest: Digest::ZERO,
};

fn placed(seq: u64, letter: char, view: u64) -> SlotDigest {
    SlotDigest::new(SeqNo::new(seq), &chosen(letter), View::new(view))
}

#[test]
fn a_replica_carries_what_it_prepared_and_pre_prepared() {
    let mut backup = Bench::new(4, 1);
    backup.proposal(1, 'a');
    backup.prepare(2, 1, 'a');
    backup.proposal(2, 'b');
    backup.proposal_with(0, (0, 3), 'c', false);
    let evidence = backup.pbft.leave_view(View::new(1));
    assert_eq!(evidence.stable, BEGINNING);
    assert_eq!(evidence.prepared, [placed(1, 'a', 0)]);
    assert_eq!(
        evidence.pre_prepared,
        [placed(1, 'a', 0), placed(2, 'b', 0)],
        "what was not accepted is not carried"
    );
}

#[test]
fn what_lies_below_the_stable_checkpoint_is_not_carried() {
    let mut backup = Bench::new(4, 1);
    backup.decide(1, 'a');
    backup.decide(2, 'b');
    backup.own_checkpoint(1, 'k');
    backup.checkpoint(0, 1, 'k');
    backup.checkpoint(2, 1, 'k');
    let evidence = backup.pbft.leave_view(View::new(1));
    assert_eq!(evidence.stable, claim(1, 'k'));
    assert_eq!(evidence.proof.len(), 3);
    assert_eq!(evidence.prepared, [placed(2, 'b', 0)]);
    assert_eq!(evidence.pre_prepared, [placed(2, 'b', 0)]);
}

#[test]
fn a_replica_that_left_its_view_votes_no_more_and_keeps_what_is_for_the_next() {
    let mut backup = Bench::new(4, 2);
    backup.proposal(1, 'a');
    let _ = backup.pbft.leave_view(View::new(1));
    assert_eq!(backup.prepare(1, 1, 'a'), ["refused r1 v0 s1 OldView"]);
    assert_eq!(backup.proposal(2, 'b'), ["refused r0 v0 s2 OldView"]);
    assert_eq!(backup.proposal_with(1, (1, 1), 'c', true), NOTHING);
    assert_eq!(backup.vote(3, vote_for(Phase::Prepare, 1, 1, 'c')), NOTHING);
    assert_eq!(
        backup.enter(1, BEGINNING, ""),
        [
            "log 1: proposal v1 s1 c",
            "vote prepare v1 s1 c after 1",
            "log 2: commit v1 s1 c",
            "vote commit v1 s1 c after 2",
        ]
    );
}

#[test]
fn a_leader_that_left_its_view_has_no_free_slot() {
    let mut leader = Bench::new(4, 0);
    let _ = leader.pbft.leave_view(View::new(4));
    assert_eq!(leader.pbft.free_slots(), 0);
    leader.enter(4, BEGINNING, "");
    assert_eq!(leader.pbft.free_slots(), PIPELINE);
}

#[test]
fn a_backup_prepares_what_the_view_begins_with() {
    let mut backup = Bench::new(4, 2);
    backup.proposal(1, 'a');
    assert_eq!(
        backup.enter(1, BEGINNING, "a0"),
        [
            "log 1: prepare v1 s1 a",
            "vote prepare v1 s1 a after 1",
            "log 2: prepare v1 s2 0",
            "vote prepare v1 s2 0 after 2",
        ]
    );
    let mut told = Vec::new();
    for seq in [1, 2] {
        let letter = if seq == 1 { 'a' } else { '\0' };
        told.extend(backup.vote(3, vote_for(Phase::Prepare, 1, seq, letter)));
        told.extend(backup.vote(1, vote_for(Phase::Commit, 1, seq, letter)));
        told.extend(backup.vote(3, vote_for(Phase::Commit, 1, seq, letter)));
    }
    assert_eq!(
        told,
        [
            "log 3: commit v1 s1 a",
            "vote commit v1 s1 a after 3",
            "decide s1 a",
            "log 4: commit v1 s2 0",
            "vote commit v1 s2 0 after 4",
            "decide s2 0",
        ]
    );
}

#[test]
fn the_new_leader_counts_what_the_view_begins_with_as_its_proposals() {
    let mut leader = Bench::new(4, 1);
    leader.proposal(1, 'a');
    assert_eq!(
        leader.enter(1, BEGINNING, "a"),
        NOTHING,
        "its new-view message was its word"
    );
    assert_eq!(
        leader.propose('b'),
        ["log 1: proposal v1 s2 b", "send all after 1"]
    );
    leader.vote(2, vote_for(Phase::Prepare, 1, 1, 'a'));
    assert_eq!(
        leader.vote(3, vote_for(Phase::Prepare, 1, 1, 'a')),
        ["log 2: commit v1 s1 a", "vote commit v1 s1 a after 2"]
    );
}

#[test]
fn what_a_leader_announced_is_carried_whether_it_has_the_batches_or_not() {
    let mut leader = Bench::new(4, 1);
    leader.enter(1, BEGINNING, "a0");
    let announced = [placed(1, 'a', 1), placed(2, '0', 1)];
    assert_eq!(leader.pbft.leave_view(View::new(2)).pre_prepared, announced);
    // A backup answers for what it has.
    let mut backup = Bench::new(4, 2);
    backup.enter(1, BEGINNING, "a0");
    let carried = backup.pbft.leave_view(View::new(2)).pre_prepared;
    assert_eq!(carried, announced[1..]);
    // Places that its own window does not reach.
    let mut behind = Bench::new(4, 1);
    behind.enter(1, claim(2, 'k'), "00000000");
    let carried = behind.pbft.leave_view(View::new(2)).pre_prepared;
    let all: Vec<SlotDigest> = (3..=10).map(|seq| placed(seq, '0', 1)).collect();
    assert_eq!(carried, all);
    // A later checkpoint covers some of them, and it has not decided one.
    for peer in [0, 2, 3] {
        behind.checkpoint(peer, 9, 'm');
    }
    let evidence = behind.pbft.leave_view(View::new(3));
    assert_eq!(evidence.stable, claim(9, 'm'));
    assert_eq!(evidence.pre_prepared, [placed(10, '0', 1)]);
}

#[test]
fn what_a_leader_announced_is_carried_after_a_restart() {
    let mut leader = Bench::new(4, 1);
    leader.pbft.restore(&Record::View(View::new(1))).unwrap();
    leader.pbft.restore_view(&start(1, BEGINNING, "ab"));
    leader.pbft.restore(&Record::View(View::new(2))).unwrap();
    let carried = leader.pbft.evidence().pre_prepared;
    assert_eq!(carried, [placed(1, 'a', 1), placed(2, 'b', 1)]);
}

/// What is left of a log that was cut after the view a leader had begun: the base records of then.
fn restored_from_base(before: &Bench, view: u64) -> Bench {
    let mut again = Bench::new(4, 1);
    let base = before.pbft.base_records();
    let stables = base
        .iter()
        .filter(|record| matches!(record, Record::Stable { .. }));
    stables.for_each(|record| again.pbft.restore(record).unwrap());
    again.pbft.restore(&Record::View(View::new(view))).unwrap();
    base.iter().for_each(|record| again.pbft.restore(record).unwrap());
    again
}

#[test]
fn what_a_leader_announced_is_carried_after_its_log_was_cut_and_it_started_again() {
    let mut leader = Bench::new(4, 1);
    // It has the first batch, of an earlier view, and lacks the second.
    leader.proposal(1, 'a');
    leader.enter(1, BEGINNING, "ab0");
    let announced = [placed(1, 'a', 1), placed(2, 'b', 1), placed(3, '0', 1)];
    assert_eq!(leader.pbft.leave_view(View::new(2)).pre_prepared, announced);
    let mut again = restored_from_base(&leader, 2);
    assert_eq!(again.pbft.evidence().pre_prepared, announced);
    // Another one's view, in which nothing is said of these places, makes no difference.
    again.enter(2, BEGINNING, "");
    let carried = again.pbft.leave_view(View::new(3)).pre_prepared;
    assert_eq!(carried, announced);
    assert_eq!(
        restored_from_base(&leader, 3).pbft.evidence().pre_prepared,
        announced
    );
    // Nor does a place that its own window did not reach.
    let mut behind = Bench::new(4, 1);
    behind.enter(1, claim(2, 'k'), "00000000");
    let all: Vec<SlotDigest> = (3..=10).map(|seq| placed(seq, '0', 1)).collect();
    behind.enter(2, claim(2, 'k'), "");
    assert_eq!(behind.pbft.leave_view(View::new(3)).pre_prepared, all);
    let again = restored_from_base(&behind, 3);
    assert_eq!(again.pbft.evidence().pre_prepared, all);
}

#[test]
fn what_records_about_places_say_is_not_written_again_before_a_cut() {
    let mut backup = Bench::new(4, 2);
    backup.proposal(1, 'a');
    backup.enter(1, BEGINNING, "a0");
    assert!(backup.pbft.base_records().is_empty());
    let mut leader = Bench::new(4, 1);
    leader.enter(1, BEGINNING, "");
    leader.propose('b');
    assert!(leader.pbft.base_records().is_empty());
}

#[test]
fn what_was_decided_is_agreed_on_again_and_decided_once() {
    let mut backup = Bench::new(4, 2);
    backup.proposal(1, 'a');
    backup.prepare(1, 1, 'a');
    backup.commit(0, 1, 'a');
    assert_eq!(backup.commit(1, 1, 'a'), ["decide s1 a"]);
    assert_eq!(backup.enter(1, BEGINNING, "a").len(), 2);
    backup.vote(3, vote_for(Phase::Prepare, 1, 1, 'a'));
    backup.vote(1, vote_for(Phase::Commit, 1, 1, 'a'));
    assert_eq!(backup.vote(3, vote_for(Phase::Commit, 1, 1, 'a')), NOTHING);
}

#[test]
fn votes_of_the_last_view_count_no_more() {
    let mut backup = Bench::new(4, 2);
    backup.proposal(1, 'a');
    backup.commit(0, 1, 'a');
    backup.commit(1, 1, 'a');
    backup.enter(1, BEGINNING, "a");
    assert_eq!(backup.vote(3, vote_for(Phase::Commit, 1, 1, 'a')), NOTHING);
}

#[test]
fn a_batch_the_view_begins_with_and_we_lack_is_fetched_from_f_plus_one() {
    let mut backup = Bench::new(4, 2);
    assert_eq!(
        backup.enter(1, BEGINNING, "a"),
        ["send fetch s1a r0 now", "send fetch s1a r1 now"]
    );
    assert_eq!(
        backup.batch(0, 1, 'x'),
        ["refused r0 v0 s1 Duplicate"],
        "nobody asked for it"
    );
    assert_eq!(
        backup.batch(0, 1, 'a'),
        [
            "log 0: batch s1 a",
            "log 1: prepare v1 s1 a",
            "vote prepare v1 s1 a after 1",
        ]
    );
    assert_eq!(backup.batch(1, 1, 'a'), ["refused r1 v0 s1 Duplicate"]);
}

#[test]
fn nothing_fresh_is_proposed_where_the_view_began() {
    let mut backup = Bench::new(4, 2);
    backup.enter(1, claim(2, 'k'), "a0");
    assert_eq!(
        backup.proposal_with(1, (1, 1), 'x', true),
        ["refused r1 v1 s1 BelowWindow"],
        "the checkpoint covers it"
    );
    assert_eq!(
        backup.proposal_with(1, (1, 3), 'x', true),
        ["refused r1 v1 s3 Equivocation"]
    );
    assert_eq!(
        backup.proposal_with(1, (1, 3), 'a', true),
        ["refused r1 v1 s3 Duplicate"]
    );
    assert_eq!(backup.proposal_with(1, (1, 5), 'x', true).len(), 2);
}

#[test]
fn a_view_that_begins_after_a_later_checkpoint_brings_it_along() {
    let mut backup = Bench::new(4, 2);
    backup.decide(1, 'a');
    let told = backup.enter(1, claim(1, 'k'), "");
    assert_eq!(told, ["stable s1 k by []"]);
    assert_eq!(backup.pbft.stable(), SeqNo::new(1));
}

#[test]
fn batches_beyond_a_lagging_window_are_placed_when_it_has_moved() {
    let mut backup = Bench::new(4, 2);
    for seq in 1..=2 {
        backup.proposal(seq, 'a');
        backup.prepare(1, seq, 'a');
    }
    let told = backup.enter(1, claim(2, 'k'), "00000000");
    assert_eq!(told[0], "stable s2 k by []");
    assert_eq!(told.len(), 1 + 2 * 6, "s3 to s8 lie inside (0, 8]");
    let told = backup.decisions(1, &[(1, 'a'), (2, 'a')]);
    assert_eq!(told, NOTHING);
    let told = backup.decisions(3, &[(1, 'a'), (2, 'a')]);
    assert_eq!(&told[..2], ["decide s1 a", "decide s2 a"]);
    assert_eq!(told.len(), 2 + 2 * 2, "s9 and s10 are prepared now");
}

#[test]
fn pre_prepared_digests_of_one_place_are_bounded_and_the_prepared_one_stays() {
    let mut backup = Bench::new(4, 3);
    backup.proposal(1, 'a');
    backup.prepare(1, 1, 'a');
    for (view, letter) in (1..30).zip("bcdefghijklmnopqrstuvwxyzABCDEFG".chars()) {
        backup.enter(view, BEGINNING, "");
        backup.proposal_with((view % 4) as u16, (view, 1), letter, true);
    }
    let evidence = backup.pbft.leave_view(View::new(31));
    assert_eq!(evidence.prepared, [placed(1, 'a', 0)]);
    assert_eq!(evidence.pre_prepared.len(), slot::KEPT_PER_SLOT);
    assert!(evidence.pre_prepared.contains(&placed(1, 'a', 0)));
}
