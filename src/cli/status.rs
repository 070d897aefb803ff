use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::CommandError;
use crate::client::status;
use crate::config::ClientConfig;
use crate::types::{Digest, NodeId};

/// A replica so many decisions behind the others lags.
const LAG_DECISIONS: u64 = 1000;

/// Show where each replica of a running cluster stands, and whether the cluster is well.
///
/// Exit code 0: OK, every replica takes part; 1: DEGRADED, the cluster serves, and can lose fewer replicas than it should; 2:
/// STALLED, fewer take part than are needed.
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verdict {
    Ok,
    Degraded,
    Stalled,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::Degraded => "DEGRADED",
            Self::Stalled => "STALLED",
        })
    }
}

#[derive(Debug, Serialize)]
struct Health {
    verdict: Verdict,
    /// Replicas that take part.
    sound: usize,
    needed: usize,
    replicas: usize,
    /// How many more may fail before the cluster stalls.
    faults_tolerable: usize,
    /// What is not as it should be.
    findings: Vec<String>,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let config = ClientConfig::load(&self.config)?;
        let quorum = config.cluster.quorum();
        let mut rows: Vec<Row> = NodeId::all(quorum.n()).map(|node| ask(&config, node)).collect();
        let most = rows.iter().map(|row| row.executed).max().unwrap_or(0);
        rows.iter_mut().for_each(|row| row.lag = most - row.executed);
        let health = judge(&rows, quorum.quorum());
        if self.json {
            let all = serde_json::json!({ "replicas": rows, "health": health });
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            self.print(&rows, &health);
        }
        Ok(ExitCode::from(match health.verdict {
            Verdict::Ok => 0,
            Verdict::Degraded => 1,
            Verdict::Stalled => 2,
        }))
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
                format!("{} at {}", row.checkpoint_digest, row.checkpoint),
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

fn ask(config: &ClientConfig, node: NodeId) -> Row {
    let answer = status(config, node);
    let (error, answer) = match answer {
        Ok(answer) => (None, Some(answer)),
        Err(error) => (Some(error), None),
    };
    let number = |read: fn(&crate::messages::archived::ArchivedAdminReply) -> u64| {
        answer.as_ref().map_or(0, |s| read(s))
    };
    Row {
        node: node.to_string(),
        error,
        view: number(|s| s.view.to_native()),
        ordered: number(|s| s.ordered.to_native()),
        durable: number(|s| s.durable.to_native()),
        executed: number(|s| s.executed.to_native()),
        stable: number(|s| s.stable.to_native()),
        lag: 0,
        phase: answer.as_ref().map(|s| s.phase.to_string()).unwrap_or_default(),
        operations: number(|s| s.operations.to_native()),
        replica_links: number(|s| s.replica_links.to_native()),
        client_links: number(|s| s.client_links.to_native()),
        checkpoint: number(|s| s.checkpoint.to_native()),
        checkpoint_digest: answer
            .as_ref()
            .map(|s| Digest::from_bytes(s.checkpoint_digest).short().to_string())
            .unwrap_or_default(),
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
        counters: answer
            .as_ref()
            .map(|s| read_counters(&s.counters))
            .unwrap_or_default(),
    }
}

/// Counters as they come: a name and a value on each line.
fn read_counters(text: &str) -> BTreeMap<String, u64> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// What an operator should know. Two looks at different moments are compared, so small distances mean nothing.
fn judge(rows: &[Row], needed: usize) -> Health {
    let mut findings = Vec::new();
    let mut sound = 0;
    for row in rows {
        let (node, before) = (&row.node, findings.len());
        if let Some(error) = &row.error {
            findings.push(format!("{node} does not answer: {error}"));
        } else if row.lag > LAG_DECISIONS {
            findings.push(format!("{node} is {} decisions behind: {}", row.lag, row.phase));
        } else if row.replica_links + 1 < needed as u64 {
            findings.push(format!(
                "{node} is linked with {} replicas only",
                row.replica_links
            ));
        } else if row.counters.get("log_waits_for_space") == Some(&1) {
            findings.push(format!(
                "{node} has no space for its log and votes for nothing: free some on its disk"
            ));
        } else if row
            .counters
            .get("identity_used_twice")
            .is_some_and(|times| *times > 0)
        {
            findings.push(format!(
                "{node} runs twice, others say: stop the copy, and restart the one that stays"
            ));
        } else if row.phase != "ordering" && row.phase != "changing the view" {
            findings.push(format!("{node}: {}", row.phase));
        }
        let others = rows.iter().filter(|other| {
            other.error.is_none()
                && other.checkpoint == row.checkpoint
                && other.checkpoint_digest != row.checkpoint_digest
        });
        if row.error.is_none() && others.count() > rows.len() / 2 {
            findings.push(format!(
                "{node} has another state at {} than the others: it is faulty, or its disk is",
                row.checkpoint
            ));
        }
        sound += usize::from(findings.len() == before);
    }
    let verdict = match sound {
        all if all == rows.len() => Verdict::Ok,
        some if some >= needed => Verdict::Degraded,
        _ => Verdict::Stalled,
    };
    Health {
        verdict,
        sound,
        needed,
        replicas: rows.len(),
        faults_tolerable: sound.saturating_sub(needed),
        findings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(node: &str) -> Row {
        Row {
            node: node.into(),
            error: None,
            view: 0,
            ordered: 100,
            durable: 100,
            executed: 100,
            stable: 50,
            lag: 0,
            phase: "ordering".into(),
            operations: 1,
            replica_links: 3,
            client_links: 1,
            checkpoint: 50,
            checkpoint_digest: "aa".into(),
            transfer: None,
            counters: BTreeMap::new(),
        }
    }

    fn verdict(change: impl Fn(&mut Vec<Row>)) -> (Verdict, usize) {
        let mut rows: Vec<Row> = ["r0", "r1", "r2", "r3"].into_iter().map(row).collect();
        change(&mut rows);
        let health = judge(&rows, 3);
        (health.verdict, health.faults_tolerable)
    }

    #[test]
    fn the_verdict_counts_replicas_that_take_part() {
        assert_eq!(verdict(|_| ()), (Verdict::Ok, 1));
        assert_eq!(
            verdict(|rows| rows[3].error = Some("gone".into())),
            (Verdict::Degraded, 0)
        );
        assert_eq!(verdict(|rows| rows[3].lag = 5000), (Verdict::Degraded, 0));
        assert_eq!(
            verdict(|rows| rows[3].checkpoint_digest = "bb".into()),
            (Verdict::Degraded, 0)
        );
        assert_eq!(
            verdict(|rows| rows[2].phase = "installing".into()),
            (Verdict::Degraded, 0)
        );
        let copied = |rows: &mut Vec<Row>| {
            rows[1].counters.insert("identity_used_twice".into(), 2);
        };
        assert_eq!(verdict(copied), (Verdict::Degraded, 0));
        let two = |rows: &mut Vec<Row>| {
            rows[2].error = Some("gone".into());
            rows[3].replica_links = 1;
        };
        assert_eq!(verdict(two), (Verdict::Stalled, 0));
    }
}
