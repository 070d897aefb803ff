//! What a replica gives to peers that catch up: what it owes each of them, and how much it may send.
//!
//! A peer has one question of a kind under way. What its allowance does not cover at once is owed, and is
//! sent when it does: a question that were dropped would cost the peer its whole patience.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::checkpoints::StateProof;
use super::{Action, Replica, Stack};
use crate::smr::decision_log::DecisionLog;
use crate::smr::messages::{
    CheckpointOffer, CoveringCheckpoint, DECIDED_MAX, LogTransferMessage, PieceRange, Proposal,
    StateTransferMessage, SyncMessage,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Allowance, Rate, Recipients, SnapshotTask, Timer};
use crate::smr::state_transfer::TransferLimits;
use crate::smr::state_transfer::monolithic::ANSWER_BYTES;
use crate::smr::types::{NodeId, SeqNo, Time};

/// A replica that executed operations so long ago serves no more.
const SERVES_FOR: Duration = Duration::from_millis(200);
/// How many bytes a serving replica sends at once, after a pause.
const SERVING_BURST_BYTES: u64 = 4 * ANSWER_BYTES as u64;

/// One peer: what it may be sent, in bytes, and what it is owed.
#[derive(Debug, Clone)]
struct Peer {
    bytes: Allowance,
    pieces: Option<PieceRange>,
    decisions: Option<(SeqNo, u64)>,
    /// The first place of what is being read from the log for it.
    reading: Option<SeqNo>,
    /// What was read, in order.
    read: VecDeque<Arc<Proposal>>,
}

/// What is given to each peer.
#[derive(Debug)]
pub(super) struct Donations {
    limits: TransferLimits,
    peers: Vec<Peer>,
    /// When operations were executed last.
    served: Option<Time>,
}

impl Donations {
    pub fn new(n: usize, limits: TransferLimits) -> Self {
        let rate = Rate {
            burst: limits.donor_burst_bytes,
            per_second: limits.donor_bytes_per_second,
        };
        let peer = Peer {
            bytes: Allowance::full(rate),
            pieces: None,
            decisions: None,
            reading: None,
            read: VecDeque::new(),
        };
        Self {
            limits,
            peers: vec![peer; n],
            served: None,
        }
    }

    pub fn limits(&self) -> &TransferLimits {
        &self.limits
    }

    /// Operations of clients were executed.
    pub fn on_served(&mut self, now: Time) {
        self.served = Some(now);
    }

    pub fn enqueue_pieces(&mut self, to: NodeId, range: PieceRange) {
        if let Some(peer) = self.peers.get_mut(to.index()) {
            peer.pieces = Some(range);
        }
    }

    pub fn enqueue_decisions(&mut self, to: NodeId, first: SeqNo, count: u64) {
        if let Some(peer) = self.peers.get_mut(to.index()) {
            peer.decisions = Some((first, count));
        }
    }

    /// The log was read for a peer. When it does not hold what is owed, others have to give it.
    pub fn on_read(&mut self, to: NodeId, first: SeqNo, decisions: Vec<Arc<Proposal>>) {
        let Some(peer) = self.peers.get_mut(to.index()) else {
            return;
        };
        if peer.reading.take_if(|reading| *reading == first).is_none() {
            return;
        }
        let is_owed = peer.decisions.is_some_and(|(owed, _)| owed == first);
        if decisions.is_empty() && is_owed {
            peer.decisions = None;
        }
        peer.read = decisions.into();
    }

    /// The next decision that is owed to a peer, if it was read from the log.
    fn take_read(&mut self, to: NodeId, seq: SeqNo) -> Option<Arc<Proposal>> {
        let read = &mut self.peers[to.index()].read;
        while read.front().is_some_and(|first| first.seq < seq) {
            read.pop_front();
        }
        read.front().filter(|first| first.seq == seq).cloned()
    }

    /// How many bytes a peer may be sent at this time.
    fn rate(&self, now: Time) -> Rate {
        let burst = self.limits.donor_burst_bytes;
        match self.served.is_some_and(|served| now.since(served) < SERVES_FOR) {
            true => Rate {
                burst: burst.min(SERVING_BURST_BYTES),
                per_second: self.limits.donor_bytes_per_second_serving,
            },
            false => Rate {
                burst,
                per_second: self.limits.donor_bytes_per_second,
            },
        }
    }

    /// Whether a peer may be sent so much now; it is counted if so.
    pub fn may_send(&mut self, now: Time, to: NodeId, bytes: u64) -> bool {
        self.spend(now, to, bytes).is_ok()
    }

    /// Whether anything at all may be sent now whose size is known only when it was: [`charge`](Self::charge)
    /// counts it then.
    pub fn may_answer(&mut self, now: Time, to: NodeId) -> bool {
        self.may_send(now, to, 0)
    }

    /// A peer was sent so much.
    pub fn charge(&mut self, to: NodeId, bytes: u64) {
        if let Some(peer) = self.peers.get_mut(to.index()) {
            peer.bytes.charge(bytes);
        }
    }

    /// As [`may_send`](Self::may_send); when it may be, if not now.
    fn spend(&mut self, now: Time, to: NodeId, bytes: u64) -> Result<(), Time> {
        let rate = self.rate(now);
        let Some(peer) = self.peers.get_mut(to.index()) else {
            return Err(now.after(SERVES_FOR));
        };
        peer.bytes.set_rate(rate);
        // What is larger than a burst would never be sent.
        let needed = bytes.min(rate.burst);
        if peer.bytes.take(now, needed) || active(Mutant::DonationsUnlimited) {
            return Ok(());
        }
        Err(now.after(peer.bytes.wait_for(now, needed).min(SERVES_FOR)))
    }
}

impl<S: Stack> Replica<S> {
    /// The same with other limits on what it gives to others.
    #[must_use]
    pub fn with_transfer_limits(mut self, limits: TransferLimits) -> Self {
        self.donations = Donations::new(self.settings.quorum.n(), limits);
        self
    }

    /// Names a peer the batches that were decided.
    pub(super) fn answer_decided(&mut self, now: Time, from: NodeId, after: SeqNo) {
        let first = after.max(self.decision_log.floor()).next();
        let released = self.supply.released().next().since(first) as usize;
        let digests = self.decision_log.digests(first, released.min(DECIDED_MAX));
        let digests: Vec<[u8; 32]> = digests.map(|digest| *digest.as_bytes()).collect();
        let answer_bytes = 32 * digests.len() as u64 + 72;
        if !self.donations.may_send(now, from, answer_bytes) {
            return;
        }
        // Also when there is nothing to name: whoever asks then knows that it need not wait.
        let message = LogTransferMessage::Decided {
            after: after.get(),
            first: first.get(),
            digests,
        };
        let message = message.encode(self.settings.cluster, self.settings.epoch);
        self.outbox.send(Recipients::One(from), message);
    }

    /// Offers a peer the checkpoints whose states are here.
    pub(super) fn answer_offer(&mut self, now: Time, from: NodeId, after: SeqNo) {
        if !self.donations.may_answer(now, from) {
            return;
        }
        let offered = self.checkpoints.offer(now, from, after);
        for StateProof { claim, cover, proof } in offered {
            let offer = CheckpointOffer {
                seq: claim.seq.get(),
                digest: *claim.digest.as_bytes(),
                cover: cover.map(|(light, _)| CoveringCheckpoint {
                    seq: light.seq.get(),
                    chain: *light.chain.head().as_bytes(),
                }),
                proof,
            };
            let message =
                StateTransferMessage::Offer(offer).encode(self.settings.cluster, self.settings.epoch);
            self.outbox.send(Recipients::One(from), message);
        }
        self.charge_answer(from);
    }

    /// Sends what is owed, as far as it may be sent, and comes back to the rest.
    pub(super) fn serve_pending(&mut self, now: Time) {
        let mut again: Option<Time> = None;
        for to in NodeId::all(self.settings.quorum.n()) {
            let later = [self.answer_pieces(now, to), self.answer_decisions(now, to)];
            again = later.into_iter().flatten().chain(again).min();
        }
        match again {
            Some(at) => self.timers.set(Timer::Donor, at),
            None => self.timers.cancel(Timer::Donor),
        }
    }

    /// When to try again, if something stays owed.
    fn answer_pieces(&mut self, now: Time, to: NodeId) -> Option<Time> {
        let donations = &mut self.donations;
        let range = donations.peers[to.index()].pieces?;
        if let Err(later) = donations.spend(now, to, ANSWER_BYTES as u64) {
            return Some(later);
        }
        donations.peers[to.index()].pieces = None;
        self.actions.push(Action::Snapshot(SnapshotTask::Read {
            to,
            range,
            bytes_max: ANSWER_BYTES,
        }));
        None
    }

    fn answer_decisions(&mut self, now: Time, to: NodeId) -> Option<Time> {
        let (first, count) = self.donations.peers[to.index()].decisions.take()?;
        let (cluster, epoch) = (self.settings.cluster, self.settings.epoch);
        let end = first.plus(count).minus(1).min(self.supply.released());
        let mut next = first;
        while next <= end {
            let Some(proposal) = self.decision_at_hand(to, next) else {
                break;
            };
            let bytes = proposal.batch.message_bytes() as u64;
            if let Err(later) = self.donations.spend(now, to, bytes) {
                let left = count - next.since(first);
                self.donations.enqueue_decisions(to, next, left);
                return Some(later);
            }
            let message = SyncMessage::batch(cluster, epoch, proposal.view, next, &proposal.batch);
            self.outbox.send(Recipients::One(to), message);
            next = next.next();
        }
        if next <= end && self.is_logged_only(next) {
            let left = count - next.since(first);
            let donations = &mut self.donations;
            donations.enqueue_decisions(to, next, left);
            let peer = &mut donations.peers[to.index()];
            if peer.reading.is_none() {
                peer.reading = Some(next);
                self.read_log(Some(to), next, left as usize);
            }
        }
        None
    }

    /// A decision that a peer is owed, from memory or as it was read for it.
    fn decision_at_hand(&mut self, to: NodeId, seq: SeqNo) -> Option<Arc<Proposal>> {
        if let Some(decision) = self.decision_log.read(seq, 1).next() {
            return Some(decision.proposal.clone());
        }
        self.donations.take_read(to, seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId::new(1);

    fn donations() -> Donations {
        let limits = TransferLimits {
            donor_bytes_per_second: 100 << 20,
            donor_bytes_per_second_serving: 10 << 20,
            donor_burst_bytes: 20 << 20,
            waiting_bytes_max: 0,
        };
        Donations::new(4, limits)
    }

    /// How many MiB a peer is sent in a second that is asked for all the time.
    fn sent_in_a_second(donations: &mut Donations, start: Time, serves: bool) -> u64 {
        (0..10_000)
            .map(|step| {
                let now = start.after(Duration::from_micros(100 * step));
                if serves {
                    donations.on_served(now);
                }
                u64::from(donations.may_send(now, PEER, 1 << 20))
            })
            .sum()
    }

    #[test]
    fn a_peer_gets_a_burst_and_then_a_rate_that_is_lower_while_clients_are_served() {
        let mut idle = donations();
        assert!((118..=120).contains(&sent_in_a_second(&mut idle, Time::START, false)));
        let mut serving = donations();
        let sent = sent_in_a_second(&mut serving, Time::START, true);
        assert!((12..=14).contains(&sent), "4 MiB at once and 10 more: {sent}");
        assert_eq!(
            serving.peers[2].bytes.left(Time::START),
            20 << 20,
            "each peer has an allowance of its own"
        );
    }

    #[test]
    fn what_was_answered_beyond_the_allowance_is_earned_before_there_is_more() {
        let mut donations = donations();
        let (mut sent, answer) = (0, 8 << 20);
        for step in 0..10_000 {
            let now = Time::START.after(Duration::from_micros(100 * step));
            donations.on_served(now);
            if donations.may_answer(now, PEER) {
                donations.charge(PEER, answer);
                sent += answer;
            }
        }
        assert!(
            (14 << 20..=24 << 20).contains(&sent),
            "4 MiB at once, 10 more, and one answer: {sent}"
        );
        assert!(donations.may_answer(Time::START, NodeId::new(2)));
    }

    #[test]
    fn what_may_not_be_sent_now_may_be_at_the_time_that_is_named() {
        let mut donations = donations();
        let mut now = Time::START;
        for _ in 0..100 {
            now = match donations.spend(now, PEER, 1 << 20) {
                Ok(()) => continue,
                Err(later) => later,
            };
            assert_eq!(donations.spend(now, PEER, 1 << 20), Ok(()));
        }
        assert!(now > Time::START, "the burst was spent");
        let huge = 1 << 40;
        let tries = (0..10).find(|_| match donations.spend(now, PEER, huge) {
            Ok(()) => true,
            Err(later) => {
                now = later;
                false
            }
        });
        assert!(tries.is_some(), "nothing is owed for ever");
    }
}
