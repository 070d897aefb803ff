//! One simulated replica: the parts and the order of steps are those of the shards' roles, in one thread.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Knobs;
use super::keys::{CLUSTER, Keyring};
use super::shelf::Shelf;
use crate::crypto::Digester;
use crate::decision_log::ChainedLog;
use crate::execution::{Application, CheckpointRule, ExecutionEvent, Executor, SingleThreaded};
use crate::log_transfer::RangedLogTransfer;
use crate::messages::{
    Checked, CheckpointClaim, ClientReply, ENVELOPE_BYTES, Envelope, Frame, FrameKey, Kind, Mode, Proposal,
    SystemMessage,
};
use crate::net::hello::Peer;
use crate::ordering::pbft::{Pbft, PbftConfig};
use crate::preprocessing::{FrameChecker, FrameRefusal, FrameSource, RequestPool};
use crate::protocol::{Recipients, Record};
use crate::replica::{Action, DefaultStack, Protocols, Replica, ReplicaSettings};
use crate::state_transfer::ImageTask;
use crate::state_transfer::monolithic::PieceTransfer;
use crate::types::{ClientId, Epoch, Lsn, NodeId, Quorum, SeqNo, Time, View};
use crate::view_transfer::pbft::{PbftViewChange, ViewChangeConfig};

/// Bytes of checkpoint work done in one turn: little, so that decisions come in between.
const BACKGROUND_BYTES: usize = 64 << 10;

/// What a replica did in one turn, in order.
pub(super) enum Said {
    ToReplicas {
        to: Recipients,
        message: Bytes,
    },
    ToClient {
        to: ClientId,
        message: Bytes,
    },
    Log {
        lsn: Lsn,
        record: Record,
    },
    Execute(Arc<Proposal>),
    Executed {
        seq: SeqNo,
        operations: usize,
    },
    Reply {
        key: FrameKey,
        body: Bytes,
    },
    Checkpoint(CheckpointClaim),
    Stable(CheckpointClaim),
    CutLog(SeqNo),
    /// The contents of a checkpoint, for the disk.
    Image(SeqNo),
    Diverged {
        ours: CheckpointClaim,
    },
    FellBehind(SeqNo),
    /// A state from others replaced the replica's own.
    Installed(CheckpointClaim),
}

/// What the disk has done since the last turn.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Durable {
    /// The log's new end.
    pub log: Option<Lsn>,
    /// The last checkpoint whose contents were written.
    pub image: Option<SeqNo>,
}

impl Durable {
    pub fn is_some(&self) -> bool {
        self.log.is_some() || self.image.is_some()
    }
}

/// Preprocessing, consensus and execution of one replica.
pub(super) struct SimReplica<A: Application> {
    checker: FrameChecker,
    pub replica: Replica<DefaultStack<A>>,
    executor: SingleThreaded<A>,
    events: Vec<ExecutionEvent>,
    inbox: VecDeque<(Peer, Bytes)>,
    has_background: bool,
    shelf: Shelf,
}

impl<A: Application> SimReplica<A> {
    pub fn new(node: NodeId, knobs: &Knobs, application: A) -> Self {
        let keys = Keyring::get();
        let n = knobs.replicas;
        let digester = Digester::new(CLUSTER);
        let quorum = Quorum::of(n).expect("a simulated cluster has a valid size");
        let config = PbftConfig {
            node,
            quorum,
            cluster: CLUSTER,
            epoch: Epoch::ZERO,
            window: knobs.window,
            pipeline: knobs.pipeline,
            signing: keys.replica(node).clone(),
            verifying: keys.verifying(n).to_vec(),
        };
        let settings = ReplicaSettings {
            cluster: CLUSTER,
            epoch: Epoch::ZERO,
            quorum,
            batch_bytes_max: knobs.limits.batch_bytes_max,
            batch_frames_max: knobs.limits.batch_frames_max,
            held_effects_max: knobs.held_effects_max(),
        };
        let rule = CheckpointRule {
            decisions: knobs.checkpoint_decisions,
            bytes: u64::MAX,
        };
        let directory = keys.directory(node, knobs.clients(), knobs.auth);
        let pbft = Pbft::new(config, digester.clone());
        let view_change = PbftViewChange::new(
            ViewChangeConfig {
                node,
                quorum,
                cluster: CLUSTER,
                epoch: Epoch::ZERO,
                window: knobs.window,
                signing: keys.replica(node).clone(),
                verifying: keys.verifying(n).to_vec(),
                timings: knobs.timings,
            },
            digester.clone(),
        );
        let pool = RequestPool::new(knobs.clients(), knobs.pool);
        let mut executor =
            SingleThreaded::new(application, knobs.clients(), digester.clone(), Epoch::ZERO, rule);
        executor.keep_images(true);
        Self {
            checker: FrameChecker::new(node, n, knobs.auth, knobs.limits, digester.clone(), directory),
            replica: Replica::new(
                settings,
                digester.clone(),
                Protocols {
                    ordering: pbft,
                    view_transfer: view_change,
                    decision_log: ChainedLog::new(digester.clone()).keep_for_peers(knobs.kept_for_peers),
                    log_transfer: RangedLogTransfer::new(node, quorum, CLUSTER, Epoch::ZERO),
                    state_transfer: PieceTransfer::new(node, n, CLUSTER, Epoch::ZERO, digester.clone()),
                },
                pool,
                Lsn::ZERO,
            ),
            executor,
            events: Vec::new(),
            inbox: VecDeque::new(),
            has_background: false,
            shelf: Shelf::default(),
        }
    }

    /// A message arrived; it is looked at in the next turn.
    pub fn receive(&mut self, from: Peer, message: Bytes) {
        self.inbox.push_back((from, message));
    }

    /// Whether a turn would find work at once.
    pub fn has_work(&self) -> bool {
        self.has_background || !self.inbox.is_empty()
    }

    /// The claim for the state as it is.
    pub fn digest_now(&mut self) -> CheckpointClaim {
        self.executor.digest_now()
    }

    /// One turn: everything that arrived, what the disk has done, what is due.
    pub fn turn(&mut self, now: Time, durable: Durable, said: &mut Vec<Said>) {
        self.replica.on_time(now);
        if let Some(end) = durable.log {
            self.replica.on_durable(end);
        }
        if let Some(seq) = durable.image {
            self.replica.on_image_kept(now, seq);
        }
        while let Some((from, message)) = self.inbox.pop_front() {
            self.route(now, from, message, said);
        }
        self.verify_waiting(now, said);
        if self.has_background {
            self.has_background = self.executor.background_step(BACKGROUND_BYTES, &mut self.events);
            self.report(now, said);
        }
        loop {
            self.replica.finish_turn(now);
            let actions: Vec<Action> = self.replica.drain_actions().collect();
            if actions.is_empty() {
                break;
            }
            actions.into_iter().for_each(|action| self.act(now, action, said));
        }
    }

    fn route(&mut self, now: Time, from: Peer, message: Bytes, said: &mut Vec<Said>) {
        let Ok(envelope) = Envelope::open(&message, CLUSTER, Epoch::ZERO) else {
            return;
        };
        match (from, envelope.kind) {
            (Peer::Replica(from), Kind::System) => self.take_message(now, from, &message),
            (Peer::Replica(from), Kind::SystemWithFrames) => self.take_frames(now, from, &message, said),
            (Peer::Client(client), Kind::Request) => {
                match self.checker.take_frame(client, message.slice(ENVELOPE_BYTES..)) {
                    Ok(Some(frame)) => self.pass(now, frame, said),
                    Ok(None) => {}
                    Err((key, refusal)) => Self::refuse(client, key, refusal, said),
                }
            }
            _ => {}
        }
    }

    fn take_message(&mut self, now: Time, from: NodeId, message: &Bytes) {
        if let Ok(checked) = Checked::<SystemMessage>::body_of(message) {
            self.replica.on_message(now, from, &checked, message);
        }
    }

    fn take_frames(&mut self, now: Time, from: NodeId, message: &Bytes, said: &mut Vec<Said>) {
        let Ok(checked) = Checked::<SystemMessage>::body_of(message) else {
            return;
        };
        // Signatures of frames taken before are judged first: the verifier is one.
        self.verify_waiting(now, said);
        if self.take_forwarded(now, from, &checked) {
            return;
        }
        let result = self.checker.check_proposal(&checked, message);
        for client in self.checker.drain_disputed() {
            self.replica.on_disputed(client);
        }
        match result {
            Some(Ok(batch)) if checked.is_batch_response() => self.replica.on_batch(now, from, batch),
            Some(Ok(proposal)) => self.replica.on_proposal(now, from, proposal),
            _ => {}
        }
    }

    fn take_forwarded(&mut self, now: Time, from: NodeId, checked: &Checked<SystemMessage>) -> bool {
        let Some(frames) = checked.forwarded_frames(self.checker.batch_bytes_max()) else {
            return false;
        };
        let Ok(frames) = frames else { return true };
        let sourced = frames.map(|bytes| (FrameSource::Replica(from), bytes));
        let replica = &mut self.replica;
        self.checker.check_frames(sourced, |_, verdict| match verdict {
            Ok(frame) if frame.mode() == Mode::Ordered => replica.on_frame(now, frame),
            _ => {}
        });
        true
    }

    fn verify_waiting(&mut self, now: Time, said: &mut Vec<Said>) {
        if self.checker.waiting() == 0 {
            return;
        }
        let mut verdicts = Vec::with_capacity(self.checker.waiting());
        self.checker
            .verify(|frame, verdict| verdicts.push((frame, verdict)));
        for (frame, verdict) in verdicts {
            match verdict {
                Ok(()) => self.pass(now, frame, said),
                Err(refusal) => Self::refuse(frame.key().client, Some(frame.key()), refusal, said),
            }
        }
    }

    fn pass(&mut self, now: Time, frame: Frame, said: &mut Vec<Said>) {
        match frame.mode() {
            Mode::Ordered => self.replica.on_frame(now, frame),
            Mode::Unordered => {
                self.executor.execute_unordered(&frame, &mut self.events);
                self.report_unordered(said);
            }
        }
    }

    fn refuse(client: ClientId, key: Option<FrameKey>, refusal: FrameRefusal, said: &mut Vec<Said>) {
        let Some(key) = key else { return };
        let message = ClientReply::refusal(CLUSTER, Epoch::ZERO, View::ZERO, key.sequence, refusal.reason());
        said.push(Said::ToClient { to: client, message });
    }

    fn act(&mut self, now: Time, action: Action, said: &mut Vec<Said>) {
        match action {
            Action::ToReplicas { to, message } => said.push(Said::ToReplicas { to, message }),
            Action::Refuse { key, reason } => {
                let view = self.replica.view();
                let message = ClientReply::refusal(CLUSTER, Epoch::ZERO, view, key.sequence, reason);
                said.push(Said::ToClient {
                    to: key.client,
                    message,
                });
            }
            Action::Execute(decision) => {
                said.push(Said::Execute(decision.clone()));
                self.executor.execute(&decision, &mut self.events);
                self.has_background = true;
                self.report(now, said);
            }
            Action::ReplyAgain(key) => {
                self.executor.reply_again(key, &mut self.events);
                self.report(now, said);
            }
            Action::Log { lsn, record } => said.push(Said::Log { lsn, record }),
            Action::RequireSignature(client) => self.checker.require_signature(client),
            Action::CutLog(seq) => said.push(Said::CutLog(seq)),
            Action::Image(ImageTask::Install(seq)) => self.install(now, seq, said),
            Action::Image(task) => {
                for event in self.shelf.run(task) {
                    self.replica.on_image(now, &event);
                }
            }
            Action::Stable(claim) => said.push(Said::Stable(claim)),
            Action::Diverged { ours, .. } => said.push(Said::Diverged { ours }),
            // No simulated disk is damaged.
            Action::AbstentionOver => {}
            Action::FellBehind { stable } => said.push(Said::FellBehind(stable)),
        }
    }

    /// Replaces the state by an image that came from others.
    fn install(&mut self, now: Time, seq: SeqNo, said: &mut Vec<Said>) {
        let chunks = self.shelf.image(seq).unwrap_or_default();
        let read = chunks
            .iter()
            .try_for_each(|chunk| self.executor.read_image_chunk(chunk));
        let claim = read
            .and_then(|()| self.executor.finish_image())
            .expect("what was checked piece by piece can be read");
        said.push(Said::Installed(claim));
        self.replica
            .on_installed(now, seq, &self.executor.client_windows());
        self.has_background = true;
    }

    /// Tells consensus and the clients what execution has done.
    fn report(&mut self, now: Time, said: &mut Vec<Said>) {
        for event in std::mem::take(&mut self.events) {
            match event {
                ExecutionEvent::Reply { key, view, body } => {
                    let message = ClientReply::results(CLUSTER, Epoch::ZERO, view, &body);
                    said.push(Said::Reply { key, body });
                    said.push(Said::ToClient {
                        to: key.client,
                        message,
                    });
                }
                ExecutionEvent::Executed { seq, operations } => {
                    self.replica.on_executed(now, seq, operations);
                    said.push(Said::Executed { seq, operations });
                }
                ExecutionEvent::Checkpoint(claim) => {
                    said.push(Said::Checkpoint(claim));
                    self.replica.on_checkpoint_taken(now, claim);
                }
                ExecutionEvent::Image(mut image) => {
                    self.shelf.take(&mut *image);
                    said.push(Said::Image(image.claim().seq));
                }
            }
        }
    }

    fn report_unordered(&mut self, said: &mut Vec<Said>) {
        for event in std::mem::take(&mut self.events) {
            if let ExecutionEvent::Reply { key, view, body } = event {
                let message = ClientReply::results(CLUSTER, Epoch::ZERO, view, &body);
                said.push(Said::ToClient {
                    to: key.client,
                    message,
                });
            }
        }
    }
}
