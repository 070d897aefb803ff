//! Roles on shards of their own behave as folded ones do: same service, same states, same graceful end.

use atlas_smr_replica::config::{
    Agreement, MonolithicStateReplicaConfig, RoleKind, ShardSpec, StateTransferConfig, TopologyFile,
};
use atlas_smr_replica::execution::apps::counter::{self, Counter};
use atlas_smr_replica::{Client, MonReplica};
use futures_lite::future::block_on;

mod shared;

use shared::configs::configure_for;

use RoleKind::{Consensus, Execution, Log, Network, Preprocess};

/// A layout for each replica of the cluster, all different.
fn layouts() -> [Vec<Vec<RoleKind>>; 4] {
    [
        vec![vec![Network, Preprocess], vec![Consensus], vec![Execution]],
        vec![
            vec![Network],
            vec![Preprocess],
            vec![Consensus],
            vec![Log],
            vec![Execution],
        ],
        vec![
            vec![Network, Preprocess],
            vec![Network, Preprocess],
            vec![Consensus, Execution, Log],
        ],
        vec![
            vec![Execution, Network, Log],
            vec![Network, Consensus],
            vec![Preprocess],
            vec![Preprocess, Network],
        ],
    ]
}

#[test]
fn replicas_of_four_different_layouts_agree_and_end_in_good_order() {
    let data = tempfile::tempdir().unwrap();
    let agreement = Agreement {
        checkpoint_decisions: 50,
        window: 200,
        ..Agreement::default()
    };
    let (configs, clients) = configure_for("counter", data.path(), agreement, 3);
    let mut running = Vec::new();
    for (mut config, layout) in configs.into_iter().zip(layouts()) {
        let shards = layout
            .into_iter()
            .map(|roles| ShardSpec { roles, core: None })
            .collect();
        config.topology = TopologyFile {
            pin: false,
            spin_us: 0,
            huge_pages: false,
            shards,
        };
        let config = MonolithicStateReplicaConfig {
            service: Counter,
            replica_config: config,
            st_config: StateTransferConfig::default(),
        };
        let replica = block_on(MonReplica::bootstrap(config)).unwrap();
        let handle = replica.handle();
        running.push((handle, std::thread::spawn(move || block_on(replica.run()))));
    }
    let callers: Vec<_> = clients
        .into_iter()
        .map(|config| {
            std::thread::spawn(move || {
                let client = Client::connect_blocking(config).unwrap();
                (0..100).for_each(|_| drop(client.call_blocking(counter::add(1)).unwrap()));
                counter::value(&client.call_blocking(counter::read()).unwrap()).unwrap()
            })
        })
        .collect();
    let highest = callers.into_iter().map(|caller| caller.join().unwrap()).max();
    assert_eq!(highest, Some(300));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let executed = |running: &[(atlas_smr_replica::ReplicaHandle, _)]| -> Vec<_> {
        running
            .iter()
            .map(|(handle, _)| handle.standing().executed)
            .collect()
    };
    while executed(&running).windows(2).any(|pair| pair[0] != pair[1]) {
        assert!(std::time::Instant::now() < deadline, "{:?}", executed(&running));
        std::thread::yield_now();
    }
    let digests: Vec<_> = running
        .iter()
        .map(|(handle, _)| handle.digest().unwrap().digest)
        .collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
    for (handle, thread) in running {
        handle.shutdown();
        thread.join().unwrap().unwrap();
    }
}
