//! Log transfer: decisions that a replica lacks and the others still have.
//!
//! ```text
//!  receiver ── AskDecided(after) ──► everybody
//!           ◄── Decided(first, digests) ──  f+1 equal digests for a place: that is what was decided there
//!           ── FetchDecisions(range) ──► a donor for each range
//!           ◄── batches ──                  believed by their digests alone, delivered in order
//! ```
//!
//! **Events**
//! - *It [begins](LogTransferProtocol::begin), or its timer fires while it runs:* everybody is asked what was
//!   decided after the last place known. A donor that owes batches for too long loses its range to another,
//!   and is asked again only when every other one was too slow as well; if others' batches wait for one of
//!   its, a trickle does not help it.
//! - *Decided:* kept by donor, after what it named before: it may be asked for all that it named and we lack.
//!   A place at which f+1 distinct donors name one digest is settled: one of them is correct. If f+1 had more
//!   to name than fits an answer, they are asked for it as soon as there is room, and not at the next tick.
//! - *A place is settled and a donor that named its digest has nothing to do:* it is asked for the next range
//!   of batches; while few are missing and ordering goes on, it may well get them by itself, and nobody is
//!   asked.
//! - *A batch:* taken if its digest is the settled one of its place. Another donor's digest at a settled
//!   place counts as a lie, and the donor is not asked again in this transfer.
//! - *f+1 donors have forgotten what we need, or one has and nothing came for a while:* the transfer ends
//!   [out of reach](LogTransferState::OutOfReach); the state has to be transferred. The second when a donor
//!   is gone: of the f+1 that are left one may remember and one not.
//! - *What is settled does not come:* now and then everybody is asked what was decided after the last place
//!   delivered. Who answers from further on has forgotten it meanwhile.
//! - *Nothing is settled beyond what was delivered, and nobody names more; or few are missing, and ordering
//!   goes on without them:* it ends. The ordering protocol goes on alone. A donor that has said nothing at
//!   all yet may be far away and name more: it is waited for a while longer.
//!
//! An answer repeats the question: those to earlier ones are still on their way when the next is asked, and a
//! first place that is further on than what is needed means only then that the donor has forgotten something.
//!
//! **Why one digest from f+1 is enough**, and no certificate: the digests are 32 bytes a decision, so asking
//! everybody costs little, and one correct donor among f+1 equal ones has decided this. Batches, which are
//! large, come from one donor each.
//!
//! Invariants: memory is bounded by `NAMED_MAX` digests per donor, and by [`AHEAD_MAX`] batches of about
//! [`AHEAD_BYTES_MAX`]; at most one range is under way per donor; batches are delivered in order, each once.

mod config;
mod donor;

pub use config::{LogTransferConfig, LogTransferTuning};

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::smr::messages::{DECIDED_MAX, LogTransferMessage, Proposal};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Outbox, Recipients, Timer};
use crate::smr::types::{ClusterId, Digest, Epoch, NodeId, Quorum, SeqNo, Time};
use donor::{Donor, Owed};

/// How many batches may be at hand or asked for before they are delivered.
pub const AHEAD_MAX: u64 = 256;
/// How many bytes of batches may be at hand before only the next one is taken.
pub const AHEAD_BYTES_MAX: usize = 64 << 20;
/// How many digests after the last delivered place are kept of a donor: while batches come for one answer,
/// the next one does.
const NAMED_MAX: usize = 2 * DECIDED_MAX;
/// How many batches are asked for in one message.
const RANGE: u64 = 16;
/// So few missing decisions ordering may get by itself.
const NEAR: usize = 16;
/// Ticks without progress after which they are asked for all the same.
const STUCK_TICKS: u32 = 2;
/// Ticks with progress after which so few are left to ordering.
const MOVING_TICKS: u32 = 4;
/// After so many ticks without anything new the transfer is over,
const QUIET_TICKS: u32 = 4;
/// or after so many, while a donor has said nothing at all: round trips of half a second are no reason not to
/// catch up.
const UNHEARD_TICKS: u32 = 10;
/// How often what is missing is asked for again.
const TICK: Duration = Duration::from_millis(50);
/// The same before anybody answered, at first, and then ever less often: links may just be coming up.
const FIRST_TICK: Duration = Duration::from_millis(2);
/// So often, in ticks, what nobody brings is asked for as if it were not known: it may be forgotten
/// meanwhile.
const DOUBT_TICKS: u32 = 10;

/// How far a log transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTransferState {
    /// There is none.
    Idle,
    /// Decisions come in.
    Running {
        /// The last place delivered.
        delivered: SeqNo,
        /// The last place known to be decided.
        settled: SeqNo,
    },
    /// Others have forgotten what is needed.
    OutOfReach {
        /// f+1 say so. Else somebody does, and too few others name it: one of them may be gone.
        certain: bool,
    },
}

/// A protocol that brings decisions from other replicas: a deterministic state machine (see
/// [`crate::smr::protocol`]).
pub trait LogTransferProtocol {
    /// Starts, or goes on, after this place.
    fn begin(&mut self, now: Time, decided: SeqNo, out: &mut Outbox);

    /// Ends whatever runs.
    fn end(&mut self, out: &mut Outbox);

    /// A peer says what was decided: `places` are the one after which it was asked, and the first that it
    /// names.
    fn on_decided(
        &mut self,
        now: Time,
        from: NodeId,
        places: (SeqNo, SeqNo),
        digests: &[Digest],
        out: &mut Outbox,
    );

    /// A batch arrived. Given back if this transfer has no use for it.
    fn on_batch(&mut self, now: Time, from: NodeId, batch: Proposal, out: &mut Outbox) -> Option<Proposal>;

    /// [`Timer::LogTransfer`] fired.
    fn on_timeout(&mut self, now: Time, out: &mut Outbox);

    /// The next batch in order, if it is at hand; if not, more are asked for. `decided` is what ordering has
    /// reached, perhaps on its own.
    fn deliver(&mut self, now: Time, decided: SeqNo, out: &mut Outbox) -> Option<Arc<Proposal>>;

    /// How far it is.
    fn state(&self) -> LogTransferState;
}

/// Log transfer from several donors in parallel ranges.
#[derive(Debug)]
pub struct RangedLogTransfer {
    node: NodeId,
    quorum: Quorum,
    cluster: ClusterId,
    epoch: Epoch,
    running: bool,
    /// Somebody has forgotten what is needed, and nothing came for a while.
    seems_forgotten: bool,
    donors: Vec<Donor>,
    delivered: SeqNo,
    /// By place after `delivered`: what f+1 named, without gaps.
    settled: VecDeque<Digest>,
    batches: BTreeMap<SeqNo, Arc<Proposal>>,
    batch_bytes: usize,
    /// Ticks without anything new.
    quiet: u32,
    /// What was delivered at the last tick; ticks in a row in which that changed, or did not.
    delivered_at_tick: SeqNo,
    moving: u32,
    stuck: u32,
    /// Since the last tick, ordering took batches that were brought here.
    brought: bool,
    /// The pause before the next question, as long as nobody has answered one.
    unheard: Option<Duration>,
    turn: usize,
    tuning: LogTransferTuning,
}

impl RangedLogTransfer {
    /// A transfer that is not running.
    #[must_use]
    pub fn new(node: NodeId, quorum: Quorum, cluster: ClusterId, epoch: Epoch) -> Self {
        Self {
            node,
            quorum,
            cluster,
            epoch,
            running: false,
            seems_forgotten: false,
            donors: (0..quorum.n()).map(|_| Donor::default()).collect(),
            delivered: SeqNo::ZERO,
            settled: VecDeque::new(),
            batches: BTreeMap::new(),
            batch_bytes: 0,
            quiet: 0,
            delivered_at_tick: SeqNo::ZERO,
            moving: 0,
            stuck: 0,
            brought: false,
            unheard: None,
            turn: 0,
            tuning: LogTransferTuning::default(),
        }
    }

    /// The same with other choices.
    #[must_use]
    pub fn tuned(mut self, tuning: LogTransferTuning) -> Self {
        self.tuning = tuning;
        self
    }

    fn settled_end(&self) -> SeqNo {
        self.delivered.plus(self.settled.len() as u64)
    }

    fn settled_at(&self, seq: SeqNo) -> Option<Digest> {
        let place = (seq > self.delivered).then(|| seq.since(self.delivered) - 1)?;
        self.settled.get(place as usize).copied()
    }

    /// Whether f+1 donors have forgotten what is needed next.
    fn is_forgotten(&self) -> bool {
        let forgot = |donor: &&Donor| donor.forgot(self.delivered);
        self.donors.iter().filter(forgot).count() >= self.quorum.weak()
    }

    /// Ordering has reached this place: what lies before it is of no use.
    fn advance_to(&mut self, seq: SeqNo) {
        let passed = seq.since(self.delivered) as usize;
        if seq <= self.delivered {
            return;
        }
        self.settled.drain(..passed.min(self.settled.len()));
        self.delivered = seq;
        // It was about what lies before.
        self.seems_forgotten = false;
        let rest = self.batches.split_off(&seq.next());
        for passed in std::mem::replace(&mut self.batches, rest).values() {
            self.batch_bytes -= passed.kept_bytes();
            self.brought = true;
        }
        for donor in &mut self.donors {
            let passed = seq.next().since(donor.first) as usize;
            if seq >= donor.first {
                donor.digests.drain(..passed.min(donor.digests.len()));
                donor.first = seq.next();
            }
        }
    }

    fn settle(&mut self) {
        let weak = match active(Mutant::LogTailFromOne) {
            true => 1,
            false => self.quorum.weak(),
        };
        loop {
            let next = self.settled_end().next();
            let named = || self.donors.iter().filter_map(|donor| donor.digest(next));
            let agreed = named().find(|digest| named().filter(|other| other == digest).count() >= weak);
            let Some(digest) = agreed.copied() else { break };
            for donor in &mut self.donors {
                if donor.digest(next).is_some_and(|other| *other != digest) {
                    donor.banned = true;
                }
            }
            self.settled.push_back(digest);
            self.quiet = 0;
        }
    }

    fn ask(&mut self, out: &mut Outbox) {
        if self.settled.len() > NAMED_MAX - DECIDED_MAX {
            // There is no room for the answers.
            return;
        }
        self.donors.iter_mut().for_each(|donor| donor.has_more = false);
        let doubts = !self.settled.is_empty() && self.stuck % DOUBT_TICKS == DOUBT_TICKS - 1;
        let after = match doubts {
            true => self.delivered.get(),
            false => self.settled_end().get(),
        };
        let message = LogTransferMessage::AskDecided { after };
        out.send(Recipients::Others, message.encode(self.cluster, self.epoch));
    }

    /// Asks for what did not fit the last answers, if there was such.
    fn ask_on(&mut self, out: &mut Outbox) {
        let full = self.donors.iter().filter(|donor| donor.has_more).count();
        if full >= self.quorum.weak() {
            self.ask(out);
        }
    }

    /// Gives idle donors ranges of settled places whose batches nobody is to send.
    fn fetch(&mut self, now: Time, out: &mut Outbox) {
        if self.settled.len() <= NEAR && self.stuck < STUCK_TICKS {
            return;
        }
        let delivered = self.delivered;
        let usable = |donor: &&Donor| donor.is_usable(delivered);
        if self.donors.iter().filter(usable).all(|donor| donor.is_slow) {
            self.donors.iter_mut().for_each(|donor| donor.is_slow = false);
        }
        let ahead_max = if self.batch_bytes > AHEAD_BYTES_MAX {
            1
        } else {
            AHEAD_MAX
        };
        let end = self.settled_end().min(self.delivered.plus(ahead_max));
        let mut next = self.delivered.next();
        for _ in 0..self.donors.len() {
            self.turn = (self.turn + 1) % self.donors.len();
            while next <= end && !self.is_free(next) {
                next = next.next();
            }
            if next > end {
                return;
            }
            let donor = &self.donors[self.turn];
            let is_idle = donor.is_usable(delivered) && !donor.is_slow && donor.owes.is_none();
            let named = |seq: SeqNo| donor.digest(seq).copied() == self.settled_at(seq);
            if !is_idle || !named(next) {
                continue;
            }
            let mut last = next;
            while last < end
                && last.since(next) + 1 < RANGE
                && self.is_free(last.next())
                && named(last.next())
            {
                last = last.next();
            }
            let message = LogTransferMessage::FetchDecisions {
                first: next.get(),
                count: (last.since(next) + 1) as u32,
            };
            let to = Recipients::One(NodeId::new(self.turn as u16));
            out.send(to, message.encode(self.cluster, self.epoch));
            self.donors[self.turn].owes = Some(Owed {
                first: next,
                last,
                asked: now,
                until: now.after(self.tuning.patience),
            });
            next = last.next();
        }
    }

    /// Whether the batch is neither at hand nor on its way.
    fn is_free(&self, seq: SeqNo) -> bool {
        let mut owed = self.donors.iter().filter_map(|donor| donor.owes);
        !self.batches.contains_key(&seq) && !owed.any(|owed| owed.has(seq))
    }

    /// Takes their ranges from donors that are too slow.
    fn end_patience(&mut self, now: Time) {
        let patience = self.tuning.patience;
        let (head, others_wait) = (self.delivered.next(), !self.batches.is_empty());
        for donor in &mut self.donors {
            let is_late = |owed: &Owed| {
                let holds_up = others_wait && owed.has(head) && owed.asked.after(patience) <= now;
                owed.until <= now || holds_up
            };
            // What was decided meanwhile it need not send any more.
            donor.owes = donor.owes.filter(|owed| owed.last >= head);
            if donor.owes.is_some_and(|owed| is_late(&owed)) {
                donor.owes = None;
                donor.is_slow = true;
            }
        }
    }

    /// Notes whether decisions went on since the last tick.
    fn observe(&mut self) {
        match self.delivered == self.delivered_at_tick {
            true => (self.moving, self.stuck) = (0, self.stuck + 1),
            false => (self.moving, self.stuck) = (self.moving + 1, 0),
        }
        if self.settled.len() > NEAR || std::mem::take(&mut self.brought) {
            // It does not go on by itself.
            self.moving = 0;
        }
        self.delivered_at_tick = self.delivered;
        self.quiet += 1;
    }

    /// Whether there is nothing more: some rounds of questions and answers brought nothing new, or ordering
    /// goes on by itself.
    fn is_over(&self) -> bool {
        let mut others = self.donors.iter().enumerate();
        let all_heard = others.all(|(index, donor)| donor.is_heard || index == self.node.index());
        let quiet_max = if all_heard { QUIET_TICKS } else { UNHEARD_TICKS };
        (self.settled.is_empty() && self.quiet >= quiet_max) || self.moving >= MOVING_TICKS
    }
}

impl LogTransferProtocol for RangedLogTransfer {
    fn begin(&mut self, now: Time, decided: SeqNo, out: &mut Outbox) {
        if !self.running {
            self.donors.iter_mut().for_each(|donor| *donor = Donor::default());
            self.settled.clear();
            self.batches.clear();
            self.batch_bytes = 0;
            self.delivered = decided;
            self.delivered_at_tick = decided;
            self.seems_forgotten = false;
            self.running = true;
            (self.quiet, self.moving, self.stuck, self.brought) = (0, 0, 0, false);
            self.unheard = Some(FIRST_TICK);
        }
        self.advance_to(decided);
        self.ask(out);
        out.set_timer(Timer::LogTransfer, now.after(self.unheard.unwrap_or(TICK)));
    }

    fn end(&mut self, out: &mut Outbox) {
        self.running = false;
        self.seems_forgotten = false;
        self.batches.clear();
        self.batch_bytes = 0;
        self.settled.clear();
        out.push(crate::smr::protocol::Effect::CancelTimer(Timer::LogTransfer));
    }

    fn on_decided(
        &mut self,
        now: Time,
        from: NodeId,
        (after, first): (SeqNo, SeqNo),
        digests: &[Digest],
        out: &mut Outbox,
    ) {
        if !self.running || from == self.node {
            return;
        }
        let delivered = self.delivered;
        self.unheard = None;
        let Some(donor) = self.donors.get_mut(from.index()) else {
            return;
        };
        donor.is_heard = true;
        if first > after.next() {
            donor.floor = donor.floor.max(first.minus(1));
        }
        if !donor.forgot(delivered) {
            donor.has_more = digests.len() >= DECIDED_MAX;
            donor.name(delivered, first, digests);
        }
        if self.is_forgotten() {
            return;
        }
        self.settle();
        self.ask_on(out);
        self.fetch(now, out);
    }

    fn on_batch(&mut self, now: Time, from: NodeId, batch: Proposal, out: &mut Outbox) -> Option<Proposal> {
        let seq = batch.seq;
        let settled = self.settled_at(seq);
        let is_settled = settled == Some(batch.batch.digest);
        let is_wanted =
            self.running && (is_settled || (settled.is_some() && active(Mutant::LogBatchUnchecked)));
        let has_room = self.batch_bytes <= AHEAD_BYTES_MAX || seq == self.delivered.next();
        let is_ahead = seq > self.delivered.plus(AHEAD_MAX);
        if !is_wanted || !has_room || is_ahead || self.batches.contains_key(&seq) {
            return Some(batch);
        }
        self.quiet = 0;
        // Settled by digest: f+1 replicas vouch for its clients.
        let batch = Proposal {
            authentic: true,
            ..batch
        };
        self.batch_bytes += batch.kept_bytes();
        self.batches.insert(seq, Arc::new(batch));
        if let Some(donor) = self.donors.get_mut(from.index())
            && let Some(owed) = donor.owes.filter(|owed| owed.has(seq))
        {
            donor.owes = (seq < owed.last).then(|| Owed {
                first: seq.next(),
                until: now.after(self.tuning.patience),
                ..owed
            });
            if donor.owes.is_none() {
                self.fetch(now, out);
            }
        }
        None
    }

    fn on_timeout(&mut self, now: Time, out: &mut Outbox) {
        if !self.running {
            return;
        }
        if let Some(pause) = self.unheard.map(|pause| 2 * pause).filter(|pause| *pause < TICK) {
            self.unheard = Some(pause);
            self.ask(out);
            out.set_timer(Timer::LogTransfer, now.after(pause));
            return;
        }
        self.observe();
        if self.is_over() {
            if self.moving == 0 && self.donors.iter().any(|donor| donor.forgot(self.delivered)) {
                self.seems_forgotten = true;
                return;
            }
            return self.end(out);
        }
        self.end_patience(now);
        self.ask(out);
        self.fetch(now, out);
        out.set_timer(Timer::LogTransfer, now.after(TICK));
    }

    fn deliver(&mut self, now: Time, decided: SeqNo, out: &mut Outbox) -> Option<Arc<Proposal>> {
        if !self.running {
            return None;
        }
        let has_moved = decided > self.delivered;
        self.advance_to(decided);
        let next = self.batches.get(&decided.next()).cloned();
        if has_moved && next.is_none() {
            self.ask_on(out);
            self.fetch(now, out);
        }
        next
    }

    fn state(&self) -> LogTransferState {
        // Asked in every turn, and idle in nearly all.
        if !self.running {
            return LogTransferState::Idle;
        }
        let certain = self.is_forgotten();
        if certain || self.seems_forgotten {
            return LogTransferState::OutOfReach { certain };
        }
        LogTransferState::Running {
            delivered: self.delivered,
            settled: self.settled_end(),
        }
    }
}

#[cfg(test)]
mod tests;
