use std::collections::VecDeque;

use bytes::Bytes;

use super::guard::{LetGo, guarded, let_go};
use super::snapshot::{Next, PieceDigests, Snapshot};
use super::{ClientTable, DecisionContext, ExecutionEvent, MonolithicState};
use crate::smr::crypto::{Chain, Digester};
use crate::smr::messages::snapshot::clients_digest;
use crate::smr::messages::{
    Batch, CheckpointClaim, FrameId, LightCheckpoint, PieceReader, Proposal, ReplyBuilder, SnapshotChunk,
    SnapshotError, SnapshotHead, SnapshotIndex, StateRead, TakenCheckpoint,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::types::{Digest, Epoch, SeqNo, UnixTime, View};

/// When a checkpoint is due: what comes first of the two. Both follow from the decisions alone.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointRule {
    /// Decisions since the last checkpoint.
    pub decisions: u64,
    /// Bytes of batches since the last checkpoint.
    pub bytes: u64,
    /// Which checkpoints include the state.
    pub state: StateRule,
}

/// Which checkpoints include the state. The others are [light](LightCheckpoint): they cover the decisions
/// alone, and cost nothing that grows with the state.
///
/// Follows from the decisions and the contents of the state alone, so that all replicas take the same ones;
/// whoever starts from a checkpoint with a state counts on from there like everybody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateRule {
    /// States of at most so many bytes are always included.
    pub small_bytes: u64,
    /// Larger ones once the log has grown by so many times their size since the last that was included,
    pub factor: u64,
    /// or by so many bytes.
    pub log_bytes_max: u64,
}

impl StateRule {
    /// Every checkpoint includes the state.
    pub const ALWAYS: Self = Self {
        small_bytes: u64::MAX,
        factor: 1,
        log_bytes_max: u64::MAX,
    };

    /// Once per `factor` times its size of log, or `log_bytes_max`; a state whose share of `checkpoint_bytes`
    /// is no larger always, as if the log had grown by a whole checkpoint: with few operations it grows
    /// slowly.
    #[must_use]
    pub const fn of(checkpoint_bytes: u64, factor: u64, log_bytes_max: u64) -> Self {
        Self {
            small_bytes: checkpoint_bytes / factor,
            factor,
            log_bytes_max,
        }
    }

    /// What a decision counts as: its batch, and what the log may take beside it at most (see
    /// [`DiskBudget`](crate::runtime::storage::DiskBudget)).
    #[must_use]
    pub const fn log_bytes(batch_bytes: usize) -> u64 {
        batch_bytes as u64 + Self::DECISION_BYTES
    }

    /// What the log may take for a decision beside its batch, while nothing else is logged: groups of a block
    /// each for what it proposes, its prepare, its commit, and that it was decided.
    pub const DECISION_BYTES: u64 = 4 * 4096;

    fn includes(&self, state_bytes: u64, log_bytes: u64) -> bool {
        state_bytes <= self.small_bytes || log_bytes >= self.due(state_bytes)
    }

    /// How many quarters of the way to its next checkpoint a large state has behind it.
    fn quarters(&self, state_bytes: u64, log_bytes: u64) -> u64 {
        match state_bytes > self.small_bytes {
            true => log_bytes.saturating_mul(4) / self.due(state_bytes).max(1),
            false => 0,
        }
    }

    fn due(&self, state_bytes: u64) -> u64 {
        state_bytes.saturating_mul(self.factor).min(self.log_bytes_max)
    }
}

/// How far the way to the next checkpoint is. Follows from the decisions alone, so it can be counted ahead of
/// them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Distance {
    decisions: u64,
    bytes: u64,
}

impl Distance {
    /// Counts one decision; true when a checkpoint comes after it.
    pub fn pass(&mut self, rule: &CheckpointRule, batch: &Batch) -> bool {
        self.decisions += 1;
        self.bytes += batch.bytes as u64;
        let is_due = self.decisions >= rule.decisions || self.bytes >= rule.bytes || batch.closes_epoch();
        if is_due {
            *self = Self::default();
        }
        is_due
    }
}

/// Checkpoint work done with every decision when the state does not tell how much is left.
const PACE_BYTES: usize = 64 * 1024;

/// A checkpoint whose digest is being computed.
struct Pending<S: MonolithicState> {
    seq: SeqNo,
    state: LetGo<S::Snapshot>,
    piece_digests: PieceDigests,
    state_digest: Option<Digest>,
    clients: ClientTable,
    client_digests: Vec<Digest>,
    chain: Chain,
    time: UnixTime,
    closes_epoch: bool,
    /// The state once more, for the snapshot: the first is used up by its digest.
    image: Option<LetGo<S::Snapshot>>,
}

/// How far a snapshot was read.
struct Reading {
    head: SnapshotHead,
    index: Option<SnapshotIndex>,
    pieces: PieceReader,
    /// The next piece.
    next: usize,
}

/// What every executor keeps beside the state: what was executed and answered, and the checkpoints.
pub(super) struct ExecutionLedger<S: MonolithicState> {
    pub clients: ClientTable,
    digester: Digester,
    epoch: Epoch,
    pub rule: CheckpointRule,
    /// The last decision that was begun.
    pub executed: DecisionContext,
    pub view: View,
    since: Distance,
    /// By how much the log has grown since the last checkpoint with a state.
    log_bytes: u64,
    /// The quarter of the way to the next checkpoint with a state at which others were last asked to prepare
    /// it. In each, as the state may have grown; what is prepared already costs nothing.
    prepared: u64,
    /// The last checkpoint with a state.
    state: CheckpointClaim,
    pending: VecDeque<Pending<S>>,
    pub keeps_snapshots: bool,
    /// The snapshot that is being read.
    reading: Option<Reading>,
    /// Whether frames do their share of a pending digest themselves.
    paced_by_frame: bool,
}

impl<S: MonolithicState> ExecutionLedger<S> {
    pub fn new(clients: usize, digester: Digester, epoch: Epoch, rule: CheckpointRule) -> Self {
        Self {
            clients: ClientTable::new(clients),
            digester,
            epoch,
            rule,
            executed: DecisionContext {
                epoch,
                ..DecisionContext::START
            },
            view: View::ZERO,
            since: Distance::default(),
            log_bytes: 0,
            prepared: 0,
            state: CheckpointClaim::NONE,
            pending: VecDeque::new(),
            keeps_snapshots: false,
            reading: None,
            paced_by_frame: false,
        }
    }

    /// What the operations of a decision may know of it, given what those of the one before may.
    pub fn context_after(&self, before: DecisionContext, decision: &Proposal) -> DecisionContext {
        before.then(self.epoch, decision, &self.digester)
    }

    /// A decision begins: the one with this context, decided in this view.
    pub fn begin(&mut self, context: DecisionContext, view: View) {
        assert_eq!(
            context.seq,
            self.executed.seq.next(),
            "decisions are executed in order, without gaps"
        );
        self.executed = context;
        self.view = view;
    }

    /// A frame was executed.
    pub fn reply(&mut self, frame: &FrameId, body: Bytes, events: &mut Vec<ExecutionEvent>) {
        self.clients.record(frame, body.clone());
        self.answer(frame, body, events);
    }

    /// A frame was answered that no state has a part in, or that was answered before.
    fn answer(&self, frame: &FrameId, body: Bytes, events: &mut Vec<ExecutionEvent>) {
        self.answer_read(frame, StateRead::default(), body, events);
    }

    /// A frame was executed beside the order, on this state.
    pub fn answer_read(
        &self,
        frame: &FrameId,
        read: StateRead,
        body: Bytes,
        events: &mut Vec<ExecutionEvent>,
    ) {
        let (key, view) = (frame.key, self.view);
        events.push(ExecutionEvent::Reply {
            key,
            view,
            read,
            body,
        });
    }

    /// Sends the reply of an executed frame once more, while it is remembered, or says why there is none.
    pub fn reply_again(&self, frame: &FrameId, events: &mut Vec<ExecutionEvent>) {
        match self.clients.reply(frame) {
            None => {}
            Some(Ok(body)) => self.answer(frame, body.clone(), events),
            Some(Err(reason)) => events.push(ExecutionEvent::Refused {
                frame: *frame,
                view: self.view,
                reason,
            }),
        }
    }

    /// Tells a client above which number none of its sessions has executed anything.
    pub fn tell_sessions(&self, frame: &FrameId, events: &mut Vec<ExecutionEvent>) {
        let highest = self.clients.highest_session(frame.key.client);
        self.answer(frame, reply_of_number(frame, highest), events);
    }

    /// A request to change the membership was executed: its client is told which epoch follows.
    pub fn change_reply(&self, frame: &FrameId) -> Bytes {
        reply_of_number(frame, self.executed.epoch.get().saturating_add(1))
    }

    /// A decision was executed; `with_state` lends the state as it is after it. True when a checkpoint was
    /// taken.
    pub fn end(
        &mut self,
        batch: &Batch,
        operations: usize,
        mut with_state: impl FnMut(&mut dyn FnMut(&mut S)),
        events: &mut Vec<ExecutionEvent>,
    ) -> bool {
        let DecisionContext { seq, time, .. } = self.executed;
        events.push(ExecutionEvent::Executed {
            seq,
            time,
            operations,
        });
        self.log_bytes = self.log_bytes.saturating_add(StateRule::log_bytes(batch.bytes));
        let is_due = self.since.pass(&self.rule, batch);
        if is_due {
            with_state(&mut |state| self.take_checkpoint(state, batch.closes_epoch(), events));
        } else {
            self.pace_digest(batch.bytes, events);
        }
        is_due
    }

    /// The next epoch begins with the checkpoint that closes this one: it has the state, and its contents are
    /// kept, whatever else is being written.
    fn take_checkpoint(&mut self, state: &mut S, closes: bool, events: &mut Vec<ExecutionEvent>) {
        // The digest of the one before goes first: two at once would pin two copies of the state, and a light
        // checkpoint names it.
        while self.background_step(usize::MAX, events) {}
        let state_bytes = state.size_bytes();
        let has_state = closes && !active(Mutant::ClosingLight);
        if !has_state && !self.rule.state.includes(state_bytes, self.log_bytes) {
            let quarters = self.rule.state.quarters(state_bytes, self.log_bytes);
            if quarters > self.prepared {
                self.prepared = quarters;
                events.extend(state.copy_help().map(ExecutionEvent::Help));
            }
            return self.take_light(events);
        }
        self.log_bytes = 0;
        self.prepared = 0;
        let is_kept = self.keeps_snapshots || closes;
        let image = is_kept.then(|| LetGo::new(state.snapshot()));
        let state = LetGo::new(state.snapshot());
        if image.is_some() {
            events.extend(S::digest_help(state.get(), &self.digester).map(ExecutionEvent::Help));
        }
        self.pending.push_back(Pending {
            seq: self.executed.seq,
            piece_digests: PieceDigests::new(S::piece_count(state.get()), &self.digester),
            state,
            state_digest: None,
            clients: self.clients.clone(),
            client_digests: Vec::with_capacity(self.clients.clients()),
            chain: self.executed.chain,
            time: self.executed.time,
            closes_epoch: closes,
            image,
        });
    }

    fn take_light(&mut self, events: &mut Vec<ExecutionEvent>) {
        let light = LightCheckpoint {
            seq: self.executed.seq,
            epoch: self.executed.epoch,
            chain: self.executed.chain,
            state: self.state,
        };
        events.push(ExecutionEvent::Checkpoint(TakenCheckpoint {
            claim: light.claim(&self.digester),
            light: Some(light),
        }));
    }

    /// Bytes of batches until a pending digest should be done: at half of the way to the next checkpoint,
    /// whichever rule will end it. `passed` bytes of a decision of `batch_bytes` lie behind.
    fn bytes_to_digest_in(&self, batch_bytes: usize, passed: usize) -> u64 {
        let decisions = (self.rule.decisions / 2).saturating_sub(self.since.decisions);
        let by_decisions = decisions.saturating_mul(batch_bytes as u64);
        let by_bytes = (self.rule.bytes / 2).saturating_sub(self.since.bytes);
        by_decisions.min(by_bytes).saturating_sub(passed as u64)
    }

    /// A share of a pending digest, for the next `bytes` of batches.
    fn digest_share(&self, bytes: usize, bytes_left: u64) -> usize {
        let left = self
            .pending
            .front()
            .map_or(0, |pending| S::digest_left_bytes(pending.state.get()));
        let share = left as u128 * bytes as u128 / u128::from(bytes_left.max(bytes as u64)).max(1);
        share as usize
    }

    /// Does this decision's share of a pending digest, as far as [`pace_frame`](Self::pace_frame) has not:
    /// nobody else may find the time for it under load.
    fn pace_digest(&mut self, batch_bytes: usize, events: &mut Vec<ExecutionEvent>) {
        if self.pending.is_empty() {
            return;
        }
        // The next decision may come without frames.
        let next = batch_bytes.max(1);
        let share = match self.paced_by_frame {
            true => 0,
            false => self.digest_share(next, self.bytes_to_digest_in(next, 0)),
        };
        self.background_step(share.max(PACE_BYTES), events);
    }

    /// Does a frame's share of a pending digest, so that a large decision has no long pause at its end. The
    /// end of the digest is left to the decision's end.
    pub fn pace_frame(&mut self, frame_bytes: usize, batch_bytes: usize, passed: usize) {
        self.paced_by_frame = true;
        let share = self.digest_share(frame_bytes, self.bytes_to_digest_in(batch_bytes, passed));
        if let Some(pending) = self
            .pending
            .front_mut()
            .filter(|pending| pending.state_digest.is_none())
        {
            let left = S::digest_left_bytes(pending.state.get());
            match share.min(left.saturating_sub(PACE_BYTES)) {
                0 => {}
                now => {
                    pending.state_digest =
                        pending
                            .piece_digests
                            .step::<S>(pending.state.get_mut(), &self.digester, now);
                }
            }
        }
    }

    /// The head of a checkpoint of the state as it is now.
    fn head_now(&self, snapshot: S::Snapshot) -> SnapshotHead {
        let mut snapshot = LetGo::new(snapshot);
        let mut pieces = PieceDigests::new(S::piece_count(snapshot.get()), &self.digester);
        let state = loop {
            if let Some(digest) = pieces.step::<S>(snapshot.get_mut(), &self.digester, usize::MAX) {
                break digest;
            }
        };
        let clients = 0..self.clients.clients();
        let clients: Vec<Digest> = clients
            .map(|client| self.clients.entry_digest(client, &self.digester).0)
            .collect();
        SnapshotHead {
            seq: self.executed.seq,
            epoch: self.executed.epoch,
            time: self.executed.time,
            chain: self.executed.chain,
            state,
            clients: clients_digest(&clients, &self.digester),
            client_count: clients.len() as u32,
            piece_count: pieces.pieces.len() as u32,
        }
    }

    /// The claim for the state as it is now.
    pub fn claim_now(&self, snapshot: S::Snapshot) -> CheckpointClaim {
        self.head_now(snapshot).claim(&self.digester)
    }

    /// Does about `budget_bytes` of pending checkpoint work; true while some is left.
    pub fn background_step(&mut self, budget_bytes: usize, events: &mut Vec<ExecutionEvent>) -> bool {
        let Some(pending) = self.pending.front_mut() else {
            return false;
        };
        let Some(state) = pending.state_digest else {
            let digests = &mut pending.piece_digests;
            pending.state_digest = digests.step::<S>(pending.state.get_mut(), &self.digester, budget_bytes);
            return true;
        };
        let mut spent = 0;
        while pending.client_digests.len() < pending.clients.clients() {
            if spent >= budget_bytes {
                return true;
            }
            let client = pending.client_digests.len();
            let (digest, bytes) = pending.clients.entry_digest(client, &self.digester);
            pending.client_digests.push(digest);
            spent = spent.saturating_add(bytes);
        }
        let Some(done) = self.pending.pop_front() else {
            return false;
        };
        let head = SnapshotHead {
            seq: done.seq,
            epoch: self.executed.epoch,
            time: done.time,
            chain: done.chain,
            state,
            clients: clients_digest(&done.client_digests, &self.digester),
            client_count: done.client_digests.len() as u32,
            piece_count: done.piece_digests.pieces.len() as u32,
        };
        let claim = head.claim(&self.digester);
        self.state = claim;
        events.push(ExecutionEvent::Checkpoint(TakenCheckpoint { claim, light: None }));
        if let Some(state) = done.image {
            events.push(ExecutionEvent::Snapshot(Box::new(Snapshot::<S> {
                claim,
                head,
                closes_epoch: done.closes_epoch,
                state,
                clients: done.clients,
                client_digests: done.client_digests,
                piece_digests: done.piece_digests.pieces,
                next: Next::Head,
            })));
        }
        !self.pending.is_empty()
    }

    /// Takes one chunk of a snapshot in; the first one empties `state` and the client table. Every piece is
    /// checked.
    pub fn read_snapshot_chunk(&mut self, state: &mut S, chunk: &[u8]) -> Result<(), SnapshotError> {
        let clients = self.clients.clients();
        let reading = match (SnapshotChunk::parse(chunk)?, &mut self.reading) {
            (SnapshotChunk::Head(head), _) => {
                // That of an earlier epoch is what this one began with; clients came since.
                let is_earlier = head.epoch < self.epoch && head.client_count as usize <= clients;
                let is_own = head.epoch == self.epoch && head.client_count as usize == clients;
                if !is_earlier && !is_own {
                    return Err(SnapshotError::Head);
                }
                let_go(std::mem::replace(state, S::blank()));
                self.clients = ClientTable::new(clients);
                self.pending.clear();
                self.reading = Some(Reading {
                    head,
                    index: None,
                    pieces: PieceReader::default(),
                    next: 0,
                });
                return Ok(());
            }
            (_, None) => return Err(SnapshotError::Kind),
            (_, Some(reading)) => reading,
        };
        let Some(index) = &reading.index else {
            let SnapshotChunk::Index(contents) = SnapshotChunk::parse(chunk)? else {
                return Err(SnapshotError::Kind);
            };
            reading.index = Some(SnapshotIndex::read(reading.head, contents, &self.digester)?);
            return Ok(());
        };
        let (next, table) = (&mut reading.next, &mut self.clients);
        let clients = reading.head.client_count as usize;
        if matches!(SnapshotChunk::parse(chunk)?, SnapshotChunk::Slice(slice) if slice.piece < *next) {
            return Ok(());
        }
        reading.pieces.read(
            index,
            SnapshotChunk::parse(chunk)?,
            &self.digester,
            |piece, bytes| {
                if piece < *next {
                    // A snapshot that came from others may have a piece twice.
                    return Ok(());
                }
                if piece > *next {
                    return Err(SnapshotError::State);
                }
                *next += 1;
                match piece < clients {
                    true => table.read_entry(piece, bytes),
                    false => guarded(|| state.read_piece(piece - clients, bytes))
                        .unwrap_or(Err(SnapshotError::State)),
                }
            },
        )
    }

    /// All chunks were read.
    pub fn finish_snapshot(&mut self) -> Result<CheckpointClaim, SnapshotError> {
        let read = self.reading.take().ok_or(SnapshotError::Head)?;
        if read.index.is_none() || read.next != read.head.pieces() {
            return Err(SnapshotError::Digest);
        }
        self.executed = DecisionContext {
            seq: read.head.seq,
            epoch: read.head.epoch,
            chain: read.head.chain,
            time: match active(Mutant::AgreedTimeForgotten) {
                true => UnixTime::EPOCH,
                false => read.head.time,
            },
        };
        self.since = Distance::default();
        if !active(Mutant::StateCountKept) {
            self.log_bytes = 0;
        }
        self.prepared = 0;
        self.state = read.head.claim(&self.digester);
        Ok(self.state)
    }
}

/// A reply whose one result is a number.
fn reply_of_number(frame: &FrameId, number: u64) -> Bytes {
    let mut reply = ReplyBuilder::default();
    reply.buffer().extend_from_slice(&number.to_le_bytes());
    reply.end_result(None);
    reply.finish(frame)
}
