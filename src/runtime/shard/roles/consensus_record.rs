//! What the consensus role records of its replica: events, and evidence against peers.
//!
//! The replica decides and tells nobody why. So after each input what it counts is compared with what it
//! counted before, and what changed is put down to that input.

use std::sync::Arc;

use bytes::Bytes;

use crate::runtime::evidence::{EvidenceKind, Exhibit};
use crate::runtime::flight::{FlightEvent, FlightKind, FlightPen, MessageTopic, timer_code};
use crate::runtime::metrics::{Metrics, SequenceGauges};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::preprocessing::FromPeer;
use crate::smr::protocol::{Rejection, Timer};
use crate::smr::replica::{Participation, Replica, Stack, TransferPhase};
use crate::smr::state_transfer::StateTransferState;
use crate::smr::types::{Digest, NodeId, Peer, SeqNo, Time, View};

/// What a replica was just given.
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    /// A replica's message without frames.
    Message(NodeId, &'a Bytes),
    /// Part of a replica's message with frames; of a batch, its digest.
    Told(NodeId, Option<Digest>),
    /// A timer was due.
    Timer(Timer),
    /// Anything else.
    Other,
}

impl<'a> Input<'a> {
    /// What preprocessing passed on of this replica.
    pub fn told(from: NodeId, told: &FromPeer) -> Self {
        let digest = match told {
            FromPeer::Proposal(proposal) | FromPeer::Batch(proposal) => Some(proposal.batch.digest),
            FromPeer::Frame(_) | FromPeer::Disputed(..) => None,
        };
        Self::Told(from, digest)
    }

    fn from(self) -> Option<NodeId> {
        match self {
            Self::Message(from, _) | Self::Told(from, _) => Some(from),
            Self::Timer(_) | Self::Other => None,
        }
    }

    /// The numbers of an event that it caused.
    fn cause(self) -> [u64; 2] {
        match self {
            Self::Timer(timer) => [1, timer_code(timer)],
            Self::Message(..) | Self::Told(..) => [2, 0],
            Self::Other => [0, 0],
        }
    }

    fn exhibit(self) -> Exhibit<'a> {
        match self {
            Self::Message(_, message) => Exhibit {
                message: Some(message),
                is_signed: MessageTopic::of(message).is_some_and(MessageTopic::is_signed),
                ..Exhibit::default()
            },
            Self::Told(_, digest) => Exhibit {
                digest,
                ..Exhibit::default()
            },
            Self::Timer(_) | Self::Other => Exhibit::default(),
        }
    }
}

/// What the replica counted last.
#[derive(Debug)]
pub(super) struct ConsensusRecord {
    pub pen: FlightPen,
    metrics: Arc<Metrics>,
    rejected: [u64; Rejection::ALL.len()],
    /// By replica: what it sent that no correct replica sends.
    offences: Vec<u64>,
    view_changes: u64,
    views_entered: u64,
    batches_proposed: u64,
    chunks_refused: u64,
    decided: SeqNo,
    durable: SeqNo,
}

impl ConsensusRecord {
    /// Of a replica that has not begun; it is in a cluster of n.
    pub fn new<S: Stack>(metrics: Arc<Metrics>, replica: &Replica<S>, n: usize) -> Self {
        let counters = replica.counters();
        Self {
            pen: FlightPen::default(),
            metrics,
            rejected: counters.rejected,
            offences: vec![0; n],
            view_changes: counters.view_changes,
            views_entered: counters.views_entered,
            batches_proposed: counters.batches_proposed,
            chunks_refused: counters.chunks_refused,
            decided: replica.ordering().decided(),
            durable: replica.released(),
        }
    }

    /// A replica's message is about to be handled.
    pub fn message(&self, now: Time, from: NodeId, message: &Bytes, view: View) {
        let kind = MessageTopic::code(MessageTopic::of(message));
        let event = FlightEvent::of(FlightKind::Message)
            .with(Some(Peer::Replica(from)))
            .view(view)
            .numbers(kind, message.len() as u64);
        self.pen.record(now, event);
    }

    /// Timers that are about to be handled; the last one that is not periodic, or the last one.
    pub fn timers(&self, now: Time, due: impl Iterator<Item = Timer>, view: View) -> Input<'static> {
        let mut cause = Input::Other;
        for timer in due {
            let is_periodic = matches!(timer, Timer::Status | Timer::LeaderReview);
            let kind = if is_periodic {
                FlightKind::Periodic
            } else {
                FlightKind::Timer
            };
            let event = FlightEvent::of(kind).view(view).numbers(timer_code(timer), 0);
            self.pen.record(now, event);
            if !is_periodic || matches!(cause, Input::Other) {
                cause = Input::Timer(timer);
            }
        }
        cause
    }

    /// A message that is none of this protocol.
    pub fn no_message(&self, now: Time, from: NodeId, message: &Bytes) {
        self.refused(
            now,
            from,
            EvidenceKind::NoMessage,
            1,
            Input::Message(from, message).exhibit(),
        );
    }

    /// The replica was given this: what came of it.
    pub fn after<S: Stack>(&mut self, now: Time, replica: &Replica<S>, input: Input<'_>) {
        let counters = replica.counters();
        if counters.rejected != self.rejected {
            self.rejections(now, replica, input);
        }
        let views = (counters.view_changes, counters.views_entered);
        if views != (self.view_changes, self.views_entered) {
            let event = |kind| {
                let [first, second] = input.cause();
                FlightEvent::of(kind)
                    .with(input.from().map(Peer::Replica))
                    .view(replica.view())
                    .numbers(first, second)
            };
            if views.0 != self.view_changes {
                self.pen.record(now, event(FlightKind::ViewLeft));
            }
            if views.1 != self.views_entered {
                self.pen.record(now, event(FlightKind::ViewEntered));
            }
            (self.view_changes, self.views_entered) = views;
        }
    }

    /// What was rejected: by the input's sender, or else by those whose offences the replica counts.
    fn rejections<S: Stack>(&mut self, now: Time, replica: &Replica<S>, input: Input<'_>) {
        let before = std::mem::replace(&mut self.rejected, replica.counters().rejected);
        for reason in Rejection::ALL {
            let times = self.rejected[reason.index()] - before[reason.index()];
            let kind = EvidenceKind::Message(reason);
            if times == 0 || !kind.is_kept() {
                continue;
            }
            if let Some(from) = input.from() {
                let mut exhibit = input.exhibit();
                let last = replica.offences(from).last;
                exhibit.place = last
                    .filter(|last| last.reason == reason)
                    .map(|last| (last.view, last.seq));
                self.refused(now, from, kind, times, exhibit);
            }
        }
        for (node, known) in NodeId::all(self.offences.len()).zip(&mut self.offences) {
            let offences = replica.offences(node);
            let times = offences.count - std::mem::replace(known, offences.count);
            if let Some(last) = offences.last.filter(|_| times > 0 && input.from().is_none()) {
                let exhibit = Exhibit {
                    place: Some((last.view, last.seq)),
                    ..Exhibit::default()
                };
                let kind = EvidenceKind::Message(last.reason);
                let refused = (Peer::Replica(node), kind, times);
                record_refusal(&self.pen, &self.metrics, now, refused, exhibit);
            }
        }
    }

    fn refused(&self, now: Time, from: NodeId, kind: EvidenceKind, times: u64, exhibit: Exhibit<'_>) {
        let refused = (Peer::Replica(from), kind, times);
        record_refusal(&self.pen, &self.metrics, now, refused, exhibit);
    }

    /// How far the replica is at the end of a turn.
    pub fn turn<S: Stack>(&mut self, now: Time, replica: &Replica<S>, gauges: &SequenceGauges) {
        let counters = replica.counters();
        let event = |kind| FlightEvent::of(kind).view(gauges.view);
        let proposed = counters.batches_proposed - self.batches_proposed;
        if proposed > 0 {
            self.pen
                .record(now, event(FlightKind::Proposed).numbers(proposed, 0));
        }
        // A state that came from others leaps.
        for (kind, last, known) in [
            (FlightKind::Decided, gauges.ordered, &mut self.decided),
            (FlightKind::Durable, gauges.durable, &mut self.durable),
        ] {
            if last != *known {
                self.pen
                    .record(now, event(kind).seq(last).numbers(last.since(*known), 0));
                *known = last;
            }
        }
        let chunks = counters.chunks_refused.saturating_sub(self.chunks_refused);
        if chunks > 0 {
            self.pen
                .record(now, event(FlightKind::ChunksRefused).numbers(chunks, 0));
        }
        self.batches_proposed = counters.batches_proposed;
        self.chunks_refused = counters.chunks_refused;
    }

    /// Transfers that began, went on or ended, and votes that are withheld or not any more.
    pub fn phases(
        &self,
        now: Time,
        (transfer, transfer_before): (TransferPhase, TransferPhase),
        (participation, before): (Participation, Participation),
    ) {
        let (stage, stage_before) = (transfer.stage(), transfer_before.stage());
        if stage != stage_before {
            let event = match stage {
                0 => FlightEvent::of(FlightKind::TransferEnded),
                _ => FlightEvent::of(FlightKind::Transfer)
                    .seq(state_of(transfer))
                    .numbers(u64::from(stage), 0),
            };
            self.pen.record(now, event);
        }
        if participation != before {
            let event = match participation {
                Participation::Full => FlightEvent::of(FlightKind::Votes),
                Participation::Abstaining { heard, needed, .. } => {
                    FlightEvent::of(FlightKind::Abstains).numbers(heard as u64, needed as u64)
                }
            };
            self.pen.record(now, event);
        }
    }
}

/// The checkpoint whose state is on its way; zero for none.
fn state_of(transfer: TransferPhase) -> SeqNo {
    let TransferPhase::RunningTransferProtocols { state_transfer, .. } = transfer else {
        return SeqNo::ZERO;
    };
    match state_transfer {
        StateTransferState::Idle | StateTransferState::Asking => SeqNo::ZERO,
        StateTransferState::Opening { seq }
        | StateTransferState::Receiving { seq, .. }
        | StateTransferState::Installing { seq } => seq,
    }
}

/// Records that something of a peer was refused, so many times for this reason, and keeps it as evidence.
pub(super) fn record_refusal(
    pen: &FlightPen,
    metrics: &Metrics,
    now: Time,
    (peer, kind, times): (Peer, EvidenceKind, u64),
    exhibit: Exhibit<'_>,
) {
    let event = FlightEvent::of(FlightKind::Refused)
        .with(Some(peer))
        .numbers(u64::from(kind.code()), times);
    pen.record(now, event);
    metrics.evidence.note(peer, kind, times, exhibit);
}
