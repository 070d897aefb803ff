//! A service whose state is in parts of its own, on four real replicas: one that was away is sent what
//! changed.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use atlas_smr_replica::config::{
    Agreement, DecisionLogConfig, DivisibleStateReplicaConfig, ReplicaConfig, StateTransferConfig,
};
use atlas_smr_replica::execution::{
    Application, DivisibleState, OperationContext, Parts, ResultWriter, SnapshotError, StatePart,
};
use atlas_smr_replica::{Client, DivStReplica, ReplicaHandle};
use futures_lite::future::block_on;

mod shared;

use shared::configs::configure_for;

const LIMIT: Duration = Duration::from_secs(60);
const PARTS: usize = 64;
const ACCOUNTS: u32 = 2000;
const CHECKPOINT_DECISIONS: u64 = 20;

/// Accounts, each in the part that its number names.
struct Ledger(Parts<Accounts>);

/// Their balances.
#[derive(Clone, Default)]
struct Accounts(BTreeMap<u32, u64>);

const ENTRY_BYTES: usize = 12;

impl StatePart for Accounts {
    fn write(&self, out: &mut Vec<u8>) {
        for (account, balance) in &self.0 {
            out.extend_from_slice(&account.to_le_bytes());
            out.extend_from_slice(&balance.to_le_bytes());
        }
    }

    fn size_bytes(&self) -> u64 {
        (ENTRY_BYTES * self.0.len()) as u64
    }
}

impl DivisibleState for Ledger {
    type Part = Accounts;

    fn blank() -> Self {
        Self(Parts::new(PARTS))
    }

    fn parts(&self) -> &Parts<Accounts> {
        &self.0
    }

    fn read_part(&mut self, number: usize, bytes: &[u8]) -> Result<(), SnapshotError> {
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        let number_of =
            |entry: &[u8; ENTRY_BYTES]| entry.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let balance_of =
            |entry: &[u8; ENTRY_BYTES]| entry.last_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let read: Option<Vec<(u32, u64)>> = entries
            .iter()
            .map(|entry| number_of(entry).zip(balance_of(entry)))
            .collect();
        let read = read.filter(|read| {
            rest.is_empty()
                && read
                    .iter()
                    .all(|(account, _)| *account as usize % PARTS == number)
        });
        let read = read.ok_or(SnapshotError::State)?;
        self.0.change(number, |accounts| accounts.0.extend(read));
        Ok(())
    }
}

/// Adds an amount to an account; the result is its balance.
struct Bookkeeper;

impl Application for Bookkeeper {
    type State = Ledger;

    fn initial_state(&self) -> Ledger {
        Ledger::blank()
    }

    fn update(&self, state: &mut Ledger, _: &OperationContext, operation: &[u8], result: &mut ResultWriter) {
        let Some((account, amount)) = operation
            .split_first_chunk()
            .map(|(account, rest)| (u32::from_le_bytes(*account), rest))
        else {
            return;
        };
        let balance = state.0.change(account as usize % PARTS, |accounts| {
            let balance = accounts.0.entry(account).or_default();
            *balance += amount.len() as u64;
            *balance
        });
        result.extend_from_slice(&balance.to_le_bytes());
    }

    fn unordered_execution(
        &self,
        state: &Ledger,
        _: &OperationContext,
        operation: &[u8],
        result: &mut ResultWriter,
    ) {
        let account = operation
            .first_chunk()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let balance = state.0.get(account as usize % PARTS).0.get(&account);
        result.extend_from_slice(&balance.copied().unwrap_or(0).to_le_bytes());
    }

    fn name(&self) -> &'static str {
        "bookkeeper"
    }
}

struct Running {
    handle: ReplicaHandle,
    thread: JoinHandle<()>,
}

impl Running {
    fn start(config: ReplicaConfig) -> Self {
        let replica = DivStReplica::bootstrap(DivisibleStateReplicaConfig {
            service: Bookkeeper,
            replica_config: config,
            st_config: StateTransferConfig::default(),
        });
        let replica = block_on(replica).unwrap();
        Self {
            handle: replica.handle(),
            thread: std::thread::spawn(move || block_on(replica.run()).unwrap()),
        }
    }

    fn stop(self) {
        self.handle.shutdown();
        self.thread.join().unwrap();
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// Adds one to these accounts, one after the other.
fn pay(client: &Client, accounts: impl Iterator<Item = u32>) {
    for account in accounts {
        let operation = [&account.to_le_bytes()[..], b"1"].concat();
        assert_eq!(client.call_blocking(operation).unwrap().len(), 8);
    }
}

/// Waits until all have executed the same; their digests.
fn wait_for_equal_states(running: &[Running]) {
    let executed = || -> Vec<_> {
        let standings = running.iter().map(|replica| replica.handle.standing());
        standings.map(|standing| standing.executed).collect()
    };
    wait("all execute the same", || {
        executed().windows(2).all(|pair| pair[0] == pair[1])
    });
    let digests: Vec<_> = running
        .iter()
        .map(|replica| replica.handle.digest().unwrap().digest)
        .collect();
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
}

#[test]
fn a_replica_that_was_away_is_sent_the_parts_that_changed_and_takes_the_others_out_of_its_own_snapshot() {
    let data = tempfile::tempdir().unwrap();
    let agreement = Agreement {
        checkpoint_decisions: CHECKPOINT_DECISIONS,
        window: 4 * CHECKPOINT_DECISIONS,
        // A state in every checkpoint.
        state_log_bytes_max: 1 << 16,
        ..Agreement::default()
    };
    let (mut configs, mut clients) = configure_for("bookkeeper", data.path(), agreement, 1);
    for config in &mut configs {
        // Whoever was away for two checkpoints needs a state.
        config.dl_config = DecisionLogConfig {
            kept_decisions: 1,
            kept_bytes: 1 << 20,
        };
    }
    let mut running: Vec<Running> = configs.iter().cloned().map(Running::start).collect();
    let client = Client::connect_blocking(clients.remove(0)).unwrap();
    let late = &configs[3];
    // Everywhere something, and then checkpoints with little in them.
    pay(&client, 0..ACCOUNTS);
    let filled = running[3].handle.standing().executed;
    pay(&client, (0..4 * CHECKPOINT_DECISIONS as u32).map(|_| 5));
    let newest = || {
        let snapshots = std::fs::read_dir(late.db_path.join("images")).unwrap();
        let names = snapshots.filter_map(|snapshot| snapshot.ok()?.file_name().to_str()?.parse::<u64>().ok());
        names.max().unwrap_or(0)
    };
    wait("a snapshot of everything is kept", || newest() > filled.get());
    running.pop().unwrap().stop();
    // Accounts of two parts.
    pay(
        &client,
        (0..10 * CHECKPOINT_DECISIONS as u32).map(|number| 7 + number % 2),
    );
    running.push(Running::start(late.clone()));
    let counter = |name: &str| running[3].handle.counter(name);
    // The log of the others is cut at every checkpoint, so in the end only a state helps.
    wait("it takes part again", || {
        pay(&client, std::iter::once(7));
        let most = running[0].handle.standing().executed.get();
        running[3].handle.standing().executed.get() + CHECKPOINT_DECISIONS >= most
    });
    wait_for_equal_states(&running);
    assert!(counter("states_transferred") > 0, "a state was transferred");
    // Two parts, and the client's entry, may be others.
    let reused = counter("pieces_reused");
    assert!(
        reused as usize >= PARTS - 3,
        "{reused} of {PARTS} parts were there"
    );
    running.into_iter().for_each(Running::stop);
}
