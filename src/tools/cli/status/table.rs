//! What people are shown: a table, and what is to be said of it, in 80 columns.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use super::verdict::{Health, Verdict};
use crate::runtime::evidence::EvidenceRow;
use crate::runtime::metrics::ReplicaRow;

/// How wide a line is at most, but for one that has a longer word.
const COLUMNS: usize = 80;

/// What is asked for beside where each replica stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Beside {
    /// Every counter that is not zero.
    pub counters: bool,
    /// What was refused of each peer.
    pub peers: bool,
}

/// Everything about a cluster.
pub(super) fn of(rows: &[ReplicaRow], health: &Health, beside: Beside) -> String {
    let mut text = String::new();
    line(
        &mut text,
        [
            "node", "view", "executed", "ordered", "durable", "stable", "lag", "replicas", "clients",
        ],
    );
    for row in rows {
        replica(&mut text, row);
        if beside.counters {
            for (name, value) in row.counters.iter().filter(|(_, value)| **value > 0) {
                let _ = writeln!(text, "      {name} {value}");
            }
        }
        if beside.peers && row.error.is_none() {
            evidence(&mut text, &row.evidence);
        }
    }
    for finding in &health.findings {
        wrap(&mut text, "! ", "  ", finding);
    }
    wrap(&mut text, "", "  ", &summary(health));
    text
}

fn line(text: &mut String, columns: [&str; 9]) {
    let [
        node,
        view,
        executed,
        ordered,
        durable,
        stable,
        lag,
        replicas,
        clients,
    ] = columns;
    let _ = writeln!(
        text,
        "{node:<5} {view:>5} {executed:>10} {ordered:>10} {durable:>10} {stable:>10} {lag:>6} {replicas:>8} {clients:>7}"
    );
}

fn replica(text: &mut String, row: &ReplicaRow) {
    if let Some(error) = &row.error {
        return wrap(text, &format!("{:<5} ✗ ", row.node), "      ", error);
    }
    let numbers = [
        row.view,
        row.executed,
        row.ordered,
        row.durable,
        row.stable,
        row.lag.unwrap_or(0),
        row.replica_links,
        row.client_links,
    ];
    let [view, executed, ordered, durable, stable, lag, replicas, clients] =
        numbers.map(|number| number.to_string());
    line(
        text,
        [
            &row.node, &view, &executed, &ordered, &durable, &stable, &lag, &replicas, &clients,
        ],
    );
    let checkpoint = match &row.checkpoint_digest {
        Some(digest) => format!("checkpoint {digest} at {}", row.checkpoint),
        None => "no checkpoint yet".to_owned(),
    };
    let more = format!(
        "{}; {checkpoint}; {} operations since start",
        row.phase, row.operations
    );
    wrap(text, "      ", "      ", &more);
}

/// What a replica refused of its peers.
fn evidence(text: &mut String, rows: &[EvidenceRow]) {
    if rows.is_empty() {
        text.push_str("      nothing of its peers was refused since it started\n");
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_ms = since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    for row in rows {
        let mark = if row.misbehaviour { '✗' } else { '?' };
        let ago = Duration::from_millis(now_ms.saturating_sub(row.last_unix_ms)).as_secs();
        let mut words = format!(
            "{}: {}, {} times, the last {ago} s ago",
            row.peer, row.kind, row.count
        );
        if let Some(digest) = row.digest.as_deref().and_then(|digest| digest.get(..16)) {
            words.push_str(", of digest ");
            words.push_str(digest);
        }
        wrap(text, &format!("    {mark} "), "      ", &words);
    }
}

fn summary(health: &Health) -> String {
    let Health {
        verdict,
        sound,
        needed,
        asked,
        replicas,
        faults_tolerable,
        ..
    } = health;
    match verdict {
        Verdict::Unknown => format!(
            "{verdict}: {asked} of {replicas} replicas were asked, {sound} of them are well; name the endpoints of all for a verdict"
        ),
        _ => format!(
            "{verdict}: {sound} of {replicas} replicas take part, {needed} needed; {faults_tolerable} more may fail"
        ),
    }
}

/// Writes words as lines that are not too wide: the first begins with `first`, the others with `next`.
fn wrap(text: &mut String, first: &str, next: &str, words: &str) {
    text.push_str(first);
    let (mut width, mut is_begun) = (first.chars().count(), false);
    for word in words.split_whitespace() {
        let length = word.chars().count();
        if is_begun && width + 1 + length > COLUMNS {
            text.push('\n');
            text.push_str(next);
            (width, is_begun) = (next.chars().count(), false);
        }
        if is_begun {
            text.push(' ');
            width += 1;
        }
        text.push_str(word);
        width += length;
        is_begun = true;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<ReplicaRow> {
        let well = ReplicaRow {
            view: 12,
            executed: 1_234_567_890,
            ordered: 1_234_567_900,
            durable: 1_234_567_899,
            stable: 1_234_567_000,
            lag: Some(0),
            phase: "ordering".to_owned(),
            operations: 98_765_432_100,
            replica_links: 3,
            client_links: 1024,
            checkpoint: 1_234_567_000,
            checkpoint_digest: Some("a1b2c3d4".to_owned()),
            evidence: vec![EvidenceRow {
                peer: "r2".to_owned(),
                kind: "batch_refused_over_budget".to_owned(),
                misbehaviour: false,
                count: 1_234_567_890,
                last_unix_ms: 0,
                digest: Some("0123456789abcdef".repeat(4)),
            }],
            ..ReplicaRow::unanswered("r0".to_owned(), None)
        };
        let receiving = "abstaining; receiving the state at 1234567000: 20 of 100 pieces, 4 MiB, from 3 donors, 2.0 MiB/s, 2 s left";
        let behind = ReplicaRow {
            node: "r10".to_owned(),
            phase: receiving.to_owned(),
            checkpoint: 0,
            checkpoint_digest: None,
            evidence: Vec::new(),
            ..well.clone()
        };
        let why = "connection refused by the host, which has another name than the one that was asked for (os error 111)";
        let gone = ReplicaRow::unanswered("r2.cluster.example:9464".to_owned(), Some(why.to_owned()));
        vec![well, behind, gone]
    }

    fn health(verdict: Verdict) -> Health {
        Health {
            verdict,
            sound: 2,
            needed: 3,
            asked: 3,
            replicas: 4,
            faults_tolerable: 0,
            findings: vec![
                "r3 has another checkpoint at 40 than most others: its state, or its disk, or its application is another".to_owned(),
            ],
        }
    }

    const PEERS: Beside = Beside {
        counters: false,
        peers: true,
    };

    #[test]
    fn no_line_is_wider_than_80_columns_and_nothing_is_left_out() {
        for verdict in [Verdict::Stalled, Verdict::Unknown] {
            let text = of(&rows(), &health(verdict), PEERS);
            for line in text.lines() {
                assert!(line.chars().count() <= COLUMNS, "{line}");
            }
            let words: Vec<&str> = text.split_whitespace().collect();
            let flat = words.join(" ");
            for part in [
                "r0 12 1234567890 1234567900 1234567899 1234567000 0 3 1024",
                "ordering; checkpoint a1b2c3d4 at 1234567000; 98765432100 operations since start",
                "? r2: batch_refused_over_budget, 1234567890 times, the last",
                "s ago, of digest 0123456789abcdef",
                "2 s left; no checkpoint yet;",
                "nothing of its peers was refused since it started r2.cluster.example:9464 ✗",
                "r2.cluster.example:9464 ✗ connection refused",
                "! r3 has another checkpoint at 40 than most others",
                &verdict.to_string(),
            ] {
                assert!(flat.contains(part), "{part}: {text}");
            }
        }
    }
}
