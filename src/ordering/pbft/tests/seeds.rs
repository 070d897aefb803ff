//! Agreement and progress over thousands of seeds: each is another network, another fault, another order.

use super::cluster::{Behaviour, Cluster, Weather};

const FRAMES: u64 = 12;

fn calm(seed: u64) -> Weather {
    Weather {
        delay_us: 1 + seed % 7 * 700,
        doubled: 20,
        ..Weather::default()
    }
}

fn storm(seed: u64) -> Weather {
    Weather {
        lost: 5 + seed % 30,
        heal_ms: 500 + seed % 5 * 700,
        ..calm(seed)
    }
}

/// One cluster, from load to rest; how many views it took.
fn run(n: usize, seed: u64, weather: Weather, behaviours: &[Behaviour]) -> u64 {
    let mut cluster = Cluster::new(n, seed, weather, behaviours);
    cluster.load(FRAMES, 20_000 + seed % 3 * 300_000);
    cluster.run();
    cluster.views_entered()
}

#[test]
fn replicas_agree_and_finish_under_any_order_of_delivery() {
    (0..800).for_each(|seed| assert_eq!(run(4, seed, calm(seed), &[]), 0, "seed {seed}: a false suspicion"));
    (0..200).for_each(|seed| assert_eq!(run(7, seed, calm(seed), &[]), 0, "seed {seed}: a false suspicion"));
}

#[test]
fn lost_messages_are_made_good() {
    (0..600).for_each(|seed| {
        let _ = run(4, seed, storm(seed), &[]);
    });
    (0..100).for_each(|seed| {
        let _ = run(7, seed, storm(seed), &[]);
    });
}

#[test]
fn partitions_are_survived() {
    (0..400).for_each(|seed| {
        let weather = Weather {
            partitions: true,
            ..storm(seed)
        };
        run(4, seed, weather, &[]);
    });
}

#[test]
fn a_crashed_leader_is_replaced() {
    (0..500).for_each(|seed| {
        let crash = Behaviour::Crashes(seed % 10);
        assert!(run(4, seed, calm(seed), &[crash]) >= 1, "seed {seed}");
    });
}

#[test]
fn two_crashed_leaders_of_seven_are_replaced() {
    (0..100).for_each(|seed| {
        let crashes = [Behaviour::Crashes(seed % 10), Behaviour::Crashes(seed % 90)];
        assert!(run(7, seed, calm(seed), &crashes) >= 1, "seed {seed}");
    });
}

#[test]
fn a_crash_and_lost_messages_together_are_survived() {
    (0..400).for_each(|seed| {
        let _ = run(4, seed, storm(seed), &[Behaviour::Crashes(seed % 900)]);
    });
}

#[test]
fn a_leader_that_never_proposes_is_replaced() {
    (0..300).for_each(|seed| {
        assert!(
            run(4, seed, calm(seed), &[Behaviour::NeverProposes]) >= 1,
            "seed {seed}"
        );
    });
}

#[test]
fn a_leader_that_speaks_to_some_only_stops_nobody() {
    (0..300).for_each(|seed| {
        let _ = run(4, seed, calm(seed), &[Behaviour::Selective]);
    });
    (0..60).for_each(|seed| {
        let _ = run(7, seed, calm(seed), &[Behaviour::Selective, Behaviour::Selective]);
    });
}

#[test]
fn a_replica_that_votes_at_random_changes_nothing() {
    (0..300).for_each(|seed| {
        let _ = run(4, seed, storm(seed), &[Behaviour::Lies]);
    });
    (0..60).for_each(|seed| {
        let _ = run(7, seed, storm(seed), &[Behaviour::Lies, Behaviour::Lies]);
    });
}

#[test]
fn an_equivocating_leader_divides_nobody() {
    (0..500).for_each(|seed| {
        let _ = run(4, seed, calm(seed), &[Behaviour::Twins]);
    });
    (0..300).for_each(|seed| {
        let _ = run(4, seed, storm(seed), &[Behaviour::Twins]);
    });
}

#[test]
fn two_equivocating_leaders_of_seven_divide_nobody() {
    (0..100).for_each(|seed| {
        let _ = run(7, seed, storm(seed), &[Behaviour::Twins, Behaviour::Twins]);
    });
}
