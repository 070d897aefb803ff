//! Agreement and progress of whole clusters over many seeds, in the simulator: each is another network,
//! another fault, another order. The simulator's profiles mix everything; here one kind of fault stands alone,
//! so that a rule of ordering that is broken fails the test that is named after it.

use std::time::Duration;

use crate::sim::plan::{Fault, Plan};
use crate::sim::{ByzantineStrategy, NetworkProfile, Profile, SimConfig, run_plan};
use crate::smr::preprocessing::ClientAuth;
use crate::smr::types::Time;

fn at_ms(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

/// Messages are late and come twice, and nothing else happens.
fn calm(n: usize, seed: u64) -> Plan {
    let checkpoint_decisions = 2 + seed % 5;
    let config = SimConfig {
        checkpoint_decisions,
        window: 2 * checkpoint_decisions + seed % 20,
        pipeline: 1 + seed as usize % 4,
        // What is held against a leader is signed.
        auth: ClientAuth::Signature,
        ..SimConfig::calm(n, 3)
    };
    let busy_until = at_ms(20 + seed % 3 * 300);
    Plan {
        network: NetworkProfile {
            delay_us: (1, 1 + seed % 7 * 700),
            doubled_percent: 20,
            in_order: false,
            ..NetworkProfile::calm()
        },
        operations: 36,
        keys: 4,
        busy_until,
        calm_from: busy_until,
        ..Plan::quiet(Profile::Net, seed, config)
    }
}

/// As [`calm`], and messages between replicas are lost for some seconds.
fn storm(n: usize, seed: u64) -> Plan {
    let mut plan = calm(n, seed);
    plan.network.replica_loss_percent = 5 + seed % 30;
    plan.network.client_loss_percent = plan.network.replica_loss_percent;
    plan.calm_from = at_ms(500 + seed % 5 * 700);
    plan
}

/// The plan in which the first replicas lie.
fn with_liars(mut plan: Plan, liars: usize, lie: ByzantineStrategy) -> Plan {
    plan.liars = (0..liars).map(|liar| (liar, vec![lie])).collect();
    plan
}

/// The plan in which a replica loses power for good.
fn with_crash(mut plan: Plan, host: usize, ms: u64) -> Plan {
    plan.faults.push((at_ms(ms), Fault::Crash { host, back: None }));
    plan
}

/// Runs plans, none of which may break a rule; how many views they took together.
fn views_of(plans: impl Iterator<Item = Plan>) -> u64 {
    let views = |plan: Plan| {
        let report = run_plan(plan.clone(), false);
        if let Some(violation) = report.violation {
            panic!("seed {}: {violation:?} in {plan:#?}", plan.seed);
        }
        assert_eq!(report.completed.0, plan.operations, "seed {}", plan.seed);
        report.view
    };
    plans.map(views).sum()
}

#[test]
fn replicas_agree_and_finish_under_any_order_of_delivery() {
    let nobody_is_suspected = |plan: Plan| Plan {
        views_max: Some(0),
        ..plan
    };
    views_of((0..100).map(|seed| nobody_is_suspected(calm(4, seed))));
    views_of((0..20).map(|seed| nobody_is_suspected(calm(7, seed))));
}

#[test]
fn lost_messages_are_made_good() {
    views_of((0..80).map(|seed| storm(4, seed)));
    views_of((0..10).map(|seed| storm(7, seed)));
}

#[test]
fn partitions_are_survived() {
    let plan = |seed: u64| {
        let mut plan = storm(4, seed);
        plan.network.partitions_lose = seed.is_multiple_of(2);
        // Half of the hosts, then others: no side has a quorum.
        for round in 0..4 {
            let apart = |host: &usize| (seed >> round) % 3 == *host as u64 || *host == 3;
            let (from, to) = (0..4).partition(apart);
            let begin = at_ms(30 + 200 * round);
            let until = begin.after(Duration::from_millis(150));
            let both = !seed.is_multiple_of(3);
            plan.faults.push((
                begin,
                Fault::Partition {
                    from,
                    to,
                    both,
                    until,
                },
            ));
        }
        plan.calm_from = plan.calm_from.max(at_ms(1000));
        plan
    };
    assert!(views_of((0..60).map(plan)) > 0, "some of them cost a view");
}

#[test]
fn a_crashed_leader_is_replaced() {
    for seed in 0..60 {
        let plan = with_crash(calm(4, seed), 0, seed % 10);
        assert!(views_of(std::iter::once(plan)) > 0, "seed {seed}");
    }
}

#[test]
fn two_crashed_leaders_of_seven_are_replaced() {
    for seed in 0..15 {
        let plan = with_crash(with_crash(calm(7, seed), 0, seed % 10), 1, seed % 90);
        assert!(views_of(std::iter::once(plan)) > 0, "seed {seed}");
    }
}

#[test]
fn a_crash_and_lost_messages_together_are_survived() {
    views_of((0..60).map(|seed| with_crash(storm(4, seed), 0, seed * 31 % 900)));
}

#[test]
fn a_crash_and_lost_messages_are_survived_where_only_a_client_s_first_frame_is_signed() {
    let with_macs = |seed| {
        let mut plan = with_crash(storm(4, seed), 0, seed * 31 % 900);
        plan.config.auth = ClientAuth::Mac;
        plan
    };
    views_of((0..60).map(with_macs));
}

#[test]
fn a_silent_leader_is_replaced() {
    for seed in 0..40 {
        let plan = with_liars(calm(4, seed), 1, ByzantineStrategy::Silent);
        assert!(views_of(std::iter::once(plan)) > 0, "seed {seed}");
    }
}

#[test]
fn a_leader_that_speaks_to_some_only_stops_nobody() {
    views_of((0..40).map(|seed| with_liars(calm(4, seed), 1, ByzantineStrategy::Selective)));
    views_of((0..10).map(|seed| with_liars(calm(7, seed), 2, ByzantineStrategy::Selective)));
}

#[test]
fn a_replica_that_votes_at_random_changes_nothing() {
    views_of((0..40).map(|seed| with_liars(storm(4, seed), 1, ByzantineStrategy::WrongDigests)));
    views_of((0..10).map(|seed| with_liars(storm(7, seed), 2, ByzantineStrategy::WrongDigests)));
}

#[test]
fn an_equivocating_leader_divides_nobody() {
    views_of((0..60).map(|seed| with_liars(calm(4, seed), 1, ByzantineStrategy::Equivocate)));
    views_of((0..40).map(|seed| with_liars(storm(4, seed), 1, ByzantineStrategy::Equivocate)));
}

#[test]
fn two_equivocating_leaders_of_seven_divide_nobody() {
    views_of((0..15).map(|seed| with_liars(storm(7, seed), 2, ByzantineStrategy::Equivocate)));
}
