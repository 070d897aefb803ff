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

/// The same for each of many seeds; the most views one of them took.
fn run_all(
    n: usize,
    seeds: u64,
    weather: fn(u64) -> Weather,
    behaviours: impl Fn(u64) -> Vec<Behaviour>,
) -> u64 {
    let views = |seed| run(n, seed, weather(seed), &behaviours(seed));
    (0..seeds).map(views).max().unwrap_or(0)
}

fn nobody(_: u64) -> Vec<Behaviour> {
    Vec::new()
}

#[test]
fn replicas_agree_and_finish_under_any_order_of_delivery() {
    assert_eq!(run_all(4, 800, calm, nobody), 0, "nobody is suspected falsely");
    assert_eq!(run_all(7, 150, calm, nobody), 0, "nobody is suspected falsely");
}

#[test]
fn lost_messages_are_made_good() {
    run_all(4, 500, storm, nobody);
    run_all(7, 60, storm, nobody);
}

#[test]
fn partitions_are_survived() {
    let partitions = |seed| Weather {
        partitions: true,
        ..storm(seed)
    };
    assert!(
        run_all(4, 400, partitions, nobody) > 0,
        "some of them cost a view"
    );
}

#[test]
fn a_crashed_leader_is_replaced() {
    for seed in 0..400 {
        let crash = Behaviour::Crashes(seed % 10);
        assert!(run(4, seed, calm(seed), &[crash]) > 0, "seed {seed}");
    }
}

#[test]
fn two_crashed_leaders_of_seven_are_replaced() {
    for seed in 0..80 {
        let crashes = [Behaviour::Crashes(seed % 10), Behaviour::Crashes(seed % 90)];
        assert!(run(7, seed, calm(seed), &crashes) > 0, "seed {seed}");
    }
}

#[test]
fn a_crash_and_lost_messages_together_are_survived() {
    run_all(4, 400, storm, |seed| vec![Behaviour::Crashes(seed % 900)]);
}

#[test]
fn a_leader_that_never_proposes_is_replaced() {
    for seed in 0..250 {
        assert!(
            run(4, seed, calm(seed), &[Behaviour::NeverProposes]) > 0,
            "seed {seed}"
        );
    }
}

#[test]
fn a_leader_that_speaks_to_some_only_stops_nobody() {
    run_all(4, 250, calm, |_| vec![Behaviour::Selective]);
    run_all(7, 50, calm, |_| vec![Behaviour::Selective; 2]);
}

#[test]
fn a_replica_that_votes_at_random_changes_nothing() {
    run_all(4, 250, storm, |_| vec![Behaviour::Lies]);
    run_all(7, 50, storm, |_| vec![Behaviour::Lies; 2]);
}

#[test]
fn an_equivocating_leader_divides_nobody() {
    run_all(4, 400, calm, |_| vec![Behaviour::Twins]);
    run_all(4, 250, storm, |_| vec![Behaviour::Twins]);
}

#[test]
fn two_equivocating_leaders_of_seven_divide_nobody() {
    run_all(7, 80, storm, |_| vec![Behaviour::Twins; 2]);
}
