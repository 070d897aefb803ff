//! Looking at replicas' data directories, without changing them and beside running replicas.

pub(super) mod diff;
pub(super) mod flight;
mod integrity;
pub(super) mod log;
mod snapshot;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::CommandError;
use crate::runtime::flight::FlightFileError;
use crate::runtime::storage::StorageError;
use crate::runtime::storage::survey::{SuperblockCopy, Survey};

/// Look at a replica's data directory. Nothing is changed and no lock is taken, so a replica may be using it.
///
/// Exit code 0: sound (of diff: nothing differs); 1: something is damaged (of diff: something differs); 2: it
/// could not be looked at, for instance because it is no data directory.
#[derive(Debug, Subcommand)]
pub(super) enum Inspect {
    /// Show whose directory it is and what its two superblocks say.
    Superblock(Directory),
    Log(log::Log),
    /// Show the snapshots of checkpoints, and verify them.
    Snapshot(Directory),
    /// Verify everything, and give a verdict.
    Integrity(Directory),
    Diff(diff::Diff),
    Flight(flight::Flight),
}

/// A directory to look at.
#[derive(Debug, Args)]
pub(super) struct Directory {
    /// The data directory: `db_path` in the replica's file.
    dir: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Sound, or nothing differs.
const SOUND: u8 = 0;
/// Damaged, or different.
const DAMAGED: u8 = 1;
/// It could not be looked at.
const NOT_SEEN: u8 = 2;

impl Inspect {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        let code = match self {
            Self::Superblock(directory) => superblock(directory),
            Self::Log(log) => log.run(),
            Self::Snapshot(directory) => snapshot::run(directory),
            Self::Integrity(directory) => integrity::run(directory),
            Self::Diff(diff) => diff.run(),
            Self::Flight(flight) => flight.run(),
        };
        let code = code.unwrap_or_else(|error| {
            eprintln!("atlas: {error}");
            match (error.downcast_ref(), error.downcast_ref()) {
                (Some(StorageError::Damaged { .. }), _) => DAMAGED,
                (_, Some(FlightFileError::NotOne | FlightFileError::Version(_))) => NOT_SEEN,
                (_, Some(_)) => DAMAGED,
                _ => NOT_SEEN,
            }
        });
        Ok(ExitCode::from(code))
    }
}

/// What is damaged, for programs.
#[derive(Debug, Serialize)]
struct Damage {
    file: String,
    offset: Option<u64>,
    what: String,
}

impl Damage {
    fn of(error: &StorageError) -> Self {
        let (file, offset, what) = match error {
            StorageError::Damaged { path, offset, what } => (path, Some(*offset), what.clone()),
            StorageError::Io { path, doing, source } => (path, None, format!("{doing}: {source}")),
            other => return Self::unplaced(other),
        };
        Self {
            file: file.display().to_string(),
            offset,
            what,
        }
    }

    fn unplaced(error: &StorageError) -> Self {
        Self {
            file: String::new(),
            offset: None,
            what: error.to_string(),
        }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.offset {
            Some(offset) => write!(f, "{}, offset {offset}: {}", self.file, self.what),
            None if self.file.is_empty() => f.write_str(&self.what),
            None => write!(f, "{}: {}", self.file, self.what),
        }
    }
}

/// What a look at a directory that is in use is worth.
fn mention_holder(survey: &Survey) {
    if let Some(process) = survey.holder() {
        println!("in use by process {process}: the end of the log, and old files, change while this looks");
    }
}

#[derive(Debug, Serialize)]
struct Copy {
    state: &'static str,
    counts: bool,
    generation: Option<u64>,
    starts: Option<u64>,
    epoch: Option<u64>,
    view: Option<u64>,
    log_start: Option<u64>,
    log_end: Option<u64>,
    snapshot: Option<u64>,
}

impl Copy {
    fn of(copy: &SuperblockCopy, survey: &Survey) -> Self {
        let sound = match copy {
            SuperblockCopy::Sound(superblock) => Some(superblock),
            _ => None,
        };
        Self {
            state: match copy {
                SuperblockCopy::Sound(_) => "sound",
                SuperblockCopy::Version(_) => "another version's",
                SuperblockCopy::Blank => "not written yet",
                SuperblockCopy::Damaged => "torn or damaged",
            },
            counts: sound.is_some_and(|sound| sound.generation == survey.superblock().generation),
            generation: sound.map(|s| s.generation),
            starts: sound.map(|s| s.starts),
            epoch: sound.map(|s| s.epoch.get()),
            view: sound.map(|s| s.view.get()),
            log_start: sound.map(|s| s.log_start),
            log_end: sound.map(|s| s.log_end),
            snapshot: sound.map(|s| s.snapshot.get()),
        }
    }
}

fn superblock(directory: &Directory) -> Result<u8, CommandError> {
    let survey = Survey::of(&directory.dir)?;
    let counted = survey.superblock();
    let copies: Vec<Copy> = survey
        .copies()
        .iter()
        .map(|copy| Copy::of(copy, &survey))
        .collect();
    if directory.json {
        let all = serde_json::json!({
            "cluster": counted.cluster.to_string(),
            "node": counted.node.to_string(),
            "application": counted.application.to_string(),
            "in_use_by": survey.holder(),
            "copies": copies,
        });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        println!(
            "{} of cluster {}, which serves {}",
            counted.node, counted.cluster, counted.application
        );
        mention_holder(&survey);
        println!(
            "{:<5} {:<17} {:>10} {:>7} {:>6} {:>6} {:>10} {:>8} {:>10}",
            "copy", "state", "generation", "starts", "epoch", "view", "log from", "to", "snapshot"
        );
        for (number, copy) in copies.iter().enumerate() {
            let cell = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
            println!(
                "{:<5} {:<17} {:>10} {:>7} {:>6} {:>6} {:>10} {:>8} {:>10}{}",
                number,
                copy.state,
                cell(copy.generation),
                cell(copy.starts),
                cell(copy.epoch),
                cell(copy.view),
                cell(copy.log_start),
                cell(copy.log_end),
                cell(copy.snapshot),
                if copy.counts { "  counts" } else { "" }
            );
        }
    }
    Ok(SOUND)
}
