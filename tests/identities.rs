//! Several processes with one client's identity, clients that come back, and results that do not depend on
//! neighbours.

use std::collections::BTreeSet;
use std::time::Duration;

use atlas_smr_replica::Client;
use atlas_smr_replica::client::CallError;
use atlas_smr_replica::config::{Agreement, AppKind, ClientTuning, Durability, ReadLevel};
use atlas_smr_replica::execution::apps::{bank, counter, kv};
use atlas_smr_replica::execution::{Application, OperationContext, PartitionedStore, ResultWriter};
use atlas_smr_replica::load::{ClusterOptions, LocalCluster};
use atlas_smr_replica::preprocessing::ClientAuth;
use atlas_smr_replica::sim::{Cluster, SimCallError};
use futures_lite::future::block_on;

fn cluster(app: AppKind, unordered: bool) -> LocalCluster {
    LocalCluster::start(&ClusterOptions {
        replicas: 4,
        clients: 2,
        app,
        agreement: Agreement {
            client_auth: ClientAuth::Mac,
            unordered,
            ..Agreement::default()
        },
        tuning: ClientTuning {
            deadline_ms: 60_000,
            ..ClientTuning::default()
        },
        pin: false,
        pipeline: 8,
        durability: Durability::None,
        ..ClusterOptions::default()
    })
    .unwrap()
}

#[test]
fn clients_with_one_identity_work_side_by_side_and_each_gets_its_own_results() {
    let cluster = cluster(AppKind::Counter, false);
    let work = |config| {
        let client = Client::connect_blocking(config).unwrap();
        let sum = |_| counter::value(&client.call_blocking(counter::add(1)).unwrap()).unwrap();
        (0..50).map(sum).collect::<Vec<u64>>()
    };
    let sums: Vec<u64> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| work(cluster.client(0)))).collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    });
    let distinct: BTreeSet<u64> = sums.iter().copied().collect();
    assert_eq!(
        distinct,
        (1..=200).collect(),
        "each addition ran once, with a sum of its own"
    );
}

#[test]
fn a_client_that_comes_back_again_and_again_repeats_nothing() {
    let cluster = cluster(AppKind::Counter, true);
    for expected in 1..=20 {
        let client = Client::connect_blocking(cluster.client(0)).unwrap();
        let sum = client.call_blocking(counter::add(1)).unwrap();
        assert_eq!(counter::value(&sum), Some(expected));
    }
}

#[test]
fn more_processes_than_one_identity_may_have_are_refused_at_once_and_told_why() {
    let cluster = cluster(AppKind::Counter, false);
    let _all: Vec<Client> = (0..16)
        .map(|_| Client::connect_blocking(cluster.client(0)).unwrap())
        .collect();
    let refused = Client::connect_blocking(cluster.client(0)).map(drop).unwrap_err();
    assert!(
        refused.to_string().contains("too many processes use its keys"),
        "{refused}"
    );
    let other = Client::connect_blocking(cluster.client(1)).unwrap();
    other.call_blocking(counter::add(1)).unwrap();
}

#[test]
fn concurrent_reads_of_long_values_all_succeed() {
    for unordered in [false, true] {
        let cluster = cluster(AppKind::Kv, unordered);
        let client = Client::connect_blocking(cluster.client(0)).unwrap();
        let long = vec![7; 1_000_000];
        client.call_blocking(kv::put(b"long", &long).unwrap()).unwrap();
        std::thread::scope(|scope| {
            for number in 0..32 {
                let (client, long) = (&client, &long);
                scope.spawn(move || {
                    let get = kv::get(b"long").unwrap();
                    let read = match number % 2 {
                        0 => block_on(client.read(get)),
                        _ => block_on(client.call(get)),
                    };
                    assert_eq!(kv::value(&read.unwrap()), Some(&long[..]));
                });
            }
        });
    }
}

#[test]
fn errors_of_the_application_are_errors_of_the_call() {
    let cluster = cluster(AppKind::Bank, false);
    let client = Client::connect_blocking(cluster.client(0)).unwrap();
    client.call_blocking(bank::deposit(1, 5)).unwrap();
    let error = client.call_blocking(bank::transfer(1, 2, 6)).unwrap_err();
    assert_eq!(error, CallError::Application(bank::INSUFFICIENT.into()));
    let error = client.call_blocking(b"no operation".as_slice()).unwrap_err();
    assert!(matches!(error, CallError::Application(_)), "{error}");
}

/// The service of the front page.
#[derive(Clone)]
struct Registry;

impl Application for Registry {
    type State = PartitionedStore;

    fn initial_state(&self) -> PartitionedStore {
        PartitionedStore::default()
    }

    fn update(
        &self,
        state: &mut PartitionedStore,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        match operation.split_first() {
            Some((length, rest)) if usize::from(*length) <= rest.len() => {
                let (key, value) = rest.split_at(usize::from(*length));
                state.put(key, value);
            }
            _ => result.fail("not a length, a key and a value"),
        }
    }

    fn unordered_execution(
        &self,
        state: &PartitionedStore,
        _: &OperationContext,
        key: &[u8],
        result: &mut ResultWriter,
    ) {
        result.extend_from_slice(state.get(key).unwrap_or_default());
    }

    fn name(&self) -> &'static str {
        "registry"
    }
}

#[test]
fn a_read_gives_the_reads_answer_on_every_path() {
    const WITHIN: Duration = Duration::from_secs(5);
    for (unordered, reads) in [
        (false, ReadLevel::Linearizable),
        (false, ReadLevel::Relaxed),
        (true, ReadLevel::Linearizable),
    ] {
        let builder = Cluster::<Registry>::builder();
        let mut cluster = builder.unordered(unordered).reads(reads).start(Registry);
        cluster.call(b"\x01avalue", WITHIN).unwrap();
        assert_eq!(cluster.read(b"a", WITHIN).unwrap(), b"value");
        assert_eq!(cluster.read(b"\x01aXYZ", WITHIN).unwrap(), b"", "no such key");
        assert_eq!(
            cluster.read(b"a", WITHIN).unwrap(),
            b"value",
            "and nothing was written"
        );
        let refused = cluster.call(b"\x09a", WITHIN);
        assert!(matches!(
            refused,
            Err(SimCallError::Failed(CallError::Application(_)))
        ));
        cluster.check().unwrap();
    }
}
