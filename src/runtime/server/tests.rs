use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::block_on;

use super::monolithic_server::bootstrap_with_faults;
use crate::runtime::config::{Agreement, Durability, LoopbackCluster, MonolithicStateReplicaConfig};
use crate::runtime::flight::{DumpCause, FlightDump, FlightKind};
use crate::runtime::shard::faults::Interceptor;
use crate::smr::execution::apps::counter::Counter;
use crate::smr::state_transfer::StateTransferConfig;
use crate::smr::types::{ApplicationId, NodeId};

/// Has the consensus role panic when it says something.
struct Bug;

impl Interceptor for Bug {
    fn say(&mut self, _: NodeId, _: &Bytes) -> Vec<(NodeId, Bytes, Duration)> {
        panic!("a bug in what is said")
    }
}

#[test]
fn a_replica_that_fails_leaves_a_record_of_what_happened_before() {
    let data = tempfile::tempdir().unwrap();
    let application = ApplicationId::new("counter", 1).unwrap();
    let cluster = LoopbackCluster::new(application, Agreement::default(), (2, 0), data.path()).unwrap();
    let mut replica_config = cluster.replicas[0].clone();
    replica_config.topology.pin = false;
    replica_config.durability = Durability::None;
    let directory = replica_config.db_path.clone();
    std::fs::create_dir(&directory).unwrap();
    let config = MonolithicStateReplicaConfig {
        service: Counter,
        replica_config,
        st_config: StateTransferConfig::default(),
    };
    let (_, run) = block_on(bootstrap_with_faults(config, Some(Box::new(Bug)))).unwrap();
    let error = block_on(run).unwrap_err().to_string();
    assert!(error.contains("a bug in what is said"), "{error}");
    let records: Vec<_> = std::fs::read_dir(directory.join("flight"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(records.len(), 1, "{records:?}");
    let dump = FlightDump::decode(&std::fs::read(&records[0]).unwrap()).unwrap();
    assert_eq!(dump.cause, DumpCause::Failure);
    assert!(dump.why.contains("a bug in what is said"), "{}", dump.why);
    let kinds: Vec<FlightKind> = dump
        .merged()
        .iter()
        .filter_map(|(_, event)| event.kind())
        .collect();
    for kind in [FlightKind::Started, FlightKind::ShardFailed] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
}
