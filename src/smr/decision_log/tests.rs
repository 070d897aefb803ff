use super::*;
use crate::smr::messages::Batch;
use crate::smr::types::{ClusterId, Lsn, View};

fn digester() -> Digester {
    Digester::new(ClusterId::from_bytes([7; 16]))
}

fn proposal(seq: u64, digest: u8) -> Arc<Proposal> {
    let batch = Batch {
        digest: Digest::from_bytes([digest; 32]),
        ..Batch::null()
    };
    Arc::new(Proposal {
        view: View::ZERO,
        seq: SeqNo::new(seq),
        batch: Arc::new(batch),
        message: bytes::Bytes::new(),
        authentic: true,
    })
}

fn log_of(count: u64) -> (ChainedLog, Vec<Record>) {
    let (mut log, mut out) = (
        ChainedLog::new(digester()).keep_for_peers(0),
        Outbox::new(Lsn::ZERO),
    );
    log.keep_after(SeqNo::new(count));
    (1..=count).for_each(|seq| log.on_decided(&proposal(seq, seq as u8), &mut out));
    let records = out.drain().filter_map(|effect| match effect {
        crate::smr::protocol::Effect::Persist { record, .. } => Some(record),
        _ => None,
    });
    (log, records.collect())
}

fn places(log: &ChainedLog, first: u64, count: usize) -> Vec<u64> {
    log.read(SeqNo::new(first), count)
        .map(|decision| decision.proposal.seq.get())
        .collect()
}

#[test]
fn decisions_are_read_by_range_until_they_are_cut() {
    let (mut log, _) = log_of(10);
    assert_eq!(places(&log, 4, 3), [4, 5, 6]);
    log.on_cut(SeqNo::new(5));
    assert!(
        places(&log, 4, 3).is_empty(),
        "a range is given whole or not at all"
    );
    assert_eq!(places(&log, 6, 100), [6, 7, 8, 9, 10]);
    log.on_cut(SeqNo::new(99));
    assert_eq!((log.last().get(), places(&log, 11, 1).len()), (10, 0));
}

#[test]
fn a_restored_log_has_the_chain_it_had() {
    let (log, records) = log_of(5);
    let mut restored = ChainedLog::new(digester());
    for record in records {
        let Record::Decision { seq, chain, .. } = record else {
            panic!("the decision log writes decisions only");
        };
        restored
            .restore(&proposal(seq.get(), seq.get() as u8), chain)
            .unwrap();
    }
    assert_eq!(restored.chain(), log.chain());
}

#[test]
fn another_batch_and_a_gap_are_found() {
    let (log, _) = log_of(2);
    let mut restored = ChainedLog::new(digester());
    let chain = log.read(SeqNo::new(1), 1).next().unwrap().chain;
    assert_eq!(
        restored.restore(&proposal(1, 99), chain),
        Err(RestoreError::Chain { seq: SeqNo::new(1) })
    );
    assert_eq!(
        restored.restore(&proposal(2, 2), chain),
        Err(RestoreError::Gap {
            last: SeqNo::ZERO,
            found: SeqNo::new(2)
        })
    );
}

#[test]
fn of_decisions_that_the_disk_has_the_digests_are_kept_until_the_log_is_cut() {
    let mut out = Outbox::new(Lsn::ZERO);
    let bytes = proposal(1, 1).kept_bytes();
    let mut log = ChainedLog::new(digester())
        .keep_for_peers(2)
        .keep_bytes(8 * bytes)
        .on_disk(true);
    (1..=10).for_each(|seq| log.on_decided(&proposal(seq, seq as u8), &mut out));
    log.on_stable(SeqNo::new(9));
    assert_eq!((log.base().get(), log.floor().get()), (7, 0));
    let digests =
        |log: &ChainedLog, first, count| -> Vec<Digest> { log.digests(SeqNo::new(first), count).collect() };
    let expected = |places: std::ops::RangeInclusive<u64>| -> Vec<Digest> {
        places.map(|seq| proposal(seq, seq as u8).batch.digest).collect()
    };
    assert_eq!(digests(&log, 6, 4), expected(6..=9));
    assert_eq!(digests(&log, 1, 100), expected(1..=10));
    log.on_cut(SeqNo::new(5));
    assert_eq!((log.base().get(), log.floor().get()), (7, 5));
    assert!(digests(&log, 5, 3).is_empty(), "its batch is gone");
    assert_eq!(digests(&log, 6, 100), expected(6..=10));
    log.on_cut(SeqNo::new(10));
    assert_eq!(
        (log.base().get(), log.floor().get(), log.last().get()),
        (8, 8, 10)
    );
}

/// A log of five decisions as it comes back when the snapshot is of `base`, and the batches of these places
/// are in the log.
fn restored_after(base: u64, batches: std::ops::RangeInclusive<u64>, is_proved: bool) -> ChainedLog {
    let (_, records) = log_of(5);
    let mut log = ChainedLog::new(digester()).on_disk(true);
    let chains = records.into_iter().filter_map(|record| match record {
        Record::Decision { chain, .. } => Some(chain),
        _ => None,
    });
    let chains: Vec<Chain> = chains.collect();
    match is_proved {
        true => log.restore_base(SeqNo::new(base), chains[base as usize - 1]),
        false => log.restore_base_unproved(SeqNo::new(base)),
    }
    for (seq, chain) in (1..).zip(chains) {
        let proposal = proposal(seq, seq as u8);
        if batches.contains(&seq) {
            log.restore_batch(proposal.seq, proposal.batch.digest);
        }
        match seq <= base {
            true => log.restore_earlier(proposal.seq, proposal.batch.digest, chain),
            false => log.restore(&proposal, chain).unwrap(),
        }
    }
    log
}

#[test]
fn a_restored_log_names_what_it_holds_of_the_decisions_before_its_base() {
    let named = |log: &ChainedLog| log.digests(log.floor().next(), 10).collect::<Vec<_>>();
    let expected = |first: u64| -> Vec<Digest> {
        (first..=5)
            .map(|seq| proposal(seq, seq as u8).batch.digest)
            .collect()
    };
    for is_proved in [true, false] {
        let log = restored_after(4, 1..=5, is_proved);
        assert_eq!((log.floor().get(), log.base().get(), log.last().get()), (0, 4, 5));
        assert_eq!(named(&log), expected(1));
        // The segment with the batch of place 2 was released: its decision was written later.
        let log = restored_after(4, 3..=5, is_proved);
        assert_eq!((log.floor().get(), log.base().get()), (2, 4));
        assert_eq!(named(&log), expected(3));
        let log = restored_after(4, 5..=5, is_proved);
        assert_eq!(log.floor().get(), 4);
    }
}

#[test]
fn decisions_of_another_chain_than_the_snapshots_are_not_named() {
    let mut log = ChainedLog::new(digester()).on_disk(true);
    let (other, records) = log_of(3);
    log.restore_base(SeqNo::new(3), Chain::START);
    for record in records {
        let Record::Decision { seq, digest, chain } = record else {
            panic!("the decision log writes decisions only");
        };
        log.restore_batch(seq, digest);
        log.restore_earlier(seq, digest, chain);
    }
    assert_eq!(log.floor(), other.last());
}

#[test]
fn what_memory_held_when_the_log_was_cut_is_not_named_once_memory_lets_it_go() {
    let mut out = Outbox::new(Lsn::ZERO);
    let sized = |seq: u64| proposal(seq, seq as u8);
    let mut log = ChainedLog::new(digester())
        .keep_bytes(4 * sized(1).kept_bytes())
        .on_disk(true);
    (1..=6).for_each(|seq| log.on_decided(&sized(seq), &mut out));
    assert_eq!((log.floor().get(), log.base().get()), (0, 2));
    log.on_cut(SeqNo::new(5));
    assert_eq!(
        (log.floor().get(), log.base().get()),
        (2, 2),
        "memory has the rest"
    );
    log.on_decided(&sized(7), &mut out);
    assert_eq!((log.floor().get(), log.base().get()), (3, 3));
    (8..=10).for_each(|seq| log.on_decided(&sized(seq), &mut out));
    assert_eq!(
        (log.floor().get(), log.base().get()),
        (5, 6),
        "the log has the sixth"
    );
}
