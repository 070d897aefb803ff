use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::image::{Chunk, Head, Image, Next};
use super::{
    Application, ClientTable, ExecutionEvent, Executor, ImageError, MonolithicState, PANIC_RESULT,
    SequenceWindow, Standing, TOO_LONG_RESULT,
};
use crate::crypto::{Digester, Domain};
use crate::decision_log::Chain;
use crate::messages::{CheckpointClaim, Frame, FrameKey, Mode, Proposal, ReplyBuilder};
use crate::types::{Digest, Epoch, SeqNo, View};

/// When a checkpoint is due: what comes first of the two. Both follow from the decisions alone.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointRule {
    /// Decisions since the last checkpoint.
    pub decisions: u64,
    /// Bytes of batches since the last checkpoint.
    pub bytes: u64,
}

/// How many operations are prepared together: their cache misses overlap instead of following one another.
const PREPARED: usize = 8;

/// How many bytes the results of one frame have together, unless [`SingleThreaded::limit_results`] says otherwise.
pub const FRAME_RESULT_BYTES_MAX: usize = 3 << 20;

/// Checkpoint work done with every decision when the state does not tell how much is left.
const PACE_BYTES: usize = 64 * 1024;

/// A checkpoint whose digest is being computed.
struct Pending<S: MonolithicState> {
    seq: SeqNo,
    state: S::Snapshot,
    state_digest: Option<Digest>,
    clients: ClientTable,
    next_client: usize,
    clients_hasher: blake3::Hasher,
    chain: Chain,
    /// The state once more, for the image: the first is used up by its digest.
    image: Option<S::Snapshot>,
}

/// Executes decisions one operation after the other.
pub struct SingleThreaded<A: Application> {
    application: A,
    state: A::State,
    clients: ClientTable,
    digester: Digester,
    epoch: Epoch,
    rule: CheckpointRule,
    result_bytes_max: usize,
    reply: ReplyBuilder,
    executed: SeqNo,
    view: View,
    decisions_since: u64,
    bytes_since: u64,
    pending: VecDeque<Pending<A::State>>,
    chain: Chain,
    keeps_images: bool,
    /// The head of the image that is being read.
    reading: Option<Head>,
    panics: u64,
}

impl<A: Application> SingleThreaded<A> {
    /// An executor at the application's initial state, for clients `0..clients`.
    #[must_use]
    pub fn new(
        application: A,
        clients: usize,
        digester: Digester,
        epoch: Epoch,
        rule: CheckpointRule,
    ) -> Self {
        let state = application.initial_state();
        Self {
            application,
            state,
            clients: ClientTable::new(clients),
            digester,
            epoch,
            rule,
            result_bytes_max: FRAME_RESULT_BYTES_MAX,
            reply: ReplyBuilder::default(),
            executed: SeqNo::ZERO,
            view: View::ZERO,
            decisions_since: 0,
            bytes_since: 0,
            pending: VecDeque::new(),
            chain: Chain::START,
            keeps_images: false,
            reading: None,
            panics: 0,
        }
    }

    /// Gives results beyond `bytes` in one frame as [`TOO_LONG_RESULT`]. Must be equal at every replica: replies are
    /// part of checkpoints.
    #[must_use]
    pub fn limit_results(mut self, bytes: usize) -> Self {
        self.result_bytes_max = bytes;
        self
    }

    /// The state, to look at.
    #[must_use]
    pub fn state(&self) -> &A::State {
        &self.state
    }

    /// Runs a frame's operations into the reply builder; a panic costs the one operation.
    fn run_frame(&mut self, frame: &Frame) -> usize {
        let body = frame.body();
        let mut operations = body.operations();
        let (application, state, reply) = (&self.application, &mut self.state, &mut self.reply);
        let (mode, result_bytes_max) = (frame.mode(), self.result_bytes_max);
        // Where the result of the operation that is running starts.
        let running = Cell::new(None);
        let mut prepares = mode == Mode::Ordered;
        let mut panics = 0;
        loop {
            // One catch per frame while nothing panics: each operation would cost more.
            let run = catch_unwind(AssertUnwindSafe(|| {
                while operations.len() > 0 {
                    if prepares {
                        operations
                            .clone()
                            .take(PREPARED)
                            .for_each(|operation| application.prepare(state, operation));
                    }
                    for operation in operations.by_ref().take(PREPARED) {
                        let start = reply.buffer().len();
                        running.set(Some(start));
                        match mode {
                            Mode::Ordered => application.update(state, operation, reply.buffer()),
                            Mode::Unordered => {
                                application.unordered_execution(state, operation, reply.buffer())
                            }
                        }
                        running.set(None);
                        if reply.buffer().len() > result_bytes_max {
                            reply.buffer().truncate(start);
                            reply.buffer().extend_from_slice(TOO_LONG_RESULT);
                        }
                        reply.end_result();
                    }
                }
            }));
            if run.is_ok() {
                break;
            }
            match running.take() {
                Some(start) => {
                    panics += 1;
                    reply.buffer().truncate(start);
                    reply.buffer().extend_from_slice(PANIC_RESULT);
                    reply.end_result();
                }
                // A hint panicked. The operations are executed without any.
                None => prepares = false,
            }
        }
        self.panics += panics;
        frame.operation_count()
    }

    fn take_checkpoint(&mut self, events: &mut Vec<ExecutionEvent>) {
        self.decisions_since = 0;
        self.bytes_since = 0;
        // The digest of the one before goes first; two at once would pin two copies of the state.
        while self.background_step(usize::MAX, events) {}
        self.pending.push_back(Pending {
            seq: self.executed,
            state: self.state.snapshot(),
            state_digest: None,
            clients: self.clients.clone(),
            next_client: 0,
            clients_hasher: self.digester.hasher(Domain::ClientTable),
            chain: self.chain,
            image: self.keeps_images.then(|| self.state.snapshot()),
        });
    }

    /// Does this decision's share of a pending digest, so that it is done by half of the way to the next
    /// checkpoint: nobody else may find the time for it under load.
    fn pace_digest(&mut self, events: &mut Vec<ExecutionEvent>) {
        let Some(pending) = self.pending.front() else {
            return;
        };
        let left = A::State::digest_left_bytes(&pending.state);
        let decisions_left = (self.rule.decisions / 2).saturating_sub(self.decisions_since);
        let share = left / usize::try_from(decisions_left).unwrap_or(usize::MAX).max(1);
        self.background_step(share.max(PACE_BYTES), events);
    }

    fn head(&self, seq: SeqNo, chain: Chain, state: Digest, clients: Digest) -> Head {
        Head {
            seq,
            epoch: self.epoch,
            chain,
            state,
            clients,
            client_count: self.clients.clients() as u32,
        }
    }

    /// The head of a checkpoint of the state as it is now.
    fn head_now(&mut self) -> Head {
        let mut snapshot = self.state.snapshot();
        let state = loop {
            if let Some(digest) = A::State::digest_step(&mut snapshot, &self.digester, usize::MAX) {
                break digest;
            }
        };
        let mut hasher = self.digester.hasher(Domain::ClientTable);
        for client in 0..self.clients.clients() {
            hasher.update(self.clients.entry_digest(client, &self.digester).0.as_bytes());
        }
        let clients = Digest::from_bytes(*hasher.finalize().as_bytes());
        self.head(self.executed, self.chain, state, clients)
    }
}

impl<A: Application> Executor for SingleThreaded<A> {
    fn execute(&mut self, decision: &Arc<Proposal>, events: &mut Vec<ExecutionEvent>) {
        assert_eq!(
            decision.seq,
            self.executed.next(),
            "decisions are executed in order, without gaps"
        );
        self.executed = decision.seq;
        self.view = decision.view;
        self.chain = self
            .chain
            .then(decision.seq, &decision.batch.digest, &self.digester);
        let mut operations = 0;
        for frame in &decision.batch.frames {
            let key = frame.key();
            match self.clients.standing(key) {
                Standing::Fresh => {
                    operations += self.run_frame(frame);
                    let body = self.reply.finish(key.client, key.sequence);
                    self.clients.record(key, body.clone());
                    events.push(ExecutionEvent::Reply {
                        key,
                        view: self.view,
                        body,
                    });
                }
                Standing::Executed => self.reply_again(key, events),
                Standing::Stale => {}
            }
        }
        events.push(ExecutionEvent::Executed {
            seq: decision.seq,
            operations,
        });
        self.decisions_since += 1;
        self.bytes_since += decision.batch.bytes as u64;
        if self.decisions_since >= self.rule.decisions || self.bytes_since >= self.rule.bytes {
            self.take_checkpoint(events);
        } else {
            self.pace_digest(events);
        }
    }

    fn execute_unordered(&mut self, frame: &Frame, events: &mut Vec<ExecutionEvent>) {
        self.run_frame(frame);
        let key = frame.key();
        let body = self.reply.finish(key.client, key.sequence);
        events.push(ExecutionEvent::Reply {
            key,
            view: self.view,
            body,
        });
    }

    fn reply_again(&mut self, key: FrameKey, events: &mut Vec<ExecutionEvent>) {
        if let Some(body) = self.clients.reply(key) {
            events.push(ExecutionEvent::Reply {
                key,
                view: self.view,
                body: body.clone(),
            });
        }
    }

    fn background_step(&mut self, budget_bytes: usize, events: &mut Vec<ExecutionEvent>) -> bool {
        let Some(pending) = self.pending.front_mut() else {
            return false;
        };
        let Some(state) = pending.state_digest else {
            pending.state_digest = A::State::digest_step(&mut pending.state, &self.digester, budget_bytes);
            return true;
        };
        let mut spent = 0;
        while pending.next_client < pending.clients.clients() {
            if spent >= budget_bytes {
                return true;
            }
            let (digest, bytes) = pending.clients.entry_digest(pending.next_client, &self.digester);
            pending.clients_hasher.update(digest.as_bytes());
            pending.next_client += 1;
            spent = spent.saturating_add(bytes);
        }
        let clients = Digest::from_bytes(*pending.clients_hasher.finalize().as_bytes());
        let Some(done) = self.pending.pop_front() else {
            return false;
        };
        let head = self.head(done.seq, done.chain, state, clients);
        let claim = head.claim(&self.digester);
        events.push(ExecutionEvent::Checkpoint(claim));
        if let Some(state) = done.image {
            events.push(ExecutionEvent::Image(Box::new(Image::<A::State> {
                claim,
                head,
                state,
                clients: done.clients,
                next: Next::Head,
            })));
        }
        !self.pending.is_empty()
    }

    fn digest_now(&mut self) -> CheckpointClaim {
        self.head_now().claim(&self.digester)
    }

    fn keep_images(&mut self, keep: bool) {
        self.keeps_images = keep;
    }

    fn read_image_chunk(&mut self, chunk: &[u8]) -> Result<(), ImageError> {
        match (Chunk::parse(chunk)?, self.reading) {
            (Chunk::Head(head), None) => {
                let clients = self.clients.clients();
                if head.epoch != self.epoch || head.client_count as usize != clients {
                    return Err(ImageError::Head);
                }
                self.state = A::State::blank();
                self.clients = ClientTable::new(clients);
                self.reading = Some(head);
                Ok(())
            }
            (Chunk::Clients(entries), Some(_)) => self.clients.read_entries(entries),
            (Chunk::State(piece), Some(_)) => self.state.read_chunk(piece),
            _ => Err(ImageError::Kind),
        }
    }

    fn finish_image(&mut self) -> Result<CheckpointClaim, ImageError> {
        let promised = self.reading.take().ok_or(ImageError::Head)?;
        self.executed = promised.seq;
        self.chain = promised.chain;
        self.decisions_since = 0;
        self.bytes_since = 0;
        self.pending.clear();
        match self.head_now() == promised {
            true => Ok(promised.claim(&self.digester)),
            false => Err(ImageError::Digest),
        }
    }

    fn chain(&self) -> Chain {
        self.chain
    }

    fn client_windows(&self) -> Vec<SequenceWindow> {
        self.clients.windows()
    }

    fn executed(&self) -> SeqNo {
        self.executed
    }

    fn panics(&self) -> u64 {
        self.panics
    }
}
