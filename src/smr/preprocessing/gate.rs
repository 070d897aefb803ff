//! What a replica sends with client frames in it, checked as far as its sender may have signatures verified.
//!
//! Sending a batch of frames with false signatures costs its sender next to nothing, and verifying them a
//! core of ours. So what is verified on account of one peer is bounded, whatever it sends:
//!
//! | of a peer | is verified |
//! |---|---|
//! | a pre-prepare of the view that we are in, by its leader | without limit: if nothing comes of it, the leader is replaced |
//! | a batch, while we transfer decisions | without limit: we asked for it, by digest |
//! | any other pre-prepare or batch | within [`GateLimits::unasked`] |
//! | frames that it passes on | within [`GateLimits::forwarded`]; beyond that one of each client now and then |
//! | a message with a false signature | counts against [`GateLimits::lies`] with all its signatures; when those are used up, no signature of this peer is verified |
//!
//! # Whom this can starve
//! - *A correct peer's pre-prepares and batches:* never because of lies. It passes on, proposes and keeps
//!   only frames that it has verified itself, and a signature that holds at one replica holds at all. MACs do
//!   not: a client may make a frame whose MAC is good at one replica and bad at the next. So MACs never
//!   count, and no client can make correct replicas look like liars to each other. Verifying one costs little
//!   more than hashing the frame, which the link's bandwidth bounds.
//! - *A client behind a correct peer:* never. Other clients may have that peer pass on more than its
//!   allowance (true signatures, of frames they really made). Then each client still has one frame verified
//!   per turn, and a turn is so long that all of them together take no more than the allowance once more. Its
//!   client sends a frame again until it is answered, so that it has its turn.
//! - *A client whose frames a faulty peer sends again and again, or forges:* its turn at that peer may be
//!   lost. The other peers have allowances of their own.
//!
//! Who repeats true pre-prepares in its view, or true batches while we transfer, is verified each time: it
//! does not gain by it what a lie would, and whoever pays for a limit there is the correct leader of a busy
//! cluster.
//!
//! Each preprocess role has a gate of its own, and a core.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::{FrameChecker, FrameRefusal, FrameSource};
use crate::smr::messages::archived::ArchivedPrePrepare;
use crate::smr::messages::{BatchError, Checked, Frame, FrameKey, Proposal, SystemMessage};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Allowance, LeaderRule, Rate};
use crate::smr::types::{ClientId, NodeId, Quorum, SeqNo, Time, View};

/// Signatures a second that are verified for all peers together beside what is expected: less than a core
/// can.
const PER_SECOND: u64 = 40_000;
/// How many of them of one peer at once, after a pause: what answers a question for the batches of a new
/// view.
const BURST: u64 = 32_768;
/// Signatures in vain: enough to be sure that it is no accident, and few enough that lying does not pay.
const LIES: Rate = Rate {
    burst: 4096,
    per_second: 256,
};

/// How many signatures are verified on account of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// Of batches that nobody here expects.
    pub unasked: Rate,
    /// Of frames that it passes on; as many again so that each client has its turn.
    pub forwarded: Rate,
    /// Of whatever has a false signature in it.
    pub lies: Rate,
}

impl GateLimits {
    /// For n replicas.
    #[must_use]
    pub fn of(n: usize) -> Self {
        let share = Rate {
            burst: BURST,
            per_second: (PER_SECOND / n.max(1) as u64).max(1),
        };
        Self {
            unasked: share,
            forwarded: share,
            lies: LIES,
        }
    }
}

/// What consensus expects of other replicas. Copies are one: consensus tells, every preprocess role knows.
#[derive(Debug, Clone, Default)]
pub struct ExpectedTraffic(Arc<Expected>);

#[derive(Debug, Default)]
struct Expected {
    view: AtomicU64,
    transfers: AtomicBool,
}

impl ExpectedTraffic {
    /// Consensus is in this view; `transfers` says whether it asks for decisions that it lacks.
    pub fn tell(&self, view: View, transfers: bool) {
        // Whoever sees it late takes a batch on account of the allowance.
        self.0.view.store(view.get(), Ordering::Relaxed);
        self.0.transfers.store(transfers, Ordering::Relaxed);
    }

    fn view(&self) -> View {
        View::new(self.0.view.load(Ordering::Relaxed))
    }

    fn transfers(&self) -> bool {
        self.0.transfers.load(Ordering::Relaxed)
    }
}

/// What consensus is told of a replica's message with frames.
#[derive(Debug)]
pub enum FromPeer {
    /// A client's frame that was passed on.
    Frame(Frame),
    /// The MAC of this frame failed here, in the pre-prepare for this place that follows.
    Disputed(FrameKey, SeqNo),
    /// A pre-prepare.
    Proposal(Box<Proposal>),
    /// A batch that was perhaps asked for.
    Batch(Box<Proposal>),
}

/// Why something in a replica's message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefusal {
    /// No archive of a message.
    #[error("its bytes are no message")]
    Archive,
    /// No message with frames, or frames that nobody passes on.
    #[error("it is no message that carries frames to be ordered")]
    Message,
    /// A frame that was passed on.
    #[error(transparent)]
    Frame(#[from] FrameRefusal),
    /// A pre-prepare or a batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl PeerRefusal {
    /// Whether it is refused because of what its sender had verified before.
    #[must_use]
    pub const fn is_over_budget(self) -> bool {
        matches!(
            self,
            Self::Frame(FrameRefusal::OverBudget) | Self::Batch(BatchError::OverBudget(_))
        )
    }
}

/// What one peer may have verified.
#[derive(Debug, Clone)]
struct PeerBudget {
    unasked: Allowance,
    forwarded: Allowance,
    lies: Allowance,
    /// When a client last had its turn, beyond what may be passed on: known clients only.
    turns: BTreeMap<ClientId, Time>,
}

impl PeerBudget {
    fn new(limits: &GateLimits) -> Self {
        Self {
            unasked: Allowance::full(limits.unasked),
            forwarded: Allowance::full(limits.forwarded),
            lies: Allowance::full(limits.lies),
            turns: BTreeMap::new(),
        }
    }

    /// Whether this peer may lie once more.
    fn is_trusted(&mut self, now: Time) -> bool {
        self.lies.left(now) > 0 || active(Mutant::GateUnlimited)
    }

    /// Whether one more signature of a frame that it passes on is verified.
    fn may_forward(&mut self, now: Time, client: ClientId, turn: Duration) -> bool {
        if self.forwarded.take(now, 1) || active(Mutant::GateUnlimited) {
            return true;
        }
        let may = self.turns.get(&client).is_none_or(|at| now.since(*at) >= turn);
        if may {
            self.turns.insert(client, now);
        }
        may
    }
}

/// The accounts of every peer at one preprocess role.
#[derive(Debug)]
pub struct PeerVerifyGate {
    expectations: ExpectedTraffic,
    limits: GateLimits,
    quorum: Quorum,
    leaders: LeaderRule,
    accounts: Vec<PeerBudget>,
}

impl PeerVerifyGate {
    /// For the replicas of `quorum`, whose ordering protocol has `leaders` propose.
    #[must_use]
    pub fn new(quorum: Quorum, leaders: LeaderRule, expectations: ExpectedTraffic) -> Self {
        Self::with_limits(quorum, leaders, expectations, GateLimits::of(quorum.n()))
    }

    /// With limits of one's own.
    #[must_use]
    pub fn with_limits(
        quorum: Quorum,
        leaders: LeaderRule,
        expectations: ExpectedTraffic,
        limits: GateLimits,
    ) -> Self {
        Self {
            expectations,
            limits,
            quorum,
            leaders,
            accounts: vec![PeerBudget::new(&limits); quorum.n()],
        }
    }

    /// Checks a replica's message that carries frames, and gives `tell` what becomes of it, in order.
    /// `message` is the whole message that `checked` is the body of.
    ///
    /// # Panics
    /// When frames [taken](FrameChecker::take_frame) before were not [verified](FrameChecker::verify).
    pub fn check(
        &mut self,
        now: Time,
        from: NodeId,
        checker: &mut FrameChecker,
        (checked, message): (&Checked<SystemMessage>, &Bytes),
        mut tell: impl FnMut(Result<FromPeer, PeerRefusal>),
    ) {
        if from.index() >= self.accounts.len() {
            return tell(Err(PeerRefusal::Message));
        }
        match checked.forwarded_frames(checker.batch_bytes_max()) {
            Some(Ok(frames)) => self.check_forwarded(now, from, checker, frames, tell),
            Some(Err(_)) => tell(Err(PeerRefusal::Message)),
            None => {
                let result = self.check_batch(now, from, checker, (checked, message));
                // What answers a fetch is proven by its digest: whoever sends it may have had it from
                // anybody.
                let is_proposal = !checked.is_batch_response();
                let seq = checked
                    .pre_prepare_head()
                    .map(|head| head.seq())
                    .unwrap_or_default();
                for key in checker.drain_disputed().filter(|_| is_proposal) {
                    tell(Ok(FromPeer::Disputed(key, seq)));
                }
                tell(match result {
                    Ok(batch) if checked.is_batch_response() => Ok(FromPeer::Batch(Box::new(batch))),
                    Ok(proposal) => Ok(FromPeer::Proposal(Box::new(proposal))),
                    Err(refusal) => Err(refusal),
                });
            }
        }
    }

    fn check_forwarded(
        &mut self,
        now: Time,
        from: NodeId,
        checker: &mut FrameChecker,
        frames: impl Iterator<Item = Bytes>,
        mut tell: impl FnMut(Result<FromPeer, PeerRefusal>),
    ) {
        let account = &mut self.accounts[from.index()];
        let per_second = self.limits.forwarded.per_second.max(1);
        let turn = Duration::from_nanos(checker.clients() as u64 * 1_000_000_000 / per_second);
        let is_trusted = account.is_trusted(now);
        let sourced = frames.map(|bytes| (FrameSource::Replica(from), bytes));
        checker.check_frames_within(
            sourced,
            |client| is_trusted && account.may_forward(now, client, turn),
            |_, verdict| {
                tell(match verdict {
                    Ok(frame) if frame.mode().is_ordered() => Ok(FromPeer::Frame(frame)),
                    Ok(_) => Err(PeerRefusal::Message),
                    Err(refused) => Err(refused.refusal.into()),
                });
            },
        );
        self.count_lies(from, checker);
    }

    fn check_batch(
        &mut self,
        now: Time,
        from: NodeId,
        checker: &mut FrameChecker,
        (checked, message): (&Checked<SystemMessage>, &Bytes),
    ) -> Result<Proposal, PeerRefusal> {
        let head = checked.pre_prepare_head().ok_or(PeerRefusal::Message)?;
        let is_expected = self.expects(from, head, checked.is_batch_response())?;
        let account = &mut self.accounts[from.index()];
        let signatures_max = match (account.is_trusted(now), is_expected) {
            (false, _) => 0,
            (true, true) => usize::MAX,
            (true, false) if active(Mutant::GateUnlimited) => usize::MAX,
            (true, false) => usize::try_from(account.unasked.left(now)).unwrap_or(0),
        };
        let result = checker.check_proposal_within(checked, message, signatures_max);
        if !is_expected {
            account.unasked.charge(checker.effort().verified as u64);
        }
        self.count_lies(from, checker);
        Ok(result.ok_or(PeerRefusal::Message)??)
    }

    /// Whether consensus waits for batches like this one.
    fn expects(
        &self,
        from: NodeId,
        head: &ArchivedPrePrepare,
        is_batch_response: bool,
    ) -> Result<bool, BatchError> {
        let view = head.view();
        match is_batch_response {
            true => Ok(self.expectations.transfers()),
            false if (self.leaders)(view, self.quorum) != from && !active(Mutant::NotLeaderAccepted) => {
                Err(BatchError::NotLeader)
            }
            false => Ok(view == self.expectations.view()),
        }
    }

    /// Verifying together pays only where all hold: one false signature makes the whole message costly.
    fn count_lies(&mut self, from: NodeId, checker: &FrameChecker) {
        let effort = checker.effort();
        if effort.invalid > 0 && !active(Mutant::LiesUncounted) {
            self.accounts[from.index()].lies.charge(effort.verified as u64);
        }
    }
}
