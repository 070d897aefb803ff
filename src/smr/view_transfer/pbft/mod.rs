//! PBFT's view change (Castro & Liskov, TOCS 2002, §4.4 and §4.5), with signatures in the place of
//! acknowledgements.
//!
//! ```text
//!                 suspects                                       view v+1 begins
//!  leader of v  ──✗
//!  leader of v+1    ──VIEW-CHANGE──►  q of them: chooses ──NEW-VIEW──►●──► pre-prepared
//!  backup           ──VIEW-CHANGE──►                          checks ●──prepare──► commit ──►
//!  backup           ──VIEW-CHANGE──►                          checks ●──prepare──► commit ──►
//! ```
//!
//! **Events** (n replicas, f = ⌊(n−1)/3⌋, quorum q = ⌈(n+f+1)/2⌉):
//! - *A request waits, and nothing was executed for half a timeout:* what is pending is shared with
//!   everybody, once. A request that reached one replica alone, whose leader lost it, would else make that
//!   one complain on its own. Clients that proved it with MACs are asked for signatures.
//! - *A request waits for a review period or longer:* the same, for that one and to the leader; once in each
//!   period.
//! - *A request waits that is signed, nothing was executed for a timeout, and there is nothing to execute:*
//!   the leader is suspected; complain for view v+1. Which request waits, and why no client alone can have a
//!   leader suspected, stands with [`RequestPool`](crate::smr::preprocessing::RequestPool).
//! - *The leader is slow or unfair by [`Timer::LeaderReview`]:* complain for view v+1.
//! - *COMPLAINT or VIEW-CHANGE of f+1 others for views above ours:* complain for view v+1 as well.
//! - *COMPLAINT or VIEW-CHANGE of q for view w or later, ourselves included:* leave for w. So nobody leaves a
//!   view alone: see `complaints`.
//! - *Leaving for view w:* ordering leaves its view and hands out h with its proof, P and Q. Log the view,
//!   then send VIEW-CHANGE ⟨w, h, proof, P, Q⟩ signed. No vote for a view before w is cast any more.
//! - *Valid VIEW-CHANGE of f+1 others for views above ours:* one of them is correct; leave for the highest
//!   view that f+1 of them have reached, even if no timer fired.
//! - *Valid VIEW-CHANGE of q for our view or above, the view not begun:* start [`Timer::ViewChange`]; when it
//!   fires, complain for the next view. Every view that is left without progress, or whose waits came near
//!   the timeout, doubles it, up to a cap; waits that end well let it fade: see `ProgressTimeout`.
//! - *Valid VIEW-CHANGE of q for w, at the leader of w, and the choice below settles every place:* log them,
//!   then log and send NEW-VIEW ⟨w, signer and digest of each⟩ signed; view w begins.
//! - *Valid NEW-VIEW for our view or above, all of its VIEW-CHANGEs here:* make the same choice; if it
//!   settles every place, log them and it, and begin view w.
//! - *Valid NEW-VIEW of which VIEW-CHANGEs are missing:* keep it, the last of each sender, and ask its sender
//!   for them by their digests. *A VIEW-CHANGE that is asked for, from whomever:* keep it beside the latest
//!   of its signer; when it was the last, begin the view.
//! - *A peer asks for VIEW-CHANGEs of the NEW-VIEW that we entered by:* send them.
//! - *[`Timer::Status`]:* send STATUS; ask the next sender of a NEW-VIEW that waits. *STATUS of a peer that
//!   lacks our VIEW-CHANGE, or the NEW-VIEW we entered by:* send it.
//!
//! **The choice** of the batch for place n, from a set S of view changes (§4.5, figure 3). It starts after
//! the latest stable checkpoint in S (min-s) and ends with the last place in any P (max-s).
//! - *A:* there is ⟨n, d, v⟩ in some P such that
//!   - *A1:* q messages of S have h < n, and whatever they have in P for n was prepared before v, or in v
//!     with digest d;
//!   - *A2:* f+1 messages of S have ⟨n, d, v'⟩ with v' ≥ v in Q.
//!
//!   Then d is chosen.
//! - *B:* q messages of S have h < n and nothing in P for n. Then the null request is chosen.
//! - Neither: S is too small; the leader waits for another view change.
//!
//! **Why a committed batch survives.** Let d be committed at n in view v: q replicas prepared it, so f+1
//! correct ones have ⟨n, d, ≥v⟩ in P until a checkpoint after n is stable. Any q messages include one of
//! those. B fails by it. A1 for another digest fails by it unless that digest was prepared in a later view;
//! but then by A2 a correct replica accepted that digest in a view after v, whose beginning chose d: by
//! induction no such digest exists.
//!
//! **Why the choice is settled in the end.** With the view changes of all n − f ≥ q correct replicas: take
//! the entry of their P for n with the latest view. A1 holds by them all; it was prepared, so q − f ≥ f+1
//! correct replicas accepted it, and A2 holds: the leader, too, has in Q what its NEW-VIEW chose, from the
//! moment it is logged, with or without the batch. Without such an entry, B holds.
//!
//! **Deviations from the paper, and why.**
//! - VIEW-CHANGE and NEW-VIEW are signed, and a NEW-VIEW names its VIEW-CHANGEs by their digests: no
//!   acknowledgements are needed, anybody can pass both on, and the choice is computed by all instead of
//!   being said. The paper's backups keep the VIEW-CHANGEs that a NEW-VIEW names until they are acknowledged;
//!   here one that lacks some asks for them. The leader has them, and so has every correct replica that
//!   entered: each logs them before the NEW-VIEW, and keeps them for others as long as it is in the view.
//! - A signer may send different VIEW-CHANGEs for one view: a liar, or a replica that was started again in
//!   between. The one that is named counts, whichever came first here: the choice is a function of what the
//!   NEW-VIEW names.
//! - Checkpoints in VIEW-CHANGE carry the signatures that make them stable: one message is enough to start
//!   from the latest (the paper asks for f+1 messages that have it).
//! - The leader may announce a choice whose frames it lacks: A2 says that a correct replica has them;
//!   ordering fetches them.
//! - A view is left when a quorum complains, not when one timer fires: a replica that was cut off for a
//!   while, or whose own disk stood still, comes back to the view that the others are in.
//! - A replica joins the highest view that f+1 others have reached, not the lowest above its own: it climbs
//!   in one step.
//! - The progress timer counts from the last execution, not from the arrival of each request, and what proved
//!   necessary is not forgotten with the next execution: see `ProgressTimeout`.
//!
//! **What is kept**, whatever arrives: one view change per replica (the latest), and one more that a new view
//! names; those that we entered by; and a new view per replica, which has no view changes in it.

mod choice;
mod complaints;
mod config;
mod leader_monitor;
mod new_view;
mod progress_timeout;
mod proofs;

pub use config::{ViewTimings, ViewTransferConfig};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{ViewTransferProtocol, Waiting};
use crate::smr::messages::archived::ArchivedViewTransferMessage;
use crate::smr::messages::{
    NamedViewChange, NewView, Status, SyncMessage, ViewChange, ViewEvidence, ViewStart, ViewTransferMessage,
};
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{
    Effect, OrderingProgress, Outbox, OwnRecord, PartContext, Persisted, Recipients, Record, Rejected,
    Rejection, RestoreError, Timer,
};
use crate::smr::types::{ClusterId, NodeId, REPLICAS_MAX, SeqNo, Time, View};
use complaints::Complaints;
use leader_monitor::LeaderMonitor;
use new_view::{Awaited, Held};
use progress_timeout::ProgressTimeout;
use proofs::Proofs;

/// A peer's status, and its question for view changes, is answered at most once in this time.
const ANSWER_PAUSE: Duration = Duration::from_millis(100);

/// What a peer asks for, each with pauses of its own.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Status,
    ViewChanges,
}

/// A view change as it was sent, and what it waits for.
#[derive(Debug)]
struct Sent {
    message: Bytes,
    promise: Persisted,
}

/// What a view was entered by, for those that lag behind, and for the log.
#[derive(Debug)]
struct Entered {
    new_view: Sent,
    /// Those that it names.
    view_changes: Vec<Arc<Held>>,
}

/// The state of one replica.
#[derive(Debug)]
pub struct PbftViewChange {
    proofs: Proofs,
    cluster: ClusterId,
    status_period: Duration,
    view: View,
    active: bool,
    patience: ProgressTimeout,
    review: LeaderMonitor,
    complaints: Complaints,
    /// By replica: its latest valid view change for a view that has not begun here, our own included.
    view_changes: Vec<Option<Arc<Held>>>,
    /// New views of which view changes are missing.
    awaited: Awaited,
    /// Our own view change, while the view has not begun.
    own: Option<Sent>,
    /// What we entered the view by that has begun.
    entered: Option<Entered>,
    /// While the log is read back: view changes whose new view follows.
    read: Vec<Arc<Held>>,
    /// By peer: when its status was answered, and its question for view changes.
    answered: Vec<[Option<Time>; 2]>,
    /// Whether the view-change timer runs for the current view.
    timer_runs: bool,
    /// What the views begin with that ordering was not told of yet.
    starts: VecDeque<ViewStart>,
}

/// Whether something is told for the first time, or repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    First,
    Again,
}

impl PbftViewChange {
    /// A replica at the beginning of time, in view zero.
    #[must_use]
    pub fn new(context: &PartContext, timings: ViewTimings) -> Self {
        let n = context.quorum.n();
        Self {
            proofs: Proofs {
                node: context.node,
                quorum: context.quorum,
                epoch: context.epoch,
                base: context.base,
                window: context.window,
                digester: context.digester.clone(),
                signing: context.signing.clone(),
                verifying: context.verifying.clone(),
            },
            cluster: context.cluster,
            status_period: timings.status_period,
            view: View::ZERO,
            active: true,
            patience: ProgressTimeout::new(timings.timeout, timings.timeout_max),
            review: LeaderMonitor::new(timings.review_period, timings.fairness),
            complaints: Complaints::new(n),
            view_changes: vec![None; n],
            awaited: Awaited::new(n),
            own: None,
            entered: None,
            read: Vec::new(),
            answered: vec![[None; 2]; n],
            timer_runs: false,
            starts: VecDeque::new(),
        }
    }

    /// Whether a peer's question is answered now: a faulty one must not make us its amplifier.
    fn may_answer(&mut self, now: Time, from: NodeId, asked: Asked) -> bool {
        let Some(answered) = self.answered.get_mut(from.index()) else {
            return false;
        };
        let last = &mut answered[asked as usize];
        let may = last.is_none_or(|last| now.since(last) >= ANSWER_PAUSE);
        if may {
            *last = Some(now);
        }
        may
    }

    fn n(&self) -> usize {
        self.proofs.quorum.n()
    }

    /// Says for which view we complain, if that is news, and leaves ours if a quorum wants a later one. What
    /// does not hold any more is withdrawn when a status is due, and counts until then. A cluster of one has
    /// nobody to change to.
    fn reconsider(&mut self, out: &mut Outbox) {
        if self.n() == 1 {
            return;
        }
        let (node, quorum) = (self.proofs.node, self.proofs.quorum);
        let asked = self.asked();
        let reason = self.reason(&asked);
        if active(Mutant::WithdrawnAtOnce) && reason.is_none() && self.complaints.said > View::ZERO {
            self.complaints.said = View::ZERO;
            self.complain(Said::First, out);
        }
        if let Some(view) = reason.filter(|view| *view != self.complaints.said) {
            self.complaints.said = view;
            self.complain(Said::First, out);
        }
        let ours = Some(self.complaints.said).filter(|said| *said > View::ZERO);
        let alone = ours.filter(|_| active(Mutant::LeavesAlone));
        let left_for = self.complaints.left_for(node, self.view, (quorum, ours), &asked);
        if let Some(view) = alone.or(left_for) {
            out.push(Effect::LeaveView(view));
        }
    }

    /// The view that there is a reason to complain for now.
    fn reason(&self, asked: &[View]) -> Option<View> {
        let (node, quorum) = (self.proofs.node, self.proofs.quorum);
        self.complaints.ours(node, self.view, quorum, asked)
    }

    /// By replica: the latest view of which a valid VIEW-CHANGE is here.
    fn asked(&self) -> Vec<View> {
        let asked = |held: &Option<Arc<Held>>| held.as_ref().map_or(View::ZERO, |held| held.view());
        self.view_changes.iter().map(asked).collect()
    }

    /// Tells everybody for which view we complain: one more than ours, which has to be on disk first. While the disk
    /// does not get there, what is told again is not kept for it.
    fn complain(&self, said: Said, out: &mut Outbox) {
        let message = ViewTransferMessage::Complaint(self.complaints.said.get());
        let message = message.encode(self.cluster, self.proofs.epoch);
        let entered = self.entered.as_ref().map(|entered| &entered.new_view);
        match self.own.as_ref().or(entered) {
            Some(sent) if said == Said::Again => out.send_again(Recipients::Others, message, sent.promise),
            Some(sent) => out.send_promise(Recipients::Others, message, sent.promise),
            None => out.send(Recipients::Others, message),
        }
    }

    /// (Re)starts the progress timer if a request waits and it does not run.
    fn watch(&mut self, now: Time, out: &mut Outbox) {
        let blind = active(Mutant::ProgressTimerSkipped) || self.complaints.is_stalled();
        if blind || self.patience.armed || !self.active || self.n() == 1 {
            return;
        }
        if let Some(next) = self.patience.next() {
            self.patience.armed = true;
            out.push(Effect::SetTimer {
                timer: Timer::Progress,
                at: next.max(now),
            });
        }
    }

    fn on_progress_timer(&mut self, now: Time, out: &mut Outbox) {
        self.patience.armed = false;
        if self.active && self.n() > 1 && self.patience.begins_to_share(now) {
            out.push(Effect::BroadcastPending);
        }
        match self.patience.deadline() {
            Some(deadline) if self.active && deadline <= now => {
                self.complaints.on_stalled();
                self.reconsider(out);
            }
            _ => self.watch(now, out),
        }
    }

    fn try_view_change(
        &mut self,
        now: Time,
        from: NodeId,
        message: ViewChange,
        out: &mut Outbox,
    ) -> Result<(), Rejection> {
        let (view, signer) = (message.view(), message.signer());
        if from == self.proofs.node || from.index() >= self.n() || signer.index() >= self.n() {
            return Err(Rejection::BadSignature);
        }
        let held = self.proofs.held(message);
        let is_awaited = self.is_awaited(&held);
        let latest = self.view_changes[signer.index()].as_ref();
        let unwanted = match () {
            // Nobody asked for it, or not any more.
            () if signer != from => Some(Rejection::Duplicate),
            () if view < self.view || (view == self.view && self.active) => Some(Rejection::OldView),
            () if latest.is_some_and(|latest| latest.view() >= view) => Some(Rejection::Duplicate),
            () => None,
        };
        if let (Some(reason), false) = (unwanted, is_awaited) {
            return Err(reason);
        }
        self.proofs.check_view_change(&held.message)?;
        let held = Arc::new(held);
        match unwanted {
            None => self.view_changes[signer.index()] = Some(held),
            Some(_) => self.keep_awaited(held),
        }
        if !self.enter_awaited(now, out) {
            self.go_on(now, out);
        }
        Ok(())
    }

    /// Takes every step the view changes at hand allow.
    fn go_on(&mut self, now: Time, out: &mut Outbox) {
        if let Some(view) = self.reached_by_weak_quorum()
            && view > self.view
        {
            return out.push(Effect::LeaveView(view));
        }
        self.reconsider(out);
        if self.active {
            return;
        }
        let asking = self
            .view_changes
            .iter()
            .flatten()
            .filter(|m| m.view() >= self.view);
        if !self.timer_runs && asking.count() >= self.proofs.quorum.quorum() {
            self.timer_runs = true;
            out.push(Effect::SetTimer {
                timer: Timer::ViewChange,
                at: now.after(self.patience.timeout()),
            });
        }
        if self.view.turn(self.n()) == self.proofs.node {
            self.try_begin(now, out);
        }
    }

    /// The highest view that f+1 other replicas have asked for, or passed.
    fn reached_by_weak_quorum(&self) -> Option<View> {
        let node = self.proofs.node.index();
        let said = |(asked, reached): (View, &View)| match active(Mutant::ViewsWalked) {
            true => asked,
            false => asked.max(*reached),
        };
        let reached = self.asked().into_iter().zip(self.complaints.reached()).map(said);
        let others = reached.enumerate().filter(|(index, _)| *index != node);
        let mut views: Vec<View> = others.map(|(_, view)| view).collect();
        views.sort_unstable_by(|a, b| b.cmp(a));
        let fewer = usize::from(active(Mutant::ViewJoinedByTooFew) && self.proofs.quorum.weak() > 1);
        views.get(self.proofs.quorum.weak() - 1 - fewer).copied()
    }

    fn begin(&mut self, now: Time, start: ViewStart, entered: Entered, out: &mut Outbox) {
        if start.view > self.view {
            // The others left for it: for this one the last view was as short.
            self.patience.try_view();
        }
        self.view = start.view;
        self.active = true;
        self.own = None;
        self.entered = Some(entered);
        self.awaited.prune(|view| view > start.view);
        for held in &mut self.view_changes {
            held.take_if(|held| held.view() <= start.view);
        }
        self.timer_runs = false;
        self.complaints.on_view_changed();
        out.push(Effect::CancelTimer(Timer::ViewChange));
        self.patience.on_entered(now);
        self.review.on_entered(now);
        out.push(Effect::EnterView(start.view));
        self.starts.push_back(start);
        self.watch(now, out);
    }

    fn reject(from: NodeId, view: View, result: Result<(), Rejection>, out: &mut Outbox) {
        if let Err(reason) = result {
            out.push(Effect::Rejected(Rejected {
                from,
                view,
                seq: SeqNo::ZERO,
                reason,
            }));
        }
    }
}

/// Its messages, out of their archives.
impl PbftViewChange {
    /// A view change arrived, from its signer or passed on.
    fn on_view_change(&mut self, now: Time, from: NodeId, view_change: ViewChange, out: &mut Outbox) {
        let view = view_change.view();
        let result = self.try_view_change(now, from, view_change, out);
        Self::reject(from, view, result, out);
    }

    /// Another replica complains: it wants `view`, or nothing any more ([`View::ZERO`]).
    fn on_complaint(&mut self, from: NodeId, view: View, out: &mut Outbox) {
        self.complaints.on_complaint(from, view);
        match self.reached_by_weak_quorum() {
            Some(reached) if reached > self.view => out.push(Effect::LeaveView(reached)),
            _ => self.reconsider(out),
        }
    }

    /// A new view arrived, from its leader or passed on.
    fn on_new_view(&mut self, now: Time, from: NodeId, new_view: NewView, out: &mut Outbox) {
        let view = new_view.view();
        let result = self.try_new_view(now, from, new_view, out);
        Self::reject(from, view, result, out);
    }

    /// A peer asks for view changes that a new view names.
    fn on_fetch(&mut self, now: Time, from: NodeId, wanted: &[NamedViewChange], out: &mut Outbox) {
        if self.may_answer(now, from, Asked::ViewChanges) {
            self.pass_view_changes(from, wanted, out);
        }
    }
}

impl ViewTransferProtocol for PbftViewChange {
    type Message = ViewTransferMessage;
    type Evidence = ViewEvidence;
    type Start = ViewStart;

    fn signatures(message: &ArchivedViewTransferMessage) -> usize {
        match message {
            ArchivedViewTransferMessage::ViewChange(view_change) => 1 + view_change.stable_proof.len(),
            ArchivedViewTransferMessage::NewView(_) => 1,
            ArchivedViewTransferMessage::Complaint(_) | ArchivedViewTransferMessage::FetchViewChanges(_) => 0,
        }
    }

    fn is_question(message: &ArchivedViewTransferMessage) -> bool {
        matches!(message, ArchivedViewTransferMessage::FetchViewChanges(_))
    }

    fn describe(contents: &[u8]) -> Option<OwnRecord> {
        new_view::describe(contents)
    }

    fn view(&self) -> View {
        self.view
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn on_pending_changed(&mut self, now: Time, waiting: Waiting, out: &mut Outbox) {
        self.patience.set_waiting(waiting);
        if waiting.proven.is_none() && self.active {
            self.complaints.on_progress();
        }
        if waiting.oldest.is_some() {
            self.watch(now, out);
        }
    }

    fn on_executing(&mut self, now: Time) {
        self.patience.on_executing(now, self.active);
        self.review.on_executing();
        if self.active {
            self.complaints.on_progress();
        }
    }

    fn on_executed(&mut self, now: Time, operations: usize) {
        // Null requests and repeated frames are no progress: a faulty leader can make them at will.
        if operations > 0 {
            self.review.on_executed(operations);
            self.patience.on_progress(now, self.active);
            if self.active {
                self.complaints.on_progress();
            }
        }
    }

    fn on_timeout(&mut self, now: Time, timer: Timer, out: &mut Outbox) {
        match timer {
            Timer::Progress => self.on_progress_timer(now, out),
            Timer::ViewChange => {
                if !self.active && !active(Mutant::ViewTimerSkipped) {
                    self.complaints.on_stalled();
                    self.reconsider(out);
                }
            }
            Timer::LeaderReview => {
                if self.n() == 1 {
                    return;
                }
                out.push(Effect::SetTimer {
                    timer: Timer::LeaderReview,
                    at: now.after(self.review.period()),
                });
                if self.active && self.patience.oldest_age(now) >= self.review.period() {
                    out.push(Effect::UrgePending(self.review.period()));
                }
                let waiting = self.patience.proven_age(now);
                let leads = self.view.turn(self.n()) == self.proofs.node;
                if !self.active {
                    return;
                }
                self.patience.end_period();
                let (view, node) = (self.view, self.proofs.node);
                let others = self.view_changes.iter();
                let waits = others.map(|held| {
                    held.as_ref()
                        .is_some_and(|m| m.view() > view && m.message.signer() != node)
                });
                self.complaints.end_period(now, waits);
                if self.review.end_period(now, waiting, self.patience.learnt()) && !leads {
                    self.complaints.on_bad_review();
                }
                self.reconsider(out);
            }
            Timer::Status | Timer::LogTransfer | Timer::StateTransfer | Timer::Donor | Timer::Repair => {}
        }
    }

    fn on_status_due(&mut self, now: Time, standing: OrderingProgress, out: &mut Outbox) {
        if self.n() == 1 {
            return;
        }
        out.push(Effect::SetTimer {
            timer: Timer::Status,
            at: now.after(self.status_period),
        });
        self.reconsider(out);
        if self.complaints.said > View::ZERO {
            let reason = self.reason(&self.asked());
            self.complaints.said = reason.unwrap_or(View::ZERO);
            // The status says it as well.
            self.complain(Said::Again, out);
        }
        let latest = |held: &Option<Arc<Held>>| held.as_ref().map_or(0, |held| held.message.view);
        let status = Status {
            view: self.view.get(),
            active: self.active,
            stable: standing.stable.get(),
            decided: standing.decided.get(),
            view_changes: self.view_changes.iter().map(latest).collect(),
            asks: standing.asks,
            slots: standing.slots,
            disputed: standing.disputed.iter().map(|client| client.get()).collect(),
            complaint: self.complaints.said.get(),
        };
        let message = SyncMessage::Status(status).encode(self.cluster, self.proofs.epoch);
        out.send(Recipients::Others, message);
        self.fetch_awaited(now, out);
    }

    fn on_view_left(&mut self, now: Time, view: View, evidence: ViewEvidence, out: &mut Outbox) {
        self.view = view;
        self.active = false;
        self.patience.try_view();
        self.complaints.on_view_changed();
        let promise = out.persist(Record::View(view));
        let view_change = self.proofs.sign_view_change(view, evidence);
        let message =
            ViewTransferMessage::ViewChange(view_change.clone()).encode(self.cluster, self.proofs.epoch);
        let held = self.proofs.held(view_change);
        self.view_changes[self.proofs.node.index()] = Some(Arc::new(held));
        out.send_promise(Recipients::Others, message.clone(), promise);
        self.own = Some(Sent { message, promise });
        self.entered = None;
        self.awaited.prune(|awaited| awaited >= view);
        self.read = Vec::new();
        if std::mem::take(&mut self.timer_runs) {
            out.push(Effect::CancelTimer(Timer::ViewChange));
        }
        self.go_on(now, out);
    }

    fn restore(&mut self, record: &Record) -> Result<Option<ViewStart>, RestoreError> {
        match record {
            Record::ViewTransfer(message) => return self.read_own(message),
            Record::View(view) if *view > self.view && !active(Mutant::ViewRecordForgotten) => {
                self.view = *view;
                self.active = false;
                self.entered = None;
            }
            _ => {}
        }
        Ok(None)
    }

    fn base_records(&self) -> Vec<Record> {
        match (self.view, self.active) {
            (View::ZERO, _) => Vec::new(),
            (_, false) => vec![Record::View(self.view)],
            (_, true) => self.entry_records(),
        }
    }

    fn on_message(
        &mut self,
        now: Time,
        from: NodeId,
        message: &ArchivedViewTransferMessage,
        out: &mut Outbox,
    ) {
        match message {
            ArchivedViewTransferMessage::ViewChange(view_change) => {
                self.on_view_change(now, from, view_change.to_view_change(), out);
            }
            ArchivedViewTransferMessage::NewView(new_view) => {
                self.on_new_view(now, from, new_view.to_new_view(), out);
            }
            ArchivedViewTransferMessage::Complaint(view) => {
                self.on_complaint(from, View::new(view.to_native()), out);
            }
            ArchivedViewTransferMessage::FetchViewChanges(wanted) => {
                let wanted = wanted.iter().take(REPLICAS_MAX).map(|named| named.to_named());
                self.on_fetch(now, from, &wanted.collect::<Vec<_>>(), out);
            }
        }
    }

    fn take_start(&mut self) -> Option<ViewStart> {
        self.starts.pop_front()
    }

    fn on_status(&mut self, now: Time, from: NodeId, status: &Status, out: &mut Outbox) {
        self.complaints.on_status(from, View::new(status.complaint));
        let theirs = View::new(status.view);
        let is_there = theirs > self.view || (theirs == self.view && status.active);
        let has_ours = status
            .view_changes
            .get(self.proofs.node.index())
            .is_some_and(|held| *held >= self.view.get());
        let lacking = match (&self.own, &self.entered) {
            (Some(own), _) if !self.active && !has_ours && !active(Mutant::ViewChangeUnsent) => own,
            (_, Some(entered)) if self.active => &entered.new_view,
            _ => return,
        };
        let (message, promise) = (lacking.message.clone(), lacking.promise);
        if !is_there && self.may_answer(now, from, Asked::Status) {
            out.send_again(Recipients::One(from), message, promise);
        }
    }
}

#[cfg(test)]
mod tests;
