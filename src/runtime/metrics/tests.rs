use std::collections::BTreeMap;

use super::*;
use crate::smr::types::SeqNo;

#[test]
fn everything_the_orchestrator_counts_is_published() {
    let metrics = Metrics::new(NodeId::new(0));
    // Each its own number, so that none passes for another.
    let counters = ReplicaCounters {
        frames_queued: 101,
        frames_duplicate: 102,
        frames_refused: 103,
        batches_proposed: 104,
        votes_cast: 105,
        decisions: 106,
        operations_executed: 107,
        view_changes: 108,
        views_entered: 109,
        frames_forwarded: 110,
        log_transfers: 111,
        decisions_transferred: 112,
        decisions_repaired: 113,
        states_transferred: 114,
        chunks_refused: 115,
        pieces_reused: 116,
        divergences: 117,
        checkpoints_stable: 118,
        messages_backpressured: 119,
        ..ReplicaCounters::default()
    };
    let gauges = SequenceGauges {
        view: View::ZERO,
        ordered: SeqNo::ZERO,
        durable: SeqNo::ZERO,
        executed: SeqNo::ZERO,
        stable: SeqNo::ZERO,
    };
    metrics.publish(gauges, &counters);
    let mut published = BTreeMap::new();
    metrics.visit(|name, value| {
        assert!(published.insert(name, value).is_none(), "{name} twice");
    });
    for number in 101..=119 {
        let names = published.values().filter(|value| **value == number);
        assert_eq!(names.count(), 1, "counter {number}");
    }
    assert_eq!(published["votes_cast"], 105);
    assert_eq!(published["messages_backpressured"], 119);
}
