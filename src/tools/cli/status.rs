mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;

use self::verdict::{Facts, Health, Looks, judge};
use super::CommandError;
use crate::client::status;
use crate::runtime::config::ClientConfig;
use crate::runtime::metrics::ReplicaRow;
use crate::smr::messages::AdminReply;
use crate::smr::types::{Digest, NodeId};

/// Between the two looks at each replica: what moves at all has moved by then.
const PAUSE: Duration = Duration::from_millis(400);

/// Show where each replica of a running cluster stands, and whether the cluster is well.
///
/// Looks twice, a moment apart, to see who moves. Exit code 0: OK, every replica takes part; 1: DEGRADED, the
/// cluster serves, and can lose fewer replicas than it should; 2: STALLED, fewer take part than are needed;
/// 3: DIVERGED, replicas have different states. Operations and checkpoints are those since each replica was
/// started.
///
/// With --peers: ✗ marks what no correct peer causes, ? what a slow or overloaded one may. The messages
/// themselves are at the replica's admin endpoint, /debug/peers.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// A client's file, as `atlas init` makes it. No other process may use this client meanwhile.
    #[arg(long)]
    config: PathBuf,
    /// Also print every counter that is not zero.
    #[arg(long)]
    counters: bool,
    /// Also print what each replica refused of its peers, and how often; JSON has it always.
    #[arg(long)]
    peers: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let config = ClientConfig::load(&self.config)?;
        let quorum = config.cluster.quorum();
        let look = || look(&config, quorum.n());
        let first = look();
        std::thread::sleep(PAUSE);
        let second = look();
        let mut rows: Vec<ReplicaRow> = NodeId::all(quorum.n())
            .zip(&second)
            .map(|(node, answer)| match answer {
                Ok(answer) => ReplicaRow::of(answer),
                Err(error) => ReplicaRow::unanswered(node, Some(error.clone())),
            })
            .collect();
        let most = rows.iter().map(|row| row.executed).max().unwrap_or(0);
        rows.iter_mut()
            .for_each(|row| row.lag = Some(most - row.executed));
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

    fn print(&self, rows: &[ReplicaRow], health: &Health) {
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
                row.lag.unwrap_or(0),
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
            if self.peers {
                print_evidence(row);
            }
        }
        health.findings.iter().for_each(|finding| println!("! {finding}"));
        println!(
            "{}: {} of {} replicas take part, {} needed; {} more may fail",
            health.verdict, health.sound, health.replicas, health.needed, health.faults_tolerable
        );
    }
}

/// What a replica refused of its peers.
fn print_evidence(row: &ReplicaRow) {
    if row.evidence.is_empty() {
        println!("      nothing of its peers was refused since it started");
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    for evidence in &row.evidence {
        let mark = if evidence.misbehaviour { '✗' } else { '?' };
        let ago = Duration::from_millis(now_ms.saturating_sub(evidence.last_unix_ms)).as_secs();
        let digest = evidence.digest.as_deref().and_then(|digest| digest.get(..16));
        println!(
            "    {mark} {:<5} {:<30} {:>9} times, the last {ago} s ago  {}",
            evidence.peer,
            evidence.kind,
            evidence.count,
            digest.unwrap_or("-")
        );
    }
}

/// What a replica answered, or why it did not.
type Answer = Result<AdminReply, String>;

/// Asks all replicas at once: one that is far or hangs delays the others' answers by nothing.
fn look(config: &ClientConfig, n: usize) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = NodeId::all(n)
            .map(|node| scope.spawn(move || status(config, node).map(|answer| answer.to_reply())))
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
fn facts(answer: &AdminReply) -> Facts {
    let counters = ReplicaRow::of(answer).counters;
    let checkpoints = answer.checkpoints.iter();
    Facts {
        view: answer.view,
        ordered: answer.ordered,
        durable: answer.durable,
        executed: answer.executed,
        stable: answer.stable,
        links: answer.replica_links,
        orders: answer.orders,
        transfers: answer.transfers,
        abstains: answer.abstains,
        waits_for_space: answer.waits_for_space,
        runs_twice: counters
            .get("identity_used_twice")
            .is_some_and(|times| *times > 0),
        phase: answer.phase.clone(),
        checkpoints: checkpoints
            .map(|told| (told.seq, Digest::from_bytes(told.digest)))
            .collect(),
    }
}
