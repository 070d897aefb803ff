use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{DAMAGED, Damage, SOUND, mention_holder};
use crate::runtime::storage::survey::{LoggedRecord, Survey};
use crate::tools::cli::CommandError;

/// Show the records of the persistent log: by place, by kind, or the last ones.
#[derive(Debug, Args)]
pub(in crate::tools::cli) struct Log {
    /// The data directory: `db_path` in the replica's file.
    dir: PathBuf,
    /// Only records about places from this one on.
    #[arg(long)]
    from: Option<u64>,
    /// Only records about places up to this one.
    #[arg(long)]
    to: Option<u64>,
    /// Only records of this kind; may be given several times.
    #[arg(long, value_parser = KINDS)]
    kind: Vec<String>,
    /// Only so many of them, the last ones.
    #[arg(long)]
    last: Option<usize>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

const KINDS: [&str; 12] = [
    "proposal",
    "batch",
    "prepare",
    "commit",
    "decision",
    "checkpoint",
    "stable",
    "view",
    "new-view",
    "jump",
    "view-change",
    "announced",
];

#[derive(Debug, Serialize)]
struct Row {
    position: u64,
    segment: String,
    offset: u64,
    group: u64,
    kind: &'static str,
    place: Option<u64>,
    view: Option<u64>,
    digest: Option<String>,
    chain: Option<String>,
    bytes: usize,
    frames: Option<usize>,
    operations: Option<usize>,
    signers: Vec<u16>,
}

impl Row {
    fn of(record: &LoggedRecord) -> Self {
        let content = &record.content;
        Self {
            position: record.lsn.get(),
            segment: file_name(record),
            offset: record.offset,
            group: record.group,
            kind: record.kind,
            place: content.place.map(|place| place.get()),
            view: content.view.map(|view| view.get()),
            digest: content.digest.map(|digest| digest.to_string()),
            chain: content.chain.map(|chain| chain.head().to_string()),
            bytes: record.bytes,
            frames: content.batch.map(|(frames, _)| frames),
            operations: content.batch.map(|(_, operations)| operations),
            signers: content.signers.iter().map(|signer| signer.get()).collect(),
        }
    }

    fn remark(&self) -> String {
        match (self.frames, self.operations) {
            (Some(frames), Some(operations)) => format!("{frames} frames, {operations} operations"),
            _ if !self.signers.is_empty() => {
                let names: Vec<String> = self.signers.iter().map(|signer| format!("r{signer}")).collect();
                format!("signed by {}", names.join(" "))
            }
            _ => String::new(),
        }
    }
}

fn file_name(record: &LoggedRecord) -> String {
    let name = record.path.file_name().unwrap_or_default();
    name.to_string_lossy().trim_start_matches('0').to_owned()
}

impl Log {
    fn wants(&self, record: &LoggedRecord) -> bool {
        let place = record.content.place.map(|place| place.get());
        let is_kind = self.kind.is_empty() || self.kind.iter().any(|kind| kind == record.kind);
        let is_after = self
            .from
            .is_none_or(|from| place.is_some_and(|place| place >= from));
        let is_before = self.to.is_none_or(|to| place.is_some_and(|place| place <= to));
        is_kind && is_after && is_before
    }

    pub(super) fn run(&self) -> Result<u8, CommandError> {
        let survey = Survey::of(&self.dir)?;
        let log = survey.log();
        let mut wanted: Vec<&LoggedRecord> = log.records.iter().filter(|record| self.wants(record)).collect();
        let skipped = self.last.map_or(0, |last| wanted.len().saturating_sub(last));
        wanted.drain(..skipped);
        let rows: Vec<Row> = wanted.into_iter().map(Row::of).collect();
        let damage: Vec<Damage> = log.damage.iter().map(Damage::of).collect();
        if self.json {
            let end = log.tail.as_ref().map(|tail| {
                serde_json::json!({
                    "position": tail.next_lsn.get(),
                    "segment": tail.segments.last().map(|(segment, _)| segment),
                    "offset": tail.offset,
                    "torn": tail.torn,
                })
            });
            let all = serde_json::json!({
                "in_use_by": survey.holder(),
                "records": rows,
                "records_in_all": log.records.len(),
                "end": end,
                "damage": damage,
            });
            println!("{}", serde_json::to_string_pretty(&all)?);
        } else {
            mention_holder(&survey);
            print(&rows);
            match &log.tail {
                Some(tail) => println!(
                    "{} records in {} segments; the log goes on with position {} in segment {}, offset {}{}",
                    log.records.len(),
                    tail.segments.len(),
                    tail.next_lsn,
                    tail.segments
                        .last()
                        .map_or(tail.first_segment, |(segment, _)| *segment),
                    tail.offset,
                    if tail.torn {
                        "; what comes there was being written when the replica stopped, and is cut off"
                    } else {
                        ""
                    }
                ),
                None => println!("{} records before the damage", log.records.len()),
            }
            damage.iter().for_each(|damage| println!("✗ {damage}"));
        }
        Ok(if damage.is_empty() { SOUND } else { DAMAGED })
    }
}

fn print(rows: &[Row]) {
    println!(
        "{:>9} {:>7} {:>10} {:>8} {:<10} {:>9} {:>5} {:<8} {:>9}",
        "position", "segment", "offset", "group", "kind", "place", "view", "digest", "bytes"
    );
    let cell = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    for row in rows {
        println!(
            "{:>9} {:>7} {:>10} {:>8} {:<10} {:>9} {:>5} {:<8} {:>9}  {}",
            row.position,
            row.segment,
            row.offset,
            row.group,
            row.kind,
            cell(row.place),
            cell(row.view),
            row.digest
                .as_deref()
                .and_then(|digest| digest.get(..8))
                .unwrap_or("-"),
            row.bytes,
            row.remark()
        );
    }
}
