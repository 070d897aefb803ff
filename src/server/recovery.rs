//! A replica's data directory becomes a replica that goes on where it stopped.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::ReplicaError;
use super::repair::{forgotten, repair_log};
use crate::config::ReplicaConfig;
use crate::crypto::Digester;
use crate::execution::{ExecutionEvent, Executor};
use crate::messages::CheckpointClaim;
use crate::protocol::Record;
use crate::replica::{ExecutorOf, Replica, Stack};
use crate::storage::{
    DataDirectory, DiskBudget, LogWriter, RawRecord, RecordReader, StorageError, Superblock, Tail,
    WriterSettings, image, scan,
};
use crate::types::{Lsn, SeqNo, Time};

/// Room around the largest message in a record.
const RECORD_SLACK_BYTES: usize = 64 * 1024;

/// What a replica starts from.
pub(super) struct Recovered {
    pub directory: DataDirectory,
    pub writer: LogWriter,
    /// The segments that are written to next: the last one with records, and those prepared.
    pub files: BTreeMap<u64, File>,
    /// Segments of which nothing is needed any more.
    pub spare: Vec<u64>,
}

/// How much came back, for the operator.
struct Story {
    image: SeqNo,
    records: u64,
    replayed: u64,
    torn: bool,
}

/// Opens the data directory and restores what is in it.
pub(super) fn recover<S: Stack>(
    config: &ReplicaConfig,
    digester: &Digester,
    replica: &mut Replica<S>,
    executor: &mut ExecutorOf<S>,
) -> Result<Recovered, ReplicaError> {
    let cluster = &config.node.cluster;
    let mut directory = DataDirectory::open(&config.db_path, cluster.cluster_id(), config.node.id)?;
    budget(config).check(&directory)?;
    let mut superblock = *directory.superblock();
    let mut stables = Vec::new();
    let mut find_stable = |raw: RawRecord<'_>| {
        if raw.is_stable() {
            stables.push((raw.lsn, raw.bytes.to_vec()));
        }
        Ok(())
    };
    let found = directory.segments();
    let scanned = found.and_then(|segments| {
        scan(&superblock, &segments, &mut find_stable)?;
        Ok(segments)
    });
    let segments = match scanned {
        Ok(segments) => segments,
        Err(damage @ StorageError::Damaged { .. }) => {
            repair_log(config, digester, &mut directory, damage)?;
            superblock = *directory.superblock();
            stables.clear();
            directory.segments()?
        }
        Err(error) => return Err(error.into()),
    };
    let image = match restore_image(&directory, &superblock, executor) {
        Ok(image) => image,
        Err(error) => {
            set_aside(&directory, &superblock, &error)?;
            replica.restore_without_image(superblock.image);
            None
        }
    };
    if let Some(claim) = image {
        replica.restore_base(claim.seq, executor.chain());
    }
    if let Some(forgotten) = forgotten(config, &directory) {
        replica.abstain(forgotten);
    }
    let mut replay = Replay {
        path: directory.path(),
        reader: RecordReader::new(digester.clone(), cluster.checker_limits()),
        replica,
        executor,
        claims: Vec::new(),
        records: 0,
        replayed: 0,
    };
    stables.iter().try_for_each(|raw| replay.stable(raw))?;
    let tail = scan(&superblock, &segments, |raw| replay.record(raw))?;
    let story = Story {
        image: image.map_or(SeqNo::ZERO, |claim| claim.seq),
        records: replay.records,
        replayed: replay.replayed,
        torn: tail.torn,
    };
    replay.finish(&tail);
    if superblock.starts > 1 {
        tracing::info!(
            image = %story.image,
            records = story.records,
            replayed = story.replayed,
            torn = story.torn,
            executed = %replica.executed(),
            view = %replica.view(),
            "restored from disk"
        );
    }
    open_log(
        config,
        directory,
        &superblock,
        &tail,
        segments.iter().map(|found| found.index),
    )
}

/// Has the executor read the last image, if there is one.
fn restore_image<E: Executor>(
    directory: &DataDirectory,
    superblock: &Superblock,
    executor: &mut E,
) -> Result<Option<CheckpointClaim>, StorageError> {
    if superblock.image == SeqNo::ZERO {
        return Ok(None);
    }
    let path = directory.image_path(superblock.image);
    image::load(&path, superblock.seed, executor).map(Some)
}

/// Keeps a damaged image as evidence, where nobody takes it for a sound one.
fn set_aside(
    directory: &DataDirectory,
    superblock: &Superblock,
    error: &StorageError,
) -> Result<(), StorageError> {
    tracing::error!(%error, "the image of a checkpoint cannot be read; its state has to come from other replicas");
    let path = directory.image_path(superblock.image);
    if !path.exists() {
        return Ok(());
    }
    let aside = path.with_extension("damaged");
    std::fs::rename(&path, &aside).map_err(StorageError::io(&path, "cannot be set aside"))
}

struct Replay<'a, S: Stack> {
    path: &'a Path,
    reader: RecordReader,
    replica: &'a mut Replica<S>,
    executor: &'a mut ExecutorOf<S>,
    claims: Vec<CheckpointClaim>,
    records: u64,
    replayed: u64,
}

impl<S: Stack> Replay<'_, S> {
    fn read(&self, raw: RawRecord<'_>) -> Result<Record, StorageError> {
        self.reader
            .read(raw.bytes)
            .map_err(|error| StorageError::Damaged {
                path: raw.path.to_owned(),
                offset: raw.offset,
                what: format!("record {}: {error}", raw.lsn),
            })
    }

    fn stable(&mut self, (lsn, bytes): &(Lsn, Vec<u8>)) -> Result<(), StorageError> {
        let record = self.read(RawRecord {
            lsn: *lsn,
            path: self.path,
            offset: lsn.get(),
            group: 0,
            bytes,
        })?;
        self.replica.restore_stable(&record);
        Ok(())
    }

    fn record(&mut self, raw: RawRecord<'_>) -> Result<(), StorageError> {
        let record = self.read(raw)?;
        self.records += 1;
        let decision = self
            .replica
            .restore(&record)
            .map_err(|source| StorageError::Replay {
                path: self.path.to_owned(),
                source,
            })?;
        if let Some(decision) = decision {
            let mut events = Vec::new();
            self.executor.execute(&decision, &mut events);
            self.replayed += 1;
            self.take_claims(events);
        }
        Ok(())
    }

    /// Clients got their replies before, or ask again.
    fn take_claims(&mut self, events: Vec<ExecutionEvent>) {
        self.claims
            .extend(events.into_iter().filter_map(|event| match event {
                ExecutionEvent::Checkpoint(claim) => Some(claim),
                _ => None,
            }));
    }

    fn finish(mut self, tail: &Tail) {
        let mut events = Vec::new();
        self.executor.settle(&mut events);
        while self.executor.background_step(usize::MAX, &mut events) {}
        self.take_claims(events);
        let windows = match self.replica.awaits_state() {
            // What was read of a state, if anything, is not the one to come.
            true => Vec::new(),
            false => self.executor.client_windows(),
        };
        self.replica.resume(Time::START, tail.next_lsn, &windows);
        for claim in std::mem::take(&mut self.claims) {
            self.replica.on_checkpoint_taken(Time::START, claim);
        }
    }
}

/// The longest record.
fn record_bytes_max(config: &ReplicaConfig) -> usize {
    2 * config.node.cluster.checker_limits().batch_bytes_max + RECORD_SLACK_BYTES
}

fn budget(config: &ReplicaConfig) -> DiskBudget {
    let agreement = &config.node.cluster.agreement;
    let segment_bytes_min = (2 * record_bytes_max(config) as u64).next_multiple_of(1 << 20);
    DiskBudget {
        segment_bytes: config.pl_config.segment_bytes.max(segment_bytes_min),
        log_bytes_max: config.pl_config.log_bytes_max,
        checkpoint_decisions: agreement.checkpoint_decisions,
        checkpoint_bytes: agreement
            .checkpoint_bytes
            .saturating_add(agreement.batch_bytes_max as u64),
    }
}

/// Opens the segments that the log goes on in.
fn open_log(
    config: &ReplicaConfig,
    directory: DataDirectory,
    superblock: &Superblock,
    tail: &Tail,
    segments: impl Iterator<Item = u64> + Clone,
) -> Result<Recovered, ReplicaError> {
    let budget = budget(config);
    let settings = WriterSettings {
        tag: superblock.tag(),
        seed: superblock.seed,
        segment_bytes: budget.segment_bytes,
        segments_max: budget.segments_max(),
        record_bytes_max: record_bytes_max(config),
    };
    let mut writer = LogWriter::resume(settings, tail);
    let mut files = BTreeMap::new();
    let (last, first) = (
        tail.segments.last().map(|(index, _)| *index),
        superblock.log_start,
    );
    for index in segments.clone().filter(|index| *index >= first) {
        if last.is_none_or(|last| index > last) {
            writer.add_segment(index);
        }
        if last.is_none_or(|last| index >= last) {
            files.insert(index, directory.open_segment(index, settings.segment_bytes)?);
        }
    }
    Ok(Recovered {
        directory,
        writer,
        files,
        spare: segments.filter(|index| *index < first).collect(),
    })
}
