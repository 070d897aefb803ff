//! A cluster forms whatever the order and delay of its replicas, and serves at once.

use std::time::Duration;

use atlas_smr_replica::Client;
use atlas_smr_replica::config::{Agreement, AppKind, ClientTuning, Durability};
use atlas_smr_replica::execution::apps::counter;
use atlas_smr_replica::load::{ClusterOptions, LocalCluster, States};

fn options() -> ClusterOptions {
    ClusterOptions {
        replicas: 4,
        clients: 1,
        app: AppKind::Counter,
        agreement: Agreement::default(),
        tuning: ClientTuning::default(),
        pin: false,
        pipeline: 8,
        durability: Durability::None,
        ..ClusterOptions::default()
    }
}

/// A small generator with a fixed seed: the delays of round i are the same in every run.
fn delays(round: u64) -> [Duration; 4] {
    let mut state = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::array::from_fn(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Duration::from_micros(state % 30_000)
    })
}

#[test]
fn a_cluster_started_a_hundred_times_forms_a_hundred_times() {
    for round in 0..100 {
        let delays = delays(round);
        let cluster = LocalCluster::start_staggered(&options(), |id| delays[id])
            .unwrap_or_else(|error| panic!("round {round} with delays {delays:?}: {error}"));
        if round % 10 == 0 {
            let client = Client::connect_blocking(cluster.client(0)).unwrap();
            for expected in 1..=3 {
                let sum = client.call_blocking(counter::add(1)).unwrap();
                assert_eq!(counter::value(&sum), Some(expected), "round {round}");
            }
            assert_eq!(
                cluster.states(Duration::from_secs(5)),
                States::Equal,
                "round {round}"
            );
        }
    }
}

#[test]
fn many_callers_share_one_client_and_every_call_has_its_own_result() {
    let cluster = LocalCluster::start(&options()).unwrap();
    let client = Client::connect_blocking(cluster.client(0)).unwrap();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || {
                (0..200)
                    .map(|_| counter::value(&client.call_blocking(counter::add(1)).unwrap()).unwrap())
                    .collect()
            })
        })
        .collect();
    let mut sums: Vec<u64> = callers
        .into_iter()
        .flat_map(|caller| -> Vec<u64> { caller.join().unwrap() })
        .collect();
    sums.sort_unstable();
    assert_eq!(
        sums,
        (1..=1600).collect::<Vec<u64>>(),
        "each add happened exactly once"
    );
    let read = client.read_blocking(counter::read()).unwrap();
    assert!(counter::value(&read).is_some());
}

#[test]
fn service_goes_on_without_a_follower_and_a_call_without_a_quorum_says_who_is_silent() {
    let mut options = options();
    options.tuning.deadline_ms = 700;
    options.tuning.retransmit_timeout_ms = 100;
    let mut cluster = LocalCluster::start(&options).unwrap();
    let client = Client::connect_blocking(cluster.client(0)).unwrap();
    assert!(client.call_blocking(counter::add(1)).is_ok());
    cluster.stop(atlas_smr_replica::types::NodeId::new(3)).unwrap();
    assert_eq!(
        counter::value(&client.call_blocking(counter::add(1)).unwrap()),
        Some(2)
    );
    cluster.stop(atlas_smr_replica::types::NodeId::new(2)).unwrap();
    let error = client.call_blocking(counter::add(1)).unwrap_err().to_string();
    assert!(
        error.contains("r2 silent") && error.contains("may still be executed"),
        "{error}"
    );
}
