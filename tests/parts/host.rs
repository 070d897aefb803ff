//! A host of one's own: a log that writes little at once, and links that count what is sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atlas_smr_replica::MonReplica;
use atlas_smr_replica::config::{
    Agreement, InvalidSetting, MonolithicStateReplicaConfig, NetworkNodeConfig, PartConfig,
    PersistentLogConfig, ReplicaConfig, StateTransferConfig,
};
use atlas_smr_replica::execution::apps::counter::Counter;
use atlas_smr_replica::messages::Family;
use atlas_smr_replica::protocol::{LogCut, Record, in_range};
use atlas_smr_replica::server::Host;
use atlas_smr_replica::shard::control::EstablishedLink;
use atlas_smr_replica::shard::network_node::{
    ApplicationNode, NetworkContext, NetworkPartConfig, ProtocolNode, ReconfigurationNode, SealedLinks,
    SmrReplicaNetworkNode, StateTransferNode,
};
use atlas_smr_replica::shard::reactor::{Completion, Reactor};
use atlas_smr_replica::shard::wires::{CloseReason, QueueBudgets, QueueFull, WireId};
use atlas_smr_replica::storage::{
    AlignedBuffer, BLOCK_BYTES, GroupWriter, LogWrite, LogWriter, Outcome, PersistentLogPartConfig, Released,
    SmrPersistentLog, StorageError, Tail, WriterSettings, check_log_contract,
};
use atlas_smr_replica::types::{Lsn, Peer, SeqNo, Time};
use bytes::Bytes;
use futures_lite::future::block_on;
use serde::{Deserialize, Serialize};

use super::{OwnConfigs, OwnStack, own, replica_file};
use crate::shared::configs::configure_for;

/// Records that went through [`SmallWrites`], and writes; messages that went through [`Tapped`], by family.
static RECORDS: AtomicU64 = AtomicU64::new(0);
static WRITES: AtomicU64 = AtomicU64::new(0);
static SENT: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

/// What must grow while replicas work, by name.
pub fn counts() -> BTreeMap<&'static str, u64> {
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    BTreeMap::from([
        ("records", read(&RECORDS)),
        ("writes", read(&WRITES)),
        ("about links", read(&SENT[Family::Reconfiguration as usize])),
        ("votes", read(&SENT[Family::Protocol as usize])),
        ("answers", read(&SENT[Family::Application as usize])),
    ])
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnHost;

impl Host for OwnHost {
    type LogConfig = SmallWritesConfig;
    type PersistentLog = SmallWrites;
    type NetworkConfig = TapConfig;
    type Network = Tapped;
}

/// How much is written at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SmallWritesConfig {
    #[serde(deserialize_with = "atlas_smr_replica::protocol::units::bytes")]
    pub write_bytes_max: usize,
}

impl Default for SmallWritesConfig {
    fn default() -> Self {
        let write_bytes_max = BLOCK_BYTES;
        Self { write_bytes_max }
    }
}

impl PartConfig for SmallWritesConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("write_bytes_max", self.write_bytes_max, BLOCK_BYTES..=1 << 30)
    }
}

impl PersistentLogPartConfig for SmallWritesConfig {
    fn segment_bytes(&self) -> u64 {
        16 << 20
    }

    fn log_bytes_max(&self) -> u64 {
        PersistentLogConfig::default().log_bytes_max
    }
}

/// A log that writes a group bit by bit: what waits for the disk elsewhere gets in between.
pub struct SmallWrites {
    log: LogWriter,
    write_bytes_max: usize,
    /// Whether the ring was told of the memory that is lent.
    has_told_memory: AtomicBool,
}

impl GroupWriter for SmallWrites {
    fn append(&mut self, record: &Record) -> Lsn {
        RECORDS.fetch_add(1, Ordering::Relaxed);
        self.log.append(record)
    }

    fn wanted_segment(&self) -> Option<(u64, u64)> {
        GroupWriter::wanted_segment(&self.log)
    }

    passed_on! { log:
        fn has_room(&self, record: &Record) -> bool;
        fn cut(&mut self, cut: LogCut) -> Option<Released>;
        fn segments_from(&self, seq: SeqNo) -> Vec<u64>;
        fn add_segment(&mut self, index: u64);
        fn durable(&self) -> Lsn;
    }
}

impl SmrPersistentLog for SmallWrites {
    type Config = SmallWritesConfig;

    fn make(config: &SmallWritesConfig, settings: WriterSettings, tail: &Tail) -> Self {
        Self {
            log: LogWriter::resume(settings, tail),
            write_bytes_max: config.write_bytes_max / BLOCK_BYTES * BLOCK_BYTES,
            has_told_memory: AtomicBool::new(false),
        }
    }

    fn memory(&self) -> Vec<&AlignedBuffer> {
        self.has_told_memory.store(true, Ordering::Relaxed);
        let memory = self.log.memory();
        assert!(
            memory.iter().all(|buffer| !buffer.is_empty()),
            "nothing is lent yet"
        );
        memory
    }

    fn next_write(&mut self) -> Option<LogWrite> {
        assert!(
            *self.has_told_memory.get_mut(),
            "it is told before the first write"
        );
        let mut write = self.log.next_write()?;
        WRITES.fetch_add(1, Ordering::Relaxed);
        let bytes = &mut write.bytes;
        bytes.end = bytes.end.min(bytes.start + self.write_bytes_max);
        Some(write)
    }

    passed_on! { log:
        fn on_written(&mut self, buffer: AlignedBuffer, outcome: Outcome) -> Result<(), StorageError>;
        fn is_idle(&self) -> bool;
        fn waits_for_space(&self) -> bool;
        fn is_short_of_space(&self) -> bool;
        fn used_bytes(&self) -> u64;
    }
}

/// What one peer may have waiting, of everything alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TapConfig {
    #[serde(deserialize_with = "atlas_smr_replica::protocol::units::bytes")]
    pub each_bytes_max: usize,
}

impl Default for TapConfig {
    fn default() -> Self {
        let each_bytes_max = 64 << 20;
        Self { each_bytes_max }
    }
}

impl PartConfig for TapConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("each_bytes_max", self.each_bytes_max, 1 << 20..=1 << 30)
    }
}

impl TapConfig {
    fn links(&self) -> NetworkNodeConfig {
        NetworkNodeConfig {
            protocol_queue_bytes_max: self.each_bytes_max,
            forwarding_queue_bytes_max: self.each_bytes_max,
            state_transfer_queue_bytes_max: self.each_bytes_max,
            client_queue_bytes_max: self.each_bytes_max,
            ..NetworkNodeConfig::default()
        }
    }
}

impl NetworkPartConfig for TapConfig {
    fn replica_queues(&self) -> QueueBudgets {
        self.links().replica_queues()
    }

    fn client_queues(&self) -> QueueBudgets {
        self.links().client_queues()
    }
}

/// Sealed links that count what is sent on them.
pub struct Tapped(SealedLinks);

fn tap(family: Family) {
    SENT[family as usize].fetch_add(1, Ordering::Relaxed);
}

impl ProtocolNode for Tapped {
    fn send_protocol(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull> {
        tap(Family::Protocol);
        self.0.send_protocol(to, message)
    }
}

impl ApplicationNode for Tapped {
    fn send_application(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull> {
        tap(Family::Application);
        self.0.send_application(to, message)
    }
}

impl StateTransferNode for Tapped {
    fn send_state_transfer(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull> {
        tap(Family::StateTransfer);
        self.0.send_state_transfer(to, message)
    }
}

impl ReconfigurationNode for Tapped {
    fn send_reconfiguration(&mut self, to: WireId, message: Bytes) -> Result<(), QueueFull> {
        tap(Family::Reconfiguration);
        self.0.send_reconfiguration(to, message)
    }
}

impl SmrReplicaNetworkNode for Tapped {
    type Config = TapConfig;

    fn make(config: &TapConfig, context: &NetworkContext) -> Self {
        Self(SealedLinks::make(&config.links(), context))
    }

    passed_on! { 0:
        fn add_link(&mut self, reactor: &mut Reactor, link: EstablishedLink) -> Option<WireId>;
        fn close_link(&mut self, link: WireId, reason: CloseReason);
        fn take_closed(&mut self) -> Vec<(WireId, Peer, CloseReason)>;
        fn next_message(&mut self, replicas: bool) -> Option<(WireId, Peer, Bytes)>;
        fn has_messages(&self) -> bool;
        fn keep_alive(&mut self, now: Time, ping: &Bytes);
        fn next_look(&self) -> Option<Time>;
        fn flush(&mut self, reactor: &mut Reactor);
        fn is_flushed(&self) -> bool;
        fn on_completion(&mut self, reactor: &mut Reactor, completion: Completion);
    }
}

#[test]
fn a_log_of_ones_own_keeps_the_contract() {
    check_log_contract::<SmallWrites>(&SmallWritesConfig::default(), 0..10).unwrap();
}

#[test]
fn what_meets_the_machine_is_configured_in_the_replicas_file_too() {
    let data = tempfile::tempdir().unwrap();
    let (path, text) = replica_file(data.path(), &["[decision_log]", "[ordering]", "[log]"]);
    let load = |section: &str, setting: &str| {
        std::fs::write(&path, format!("{text}\n[{section}]\n{setting}\n")).unwrap();
        ReplicaConfig::<OwnConfigs, OwnHost>::load_parts(&path)
    };
    let loaded = load("log", "write_bytes_max = \"8KiB\"").unwrap().replica_config;
    assert_eq!(loaded.pl_config.write_bytes_max, 8 << 10);
    let loaded = load("network", "each_bytes_max = \"96MiB\"")
        .unwrap()
        .replica_config;
    assert_eq!(loaded.net_config.replica_queues().protocol, 96 << 20);
    let line = text.lines().count() + 3;
    for (section, setting, expected) in [
        (
            "log",
            "write_bytes_max = 0",
            "write_bytes_max = 0: must be between 4096 and",
        ),
        ("log", "write_bytes = 1", "did you mean `write_bytes_max`?"),
        (
            "network",
            "each_bytes_max = 0",
            "each_bytes_max = 0: must be between 1048576 and",
        ),
        ("network", "each_bytes = 1", "did you mean `each_bytes_max`?"),
        // What the cluster needs holds for every network node.
        (
            "network",
            "each_bytes_max = \"2MiB\"",
            "protocol_queue_bytes_max = 2097152: must be at least",
        ),
    ] {
        let error = load(section, setting).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let is_named = error.contains(&format!("r0.toml:{line}:")) || setting.contains("2MiB");
        assert!(is_named, "line {line}: {error}");
    }
}

#[test]
fn what_a_program_says_of_its_host_is_checked() {
    let data = tempfile::tempdir().unwrap();
    let (configs, _) = configure_for("counter", data.path(), Agreement::default(), 1);
    let refused = |change: fn(&mut ReplicaConfig<OwnConfigs, OwnHost>)| {
        let mut replica_config = own(&configs[0]);
        change(&mut replica_config);
        let config = MonolithicStateReplicaConfig {
            service: Counter,
            replica_config,
            st_config: StateTransferConfig::default(),
        };
        let refused = block_on(MonReplica::<Counter, OwnStack, OwnHost>::bootstrap_stack(config));
        refused.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let error = refused(|config| config.pl_config.write_bytes_max = 1);
    assert!(error.contains("write_bytes_max = 1: must be between"), "{error}");
    let error = refused(|config| config.net_config.each_bytes_max = 1);
    assert!(error.contains("each_bytes_max = 1: must be between"), "{error}");
}
