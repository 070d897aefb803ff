use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::directory::read_superblock;
use super::*;
use crate::smr::crypto::{Chain, Digester};
use crate::smr::execution::apps::kv;
use crate::smr::messages::{CheckpointClaim, Lengths, Phase, SignedCheckpoint, SlotDigest, Vote};
use crate::smr::ordering::pbft::records::{announced, cast};
use crate::smr::protocol::{LogCut, Record};
use crate::smr::types::{ApplicationId, ClusterId, Digest, Epoch, Lsn, NodeId, SeqNo, View};

mod adopting;
mod directories;
mod faults;
mod logged;

const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);
const NODE: NodeId = NodeId::new(2);
const SEGMENT_BYTES: u64 = 64 << 10;

fn superblock() -> Superblock {
    Superblock {
        cluster: CLUSTER,
        application: ApplicationId::new("kv", 1).unwrap(),
        node: NODE,
        epoch: Epoch::ZERO,
        generation: 3,
        starts: 1,
        view: View::ZERO,
        log_start: 1,
        log_end: 0,
        snapshot: SeqNo::ZERO,
        seed: 99,
    }
}

fn settings() -> WriterSettings {
    WriterSettings {
        tag: superblock().tag(),
        seed: superblock().seed,
        segment_bytes: SEGMENT_BYTES,
        segments_max: 1000,
        record_bytes_max: 24 << 10,
    }
}

fn reader() -> RecordReader {
    RecordReader::new(
        Digester::new(CLUSTER),
        crate::smr::preprocessing::CheckerLimits {
            frame_bytes_max: 1 << 16,
            frame_operations_max: 100,
            batch_bytes_max: 1 << 16,
            batch_frames_max: 100,
            frame_macs: 0,
        },
    )
}

/// A disk: what was written, what was synced, and what of the rest a crash leaves.
#[derive(Debug, Default)]
struct Disk {
    synced: BTreeMap<u64, Vec<u8>>,
    /// Written and not synced: segment, offset, bytes.
    pending: Vec<(u64, usize, Vec<u8>)>,
}

impl Disk {
    fn write(&mut self, segment: u64, offset: u64, bytes: &[u8]) {
        self.pending.push((segment, offset as usize, bytes.to_vec()));
    }

    fn sync(&mut self) {
        for (segment, offset, bytes) in std::mem::take(&mut self.pending) {
            self.keep(segment, offset, &bytes);
        }
    }

    fn keep(&mut self, segment: u64, offset: usize, bytes: &[u8]) {
        let file = self
            .synced
            .entry(segment)
            .or_insert_with(|| vec![0; SEGMENT_BYTES as usize]);
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// The power goes: of what was not synced, the sectors whose turn `survives` says stay.
    fn crash(&mut self, mut survives: impl FnMut() -> bool) {
        for (segment, offset, bytes) in std::mem::take(&mut self.pending) {
            for (number, sector) in bytes.chunks(512).enumerate() {
                if survives() {
                    self.keep(segment, offset + 512 * number, sector);
                }
            }
        }
    }

    fn files(&self, directory: &Path) -> Vec<Found> {
        let files = self.synced.iter().map(|(index, bytes)| {
            let path = directory.join(format!("{index:016}"));
            std::fs::write(&path, bytes).unwrap();
            Found { index: *index, path }
        });
        files.collect()
    }

    /// What a restart reads: the records as bytes, and where the log ends.
    fn scan(&self) -> Result<(Vec<Vec<u8>>, Tail), StorageError> {
        let directory = TempDir::new().unwrap();
        let mut records = Vec::new();
        let tail = scan(&superblock(), &self.files(directory.path()), |raw| {
            assert_eq!(raw.lsn, Lsn::new(records.len() as u64));
            records.push(raw.bytes.to_vec());
            Ok(())
        })?;
        Ok((records, tail))
    }
}

fn record(number: u64, bytes: usize) -> Record {
    match number % 5 {
        0 => Record::ViewTransfer(Bytes::from(vec![number as u8; bytes])),
        1 => Record::View(View::new(number)),
        2 => Record::Decision {
            seq: SeqNo::new(number),
            digest: Digest::from_bytes([number as u8; 32]),
            chain: Chain::START,
        },
        _ => cast(Vote {
            phase: if number.is_multiple_of(2) {
                Phase::Prepare
            } else {
                Phase::Commit
            },
            view: 1,
            seq: number,
            digest: [number as u8; 32],
        }),
    }
}

fn bytes_of(record: &Record) -> Vec<u8> {
    let mut bytes = vec![0; codec::encoded_bytes(record)];
    codec::encode(record, &mut bytes);
    bytes.split_off(4)
}

/// Appends as many of `records` as there is room for, gives the writer segments, and runs up to `operations`
/// of it. Writes are cut short after `short` bytes.
fn drive(writer: &mut LogWriter, disk: &mut Disk, operations: usize, short: usize) {
    for _ in 0..operations {
        if let Some(index) = writer.wanted_segment() {
            writer.add_segment(index);
        }
        let outcome = match writer.next_operation() {
            Some(LogOperation::Write { segment, offset }) => {
                let bytes = writer.bytes();
                let count = bytes.len().min(short);
                disk.write(segment, offset, &bytes[..count]);
                count
            }
            Some(LogOperation::Sync { .. }) => {
                disk.sync();
                0
            }
            None => return,
        };
        writer.on_complete(Ok(outcome)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_counted_as_durable_survives_any_crash_and_the_log_goes_on(
        lives in proptest::collection::vec((proptest::collection::vec(0usize..20_000, 1..30), 0usize..40, any::<u64>()), 1..4),
        short in prop_oneof![Just(usize::MAX), 4096usize..9000],
    ) {
        let mut disk = Disk::default();
        let mut expected: Vec<Vec<u8>> = Vec::new();
        let mut writer = LogWriter::new(settings(), 1);
        for (sizes, operations, mut luck) in lives {
            for (step, bytes) in sizes.into_iter().enumerate() {
                let record = record(expected.len() as u64, bytes);
                if !writer.has_room(&record) {
                    drive(&mut writer, &mut disk, usize::MAX, usize::MAX);
                }
                writer.append(&record);
                expected.push(bytes_of(&record));
                drive(&mut writer, &mut disk, step % 3, short);
            }
            drive(&mut writer, &mut disk, operations, short);
            let durable = writer.durable().get() as usize;
            disk.crash(|| {
                luck = luck.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                luck >> 40 & 1 == 1
            });
            let (found, tail) = disk.scan().unwrap();
            prop_assert!(found.len() >= durable, "{} of {durable} durable records", found.len());
            prop_assert!(found.len() <= expected.len());
            prop_assert_eq!(&found[..], &expected[..found.len()]);
            expected.truncate(found.len());
            writer = LogWriter::resume(settings(), &tail);
        }
        drive(&mut writer, &mut disk, usize::MAX, usize::MAX);
    }

    #[test]
    fn a_flipped_bit_is_never_taken_for_a_record(flip in any::<prop::sample::Index>()) {
        let (mut disk, expected) = written(60, 3000);
        let bits: Vec<(u64, usize)> = disk
            .synced
            .iter()
            .flat_map(|(segment, bytes)| (0..bytes.len() * 8).step_by(13).map(|bit| (*segment, bit)))
            .collect();
        let (segment, bit) = bits[flip.index(bits.len())];
        disk.synced.get_mut(&segment).unwrap()[bit / 8] ^= 1 << (bit % 8);
        match disk.scan() {
            Ok((found, _)) => prop_assert_eq!(&found[..], &expected[..found.len()]),
            Err(error) => prop_assert!(matches!(error, StorageError::Damaged { .. }), "{error}"),
        }
    }
}

/// A log of some records, each in a group of its own.
fn written(count: u64, bytes: usize) -> (Disk, Vec<Vec<u8>>) {
    let (mut disk, mut writer) = (Disk::default(), LogWriter::new(settings(), 1));
    let mut expected = Vec::new();
    for number in 0..count {
        let record = record(number, bytes);
        writer.append(&record);
        expected.push(bytes_of(&record));
        drive(&mut writer, &mut disk, usize::MAX, usize::MAX);
    }
    assert!(writer.is_idle());
    (disk, expected)
}

#[test]
fn rot_before_the_end_is_told_from_a_torn_end() {
    let (mut disk, expected) = written(40, 3000);
    disk.synced.get_mut(&1).unwrap()[4096 + 100] ^= 1;
    let Err(StorageError::Damaged { path, offset, .. }) = disk.scan() else {
        panic!("what was durable is damaged");
    };
    assert!(
        path.ends_with("0000000000000001") && offset == 4096,
        "{path:?} {offset}"
    );

    let (mut disk, _) = written(5, 3000);
    let torn = disk.synced.get_mut(&1).unwrap();
    torn[4 * 4096 + 100] ^= 1;
    let (found, tail) = disk.scan().unwrap();
    assert_eq!((&found[..], tail.torn), (&expected[..4], true));
}

#[test]
fn what_an_earlier_life_of_a_segment_left_behind_the_end_is_not_torn() {
    let (mut disk, expected) = written(5, 3000);
    let tail = disk.scan().unwrap().1;
    let leftover = disk.synced[&1][4096..2 * 4096].to_vec();
    let segment = disk.synced.get_mut(&1).unwrap();
    let end = tail.offset as usize;
    segment[end..end + 4096].copy_from_slice(&leftover);
    // A block from the middle of an earlier, longer group has no header.
    for middle in [false, true] {
        if middle {
            disk.synced.get_mut(&1).unwrap()[end..end + 4096].fill(7);
        }
        let (found, tail) = disk.scan().unwrap();
        assert_eq!((&found[..], tail.torn), (&expected[..], false));
    }
}

#[test]
fn a_missing_segment_is_damage() {
    for missing in [1, 2] {
        let (mut disk, _) = written(60, 3000);
        assert!(disk.synced.len() > 3);
        disk.synced.remove(&missing);
        let error = disk.scan().unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    }
}

#[test]
fn segments_of_an_earlier_life_and_of_others_are_not_the_log() {
    let (disk, _) = written(60, 3000);
    let (mut again, mut writer) = (Disk::default(), LogWriter::new(settings(), 1));
    // Recycled: segment 1 has the contents of what was segment 2, and 2 those of 3.
    again.synced = disk
        .synced
        .iter()
        .map(|(index, bytes)| (index - 1, bytes.clone()))
        .collect();
    again.synced.remove(&0);
    assert_eq!(again.scan().unwrap().0.len(), 0);
    writer.append(&record(1, 0));
    drive(&mut writer, &mut again, usize::MAX, usize::MAX);
    assert_eq!(again.scan().unwrap().0, [bytes_of(&record(1, 0))]);
}

#[test]
fn the_log_is_cut_segment_by_segment_and_never_below_what_is_needed() {
    let (mut disk, mut writer) = (Disk::default(), LogWriter::new(settings(), 1));
    for number in 0..100 {
        writer.append(&cast(Vote {
            phase: Phase::Commit,
            view: 0,
            seq: number,
            digest: [0; 32],
        }));
        drive(&mut writer, &mut disk, usize::MAX, usize::MAX);
    }
    let cut = |seq, before| LogCut {
        seq: SeqNo::new(seq),
        before: Lsn::ZERO.plus(before),
        view: View::ZERO,
    };
    // Sixteen groups of a block in each segment.
    let mut gone = |cut| {
        writer
            .cut(cut)
            .map(|released| (released.gone, released.log_start))
    };
    assert_eq!(gone(cut(14, 100)), None);
    assert_eq!(gone(cut(47, 100)), Some((vec![1, 2, 3], 4)));
    assert_eq!(
        gone(cut(1000, 70)),
        Some((vec![4], 5)),
        "what was written for the cut lies in the fifth, whatever it is about"
    );
    assert_eq!(
        gone(cut(1000, 100)),
        Some((vec![5, 6], 7)),
        "the last one is being written to"
    );
}

#[test]
fn a_log_without_a_free_segment_waits_and_goes_on() {
    let (mut disk, mut writer) = (Disk::default(), LogWriter::new(settings(), 1));
    writer.append(&record(1, 0));
    assert_eq!(writer.next_operation(), None);
    assert!(writer.waits_for_space());
    assert_eq!(writer.wanted_segment(), Some(1));
    writer.add_segment(1);
    assert_eq!(writer.wanted_segment(), None, "one is ready");
    drive(&mut writer, &mut disk, usize::MAX, usize::MAX);
    assert!(writer.is_idle());
}

#[test]
fn a_write_or_sync_that_fails_at_any_step_ends_the_log_or_waits_and_loses_nothing_that_was_durable() {
    for errno in [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EINTR] {
        for step in 0..40 {
            let (mut disk, mut writer) = (Disk::default(), LogWriter::new(settings(), 1));
            let mut steps = 0;
            let mut failed = false;
            'life: for number in 0..20 {
                writer.append(&record(number, 2000));
                if let Some(index) = writer.wanted_segment() {
                    writer.add_segment(index);
                }
                while let Some(operation) = writer.next_operation() {
                    steps += 1;
                    let outcome = match operation {
                        _ if steps == step => Err(errno),
                        LogOperation::Write { segment, offset } => {
                            disk.write(segment, offset, writer.bytes());
                            Ok(writer.bytes().len())
                        }
                        LogOperation::Sync { .. } => {
                            disk.sync();
                            Ok(0)
                        }
                    };
                    if writer.on_complete(outcome).is_err() {
                        failed = true;
                        break 'life;
                    }
                }
            }
            let is_sync = step % 2 == 0;
            assert_eq!(
                failed,
                step > 0 && step < 41 && (errno == libc::EIO || is_sync),
                "step {step}"
            );
            disk.crash(|| false);
            let (found, _) = disk.scan().unwrap();
            assert_eq!(found.len() as u64, writer.durable().get(), "step {step}");
        }
    }
}

#[test]
fn every_kind_of_record_comes_back_as_it_was() {
    let checkpoint = SignedCheckpoint {
        seq: 5,
        digest: [1; 32],
        signer: 3,
        signature: [9; 64],
    };
    let claim = checkpoint.claim();
    let records = [
        record(0, 77),
        record(1, 0),
        record(2, 0),
        record(3, 0),
        record(4, 0),
        Record::Checkpoint(checkpoint),
        Record::Stable {
            claim,
            proof: vec![checkpoint; 3],
        },
    ];
    let records = records.into_iter().chain([
        Record::ViewTransfer(Bytes::from_static(b"a whole message")),
        Record::Reconfiguration(Bytes::from_static(b"the body of a message")),
        announced(SlotDigest {
            seq: 4,
            digest: [5; 32],
            view: 6,
        }),
    ]);
    for record in &records.collect::<Vec<_>>() {
        let bytes = bytes_of(record);
        let back = reader().read(&bytes).unwrap();
        assert_eq!(format!("{record:?}"), format!("{back:?}"));
        for cut in 0..bytes.len() {
            // What is a protocol's own is as long as it is, and so is a proof; nothing else may be shorter.
            let read = reader().read(&bytes[..cut]);
            let may_be_short = matches!(
                record,
                Record::ViewTransfer(_)
                    | Record::Reconfiguration(_)
                    | Record::Ordering { .. }
                    | Record::Stable { .. }
            );
            assert!(read.is_err() || may_be_short, "{record:?} cut at {cut}");
        }
    }
}

#[test]
fn the_longest_messages_that_are_logged_fit_a_record_and_two_of_them_a_segment() {
    for (replicas, window, batch_bytes_max) in
        [(1, 2, 1024), (4, 2000, 4096), (64, 8000, 4096), (4, 64, 1 << 20)]
    {
        let lengths = Lengths {
            replicas,
            window,
            frame_bytes_max: 4096,
            frame_operations_max: 16,
            frame_result_bytes_max: 1 << 20,
            batch_bytes_max,
            batch_frames_max: 64,
        };
        let settings = restart::writer_settings(&superblock(), 0, 4, &lengths);
        let proposal = |bytes: usize| {
            Record::Proposal(std::sync::Arc::new(crate::smr::messages::Proposal {
                view: View::ZERO,
                seq: SeqNo::new(1),
                batch: std::sync::Arc::new(crate::smr::messages::Batch::null()),
                message: Bytes::from(vec![1; bytes]),
                authentic: true,
            }))
        };
        let longest = [
            proposal(lengths.batch_message()),
            Record::ViewTransfer(Bytes::from(vec![2; lengths.view_change()])),
            Record::ViewTransfer(Bytes::from(vec![3; lengths.new_view()])),
            Record::Stable {
                claim: CheckpointClaim::NONE,
                proof: vec![signed(1); replicas],
            },
        ];
        let mut writer = LogWriter::new(settings, 1);
        for record in &longest {
            assert!(
                codec::encoded_bytes(record) <= lengths.log_record(),
                "{lengths:?}"
            );
            assert!(writer.has_room(record));
            writer.append(record);
        }
        assert!(settings.segment_bytes >= 2 * lengths.log_record() as u64);
    }
}

fn signed(signer: u16) -> SignedCheckpoint {
    SignedCheckpoint {
        seq: 1,
        digest: [1; 32],
        signer,
        signature: [2; 64],
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = reader().read(&bytes);
    }
}

#[derive(Debug)]
struct Chunks(Vec<Vec<u8>>);

impl crate::smr::execution::CheckpointSnapshot for Chunks {
    fn claim(&self) -> CheckpointClaim {
        CheckpointClaim {
            seq: SeqNo::new(5),
            digest: Digest::ZERO,
        }
    }

    fn next_chunk(&mut self, _: usize, chunk: &mut Vec<u8>) -> bool {
        match self.0.is_empty() {
            true => false,
            false => {
                chunk.append(&mut self.0.remove(0));
                true
            }
        }
    }
}

#[test]
fn an_snapshot_is_whole_or_damaged_whichever_byte_is_wrong_or_missing() {
    let temporary = TempDir::new().unwrap();
    let path = temporary.path().join("5");
    let chunks = vec![vec![1; 10], vec![2; 300], kv::get(b"key").unwrap()];
    snapshot::write(&path, &mut Chunks(chunks.clone()), 11).unwrap();
    let read = |seed| {
        let mut found = Vec::new();
        snapshot::read(&path, seed, |chunk| {
            found.push(chunk.to_vec());
            Ok(())
        })
        .map(|()| found)
    };
    assert_eq!(read(11).unwrap(), chunks);
    assert!(read(12).is_err(), "the checksum is keyed");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        assert!(matches!(read(11), Err(StorageError::Damaged { .. })), "byte {at}");
        std::fs::write(&path, &whole[..at]).unwrap();
        assert!(
            matches!(read(11), Err(StorageError::Damaged { .. })),
            "cut at {at}"
        );
    }
}
