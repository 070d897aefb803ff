//! Snapshots that peers need, and snapshots that were found at a start.

use super::*;
use crate::smr::messages::PieceRange;

fn fetch(bench: &mut Bench, from: u16, seq: u64) {
    let range = PieceRange {
        seq,
        piece: 0,
        offset: 0,
        until: 1,
    };
    bench.hear(
        from,
        &StateTransferMessage::Fetch(range).encode(CLUSTER, Epoch::ZERO),
    );
}

/// A peer asks for a checkpoint; the places of those that it is offered.
fn ask(bench: &mut Bench, from: u16, after: u64) -> Vec<u64> {
    bench.sent.clear();
    let ask = StateTransferMessage::AskOffer { after };
    bench.hear(from, &ask.encode(CLUSTER, Epoch::ZERO));
    let sent = std::mem::take(&mut bench.sent);
    let offers = sent.into_iter().filter_map(|(_, message)| match message {
        SystemMessage::StateTransferMessage(StateTransferMessage::Offer(offer)) => Some(offer.seq),
        _ => None,
    });
    offers.collect()
}

fn go_on(bench: &mut Bench, last: u64) {
    for seq in bench.replica.ordering().decided().get() + 1..=last {
        bench.decide(seq..=seq);
        if seq % PERIOD == 0 {
            bench.sign(checkpoint(seq).claim);
        }
    }
}

fn kept(bench: &Bench) -> Vec<u64> {
    bench.snapshots.keys().map(|seq| seq.get()).collect()
}

#[test]
fn what_a_peer_was_offered_is_kept_until_it_asks_however_fast_checkpoints_come() {
    let mut bench = Bench::new();
    go_on(&mut bench, 20);
    assert_eq!(ask(&mut bench, 3, 0), [20, 10]);
    go_on(&mut bench, 80);
    assert_eq!(kept(&bench), [10, 20, 70, 80]);
    // It has chosen: the other one is not needed.
    fetch(&mut bench, 3, 10);
    go_on(&mut bench, 90);
    assert_eq!(kept(&bench), [10, 80, 90]);
}

#[test]
fn what_a_peer_does_not_ask_for_is_not_kept_for_ever() {
    let mut bench = Bench::new();
    go_on(&mut bench, 20);
    assert_eq!(ask(&mut bench, 3, 0), [20, 10]);
    bench.now = bench.now.after(Duration::from_secs(10));
    go_on(&mut bench, 50);
    assert_eq!(kept(&bench), [40, 50]);
}

#[test]
fn a_peer_that_only_asks_for_offers_costs_two_snapshots() {
    let mut bench = Bench::new();
    go_on(&mut bench, 20);
    for last in 3..30 {
        ask(&mut bench, 3, 0);
        bench.now = bench.now.after(Duration::from_millis(100));
        go_on(&mut bench, 10 * last);
        assert!(kept(&bench).len() <= 4, "{:?}", kept(&bench));
    }
    // Nor does a question about what it does not get.
    assert!(ask(&mut bench, 3, 10_000).is_empty());
    go_on(&mut bench, 310);
    assert!(kept(&bench).len() <= 4, "{:?}", kept(&bench));
}

#[test]
fn every_peer_has_an_snapshot_of_its_own_kept() {
    let mut bench = Bench::new();
    for peer in 1..4 {
        go_on(&mut bench, 20 * u64::from(peer));
        fetch(&mut bench, peer, 20 * u64::from(peer));
    }
    go_on(&mut bench, 120);
    assert_eq!(kept(&bench), [20, 40, 60, 110, 120]);
    // A question about something else gives its snapshot back.
    fetch(&mut bench, 1, u64::MAX);
    go_on(&mut bench, 130);
    assert_eq!(kept(&bench), [40, 60, 120, 130]);
}

#[test]
fn a_late_question_of_an_earlier_attempt_does_not_cost_a_peer_what_it_was_offered() {
    let mut bench = Bench::new();
    go_on(&mut bench, 20);
    assert_eq!(ask(&mut bench, 3, 0), [20, 10]);
    fetch(&mut bench, 3, 5);
    go_on(&mut bench, 60);
    assert_eq!(kept(&bench), [10, 20, 50, 60]);
}

#[test]
fn an_snapshot_found_at_a_start_is_offered_if_it_is_the_one_that_was_signed() {
    let mut bench = Bench::new();
    let wrong = CheckpointClaim {
        seq: SeqNo::new(10),
        digest: Digest::from_bytes([9; 32]),
    };
    let found = [wrong, checkpoint(20).claim];
    bench.replica.restore_snapshots(found.into_iter());
    bench.sign(checkpoint(10).claim);
    bench.sign(checkpoint(20).claim);
    assert_eq!(ask(&mut bench, 3, 0), [20], "the other one is of a wrong state");
}

#[test]
fn an_snapshot_that_takes_the_place_of_a_wrong_one_is_offered() {
    let mut bench = Bench::new();
    let wrong = CheckpointClaim {
        seq: SeqNo::new(20),
        digest: Digest::from_bytes([9; 32]),
    };
    bench.replica.restore_snapshots([wrong].into_iter());
    go_on(&mut bench, 20);
    assert_eq!(ask(&mut bench, 3, 0), [20, 10]);
}
