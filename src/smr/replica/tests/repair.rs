//! Decisions that the own log does not give back.

use super::*;
use crate::smr::decision_log::LoggedDecisions;

/// Replica 0, that got the state after place 100 and has to execute up to 120 what its log alone holds.
fn bench() -> Bench {
    let log = ChainedLog::new(Digester::new(CLUSTER)).keep_for_peers(0);
    let mut bench = Bench::with(StateRule::ALWAYS, log.on_disk(true));
    let target = checkpoint(100);
    bench.fall_behind(105);
    bench.offer(1, &target);
    bench.offer(2, &target);
    bench.wait_ms(60);
    for donor in bench.asked() {
        bench.send_chunks(donor, &target, 0..2);
    }
    bench.decide(101..=120);
    bench.sign(checkpoint(120).claim);
    for donor in bench.asked() {
        bench.send_chunks(donor, &target, 2..target.chunks.len());
    }
    assert!(bench.told().contains(&"installed 100".to_string()));
    bench
}

impl Bench {
    /// The log gives back so many decisions of what is read for execution.
    fn read_back(&mut self, count: usize) {
        let read = std::mem::take(&mut self.wanted);
        for range in read.into_iter().filter(|range| range.to.is_none()) {
            let places = range.first.get()..range.first.get() + range.digests.len() as u64;
            let logged = LoggedDecisions {
                to: None,
                first: range.first,
                decisions: places.take(count).map(decision).collect(),
            };
            self.replica.on_logged(self.now, logged);
            self.act();
        }
    }

    /// Who was asked for which decisions since the last call.
    fn asked_to_mend(&mut self) -> Vec<(u16, u64, u32)> {
        let sent = std::mem::take(&mut self.sent);
        sent.into_iter()
            .filter_map(|(to, message)| match (to, message) {
                (
                    Recipients::One(to),
                    SystemMessage::LogTransferMessage(LogTransferMessage::FetchDecisions { first, count }),
                ) => Some((to.get(), first, count)),
                _ => None,
            })
            .collect()
    }

    fn send_batch(&mut self, from: u16, batch: Proposal) {
        self.replica.on_batch(self.now, NodeId::new(from), batch);
        self.act();
    }
}

#[test]
fn decisions_that_the_log_does_not_give_back_come_from_a_peer() {
    let mut bench = bench();
    bench.read_back(5);
    assert_eq!(bench.executor.executed(), SeqNo::new(105));
    bench.read_back(0);
    assert_eq!(bench.asked_to_mend(), [(1, 106, 15)]);
    // Out of turn, twice, and with another batch.
    bench.send_batch(1, (*decision(107)).clone());
    bench.send_batch(1, (*decision(107)).clone());
    let other = Batch {
        digest: Digest::from_bytes([9; 32]),
        ..Batch::null()
    };
    let lie = Proposal {
        batch: Arc::new(other),
        ..(*decision(106)).clone()
    };
    bench.send_batch(1, lie);
    assert_eq!(bench.executor.executed(), SeqNo::new(105));
    for seq in 106..=120 {
        bench.send_batch(1, (*decision(seq)).clone());
    }
    assert_eq!(bench.executor.executed(), SeqNo::new(120));
    assert_eq!(bench.replica.counters().decisions_repaired, 15);
    assert!(!bench.replica.is_repairing());
    bench.wait_ms(1000);
    assert!(bench.asked_to_mend().is_empty());
    bench.decide(121..=125);
    assert_eq!(bench.executor.executed(), SeqNo::new(125));
}

#[test]
fn peers_are_asked_one_after_the_other_and_then_a_later_state_is_looked_for_as_well() {
    let mut bench = bench();
    bench.read_back(0);
    bench.wait_ms(1600);
    let asked: Vec<u16> = bench.asked_to_mend().iter().map(|(to, _, _)| *to).collect();
    assert_eq!(asked, [1, 2, 3, 1]);
    let TransferPhase::RunningTransferProtocols { state_transfer, .. } = bench.replica.transfer_phase()
    else {
        panic!("a later state is looked for");
    };
    assert_eq!(state_transfer, StateTransferState::Asking);
    // A peer is back that has them: no state is needed.
    for seq in 101..=120 {
        bench.send_batch(3, (*decision(seq)).clone());
        if seq == 116 {
            bench.read_back(0);
        }
    }
    assert_eq!(bench.executor.executed(), SeqNo::new(120));
    assert_eq!(bench.replica.transfer_phase(), TransferPhase::NotRunning);
}

#[test]
fn a_later_state_takes_the_place_of_what_nobody_gives_back() {
    let mut bench = bench();
    bench.read_back(0);
    bench.wait_ms(1600);
    let later = checkpoint(110);
    bench.offer(1, &later);
    bench.offer(2, &later);
    bench.wait_ms(60);
    bench.serve(&later);
    assert!(bench.told().contains(&"installed 110".to_string()));
    assert!(
        !bench.replica.is_repairing(),
        "what the state includes is not needed"
    );
    bench.read_back(10);
    assert_eq!(bench.executor.executed(), SeqNo::new(120));
}

#[test]
fn what_memory_has_forgotten_and_a_slow_disk_does_not_hold_yet_is_not_repaired() {
    let log = ChainedLog::new(Digester::new(CLUSTER))
        .keep_for_peers(0)
        .keep_bytes(0);
    let mut bench = Bench::with(StateRule::ALWAYS, log.on_disk(true));
    let target = checkpoint(100);
    bench.fall_behind(105);
    bench.offer(1, &target);
    bench.offer(2, &target);
    bench.wait_ms(60);
    for donor in bench.asked() {
        bench.send_chunks(donor, &target, 0..2);
    }
    bench.decide(101..=110);
    bench.sign(checkpoint(110).claim);
    bench.decide(111..=112);
    for donor in bench.asked() {
        bench.send_chunks(donor, &target, 2..target.chunks.len());
    }
    assert!(bench.told().contains(&"installed 100".to_string()));
    bench.is_slow = true;
    bench.decide(113..=120);
    bench.sign(checkpoint(120).claim);
    bench.read_back(0);
    let asked = bench.asked_to_mend();
    // The first of the new ones waits for nothing, the second for the record of the first.
    assert_eq!(asked, [(1, 101, 13)], "what is not released is not asked for");
    for seq in 101..=120 {
        bench.send_batch(1, (*decision(seq)).clone());
    }
    assert_eq!(bench.executor.executed(), SeqNo::new(113));
    bench.catch_up();
    assert_eq!(bench.executor.executed(), SeqNo::new(120));
}
