//! Transition tests: what donors say → what is asked of whom, and what the disk is told.

use std::ops::Range;

use super::*;
use crate::smr::execution::apps::counter::{Count, Counter};
use crate::smr::execution::{CheckpointRule, ExecutionEvent, Executor, SingleThreaded, StateRule};
use crate::smr::messages::archived::{ArchivedStateTransferMessage, ArchivedSystemMessage};
use crate::smr::messages::{Batch, Checked, Proposal, SystemMessage};
use crate::smr::types::{Lsn, View};

const CLUSTER: ClusterId = ClusterId::from_bytes([3; 16]);
/// Entries of the client table: with the counter, one piece more.
const CLIENTS: usize = 299;

fn digester() -> Digester {
    Digester::new(CLUSTER)
}

/// The checkpoint after so many null requests: its claim, and its chunks.
fn checkpoint(seq: u64) -> (CheckpointClaim, Vec<Bytes>) {
    checkpoint_of(CLIENTS, seq)
}

/// The same of a service with so many clients.
fn checkpoint_of(clients: usize, seq: u64) -> (CheckpointClaim, Vec<Bytes>) {
    let rule = CheckpointRule {
        decisions: seq,
        bytes: u64::MAX,
        state: StateRule::ALWAYS,
    };
    let mut executor = SingleThreaded::new(Counter, clients, digester(), Epoch::ZERO, rule);
    executor.keep_snapshots(true);
    let mut events = Vec::new();
    for seq in 1..=seq {
        let decision = Proposal {
            view: View::ZERO,
            seq: SeqNo::new(seq),
            batch: std::sync::Arc::new(Batch::null()),
            message: Bytes::new(),
            authentic: true,
        };
        executor.execute(&std::sync::Arc::new(decision), &mut events);
    }
    while executor.background_step(usize::MAX, &mut events) {}
    let snapshot = events.into_iter().find_map(|event| match event {
        ExecutionEvent::Snapshot(snapshot) => Some(snapshot),
        _ => None,
    });
    let mut snapshot = snapshot.expect("a checkpoint was due");
    let (mut chunks, mut chunk) = (Vec::new(), Vec::new());
    while snapshot.next_chunk(256, &mut chunk) {
        chunks.push(std::mem::take(&mut chunk).into());
    }
    (snapshot.claim(), chunks)
}

/// Replica 3 of 4, and a disk that does everything at once.
struct Bench {
    transfer: PieceTransfer<Count>,
    out: Outbox,
    now: Time,
    asked: Vec<(NodeId, PieceRange)>,
    questions: usize,
    completed: Option<SeqNo>,
    /// What an own snapshot has.
    owned: Vec<Range<usize>>,
    /// What is to be copied of it.
    copying: Vec<Range<usize>>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            transfer: PieceTransfer::new(NodeId::new(3), 4, CLUSTER, Epoch::ZERO, digester()),
            out: Outbox::new(Lsn::ZERO),
            now: Time::START.after(Duration::from_secs(100)),
            asked: Vec::new(),
            questions: 0,
            completed: None,
            owned: Vec::new(),
            copying: Vec::new(),
        };
        bench.transfer.begin(bench.now, SeqNo::ZERO, &mut bench.out);
        bench.act();
        bench
    }

    fn act(&mut self) {
        while !self.out.is_empty() {
            let effects: Vec<Effect> = self.out.drain().collect();
            for effect in effects {
                match effect {
                    Effect::Send { to, message, .. } => self.hear(to, &message),
                    Effect::Snapshot(SnapshotTask::Open { seq, .. }) => {
                        if !self.owned.is_empty() {
                            let pieces = self.owned.clone();
                            self.disk(&SnapshotEvent::Reusable { seq, pieces });
                        }
                        self.disk(&SnapshotEvent::Opened(seq));
                    }
                    Effect::Snapshot(SnapshotTask::Copy(pieces)) => self.copying.push(pieces),
                    Effect::Snapshot(SnapshotTask::Keep(chunk)) => {
                        self.disk(&SnapshotEvent::StorageEvent(chunk.len()))
                    }
                    Effect::Snapshot(SnapshotTask::Complete(seq)) => self.completed = Some(seq),
                    _ => {}
                }
            }
        }
    }

    fn disk(&mut self, event: &SnapshotEvent) {
        self.transfer.on_snapshot(self.now, event, &mut self.out);
    }

    fn hear(&mut self, to: Recipients, message: &Bytes) {
        let message = Checked::<SystemMessage>::body_of(message).unwrap();
        let ArchivedSystemMessage::StateTransferMessage(message) = &*message else {
            panic!("a state transfer says nothing else");
        };
        match (to, message) {
            (Recipients::Others, ArchivedStateTransferMessage::AskOffer { .. }) => self.questions += 1,
            (Recipients::One(to), ArchivedStateTransferMessage::Fetch(range)) => {
                self.asked.push((to, range.to_range()));
            }
            _ => panic!("nothing else is said"),
        }
    }

    fn offer(&mut self, from: u16, claim: CheckpointClaim) {
        let offer = CheckpointOffer {
            seq: claim.seq.get(),
            digest: *claim.digest.as_bytes(),
            cover: None,
            proof: Vec::new(),
        };
        let from = NodeId::new(from);
        self.transfer
            .on_offer(self.now, from, &offer, true, &mut self.out);
        self.act();
    }

    fn wait_ms(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now = self.now.after(TICK);
            self.transfer.on_timeout(self.now, &mut self.out);
            self.act();
        }
    }

    fn asked(&mut self) -> Vec<(NodeId, PieceRange)> {
        std::mem::take(&mut self.asked)
    }

    /// A donor answers a question, with `count` chunks at most.
    fn answer(
        &mut self,
        (from, range): (NodeId, PieceRange),
        (claim, chunks): &(CheckpointClaim, Vec<Bytes>),
        count: usize,
    ) {
        let first = match range.piece {
            PieceRange::HEAD => 0,
            piece => {
                let place = Some((piece as usize, range.offset));
                chunks.partition_point(|chunk| SnapshotChunk::start(chunk) <= place) - 1
            }
        };
        let until = match range.piece {
            PieceRange::HEAD => 2,
            _ => chunks.partition_point(|chunk| {
                SnapshotChunk::start(chunk).is_none_or(|(piece, _)| piece < range.until as usize)
            }),
        };
        let end = until.min(first.saturating_add(count));
        for (number, bytes) in chunks[first..end].iter().enumerate() {
            let of = (claim.seq, first + number + 1 == end);
            self.transfer
                .on_chunk(self.now, from, of, bytes.clone(), &mut self.out);
            self.act();
        }
    }

    /// All three offer a checkpoint, and the first that is asked gives head and index.
    fn open(&mut self, checkpoint: &(CheckpointClaim, Vec<Bytes>)) {
        (0..3).for_each(|donor| self.offer(donor, checkpoint.0));
        self.wait_ms(50);
        let head = self.asked().remove(0);
        self.answer(head, checkpoint, usize::MAX);
    }

    /// Everybody but `except` answers whatever it is asked, until nothing is asked any more.
    fn serve(&mut self, checkpoint: &(CheckpointClaim, Vec<Bytes>), except: u16) {
        loop {
            let asked = self.asked();
            let answered: Vec<_> = asked.into_iter().filter(|(to, _)| to.get() != except).collect();
            if answered.is_empty() {
                return;
            }
            for question in answered {
                self.answer(question, checkpoint, usize::MAX);
            }
        }
    }
}

#[test]
fn an_index_that_no_link_takes_comes_in_slices_and_a_donor_that_stops_is_replaced() {
    // More than an answer of an index: 3 MiB.
    let target = checkpoint_of(100_000, 1);
    let index = &target.1[1];
    assert!(index.len() > 2 * ANSWER_BYTES);
    let mut bench = Bench::new();
    (0..3).for_each(|donor| bench.offer(donor, target.0));
    bench.wait_ms(50);
    let (mut donor, mut questions) = (NodeId::new(9), 0);
    let mut at = 0;
    while let Some((to, range)) = bench
        .asked()
        .into_iter()
        .find(|(_, range)| range.piece == PieceRange::HEAD)
    {
        if donor != to {
            assert_eq!(range.offset, 0, "another one's slices are another one's");
            (donor, at) = (to, 0);
        }
        assert_eq!(range.offset, at);
        questions += 1;
        if questions == 2 {
            // It says nothing any more.
            bench.wait_ms(2100);
            continue;
        }
        let slices = crate::smr::messages::index_slices(index.to_vec(), range.offset, ANSWER_BYTES);
        let head = (range.offset == 0).then(|| target.1[0].to_vec());
        let answer: Vec<Vec<u8>> = head.into_iter().chain(slices).collect();
        let count = answer.len();
        for (number, bytes) in answer.into_iter().enumerate() {
            assert!(bytes.len() <= IMAGE_CHUNK_BYTES_MAX);
            if let Ok(SnapshotChunk::IndexSlice(offset, slice)) = SnapshotChunk::parse(&bytes) {
                at = offset + slice.len() as u64;
            }
            let of = (target.0.seq, number + 1 == count);
            bench
                .transfer
                .on_chunk(bench.now, to, of, bytes.into(), &mut bench.out);
            bench.act();
        }
    }
    assert!(questions > 4);
    assert!(matches!(
        bench.transfer.state(),
        StateTransferState::Receiving { of: 100_001, .. }
    ));
}

#[test]
fn a_chunk_longer_than_any_disk_gives_is_a_lie() {
    let target = checkpoint(10);
    let mut bench = Bench::new();
    bench.open(&target);
    let lies = bench.transfer.lies();
    let long = Bytes::from(vec![2; IMAGE_CHUNK_BYTES_MAX + 1]);
    bench.transfer.on_chunk(
        bench.now,
        NodeId::new(0),
        (target.0.seq, true),
        long,
        &mut bench.out,
    );
    bench.act();
    assert_eq!(bench.transfer.lies(), lies + 1);
    bench.serve(&target, 0);
    assert_eq!(bench.completed, Some(target.0.seq));
}

#[test]
fn pieces_come_from_all_who_offer_the_checkpoint_that_most_offer() {
    let (old, new) = (checkpoint(10), checkpoint(20));
    let mut bench = Bench::new();
    bench.offer(0, new.0);
    bench.offer(1, old.0);
    bench.offer(2, old.0);
    bench.wait_ms(50);
    bench.serve(&old, 0);
    assert_eq!(bench.completed, Some(old.0.seq));
}

#[test]
fn a_donor_that_stalls_with_the_newest_checkpoint_holds_nobody_up() {
    let (old, new) = (checkpoint(10), checkpoint(20));
    let mut bench = Bench::new();
    for _ in 0..3 {
        // Always the only one with the newest, and then silent.
        bench.offer(0, new.0);
        bench.offer(1, old.0);
        bench.wait_ms(100);
        bench.serve(&old, 0);
        bench.wait_ms(1100);
        bench.serve(&old, 0);
    }
    assert_eq!(bench.completed, Some(old.0.seq));
    assert_eq!(bench.questions, 2, "one stall is enough");
}

#[test]
fn donors_that_all_stall_after_the_head_are_left_for_others() {
    let (old, new) = (checkpoint(10), checkpoint(20));
    let mut bench = Bench::new();
    bench.offer(0, new.0);
    bench.wait_ms(50);
    let head = bench.asked().remove(0);
    bench.answer(head, &new, usize::MAX);
    bench.wait_ms(5000);
    assert!(bench.questions > 1);
    // The target was proved: nothing older will do.
    bench.offer(1, old.0);
    bench.wait_ms(100);
    bench.serve(&old, 0);
    assert_eq!(bench.completed, None);
    bench.offer(1, new.0);
    bench.wait_ms(100);
    bench.serve(&new, 0);
    assert_eq!(bench.completed, Some(new.0.seq));
}

#[test]
fn a_trickling_donor_does_not_hold_up_the_end() {
    let target = checkpoint(10);
    let mut bench = Bench::new();
    bench.open(&target);
    let mut seconds = 0;
    while bench.completed.is_none() {
        // Donor 0 sends one chunk of its block just in time, always.
        let asked = bench.asked();
        let (trickling, quick): (Vec<_>, Vec<_>) = asked.into_iter().partition(|(to, _)| to.get() == 0);
        for question in trickling {
            bench.answer(question, &target, 1);
        }
        for question in quick {
            bench.answer(question, &target, usize::MAX);
        }
        bench.wait_ms(900);
        seconds += 1;
        assert!(seconds < 6, "its block has 64 pieces");
    }
}

#[test]
fn a_trickling_donor_that_is_the_only_one_is_left_for_others_as_soon_as_there_are_some() {
    let (old, new) = (checkpoint(10), checkpoint(20));
    let mut bench = Bench::new();
    bench.offer(0, old.0);
    bench.wait_ms(50);
    let head = bench.asked().remove(0);
    bench.answer(head, &old, usize::MAX);
    let mut seconds = 0;
    while bench.completed.is_none() {
        // One chunk each time, just before its patience would end.
        for question in bench.asked() {
            match question.0.get() {
                0 => bench.answer(question, &old, 1),
                _ => bench.answer(question, &new, usize::MAX),
            }
        }
        if bench.questions > 1 {
            (0..3).for_each(|donor| bench.offer(donor, if donor == 0 { old.0 } else { new.0 }));
            bench.serve(&new, 0);
        }
        bench.wait_ms(900);
        seconds += 1;
        assert!(seconds < 12, "it goes on for ever: {:?}", bench.transfer.state());
    }
    assert_eq!(bench.completed, Some(new.0.seq));
}

/// A checkpoint's pieces, as many to a chunk as are asked for: what donors with snapshots of short pieces
/// send.
fn exactly((_, chunks): &(CheckpointClaim, Vec<Bytes>), range: PieceRange) -> Vec<Bytes> {
    let mut writer = crate::smr::messages::PieceWriter::default();
    for chunk in &chunks[2..] {
        if let Ok(SnapshotChunk::Pieces(pieces)) = SnapshotChunk::parse(chunk) {
            let wanted = pieces.filter(|(piece, _)| (range.piece..range.until).contains(&(*piece as u32)));
            wanted.for_each(|(piece, bytes)| writer.write(piece, bytes));
        }
    }
    writer.finish().into_iter().map(Bytes::from).collect()
}

#[test]
fn the_end_of_an_answer_that_is_still_on_its_way_asks_for_nothing_twice() {
    let target = checkpoint(10);
    let mut bench = Bench::new();
    bench.offer(0, target.0);
    bench.wait_ms(50);
    let head = bench.asked().remove(0);
    bench.answer(head, &target, usize::MAX);
    let (mut fetched, mut late) = (0, None);
    while bench.completed.is_none() {
        let asked = bench.asked();
        assert!(asked.len() <= 1, "one answer is under way");
        for (donor, range) in asked {
            fetched += (range.until - range.piece) as usize;
            for bytes in exactly(&target, range) {
                let of = (target.0.seq, true);
                bench
                    .transfer
                    .on_chunk(bench.now, donor, of, bytes.clone(), &mut bench.out);
                bench.act();
                // What was sent before comes once more, and says again that it is the last.
                if let Some(bytes) = late.replace(bytes) {
                    bench
                        .transfer
                        .on_chunk(bench.now, donor, of, bytes, &mut bench.out);
                    bench.act();
                }
            }
        }
    }
    assert_eq!(fetched, CLIENTS + 1, "every piece was asked for once");
}

#[test]
fn a_lying_donor_is_banned_and_the_others_finish() {
    let target = checkpoint(10);
    let mut bench = Bench::new();
    bench.open(&target);
    let mut lie = target.1[2].to_vec();
    *lie.last_mut().unwrap() ^= 1;
    let (liar, of) = (NodeId::new(0), (target.0.seq, true));
    bench
        .transfer
        .on_chunk(bench.now, liar, of, lie.into(), &mut bench.out);
    bench.act();
    assert_eq!(bench.transfer.lies(), 1);
    let before = bench.asked();
    before
        .into_iter()
        .filter(|(to, _)| *to != liar)
        .for_each(|question| {
            bench.answer(question, &target, usize::MAX);
        });
    bench.serve(&target, 0);
    assert_eq!(bench.completed, Some(target.0.seq));
}

#[test]
fn a_slice_of_a_piece_longer_than_any_is_a_lie() {
    let target = checkpoint(10);
    let mut bench = Bench::new();
    bench.offer(0, target.0);
    bench.wait_ms(50);
    let head = bench.asked().remove(0);
    bench.answer(head, &target, usize::MAX);
    let mut slice = vec![3];
    slice.extend_from_slice(&0u32.to_le_bytes());
    slice.extend_from_slice(&(PIECE_BYTES_MAX + 1).to_le_bytes());
    slice.extend_from_slice(&0u64.to_le_bytes());
    slice.push(0);
    let of = (target.0.seq, false);
    bench
        .transfer
        .on_chunk(bench.now, NodeId::new(0), of, slice.into(), &mut bench.out);
    assert_eq!(bench.transfer.lies(), 1);
}

#[test]
fn a_flood_of_offers_is_not_judged() {
    let (claim, _) = checkpoint(10);
    let mut bench = Bench::new();
    let peer = NodeId::new(0);
    for _ in 0..OFFERS_MAX {
        assert!(bench.transfer.wants_offer(peer, claim.seq));
        bench.offer(0, claim);
    }
    assert!(!bench.transfer.wants_offer(peer, claim.seq));
    assert!(bench.transfer.wants_offer(NodeId::new(1), claim.seq));
    bench.wait_ms(50);
    assert!(
        !bench.transfer.wants_offer(NodeId::new(1), claim.seq),
        "there is a target"
    );
}

#[test]
fn who_stalled_in_an_earlier_transfer_is_not_waited_for_in_the_next() {
    let (first, second) = (checkpoint(10), checkpoint(20));
    let mut bench = Bench::new();
    let stalling = 1;
    for (target, pause_ms) in [(&first, 1100), (&second, 0)] {
        bench
            .transfer
            .begin(bench.now, target.0.seq.minus(1), &mut bench.out);
        (0..3).for_each(|donor| bench.offer(donor, target.0));
        bench.wait_ms(50);
        bench.serve(target, stalling);
        // It is the first to be asked for the head, and for some of the pieces.
        for _ in 0..3 {
            bench.wait_ms(pause_ms);
            bench.serve(target, stalling);
        }
        assert_eq!(bench.completed, Some(target.0.seq));
        bench.transfer.on_installed(target.0.seq, &mut bench.out);
        bench.act();
    }
    // Long afterwards it is asked like any other.
    bench.now = bench.now.after(FORGIVEN_AFTER);
    let third = checkpoint(30);
    bench.transfer.begin(bench.now, second.0.seq, &mut bench.out);
    (0..3).for_each(|donor| bench.offer(donor, third.0));
    bench.wait_ms(50);
    let mut gave = Signers::NONE;
    while bench.completed != Some(third.0.seq) {
        let asked = bench.asked();
        assert!(!asked.is_empty());
        for question in asked {
            gave.add(question.0);
            bench.answer(question, &third, usize::MAX);
        }
    }
    assert!(gave.has(NodeId::new(stalling)));
}

#[test]
fn a_checkpoint_that_is_no_later_than_what_is_needed_is_given_up_until_all_of_it_has_come() {
    let (old, new) = (checkpoint(10), checkpoint(20));
    let mut bench = Bench::new();
    bench.open(&old);
    assert!(bench.transfer.take_target().is_some());
    bench
        .transfer
        .begin(bench.now, old.0.seq.minus(1), &mut bench.out);
    assert_eq!(bench.questions, 1, "it is what is looked for");
    bench.transfer.begin(bench.now, old.0.seq, &mut bench.out);
    bench.act();
    assert_eq!(bench.transfer.state(), StateTransferState::Asking);
    (0..3).for_each(|donor| bench.offer(donor, new.0));
    bench.wait_ms(50);
    bench.serve(&new, 3);
    assert_eq!(bench.completed, Some(new.0.seq));
    // What has come is on its way to execution.
    bench.transfer.begin(bench.now, new.0.seq, &mut bench.out);
    assert_eq!(
        bench.transfer.state(),
        StateTransferState::Installing { seq: new.0.seq }
    );
}

#[test]
fn what_an_own_snapshot_has_is_copied_and_nobody_is_asked_for_it_unless_it_is_not_there_after_all() {
    let target = checkpoint(10);
    let mut bench = Bench::new();
    // All but the first ten pieces, and one in the middle.
    bench.owned = vec![10..100, 101..CLIENTS + 1];
    bench.open(&target);
    let mut asked = Vec::new();
    let mut copied = 0;
    while let Some(pieces) = bench.copying.pop() {
        assert!(bench.copying.is_empty(), "a few at a time");
        copied += pieces.len();
        // Two are damaged.
        let missing: Vec<usize> = pieces.clone().filter(|piece| [20, 21].contains(piece)).collect();
        bench.disk(&SnapshotEvent::Copied {
            pieces: pieces.clone(),
            missing,
        });
        // Told twice it counts once.
        bench.disk(&SnapshotEvent::Copied {
            pieces,
            missing: Vec::new(),
        });
        bench.act();
        asked.extend(bench.asked());
    }
    assert_eq!(copied, CLIENTS - 10);
    assert_eq!(bench.transfer.reused(), copied as u64 - 2);
    assert_eq!(bench.completed, None);
    let pieces = asked.iter().flat_map(|(_, range)| range.piece..range.until);
    let pieces: std::collections::BTreeSet<u32> = pieces.collect();
    assert_eq!(pieces, (0..10).chain([20, 21, 100]).collect());
    for question in asked {
        bench.answer(question, &target, usize::MAX);
    }
    bench.serve(&target, 9);
    assert_eq!(bench.completed, Some(target.0.seq));
}

#[test]
fn a_slow_disk_that_copies_is_waited_for() {
    let target = checkpoint(10);
    let mut bench = Bench::new();
    bench.owned = vec![0..200, 200..CLIENTS + 1];
    bench.open(&target);
    while let Some(pieces) = bench.copying.pop() {
        bench.wait_ms(10_000);
        bench.disk(&SnapshotEvent::Copied {
            pieces,
            missing: Vec::new(),
        });
        bench.act();
    }
    assert_eq!(bench.asked(), []);
    assert_eq!((bench.questions, bench.completed), (1, Some(target.0.seq)));
}
