mod verdict;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use self::verdict::{Facts, Health, Looks, judge};
use super::CommandError;
use crate::client::status;
use crate::runtime::config::ClientConfig;
use crate::smr::messages::AdminReply;
use crate::smr::messages::Checked;
use crate::smr::types::{Digest, NodeId};

/// Between the two looks at each replica: what moves at all has moved by then.
const PAUSE: Duration = Duration::from_millis(400);

/// Show where each replica of a running cluster stands, and whether the cluster is well.
///
/// Looks twice, a moment apart, to see who moves. Exit code 0: OK, every replica takes part; 1: DEGRADED, the
/// cluster serves, and can lose fewer replicas than it should; 2: STALLED, fewer take part than are needed;
/// 3: DIVERGED, replicas have different states. Operations and checkpoints are those since each replica was
/// started.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// A client's file, as `atlas init` makes it. No other process may use this client meanwhile.
    #[arg(long)]
    config: PathBuf,
    /// Also print every counter that is not zero.
    #[arg(long)]
    counters: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// What one replica answered.
#[derive(Debug, Serialize)]
struct Row {
    node: String,
    /// Why it did not answer.
    error: Option<String>,
    view: u64,
    ordered: u64,
    durable: u64,
    executed: u64,
    stable: u64,
    /// How many decisions it executed less than the replica that executed most.
    lag: u64,
    phase: String,
    operations: u64,
    replica_links: u64,
    client_links: u64,
    checkpoint: u64,
    checkpoint_digest: String,
    /// How far a state is that comes from other replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<Transfer>,
    counters: BTreeMap<String, u64>,
}

/// A state on its way to a replica.
#[derive(Debug, Serialize)]
struct Transfer {
    pieces: u64,
    pieces_of: u64,
    bytes: u64,
    donors: u64,
    bytes_per_second: u64,
    /// `None` while that is not known.
    seconds_left: Option<f64>,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let config = ClientConfig::load(&self.config)?;
        let quorum = config.cluster.quorum();
        let look = || look(&config, quorum.n());
        let first = look();
        std::thread::sleep(PAUSE);
        let second = look();
        let mut rows: Vec<Row> = NodeId::all(quorum.n())
            .zip(&second)
            .map(|(node, answer)| row(node, answer))
            .collect();
        let most = rows.iter().map(|row| row.executed).max().unwrap_or(0);
        rows.iter_mut().for_each(|row| row.lag = most - row.executed);
        let looks = first.into_iter().zip(second).zip(NodeId::all(quorum.n()));
        let looks: Vec<Looks> = looks
            .map(|((first, second), node)| Looks {
                node: node.to_string(),
                first: first.ok().map(|answer| facts(&answer)),
                second: second.map(|answer| facts(&answer)),
            })
            .collect();
        let health = judge(&looks, quorum);
        if self.json {
            let all = serde_json::json!({ "replicas": rows, "health": health });
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            self.print(&rows, &health);
        }
        Ok(ExitCode::from(health.verdict.code()))
    }

    fn print(&self, rows: &[Row], health: &Health) {
        println!(
            "{:<5} {:>5} {:>9} {:>9} {:>9} {:>9} {:>6} {:>12} {:>8} {:>7}  {:<18} phase",
            "node",
            "view",
            "ordered",
            "durable",
            "executed",
            "stable",
            "lag",
            "operations",
            "replicas",
            "clients",
            "checkpoint"
        );
        for row in rows {
            if let Some(error) = &row.error {
                println!("{:<5} ✗ {error}", row.node);
                continue;
            }
            println!(
                "{:<5} {:>5} {:>9} {:>9} {:>9} {:>9} {:>6} {:>12} {:>8} {:>7}  {:<18} {}",
                row.node,
                row.view,
                row.ordered,
                row.durable,
                row.executed,
                row.stable,
                row.lag,
                row.operations,
                row.replica_links,
                row.client_links,
                match row.checkpoint {
                    0 => "none since start".to_owned(),
                    seq => format!("{} at {seq}", row.checkpoint_digest),
                },
                row.phase
            );
            if self.counters {
                let counted = row.counters.iter().filter(|(_, value)| **value > 0);
                counted.for_each(|(name, value)| println!("      {name} {value}"));
            }
        }
        health.findings.iter().for_each(|finding| println!("! {finding}"));
        println!(
            "{}: {} of {} replicas take part, {} needed; {} more may fail",
            health.verdict, health.sound, health.replicas, health.needed, health.faults_tolerable
        );
    }
}

/// What a replica answered, or why it did not.
type Answer = Result<Checked<AdminReply>, String>;

/// Asks all replicas at once: one that is far or hangs delays the others' answers by nothing.
fn look(config: &ClientConfig, n: usize) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = NodeId::all(n)
            .map(|node| scope.spawn(move || status(config, node)))
            .collect();
        asked
            .into_iter()
            .map(|answer| {
                answer
                    .join()
                    .unwrap_or_else(|_| Err("asking it failed".to_owned()))
            })
            .collect()
    })
}

/// What the verdict is about.
fn facts(answer: &Checked<AdminReply>) -> Facts {
    let checkpoints = answer.checkpoints.iter();
    Facts {
        view: answer.view.to_native(),
        ordered: answer.ordered.to_native(),
        durable: answer.durable.to_native(),
        executed: answer.executed.to_native(),
        stable: answer.stable.to_native(),
        links: answer.replica_links.to_native(),
        orders: answer.orders,
        transfers: answer.transfers,
        abstains: answer.abstains,
        waits_for_space: answer.waits_for_space,
        runs_twice: read_counters(&answer.counters)
            .get("identity_used_twice")
            .is_some_and(|times| *times > 0),
        phase: answer.phase.to_string(),
        checkpoints: checkpoints
            .map(|told| (told.seq.to_native(), Digest::from_bytes(told.digest)))
            .collect(),
    }
}

fn row(node: NodeId, answer: &Answer) -> Row {
    let (error, answer) = match answer {
        Ok(answer) => (None, Some(answer)),
        Err(error) => (Some(error.clone()), None),
    };
    let number =
        |read: fn(&crate::smr::messages::archived::ArchivedAdminReply) -> u64| answer.map_or(0, |s| read(s));
    Row {
        node: node.to_string(),
        error,
        view: number(|s| s.view.to_native()),
        ordered: number(|s| s.ordered.to_native()),
        durable: number(|s| s.durable.to_native()),
        executed: number(|s| s.executed.to_native()),
        stable: number(|s| s.stable.to_native()),
        lag: 0,
        phase: answer.map(|s| s.phase.to_string()).unwrap_or_default(),
        operations: number(|s| s.operations.to_native()),
        replica_links: number(|s| s.replica_links.to_native()),
        client_links: number(|s| s.client_links.to_native()),
        checkpoint: number(|s| s.checkpoints.last().map_or(0, |last| last.seq.to_native())),
        checkpoint_digest: answer
            .and_then(|s| Some(Digest::from_bytes(s.checkpoints.last()?.digest)))
            .unwrap_or(Digest::ZERO)
            .short()
            .to_string(),
        transfer: (number(|s| s.transfer_pieces_of.to_native()) > 0).then(|| {
            let left = number(|s| s.transfer_milliseconds_left.to_native());
            Transfer {
                pieces: number(|s| s.transfer_pieces.to_native()),
                pieces_of: number(|s| s.transfer_pieces_of.to_native()),
                bytes: number(|s| s.transfer_bytes.to_native()),
                donors: number(|s| s.transfer_donors.to_native()),
                bytes_per_second: number(|s| s.transfer_bytes_per_second.to_native()),
                seconds_left: (left > 0).then_some(left as f64 / 1e3),
            }
        }),
        counters: answer.map(|s| read_counters(&s.counters)).unwrap_or_default(),
    }
}

/// Counters as they come: a name and a value on each line.
fn read_counters(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}
