//! A replica from parts of one's own: an ordering protocol around another one, a decision log, an executor;
//! and on a host of its own: a persistent log and a network node around others. The same stack runs over
//! sockets and in the simulator, and its parts are configured in the replica's file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atlas_smr_replica::config::{
    Agreement, InvalidSetting, LogTransferConfig, MonolithicStateReplicaConfig, OrderingConfig, PartConfig,
    PartConfigs, PartSettings, ReplicaConfig, StateTransferConfig, ViewTransferConfig,
};
use atlas_smr_replica::crypto::{Chain, Digester};
use atlas_smr_replica::decision_log::{Decision, DecisionLog};
use atlas_smr_replica::execution::apps::counter::{self, Counter};
use atlas_smr_replica::execution::{
    ExecutionEvent, Executor, ExecutorPart, ExecutorSettings, SessionWindows, SingleThreaded, SnapshotError,
};
use atlas_smr_replica::log_transfer::RangedLogTransfer;
use atlas_smr_replica::messages::{
    Archived, Batch, BatchRef, CheckpointClaim, Frame, FrameId, Proposal, SignedCheckpoint, Status,
};
use atlas_smr_replica::ordering::OrderingProtocol;
use atlas_smr_replica::ordering::pbft::Pbft;
use atlas_smr_replica::protocol::{
    OrderingProgress, Outbox, OwnRecord, Part, PartContext, Record, RestoreError, Timer, in_range,
};
use atlas_smr_replica::replica::Stack;
use atlas_smr_replica::sim::{Cluster, check_contract};
use atlas_smr_replica::state_transfer::monolithic::PieceTransfer;
use atlas_smr_replica::types::{Digest, NodeId, Quorum, SeqNo, Time, UnixTime, View};
use atlas_smr_replica::view_transfer::pbft::PbftViewChange;
use atlas_smr_replica::{Client, MonReplica};
use futures_lite::future::block_on;
use serde::{Deserialize, Serialize};

#[path = "../shared/mod.rs"]
mod shared;

use host::OwnHost;
use shared::configs::configure_for;

/// Proposals that went through [`Throttled`], and decisions that went through [`Audited`].
static PROPOSED: AtomicU64 = AtomicU64::new(0);
static AUDITED: AtomicU64 = AtomicU64::new(0);

/// Each method of a trait as that of a field.
macro_rules! passed_on {
    ($to:tt: $(fn $name:ident $args:tt $(-> $result:ty)?;)*) => {
        $(passed_on!(@one $to $name $args ($($result)?));)*
    };
    (@one $to:tt $name:ident (&$self:ident $(, $arg:ident: $kind:ty)*) ($($result:ty)?)) => {
        fn $name(&$self $(, $arg: $kind)*) $(-> $result)? { $self.$to.$name($($arg),*) }
    };
    (@one $to:tt $name:ident (&mut $self:ident $(, $arg:ident: $kind:ty)*) ($($result:ty)?)) => {
        fn $name(&mut $self $(, $arg: $kind)*) $(-> $result)? { $self.$to.$name($($arg),*) }
    };
}

mod host;

/// How many proposals may be under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ThrottleConfig {
    under_way_max: usize,
}

impl Default for ThrottleConfig {
    fn default() -> Self {
        Self { under_way_max: 2 }
    }
}

impl PartConfig for ThrottleConfig {
    fn validate(&self) -> Result<(), InvalidSetting> {
        in_range("under_way_max", self.under_way_max, 1..=64)
    }
}

/// PBFT that counts its proposals.
struct Throttled(Pbft);

impl Part for Throttled {
    type Config = ThrottleConfig;

    fn make(config: &ThrottleConfig, context: &PartContext) -> Self {
        let pipeline = config.under_way_max;
        Self(Pbft::make(&OrderingConfig { pipeline }, context))
    }
}

impl OrderingProtocol for Throttled {
    type Message = <Pbft as OrderingProtocol>::Message;
    type Evidence = <Pbft as OrderingProtocol>::Evidence;
    type Start = <Pbft as OrderingProtocol>::Start;

    fn leader_of(view: View, quorum: Quorum) -> NodeId {
        Pbft::leader_of(view, quorum)
    }

    fn describe(contents: &[u8]) -> Option<OwnRecord> {
        Pbft::describe(contents)
    }

    fn propose(&mut self, now: Time, batch: Arc<Batch>, out: &mut Outbox) {
        PROPOSED.fetch_add(1, Ordering::Relaxed);
        self.0.propose(now, batch, out);
    }

    passed_on! { 0:
        fn view(&self) -> View;
        fn leader(&self) -> NodeId;
        fn promise_span(&self) -> u64;
        fn is_leading(&self) -> bool;
        fn free_slots(&self) -> usize;
        fn on_proposal(&mut self, now: Time, from: NodeId, proposal: Proposal, out: &mut Outbox);
        fn on_message(&mut self, now: Time, from: NodeId, message: &Archived<Self::Message>, out: &mut Outbox);
        fn on_checkpoint(&mut self, now: Time, from: NodeId, checkpoint: SignedCheckpoint, out: &mut Outbox);
        fn on_stable(&mut self, now: Time, from: NodeId, proof: &[SignedCheckpoint], out: &mut Outbox);
        fn on_own_checkpoint(&mut self, now: Time, claim: CheckpointClaim, out: &mut Outbox);
        fn on_timeout(&mut self, now: Time, timer: Timer, out: &mut Outbox);
        fn leave_view(&mut self, next: View) -> Self::Evidence;
        fn enter_view(&mut self, now: Time, start: &Self::Start, out: &mut Outbox);
        fn take_early(&mut self, now: Time, out: &mut Outbox) -> bool;
        fn on_wall_clock(&mut self, now: Time, unix: UnixTime);
        fn next_time(&self, now: Time) -> UnixTime;
        fn on_fetch(&mut self, now: Time, from: NodeId, wanted: &[BatchRef], out: &mut Outbox);
        fn on_batch(&mut self, now: Time, from: NodeId, batch: Proposal, out: &mut Outbox);
        fn on_decisions(&mut self, now: Time, from: NodeId, decisions: &[BatchRef], out: &mut Outbox);
        fn on_status(&mut self, now: Time, from: NodeId, status: &Status, out: &mut Outbox);
        fn standing(&mut self) -> OrderingProgress;
        fn evidence(&self) -> Self::Evidence;
        fn restore_base(&mut self, seq: SeqNo);
        fn restore(&mut self, record: &Record) -> Result<(), RestoreError>;
        fn restore_snapshot(&mut self, claim: CheckpointClaim);
        fn restore_view(&mut self, start: &Self::Start);
        fn restore_decision(&mut self, seq: SeqNo, digest: Digest) -> Option<Arc<Proposal>>;
        fn resume(&mut self, now: Time, out: &mut Outbox);
        fn base_records(&self) -> Vec<Record>;
        fn certificate(&self, claim: CheckpointClaim, proof: &[SignedCheckpoint]) -> Option<Vec<SignedCheckpoint>>;
        fn jump(&mut self, now: Time, seq: SeqNo, stable: CheckpointClaim, proof: &[SignedCheckpoint], out: &mut Outbox);
        fn on_transferred(&mut self, now: Time, decision: &Arc<Proposal>, out: &mut Outbox);
        fn restore_end(&mut self, last: SeqNo);
        fn decided(&self) -> SeqNo;
        fn stable(&self) -> SeqNo;
    }
}

/// A decision log that forgets nothing before a cut.
struct PlainLog {
    digester: Digester,
    base: SeqNo,
    chain: Chain,
    is_proved: bool,
    decisions: BTreeMap<SeqNo, Decision>,
}

impl Part for PlainLog {
    type Config = ();

    fn make(_: &(), context: &PartContext) -> Self {
        Self {
            digester: context.digester.clone(),
            base: SeqNo::ZERO,
            chain: Chain::START,
            is_proved: true,
            decisions: BTreeMap::new(),
        }
    }
}

impl PlainLog {
    fn append(&mut self, proposal: &Arc<Proposal>, chain: Chain) {
        self.chain = chain;
        let proposal = proposal.clone();
        self.decisions.insert(proposal.seq, Decision { proposal, chain });
    }

    fn next_chain(&self, proposal: &Proposal) -> Chain {
        let batch = &proposal.batch.digest;
        self.chain.then(proposal.seq, batch, &self.digester)
    }
}

impl DecisionLog for PlainLog {
    fn on_decided(&mut self, proposal: &Arc<Proposal>, out: &mut Outbox) {
        let chain = self.next_chain(proposal);
        self.append(proposal, chain);
        out.persist(Record::Decision {
            seq: proposal.seq,
            digest: proposal.batch.digest,
            chain,
        });
    }

    fn on_stable(&mut self, _: SeqNo) {}

    fn on_cut(&mut self, seq: SeqNo) {
        self.base = self.base.max(seq.min(self.last()));
        self.decisions = self.decisions.split_off(&self.base.next());
    }

    fn restore_base(&mut self, seq: SeqNo, chain: Chain) {
        (self.base, self.chain, self.is_proved) = (seq, chain, true);
        self.decisions.clear();
    }

    fn restore(&mut self, proposal: &Arc<Proposal>, chain: Chain) -> Result<(), RestoreError> {
        let (last, seq) = (self.last(), proposal.seq);
        if seq != last.next() {
            return Err(RestoreError::Gap { last, found: seq });
        }
        if std::mem::replace(&mut self.is_proved, true) && self.next_chain(proposal) != chain {
            return Err(RestoreError::Chain { seq });
        }
        self.append(proposal, chain);
        Ok(())
    }

    fn restore_batch(&mut self, _: SeqNo, _: Digest) {}

    fn restore_earlier(&mut self, _: SeqNo, _: Digest, _: Chain) {}

    fn restore_base_unproved(&mut self, seq: SeqNo) {
        self.restore_base(seq, Chain::START);
        self.is_proved = false;
    }

    fn is_proved(&self) -> bool {
        self.is_proved
    }

    fn keep_after(&mut self, _: SeqNo) {}

    fn kept_bytes(&self) -> usize {
        let kept = self.decisions.values();
        kept.map(|decision| decision.proposal.batch.bytes).sum()
    }

    fn base(&self) -> SeqNo {
        self.base
    }

    fn floor(&self) -> SeqNo {
        self.base
    }

    fn digests(&self, first: SeqNo, count: usize) -> impl Iterator<Item = Digest> {
        self.read(first, count)
            .map(|decision| decision.proposal.batch.digest)
    }

    fn last(&self) -> SeqNo {
        let last = self.decisions.last_key_value();
        last.map_or(self.base, |(seq, _)| *seq)
    }

    fn chain(&self) -> Chain {
        self.chain
    }

    fn read(&self, first: SeqNo, count: usize) -> impl Iterator<Item = &Decision> {
        let count = if first <= self.base { 0 } else { count };
        self.decisions
            .range(first..)
            .map(|(_, decision)| decision)
            .take(count)
    }
}

/// Executes one operation after the other, and counts decisions.
struct Audited(SingleThreaded<Counter>);

impl ExecutorPart<Counter> for Audited {
    fn make(application: Counter, settings: &ExecutorSettings) -> Self {
        Self(SingleThreaded::make(application, settings))
    }
}

impl Executor for Audited {
    fn execute(&mut self, decision: &Arc<Proposal>, events: &mut Vec<ExecutionEvent>) {
        AUDITED.fetch_add(1, Ordering::Relaxed);
        self.0.execute(decision, events);
    }

    passed_on! { 0:
        fn execute_unordered(&mut self, frame: &Frame, events: &mut Vec<ExecutionEvent>);
        fn reply_again(&mut self, frame: &FrameId, events: &mut Vec<ExecutionEvent>);
        fn background_step(&mut self, budget_bytes: usize, events: &mut Vec<ExecutionEvent>) -> bool;
        fn digest_now(&mut self) -> CheckpointClaim;
        fn keep_snapshots(&mut self, keep: bool);
        fn read_snapshot_chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError>;
        fn finish_snapshot(&mut self) -> Result<CheckpointClaim, SnapshotError>;
        fn chain(&self) -> Chain;
        fn client_windows(&self) -> Vec<SessionWindows>;
        fn executed(&self) -> SeqNo;
        fn panics(&self) -> u64;
    }
}

/// How the parts below are configured.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnConfigs;

impl PartConfigs for OwnConfigs {
    type Ordering = ThrottleConfig;
    type ViewTransfer = ViewTransferConfig;
    type DecisionLog = ();
    type LogTransfer = LogTransferConfig;
    type StateTransfer = StateTransferConfig;
}

struct OwnStack;

impl Stack for OwnStack {
    type Application = Counter;
    type Configs = OwnConfigs;
    type Ordering = Throttled;
    type ViewTransfer = PbftViewChange;
    type DecisionLog = PlainLog;
    type LogTransfer = RangedLogTransfer;
    type StateTransfer = PieceTransfer<<Counter as atlas_smr_replica::execution::Application>::State>;
    type Executor = Audited;
}

/// The same replica, of this stack.
fn own(config: &ReplicaConfig) -> ReplicaConfig<OwnConfigs, OwnHost> {
    let (node, db_path) = (config.node.clone(), config.db_path.clone());
    let mut own = ReplicaConfig::of_parts(node.cluster.clone(), node.id, node.keys.clone(), db_path);
    own.node = node;
    own.topology = config.topology.clone();
    own
}

#[test]
fn a_stack_of_ones_own_serves_over_sockets_and_is_there_again_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let agreement = Agreement {
        checkpoint_decisions: 8,
        window: 16,
        ..Agreement::default()
    };
    let (configs, clients) = configure_for("counter", data.path(), agreement, 1);
    let (proposed, audited) = (PROPOSED.load(Ordering::Relaxed), AUDITED.load(Ordering::Relaxed));
    let before = host::counts();
    for life in 0..2 {
        let replicas: Vec<_> = configs
            .iter()
            .map(|config| {
                let config = MonolithicStateReplicaConfig {
                    service: Counter,
                    replica_config: own(config),
                    st_config: StateTransferConfig::default(),
                };
                block_on(MonReplica::<Counter, OwnStack, OwnHost>::bootstrap_stack(config)).unwrap()
            })
            .collect();
        let handles: Vec<_> = replicas.iter().map(MonReplica::handle).collect();
        let threads: Vec<_> = replicas
            .into_iter()
            .map(|replica| std::thread::spawn(move || block_on(replica.run())))
            .collect();
        assert!(handles.iter().all(|handle| block_on(handle.await_quorum())));
        let client = Client::connect_blocking(clients[0].clone()).unwrap();
        for number in 1..=30 {
            let sum = client.call_blocking(counter::add(1)).unwrap();
            assert_eq!(counter::value(&sum), Some(30 * life + number));
        }
        drop(client);
        handles
            .iter()
            .for_each(atlas_smr_replica::ReplicaHandle::shutdown);
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
        assert!(!block_on(handles[0].await_quorum()), "it has ended");
    }
    assert!(PROPOSED.load(Ordering::Relaxed) > proposed);
    assert!(AUDITED.load(Ordering::Relaxed) > audited);
    let after = host::counts();
    for (what, before) in before {
        assert!(after[what] > before, "{what}");
    }
}

#[test]
fn the_same_stack_runs_in_the_simulator() {
    let mut cluster = Cluster::<Counter>::builder()
        .seed(7)
        .start_stack::<OwnStack>(Counter, PartSettings::default());
    let within = Duration::from_secs(30);
    for expected in 1..=40 {
        let sum = cluster.call(&counter::add(1), within).unwrap();
        assert_eq!(counter::value(&sum), Some(expected));
        if expected == 20 {
            cluster.crash(NodeId::new(0));
        }
    }
    cluster.check().unwrap();
    assert!(PROPOSED.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_stack_of_ones_own_keeps_the_contract() {
    check_contract::<OwnStack>(&PartSettings::default(), 0..3).unwrap();
}

#[test]
fn a_part_of_ones_own_is_configured_in_the_replicas_file() {
    let data = tempfile::tempdir().unwrap();
    let (path, text) = replica_file(data.path(), &["[decision_log]", "[ordering]"]);
    let write = |setting: &str| std::fs::write(&path, format!("{text}\n[ordering]\n{setting}\n")).unwrap();
    write("under_way_max = 5");
    let loaded = ReplicaConfig::<OwnConfigs>::load_parts(&path).unwrap();
    assert_eq!(loaded.replica_config.op_config.under_way_max, 5);
    for (setting, expected) in [
        ("under_way_max = 0", "under_way_max = 0: must be between 1 and 64"),
        ("under_way = 3", "did you mean `under_way_max`?"),
    ] {
        write(setting);
        let error = ReplicaConfig::<OwnConfigs>::load_parts(&path)
            .unwrap_err()
            .to_string();
        let line = text.lines().count() + 3;
        assert!(error.contains(expected), "{error}");
        assert!(
            error.contains(&format!("r0.toml:{line}:")),
            "line {line}: {error}"
        );
    }
    // What a program says is checked as well.
    let (configs, _) = configure_for("counter", data.path(), Agreement::default(), 1);
    let mut config = own(&configs[0]);
    config.op_config.under_way_max = 65;
    let refused = block_on(MonReplica::<Counter, OwnStack, OwnHost>::bootstrap_stack(
        MonolithicStateReplicaConfig {
            service: Counter,
            replica_config: config,
            st_config: StateTransferConfig::default(),
        },
    ));
    let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("under_way_max = 65"), "{error}");
}

/// A replica's file as `atlas init` makes it, and its text without the sections of parts that are others.
fn replica_file(data: &Path, others: &[&str]) -> (PathBuf, String) {
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_atlas"))
        .args(["init", "--out"])
        .arg(data.join("cluster"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let path = data.join("cluster/r0.toml");
    let mut sections = sections(&std::fs::read_to_string(&path).unwrap());
    sections.retain(|section| !others.iter().any(|other| section.starts_with(other)));
    (path, sections.concat())
}

/// A file's sections, the first without a name.
fn sections(text: &str) -> Vec<String> {
    let mut sections = vec![String::new()];
    for line in text.lines() {
        if line.starts_with('[') {
            sections.push(String::new());
        }
        let last = sections.len() - 1;
        sections[last].push_str(&format!("{line}\n"));
    }
    sections
}

#[test]
fn a_replica_that_was_told_where_its_files_end_refuses_others() {
    let data = tempfile::tempdir().unwrap();
    let (configs, _) = configure_for("counter", data.path(), Agreement::default(), 1);
    let start = |next: u64| {
        let mut replica_config = configs[0].clone();
        replica_config.next_consensus_seq = Some(SeqNo::new(next));
        block_on(MonReplica::bootstrap(MonolithicStateReplicaConfig {
            service: Counter,
            replica_config,
            st_config: StateTransferConfig::default(),
        }))
    };
    let error = start(7).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(
        error.contains("next_consensus_seq = 7: on disk the next one is 1"),
        "{error}"
    );
    let replica = start(1).unwrap();
    replica.handle().shutdown();
    block_on(replica.run()).unwrap();
}

#[test]
fn an_executor_that_the_program_does_not_have_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let (configs, _) = configure_for("counter", data.path(), Agreement::default(), 1);
    let mut replica_config = configs[0].clone();
    replica_config.execution.executor = atlas_smr_replica::config::ExecutorKind::Speculative;
    let refused = block_on(MonReplica::bootstrap(MonolithicStateReplicaConfig {
        service: Counter,
        replica_config,
        st_config: StateTransferConfig::default(),
    }));
    let error = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("executor = \"speculative\""), "{error}");
}
