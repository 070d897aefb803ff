use std::sync::Arc;

use bytes::Bytes;

use super::{Role, STEP_MESSAGES};
use crate::runtime::config::Durability;
use crate::runtime::metrics::{Metrics, Places, count};
use crate::runtime::shard::faults::Faults;
use crate::runtime::shard::lanes::{
    Checked, Done, FromReplica, Inlet, LogEntry, Logged, Outgoing, Outlet, Work, answer, any_blocked,
};
use crate::runtime::shard::reactor::Reactor;
use crate::runtime::storage::AbstentionMark;
use crate::runtime::storage::shelf::ShelfHandle;
use crate::smr::messages::{Checked as CheckedMessage, ClientReply, SystemMessage};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::preprocessing::{ClientDirectory, Expectations};
use crate::smr::protocol::{ImageTask, Recipients};
use crate::smr::replica::{Action, ExecutionPhase, Participation, Replica, Stack, TransferPhase};
use crate::smr::types::{ClusterId, Epoch, Lsn, Time};

/// Chunks of an image that are read ahead of execution.
const INSTALL_CHUNKS: usize = 8;

/// The lanes of the consensus role.
pub(crate) struct ConsensusLanes {
    /// Replicas' messages, from each network role.
    pub replica_messages: Vec<Inlet<FromReplica>>,
    /// Frames and proposals, from each preprocess role.
    pub checked: Vec<Inlet<Checked>>,
    /// What execution has done.
    pub done: Inlet<Done>,
    /// Decisions, to execution.
    pub work: Outlet<Work>,
    /// Records, to the log; `None` when nothing is kept on disk.
    pub log: Option<Outlet<LogEntry>>,
    /// What is on disk, from the log and from the keeper of images.
    pub logged: Vec<Inlet<Logged>>,
    /// Messages, to each network role.
    pub outgoing: Vec<Outlet<Outgoing>>,
}

/// Sends to every network role: each has links to some of the replicas.
fn send(outgoing: &mut [Outlet<Outgoing>], to: Recipients, message: &Bytes) {
    for outgoing in outgoing {
        outgoing.push(Outgoing::Replicas {
            to,
            message: message.clone(),
        });
    }
}

/// Runs the orchestrator: its inputs in one order, protocol messages first.
pub(crate) struct ConsensusRole<S: Stack> {
    replica: Replica<S>,
    lanes: ConsensusLanes,
    cluster: ClusterId,
    epoch: Epoch,
    clients: ClientDirectory,
    expectations: Expectations,
    /// The images of checkpoints that are transferred; `None` when nothing is kept on disk.
    shelf: Option<ShelfHandle>,
    /// Lies in the data directory while this replica abstains.
    mark: Option<AbstentionMark>,
    metrics: Arc<Metrics>,
    /// A demonstration's lies, if this replica tells any.
    faults: Option<Faults>,
    /// Whether a record counts as kept when it was made.
    trusts_memory: bool,
    /// The end of what was logged in this step, if it counts as kept.
    logged_end: Option<Lsn>,
    /// What was told last.
    phases: (ExecutionPhase, TransferPhase, Participation),
}

impl<S: Stack> ConsensusRole<S> {
    pub fn new(
        replica: Replica<S>,
        lanes: ConsensusLanes,
        (cluster, epoch): (ClusterId, Epoch),
        clients: ClientDirectory,
        durability: Durability,
        faults: Option<Faults>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            faults,
            trusts_memory: durability != Durability::Sync,
            replica,
            lanes,
            cluster,
            epoch,
            clients,
            expectations: Expectations::default(),
            shelf: None,
            mark: None,
            metrics,
            logged_end: None,
            phases: (
                ExecutionPhase::OrderProtocol,
                TransferPhase::NotRunning,
                Participation::Full,
            ),
        }
    }

    /// Has preprocessing know what this replica expects of others.
    pub fn with_expectations(mut self, expectations: Expectations) -> Self {
        self.expectations = expectations;
        self
    }

    /// Gives it images to transfer.
    pub fn with_shelf(mut self, shelf: Option<ShelfHandle>, mark: AbstentionMark) -> Self {
        self.mark = shelf.is_some().then_some(mark);
        self.shelf = shelf;
        self
    }

    /// Publishes what the replica does now, and logs it where it begins or ends.
    fn tell_phases(&mut self, phases: (ExecutionPhase, TransferPhase, Participation)) {
        let (execution, transfer, participation) = phases;
        self.metrics.publish_phases(execution, transfer, participation);
        if execution != self.phases.0 {
            tracing::info!(view = %self.replica.view(), "{execution}");
        }
        let (before, stage) = (self.phases.1, transfer.stage());
        if (stage, transfer.tenth()) != (before.stage(), before.tenth()) {
            let told = self
                .metrics
                .standing()
                .progress
                .map(|progress| progress.to_string());
            let told = told.unwrap_or_else(|| transfer.to_string());
            tracing::info!(executed = %self.replica.executed(), "{told}");
        }
        if participation != self.phases.2 {
            tracing::info!("{participation}");
        }
        self.phases = phases;
    }

    fn is_blocked(&mut self) -> bool {
        let outgoing = any_blocked(&mut self.lanes.outgoing);
        let log = self.lanes.log.as_mut().is_some_and(Outlet::is_blocked);
        self.lanes.work.is_blocked() | outgoing | log
    }

    fn take_logged(&mut self, now: Time) -> bool {
        let mut any = false;
        for lane in &mut self.lanes.logged {
            while let Some(logged) = lane.pop() {
                any = true;
                match logged {
                    Logged::Durable(end) if !self.trusts_memory => self.replica.on_durable(end),
                    Logged::Durable(_) => {}
                    Logged::Image(seq) => self.replica.on_image_kept(now, seq),
                    Logged::Transfer(event) => self.replica.on_image(now, event),
                    Logged::Read(read) => self.replica.on_logged(now, read),
                }
            }
        }
        any
    }

    fn take_done(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some(done) = self.lanes.done.pop() {
            any = true;
            match done {
                Done::Executed { seq, operations } => self.replica.on_executed(now, seq, operations),
                Done::Checkpoint(taken) => {
                    self.metrics.publish_checkpoint(taken.claim);
                    self.replica.on_checkpoint_taken(now, taken);
                }
                Done::Installed { seq, windows } => {
                    tracing::info!(%seq, "a state from other replicas is installed");
                    self.replica.on_installed(now, seq, &windows);
                }
            }
        }
        any
    }

    fn take_messages(&mut self, now: Time) -> bool {
        let mut any = false;
        for lane in 0..self.lanes.replica_messages.len() {
            for _ in 0..STEP_MESSAGES {
                let Some(FromReplica { from, message }) = self.lanes.replica_messages[lane].pop() else {
                    break;
                };
                any = true;
                if let Some(faults) = &mut self.faults {
                    faults.hear(now, &message, &mut self.lanes.outgoing);
                }
                let known = CheckedMessage::<SystemMessage>::body_of(&message)
                    .is_ok_and(|checked| self.replica.on_message(now, from, &checked, &message));
                if !known {
                    count(&self.metrics.counters.messages_refused);
                }
            }
        }
        any
    }

    fn take_checked(&mut self, now: Time) -> bool {
        let mut any = false;
        for lane in 0..self.lanes.checked.len() {
            for _ in 0..STEP_MESSAGES {
                let Some(checked) = self.lanes.checked[lane].pop() else {
                    break;
                };
                any = true;
                match checked {
                    Checked::Frame(frame) => self.replica.on_frame(now, frame),
                    Checked::PassedOn(frame) => self.replica.on_passed_on(now, frame),
                    Checked::Proposal { from, proposal } => self.replica.on_proposal(now, from, *proposal),
                    Checked::Disputed(key) => self.replica.on_disputed(key),
                    Checked::Batch { from, batch } => self.replica.on_batch(now, from, *batch),
                }
            }
        }
        any
    }

    fn act(&mut self, now: Time) -> bool {
        let mut any = false;
        if let Some(faults) = &mut self.faults {
            faults.say_what_is_due(now, &mut self.lanes.outgoing);
        }
        let view = self.replica.view();
        for action in self.replica.drain_actions() {
            any = true;
            match action {
                Action::ToReplicas { to, message } => match &mut self.faults {
                    Some(faults) => faults.say(now, to, &message, &mut self.lanes.outgoing),
                    None => send(&mut self.lanes.outgoing, to, &message),
                },
                Action::Refuse { frame, reason } => {
                    let message = ClientReply::refusal(self.cluster, self.epoch, view, &frame, reason);
                    answer(&mut self.lanes.outgoing, frame.key, message);
                }
                Action::Execute(decision) => self.lanes.work.push(Work::Decision(decision)),
                Action::ReplyAgain(frame) => self.lanes.work.push(Work::ReplyAgain(frame)),
                Action::ServeReads(from) => self.lanes.work.push(Work::ServeReads(from)),
                Action::RequireSignature { client, must_sign } => {
                    tracing::info!(%client, must_sign, "a client's MACs are disputed");
                    self.clients.require_signature(client, must_sign);
                }
                Action::Log { lsn, record } => {
                    if let Some(log) = &mut self.lanes.log {
                        log.push(LogEntry::Record { lsn, record });
                    }
                    if self.trusts_memory {
                        self.logged_end = Some(lsn.next());
                    }
                }
                Action::CutLog(cut) => {
                    if let Some(log) = &mut self.lanes.log {
                        log.push(LogEntry::Cut(cut));
                    }
                }
                Action::ReadLog(range) => {
                    if let Some(log) = &mut self.lanes.log {
                        log.push(LogEntry::Read(range));
                    }
                }
                Action::Image(task) => {
                    if let Some(shelf) = &self.shelf {
                        match task {
                            ImageTask::Install(seq) => {
                                let (sender, chunks) = std::sync::mpsc::sync_channel(INSTALL_CHUNKS);
                                shelf.stream(seq, sender);
                                self.lanes.work.push(Work::Install(chunks));
                            }
                            task => shelf.ask(task),
                        }
                    }
                }
                Action::AbstentionOver => {
                    tracing::warn!(%view, "this replica votes again: what it had forgotten does not matter any more");
                    let mark = self.mark.take();
                    // Nobody waits for it, and the disk must not hold up this shard.
                    std::thread::spawn(move || {
                        if let Some(Err(error)) = mark.map(|mark| mark.remove()) {
                            tracing::error!(%error, "it abstains once more after its next start");
                        }
                    });
                }
                Action::Stable(claim) => tracing::debug!(seq = %claim.seq, "checkpoint stable"),
                Action::Diverged { stable, ours } => {
                    tracing::error!(
                        ?stable,
                        ?ours,
                        "this replica's state is not the one a quorum signed"
                    );
                }
                Action::FellBehind { stable } => tracing::info!(%stable, "this replica fell behind"),
            }
        }
        any
    }
}

impl<S: Stack> Role for ConsensusRole<S> {
    fn step(&mut self, now: Time, _: &mut Reactor) -> bool {
        // What execution and the log say is always heard: they may be waiting for room in these lanes before
        // they make room in those that block this role.
        let done = self.take_done(now);
        let logged = self.take_logged(now);
        if self.is_blocked() {
            return done || logged;
        }
        self.replica.on_time(now);
        let messages = self.take_messages(now);
        let checked = self.take_checked(now);
        if messages || checked || done || logged {
            self.replica.finish_turn(now);
        }
        let mut acted = self.act(now);
        // Without `durability = "sync"` a record counts as kept when it was made.
        while let Some(end) = self.logged_end.take() {
            self.replica.on_durable(end);
            self.replica.finish_turn(now);
            acted |= self.act(now);
        }
        messages || checked || done || logged || acted
    }

    fn finish(&mut self, _: Time, _: &mut Reactor) -> bool {
        self.lanes.work.ring();
        if let Some(log) = &mut self.lanes.log {
            log.ring();
        }
        self.lanes.outgoing.iter_mut().for_each(Outlet::ring);
        let ordering = self.replica.ordering();
        let places = Places {
            view: self.replica.view(),
            ordered: ordering.decided(),
            durable: self.replica.released(),
            executed: self.replica.executed(),
            stable: ordering.stable(),
        };
        self.metrics.publish(places, self.replica.counters());
        self.expectations
            .tell(self.replica.view(), self.replica.asks_for_decisions());
        let phases = (
            self.replica.phase(),
            self.replica.transfer_phase(),
            self.replica.participation(),
        );
        if phases != self.phases {
            self.tell_phases(phases);
        }
        false
    }

    fn has_input(&self) -> bool {
        self.lanes.replica_messages.iter().any(|lane| !lane.is_empty())
            || self.lanes.checked.iter().any(|lane| !lane.is_empty())
            || !self.lanes.done.is_empty()
            || self.lanes.logged.iter().any(|lane| !lane.is_empty())
            || self.lanes.work.has_overflow()
            || self.lanes.log.as_ref().is_some_and(Outlet::has_overflow)
            || self.lanes.outgoing.iter().any(Outlet::has_overflow)
    }

    fn next_timeout(&self) -> Option<Time> {
        let late = self.faults.as_ref().and_then(Faults::next_due);
        self.replica.next_timeout().into_iter().chain(late).min()
    }

    fn drain(&mut self, finishing: bool) -> bool {
        finishing && !self.has_input()
    }

    fn is_settled(&self) -> bool {
        self.replica.is_idle() && !self.has_input()
    }
}
