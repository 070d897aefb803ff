//! Frames, decisions and checkpoints for tests.

use std::sync::Arc;

use bytes::Bytes;

use super::apps::kv::{self, Kv};
use super::{
    CheckpointRule, ExecutionEvent, Executor, SingleThreaded, SnapshotChunk, SnapshotIndex, StateRule,
};
use crate::smr::crypto::{Digester, Domain};
use crate::smr::messages::{
    Authenticator, Batch, CheckpointClaim, Frame, FrameBuilder, Mode, Proposal, RequestFrame,
};
use crate::smr::types::{ClientId, ClusterId, Digest, Epoch, FrameSeq, SeqNo, UnixTime, View};

pub(crate) fn digester() -> Digester {
    Digester::new(ClusterId::from_bytes([1; 16]))
}

pub(crate) fn frame(client: u32, number: u64, mode: Mode, operations: &[Vec<u8>]) -> Frame {
    frame_of(client, FrameSeq::new(number), mode, operations)
}

pub(crate) fn frame_of(client: u32, sequence: FrameSeq, mode: Mode, operations: &[Vec<u8>]) -> Frame {
    let mut builder = FrameBuilder::default();
    operations
        .iter()
        .for_each(|operation| builder.push(operation).unwrap());
    let body = builder.finish(ClientId::new(client), sequence, mode);
    let frame = RequestFrame {
        body,
        authenticator: Authenticator::Macs(Vec::new()),
    };
    let digest_of = |body: &[u8]| digester().digest(Domain::RequestFrame, body);
    Frame::check(frame.to_archive(), 10_000, 1 << 20, digest_of).unwrap()
}

pub(crate) fn decision(seq: u64, frames: Vec<Frame>) -> Arc<Proposal> {
    // The null request has no time.
    let time = UnixTime::from_nanos(if frames.is_empty() { 0 } else { seq });
    let batch = Arc::new(Batch::new(Digest::ZERO, time, frames));
    Arc::new(Proposal {
        view: View::ZERO,
        seq: SeqNo::new(seq),
        batch,
        message: Bytes::new(),
        authentic: true,
    })
}

/// A checkpoint of a key-value store: its claim, its index, and its chunks.
pub(crate) struct KvCheckpoint {
    pub claim: CheckpointClaim,
    pub index: Arc<SnapshotIndex>,
    pub chunks: Vec<Bytes>,
}

/// The checkpoint after `seq` decisions, each of which sets one of these keys, while there are some, to a
/// value of so many bytes.
pub(crate) fn kv_checkpoint(seq: u64, puts: &[(u32, usize)], chunk_bytes: usize) -> KvCheckpoint {
    let rule = CheckpointRule {
        decisions: seq,
        bytes: u64::MAX,
        state: StateRule::ALWAYS,
    };
    let mut executor = SingleThreaded::new(Kv, 4, digester(), Epoch::ZERO, rule);
    executor.keep_snapshots(true);
    let mut events = Vec::new();
    for place in 1..=seq {
        let put = puts.get(place as usize - 1).map(|(key, bytes)| {
            let put = kv::put(&key.to_le_bytes(), &vec![*key as u8; *bytes]).unwrap();
            frame(1, place, Mode::Ordered, &[put])
        });
        executor.execute(&decision(place, put.into_iter().collect()), &mut events);
    }
    while executor.background_step(usize::MAX, &mut events) {}
    let snapshot = events.into_iter().find_map(|event| match event {
        ExecutionEvent::Snapshot(snapshot) => Some(snapshot),
        _ => None,
    });
    let mut snapshot = snapshot.expect("a checkpoint was due");
    let (mut chunks, mut chunk) = (Vec::<Bytes>::new(), Vec::new());
    while snapshot.next_chunk(chunk_bytes, &mut chunk) {
        chunks.push(std::mem::take(&mut chunk).into());
    }
    let (Ok(SnapshotChunk::Head(head)), Ok(SnapshotChunk::Index(contents))) =
        (SnapshotChunk::parse(&chunks[0]), SnapshotChunk::parse(&chunks[1]))
    else {
        panic!("head and index come first");
    };
    let index = SnapshotIndex::read(head, contents, &digester()).unwrap();
    KvCheckpoint {
        claim: snapshot.claim(),
        index: Arc::new(index),
        chunks,
    }
}
