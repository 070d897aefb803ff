use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::consensus_port::{Port, beginning};
use super::consensus_record::{ConsensusRecord, Input};
use super::phase_timer::PhaseTimer;
use super::{Role, STEP_MESSAGES};
use crate::runtime::config::RoleKind;
use crate::runtime::flight::{FlightEvent, FlightKind, FlightPen};
use crate::runtime::metrics::{
    Backlog, Lane, Measure, Metrics, Recorder, SAMPLED_EVERY, SequenceGauges, add, count,
};
use crate::runtime::shard::faults::Faults;
use crate::runtime::shard::lanes::{
    Checked, Done, FromReplica, LinkReceiver, LinkSender, Logged, Outgoing, Work,
};
use crate::runtime::shard::reactor::Reactor;
use crate::runtime::storage::AbstentionMark;
use crate::runtime::storage::snapshot_transfer::SnapshotTransferHandle;
use crate::smr::messages::CheckpointClaim;
use crate::smr::node::{Consensus, LogEntry};
use crate::smr::preprocessing::{ClientDirectory, FromPeer};
use crate::smr::replica::{ExecutionPhase, Participation, Stack, TransferPhase};
use crate::smr::types::{Time, UnixTime};

/// How often the host's clock is read: it may have been set, or slewed.
const WALL_CLOCK_PERIOD: Duration = Duration::from_secs(1);

/// The lanes of the consensus role.
pub(crate) struct ConsensusLanes {
    /// Replicas' messages, from each network role.
    pub replica_messages: Vec<LinkReceiver<FromReplica>>,
    /// Frames and proposals, from each preprocess role.
    pub checked: Vec<LinkReceiver<Checked>>,
    /// What execution has done.
    pub done: LinkReceiver<Done>,
    /// Decisions, to execution.
    pub work: LinkSender<Work>,
    /// Records, to the log; `None` when nothing is kept on disk.
    pub log: Option<LinkSender<LogEntry>>,
    /// What is on disk: from the log, first of all, and from the storage worker of snapshots.
    pub logged: Vec<LinkReceiver<Logged>>,
    /// Messages, to each network role.
    pub outgoing: Vec<LinkSender<Outgoing>>,
}

/// Moves inputs from lanes to [`Consensus`], and what it decides into others.
pub(crate) struct ConsensusRole<S: Stack> {
    consensus: Consensus<S>,
    inputs: Inputs,
    port: Port,
    metrics: Arc<Metrics>,
    record: ConsensusRecord,
    /// Where this role measures.
    recorder: Arc<Recorder>,
    /// Turns before the next one whose answers are timed.
    until_sample: u32,
    /// When the host's clock is read next.
    wall_clock_due: Time,
    /// What was told last.
    phases: (ExecutionPhase, TransferPhase, Participation),
}

struct Inputs {
    replica_messages: Vec<LinkReceiver<FromReplica>>,
    checked: Vec<LinkReceiver<Checked>>,
    done: LinkReceiver<Done>,
    logged: Vec<LinkReceiver<Logged>>,
}

impl<S: Stack> ConsensusRole<S> {
    pub fn new(
        consensus: Consensus<S>,
        lanes: ConsensusLanes,
        clients: ClientDirectory,
        (snapshot_transfer, mark): (Option<SnapshotTransferHandle>, AbstentionMark),
        faults: Option<Faults>,
        (metrics, replicas): (Arc<Metrics>, usize),
    ) -> Self {
        let recorder = metrics.measures.recorder();
        Self {
            record: ConsensusRecord::new(metrics.clone(), consensus.replica(), replicas),
            consensus,
            inputs: Inputs {
                replica_messages: lanes.replica_messages,
                checked: lanes.checked,
                done: lanes.done,
                logged: lanes.logged,
            },
            port: Port {
                now: Time::START,
                work: lanes.work,
                log: lanes.log,
                outgoing: lanes.outgoing,
                clients,
                mark: snapshot_transfer.is_some().then_some(mark),
                snapshot_transfer,
                faults,
                pen: FlightPen::default(),
                timer: PhaseTimer::new(recorder.clone()),
                metrics: metrics.clone(),
            },
            metrics,
            recorder,
            until_sample: 0,
            wall_clock_due: Time::START,
            phases: (
                ExecutionPhase::OrderProtocol,
                TransferPhase::NotRunning,
                Participation::Full,
            ),
        }
    }

    /// Publishes what the replica does now, and logs it where it begins or ends.
    fn tell_phases(&mut self, now: Time, phases: (ExecutionPhase, TransferPhase, Participation)) {
        let (execution, transfer, participation) = phases;
        self.record
            .phases(now, (transfer, self.phases.1), (participation, self.phases.2));
        self.metrics.publish_phases(execution, transfer, participation);
        if execution != self.phases.0 {
            tracing::info!(view = %self.consensus.replica().view(), "{execution}");
        }
        let (before, stage) = (self.phases.1, transfer.stage());
        if (stage, transfer.tenth()) != (before.stage(), before.tenth()) {
            let told = self
                .metrics
                .standing()
                .progress
                .map(|progress| progress.to_string());
            let told = told.unwrap_or_else(|| transfer.to_string());
            tracing::info!(executed = %self.consensus.replica().executed(), "{told}");
        }
        if participation != self.phases.2 {
            tracing::info!("{participation}");
        }
        self.phases = phases;
    }

    /// Says what time of day it is, now and then.
    fn tell_wall_clock(&mut self, now: Time) {
        if now < self.wall_clock_due {
            return;
        }
        self.wall_clock_due = now.after(WALL_CLOCK_PERIOD);
        // A host whose clock is before 1970 has no clock: what it proposes is refused.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.map_or(0, |since| since.as_nanos());
        let unix = UnixTime::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.consensus.on_wall_clock(now, unix);
        self.publish_peers();
    }

    /// Publishes how far the other replicas are, as far as this one can tell.
    fn publish_peers(&self) {
        let (measures, replica) = (&self.metrics.measures, self.consensus.replica());
        for node in measures.nodes().filter(|node| *node != self.metrics.node) {
            if let Some(peer) = measures.peer(node) {
                peer.publish_lag(replica.lag_of(node));
            }
        }
    }

    /// Fires the timers that are due, and times it.
    fn fire_timers(&mut self, now: Time) {
        let next = self.consensus.replica().next_timeout();
        let measures = &self.metrics.measures;
        let begin = next.is_some_and(|due| due <= now).then(|| measures.now());
        let replica = self.consensus.replica();
        let due = self.record.timers(now, replica.due_timers(now), replica.view());
        self.consensus.on_time(now);
        self.record.after(now, self.consensus.replica(), due);
        if let Some(begin) = begin {
            let took = self.metrics.measures.now().since(begin);
            self.recorder.record_time(Measure::Timeouts, took);
        }
    }

    /// Concludes the turn; true if something came of it. One in [`SAMPLED_EVERY`] of which something did is
    /// timed.
    fn conclude(&mut self, now: Time) -> bool {
        if let Some(left) = self.until_sample.checked_sub(1) {
            let acted = self.consensus.turn(now, &mut self.port);
            self.until_sample = if acted { left } else { self.until_sample };
            return acted;
        }
        let begin = self.metrics.measures.now();
        let acted = self.consensus.turn(now, &mut self.port);
        if acted {
            let took = self.metrics.measures.now().since(begin);
            self.recorder.record_time(Measure::Responses, took);
            self.until_sample = SAMPLED_EVERY - 1;
        }
        acted
    }

    fn take_logged(&mut self, now: Time) -> bool {
        let mut any = false;
        for lane in &mut self.inputs.logged {
            while let Some(logged) = lane.pop() {
                any = true;
                match logged {
                    Logged::Durable(end) => self.consensus.on_durable(end),
                    Logged::Snapshot(seq) => self.consensus.on_snapshot_kept(now, seq),
                    Logged::Transfer(event) => self.consensus.on_snapshot(now, event),
                    Logged::Read(read) => self.consensus.on_logged(now, read),
                }
            }
        }
        any
    }

    fn take_done(&mut self, now: Time) -> bool {
        let mut any = false;
        while let Some(done) = self.inputs.done.pop() {
            any = true;
            match done {
                Done::Executed { seq, operations } => self.consensus.on_executed(now, seq, operations),
                Done::Checkpoint(taken) => {
                    self.metrics.publish_checkpoint(taken.claim);
                    let CheckpointClaim { seq, digest } = taken.claim;
                    let event = FlightEvent::of(FlightKind::CheckpointTaken).seq(seq);
                    self.record.pen.record(now, event.numbers(beginning(&digest), 0));
                    self.consensus.on_checkpoint(now, taken);
                }
                Done::Installed { seq, windows } => {
                    tracing::info!(%seq, "a state from other replicas is installed");
                    let event = FlightEvent::of(FlightKind::Installed).seq(seq);
                    self.record.pen.record(now, event);
                    self.consensus.on_installed(now, seq, &windows);
                }
            }
        }
        any
    }

    fn take_messages(&mut self, now: Time) -> bool {
        let mut taken = 0;
        for lane in &mut self.inputs.replica_messages {
            for _ in 0..STEP_MESSAGES {
                let Some(FromReplica { from, message }) = lane.pop() else {
                    break;
                };
                taken += 1;
                if let Some(faults) = &mut self.port.faults {
                    faults.hear(now, &message, &mut self.port.outgoing);
                }
                let view = self.consensus.replica().view();
                self.record.message(now, from, &message, view);
                if !self.consensus.on_message(now, from, &message) {
                    count(&self.metrics.counters.messages_refused);
                    self.record.no_message(now, from, &message);
                }
                let input = Input::Message(from, &message);
                self.record.after(now, self.consensus.replica(), input);
            }
        }
        if taken > 0 {
            add(&self.recorder.protocol_messages, taken);
        }
        taken > 0
    }

    fn take_checked(&mut self, now: Time) -> bool {
        let mut any = false;
        for lane in &mut self.inputs.checked {
            for _ in 0..STEP_MESSAGES {
                let Some(checked) = lane.pop() else {
                    break;
                };
                any = true;
                match checked {
                    Checked::Frame(frame) => self.consensus.on_frame(now, frame),
                    Checked::FromPeer(from, told) => {
                        if matches!(told, FromPeer::Proposal(_) | FromPeer::Batch(_)) {
                            add(&self.recorder.protocol_messages, 1);
                        }
                        let input = Input::told(from, &told);
                        self.consensus.on_peer(now, from, told);
                        self.record.after(now, self.consensus.replica(), input);
                    }
                    Checked::At(verified) => self.port.timer.on_verified(verified),
                }
            }
        }
        any
    }
}

impl<S: Stack> Role for ConsensusRole<S> {
    fn kind(&self) -> Option<RoleKind> {
        Some(RoleKind::Consensus)
    }

    fn record_with(&mut self, pen: FlightPen) {
        self.record.pen = pen.clone();
        self.port.pen = pen;
    }

    fn step(&mut self, now: Time, _: &mut Reactor) -> bool {
        self.tell_wall_clock(now);
        // What execution and the log say is always heard: they may be waiting for room in these lanes before
        // they make room in those that block this role.
        let done = self.take_done(now);
        let logged = self.take_logged(now);
        self.port.now = now;
        if self.port.is_blocked() {
            return done || logged;
        }
        self.fire_timers(now);
        let messages = self.take_messages(now);
        let checked = self.take_checked(now);
        if let Some(faults) = &mut self.port.faults {
            faults.say_what_is_due(now, &mut self.port.outgoing);
        }
        let acted = self.conclude(now);
        self.record.after(now, self.consensus.replica(), Input::Other);
        messages || checked || done || logged || acted
    }

    fn finish(&mut self, now: Time, _: &mut Reactor) -> bool {
        self.port.ring();
        self.consensus.tell_expectations();
        let replica = self.consensus.replica();
        let gauges = SequenceGauges::of(replica);
        self.metrics.publish(gauges, replica.counters());
        self.record.turn(now, replica, &gauges);
        self.metrics.measures.publish_backlog(Backlog {
            pool_frames: replica.pool().pending_frames(),
            pool_bytes: replica.pool().pending_bytes(),
            held_effects: replica.held_effects(),
        });
        let phases = (replica.phase(), replica.transfer_phase(), replica.participation());
        if phases != self.phases {
            self.tell_phases(now, phases);
        }
        false
    }

    fn observe(&mut self) {
        let (inputs, recorder) = (&self.inputs, &self.recorder);
        let messages = inputs.replica_messages.iter();
        messages.for_each(|lane| recorder.record_depth(Lane::ReplicaMessages, lane.len()));
        let checked = inputs.checked.iter();
        checked.for_each(|lane| recorder.record_depth(Lane::Verified, lane.len()));
        recorder.record_depth(Lane::Executed, inputs.done.len());
        // The others are from the threads that keep snapshots.
        if let Some(log) = inputs.logged.first() {
            recorder.record_depth(Lane::Durable, log.len());
        }
    }

    fn has_input(&self) -> bool {
        let inputs = &self.inputs;
        inputs.replica_messages.iter().any(|lane| !lane.is_empty())
            || inputs.checked.iter().any(|lane| !lane.is_empty())
            || !inputs.done.is_empty()
            || inputs.logged.iter().any(|lane| !lane.is_empty())
            || self.port.has_overflow()
    }

    fn next_timeout(&self) -> Option<Time> {
        let late = self.port.faults.as_ref().and_then(Faults::next_due);
        self.consensus
            .replica()
            .next_timeout()
            .into_iter()
            .chain(late)
            .min()
    }

    fn drain(&mut self, finishing: bool) -> bool {
        finishing && !self.has_input()
    }

    fn is_settled(&self) -> bool {
        self.consensus.replica().is_idle() && !self.has_input()
    }
}
