//! What a replica's disk holds becomes a replica that goes on where it stopped.
//!
//! ```text
//!  superblock ─► snapshot of a checkpoint ─► every Stable record ─► every record, in order ─► resume
//!                (state, clients, chain)                          decisions to execution
//! ```
//!
//! The same steps for a data directory and for a simulated disk: both are a [`StorageBackend`].
//!
//! **Which snapshots are believed.** The superblock names the one to begin with. Nothing else says that a snapshot
//! is of the state that this replica goes on from, so:
//! - *Later ones are removed, once the log was read:* the replica may have stopped after it adopted an
//!   earlier state of others and before it had removed its own later snapshots, which then are of a wrong state.
//!   An own snapshot may also have been put in its place and not been named yet: it is sound, and lost for
//!   nothing; nobody was told that it is kept, so the log still leads there, and it is taken again. Were they
//!   left, the superblock would name a later one some day, and they would pass for snapshots of this state.
//! - *The one named is compared with what a quorum signed,* as far as the log says: a replica that found its
//!   state wrong and stopped before another one came must not execute on it again. Nor is it if it is of a
//!   checkpoint that this replica signed after a wrong one, before it found that out. It is set aside like a
//!   damaged one. The checkpoint that the epoch begins with was signed by a quorum as well.
//! - *Who has none that the epoch begins with* was elsewhere when the one before ended, and gets it from others.
//! - *Who has none* gets a state from others, unless its log was never cut and has every decision up to the one
//!   that was named: then that is executed from the initial state. Nobody else may have a snapshot yet.
//! - *Earlier ones may be of a replaced state too.* The replica is told what the head of each says, and gives
//!   it to peers as nothing else.

use std::path::Path;
use std::sync::Arc;

use super::recovery::{Found, scan_with};
use super::repair::repair_log;
use super::snapshot::{ReadAt, SnapshotFile};
use super::{RawRecord, RecordReader, StorageError, Superblock, Tail, WriterSettings, snapshot};
use crate::smr::crypto::Digester;
use crate::smr::execution::{CheckpointSnapshot, Executor};
use crate::smr::messages::{CheckpointClaim, Lengths, Proposal, TakenCheckpoint};
use crate::smr::mutants::{Mutant, active};
use crate::smr::node::{CheckpointHistory, GroupWriter, Replay, Replayed};
use crate::smr::protocol::Record;
use crate::smr::replica::{ExecutorOf, LostPromises, Replica, Stack};
use crate::smr::types::{SeqNo, View};

/// What a replica kept, to be read back.
pub trait StorageBackend {
    /// A snapshot that is open.
    type Snapshot: ReadAt;

    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// What its superblock says; it was found to be this replica's.
    fn superblock(&self) -> Superblock;

    /// The segments of the log, in order.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn segments(&self) -> Result<Vec<Found>, StorageError>;

    /// Puts what a segment holds into `bytes`, in place of what is there.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_segment(&self, segment: &Found, bytes: &mut Vec<u8>) -> Result<(), StorageError>;

    /// The places of the checkpoints whose snapshots there are.
    ///
    /// # Errors
    /// When they cannot be listed.
    fn snapshots(&self) -> Result<Vec<SeqNo>, StorageError>;

    /// The snapshot of the checkpoint at `seq`.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is not whole.
    fn open_snapshot(&self, seq: SeqNo) -> Result<SnapshotFile<Self::Snapshot>, StorageError>;

    /// What the head of the snapshot of the checkpoint at `seq` says that it is.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or its head is damaged.
    fn snapshot_claim(&self, seq: SeqNo, digester: &Digester) -> Result<CheckpointClaim, StorageError>;

    /// Removes the snapshots of checkpoints after `seq`.
    ///
    /// # Errors
    /// When one cannot be removed.
    fn forget_snapshots_after(&mut self, seq: SeqNo) -> Result<(), StorageError>;

    /// Keeps a damaged snapshot as evidence, where nobody takes it for a sound one.
    ///
    /// # Errors
    /// When it cannot be moved.
    fn set_snapshot_aside(&mut self, seq: SeqNo) -> Result<(), StorageError>;

    /// Whether promises that were here may be forgotten; if so, the last view the replica may have asked for,
    /// as far as that is known.
    fn abstention(&self) -> Option<Option<View>>;

    /// Marks that promises may be forgotten, and then keeps the log as evidence where nobody takes it for a
    /// sound one.
    ///
    /// # Errors
    /// When it cannot be moved.
    fn set_log_aside(&mut self, damage: &StorageError, view: Option<View>) -> Result<(), StorageError>;
}

/// How a replica starts again.
#[derive(Debug)]
pub struct RestartSettings {
    /// Reads its records.
    pub reader: RecordReader,
    /// Whether it may go on without a log, abstaining from votes: not in a cluster too small for it.
    pub can_abstain: bool,
    /// What the epoch begins with.
    pub base: CheckpointClaim,
}

/// What came back, and where the log goes on.
#[derive(Debug)]
pub struct Restored {
    /// The state that was read, if any.
    pub snapshot: Option<CheckpointClaim>,
    /// The end of the log.
    pub tail: Tail,
    /// How many records it has.
    pub records: u64,
    /// How many decisions were executed again.
    pub replayed: u64,
    /// The checkpoints that were taken again.
    pub claims: Vec<TakenCheckpoint>,
    /// The contents of the one that closes the epoch, which may not be on disk yet.
    pub closing: Option<Box<dyn CheckpointSnapshot>>,
    /// Every segment there is, in order.
    pub segments: Vec<u64>,
}

/// Listens to a restart: what is read, and what is executed again.
pub trait RestartObserver {
    /// The log holds this record.
    fn on_record(&mut self, _record: &Record) {}
    /// This decision is executed again.
    fn on_replayed(&mut self, _decision: &Arc<Proposal>) {}
    /// A snapshot cannot be read: the replica goes on without. Its state comes from others, or from a log
    /// that was never cut.
    fn on_damaged_snapshot(&mut self, error: &StorageError, needs_others: bool) {
        match needs_others {
            true => {
                tracing::error!(%error, "the snapshot of a checkpoint cannot be read; its state has to come from other replicas");
            }
            false => {
                tracing::error!(%error, "the snapshot of a checkpoint cannot be read; the log is whole, and is executed from its beginning");
            }
        }
    }
    /// The log is damaged: the replica goes on without.
    fn on_damaged_log(&mut self, error: &StorageError) {
        tracing::error!(
            %error,
            "the log is damaged, and votes in it may be forgotten; the state comes from other replicas, and this replica abstains from votes \
             until what it may have promised does not matter any more"
        );
    }
}

impl RestartObserver for () {}

/// Restores a new replica and its executor from what `medium` holds.
///
/// # Errors
/// When it cannot be read, or what was promised is damaged: the replica must not start.
pub fn restart<S: Stack, M: StorageBackend>(
    medium: &mut M,
    settings: &RestartSettings,
    replica: &mut Replica<S>,
    executor: &mut ExecutorOf<S>,
    witness: &mut impl RestartObserver,
) -> Result<Restored, StorageError> {
    let told = find_checkpoints::<S, M>(medium, settings, witness)?;
    // As it is when a damaged log was set aside.
    let superblock = medium.superblock();
    let snapshot = begin(medium, settings, &told, (&mut *replica, &mut *executor), witness)?;
    replica.restore_snapshots(believed_snapshots(medium, &superblock)?.into_iter());
    if let Some(claim) = snapshot {
        replica.restore_base(claim.seq, executor.chain());
    }
    if let Some(view) = medium.abstention() {
        replica.abstain(LostPromises { view });
    }
    let path = medium.path();
    let unread = |source| StorageError::Replay {
        path: path.to_owned(),
        source,
    };
    for record in told.stables() {
        replica.restore_stable(record).map_err(unread)?;
    }
    let mut replay = Replay::new(replica, executor);
    let segments = medium.segments()?;
    let read = |segment: &Found, bytes: &mut Vec<u8>| medium.read_segment(segment, bytes);
    let tail = scan_with(&superblock, &segments, read, |raw| {
        let record = read_record(&settings.reader, raw)?;
        witness.on_record(&record);
        let replayed = replay.record(&record).map_err(unread)?;
        replayed.iter().for_each(|decision| witness.on_replayed(decision));
        Ok(())
    })?;
    let Replayed {
        records,
        decisions: replayed,
        claims,
        closing,
    } = replay.finish(snapshot, tail.next_lsn);
    if replica.view() < superblock.view && medium.abstention().is_none() {
        let what = "the log knows of no view as late as the superblock does: its records of views are lost";
        return Err(StorageError::damaged(medium.path(), 0, what));
    }
    if !active(Mutant::LaterSnapshotsLeft) {
        medium.forget_snapshots_after(superblock.snapshot)?;
    }
    Ok(Restored {
        snapshot,
        tail,
        records,
        replayed,
        claims,
        closing,
        segments: segments.iter().map(|found| found.index).collect(),
    })
}

/// Has a replica begin with the snapshot that the superblock names, if there is one and it is believed.
fn begin<S: Stack, M: StorageBackend>(
    medium: &mut M,
    settings: &RestartSettings,
    told: &CheckpointHistory,
    (replica, executor): (&mut Replica<S>, &mut ExecutorOf<S>),
    witness: &mut impl RestartObserver,
) -> Result<Option<CheckpointClaim>, StorageError> {
    let superblock = medium.superblock();
    // What the epoch begins with was never here: no log of this epoch leads there.
    let is_missing = superblock.snapshot < settings.base.seq;
    let read = (!is_missing).then(|| restore_snapshot(medium, &superblock, told, executor));
    Ok(match read {
        None => {
            replica.restore_without_snapshot(settings.base.seq);
            None
        }
        Some(Ok(snapshot)) => snapshot,
        Some(Err(unread)) => {
            medium.set_snapshot_aside(superblock.snapshot)?;
            // An executor that has read a part of a snapshot is not in the initial state any more.
            let needs_others = unread.is_begun || !told.leads_to(superblock.snapshot);
            witness.on_damaged_snapshot(&unread.error, needs_others);
            if needs_others {
                replica.restore_without_snapshot(superblock.snapshot);
            }
            None
        }
    })
}

/// What the log says of checkpoints. A log that is damaged is replaced by an empty one, if that may be.
fn find_checkpoints<S: Stack, M: StorageBackend>(
    medium: &mut M,
    settings: &RestartSettings,
    witness: &mut impl RestartObserver,
) -> Result<CheckpointHistory, StorageError> {
    let mut told = CheckpointHistory::beginning_with(settings.base);
    let superblock = medium.superblock();
    let was_never_cut = superblock.log_start == Superblock::FIRST_SEGMENT;
    let read = |segment: &Found, bytes: &mut Vec<u8>| medium.read_segment(segment, bytes);
    let scanned = scan_with(&superblock, &medium.segments()?, read, |raw| {
        if raw.is_about_checkpoint() || (was_never_cut && raw.is_about_execution()) {
            told.take(read_record(&settings.reader, raw)?);
        }
        Ok(())
    });
    match scanned {
        Ok(_) => Ok(told),
        Err(damage @ StorageError::Damaged { .. }) if settings.can_abstain => {
            witness.on_damaged_log(&damage);
            repair_log::<S, M>(medium, &settings.reader, &damage)?;
            Ok(CheckpointHistory::beginning_with(settings.base))
        }
        Err(error) => Err(error),
    }
}

/// Why a snapshot was not read.
struct Unread {
    error: StorageError,
    /// Whether the executor has a part of it.
    is_begun: bool,
}

/// Has the executor read the snapshot to begin with, if there is one, unless a quorum contradicts it.
fn restore_snapshot<M: StorageBackend, E: Executor>(
    medium: &M,
    superblock: &Superblock,
    told: &CheckpointHistory,
    executor: &mut E,
) -> Result<Option<CheckpointClaim>, Unread> {
    let failed = |is_begun| move |error| Unread { error, is_begun };
    if superblock.snapshot == SeqNo::ZERO {
        return Ok(None);
    }
    let snapshot = believed_snapshot(medium, superblock, told).map_err(failed(false))?;
    snapshot::load(&snapshot, executor)
        .map(Some)
        .map_err(failed(true))
}

/// The snapshot to begin with, unless a quorum contradicts it.
fn believed_snapshot<M: StorageBackend>(
    medium: &M,
    superblock: &Superblock,
    told: &CheckpointHistory,
) -> Result<SnapshotFile<M::Snapshot>, StorageError> {
    let ours = medium.snapshot_claim(superblock.snapshot, &Digester::new(superblock.cluster))?;
    if told.contradicts(ours) {
        return Err(StorageError::Contradicted {
            path: medium.path().join("images"),
            seq: ours.seq,
        });
    }
    medium.open_snapshot(superblock.snapshot)
}

/// The snapshots up to the one to begin with, as what their heads say; those whose heads say nothing are left
/// out.
fn believed_snapshots<M: StorageBackend>(
    medium: &M,
    superblock: &Superblock,
) -> Result<Vec<CheckpointClaim>, StorageError> {
    let digester = Digester::new(superblock.cluster);
    let up_to = medium
        .snapshots()?
        .into_iter()
        .filter(|seq| *seq <= superblock.snapshot);
    let claims = up_to.filter_map(|seq| {
        let claim = medium.snapshot_claim(seq, &digester);
        let claim = claim.inspect_err(|error| tracing::debug!(%error, "a snapshot is not offered to peers"));
        claim.ok().filter(|claim| claim.seq == seq)
    });
    Ok(claims.collect())
}

fn read_record(reader: &RecordReader, raw: RawRecord<'_>) -> Result<Record, StorageError> {
    reader.read(raw.bytes).map_err(|error| StorageError::Damaged {
        path: raw.path.to_owned(),
        offset: raw.offset,
        what: format!("record {}: {error}", raw.lsn),
    })
}

/// The sizes of a cluster's log.
#[must_use]
pub fn writer_settings(
    superblock: &Superblock,
    segment_bytes: u64,
    segments_max: usize,
    lengths: &Lengths,
) -> WriterSettings {
    WriterSettings {
        tag: superblock.tag(),
        seed: superblock.seed,
        segment_bytes: segment_bytes.max(lengths.segment_bytes_min()),
        segments_max,
        record_bytes_max: lengths.log_record(),
    }
}

/// The log as it goes on, and what becomes of the segments there are.
#[derive(Debug)]
pub struct Continued<W> {
    /// Writes after the end that was found.
    pub writer: W,
    /// The segments it writes to next: the last one with records, and those prepared.
    pub current: Vec<u64>,
    /// Segments of which nothing is needed any more.
    pub spare: Vec<u64>,
}

impl Restored {
    /// Goes on where the log ends, with a writer that was made for that end.
    #[must_use]
    pub fn go_on<W: GroupWriter>(&self, mut writer: W, superblock: &Superblock) -> Continued<W> {
        let last = self.tail.segments.last().map(|(index, _)| *index);
        let (spare, needed): (Vec<u64>, Vec<u64>) = self
            .segments
            .iter()
            .partition(|index| **index < superblock.log_start);
        let mut current = Vec::new();
        for index in needed {
            if last.is_none_or(|last| index > last) {
                writer.add_segment(index);
            }
            if last.is_none_or(|last| index >= last) {
                current.push(index);
            }
        }
        Continued {
            writer,
            current,
            spare,
        }
    }
}
