use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::SOUND;
use crate::runtime::flight::{FlightDump, FlightEvent};
use crate::tools::cli::CommandError;

/// A longer file is none: that of the most shards with the most events is shorter.
const BYTES_MAX: u64 = 4 << 30;

/// Show the last events of a replica, as its flight recorder wrote them.
///
/// The events of all its shards come together and in order. The file is in `flight/` in its data directory, or
/// came from `/debug/flight` of its admin endpoint.
#[derive(Debug, Args)]
pub(in crate::tools::cli) struct Flight {
    /// The file.
    file: PathBuf,
    /// Only so many of the events, the last ones.
    #[arg(long)]
    last: Option<usize>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// One event, for programs.
#[derive(Debug, Serialize)]
struct Row {
    nanoseconds: u64,
    shard: String,
    number: u64,
    event: String,
    view: u64,
    seq: u64,
    peer: Option<String>,
    numbers: [u64; 2],
    words: String,
}

impl Row {
    fn of(dump: &FlightDump, (shard, event): &(usize, FlightEvent)) -> Self {
        let name = event.kind().map(|kind| kind.word().to_owned());
        Self {
            nanoseconds: event.at.as_nanos(),
            shard: dump.shards[*shard].name.clone(),
            number: event.number,
            event: name.unwrap_or_else(|| format!("kind-{}", event.code)),
            view: event.view.get(),
            seq: event.seq.get(),
            peer: event.peer.map(|peer| peer.to_string()),
            numbers: event.numbers,
            words: event.words(),
        }
    }
}

impl Flight {
    pub(super) fn run(&self) -> Result<u8, CommandError> {
        let named = |error| -> CommandError { format!("{}: {error}", self.file.display()).into() };
        let found = std::fs::metadata(&self.file).map_err(named)?;
        if !found.is_file() {
            return Err(format!("{}: it is no regular file", self.file.display()).into());
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&self.file).map_err(named)?;
        file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(named)?;
        let dump = FlightDump::decode(&bytes)?;
        let mut events = dump.merged();
        let skipped = self.last.map_or(0, |last| events.len().saturating_sub(last));
        events.drain(..skipped);
        let rows: Vec<Row> = events.iter().map(|event| Row::of(&dump, event)).collect();
        match self.json {
            true => print_json(&dump, &rows)?,
            false => print(&dump, &rows),
        }
        Ok(SOUND)
    }
}

fn print_json(dump: &FlightDump, rows: &[Row]) -> Result<(), CommandError> {
    let shards = dump.shards.iter().map(|shard| {
        serde_json::json!({
            "name": shard.name,
            "recorded": shard.recorded,
            "kept": shard.events.len(),
        })
    });
    let all = serde_json::json!({
        "cluster": dump.identity.cluster.to_string(),
        "node": dump.identity.node.to_string(),
        "epoch": dump.identity.epoch.get(),
        "started_unix_nanoseconds": dump.started.as_nanos(),
        "taken_nanoseconds": dump.taken.as_nanos(),
        "cause": dump.cause.word(),
        "why": dump.why,
        "shards": shards.collect::<Vec<_>>(),
        "events": rows,
    });
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(())
}

fn print(dump: &FlightDump, rows: &[Row]) {
    let identity = &dump.identity;
    println!(
        "{} of cluster {}, epoch {}: {:?} after its start at unix {}",
        identity.node,
        identity.cluster,
        identity.epoch,
        Duration::from_nanos(dump.taken.as_nanos()),
        dump.started.as_millis() / 1000
    );
    match dump.why.as_str() {
        "" => println!("{}", dump.cause.word()),
        why => println!("{}: {why}", dump.cause.word()),
    }
    println!(
        "{:>16} {:<7} {:<14} {:>5} {:>9} {:<5} what",
        "seconds", "shard", "event", "view", "place", "peer"
    );
    let cell = |number: u64| match number {
        0 => "-".to_owned(),
        number => number.to_string(),
    };
    for row in rows {
        println!(
            "{:>6}.{:09} {:<7} {:<14} {:>5} {:>9} {:<5} {}",
            row.nanoseconds / 1_000_000_000,
            row.nanoseconds % 1_000_000_000,
            row.shard,
            row.event,
            row.view,
            cell(row.seq),
            row.peer.as_deref().unwrap_or("-"),
            row.words
        );
    }
    let older = dump.shards.iter().map(|shard| {
        let lost = shard.recorded.saturating_sub(shard.events.len() as u64);
        format!("{lost} of {}", shard.name)
    });
    println!(
        "{} events; older ones, which are gone: {}",
        rows.len(),
        older.collect::<Vec<_>>().join(", ")
    );
}
