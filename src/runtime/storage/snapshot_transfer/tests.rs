//! The snapshots that others send, on real files whose writes and syncs fail at every step.

use std::path::Path;
use std::sync::mpsc::Receiver;

use tempfile::TempDir;

use super::super::files::planned::{self, Plan};
use super::super::snapshot::{load, place_received, write_to};
use super::super::storage_worker::Task as Asked;
use super::*;
use crate::smr::execution::apps::kv::Kv;
use crate::smr::execution::fixtures::{KvCheckpoint, digester, kv_checkpoint};
use crate::smr::execution::{CheckpointRule, CheckpointSnapshot, SingleThreaded, StateRule};
use crate::smr::messages::{CheckpointClaim, PieceWriter, SnapshotChunk};
use crate::smr::types::{Digest, Epoch};

const SEED: u64 = 7;
const SEQ: SeqNo = SeqNo::new(40);
/// What an own snapshot has.
const OWN: SeqNo = SeqNo::new(30);
/// How often what there was no space for fails again.
const FULL_STEPS: usize = 3;

/// A start of the snapshot transfer, and what its storage worker was asked.
struct Life {
    work: Work,
    storage_worker: Receiver<Asked>,
}

fn start(snapshots: &Path) -> Life {
    let (handle, storage_worker) = StorageWorkerHandle::detached();
    let work = Work {
        snapshots: snapshots.to_owned(),
        seed: SEED,
        storage_worker: handle,
        digester: digester(),
        receiving: None,
        basis: None,
        open: VecDeque::new(),
        open_max: 4,
    };
    Life { work, storage_worker }
}

/// Head, index, and pieces: the snapshot transfer looks into none of them.
fn chunks() -> Vec<Bytes> {
    let piece = |number: u8| {
        let mut chunk = vec![2];
        chunk.extend_from_slice(&u32::from(number).to_le_bytes());
        chunk.extend(std::iter::repeat_n(number, 100 + usize::from(number)));
        Bytes::from(chunk)
    };
    let first = [Bytes::from_static(b"\0head"), Bytes::from_static(b"\x01index")];
    first.into_iter().chain((0..6).map(piece)).collect()
}

impl Life {
    fn run(&mut self, task: &SnapshotTask, told: &mut Vec<SnapshotEvent>) -> Result<(), StorageError> {
        self.work
            .run_with_space(task, &AtomicBool::new(false), &mut |event| match event {
                SnapshotTransferEvent::Snapshot(event) => told.push(event),
                SnapshotTransferEvent::Read(read) => panic!("{read:?}"),
                SnapshotTransferEvent::Failed(error) => panic!("{error}"),
            })
    }

    /// Opens the snapshot, adds what is not found of it, completes it, and reads it back.
    fn receive(&mut self) -> Result<Vec<Bytes>, StorageError> {
        let mut told = Vec::new();
        let index = kv_checkpoint(1, &[], 100).index;
        self.run(&SnapshotTask::Open { seq: SEQ, index }, &mut told)?;
        assert!(matches!(told.pop(), Some(SnapshotEvent::Opened(SEQ))));
        // A task that was done again tells again: what counts is what there is at the end.
        let found: Vec<Bytes> = told
            .drain(..)
            .filter_map(|event| match event {
                SnapshotEvent::Found(chunk) => Some(chunk),
                SnapshotEvent::Reusable { .. } => None,
                other => panic!("{other:?}"),
            })
            .collect();
        let missing: Vec<Bytes> = chunks()
            .into_iter()
            .filter(|chunk| !found.contains(chunk))
            .collect();
        assert!(found.iter().all(|chunk| chunks().contains(chunk)));
        for chunk in missing {
            self.run(&SnapshotTask::Keep(chunk), &mut told)?;
        }
        self.run(&SnapshotTask::Complete(SEQ), &mut told)?;
        assert!(
            !told
                .iter()
                .any(|event| matches!(event, SnapshotEvent::Completed(_))),
            "the storage worker tells"
        );
        let adopted: Vec<Asked> = self.storage_worker.try_iter().collect();
        assert!(
            matches!(adopted[..], [Asked::Keep(StorageTask::InstallBase(SEQ))]),
            "{adopted:?}"
        );
        // The storage worker tries it again for as long as there is no space.
        while let Err(error) = place_received(&self.work.snapshots, SEQ) {
            if !is_lack(&error) {
                return Err(error);
            }
        }
        let (sender, stream) = mpsc::sync_channel(64);
        self.work.stream(SEQ, &sender);
        drop(sender);
        stream.into_iter().collect()
    }
}

/// The operations of a run in which nothing fails.
fn steps() -> usize {
    let directory = TempDir::new().unwrap();
    planned::plan(None);
    assert_eq!(start(directory.path()).receive().unwrap(), chunks());
    planned::steps()
}

#[test]
fn a_disk_that_is_full_at_any_step_makes_a_state_wait_and_come_whole() {
    let steps = steps();
    assert!(steps > 15, "{steps}");
    for (first, torn) in (0..steps).flat_map(|first| [(first, false), (first, true)]) {
        let directory = TempDir::new().unwrap();
        planned::plan(Some(Plan {
            first,
            count: FULL_STEPS,
            errno: libc::ENOSPC,
            torn,
        }));
        let received = start(directory.path()).receive();
        planned::plan(None);
        assert_eq!(received.unwrap(), chunks(), "full from step {first} on");
    }
}

#[test]
fn a_disk_that_fails_at_any_step_stops_the_replica_and_what_was_kept_is_found_after_its_restart() {
    for (first, torn) in (0..steps()).flat_map(|first| [(first, false), (first, true)]) {
        let directory = TempDir::new().unwrap();
        planned::plan(Some(Plan {
            first,
            count: 1,
            errno: libc::EIO,
            torn,
        }));
        let received = start(directory.path()).receive();
        planned::plan(None);
        assert!(received.is_err(), "step {first} was not reached");
        let received = start(directory.path()).receive();
        assert_eq!(received.unwrap(), chunks(), "failed at step {first}");
    }
}

/// A snapshot as execution gives it.
#[derive(Debug)]
struct Written(std::collections::VecDeque<Bytes>);

impl CheckpointSnapshot for Written {
    fn claim(&self) -> CheckpointClaim {
        CheckpointClaim {
            seq: OWN,
            digest: Digest::ZERO,
        }
    }

    fn next_chunk(&mut self, _: usize, chunk: &mut Vec<u8>) -> bool {
        let next = self.0.pop_front();
        chunk.extend_from_slice(&next.clone().unwrap_or_default());
        next.is_some()
    }
}

/// Puts an own snapshot into the directory; its bytes.
fn write_own(snapshots: &Path, own: &KvCheckpoint) -> Vec<u8> {
    let (mut bytes, mut snapshot) = (Vec::new(), Written(own.chunks.clone().into()));
    write_to(&mut bytes, &mut snapshot, SEED, 1).unwrap();
    fs::write(snapshots.join(format!("{:016}", OWN.get())), &bytes).unwrap();
    bytes
}

/// Opens a snapshot to come, copies what an own one has of it, and says what that is, and what was missing.
fn copy_own(life: &mut Life, theirs: &KvCheckpoint) -> (Vec<Range<usize>>, Vec<usize>) {
    let (mut told, index) = (Vec::new(), theirs.index.clone());
    life.run(&SnapshotTask::Open { seq: SEQ, index }, &mut told)
        .unwrap();
    let reusable = told.iter().find_map(|event| match event {
        SnapshotEvent::Reusable { pieces, .. } => Some(pieces.clone()),
        _ => None,
    });
    let reusable = reusable.unwrap_or_default();
    for chunk in &theirs.chunks[..2] {
        life.run(&SnapshotTask::Keep(chunk.clone()), &mut told).unwrap();
    }
    told.clear();
    for row in &reusable {
        life.run(&SnapshotTask::Copy(row.clone()), &mut told).unwrap();
    }
    let missing = told.into_iter().flat_map(|event| match event {
        SnapshotEvent::Copied { missing, .. } => missing,
        _ => Vec::new(),
    });
    (reusable, missing.collect())
}

/// A long value is written in slices; of the others some are beside those that change.
const PUTS: [(u32, usize); 6] = [(1, 10), (2, 700_000), (3, 2000), (4, 50), (5, 300_000), (6, 10)];

#[test]
fn what_an_own_snapshot_has_of_another_is_copied_and_the_rest_is_what_changed() {
    let directory = TempDir::new().unwrap();
    let changed: Vec<(u32, usize)> = PUTS.iter().copied().chain([(3, 2001), (5, 20)]).collect();
    let (own, theirs) = (kv_checkpoint(6, &PUTS, 4096), kv_checkpoint(8, &changed, 4096));
    write_own(directory.path(), &own);
    let mut life = start(directory.path());
    let (reusable, missing) = copy_own(&mut life, &theirs);
    assert_eq!(missing, Vec::<usize>::new());
    let pieces = theirs.index.pieces();
    let copied: usize = reusable.iter().map(Range::len).sum();
    // The client's entry, and the parts of two keys.
    assert_eq!(copied, pieces - 3);
    let is_copied = |piece: usize| reusable.iter().any(|row| row.contains(&piece));
    // What is left is sent by others: then the snapshot is the other one.
    let mut told = Vec::new();
    for chunk in &theirs.chunks[2..] {
        let wanted = match SnapshotChunk::parse(chunk).unwrap() {
            SnapshotChunk::Pieces(found) => {
                let mut writer = PieceWriter::default();
                let found = found.filter(|(piece, _)| !is_copied(*piece));
                found.for_each(|(piece, bytes)| writer.write(piece, bytes));
                writer.finish()
            }
            SnapshotChunk::Slice(slice) if is_copied(slice.piece) => Vec::new(),
            _ => vec![chunk.to_vec()],
        };
        for chunk in wanted {
            life.run(&SnapshotTask::Keep(chunk.into()), &mut told).unwrap();
        }
    }
    life.run(&SnapshotTask::Complete(SEQ), &mut told).unwrap();
    place_received(directory.path(), SEQ).unwrap();
    let snapshot = SnapshotFile::open(&directory.path().join(format!("{:016}", SEQ.get())), SEED).unwrap();
    let rule = CheckpointRule {
        decisions: 1000,
        bytes: u64::MAX,
        state: StateRule::ALWAYS,
    };
    let mut executor = SingleThreaded::new(Kv, 4, digester(), Epoch::ZERO, rule);
    assert_eq!(load(&snapshot, &mut executor).unwrap(), theirs.claim);
}

#[test]
fn a_damaged_own_snapshot_gives_what_is_sound_and_another_state_nothing() {
    let directory = TempDir::new().unwrap();
    let own = kv_checkpoint(6, &PUTS, 4096);
    let bytes = write_own(directory.path(), &own);
    let path = directory.path().join(format!("{:016}", OWN.get()));
    let all = own.index.pieces();
    // Head and index are compared; behind them lie pieces.
    let pieces_from = 8 + own.chunks[..2]
        .iter()
        .map(|chunk| 12 + chunk.len())
        .sum::<usize>();
    for at in (pieces_from..bytes.len() - 12).step_by(bytes.len() / 50) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let (reusable, missing) = copy_own(&mut start(directory.path()), &own);
        match reusable.is_empty() {
            // It is found out when it is opened: a length.
            true => {}
            false => assert!(
                !missing.is_empty() && missing.len() < all,
                "byte {at}: {missing:?}"
            ),
        }
    }
    let mut damaged = bytes.clone();
    damaged[30] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert!(copy_own(&mut start(directory.path()), &own).0.is_empty());
}

/// What a peer gets of a snapshot.
fn given(life: &mut Life, seq: SeqNo) -> Vec<Bytes> {
    let range = PieceRange {
        seq: seq.get(),
        piece: PieceRange::HEAD,
        offset: 0,
        until: 0,
    };
    let (to, bytes_max) = (crate::smr::types::NodeId::new(1), 1 << 20);
    let mut told = Vec::new();
    life.run(&SnapshotTask::Read { to, range, bytes_max }, &mut told)
        .unwrap();
    let chunks = told.into_iter().map(|event| match event {
        SnapshotEvent::Chunk { bytes, .. } => bytes,
        other => panic!("{other:?}"),
    });
    chunks.collect()
}

#[test]
fn what_came_in_the_place_of_an_snapshot_that_is_open_is_what_peers_get() {
    let directory = TempDir::new().unwrap();
    let own = kv_checkpoint(6, &PUTS, 4096);
    write_own(directory.path(), &own);
    let name = |seq: SeqNo| directory.path().join(format!("{:016}", seq.get()));
    // The place at which another state will come.
    fs::rename(name(OWN), name(SEQ)).unwrap();
    let mut life = start(directory.path());
    assert_eq!(given(&mut life, SEQ), own.chunks[..2]);
    assert_eq!(
        life.receive().unwrap(),
        chunks(),
        "execution gets the one that came"
    );
    assert_eq!(given(&mut life, SEQ), chunks()[..2]);
}

#[test]
fn an_open_snapshot_is_given_only_while_its_name_names_it() {
    let directory = TempDir::new().unwrap();
    let (first, second) = (kv_checkpoint(6, &PUTS, 4096), kv_checkpoint(6, &PUTS[1..], 4096));
    let (gone, name) = (
        vec![Bytes::new()],
        directory.path().join(format!("{:016}", OWN.get())),
    );
    write_own(directory.path(), &first);
    let mut life = start(directory.path());
    assert_eq!(given(&mut life, OWN), first.chunks[..2]);
    fs::remove_file(&name).unwrap();
    assert_eq!(given(&mut life, OWN), gone, "the storage worker removed it");
    write_own(directory.path(), &second);
    assert_eq!(given(&mut life, OWN), second.chunks[..2]);
    // As the storage worker puts an own snapshot into its place: by name.
    fs::rename(&name, directory.path().join("aside")).unwrap();
    write_own(directory.path(), &first);
    assert_eq!(given(&mut life, OWN), first.chunks[..2]);
}

#[test]
fn snapshots_that_are_not_needed_are_not_held_open_and_no_more_than_peers_read() {
    let directory = TempDir::new().unwrap();
    let own = kv_checkpoint(6, &PUTS, 4096);
    let mut life = start(directory.path());
    let open = |life: &Life| -> Vec<u64> { life.work.open.iter().map(|(seq, _)| seq.get()).collect() };
    for seq in 31..37 {
        write_own(directory.path(), &own);
        let name = |seq: u64| directory.path().join(format!("{seq:016}"));
        fs::rename(name(OWN.get()), name(seq)).unwrap();
        given(&mut life, SeqNo::new(seq));
    }
    assert_eq!(open(&life), [33, 34, 35, 36], "those that were read last");
    let (before, but) = (SeqNo::new(36), vec![SeqNo::new(34)]);
    life.run(&SnapshotTask::Forget { before, but }, &mut Vec::new())
        .unwrap();
    assert_eq!(open(&life), [34, 36]);
    assert!(matches!(
        life.storage_worker.try_recv(),
        Ok(Asked::Keep(StorageTask::Forget(..)))
    ));
    given(&mut life, SeqNo::new(35));
    life.work.receiving = None;
    let index = own.index.clone();
    let seq = SeqNo::new(35);
    life.run(&SnapshotTask::Open { seq, index }, &mut Vec::new())
        .unwrap();
    life.run(&SnapshotTask::Complete(seq), &mut Vec::new()).unwrap();
    assert_eq!(
        open(&life),
        [34],
        "a state that came replaces this one and later ones"
    );
}
