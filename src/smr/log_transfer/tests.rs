//! Transition tests: what others say → what is asked of whom.

use bytes::Bytes;

use super::*;
use crate::smr::messages::archived::{ArchivedLogTransferMessage, ArchivedSystemMessage};
use crate::smr::messages::{Batch, Checked, SystemMessage};
use crate::smr::protocol::Effect;
use crate::smr::types::{UnixTime, View};

const CLUSTER: ClusterId = ClusterId::from_bytes([3; 16]);

fn digest(seq: u64) -> Digest {
    Digest::from_bytes([seq as u8; 32])
}

fn batch_of(seq: u64, digest: Digest, bytes: usize) -> Proposal {
    Proposal {
        view: View::ZERO,
        seq: SeqNo::new(seq),
        batch: Arc::new(Batch {
            digest,
            time: UnixTime::EPOCH,
            frames: Vec::new(),
            bytes: 0,
        }),
        message: Bytes::from(vec![0; bytes]),
        authentic: true,
    }
}

/// Replica 3 of 4.
struct Bench {
    transfer: RangedLogTransfer,
    out: Outbox,
    now: Time,
}

impl Bench {
    fn new() -> Self {
        let quorum = Quorum::of(4).unwrap();
        let mut bench = Self {
            transfer: RangedLogTransfer::new(NodeId::new(3), quorum, CLUSTER, Epoch::ZERO),
            out: Outbox::new(crate::smr::types::Lsn::ZERO),
            now: Time::START,
        };
        bench.transfer.begin(bench.now, SeqNo::ZERO, &mut bench.out);
        bench
    }

    /// A donor says what was decided up to `last`.
    fn name(&mut self, from: u16, last: u64) {
        let digests: Vec<Digest> = (1..=last).map(digest).collect();
        let (from, places) = (NodeId::new(from), (SeqNo::ZERO, SeqNo::new(1)));
        self.transfer
            .on_decided(self.now, from, places, &digests, &mut self.out);
    }

    fn send(&mut self, from: u16, seq: u64) -> Option<Proposal> {
        let batch = batch_of(seq, digest(seq), 100);
        self.transfer
            .on_batch(self.now, NodeId::new(from), batch, &mut self.out)
    }

    /// A donor sends all that it was asked for.
    fn serve(&mut self, (donor, range): &(u16, std::ops::RangeInclusive<u64>)) {
        range.clone().for_each(|seq| {
            self.send(*donor, seq);
        });
    }

    fn deliver(&mut self, decided: u64) -> Option<Arc<Proposal>> {
        self.transfer
            .deliver(self.now, SeqNo::new(decided), &mut self.out)
    }

    fn wait_ms(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now = self.now.after(TICK);
            self.transfer.on_timeout(self.now, &mut self.out);
        }
    }

    /// All donors have decided `last`, and answer what they are asked.
    fn answer(&mut self, to: Recipients, message: &Bytes, last: u64) {
        let message = Checked::<SystemMessage>::body_of(message).unwrap();
        let ArchivedSystemMessage::LogTransferMessage(message) = &*message else {
            return;
        };
        match (message, to) {
            (ArchivedLogTransferMessage::AskDecided { after }, _) => {
                let first = after.to_native() + 1;
                let named = (first..=last).take(DECIDED_MAX).map(digest);
                let digests: Vec<Digest> = named.collect();
                for donor in 0..3 {
                    let (donor, after) = (NodeId::new(donor), SeqNo::new(first - 1));
                    let places = (after, after.next());
                    self.transfer
                        .on_decided(self.now, donor, places, &digests, &mut self.out);
                }
            }
            (ArchivedLogTransferMessage::FetchDecisions { first, count }, Recipients::One(to)) => {
                let first = first.to_native();
                self.serve(&(to.get(), first..=first + u64::from(count.to_native()) - 1));
            }
            _ => {}
        }
    }

    /// Who was asked for which batches since the last call.
    fn asked(&mut self) -> Vec<(u16, std::ops::RangeInclusive<u64>)> {
        let effects: Vec<Effect> = self.out.drain().collect();
        let asked = effects.into_iter().filter_map(|effect| {
            let Effect::Send {
                to: Recipients::One(to),
                message,
                ..
            } = effect
            else {
                return None;
            };
            let message = Checked::<SystemMessage>::body_of(&message).unwrap();
            match &*message {
                ArchivedSystemMessage::LogTransferMessage(ArchivedLogTransferMessage::FetchDecisions {
                    first,
                    count,
                }) => {
                    let first = first.to_native();
                    Some((to.get(), first..=first + u64::from(count.to_native()) - 1))
                }
                _ => None,
            }
        });
        asked.collect()
    }
}

#[test]
fn a_donor_that_named_nothing_is_not_asked_for_batches() {
    let mut bench = Bench::new();
    bench.name(0, 40);
    bench.name(1, 40);
    // Replica 2 is dead. However the turns fall, it never gets a range to sit on.
    for _ in 0..40 {
        bench.wait_ms(50);
        assert!(bench.asked().iter().all(|(donor, _)| *donor != 2));
    }
}

#[test]
fn a_donor_that_stalls_is_not_asked_again_while_others_send() {
    let mut bench = Bench::new();
    (0..3).for_each(|donor| bench.name(donor, 2000));
    let first = bench.asked();
    assert_eq!(first.len(), 3);
    let (stalling, stalled) = first[0].clone();
    first[1..].iter().for_each(|asked| bench.serve(asked));
    let mut asked = Vec::new();
    for _ in 0..40 {
        bench.wait_ms(50);
        for (donor, range) in bench.asked() {
            if donor != stalling {
                bench.serve(&(donor, range.clone()));
            }
            asked.push((donor, range));
        }
    }
    assert!(asked.iter().any(|(_, range)| *range == stalled));
    assert!(asked.iter().all(|(donor, _)| *donor != stalling), "{asked:?}");
}

#[test]
fn a_trickle_of_batches_does_not_hold_up_what_others_have_sent() {
    let mut bench = Bench::new();
    (0..3).for_each(|donor| bench.name(donor, 2000));
    let first = bench.asked();
    let (trickling, _) = first
        .iter()
        .find(|(_, range)| range.contains(&1))
        .cloned()
        .unwrap();
    let others = first.iter().filter(|(donor, _)| *donor != trickling);
    others.for_each(|asked| bench.serve(asked));
    let mut delivered = 0;
    // One batch just before every deadline.
    for tick in 0..40 {
        if tick % 9 == 0 {
            bench.send(trickling, delivered + 1);
        }
        while bench.deliver(delivered).is_some() {
            delivered += 1;
        }
        bench.wait_ms(50);
        let asked = bench.asked();
        let others = asked.iter().filter(|(donor, _)| *donor != trickling);
        others.for_each(|asked| bench.serve(asked));
    }
    assert!(delivered > 500, "{delivered}");
}

#[test]
fn it_ends_when_nobody_names_more_and_says_nothing_afterwards() {
    let mut bench = Bench::new();
    bench.wait_ms(800);
    assert_eq!(bench.transfer.state(), LogTransferState::Idle);
    bench.out.drain();
    bench.wait_ms(1000);
    assert!(bench.out.is_empty());
}

#[test]
fn it_ends_when_ordering_goes_on_by_itself_close_behind_the_others() {
    let mut bench = Bench::new();
    for decided in 1..20 {
        (0..3).for_each(|donor| bench.name(donor, decided + 5));
        bench.deliver(decided);
        bench.wait_ms(50);
        assert_eq!(bench.asked(), [], "ordering gets these by itself");
    }
    assert_eq!(bench.transfer.state(), LogTransferState::Idle);
}

#[test]
fn few_missing_decisions_are_fetched_when_ordering_does_not_get_them() {
    let mut bench = Bench::new();
    (0..3).for_each(|donor| bench.name(donor, 5));
    assert_eq!(bench.asked(), []);
    bench.wait_ms(150);
    assert!(!bench.asked().is_empty());
}

#[test]
fn batches_that_are_at_hand_take_bounded_memory() {
    let mut bench = Bench::new();
    (0..3).for_each(|donor| bench.name(donor, 200));
    let around = batch_of(1, digest(1), 0).kept_bytes();
    let big = |seq: u64| batch_of(seq, digest(seq), AHEAD_BYTES_MAX / 8 - around);
    let mut taken = 0;
    for seq in 2..=200 {
        let refused = bench
            .transfer
            .on_batch(bench.now, NodeId::new(0), big(seq), &mut bench.out);
        taken += usize::from(refused.is_none());
    }
    assert_eq!(taken, 9);
    // The next in order is taken all the same: it makes room.
    let next = bench
        .transfer
        .on_batch(bench.now, NodeId::new(1), big(1), &mut bench.out);
    assert!(next.is_none());
    assert!(bench.deliver(0).is_some());
    bench.deliver(5);
    assert_eq!(bench.transfer.batch_bytes, 5 * (AHEAD_BYTES_MAX / 8));
}

#[test]
fn one_donor_cannot_settle_a_place_nor_have_a_batch_of_another_digest_taken() {
    let mut bench = Bench::new();
    bench.name(0, 40);
    bench.wait_ms(200);
    assert_eq!(bench.asked(), []);
    bench.name(1, 40);
    let forged = batch_of(1, digest(99), 10);
    let refused = bench
        .transfer
        .on_batch(bench.now, NodeId::new(0), forged, &mut bench.out);
    assert!(refused.is_some());
    assert!(bench.deliver(0).is_none());
}

/// Donors answer every question in one round trip, and at its end ordering takes what there is. The time
/// until all was delivered, and the most digests that were kept of a donor.
fn transferred(decisions: u64, round_trip: Duration) -> (Duration, usize) {
    let mut bench = Bench::new();
    let (mut delivered, mut most, mut tick) = (0, 0, None);
    while delivered < decisions && bench.transfer.state() != LogTransferState::Idle {
        let effects: Vec<Effect> = bench.out.drain().collect();
        bench.now = bench.now.after(round_trip);
        for effect in effects {
            match effect {
                Effect::Send { to, message, .. } => bench.answer(to, &message, decisions),
                Effect::SetTimer { at, .. } => tick = Some(at),
                _ => {}
            }
        }
        if tick.take_if(|at| *at <= bench.now).is_some() {
            bench.transfer.on_timeout(bench.now, &mut bench.out);
        }
        while bench.deliver(delivered).is_some() {
            delivered += 1;
        }
        let kept = bench.transfer.donors.iter().map(|donor| donor.digests.len());
        most = kept
            .chain([most, bench.transfer.settled.len()])
            .max()
            .unwrap_or(0);
    }
    assert_eq!(delivered, decisions, "at {:?}", bench.now);
    (bench.now.since(Time::START), most)
}

#[test]
fn a_long_log_comes_as_fast_as_donors_send_it_and_waits_for_no_tick() {
    const DECISIONS: u64 = 10_000;
    // Answers that come long before a tick, and such that a tick falls amid the batches of every one.
    for round_trip in [1, 10].map(Duration::from_millis) {
        let (took, most) = transferred(DECISIONS, round_trip);
        let rounds = took.as_micros() / round_trip.as_micros();
        // Three donors, a range each.
        let needed = u128::from(DECISIONS / (3 * RANGE));
        assert!(
            rounds <= needed + needed / 10,
            "{rounds} round trips, {needed} needed"
        );
        assert!(most <= NAMED_MAX, "{most}");
    }
}

#[test]
fn answers_that_overlap_come_late_or_leave_a_gap_take_nothing_away_that_is_needed() {
    let named = |first: u64, last: u64| (first..=last).map(digest).collect::<Vec<_>>();
    let (mut donor, delivered) = (Donor::default(), SeqNo::new(10));
    for (first, last, range) in [
        (5, 20, 11..=20),
        (15, 30, 11..=30),
        (1, 8, 11..=30),
        (11, 25, 11..=30),
        (40, 50, 11..=30),
        (31, 40, 11..=40),
    ] {
        donor.name(delivered, SeqNo::new(first), &named(first, last));
        let has: Vec<u64> = (1..60)
            .filter(|seq| donor.digest(SeqNo::new(*seq)) == Some(&digest(*seq)))
            .collect();
        assert_eq!(has, range.collect::<Vec<_>>(), "after {first} to {last}");
    }
    donor.name(delivered, SeqNo::new(11), &named(11, 20_000));
    assert_eq!(donor.digests.len(), NAMED_MAX);
}

#[test]
fn one_that_forgot_and_one_that_remembers_are_too_few_to_wait_for() {
    // Of four, one is gone. Of the two others neither f+1 name what is needed, nor have f+1 forgotten it.
    let mut bench = Bench::new();
    let later: Vec<Digest> = (11..=20).map(digest).collect();
    let (forgetful, places) = (NodeId::new(0), (SeqNo::ZERO, SeqNo::new(11)));
    bench
        .transfer
        .on_decided(bench.now, forgetful, places, &later, &mut bench.out);
    bench.name(1, 20);
    assert!(matches!(bench.transfer.state(), LogTransferState::Running { .. }));
    bench.wait_ms(600);
    assert_eq!(
        bench.transfer.state(),
        LogTransferState::OutOfReach { certain: false }
    );
}

#[test]
fn what_was_forgotten_does_not_matter_once_ordering_has_it() {
    let mut bench = Bench::new();
    // Two have forgotten all before place 3.
    for donor in [0, 1].map(NodeId::new) {
        let places = (SeqNo::ZERO, SeqNo::new(3));
        bench
            .transfer
            .on_decided(bench.now, donor, places, &[], &mut bench.out);
    }
    let out_of_reach = LogTransferState::OutOfReach { certain: true };
    assert_eq!(bench.transfer.state(), out_of_reach);
    assert!(bench.deliver(1).is_none());
    assert_eq!(
        bench.transfer.state(),
        out_of_reach,
        "the second is still lacking"
    );
    // Ordering decided it by itself.
    assert!(bench.deliver(2).is_none());
    assert!(matches!(bench.transfer.state(), LogTransferState::Running { .. }));
}

#[test]
fn while_nobody_answers_the_question_is_asked_again_soon_and_then_ever_less_often() {
    let mut bench = Bench::new();
    bench.out.drain();
    let mut pauses = Vec::new();
    for _ in 0..6 {
        bench.transfer.on_timeout(bench.now, &mut bench.out);
        let effects: Vec<Effect> = bench.out.drain().collect();
        let sends = |effect: &Effect| matches!(effect, Effect::Send { .. });
        assert_eq!(effects.iter().filter(|effect| sends(effect)).count(), 1);
        let next = effects.iter().find_map(|effect| match effect {
            Effect::SetTimer { at, .. } => Some(*at),
            _ => None,
        });
        pauses.push(next.unwrap().since(bench.now).as_millis());
        bench.now = next.unwrap();
    }
    assert_eq!(pauses, [4, 8, 16, 32, 50, 50]);
}

#[test]
fn what_was_named_and_is_forgotten_before_it_was_sent_is_found_out() {
    let mut bench = Bench::new();
    (0..3).for_each(|donor| bench.name(donor, 40));
    // Nobody sends anything: all have forgotten what lies before place 31 meanwhile, and say nothing of it
    // until asked.
    for _ in 0..20 {
        bench.wait_ms(50);
        let effects: Vec<Effect> = bench.out.drain().collect();
        for effect in effects {
            let Effect::Send {
                to: Recipients::Others,
                message,
                ..
            } = effect
            else {
                continue;
            };
            let checked = Checked::<SystemMessage>::body_of(&message).unwrap();
            if let ArchivedSystemMessage::LogTransferMessage(ArchivedLogTransferMessage::AskDecided {
                after,
            }) = &*checked
            {
                let first = (after.to_native() + 1).max(31);
                let digests: Vec<Digest> = (first..=40).map(digest).collect();
                let places = (SeqNo::new(after.to_native()), SeqNo::new(first));
                for donor in (0..2).map(NodeId::new) {
                    bench
                        .transfer
                        .on_decided(bench.now, donor, places, &digests, &mut bench.out);
                }
            }
        }
    }
    assert_eq!(
        bench.transfer.state(),
        LogTransferState::OutOfReach { certain: true }
    );
}

#[test]
fn donors_that_are_half_a_second_away_are_waited_for() {
    let mut bench = Bench::new();
    bench.wait_ms(250);
    bench.name(0, 40);
    assert!(matches!(bench.transfer.state(), LogTransferState::Running { .. }));
    // One of the two that are right was heard, and a liar that has nothing to name.
    let nothing = (SeqNo::ZERO, SeqNo::new(1));
    bench
        .transfer
        .on_decided(bench.now, NodeId::new(1), nothing, &[], &mut bench.out);
    bench.wait_ms(200);
    assert!(matches!(bench.transfer.state(), LogTransferState::Running { .. }));
    bench.name(2, 40);
    assert_eq!(
        bench.transfer.state(),
        LogTransferState::Running {
            delivered: SeqNo::ZERO,
            settled: SeqNo::new(40)
        }
    );
}

#[test]
fn when_all_have_answered_and_name_nothing_it_is_soon_over() {
    let mut bench = Bench::new();
    let nothing = (SeqNo::ZERO, SeqNo::new(1));
    for donor in (0..3).map(NodeId::new) {
        bench
            .transfer
            .on_decided(bench.now, donor, nothing, &[], &mut bench.out);
    }
    bench.wait_ms(200);
    assert_eq!(bench.transfer.state(), LogTransferState::Idle);
}

#[test]
fn an_answer_to_another_question_says_nothing_of_what_was_not_asked() {
    let mut bench = Bench::new();
    (0..2).for_each(|donor| bench.name(donor, 40));
    // What comes after place 40 was asked as well.
    let later = (SeqNo::new(40), SeqNo::new(41));
    for donor in (0..2).map(NodeId::new) {
        bench
            .transfer
            .on_decided(bench.now, donor, later, &[digest(41)], &mut bench.out);
    }
    assert_eq!(
        bench.transfer.state(),
        LogTransferState::Running {
            delivered: SeqNo::ZERO,
            settled: SeqNo::new(41)
        }
    );
    assert!(!bench.asked().is_empty());
}
