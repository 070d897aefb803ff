//! What lies in the log behind what: a restart reads it in that order.

use super::*;

/// Where the first such record lies in the log.
fn place(bench: &Bench, what: impl Fn(&Record) -> bool) -> usize {
    let found = bench.log.iter().position(what);
    found.unwrap_or_else(|| panic!("not in the log: {:?}", bench.log))
}

#[test]
fn what_waited_for_the_window_lies_behind_what_moved_it() {
    let mut bench = Bench::backup();
    bench.now = Time::START;
    // The leader's window has moved; ours moves with the decision of the stable checkpoint's place.
    for signed in &certificate(checkpoint(PERIOD).claim)[1..] {
        let message = SystemMessage::checkpoint(CLUSTER, Epoch::ZERO, *signed);
        bench.hear(signed.signer, &message);
    }
    let ahead = SeqNo::new(WINDOW + PERIOD);
    let early = Proposal::clone(&decision(ahead.get()));
    bench.replica.on_proposal(bench.now, NodeId::new(0), early);
    bench.act();
    assert!(bench.log.is_empty(), "it waits: {:?}", bench.log);
    for seq in 1..=PERIOD {
        let decisions = vec![BatchRef::new(SeqNo::new(seq), &Digest::ZERO)];
        let message = SyncMessage::Decisions(decisions).encode(CLUSTER, Epoch::ZERO);
        bench.hear(2, &message);
        bench.hear(3, &message);
    }
    let is_early = |record: &Record| matches!(record, Record::Proposal(proposal) if proposal.seq == ahead);
    let early = place(&bench, is_early);
    let last = |record: &Record| matches!(record, Record::Decision { seq, .. } if seq.get() == PERIOD);
    assert!(place(&bench, last) < early, "{:?}", bench.log);
    let stable = |record: &Record| matches!(record, Record::Stable { .. });
    assert!(place(&bench, stable) < early, "{:?}", bench.log);
}
