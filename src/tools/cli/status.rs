mod endpoint;
mod table;
mod verdict;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::endpoint::Endpoint;
use self::table::Beside;
use self::verdict::{Facts, Looks, judge};
use super::CommandError;
use super::admin_page::parse_address;
use crate::client::status;
use crate::runtime::admin::read_token;
use crate::runtime::config::ClientConfig;
use crate::runtime::metrics::{CheckpointRow, ReplicaRow};
use crate::smr::types::{Digest, NodeId, Quorum};

/// Between the two looks at each replica: what moves at all has moved by then.
const PAUSE: Duration = Duration::from_millis(400);

/// Show where each replica of a running cluster stands, and whether the cluster is well.
///
/// Replicas are asked by a client's identity, or at their admin endpoints. Looks twice, a moment apart, to see who
/// moves. Exit code 0: OK, every replica takes part; 1: DEGRADED, the cluster serves, and can lose fewer replicas
/// than it should; 2: STALLED, fewer take part than are needed; 3: DIVERGED, replicas have different states. Of
/// a cluster that was asked in part, which is UNKNOWN: 0, or 1 if something was found.
///
/// With --peers: ✗ marks what no correct peer causes, ? what a slow or overloaded one may, or whoever is on
/// the way. The messages themselves are at the replica's admin endpoint, /debug/peers.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// A client's file, as `atlas init` makes it. No other process may use this client meanwhile.
    #[arg(long, required_unless_present = "admin", conflicts_with = "admin")]
    config: Option<PathBuf>,
    /// The admin endpoints of the replicas, as host and port: of all of them, for a verdict.
    #[arg(long, value_name = "ADDR", num_args = 1.., value_parser = parse_address)]
    admin: Vec<String>,
    /// The file of the token that the endpoints ask for; or one for each of them, in their order.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "admin")]
    token_file: Vec<PathBuf>,
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
        let asked = self.asked()?;
        let first = asked.look();
        std::thread::sleep(PAUSE);
        let second = asked.look();
        let quorum = asked.quorum(&second)?;
        let mut replicas: Vec<(ReplicaRow, Looks)> = asked
            .names()
            .into_iter()
            .zip(first.into_iter().zip(second))
            .map(|(name, looks)| replica(name, looks))
            .collect();
        // Endpoints come in any order.
        replicas.sort_by_key(|(row, _)| {
            row.node
                .strip_prefix('r')
                .and_then(|id| id.parse().ok())
                .unwrap_or(u16::MAX)
        });
        let (mut rows, looks): (Vec<_>, Vec<_>) = replicas.into_iter().unzip();
        let most = rows.iter().map(|row| row.executed).max().unwrap_or(0);
        rows.iter_mut()
            .for_each(|row| row.lag = Some(most - row.executed));
        let health = judge(&looks, quorum);
        if self.json {
            let all = serde_json::json!({ "replicas": rows, "health": health });
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            let beside = Beside {
                counters: self.counters,
                peers: self.peers,
            };
            print!("{}", table::of(&rows, &health, beside));
        }
        Ok(ExitCode::from(health.code()))
    }

    /// Who is asked.
    fn asked(&self) -> Result<Asked, CommandError> {
        if let Some(config) = &self.config {
            return Ok(Asked::Replicas(Box::new(ClientConfig::load(config)?)));
        }
        let tokens = self
            .token_file
            .iter()
            .map(|path| read_token(path).map_err(|why| format!("--token-file {}: {why}", path.display())));
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        let (named, needed) = (tokens.len(), self.admin.len());
        if named > 1 && named != needed {
            return Err(format!(
                "--token-file: {named} files for {needed} endpoints; name one for all, or one for each"
            )
            .into());
        }
        let endpoints = self.admin.iter().enumerate().map(|(number, address)| Endpoint {
            address: address.clone(),
            token: tokens.get(if named == 1 { 0 } else { number }).cloned(),
        });
        Ok(Asked::Endpoints(endpoints.collect()))
    }
}

/// What a replica answered, or why it did not.
type Answer = Result<ReplicaRow, String>;

/// Who is asked, and how.
enum Asked {
    /// All replicas of a cluster, by one of its clients.
    Replicas(Box<ClientConfig>),
    Endpoints(Vec<Endpoint>),
}

impl Asked {
    /// Those who are asked, in order, as far as they are known before they answer.
    fn names(&self) -> Vec<String> {
        match self {
            Self::Replicas(config) => NodeId::all(config.cluster.quorum().n())
                .map(|node| node.to_string())
                .collect(),
            Self::Endpoints(endpoints) => endpoints
                .iter()
                .map(|endpoint| endpoint.address.clone())
                .collect(),
        }
    }

    /// Asks all at once: one that is far or hangs delays the others' answers by nothing.
    fn look(&self) -> Vec<Answer> {
        match self {
            Self::Replicas(config) => {
                let (cluster, quorum) = (config.cluster.cluster_id(), config.cluster.quorum());
                at_once(NodeId::all(quorum.n()), |node| {
                    let answer = status(config, node)?;
                    Ok(ReplicaRow::of(&answer.to_reply()).in_cluster(cluster, quorum))
                })
            }
            Self::Endpoints(endpoints) => at_once(endpoints.iter(), Endpoint::status),
        }
    }

    /// The quorum of the cluster that all belong to who answered.
    fn quorum(&self, answers: &[Answer]) -> Result<Quorum, CommandError> {
        if let Self::Replicas(config) = self {
            return Ok(config.cluster.quorum());
        }
        let names = self.names();
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        let mut known: Option<(&ReplicaRow, &str)> = None;
        for (answer, name) in answers.iter().zip(&names) {
            let Ok(row) = answer else { continue };
            let (other, other_name) = *known.get_or_insert((row, name));
            if (&row.cluster, row.replicas) != (&other.cluster, other.replicas) {
                return Err(format!("{other_name} and {name} are of different clusters").into());
            }
            if let Some(twice) = seen.insert(&row.node, name) {
                return Err(format!("{twice} and {name} are both {}'s", row.node).into());
            }
        }
        let quorum = known.and_then(|(row, _)| Quorum::of(row.replicas).ok());
        quorum.ok_or_else(|| {
            let errors = answers.iter().zip(&names).filter_map(|(answer, name)| {
                let error = answer.as_ref().err()?;
                Some(format!("{name}: {error}"))
            });
            format!("no endpoint answers: {}", errors.collect::<Vec<_>>().join("; ")).into()
        })
    }
}

fn at_once<T: Send>(all: impl Iterator<Item = T>, ask: impl Fn(T) -> Answer + Sync) -> Vec<Answer> {
    std::thread::scope(|scope| {
        let ask = &ask;
        let asked: Vec<_> = all.map(|one| scope.spawn(move || ask(one))).collect();
        let answers = asked.into_iter().map(|answer| answer.join());
        answers
            .map(|answer| answer.unwrap_or_else(|_| Err("asking it failed".to_owned())))
            .collect()
    })
}

/// What is shown of two looks at a replica, and what the verdict is about.
fn replica(name: String, (first, second): (Answer, Answer)) -> (ReplicaRow, Looks) {
    let known = second.as_ref().or(first.as_ref());
    let node = known.map_or(name, |row| row.node.clone());
    let looks = Looks {
        node: node.clone(),
        first: first.ok().map(|row| facts(&row)),
        second: second.as_ref().map(facts).map_err(Clone::clone),
    };
    let row = second.unwrap_or_else(|error| ReplicaRow::unanswered(node, Some(error)));
    (row, looks)
}

/// What the verdict is about.
fn facts(row: &ReplicaRow) -> Facts {
    let twice = row.counters.get("identity_used_twice");
    Facts {
        view: row.view,
        ordered: row.ordered,
        durable: row.durable,
        executed: row.executed,
        stable: row.stable,
        links: row.replica_links,
        orders: row.orders,
        transfers: row.transfers,
        abstains: row.abstains,
        waits_for_space: row.waits_for_space,
        runs_twice: twice.is_some_and(|times| *times > 0),
        phase: row.phase.clone(),
        checkpoints: row.checkpoints.iter().map(checkpoint).collect(),
    }
}

/// Its place and digest, zero where that cannot be read.
fn checkpoint(row: &CheckpointRow) -> (u64, Digest) {
    let mut digest = [0; 32];
    let read = hex::decode_to_slice(&row.digest, &mut digest);
    (
        row.seq,
        read.map_or(Digest::ZERO, |()| Digest::from_bytes(digest)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: &str, cluster: &str) -> Answer {
        Ok(ReplicaRow {
            cluster: cluster.to_owned(),
            replicas: 4,
            ..ReplicaRow::unanswered(node.to_owned(), None)
        })
    }

    #[test]
    fn endpoints_are_those_of_one_cluster_and_each_of_another_replica() {
        let endpoint = |address: &str| Endpoint {
            address: address.to_owned(),
            token: None,
        };
        let asked = Asked::Endpoints(["a:1", "b:1", "c:1"].map(endpoint).into());
        let gone = || Err("gone".to_owned());
        let quorum = asked.quorum(&[gone(), answer("r1", "x"), answer("r2", "x")]);
        assert_eq!(quorum.unwrap().n(), 4);
        for (answers, said) in [
            (
                [answer("r0", "x"), gone(), answer("r1", "y")],
                "a:1 and c:1 are of different clusters",
            ),
            (
                [gone(), answer("r1", "x"), answer("r1", "x")],
                "b:1 and c:1 are both r1's",
            ),
            (
                [gone(), gone(), gone()],
                "no endpoint answers: a:1: gone; b:1: gone; c:1: gone",
            ),
        ] {
            assert_eq!(asked.quorum(&answers).unwrap_err().to_string(), said);
        }
    }
}
