use super::*;
use crate::runtime::metrics::Metrics;
use crate::smr::crypto::Chain;
use crate::smr::execution::fixtures::{decision, frame};
use crate::smr::messages::Mode;
use crate::smr::types::{Digest, NodeId};

fn at(milliseconds: u64) -> Time {
    Time::START.after(Duration::from_millis(milliseconds))
}

/// A timer, and the metrics that its recorder is of.
fn timer() -> (PhaseTimer, Metrics) {
    let metrics = Metrics::of_cluster(NodeId::new(0), 4);
    let timer = PhaseTimer::new(metrics.measures.recorder());
    (timer, metrics)
}

fn client_frame(number: u64) -> Frame {
    frame(3, number, Mode::Ordered, &[vec![1; 10], vec![2; 10]])
}

/// What was measured: how often, and how many milliseconds together.
fn measured(metrics: &Metrics, measure: Measure) -> (u64, u64) {
    let read = metrics.measures.read(measure);
    (read.count, (read.sum * 1000.0).round() as u64)
}

fn decided(seq: u64) -> Record {
    Record::Decision {
        seq: SeqNo::new(seq),
        digest: Digest::ZERO,
        chain: Chain::from_head(Digest::ZERO),
    }
}

fn voted(seq: u64) -> Record {
    Record::Ordering {
        seq: Some(SeqNo::new(seq)),
        contents: bytes::Bytes::new(),
    }
}

/// Everything that is measured on the way through ordering, one after the other.
const ON_THE_WAY: [Measure; 5] = [
    Measure::BatchProposed,
    Measure::BatchPrepared,
    Measure::BatchCommitted,
    Measure::BatchDurable,
    Measure::FrameProposed,
];

#[test]
fn each_phase_of_a_sampled_batch_begins_where_the_one_before_ends() {
    let (mut timer, metrics) = timer();
    let batch = decision(32, vec![client_frame(5), client_frame(6)]);
    timer.on_verified(Verified::Proposal {
        seq: batch.seq,
        verified: at(10),
    });
    timer.on_record(&Record::Proposal(batch.clone()), || at(11));
    timer.on_record(&voted(32), || at(13));
    timer.on_record(&decided(32), || at(17));
    let times = timer.on_released(&batch, || at(25)).expect("it is sampled");
    assert_eq!(
        *times,
        DecisionTimes {
            seq: batch.seq,
            is_sampled: true,
            released: at(25),
            requests: Vec::new(),
        }
    );
    let phases = ON_THE_WAY.map(|measure| measured(&metrics, measure));
    assert_eq!(phases, [(1, 1), (1, 2), (1, 4), (1, 8), (0, 0)]);
    let size = |measure| metrics.measures.read(measure).sum;
    assert_eq!(size(Measure::BatchFrames), 2.0);
    assert_eq!(size(Measure::BatchOperations), 4.0);
    assert_eq!(size(Measure::BatchBytes), batch.batch.frame_bytes() as f64);
}

#[test]
fn other_batches_cost_no_look_at_the_clock() {
    let (mut timer, metrics) = timer();
    let clock = || panic!("the clock is read");
    let batch = decision(33, vec![client_frame(64)]);
    timer.on_record(&Record::Proposal(batch.clone()), clock);
    timer.on_record(&voted(33), clock);
    timer.on_record(&decided(33), clock);
    assert_eq!(timer.on_released(&batch, clock), None);
    let null = decision(48, Vec::new());
    assert_eq!(timer.on_released(&null, clock), None, "nobody asked for it");
    assert_eq!(metrics.measures.read(Measure::BatchFrames).count, 0);
}

#[test]
fn a_sampled_frame_is_followed_from_its_link_through_whichever_batch_it_is_in() {
    let (mut timer, metrics) = timer();
    let (own, others) = (client_frame(64), client_frame(128));
    let follow = |timer: &mut PhaseTimer, received, verified| {
        timer.on_verified(Verified::Frame {
            key: own.key(),
            received: at(received),
            verified: at(verified),
        });
    };
    follow(&mut timer, 100, 103);
    follow(&mut timer, 110, 111);
    let batch = decision(7, vec![client_frame(1), own.clone(), others]);
    timer.on_record(&Record::Proposal(batch.clone()), || at(108));
    // In another view once more.
    timer.on_record(&Record::Proposal(batch.clone()), || at(200));
    assert_eq!(measured(&metrics, Measure::FrameProposed), (1, 5));
    let times = timer
        .on_released(&batch, || at(300))
        .expect("one of its frames is");
    assert!(!times.is_sampled);
    assert_eq!(times.requests, [(ClientId::new(3), at(100))]);
    assert_eq!(
        timer.on_released(&batch, || at(400)),
        None,
        "it was executed, and is followed no more"
    );
}

#[test]
fn what_comes_late_is_as_late_as_what_comes_after_it() {
    let (mut timer, metrics) = timer();
    // Others' commits decide it before this replica's own, and all is on disk already.
    let batch = decision(16, vec![client_frame(1)]);
    timer.on_record(&Record::Proposal(batch.clone()), || at(1));
    assert!(timer.on_released(&batch, || at(5)).is_some());
    timer.on_record(&decided(16), || at(6));
    timer.on_record(&voted(16), || at(7));
    let phases = ON_THE_WAY.map(|measure| measured(&metrics, measure));
    assert_eq!(phases, [(0, 0), (1, 4), (1, 0), (1, 0), (0, 0)]);
    // The log is given the decision first, and the vote comes afterwards.
    let batch = decision(32, vec![client_frame(2)]);
    timer.on_record(&Record::Proposal(batch.clone()), || at(10));
    timer.on_record(&decided(32), || at(20));
    timer.on_record(&voted(32), || at(21));
    assert!(timer.on_released(&batch, || at(30)).is_some());
    let phases = ON_THE_WAY.map(|measure| measured(&metrics, measure));
    assert_eq!(phases, [(0, 0), (2, 14), (2, 0), (2, 10), (0, 0)]);
}

#[test]
fn a_batch_whose_beginning_was_not_seen_is_not_measured() {
    let (mut timer, metrics) = timer();
    let batch = decision(16, vec![client_frame(1)]);
    // Others' words decided it before it was accepted here.
    timer.on_record(&voted(16), || at(1));
    timer.on_record(&decided(16), || at(2));
    assert!(timer.on_released(&batch, || at(5)).is_some());
    let phases = ON_THE_WAY.map(|measure| measured(&metrics, measure));
    assert_eq!(phases, [(0, 0); 5]);
    // Of one that never came through, nothing is left to the one in its place.
    timer.on_record(&Record::Proposal(decision(32, Vec::new())), || at(10));
    let later = 32 + 16 * BATCHES as u64;
    timer.on_record(&voted(later), || at(20));
    timer.on_record(&decided(later), || at(30));
    assert_eq!(measured(&metrics, Measure::BatchPrepared), (0, 0));
}

#[test]
fn a_batch_that_is_proposed_again_begins_again() {
    let (mut timer, metrics) = timer();
    let batch = decision(16, vec![client_frame(1)]);
    timer.on_record(&Record::Proposal(batch.clone()), || at(1));
    timer.on_record(&voted(16), || at(2));
    timer.on_record(&Record::Proposal(batch), || at(50));
    timer.on_record(&voted(16), || at(51));
    timer.on_record(&voted(16), || at(53));
    timer.on_record(&decided(16), || at(60));
    assert_eq!(
        measured(&metrics, Measure::BatchPrepared),
        (1, 3),
        "its last vote"
    );
    assert_eq!(measured(&metrics, Measure::BatchCommitted), (1, 7));
}

#[test]
fn frames_that_never_are_executed_take_no_more_than_their_room() {
    let (mut timer, _) = timer();
    let follow = |timer: &mut PhaseTimer, number, now: u64| {
        timer.on_verified(Verified::Frame {
            key: client_frame(number).key(),
            received: at(now),
            verified: at(now),
        });
    };
    for number in 0..2 * FRAMES_MAX as u64 {
        follow(&mut timer, 64 * number, 0);
    }
    assert_eq!(timer.frames.len(), FRAMES_MAX);
    let patience = FRAME_PATIENCE.as_millis() as u64;
    follow(&mut timer, 1, patience - 1);
    assert_eq!(timer.frames.len(), FRAMES_MAX);
    follow(&mut timer, 1, patience);
    assert_eq!(timer.frames.len(), 1);
}
