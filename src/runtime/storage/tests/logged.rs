use std::sync::Arc;

use super::*;
use crate::runtime::storage::logged::LogReader;
use crate::smr::decision_log::LoggedRange;
use crate::smr::messages::{
    Authenticator, Batch, Frame, FrameBuilder, Mode, PrePrepare, Proposal, RequestFrame,
};
use crate::smr::ordering::pbft::records::cast;
use crate::smr::preprocessing::batch_digest;
use crate::smr::types::{ClientId, FrameSeq, UnixTime};

/// A proposal whose batch has about so many bytes.
fn proposal(seq: u64, bytes: usize) -> Arc<Proposal> {
    let digester = Digester::new(CLUSTER);
    let mut builder = FrameBuilder::default();
    builder.push(&vec![seq as u8; bytes]).unwrap();
    let frame = RequestFrame {
        body: builder.finish(ClientId::new(0), FrameSeq::new(seq), Mode::Ordered),
        authenticator: Authenticator::Macs(Vec::new()),
    };
    let hash = |body: &[u8]| digester.digest(crate::smr::crypto::Domain::RequestFrame, body);
    let frames = vec![Frame::check(frame.to_archive(), 100, 1 << 16, hash).unwrap()];
    let batch = Arc::new(Batch {
        digest: batch_digest(&digester, UnixTime::from_nanos(7), &frames),
        time: UnixTime::from_nanos(7),
        bytes: frames.iter().map(|frame| frame.bytes().len()).sum(),
        frames,
    });
    let (view, seq) = (View::ZERO, SeqNo::new(seq));
    let message = PrePrepare::encode(CLUSTER, Epoch::ZERO, view, seq, &batch);
    Arc::new(Proposal {
        view,
        seq,
        batch,
        message,
        authentic: true,
    })
}

/// A log of decisions 1 to `count` of ten kilobytes each, three in a group.
fn log_of(count: u64) -> (Disk, LogWriter, Vec<Arc<Proposal>>) {
    let (mut disk, mut writer) = (Disk::default(), LogWriter::new(settings(), 1));
    let proposals: Vec<_> = (1..=count).map(|seq| proposal(seq, 10_000)).collect();
    for proposal in &proposals {
        let record = Record::Proposal(proposal.clone());
        let vote = record_vote(proposal);
        for record in [&record, &vote] {
            if !writer.has_room(record) {
                drive(&mut writer, &mut disk, usize::MAX, usize::MAX);
            }
            writer.append(record);
        }
        drive(
            &mut writer,
            &mut disk,
            (proposal.seq.get() % 3) as usize,
            usize::MAX,
        );
    }
    drive(&mut writer, &mut disk, usize::MAX, usize::MAX);
    (disk, writer, proposals)
}

fn record_vote(proposal: &Proposal) -> Record {
    cast(Vote {
        phase: Phase::Commit,
        view: 0,
        seq: proposal.seq.get(),
        digest: *proposal.batch.digest.as_bytes(),
    })
}

fn log_reader() -> LogReader<Bytes> {
    LogReader::new(reader(), superblock().tag(), superblock().seed)
}

fn range(proposals: &[Arc<Proposal>], bytes_max: usize) -> LoggedRange {
    LoggedRange {
        to: None,
        first: proposals[0].seq,
        digests: proposals.iter().map(|proposal| proposal.batch.digest).collect(),
        bytes_max,
    }
}

fn places(read: &crate::smr::decision_log::LoggedDecisions) -> Vec<u64> {
    read.decisions.iter().map(|proposal| proposal.seq.get()).collect()
}

#[test]
fn decisions_are_read_back_across_segments_while_the_log_grows() {
    let (disk, writer, proposals) = log_of(30);
    assert!(disk.synced.len() > 3, "{} segments", disk.synced.len());
    let contents = |index| disk.synced.get(&index).cloned().map(Bytes::from);
    let mut reader = log_reader();
    let all = range(&proposals[4..14], usize::MAX);
    let read = reader.read(all, &writer.segments_from(SeqNo::new(5)), contents);
    assert_eq!(places(&read), (5..15).collect::<Vec<_>>());
    assert!(read.decisions.iter().zip(&proposals[4..]).all(|(read, logged)| {
        read.batch.digest == logged.batch.digest && read.batch.bytes == logged.batch.bytes
    }));
    let few = range(&proposals[4..14], 15_000);
    let read = reader.read(few, &writer.segments_from(SeqNo::new(5)), contents);
    assert_eq!(places(&read), [5, 6], "no more than asked for, but for the last");
}

#[test]
fn what_is_gone_damaged_or_another_batch_is_not_read() {
    let (mut disk, writer, proposals) = log_of(12);
    let segments = writer.segments_from(SeqNo::new(1));
    let mut wrong = range(&proposals[..3], usize::MAX);
    wrong.digests[1] = proposals[5].batch.digest;
    let contents = |index| disk.synced.get(&index).cloned().map(Bytes::from);
    assert_eq!(places(&log_reader().read(wrong, &segments, contents)), [1]);

    let mut reader = log_reader();
    let all = range(&proposals[..3], usize::MAX);
    assert_eq!(places(&reader.read(all.clone(), &segments, contents)), [1, 2, 3]);
    // The segment is used again: what was noted of it is not believed.
    let reused = disk.synced[segments.last().unwrap()].clone();
    disk.synced.insert(segments[0], reused);
    let contents = |index| disk.synced.get(&index).cloned().map(Bytes::from);
    assert!(places(&log_reader().read(all.clone(), &segments, contents)).is_empty());
    disk.synced.remove(&segments[0]);
    let contents = |index| disk.synced.get(&index).cloned().map(Bytes::from);
    assert!(places(&log_reader().read(all, &segments, contents)).is_empty());
}

#[test]
fn the_null_request_is_read_though_the_log_need_not_hold_it() {
    let (disk, writer, proposals) = log_of(2);
    let contents = |index| disk.synced.get(&index).cloned().map(Bytes::from);
    let mut wanted = range(&proposals, 1 << 20);
    wanted.digests.insert(0, Digest::ZERO);
    wanted.first = SeqNo::ZERO;
    let read = log_reader().read(wanted, &writer.segments_from(SeqNo::new(1)), contents);
    let digests: Vec<Digest> = read.decisions.iter().map(|read| read.batch.digest).collect();
    let expected = [Digest::ZERO, proposals[0].batch.digest, proposals[1].batch.digest];
    assert_eq!(digests, expected);
}
