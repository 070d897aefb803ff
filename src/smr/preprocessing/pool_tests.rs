use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::smr::execution::{CLIENT_WINDOW, SESSIONS_MAX, SessionWindows, fixtures};
use crate::smr::messages::{Authenticator, Batch, Frame, FrameBuilder, Mode, RequestFrame};
use crate::smr::types::{ClientId, Digest, FrameSeq, Time, UnixTime};
use crate::smr::view_transfer::Proven;

const CLIENTS: u32 = 4;
const LIMITS: PoolLimits = PoolLimits {
    frames_per_client: 5,
    bytes_per_client: 4000,
    bytes_max: 6000,
};

fn frame(client: u32, number: u64, operation_bytes: usize) -> Frame {
    signed(client, FrameSeq::new(number), operation_bytes)
}

fn signed(client: u32, sequence: FrameSeq, operation_bytes: usize) -> Frame {
    let mut builder = FrameBuilder::default();
    builder.push(&vec![0; operation_bytes]).unwrap();
    let body = builder.finish(ClientId::new(client), sequence, Mode::Ordered);
    let authenticator = Authenticator::Signature([0; 64]);
    let bytes = RequestFrame { body, authenticator }.to_archive();
    Frame::check(bytes, 8, 1 << 20, |_| Digest::ZERO).unwrap()
}

fn with_macs(client: u32, number: u64) -> Frame {
    with_macs_of(client, FrameSeq::new(number))
}

fn with_macs_of(client: u32, sequence: FrameSeq) -> Frame {
    let mut builder = FrameBuilder::default();
    builder.push(&[0; 10]).unwrap();
    let body = builder.finish(ClientId::new(client), sequence, Mode::Ordered);
    let authenticator = Authenticator::Macs(vec![[0; 16]; 4]);
    let bytes = RequestFrame { body, authenticator }.to_archive();
    Frame::check(bytes, 8, 1 << 20, |_| Digest::ZERO).unwrap()
}

/// Since when the client that waits longest waits.
fn oldest(pool: &mut RequestPool, now: u64) -> Option<Time> {
    pool.waiting(at(now)).oldest
}

fn at(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn batch(frames: Vec<Frame>) -> Batch {
    let bytes = frames.iter().map(|frame| frame.bytes().len()).sum();
    Batch {
        digest: Digest::ZERO,
        time: UnixTime::EPOCH,
        frames,
        bytes,
    }
}

fn keys(frames: &[Frame]) -> Vec<(u32, u64)> {
    frames
        .iter()
        .map(|frame| (frame.key().client.get(), frame.key().sequence.number()))
        .collect()
}

#[test]
fn quotas_hold_per_client_and_for_all_together() {
    let mut pool = RequestPool::new(3, LIMITS);
    for sequence in 1..=5 {
        assert_eq!(pool.offer(at(sequence), frame(0, sequence, 10)), Offer::Queued);
    }
    assert_eq!(pool.offer(at(5), frame(0, 6, 10)), Offer::OverQuota);
    assert_eq!(pool.offer(at(5), frame(0, 1, 10)), Offer::Duplicate);
    assert_eq!(pool.offer(at(6), frame(1, 1, 2500)), Offer::Queued);
    assert_eq!(
        pool.offer(at(6), frame(1, 2, 2500)),
        Offer::OverQuota,
        "its own quota"
    );
    assert_eq!(pool.offer(at(6), frame(2, 2, 900)), Offer::Queued);
    assert_eq!(
        pool.offer(at(6), frame(2, 3, 1500)),
        Offer::OverQuota,
        "the others' crowd"
    );
    assert_eq!(pool.offer(at(6), frame(7, 2, 1)), Offer::Stale, "a stranger");
    let (frames, _) = pool.take_batch(1 << 20, 2).unwrap();
    assert_eq!(
        pool.offer(at(7), frame(0, 6, 10)),
        Offer::OverQuota,
        "in flight is pending"
    );
    pool.on_decided(&batch(frames));
    assert_eq!(pool.offer(at(7), frame(0, 6, 10)), Offer::Queued);
}

#[test]
fn whatever_fills_a_pool_it_takes_each_clients_lowest_frame() {
    let mut pool = RequestPool::new(3, LIMITS);
    for sequence in 10..15 {
        assert_eq!(pool.offer(at(1), frame(0, sequence, 10)), Offer::Queued);
    }
    assert_eq!(pool.offer(at(2), frame(0, 20, 10)), Offer::OverQuota);
    assert_eq!(
        pool.offer(at(2), frame(0, 9, 10)),
        Offer::Queued,
        "it crowds out the highest"
    );
    assert_eq!(pool.offer(at(2), frame(0, 14, 10)), Offer::OverQuota);
    assert_eq!((pool.pending_frames(), pool.crowded_out()), (5, 1));
    pool.offer(at(3), frame(1, 1, 3500));
    assert_eq!(
        pool.offer(at(3), frame(2, 1, 3500)),
        Offer::Queued,
        "the first of its client"
    );
    assert_eq!(pool.offer(at(3), frame(2, 2, 10)), Offer::OverQuota);
    assert_eq!(pool.offer(at(3), frame(2, 0, 3600)), Offer::Queued);
    assert_eq!(
        pool.offer(at(3), frame(0, 8, 3900)),
        Offer::Queued,
        "as long as all that its client has"
    );
    assert_eq!((pool.pending_frames(), pool.queued_frames()), (3, 3));
    while pool.take_batch(1 << 20, 10).is_some() {}
    assert_eq!(
        pool.offer(at(4), frame(0, 30, 3900)),
        Offer::Queued,
        "nothing of its client is queued"
    );
}

#[test]
fn a_client_waits_for_its_lowest_frame_from_when_the_one_below_was_decided() {
    let mut pool = RequestPool::new(2, LIMITS);
    let foreign = |sequence| batch(vec![frame(0, sequence, 1)]);
    pool.offer(at(1), frame(0, 100, 10));
    pool.offer(at(2), frame(0, 101, 10));
    assert_eq!(oldest(&mut pool, 3), Some(at(1)));
    pool.on_decided(&foreign(99));
    assert_eq!(
        oldest(&mut pool, 4),
        Some(at(4)),
        "one below, which this pool never had"
    );
    pool.on_decided(&foreign(99));
    assert_eq!(oldest(&mut pool, 5), Some(at(4)), "an old one is no progress");
    pool.on_decided(&foreign(102));
    assert_eq!(oldest(&mut pool, 6), Some(at(4)), "nor is one above");
    pool.on_decided(&foreign(100));
    assert_eq!(oldest(&mut pool, 7), Some(at(7)), "the next one's turn begins");
    pool.offer(at(8), frame(1, 5, 10));
    assert_eq!(oldest(&mut pool, 9), Some(at(7)));
    pool.on_decided(&foreign(101));
    assert_eq!(oldest(&mut pool, 10), Some(at(8)));
}

#[test]
fn what_only_macs_prove_is_not_held_against_a_leader_until_it_is_signed() {
    let mut pool = RequestPool::new(2, LIMITS);
    pool.offer(at(1), with_macs(0, 7));
    let waiting = pool.waiting(at(2));
    assert_eq!((waiting.oldest, waiting.proven), (Some(at(1)), None));
    assert!(pool.lacks_proof(at(9), ClientId::new(0), Duration::from_nanos(8)));
    assert!(!pool.lacks_proof(at(8), ClientId::new(0), Duration::from_nanos(8)));
    assert_eq!(pool.offer(at(10), frame(0, 7, 10)), Offer::Duplicate);
    let proven = Proven {
        since: at(1),
        at: at(10),
    };
    assert_eq!(pool.waiting(at(11)).proven, Some(proven));
    assert_eq!(pool.offer(at(12), with_macs(0, 7)), Offer::Duplicate);
    assert_eq!(pool.waiting(at(12)).proven, Some(proven), "it is signed still");
    let overdue: Vec<_> = pool.overdue(at(12), Duration::from_nanos(11)).collect();
    assert!(matches!(overdue[..], [(_, true)]));
    assert!(pool.waits_for_earlier(at(12), &frame(0, 8, 1), Duration::from_nanos(11)));
    assert!(!pool.waits_for_earlier(at(12), &frame(0, 7, 1), Duration::from_nanos(11)));
    assert_eq!(pool.drop_unsigned(ClientId::new(0)), []);
    assert_eq!((pool.pending_frames(), pool.queued_frames()), (1, 1));
}

#[test]
fn what_a_process_left_behind_that_has_ended_does_not_keep_its_clients_next_one_from_proving_itself() {
    let mut pool = RequestPool::new(2, LIMITS);
    let left = |session: u64, number: u64| with_macs_of(0, FrameSeq::of(session, number));
    let of = |session: u64| signed(0, FrameSeq::of(session, 0), 10);
    let long = Duration::from_nanos(8);
    // Of the process that has ended; nobody will sign them.
    for number in 0..5 {
        assert_eq!(pool.offer(at(1), left(3, number)), Offer::Queued);
    }
    let next = of(9);
    let unsigned = left(9, 0);
    assert_eq!(pool.offer(at(2), unsigned), Offer::OverQuota);
    assert!(
        pool.lacks_proof(at(12), ClientId::new(0), long),
        "it is told to sign"
    );
    assert_eq!(pool.offer(at(3), of(2)), Offer::Queued, "it is first");
    pool.on_decided(&batch(vec![of(2)]));
    pool.waiting(at(4));
    assert_eq!(pool.offer(at(5), left(9, 0)), Offer::Queued);
    assert!(pool.lacks_proof(at(12), ClientId::new(0), long));
    assert!(pool.waits_for_earlier(at(12), &left(9, 0), long));
    assert!(
        !pool.waits_for_earlier(at(12), &next, long),
        "what is signed is first, and passed on"
    );
    assert_eq!(pool.offer(at(13), next.clone()), Offer::Duplicate);
    let proven = Proven {
        since: at(13),
        at: at(13),
    };
    assert_eq!(pool.waiting(at(13)).proven, Some(proven));
    assert!(!pool.lacks_proof(at(30), ClientId::new(0), long));
    // At a leader that has them all, it is in one of the next two turns.
    let turns = [pool.take_batch(1 << 20, 1), pool.take_batch(1 << 20, 1)];
    let taken = turns.into_iter().flatten().flat_map(|(frames, _)| frames);
    assert!(taken.map(|frame| frame.key()).any(|key| key == next.key()));
    pool.on_decided(&batch(vec![next]));
    assert_eq!(pool.waiting(at(40)).proven, None);
}

#[test]
fn a_decided_frame_never_comes_back_and_a_taken_one_only_when_its_view_is_lost() {
    let mut pool = RequestPool::new(1, LIMITS);
    pool.offer(at(1), frame(0, 100, 10));
    pool.offer(at(2), frame(0, 101, 10));
    let (frames, _) = pool.take_batch(1 << 20, 1).unwrap();
    pool.on_decided(&batch(frames));
    assert_eq!(pool.offer(at(3), frame(0, 100, 10)), Offer::AlreadyDecided);
    assert_eq!(pool.offer(at(3), frame(0, 36, 10)), Offer::Stale);
    assert_eq!((pool.pending_frames(), oldest(&mut pool, 3)), (1, Some(at(3))));
    assert_eq!(keys(&pool.take_batch(1 << 20, 10).unwrap().0), [(0, 101)]);
    assert!(
        pool.take_batch(1 << 20, 10).is_none(),
        "what is in flight is not taken again"
    );
    assert_eq!(pool.offer(at(4), frame(0, 101, 10)), Offer::Duplicate);
    assert_eq!(pool.offer(at(4), frame(0, 99, 10)), Offer::Queued);
    pool.return_in_flight();
    assert_eq!(
        keys(&pool.take_batch(1 << 20, 10).unwrap().0),
        [(0, 99), (0, 101)]
    );
    assert_eq!(oldest(&mut pool, 5), Some(at(4)));
}

#[test]
fn each_client_has_its_turn_and_the_turn_that_found_no_room_is_the_next() {
    let mut pool = RequestPool::new(4, LIMITS);
    for (client, sequence, bytes) in [(0, 1, 10), (0, 2, 10), (0, 3, 10), (1, 7, 900), (3, 5, 10)] {
        assert_eq!(pool.offer(at(1), frame(client, sequence, bytes)), Offer::Queued);
    }
    let (frames, bytes) = pool.take_batch(1050, 10).unwrap();
    assert_eq!(keys(&frames), [(0, 1)]);
    assert_eq!(bytes, frames[0].bytes().len());
    let (frames, _) = pool.take_batch(1 << 20, 3).unwrap();
    assert_eq!(keys(&frames), [(1, 7), (3, 5), (0, 2)]);
    assert_eq!(keys(&pool.take_batch(1 << 20, 10).unwrap().0), [(0, 3)]);
}

#[test]
fn a_frame_longer_than_a_batch_makes_one_of_its_own() {
    let mut pool = RequestPool::new(2, LIMITS);
    pool.offer(at(1), frame(0, 1, 2000));
    pool.offer(at(2), frame(1, 1, 10));
    assert!(pool.take_batch(1000, 0).is_none());
    assert_eq!(keys(&pool.take_batch(1000, 10).unwrap().0), [(0, 1)]);
    assert_eq!(keys(&pool.take_batch(1000, 10).unwrap().0), [(1, 1)]);
}

#[test]
fn a_checkpoints_window_settles_what_it_covers() {
    let mut pool = RequestPool::new(1, LIMITS);
    for sequence in [10, 100, 101, 102] {
        pool.offer(at(sequence), frame(0, sequence, 10));
    }
    pool.take_batch(1 << 20, 2).unwrap();
    let mut windows = SessionWindows::default();
    windows.record(FrameSeq::new(101));
    pool.adopt_windows(ClientId::new(0), windows.clone());
    pool.adopt_windows(ClientId::new(9), windows);
    assert_eq!((pool.pending_frames(), pool.queued_frames()), (2, 1));
    assert_eq!(oldest(&mut pool, 200), Some(at(200)));
    pool.return_in_flight();
    assert_eq!(
        keys(&pool.take_batch(1 << 20, 9).unwrap().0),
        [(0, 100), (0, 102)]
    );
}

fn of_session(session: u64, number: u64) -> Frame {
    let sequence = FrameSeq::of(session, number);
    fixtures::frame_of(0, sequence, Mode::Ordered, &[vec![1]])
}

fn sequences(frames: &[Frame]) -> Vec<(u64, u64)> {
    let sequences = frames.iter().map(|frame| frame.key().sequence);
    sequences
        .map(|sequence| (sequence.session(), sequence.number()))
        .collect()
}

#[test]
fn no_session_of_a_client_waits_for_another_that_asks_much_and_the_lowest_frame_waits_two_turns_at_most() {
    let mut pool = RequestPool::new(1, LIMITS);
    for number in 1..=3 {
        pool.offer(at(number), of_session(5, number));
    }
    pool.offer(at(9), of_session(9, 1));
    pool.offer(at(9), of_session(7, 1));
    let first = pool.take_batch(1 << 20, 4).unwrap().0;
    assert_eq!(sequences(&first), [(5, 1), (5, 2), (7, 1), (5, 3)]);
    pool.on_decided(&Batch::new(Digest::ZERO, UnixTime::EPOCH, first));
    pool.offer(at(10), of_session(2, 1));
    let then = pool.take_batch(1 << 20, 4).unwrap().0;
    assert_eq!(sequences(&then), [(9, 1), (2, 1)]);
}

#[test]
fn a_session_that_ends_takes_its_pending_frames_with_it_and_none_of_others() {
    let mut pool = RequestPool::new(1, LIMITS);
    let decide = |pool: &mut RequestPool, frames: Vec<Frame>| {
        pool.on_decided(&Batch::new(Digest::ZERO, UnixTime::EPOCH, frames));
    };
    decide(&mut pool, vec![of_session(5, 1)]);
    pool.offer(at(1), of_session(5, 2));
    pool.offer(at(2), of_session(4, 1));
    pool.offer(at(3), of_session(6, 1));
    for session in 0..SESSIONS_MAX as u64 {
        decide(&mut pool, vec![of_session(100 + session, 1)]);
    }
    assert_eq!(pool.offer(at(4), of_session(5, 3)), Offer::SessionEnded);
    // What never was a session is none any more where a later one has ended.
    assert_eq!(pool.offer(at(4), of_session(3, 1)), Offer::SessionEnded);
    let left = pool.take_batch(1 << 20, 9).map(|(frames, _)| sequences(&frames));
    assert_eq!(left, Some(vec![(6, 1)]));
    assert_eq!(pool.pending_frames(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Offer {
        client: u32,
        sequence: u64,
        bytes: usize,
    },
    Take {
        bytes: usize,
        frames: usize,
    },
    /// A batch of this replica, oldest first.
    Decide,
    /// A batch of another leader, with frames this replica may not have.
    DecideForeign {
        client: u32,
        sequence: u64,
    },
    ViewLost,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = || 0..CLIENTS;
    let step = prop_oneof![
        8 => (client(), 1u64..200, 0usize..900)
            .prop_map(|(client, sequence, bytes)| Step::Offer { client, sequence, bytes }),
        8 => (client(), 1u64..12, 0usize..50)
            .prop_map(|(client, sequence, bytes)| Step::Offer { client, sequence, bytes }),
        4 => (0usize..3000, 1usize..9).prop_map(|(bytes, frames)| Step::Take { bytes, frames }),
        3 => Just(Step::Decide),
        1 => (client(), 1u64..250).prop_map(|(client, sequence)| Step::DecideForeign { client, sequence }),
        1 => Just(Step::ViewLost),
    ];
    proptest::collection::vec(step, 0..150)
}

#[derive(Debug, Clone, Copy)]
struct Known {
    bytes: usize,
    in_flight: bool,
}

/// What the pool should hold, kept the plain way.
#[derive(Debug, Default)]
struct Model {
    pending: BTreeMap<(u32, u64), Known>,
    decided: BTreeSet<(u32, u64)>,
    /// By client: its lowest frame at the end of the last step, and since when it waits.
    clocks: BTreeMap<u32, (u64, u64)>,
    /// Clients of which something was decided in this step up to their lowest.
    progressed: BTreeSet<u32>,
}

impl Model {
    fn is_stale(&self, client: u32, sequence: u64) -> bool {
        let newest = self.decided.range((client, 0)..=(client, u64::MAX)).next_back();
        newest.is_some_and(|(_, newest)| sequence + CLIENT_WINDOW <= *newest)
    }

    fn decide(&mut self, keys: &[(u32, u64)]) {
        for key in keys {
            let (client, sequence) = *key;
            let is_new = !self.is_stale(client, sequence) && self.decided.insert(*key);
            if is_new
                && self
                    .clocks
                    .get(&client)
                    .is_some_and(|(lowest, _)| sequence <= *lowest)
            {
                self.progressed.insert(client);
            }
            self.pending.remove(key);
        }
        let stale: Vec<_> = self
            .pending
            .keys()
            .copied()
            .filter(|(client, sequence)| self.is_stale(*client, *sequence))
            .collect();
        self.pending.retain(|key, _| !stale.contains(key));
    }

    fn fits(&self, client: u32, without: &[u64], bytes: usize) -> bool {
        let share = LIMITS.bytes_max / 2 / CLIENTS as usize;
        let of = |client: u32| {
            let ours = self.pending.range((client, 0)..=(client, u64::MAX));
            ours.map(|((_, sequence), known)| (*sequence, known.bytes))
        };
        let kept = || of(client).filter(|(sequence, _)| !without.contains(sequence));
        let ours = kept().map(|(_, bytes)| bytes).sum::<usize>() + bytes;
        let sums = (0..CLIENTS).filter(|other| *other != client);
        let sums = sums.map(|other| of(other).map(|(_, bytes)| bytes).sum::<usize>());
        let crowd: usize = sums.chain([ours]).map(|sum| sum.saturating_sub(share)).sum();
        kept().count() < LIMITS.frames_per_client
            && ours <= LIMITS.bytes_per_client
            && (ours <= share || crowd <= LIMITS.bytes_max / 2)
    }

    /// What is expected, and which frames of the client go.
    fn expected_offer(&self, client: u32, sequence: u64, bytes: usize) -> (Offer, Vec<u64>) {
        if self.is_stale(client, sequence) {
            return (Offer::Stale, Vec::new());
        }
        if self.decided.contains(&(client, sequence)) {
            return (Offer::AlreadyDecided, Vec::new());
        }
        if self.pending.contains_key(&(client, sequence)) {
            return (Offer::Duplicate, Vec::new());
        }
        let queued: Vec<u64> = self.waiting(client).collect();
        let mut gone = Vec::new();
        while !self.fits(client, &gone, bytes) {
            match queued.iter().rev().nth(gone.len()) {
                Some(highest) if *highest > sequence => gone.push(*highest),
                Some(_) => return (Offer::OverQuota, Vec::new()),
                None => break,
            }
        }
        (Offer::Queued, gone)
    }

    /// The client that waits longest, at the end of a step.
    fn oldest(&mut self, now: u64) -> Option<Time> {
        let progressed = std::mem::take(&mut self.progressed);
        let before = std::mem::take(&mut self.clocks);
        for (client, sequence) in self.pending.keys() {
            self.clocks
                .entry(*client)
                .or_insert_with(|| match before.get(client) {
                    Some((lowest, since)) if lowest == sequence && !progressed.contains(client) => {
                        (*lowest, *since)
                    }
                    _ => (*sequence, now),
                });
        }
        self.clocks.values().map(|(_, since)| at(*since)).min()
    }

    fn bytes(&self) -> usize {
        self.pending.values().map(|known| known.bytes).sum()
    }

    fn bytes_in_flight(&self) -> usize {
        let in_flight = self.pending.values().filter(|known| known.in_flight);
        in_flight.map(|known| known.bytes).sum()
    }

    fn queued(&self) -> usize {
        self.pending.values().filter(|known| !known.in_flight).count()
    }

    fn waiting(&self, client: u32) -> impl Iterator<Item = u64> {
        let ours = self.pending.range((client, 0)..=(client, u64::MAX));
        ours.filter(|(_, known)| !known.in_flight)
            .map(|((_, sequence), _)| *sequence)
    }

    /// Checks a batch against the rules and marks its frames.
    fn take(&mut self, batch: &[Frame], limits: (usize, usize), total: usize) -> Result<(), TestCaseError> {
        let bytes: usize = batch.iter().map(|frame| frame.bytes().len()).sum();
        prop_assert!(!batch.is_empty() && batch.len() <= limits.1);
        prop_assert!(bytes <= limits.0 || batch.len() == 1);
        prop_assert_eq!(bytes, total);
        let waiting: Vec<Vec<u64>> = (0..CLIENTS)
            .map(|client| self.waiting(client).collect())
            .collect();
        let mut taken = vec![Vec::new(); CLIENTS as usize];
        for (client, sequence) in keys(batch) {
            self.pending.get_mut(&(client, sequence)).unwrap().in_flight = true;
            taken[client as usize].push(sequence);
        }
        let most = taken.iter().map(Vec::len).max().unwrap_or(0);
        for (taken, waiting) in taken.iter().zip(&waiting) {
            prop_assert!(
                waiting.starts_with(taken),
                "a client's frames are taken in order, each once"
            );
            let has_more = waiting.len() > taken.len();
            prop_assert!(
                !has_more || taken.len() + 1 >= most,
                "a client waits while another has two turns"
            );
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_pool_keeps_order_fairness_caps_and_exactly_once(steps in steps()) {
        let mut pool = RequestPool::new(CLIENTS as usize, LIMITS);
        let mut model = Model::default();
        let mut proposed: Vec<Vec<Frame>> = Vec::new();
        let mut most_in_flight = 0;
        for (time, step) in (0u64..).zip(steps) {
            match step {
                Step::Offer { client, sequence, bytes } => {
                    let frame = frame(client, sequence, bytes);
                    let bytes = frame.bytes().len();
                    let (expected, gone) = model.expected_offer(client, sequence, bytes);
                    prop_assert_eq!(pool.offer(at(time), frame), expected);
                    for sequence in gone {
                        model.pending.remove(&(client, sequence));
                    }
                    if expected == Offer::Queued {
                        let known = Known { bytes, in_flight: false };
                        model.pending.insert((client, sequence), known);
                    }
                }
                Step::Take { bytes, frames } => match pool.take_batch(bytes, frames) {
                    Some((batch, total)) => {
                        model.take(&batch, (bytes, frames), total)?;
                        proposed.push(batch);
                    }
                    None => prop_assert_eq!(model.queued(), 0),
                },
                Step::Decide if proposed.is_empty() => {}
                Step::Decide => {
                    let frames = proposed.remove(0);
                    model.decide(&keys(&frames));
                    let decided = batch(frames);
                    pool.on_decided(&decided);
                    pool.on_decided(&decided);
                }
                Step::DecideForeign { client, sequence } => {
                    model.decide(&[(client, sequence)]);
                    pool.on_decided(&batch(vec![frame(client, sequence, 1)]));
                }
                Step::ViewLost => {
                    proposed.clear();
                    pool.return_in_flight();
                    model.pending.values_mut().for_each(|known| known.in_flight = false);
                }
            }
            prop_assert_eq!(pool.pending_frames(), model.pending.len());
            prop_assert_eq!(pool.queued_frames(), model.queued());
            prop_assert_eq!(pool.pending_bytes(), model.bytes());
            let firsts = CLIENTS as usize * 1100;
            let in_flight = model.bytes_in_flight();
            prop_assert!(pool.pending_bytes() <= LIMITS.bytes_max + firsts + in_flight.max(most_in_flight));
            most_in_flight = most_in_flight.max(in_flight);
            prop_assert_eq!(pool.waiting(at(time)).oldest, model.oldest(time));
        }
    }
}
