use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{DAMAGED, NOT_SEEN, SOUND};
use crate::runtime::storage::StorageError;
use crate::runtime::storage::survey::Survey;
use crate::smr::crypto::Chain;
use crate::smr::types::{Digest, SeqNo};
use crate::tools::cli::CommandError;

/// Show the first decision, or key of a checkpoint, that differs between two replicas.
///
/// Decisions are compared where both logs have them; the chain covers all before. Snapshots are compared at
/// the checkpoints of which both have one. Exit code 2 when they have nothing in common.
#[derive(Debug, Args)]
pub(in crate::tools::cli) struct Diff {
    /// A replica's data directory.
    a: PathBuf,
    /// Another one's.
    b: PathBuf,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// What was compared, and what differs first.
#[derive(Debug, Default, Serialize)]
struct Comparison {
    decisions_compared: usize,
    first_decision: Option<u64>,
    last_decision: Option<u64>,
    decision: Option<DecisionDifference>,
    snapshots_compared: Vec<u64>,
    snapshot: Option<SnapshotDifference>,
}

#[derive(Debug, Serialize)]
struct DecisionDifference {
    seq: u64,
    /// The batches' digests.
    a: String,
    b: String,
    /// The batches are the same, but what was decided before is not.
    only_chain: bool,
}

#[derive(Debug, Serialize)]
struct SnapshotDifference {
    seq: u64,
    piece: usize,
    /// What differs: a client's entry, or a key.
    what: String,
    a: Option<String>,
    b: Option<String>,
}

type Decisions = BTreeMap<SeqNo, (Digest, Chain)>;

fn decisions(survey: &Survey) -> Result<Decisions, StorageError> {
    let mut log = survey.log();
    if let Some(damage) = log.damage.drain(..).next() {
        return Err(damage);
    }
    let decisions = log.decisions().filter_map(|record| {
        let content = &record.content;
        Some((content.place?, (content.digest?, content.chain?)))
    });
    Ok(decisions.collect())
}

fn compare_decisions(a: &Decisions, b: &Decisions, comparison: &mut Comparison) {
    let common = a
        .iter()
        .filter_map(|(seq, of_a)| Some((*seq, *of_a, *b.get(seq)?)));
    for (seq, of_a, of_b) in common {
        comparison.decisions_compared += 1;
        comparison.first_decision.get_or_insert(seq.get());
        comparison.last_decision = Some(seq.get());
        if of_a != of_b {
            comparison.decision = Some(DecisionDifference {
                seq: seq.get(),
                a: of_a.0.to_string(),
                b: of_b.0.to_string(),
                only_chain: of_a.0 == of_b.0,
            });
            return;
        }
    }
}

/// A piece of each directory's snapshot.
fn piece_of(survey: &Survey, seq: SeqNo, piece: usize) -> Result<Vec<u8>, StorageError> {
    let mut found = Vec::new();
    if let Some(snapshot) = survey
        .snapshots()?
        .iter()
        .find(|snapshot| snapshot.index == seq.get())
    {
        survey.pieces(snapshot, |number, bytes| {
            if number == piece {
                found = bytes.to_vec();
            }
        })?;
    }
    Ok(found)
}

/// The pairs of a piece of a keyed state, if it is one.
fn pairs(mut bytes: &[u8]) -> Option<BTreeMap<&[u8], &[u8]>> {
    let mut pairs = BTreeMap::new();
    while !bytes.is_empty() {
        let (lengths, rest) = bytes.split_at_checked(8)?;
        let (lengths, _) = lengths.as_chunks::<4>();
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(lengths[0]) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(lengths[1]) as usize)?;
        pairs.insert(key, value);
        bytes = rest;
    }
    Some(pairs)
}

/// Bytes as people read them: text where it is, hexadecimal digits where not.
fn shown(bytes: &[u8]) -> String {
    const LONGEST: usize = 64;
    let (part, rest) = bytes.split_at(bytes.len().min(LONGEST));
    let text = match std::str::from_utf8(part) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{text:?}"),
        _ => format!("0x{}", hex::encode(part)),
    };
    match rest.len() {
        0 => text,
        more => format!("{text} and {more} bytes more"),
    }
}

fn first_difference(seq: SeqNo, piece: usize, clients: usize, (a, b): (&[u8], &[u8])) -> SnapshotDifference {
    let difference = |what: String, a: Option<&[u8]>, b: Option<&[u8]>| SnapshotDifference {
        seq: seq.get(),
        piece,
        what,
        a: a.map(shown),
        b: b.map(shown),
    };
    if piece < clients {
        return difference(format!("what is remembered of client {piece}"), Some(a), Some(b));
    }
    let (Some(of_a), Some(of_b)) = (pairs(a), pairs(b)) else {
        return difference("the state".to_owned(), Some(a), Some(b));
    };
    let key = of_a
        .keys()
        .chain(of_b.keys())
        .filter(|key| of_a.get(*key) != of_b.get(*key))
        .min();
    match key {
        Some(key) => difference(
            format!("key {}", shown(key)),
            of_a.get(key).copied(),
            of_b.get(key).copied(),
        ),
        None => difference("the order of keys".to_owned(), None, None),
    }
}

fn compare_snapshots(a: &Survey, b: &Survey, comparison: &mut Comparison) -> Result<(), StorageError> {
    let of_b = b.snapshots()?;
    for of_a in a.snapshots()? {
        let Some(of_b) = of_b.iter().find(|snapshot| snapshot.index == of_a.index) else {
            continue;
        };
        let (index_a, index_b) = (a.pieces(&of_a, |_, _| {})?, b.pieces(of_b, |_, _| {})?);
        comparison.snapshots_compared.push(of_a.index);
        let count = index_a.pieces().max(index_b.pieces());
        let differs = |piece: &usize| {
            index_a.descriptor().digests().get(*piece) != index_b.descriptor().digests().get(*piece)
        };
        let Some(piece) = (0..count).find(differs) else {
            continue;
        };
        let seq = SeqNo::new(of_a.index);
        let clients = index_a.head.client_count as usize;
        let (bytes_a, bytes_b) = (piece_of(a, seq, piece)?, piece_of(b, seq, piece)?);
        comparison.snapshot = Some(first_difference(seq, piece, clients, (&bytes_a, &bytes_b)));
        return Ok(());
    }
    Ok(())
}

impl Diff {
    pub(super) fn run(&self) -> Result<u8, CommandError> {
        let (a, b) = (Survey::of(&self.a)?, Survey::of(&self.b)?);
        if a.superblock().cluster != b.superblock().cluster {
            return Err(format!(
                "{} is of cluster {}, {} of cluster {}: only replicas of one cluster can be compared",
                self.a.display(),
                a.superblock().cluster,
                self.b.display(),
                b.superblock().cluster
            )
            .into());
        }
        let mut comparison = Comparison::default();
        compare_decisions(&decisions(&a)?, &decisions(&b)?, &mut comparison);
        compare_snapshots(&a, &b, &mut comparison)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&comparison)?);
        } else {
            print(&comparison, &a, &b);
        }
        let is_compared = comparison.decisions_compared > 0 || !comparison.snapshots_compared.is_empty();
        let differs = comparison.decision.is_some() || comparison.snapshot.is_some();
        Ok(match (differs, is_compared) {
            (true, _) => DAMAGED,
            (false, true) => SOUND,
            (false, false) => NOT_SEEN,
        })
    }
}

fn print(comparison: &Comparison, a: &Survey, b: &Survey) {
    let (a, b) = (a.superblock().node, b.superblock().node);
    if let Some(decision) = &comparison.decision {
        println!("✗ decision {} differs first", decision.seq);
        println!("  {a}: {}\n  {b}: {}", decision.a, decision.b);
        if decision.only_chain {
            println!("  the batches are the same, but not all that was decided before");
        }
    } else {
        match (comparison.first_decision, comparison.last_decision) {
            (Some(first), Some(last)) => {
                println!("✔ decisions {first} to {last} are the same, and so is everything decided before")
            }
            _ => println!("! no decision is in both logs: nothing to compare there"),
        }
    }
    if let Some(snapshot) = &comparison.snapshot {
        println!(
            "✗ the snapshots at {} differ first in piece {}: {}",
            snapshot.seq, snapshot.piece, snapshot.what
        );
        let cell = |value: &Option<String>| value.clone().unwrap_or("nothing".to_owned());
        println!("  {a}: {}\n  {b}: {}", cell(&snapshot.a), cell(&snapshot.b));
    } else if comparison.snapshots_compared.is_empty() {
        println!("! no checkpoint has a snapshot in both: nothing to compare there");
    } else {
        let places: Vec<String> = comparison.snapshots_compared.iter().map(u64::to_string).collect();
        println!("✔ the snapshots at {} are the same", places.join(" and "));
    }
}
