//! The state of others takes the place of the one that a replica has, which may be wrong; the replica stops
//! at any moment of it.

use std::os::unix::fs::FileExt;
use std::sync::mpsc;

use super::files::planned::{self, Plan};
use super::restart::{RestartSettings, Restored, restart};
use super::storage_worker::{StorageEvent, StorageWorker, Task, Work, write_snapshot};
use super::*;
use crate::runtime::shard::Alarm;
use crate::smr::crypto::{Chain, Digester};
use crate::smr::decision_log::ChainedLog;
use crate::smr::execution::apps::counter;
use crate::smr::execution::fixtures::{decision, frame};
use crate::smr::execution::{CheckpointSnapshot, ExecutionEvent, Executor, StateRule};
use crate::smr::messages::archived::{ArchivedStateTransferMessage, ArchivedSystemMessage};
use crate::smr::messages::{
    Checked, CheckpointClaim, Mode, StateTransferMessage, SyncMessage, SystemMessage,
};
use crate::smr::node::StorageTask;
use crate::smr::replica::tests as replicas;
use crate::smr::replica::{Action, DefaultStack, Replica};
use crate::smr::types::Time;

type Subject = Replica<DefaultStack<counter::Counter>>;

/// What is on disk of the state after so many decisions, of which a wrong one executed the first otherwise.
fn state(seq: u64, is_wrong: bool) -> Box<dyn CheckpointSnapshot> {
    let (mut executor, mut events) = (replicas::executor(StateRule::ALWAYS), Vec::new());
    for seq in 1..=seq {
        let frames = match seq == 1 && is_wrong {
            true => vec![frame(0, 1, Mode::Ordered, &[counter::add(1)])],
            false => Vec::new(),
        };
        executor.execute(&decision(seq, frames), &mut events);
        while executor.background_step(usize::MAX, &mut events) {}
    }
    let snapshot = events.into_iter().rev().find_map(|event| match event {
        ExecutionEvent::Snapshot(snapshot) => Some(snapshot),
        _ => None,
    });
    snapshot.expect("a checkpoint was due")
}

fn claim(seq: u64) -> CheckpointClaim {
    state(seq, false).claim()
}

fn open(path: &Path) -> DataDirectory {
    DataDirectory::open(path, CLUSTER, NODE).unwrap()
}

fn fresh() -> (TempDir, std::path::PathBuf) {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("r2");
    DataDirectory::format(&path, CLUSTER, NODE, Epoch::ZERO).unwrap();
    (temporary, path)
}

/// Writes an own snapshot beside its place.
fn written(
    directory: &DataDirectory,
    snapshot: Box<dyn CheckpointSnapshot>,
) -> Result<(SeqNo, u64), StorageError> {
    write_snapshot(&directory.snapshots_path(), directory.superblock().seed, snapshot)
}

fn keep(work: &mut Work, snapshot: Box<dyn CheckpointSnapshot>) {
    let seq = snapshot.claim().seq;
    let written = written(&work.directory, snapshot);
    assert!(matches!(work.run(Task::Written(0, written)), Some(StorageEvent::Snapshot(kept)) if kept == seq));
}

/// Gathers a snapshot that came from others, as the snapshot transfer does.
fn receive(directory: &DataDirectory, seq: u64) {
    let path = snapshot::received_path(&directory.snapshots_path(), SeqNo::new(seq));
    snapshot::write(&path, &mut *state(seq, false), directory.superblock().seed).unwrap();
}

/// Has a snapshot in its place.
fn place(directory: &DataDirectory, seq: u64) {
    let path = directory.snapshot_path(SeqNo::new(seq));
    snapshot::write(&path, &mut *state(seq, false), directory.superblock().seed).unwrap();
}

/// Has a restart begin with a snapshot that came from others: it is told when that is so.
fn adopt(work: &mut Work, seq: u64) {
    let told = work.run(Task::Keep(StorageTask::InstallBase(SeqNo::new(seq))));
    assert!(
        matches!(told, Some(StorageEvent::Adopted(adopted)) if adopted.get() == seq),
        "{told:?}"
    );
    assert_eq!(work.directory.superblock().snapshot, SeqNo::new(seq));
}

fn snapshots(path: &Path) -> Vec<u64> {
    let found = directory::list(&path.join("images")).unwrap();
    found.into_iter().map(|found| found.index).collect()
}

/// Starts a replica.
fn restarted(directory: &mut DataDirectory) -> (Subject, Restored) {
    let mut replica = replicas::replica(ChainedLog::new(Digester::new(CLUSTER)));
    let mut executor = replicas::executor(StateRule::ALWAYS);
    let settings = RestartSettings {
        reader: reader(),
        can_abstain: true,
        base: CheckpointClaim::NONE,
    };
    let restored = restart(directory, &settings, &mut replica, &mut executor, &mut ()).unwrap();
    (replica, restored)
}

/// Writes records to the log of a directory that was never used.
fn log(directory: &mut DataDirectory, records: &[Record]) {
    let file = directory.prepare_segment(1, SEGMENT_BYTES, None).unwrap();
    let (tag, seed) = (directory.superblock().tag(), directory.superblock().seed);
    let mut writer = LogWriter::new(
        WriterSettings {
            tag,
            seed,
            ..settings()
        },
        1,
    );
    writer.add_segment(1);
    for record in records {
        writer.append(record);
    }
    while let Some(operation) = writer.next_operation() {
        let mut count = 0;
        if let LogOperation::Write { offset, .. } = operation {
            file.write_all_at(writer.bytes(), offset).unwrap();
            count = writer.bytes().len();
        }
        writer.on_complete(Ok(count)).unwrap();
    }
}

fn stable(claim: CheckpointClaim) -> Record {
    let proof = replicas::certificate(claim);
    Record::Stable { claim, proof }
}

/// The places of the checkpoints that a replica offers.
fn offered(replica: &mut Subject) -> Vec<u64> {
    let ask = StateTransferMessage::AskOffer { after: 0 }.encode(CLUSTER, Epoch::ZERO);
    let checked = Checked::<SystemMessage>::body_of(&ask).unwrap();
    replica.drain_actions();
    assert!(replica.on_message(Time::START, NodeId::new(3), &checked, &ask));
    let offers = replica.drain_actions().filter_map(|action| {
        let Action::ToReplicas { message, .. } = action else {
            return None;
        };
        match &*Checked::<SystemMessage>::body_of(&message).unwrap() {
            ArchivedSystemMessage::StateTransferMessage(ArchivedStateTransferMessage::Offer(offer)) => {
                Some(offer.to_offer().seq)
            }
            _ => None,
        }
    });
    offers.collect()
}

/// A replica with wrong snapshots at 30 and 40 adopts the state at 20; this operation of it fails.
fn adopts(path: &Path, plan: Option<Plan>) -> Option<StorageEvent> {
    let mut work = Work::new(open(path), Vec::new());
    keep(&mut work, state(30, true));
    keep(&mut work, state(40, true));
    receive(&work.directory, 20);
    planned::plan(plan);
    let kept = work.run(Task::Keep(StorageTask::InstallBase(SeqNo::new(20))));
    let steps = planned::steps();
    planned::plan(None);
    assert!(
        plan.is_some() || steps >= 5,
        "{steps}: the snapshot, the superblock, two snapshots, their directory"
    );
    kept
}

#[test]
fn a_replica_that_stops_while_it_adopts_a_state_keeps_no_later_snapshot_of_the_one_it_had() {
    let mut named = 0;
    for (first, torn) in (0..8).flat_map(|first| [(first, false), (first, true)]) {
        let (_temporary, path) = fresh();
        let plan = Plan {
            first,
            count: 1,
            errno: libc::EIO,
            torn,
        };
        let kept = adopts(&path, Some(plan));
        assert!(
            matches!(kept, Some(StorageEvent::Failed(_) | StorageEvent::Adopted(_))),
            "{kept:?}"
        );
        let mut directory = open(&path);
        let begun = directory.superblock().snapshot;
        named += u32::from(begun == SeqNo::new(20));
        let (_, restored) = restarted(&mut directory);
        assert_eq!(restored.snapshot.map(|claim| claim.seq), Some(begun));
        let expected: &[&[u64]] = match begun.get() {
            // It is not named yet, or not even in its place: the replica does not know that its state is
            // wrong, and asks for another once more.
            40 => &[&[30, 40], &[20, 30, 40]],
            _ => &[&[20]],
        };
        assert!(expected.contains(&&snapshots(&path)[..]), "step {first}");
    }
    assert!(named >= 4, "{named}");
}

#[test]
fn what_was_left_of_a_wrong_state_does_not_pass_for_the_right_one_later() {
    // The superblock is written and synced, the snapshots are listed, the first one is removed, and the next
    // is not.
    let fails_at = |first| {
        let (temporary, path) = fresh();
        let plan = Plan {
            first,
            count: 1,
            errno: libc::EIO,
            torn: false,
        };
        adopts(&path, Some(plan));
        (temporary, path)
    };
    let stopped = (0..12)
        .map(fails_at)
        .find(|(_, path)| snapshots(path) == [20, 40]);
    let (_temporary, path) = stopped.expect("one removal after the other");
    let mut directory = open(&path);
    assert_eq!(restarted(&mut directory).1.snapshot, Some(claim(20)));
    // It goes on, and its disk has no time for the snapshot at 40.
    let mut work = Work::new(directory, Vec::new());
    keep(&mut work, state(50, false));
    drop(work);
    let mut directory = open(&path);
    assert_eq!(restarted(&mut directory).1.snapshot, Some(claim(50)));
    assert_eq!(snapshots(&path), [20, 50]);
}

#[test]
fn an_own_snapshot_in_its_place_that_the_superblock_does_not_name_is_taken_again() {
    let (_temporary, path) = fresh();
    let directory = open(&path);
    place(&directory, 10);
    drop(directory);
    let mut directory = open(&path);
    assert_eq!(restarted(&mut directory).1.snapshot, None);
    assert_eq!(snapshots(&path), Vec::<u64>::new());
}

#[test]
fn a_restart_does_not_go_on_from_a_state_that_its_log_says_is_wrong() {
    let (_temporary, path) = fresh();
    let mut directory = open(&path);
    log(&mut directory, &[stable(claim(30)), stable(claim(40))]);
    let mut work = Work::new(directory, Vec::new());
    keep(&mut work, state(30, false));
    keep(&mut work, state(40, true));
    drop(work);
    let mut directory = open(&path);
    let (mut replica, restored) = restarted(&mut directory);
    assert_eq!(restored.snapshot, None);
    assert!(replica.awaits_state(), "the right one comes from others");
    assert_eq!(snapshots(&path), [30], "it is set aside");
    assert_eq!(offered(&mut replica), [30], "what was right before can be given");
    drop(replica);
    // It is no better at the next start.
    drop(directory);
    let (replica, restored) = restarted(&mut open(&path));
    assert!(restored.snapshot.is_none() && replica.awaits_state());
}

/// What a replica signs of its state.
fn signed(seq: u64, is_wrong: bool) -> Record {
    let claim = state(seq, is_wrong).claim();
    Record::Checkpoint(replicas::certificate(claim)[0])
}

#[test]
fn a_restart_does_not_go_on_from_a_state_that_follows_a_wrong_one() {
    // The checkpoint at 30 was contradicted after the one at 40 had been taken of the same state.
    let found_out = [
        signed(20, false),
        stable(claim(20)),
        signed(30, true),
        signed(40, true),
        stable(claim(30)),
    ];
    // The right state came, and was gone on from.
    let got_over = [signed(40, false), signed(50, false)];
    for (records, named, is_right) in [
        (&found_out[..], state(40, true), false),
        (&found_out[..], state(20, false), true),
        (
            &[&found_out[..], &got_over[..]].concat()[..],
            state(40, false),
            true,
        ),
        (
            &[&found_out[..], &got_over[..]].concat()[..],
            state(50, false),
            true,
        ),
        (&found_out[..4], state(40, true), true),
    ] {
        let (_temporary, path) = fresh();
        let mut directory = open(&path);
        log(&mut directory, records);
        let mut work = Work::new(directory, Vec::new());
        let named_claim = named.claim();
        keep(&mut work, named);
        drop(work);
        let (replica, restored) = restarted(&mut open(&path));
        assert_eq!(restored.snapshot, is_right.then_some(named_claim));
        assert_eq!(replica.awaits_state(), !is_right);
    }
}

#[test]
fn a_log_that_was_never_cut_takes_the_place_of_an_snapshot_that_is_wrong() {
    let mut chain = Chain::START;
    let mut null_requests: Vec<Record> = Vec::new();
    for seq in (1..=40).map(SeqNo::new) {
        let digest = Digest::ZERO;
        chain = chain.then(seq, &digest, &Digester::new(CLUSTER));
        null_requests.push(Record::Decision { seq, digest, chain });
    }
    let found_out = [signed(30, true), signed(40, true), stable(claim(30))];
    for (decisions, is_whole) in [
        (&null_requests[..], true),
        (&null_requests[..39], false),
        (&null_requests[1..], false),
    ] {
        let (_temporary, path) = fresh();
        let mut directory = open(&path);
        log(&mut directory, &[decisions, &found_out].concat());
        let mut work = Work::new(directory, Vec::new());
        keep(&mut work, state(40, true));
        drop(work);
        // The snapshot is set aside at the first start, and missing at the second.
        for _ in 0..2 {
            let (replica, restored) = restarted(&mut open(&path));
            assert_eq!(restored.snapshot, None);
            assert_eq!(replica.awaits_state(), !is_whole);
            let executed = if is_whole { 40 } else { 0 };
            assert_eq!(restored.replayed, executed);
            let taken = restored.claims.last().map(|taken| taken.claim);
            assert_eq!(taken, is_whole.then(|| claim(40)), "of the right state");
        }
    }
}

#[test]
fn a_restart_disowns_what_was_signed_of_a_state_that_another_has_replaced() {
    // The record of what the quorum signed was lost with the power; the state had come.
    let (_temporary, path) = fresh();
    let mut directory = open(&path);
    log(&mut directory, &[signed(30, true), signed(40, true)]);
    let mut work = Work::new(directory, Vec::new());
    keep(&mut work, state(30, false));
    drop(work);
    let (mut replica, restored) = restarted(&mut open(&path));
    assert_eq!(restored.snapshot, Some(claim(30)));
    for seq in [30, 40] {
        let proof = replicas::certificate(claim(seq));
        let word = SyncMessage::Stable(proof).encode(CLUSTER, Epoch::ZERO);
        let checked = Checked::<SystemMessage>::body_of(&word).unwrap();
        replica.on_message(Time::START, NodeId::new(3), &checked, &word);
    }
    assert_eq!(replica.counters().divergences, 0);
}

#[test]
fn no_snapshot_of_a_state_that_was_found_to_be_wrong_is_kept() {
    let (_temporary, path) = fresh();
    let mut work = Work::new(open(&path), Vec::new());
    assert!(work.run(Task::Keep(StorageTask::Invalidate)).is_none());
    let own = written(&work.directory, state(40, true));
    assert!(work.run(Task::Written(0, own)).is_none());
    assert_eq!(snapshots(&path), Vec::<u64>::new());
    receive(&work.directory, 30);
    adopt(&mut work, 30);
    assert!(work.run(Task::Keep(StorageTask::Installed)).is_none());
    let own = written(&work.directory, state(40, false));
    assert!(matches!(
        work.run(Task::Written(1, own)),
        Some(StorageEvent::Snapshot(_))
    ));
}

#[test]
fn an_own_snapshot_that_is_placed_late_does_not_take_the_place_of_the_one_that_came() {
    let (_temporary, path) = fresh();
    let mut work = Work::new(open(&path), Vec::new());
    receive(&work.directory, 40);
    // It was written before the state was found to be wrong.
    keep(&mut work, state(40, true));
    assert!(work.run(Task::Keep(StorageTask::Invalidate)).is_none());
    adopt(&mut work, 40);
    let placed = work.directory.snapshot_path(SeqNo::new(40));
    let file = std::fs::File::open(&placed).unwrap();
    let seed = work.directory.superblock().seed;
    assert_eq!(
        snapshot::claim_of(&placed, &file, seed, &Digester::new(CLUSTER)).unwrap(),
        claim(40)
    );
    assert_ne!(state(40, true).claim(), claim(40));
}

#[test]
fn a_restart_goes_on_from_the_state_that_its_log_says_is_right() {
    let (_temporary, path) = fresh();
    let mut directory = open(&path);
    log(&mut directory, &[stable(claim(30)), stable(claim(40))]);
    let mut work = Work::new(directory, Vec::new());
    keep(&mut work, state(30, false));
    keep(&mut work, state(40, false));
    drop(work);
    let (mut replica, restored) = restarted(&mut open(&path));
    assert_eq!(restored.snapshot, Some(claim(40)));
    assert!(!replica.awaits_state());
    assert_eq!(offered(&mut replica), [40, 30]);
}

#[test]
fn an_earlier_snapshot_of_a_replaced_state_is_not_given_to_peers_after_a_restart() {
    let (_temporary, path) = fresh();
    let mut directory = open(&path);
    log(&mut directory, &[stable(claim(20)), stable(claim(30))]);
    let mut work = Work::new(directory, Vec::new());
    keep(&mut work, state(20, true));
    receive(&work.directory, 30);
    adopt(&mut work, 30);
    drop(work);
    let (mut replica, restored) = restarted(&mut open(&path));
    assert_eq!(restored.snapshot, Some(claim(30)));
    assert_eq!(offered(&mut replica), [30]);
}

#[test]
fn an_earlier_snapshot_whose_head_is_damaged_is_not_given_to_peers_after_a_restart() {
    for damage in [0, 12, 30, 100] {
        let (_temporary, path) = fresh();
        let mut directory = open(&path);
        log(&mut directory, &[stable(claim(20)), stable(claim(30))]);
        let mut work = Work::new(directory, Vec::new());
        keep(&mut work, state(20, false));
        keep(&mut work, state(30, false));
        drop(work);
        let name = path.join("images/0000000000000020");
        let mut bytes = std::fs::read(&name).unwrap();
        bytes[damage] ^= 0x80;
        std::fs::write(&name, bytes).unwrap();
        assert_eq!(offered(&mut restarted(&mut open(&path)).0), [30], "byte {damage}");
    }
}

#[test]
fn an_snapshot_of_a_state_that_was_replaced_while_it_was_written_is_not_kept() {
    let (_temporary, path) = fresh();
    let mut work = Work::new(open(&path), Vec::new());
    let late = written(&work.directory, state(40, true));
    let later = written(&work.directory, state(50, true));
    receive(&work.directory, 20);
    adopt(&mut work, 20);
    assert!(work.run(Task::Written(0, late)).is_none(), "it is being replaced");
    assert!(work.run(Task::Keep(StorageTask::Installed)).is_none());
    assert!(work.run(Task::Written(0, later)).is_none(), "it was replaced");
    assert_eq!(work.directory.superblock().snapshot, SeqNo::new(20));
    assert_eq!(snapshots(&path), [20]);
    let own = written(&work.directory, state(30, false));
    assert!(matches!(
        work.run(Task::Written(1, own)),
        Some(StorageEvent::Snapshot(_))
    ));
    assert_eq!(snapshots(&path), [20, 30]);
}

/// A snapshot whose contents come when they may.
#[derive(Debug)]
struct Gated(Box<dyn CheckpointSnapshot>, mpsc::Receiver<()>);

impl CheckpointSnapshot for Gated {
    fn claim(&self) -> CheckpointClaim {
        self.0.claim()
    }

    fn next_chunk(&mut self, bytes: usize, chunk: &mut Vec<u8>) -> bool {
        // Whoever held it back is gone: go on.
        let _ = self.1.recv();
        self.0.next_chunk(bytes, chunk)
    }
}

#[test]
fn an_snapshot_that_takes_longer_to_write_than_another_state_to_install_is_not_kept() {
    let (_temporary, path) = fresh();
    let directory = open(&path);
    receive(&directory, 20);
    let (tell, told) = mpsc::channel();
    let names = ("storage".to_owned(), "snapshots".to_owned());
    let storage_worker = StorageWorker::spawn(names, directory, Vec::new(), &Alarm::default(), move |kept| {
        let _ = tell.send(kept);
    });
    let storage_worker = storage_worker.unwrap();
    let handle = storage_worker.handle();
    let (gate, gated) = mpsc::channel();
    handle.keep(Box::new(Gated(state(40, true), gated)));
    handle.ask(StorageTask::InstallBase(SeqNo::new(20)));
    handle.installed();
    drop(gate);
    while handle.is_writing() {
        std::thread::yield_now();
    }
    handle.keep(state(30, false));
    assert!(matches!(told.recv(), Ok(StorageEvent::Adopted(seq)) if seq == SeqNo::new(20)));
    assert!(matches!(told.recv(), Ok(StorageEvent::Snapshot(seq)) if seq == SeqNo::new(30)));
    drop(storage_worker);
    assert_eq!(snapshots(&path), [20, 30]);
    assert_eq!(read_superblock(&path).unwrap().snapshot, SeqNo::new(30));
}

#[test]
fn an_snapshot_whose_transfer_was_interrupted_and_went_on_is_as_sound_to_a_survey_as_to_a_restart() {
    let (_temporary, path) = fresh();
    let directory = open(&path);
    place(&directory, 20);
    let (name, seed) = (
        directory.snapshot_path(SeqNo::new(20)),
        directory.superblock().seed,
    );
    drop(directory);
    let snapshot = snapshot::SnapshotFile::open(&name, seed).unwrap();
    let chunks: Vec<Vec<u8>> = (0..snapshot.chunks())
        .map(|number| snapshot.chunk(number).unwrap())
        .collect();
    let mut bytes = snapshot::file_magic().to_vec();
    // Head and index once more after the interruption, then the pieces; the last chunk is empty.
    for chunk in [&chunks[..2], &chunks[..], &[Vec::new()][..]].concat() {
        let head = snapshot::chunk_head(bytes.len() as u64, &chunk, seed);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&chunk);
    }
    std::fs::write(&name, &bytes).unwrap();
    let survey = survey::Survey::of(&path).unwrap();
    let found = survey.snapshots().unwrap();
    let seen = survey.snapshot(&found[0]);
    assert!(seen.damage.is_none(), "{:?}", seen.damage);
    assert_eq!(seen.claim, Some(claim(20)));
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    std::fs::write(&name, &bytes).unwrap();
    assert!(survey.snapshot(&found[0]).damage.is_some());
}
