//! Execution that goes on from an older state is given what follows it out of the log.

use super::*;
use crate::smr::decision_log::LoggedDecisions;

/// More than is given ahead at once.
const FAR: u64 = 440;

/// What the log holds of these places, at most so many.
fn read(bench: &mut Bench, range: &LoggedRange) {
    let last = range.first.get() + range.digests.len() as u64;
    let decisions = (range.first.get()..last).map(decision).collect();
    answer(bench, range.first.get(), decisions);
}

fn answer(bench: &mut Bench, first: u64, decisions: Vec<Arc<Proposal>>) {
    let read = LoggedDecisions {
        to: None,
        first: SeqNo::new(first),
        decisions,
    };
    bench.replica.on_logged(bench.now, read);
    bench.act();
}

/// States come so seldom that only the log holds what follows the last one.
const SELDOM: StateRule = StateRule {
    small_bytes: 0,
    factor: u64::MAX,
    log_bytes_max: 44 * PERIOD * StateRule::DECISION_BYTES,
};

fn taken(seq: u64, rule: StateRule) -> CheckpointClaim {
    let events = executed(seq, rule);
    let taken = events.into_iter().rev().find_map(|event| match event {
        ExecutionEvent::Checkpoint(taken) => Some(taken.claim),
        _ => None,
    });
    taken.expect("a checkpoint was due")
}

/// A replica that has executed `last` decisions, one of the last wrongly, finds that its state is not what a
/// quorum signed: `from` is the last right one, from which it goes on.
fn gone_wrong(rule: StateRule, from: u64, last: u64) -> Bench {
    let log = ChainedLog::new(Digester::new(CLUSTER)).keep_for_peers(0);
    let mut bench = Bench::with(rule, log.on_disk(true));
    bench.wrong_at = Some(last - 5);
    for seq in 1..=last {
        bench.decide(seq..=seq);
        if seq % (5 * PERIOD) == 0 || seq == from || seq == last {
            bench.sign(taken(seq, rule));
        }
    }
    assert!(bench.told().contains(&format!("diverged {last}")));
    bench
}

/// The right state comes from others.
fn install(bench: &mut Bench, state: &Checkpoint) {
    bench.offer(1, state);
    bench.offer(2, state);
    bench.wait_ms(60);
    bench.serve(state);
    let installed = format!("installed {}", state.claim.seq.get());
    assert!(bench.told().contains(&installed), "{installed}");
}

#[test]
fn what_only_the_log_holds_is_executed_in_order_after_the_state_that_came() {
    let mut bench = gone_wrong(THIRD, 30, 60);
    install(&mut bench, &checkpoint_of(30, THIRD));
    assert_eq!(bench.executor.executed(), SeqNo::new(30), "it waits for the log");
    let wanted = std::mem::take(&mut bench.wanted);
    assert_eq!(wanted.len(), 1, "one question at a time: {wanted:?}");
    assert_eq!((wanted[0].to, wanted[0].first), (None, SeqNo::new(31)));
    // What is decided meanwhile comes in its turn.
    bench.decide(61..=64);
    assert_eq!(bench.executor.executed(), SeqNo::new(30));
    read(&mut bench, &wanted[0]);
    assert_eq!(bench.executor.executed(), SeqNo::new(64));
    assert!(bench.wanted.is_empty());
    bench.decide(65..=66);
    assert_eq!(
        bench.executor.executed(),
        SeqNo::new(66),
        "and from then on at once"
    );
}

#[test]
fn execution_is_given_no_more_than_it_can_take_and_the_log_is_read_as_it_goes_on() {
    let mut bench = gone_wrong(SELDOM, 440, 440 + FAR);
    install(&mut bench, &checkpoint_of(440, SELDOM));
    bench.is_busy = true;
    let mut questions = 0;
    while let Some(range) = bench.wanted.pop() {
        assert!(bench.wanted.is_empty() && range.digests.len() <= 64, "{range:?}");
        read(&mut bench, &range);
        questions += 1;
    }
    let ahead = bench.given.len();
    assert!(
        (256..256 + 64).contains(&ahead),
        "{ahead} decisions are given ahead"
    );
    assert!(questions >= 4, "{questions}");
    bench.is_busy = false;
    bench.execute_given();
    bench.act();
    while let Some(range) = bench.wanted.pop() {
        read(&mut bench, &range);
    }
    assert_eq!(bench.executor.executed(), SeqNo::new(440 + FAR));
}

#[test]
fn an_answer_that_nobody_waits_for_is_not_executed() {
    let mut bench = gone_wrong(THIRD, 30, 60);
    // Before the state is there, and about another place when it is.
    answer(&mut bench, 31, (31..=40).map(decision).collect());
    install(&mut bench, &checkpoint_of(30, THIRD));
    let wanted = bench.wanted.pop().expect("the log is asked");
    for first in [30, 32, 61] {
        answer(&mut bench, first, (first..=first + 5).map(decision).collect());
        assert_eq!(bench.executor.executed(), SeqNo::new(30), "{first}");
    }
    // The question was lost with the wrong answer, and is asked again.
    let again = bench.wanted.pop().unwrap_or(wanted);
    read(&mut bench, &again);
    assert_eq!(bench.executor.executed(), SeqNo::new(60));
    // Twice is once.
    read(&mut bench, &again);
    assert_eq!(bench.executor.executed(), SeqNo::new(60));
}

#[test]
fn when_neither_the_log_nor_a_peer_gives_back_what_follows_a_later_state_is_brought() {
    let mut bench = gone_wrong(THIRD, 30, 60);
    install(&mut bench, &checkpoint_of(30, THIRD));
    assert_eq!(bench.wanted.pop().map(|range| range.first), Some(SeqNo::new(31)));
    answer(&mut bench, 31, Vec::new());
    assert!(bench.replica.is_repairing());
    bench.wait_ms(1500);
    assert!(matches!(
        bench.replica.transfer_phase(),
        TransferPhase::RunningTransferProtocols {
            state_transfer: StateTransferState::Asking,
            ..
        }
    ));
    // The one there was is of no use: nothing goes on from it.
    bench.offer(1, &checkpoint_of(30, THIRD));
    bench.offer(2, &checkpoint_of(30, THIRD));
    bench.wait_ms(60);
    assert!(bench.asked().is_empty());
    bench.decide(61..=65);
    install(&mut bench, &checkpoint_of(60, THIRD));
    assert_eq!(bench.executor.executed(), SeqNo::new(65));
}
