//! From which states reads beside the order are answered.

use super::*;
use crate::smr::crypto::Chain;

/// What the log shows, and from where reads are answered then.
fn restarted(snapshot: Option<u64>, records: &[Record]) -> Bench {
    let mut bench = Bench::new();
    if let Some(seq) = snapshot {
        bench.replica.restore_base(SeqNo::new(seq), Chain::START);
    }
    for record in records {
        bench.replica.restore(record).expect("the records fit");
    }
    bench
        .replica
        .resume(Time::START, Lsn::new(records.len() as u64), &[]);
    bench
}

fn batch(seq: u64) -> Arc<Proposal> {
    let batch = Batch {
        digest: Digest::from_bytes([seq as u8; 32]),
        ..Batch::null()
    };
    let batch = Arc::new(batch);
    Arc::new(Proposal {
        batch,
        ..(*decision(seq)).clone()
    })
}

#[test]
fn a_replica_that_never_ran_answers_reads_at_once() {
    assert_eq!(Bench::new().replica.reads_from(), Some(SeqNo::ZERO));
}

#[test]
fn a_restart_answers_reads_after_the_last_place_that_its_log_shows_decided_or_not() {
    let reads_from =
        |snapshot, records: &[Record]| restarted(snapshot, records).replica.reads_from().map(SeqNo::get);
    assert_eq!(reads_from(Some(20), &[]), Some(20));
    let accepted = Record::Proposal(batch(23));
    let fetched = Record::Batch(batch(24));
    assert_eq!(reads_from(Some(20), std::slice::from_ref(&accepted)), Some(23));
    assert_eq!(reads_from(Some(20), &[fetched, accepted]), Some(24));
    // What the snapshot has already.
    assert_eq!(reads_from(Some(20), &[Record::Batch(batch(12))]), Some(20));
}

#[test]
fn a_restart_that_waits_for_a_state_answers_no_reads_before_it_has_come() {
    let jump = Record::Jump {
        seq: SeqNo::new(100),
        chain: Chain::START,
    };
    assert_eq!(restarted(Some(20), &[jump]).replica.reads_from(), None);
    let mut bench = Bench::new();
    bench.replica.restore_without_snapshot(SeqNo::new(20));
    assert_eq!(bench.replica.reads_from(), None);
}

#[test]
fn execution_is_told_when_reads_are_not_answered_and_when_they_are_again() {
    let mut bench = Bench::new();
    bench.decide(1..=7);
    assert!(bench.reads.is_empty(), "nothing changed");
    let target = checkpoint(100);
    bench.fall_behind(105);
    bench.offer(1, &target);
    bench.offer(2, &target);
    bench.wait_ms(60);
    bench.serve(&target);
    assert!(bench.told().contains(&"installed 100".to_string()));
    assert_eq!(bench.reads, [None, Some(7)]);
}

#[test]
fn a_state_is_installed_once_the_log_says_from_where_it_goes_on() {
    let mut bench = Bench::new();
    let target = checkpoint(100);
    bench.fall_behind(105);
    bench.is_slow = true;
    bench.offer(1, &target);
    bench.offer(2, &target);
    bench.wait_ms(60);
    bench.serve(&target);
    bench.wait_ms(60);
    assert!(!bench.told().contains(&"installed 100".to_string()));
    assert_eq!(bench.reads, [None]);
    bench.catch_up();
    assert!(bench.told().contains(&"installed 100".to_string()));
    assert_eq!(bench.reads, [None, Some(0)]);
}

#[test]
fn an_older_state_in_the_place_of_a_wrong_one_answers_once_it_has_executed_as_much() {
    let mut bench = Bench::new();
    bench.decide(1..=20);
    bench.sign(checkpoint(20).claim);
    bench.wrong_at = Some(25);
    bench.decide(21..=33);
    bench.sign(checkpoint(30).claim);
    assert!(bench.told().contains(&"diverged 30".to_string()));
    assert_eq!(bench.reads, [None]);
    let right = checkpoint(30);
    bench.offer(1, &right);
    bench.offer(2, &right);
    bench.wait_ms(60);
    bench.is_busy = true;
    bench.serve(&right);
    assert!(bench.told().contains(&"installed 30".to_string()));
    assert_eq!(bench.executor.executed(), SeqNo::new(30));
    assert_eq!(bench.reads, [None, Some(33)]);
}
