//! State transfer in pieces, each checked by itself, from several donors at once.
//!
//! ```text
//!  receiver ── AskOffer(after) ──► everybody
//!           ◄── Offer(claim, certificate)        only a certificate makes a target
//!           ── Fetch(head) ──► a donor           head and index, checked against the claim
//!           ── Fetch(pieces) ──► each donor      a block of pieces each; every piece is checked before it is kept
//!           ◄── chunks
//!  disk     ◄── Open, Keep …, Copy …, Complete, Install
//! ```
//!
//! **Events**
//! - *[Begin](StateTransferProtocol::begin):* everybody is asked for offers, again and again until there is
//!   one. If a checkpoint is on its way that does not come after the place to begin at, it is given up,
//!   unless all of it has come. Who lied in earlier transfers stays banned, and who stalled counts as one
//!   that stalled, if they were not long ago: checkpoints may be forgotten faster than one patience lasts,
//!   and then a transfer that starts without that knowledge is as useless as the one before.
//! - *Offers with a certificate, after the place we have:* one that a quorum less ourselves offers, or else,
//!   of those made when the first tick ends, the one that most donors offer (the newest of equals) becomes
//!   the target; whoever offers exactly it is a donor. Donors that stalled before count only if nobody else
//!   offers anything: one that is always the first with the newest checkpoint, and then sends nothing, holds
//!   nobody up.
//! - *Head and index arrive:* checked against the claim. An index that no link takes comes in slices, and is
//!   asked for from where it has come to. From here on the checkpoint's chain is known.
//! - *An own snapshot has pieces of the checkpoint, by their digests:* nobody is asked for them. They are copied
//!   a few at a time, beside what comes from donors, and each is checked like any other; what is not there
//!   after all comes from donors. So a replica that was away for a while is sent what changed meanwhile.
//! - *A donor has nothing to send:* it gets the next block of pieces that nobody is to send. Donors that
//!   stalled get none while another one is left.
//! - *A chunk of pieces:* each piece is checked against the index and handed to the disk; the rest of the
//!   block is asked for when the answer ends.
//! - *A chunk that fails its check:* the donor lies; it is banned. What comes late, twice or out of order is
//!   no lie.
//! - *A donor brings next to nothing for [patience](PieceTransferTuning::patience), or does not have the
//!   checkpoint any more:* its block goes to others; it is asked again only when nobody else is left.
//! - *Every piece is on its way, and a block has been for an eighth of patience:* a donor that has nothing to
//!   do is asked for its rest as well. A trickle of pieces does not hold up the end.
//! - *Nobody is left, or next to nothing came for `STALLS_MAX` times patience:* everything starts again
//!   with the question for offers. What was kept is found again if the target stays. An older checkpoint than
//!   a target whose head was proved is no target.
//! - *All pieces are kept:* the snapshot is completed on disk, then installed.
//!
//! **Why it is right.** The claim is signed by a quorum, so some correct replica had this state; the claim
//! covers the head, the head the index, the index every piece
//! ([`execution::snapshot`](crate::smr::messages::SnapshotIndex)). So nothing that one donor says is believed,
//! and one correct donor is enough.
//!
//! Invariants: at most one answer of [`ANSWER_BYTES`] is under way per donor; at most `UNKEPT_BYTES_MAX`
//! wait for the disk before nothing more is asked for, and not much more before nothing more is taken; the
//! state is never held in memory, but for one piece per donor that comes in slices, of at most
//! [`PIECE_BYTES_MAX`]; at most `OFFERS_MAX` offers of a replica are judged per question.

mod donors;
mod receiving;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use donors::Donors;
use receiving::{Block, PACE_BYTES, Receiving};

use super::{SnapshotEvent, SnapshotTask, StateTransferProtocol, StateTransferState, Target};
use crate::smr::crypto::Digester;
use crate::smr::execution::MonolithicState;
use crate::smr::messages::lengths::IMAGE_CHUNK_BYTES_MAX;
use crate::smr::messages::{
    CheckpointClaim, CheckpointOffer, PieceRange, PieceReader, SnapshotChunk, SnapshotError, SnapshotHead,
    SnapshotIndex, StateTransferMessage, whole_index,
};
use crate::smr::protocol::{Effect, Outbox, Recipients, Timer};
use crate::smr::types::{ClusterId, Epoch, NodeId, SeqNo, Signers, Time};

/// About how many bytes answer one question.
pub const ANSWER_BYTES: usize = 1 << 20;
/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(50);
/// Bytes handed to the disk and not written yet.
const UNKEPT_BYTES_MAX: usize = 32 << 20;
/// The longest piece that is transferred.
pub const PIECE_BYTES_MAX: u64 = 1 << 30;
/// How many offers of one replica are judged after a question.
const OFFERS_MAX: u8 = 8;
/// At the end, when every piece is on its way, others are asked as well for a block that takes this share of
/// a donor's patience.
const LATE_SHARE: u32 = 8;
/// After so many times a donor's patience without any progress, everything starts again.
const STALLS_MAX: u32 = 4;
/// Who stalled is as good as any other when nothing was transferred for so long.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// What may be chosen freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceTransferTuning {
    /// How long a donor may say nothing.
    pub patience: Duration,
}

impl Default for PieceTransferTuning {
    fn default() -> Self {
        Self {
            patience: Duration::from_millis(1000),
        }
    }
}

#[derive(Debug)]
enum Phase {
    Idle,
    Asking {
        /// Certified offers, and who made them.
        offers: BTreeMap<CheckpointClaim, Signers>,
        /// By replica: how many offers it made since the last question.
        heard: Vec<u8>,
        since: Time,
    },
    Opening {
        asked: Option<(NodeId, Time)>,
        head: Option<(SnapshotHead, Bytes)>,
        /// What has come of an index that comes in slices, and how much of it since the last deadline.
        index: Vec<u8>,
        fresh_bytes: usize,
    },
    Receiving(Box<Receiving>),
    Installing,
}

/// Brings states `S` in pieces.
#[derive(Debug)]
pub struct PieceTransfer<S> {
    node: NodeId,
    n: usize,
    cluster: ClusterId,
    epoch: Epoch,
    digester: Digester,
    after: SeqNo,
    claim: Option<CheckpointClaim>,
    donors: Donors,
    phase: Phase,
    target: Option<Target>,
    /// When a transfer ran last.
    ran: Time,
    reused: u64,
    tuning: PieceTransferTuning,
    _state: PhantomData<fn() -> S>,
}

impl<S: MonolithicState> PieceTransfer<S> {
    /// A transfer that is not running.
    #[must_use]
    pub fn new(node: NodeId, n: usize, cluster: ClusterId, epoch: Epoch, digester: Digester) -> Self {
        Self {
            node,
            n,
            cluster,
            epoch,
            digester,
            after: SeqNo::ZERO,
            claim: None,
            donors: Donors::new(n),
            phase: Phase::Idle,
            target: None,
            ran: Time::START,
            reused: 0,
            tuning: PieceTransferTuning::default(),
            _state: PhantomData,
        }
    }

    /// The same with other choices.
    #[must_use]
    pub fn tuned(mut self, tuning: PieceTransferTuning) -> Self {
        self.tuning = tuning;
        self
    }

    fn ask(&mut self, now: Time, out: &mut Outbox) {
        self.claim = None;
        self.target = None;
        self.donors.begin_again();
        self.phase = Phase::Asking {
            offers: BTreeMap::new(),
            heard: vec![0; self.n],
            since: now,
        };
        self.send_ask(out);
    }

    fn send_ask(&self, out: &mut Outbox) {
        let after = self.after.get();
        self.send(Recipients::Others, StateTransferMessage::AskOffer { after }, out);
    }

    fn send(&self, to: Recipients, message: StateTransferMessage, out: &mut Outbox) {
        out.send(to, message.encode(self.cluster, self.epoch));
    }

    /// As many donors as there are correct ones at least.
    fn quorum_of_others(&self) -> usize {
        let faulty_max = (self.n - 1) / 3;
        self.n - 1 - faulty_max
    }

    fn choose(&mut self, now: Time, out: &mut Outbox) {
        let Phase::Asking { offers, .. } = &mut self.phase else {
            return;
        };
        // What most can give comes fastest.
        let best = offers
            .iter()
            .max_by_key(|(claim, offering)| (self.donors.willing(offering), claim.seq));
        let Some((claim, donors)) = best.map(|(claim, donors)| (*claim, *donors)) else {
            return;
        };
        self.claim = Some(claim);
        self.donors.take_offers(donors);
        self.fetch_head(now, out);
    }

    fn fetch_head(&mut self, now: Time, out: &mut Outbox) {
        let Some(claim) = self.claim else { return };
        let Some(donor) = self.donors.next_untired() else {
            return self.ask(now, out);
        };
        self.phase = Phase::Opening {
            asked: Some((donor, now.after(self.tuning.patience))),
            head: None,
            index: Vec::new(),
            fresh_bytes: 0,
        };
        self.send_fetch_head(donor, claim, 0, out);
    }

    /// Asks for the head and the index, or for the rest of the index.
    fn send_fetch_head(&self, donor: NodeId, claim: CheckpointClaim, offset: u64, out: &mut Outbox) {
        let range = PieceRange {
            seq: claim.seq.get(),
            piece: PieceRange::HEAD,
            offset,
            until: 0,
        };
        self.send(Recipients::One(donor), StateTransferMessage::Fetch(range), out);
    }

    /// Head and index, chunk by chunk.
    fn take_opening(&mut self, now: Time, from: NodeId, bytes: &Bytes, last: bool, out: &mut Outbox) {
        let Phase::Opening {
            asked: Some((donor, _)),
            head,
            index: sliced,
            fresh_bytes,
        } = &mut self.phase
        else {
            return;
        };
        if *donor != from {
            return;
        }
        let claim = self.claim;
        let mut bytes = bytes.clone();
        if let (Ok(SnapshotChunk::IndexSlice(offset, slice)), Some((known, _))) =
            (SnapshotChunk::parse(&bytes), &*head)
        {
            let whole = 32 * known.pieces();
            // Slices that belong to another question come late, or twice.
            if offset == sliced.len() as u64 && sliced.len() + slice.len() <= whole {
                sliced.extend_from_slice(slice);
                *fresh_bytes += slice.len();
            }
            if sliced.len() < whole {
                let (offset, next) = (sliced.len() as u64, claim.filter(|_| last));
                if let Some(claim) = next {
                    self.send_fetch_head(from, claim, offset, out);
                }
                return;
            }
            bytes = whole_index(sliced).into();
        }
        let read = match (SnapshotChunk::parse(&bytes), head.take()) {
            (Ok(SnapshotChunk::Head(read)), known) if Some(read.claim(&self.digester)) == claim => {
                *head = known.or_else(|| Some((read, bytes.clone())));
                return;
            }
            (Ok(SnapshotChunk::Index(contents)), Some((head, head_bytes))) => {
                SnapshotIndex::read(head, contents, &self.digester).map(|index| (index, head_bytes))
            }
            // What belongs to another question comes late, or twice.
            (
                Ok(
                    SnapshotChunk::Index(_)
                    | SnapshotChunk::IndexSlice(..)
                    | SnapshotChunk::Pieces(_)
                    | SnapshotChunk::Slice(_),
                ),
                known,
            ) => {
                *head = known;
                return;
            }
            (Ok(SnapshotChunk::Head(_)) | Err(_), _) => Err(SnapshotError::Head),
        };
        let Ok((index, head_bytes)) = read else {
            self.donors.ban(from);
            return self.fetch_head(now, out);
        };
        if let Some(claim) = claim {
            self.begin_receiving(now, claim, index, [head_bytes, bytes], out);
        }
    }

    /// The index of the snapshot is there: its pieces are next. `opening` is what head and index were read
    /// from.
    fn begin_receiving(
        &mut self,
        now: Time,
        claim: CheckpointClaim,
        index: SnapshotIndex,
        opening: [Bytes; 2],
        out: &mut Outbox,
    ) {
        let pieces = index.pieces();
        self.after = self.after.max(claim.seq.minus(1));
        self.target = Some(Target {
            claim,
            chain: index.head.chain,
        });
        let index = Arc::new(index);
        out.push(Effect::Snapshot(SnapshotTask::Open {
            seq: claim.seq,
            index: index.clone(),
        }));
        let unkept = opening.iter().map(Bytes::len).sum();
        for bytes in opening {
            out.push(Effect::Snapshot(SnapshotTask::Keep(bytes)));
        }
        self.phase = Phase::Receiving(Box::new(Receiving {
            unkept,
            index,
            is_open: false,
            reusable: vec![false; pieces],
            copying: None,
            done: vec![false; pieces],
            done_count: 0,
            done_until: 0,
            blocks: (0..self.n).map(|_| None).collect(),
            bytes: 0,
            fresh_bytes: 0,
            progress: (now, 0),
        }));
    }

    /// Gives idle donors blocks of pieces that nobody is to send.
    fn fetch_pieces(&mut self, now: Time, out: &mut Outbox) {
        loop {
            let best = self.donors.best();
            let Phase::Receiving(receiving) = &mut self.phase else {
                return;
            };
            if !receiving.is_open || receiving.unkept > UNKEPT_BYTES_MAX {
                return;
            }
            let busy: Vec<bool> = receiving.blocks.iter().map(Option::is_some).collect();
            let is_busy = |donor: &NodeId| busy[donor.index()];
            if busy.contains(&true) && best.iter().all(is_busy) {
                return;
            }
            let late = now
                .since(Time::START)
                .checked_sub(self.tuning.patience / LATE_SHARE);
            let next = receiving.next_block();
            let slow = || receiving.next_late_block(Time::START.after(late?));
            let Some((next, until)) = next.or_else(slow) else {
                return;
            };
            let Some(donor) = self.donors.next(|donor| busy[donor.index()]) else {
                if !busy.contains(&true) {
                    self.ask(now, out);
                }
                return;
            };
            let block = Block {
                next,
                until,
                asked: next,
                since: now,
                deadline: now.after(self.tuning.patience),
                fresh_bytes: 0,
                reader: PieceReader::default(),
                offset: 0,
            };
            self.send_fetch(donor, &block, out);
            if let Phase::Receiving(receiving) = &mut self.phase {
                receiving.blocks[donor.index()] = Some(block);
            }
        }
    }

    fn send_fetch(&self, donor: NodeId, block: &Block, out: &mut Outbox) {
        let Some(claim) = self.claim else { return };
        let range = PieceRange {
            seq: claim.seq.get(),
            piece: block.next as u32,
            offset: block.offset,
            until: block.until as u32,
        };
        self.send(Recipients::One(donor), StateTransferMessage::Fetch(range), out);
    }

    fn take_pieces(&mut self, now: Time, from: NodeId, bytes: &Bytes, last: bool, out: &mut Outbox) {
        let Phase::Receiving(receiving) = &mut self.phase else {
            return;
        };
        if receiving.unkept > UNKEPT_BYTES_MAX + 2 * self.n * ANSWER_BYTES {
            // Nobody was asked for so much.
            return;
        }
        let Some(mut block) = receiving.blocks[from.index()].take() else {
            return;
        };
        let is_of_answer = SnapshotChunk::start(bytes).is_some_and(|(piece, _)| block.is_of_answer(piece));
        let before = (receiving.done_count, block.offset);
        let taken = receiving.take_chunk(&mut block, bytes, &self.digester, out);
        if taken.is_err() {
            self.donors.ban(from);
            return self.fetch_pieces(now, out);
        }
        receiving.bytes += bytes.len() as u64;
        while block.next < block.until && receiving.done[block.next] {
            block.next += 1;
        }
        if receiving.done_count > before.0 || block.offset > before.1 {
            receiving.fresh_bytes += bytes.len();
            block.fresh_bytes += bytes.len();
            receiving.observe(now);
        }
        if block.next < block.until {
            if last && is_of_answer {
                block.asked = block.next;
                self.send_fetch(from, &block, out);
            }
            if let Phase::Receiving(receiving) = &mut self.phase {
                receiving.blocks[from.index()] = Some(block);
            }
        }
        self.finish_if_whole(out);
        self.fetch_pieces(now, out);
    }

    fn finish_if_whole(&mut self, out: &mut Outbox) {
        if let (Phase::Receiving(receiving), Some(claim)) = (&self.phase, self.claim)
            && receiving.is_open
            && receiving.done_count == receiving.done.len()
        {
            out.push(Effect::Snapshot(SnapshotTask::Complete(claim.seq)));
            self.phase = Phase::Installing;
        }
    }
}

impl<S: MonolithicState> StateTransferProtocol for PieceTransfer<S> {
    fn begin(&mut self, now: Time, after: SeqNo, out: &mut Outbox) {
        self.after = self.after.max(after);
        if now.since(self.ran) >= FORGIVEN_AFTER {
            self.donors.forgive();
        }
        self.ran = now;
        let is_late = self.claim.is_some_and(|claim| claim.seq <= after);
        match self.phase {
            Phase::Idle => {}
            Phase::Opening { .. } | Phase::Receiving(_) if is_late => {}
            _ => return,
        }
        self.ask(now, out);
        out.set_timer(Timer::StateTransfer, now.after(TICK));
    }

    fn end(&mut self, out: &mut Outbox) {
        self.phase = Phase::Idle;
        self.claim = None;
        self.target = None;
        out.push(Effect::CancelTimer(Timer::StateTransfer));
    }

    fn wants_offer(&self, from: NodeId, seq: SeqNo) -> bool {
        let Phase::Asking { heard, .. } = &self.phase else {
            return false;
        };
        let heard = heard.get(from.index()).copied();
        seq > self.after && !self.donors.is_banned(from) && heard.is_some_and(|heard| heard < OFFERS_MAX)
    }

    fn on_offer(
        &mut self,
        now: Time,
        from: NodeId,
        offer: &CheckpointOffer,
        certified: bool,
        out: &mut Outbox,
    ) {
        let claim = offer.claim();
        if let Phase::Asking { heard, .. } = &mut self.phase
            && let Some(heard) = heard.get_mut(from.index())
        {
            *heard = heard.saturating_add(1);
        }
        if from == self.node || self.donors.is_banned(from) || !certified {
            return;
        }
        match &mut self.phase {
            Phase::Asking { offers, .. } if claim.seq > self.after => {
                let donors = offers.entry(claim).or_insert(Signers::NONE);
                donors.add(from);
                if self.donors.willing(donors) >= self.quorum_of_others() {
                    self.choose(now, out);
                }
            }
            Phase::Opening { .. } | Phase::Receiving(_) if self.claim == Some(claim) => {
                self.donors.add(from);
                self.fetch_pieces(now, out);
            }
            _ => {}
        }
    }

    fn on_chunk(
        &mut self,
        now: Time,
        from: NodeId,
        (seq, last): (SeqNo, bool),
        bytes: Bytes,
        out: &mut Outbox,
    ) {
        let is_current = self.claim.is_some_and(|claim| claim.seq == seq);
        if !is_current || self.donors.is_banned(from) || from.index() >= self.n {
            return;
        }
        // No correct donor's disk gives longer ones, and ours would not give them back.
        let is_too_long = bytes.len() > IMAGE_CHUNK_BYTES_MAX;
        if bytes.is_empty() || is_too_long {
            match is_too_long {
                true => self.donors.ban(from),
                false => self.donors.remove(from),
            }
            if let Phase::Receiving(receiving) = &mut self.phase {
                receiving.blocks[from.index()] = None;
                return self.fetch_pieces(now, out);
            }
            if matches!(&self.phase, Phase::Opening { asked: Some((donor, _)), .. } if *donor == from) {
                self.fetch_head(now, out);
            }
            return;
        }
        match &self.phase {
            Phase::Opening { .. } => self.take_opening(now, from, &bytes, last, out),
            Phase::Receiving(_) => self.take_pieces(now, from, &bytes, last, out),
            _ => {}
        }
    }

    fn on_snapshot(&mut self, now: Time, event: &SnapshotEvent, out: &mut Outbox) {
        let current = self.claim.map(|claim| claim.seq);
        match (event, &mut self.phase) {
            (SnapshotEvent::Found(chunk), Phase::Receiving(receiving)) => {
                receiving.take_found(chunk, &mut PieceReader::default(), &self.digester);
            }
            (SnapshotEvent::Reusable { seq, pieces }, Phase::Receiving(receiving))
                if Some(*seq) == current =>
            {
                receiving.take_reusable(pieces);
            }
            (SnapshotEvent::Opened(seq), Phase::Receiving(receiving)) if Some(*seq) == current => {
                receiving.is_open = true;
                receiving.copy(out);
                self.finish_if_whole(out);
                self.fetch_pieces(now, out);
            }
            (SnapshotEvent::Copied { pieces, missing }, Phase::Receiving(receiving)) => {
                self.reused += receiving.take_copied(now, pieces, missing) as u64;
                receiving.copy(out);
                self.finish_if_whole(out);
                self.fetch_pieces(now, out);
            }
            (SnapshotEvent::StorageEvent(bytes), Phase::Receiving(receiving)) => {
                receiving.unkept = receiving.unkept.saturating_sub(*bytes);
                self.fetch_pieces(now, out);
            }
            (SnapshotEvent::Completed(seq), Phase::Installing) if Some(*seq) == current => {
                out.push(Effect::Snapshot(SnapshotTask::Install(*seq)));
            }
            _ => {}
        }
    }

    fn on_installed(&mut self, seq: SeqNo, out: &mut Outbox) {
        if self.claim.is_some_and(|claim| claim.seq == seq) {
            self.phase = Phase::Idle;
            self.claim = None;
            self.after = seq;
            out.push(Effect::CancelTimer(Timer::StateTransfer));
        }
    }

    fn on_timeout(&mut self, now: Time, out: &mut Outbox) {
        if !matches!(self.phase, Phase::Idle) {
            self.ran = now;
        }
        match &mut self.phase {
            Phase::Idle => return,
            Phase::Installing => {}
            Phase::Asking { offers, heard, since } => match offers.is_empty() {
                false => self.choose(now, out),
                true if now.since(*since) >= self.tuning.patience => {
                    *since = now;
                    heard.fill(0);
                    self.send_ask(out);
                }
                true => {}
            },
            Phase::Opening {
                asked, fresh_bytes, ..
            } => {
                if let Some((donor, until)) = asked
                    && *until <= now
                {
                    if std::mem::take(fresh_bytes) >= PACE_BYTES {
                        // A long index takes its time.
                        *until = now.after(self.tuning.patience);
                    } else {
                        let donor = *donor;
                        self.donors.tire(donor);
                        self.fetch_head(now, out);
                    }
                }
            }
            Phase::Receiving(receiving) => {
                for (donor, block) in receiving.blocks.iter_mut().enumerate() {
                    if block
                        .as_mut()
                        .is_some_and(|block| block.is_too_slow(now, self.tuning.patience))
                    {
                        *block = None;
                        self.donors.tire(NodeId::new(donor as u16));
                    }
                }
                let is_writing =
                    !receiving.is_open || receiving.copying.is_some() || receiving.unkept > UNKEPT_BYTES_MAX;
                if is_writing {
                    receiving.progress.0 = now;
                }
                match now.since(receiving.progress.0) >= STALLS_MAX * self.tuning.patience {
                    true => self.ask(now, out),
                    false => self.fetch_pieces(now, out),
                }
            }
        }
        out.set_timer(Timer::StateTransfer, now.after(TICK));
    }

    fn take_target(&mut self) -> Option<Target> {
        self.target.take()
    }

    fn state(&self) -> StateTransferState {
        let seq = self.claim.map_or(SeqNo::ZERO, |claim| claim.seq);
        match &self.phase {
            Phase::Idle => StateTransferState::Idle,
            Phase::Asking { .. } => StateTransferState::Asking,
            Phase::Opening { .. } => StateTransferState::Opening { seq },
            Phase::Receiving(receiving) => StateTransferState::Receiving {
                seq,
                pieces: receiving.done_count,
                of: receiving.done.len(),
                bytes: receiving.bytes,
                donors: receiving.blocks.iter().flatten().count(),
            },
            Phase::Installing => StateTransferState::Installing { seq },
        }
    }

    fn lies(&self) -> u64 {
        self.donors.lies()
    }

    fn reused(&self) -> u64 {
        self.reused
    }
}

#[cfg(test)]
mod tests;
