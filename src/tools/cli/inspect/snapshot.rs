use serde::Serialize;

use super::{DAMAGED, Damage, Directory, SOUND, mention_holder};
use crate::runtime::storage::StorageError;
use crate::runtime::storage::survey::{Survey, SurveyedSnapshot};
use crate::tools::cli::CommandError;

#[derive(Debug, Serialize)]
struct Row {
    seq: u64,
    file: String,
    bytes: u64,
    clients: Option<u32>,
    pieces: Option<u32>,
    /// The digest of the checkpoint: what replicas sign.
    digest: Option<String>,
    /// Whether a restart begins with it.
    named: bool,
    damage: Option<Damage>,
}

impl Row {
    fn of(snapshot: &SurveyedSnapshot, named: bool) -> Self {
        Self {
            seq: snapshot.seq.get(),
            file: snapshot.path.display().to_string(),
            bytes: snapshot.bytes,
            clients: snapshot.head.map(|head| head.client_count),
            pieces: snapshot.head.map(|head| head.piece_count),
            digest: snapshot.claim.map(|claim| claim.digest.to_string()),
            named,
            damage: snapshot.damage.as_ref().map(Damage::of),
        }
    }
}

/// Every snapshot that is there, verified.
pub(super) fn snapshots(survey: &Survey) -> Result<Vec<SurveyedSnapshot>, StorageError> {
    let snapshots = survey.snapshots()?;
    let snapshots = snapshots.iter().map(|found| survey.snapshot(found));
    // A running replica removes old ones.
    Ok(snapshots
        .filter(|snapshot| snapshot.damage.is_none() || snapshot.path.exists())
        .collect())
}

pub(super) fn run(directory: &Directory) -> Result<u8, CommandError> {
    let survey = Survey::of(&directory.dir)?;
    let named = survey.superblock().snapshot;
    let snapshots = snapshots(&survey)?;
    let rows: Vec<Row> = snapshots
        .iter()
        .map(|snapshot| Row::of(snapshot, snapshot.seq == named))
        .collect();
    if directory.json {
        let all = serde_json::json!({ "in_use_by": survey.holder(), "snapshots": rows });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        mention_holder(&survey);
        println!(
            "{:>9} {:>12} {:>8} {:>7} {:<64} state",
            "place", "bytes", "clients", "pieces", "digest"
        );
        for row in &rows {
            let cell = |value: Option<u32>| value.map_or("-".to_owned(), |value| value.to_string());
            let state = match (&row.damage, row.named) {
                (Some(damage), _) => format!("✗ {damage}"),
                (None, true) => "✔ verified; a restart begins with it".to_owned(),
                (None, false) => "✔ verified".to_owned(),
            };
            println!(
                "{:>9} {:>12} {:>8} {:>7} {:<64} {state}",
                row.seq,
                row.bytes,
                cell(row.clients),
                cell(row.pieces),
                row.digest.as_deref().unwrap_or("-")
            );
        }
        if rows.is_empty() {
            println!("no snapshot yet: the first comes with the first checkpoint");
        }
    }
    let is_damaged = rows.iter().any(|row| row.damage.is_some());
    Ok(if is_damaged { DAMAGED } else { SOUND })
}
