//! What the protocols' effects become: actions at once, or once the disk is there, and what one protocol asks
//! of another.

use std::sync::Arc;

use super::promises::Held;
use super::voting_suspension::VotingSuspension;
use super::{Action, Replica, Stack};
use crate::smr::decision_log::DecisionLog;
use crate::smr::log_transfer::{LogTransferProtocol, LogTransferState};
use crate::smr::messages::Proposal;
use crate::smr::mutants::{Mutant, active};
use crate::smr::ordering::OrderingProtocol;
use crate::smr::protocol::{Effect, Outbox, Record, SnapshotTask, When};
use crate::smr::types::{SeqNo, Time, View};

/// What protocols asked of others in a round of effects.
#[derive(Default)]
struct Asked {
    became_stable: bool,
    /// Where our state is another one than the quorum's.
    diverged: Option<SeqNo>,
    fell_behind: bool,
    /// In the order of asking.
    views: Vec<ViewStep>,
}

/// A view is left, or begins.
enum ViewStep {
    Leave(View),
    Enter(View),
}

impl<S: Stack> Replica<S> {
    /// Turns the protocols' effects into actions, holding back what waits for the disk. What one protocol
    /// asks of another is done afterwards: first what was asked in the rounds of effects that these had.
    pub(super) fn dispatch_effects(&mut self, now: Time) {
        let mut rounds = Vec::new();
        loop {
            rounds.push(self.carry_out_round(now));
            if self.outbox.is_empty() {
                break;
            }
        }
        while let Some(asked) = rounds.pop() {
            self.do_asked(now, asked);
        }
    }

    /// Carries out the effects there are. Those of the decision log, to which decisions and stable
    /// checkpoints lead, are the next round.
    fn carry_out_round(&mut self, now: Time) -> Asked {
        let mut outbox = std::mem::replace(&mut self.outbox, Outbox::new(self.promises.logged_end()));
        let mut asked = Asked::default();
        let (mut decided, mut stable) = (Vec::new(), None);
        for effect in outbox.drain() {
            match effect {
                Effect::Persist { lsn, record } => {
                    self.promises.on_logged(lsn);
                    self.actions.push(Action::Log { lsn, record });
                }
                Effect::Send { when, .. } | Effect::SendTogether { when, .. }
                    if self.abstention.is_some() && VotingSuspension::suppresses(when) => {}
                Effect::Send { to, message, when } => self.hold(when, Held::Send { to, message }),
                Effect::SendTogether { message, when } => self.hold(when, Held::SendTogether(message)),
                Effect::Decide(proposal) => {
                    decided.push(proposal.clone());
                    if !proposal.batch.closes_epoch() {
                        self.hold_decision(proposal);
                    }
                }
                Effect::Stable { claim, proof } => {
                    self.checkpoints.remember_certificate(claim, proof.clone());
                    self.counters.checkpoints_stable += 1;
                    self.judgements.on_stable();
                    self.actions.push(Action::Stable(claim));
                    stable = Some(Record::Stable { claim, proof });
                }
                Effect::SetTimer { timer, at } => self.timers.set(timer, at),
                Effect::CancelTimer(timer) => self.timers.cancel(timer),
                Effect::Rejected(rejected) => self.reject(rejected),
                Effect::Diverged { stable, ours } => {
                    asked.diverged = Some(stable.seq);
                    self.actions.push(Action::Diverged { stable, ours });
                }
                Effect::FellBehind { stable } => {
                    asked.fell_behind = true;
                    self.actions.push(Action::FellBehind { stable });
                }
                // What it goes on from has to be known after a restart as well, before anybody is answered
                // from it.
                Effect::Snapshot(SnapshotTask::Install(seq)) => {
                    let when = self.promises.when_all_is_durable();
                    self.hold(when, Held::Install(seq));
                }
                Effect::Snapshot(task) => self.actions.push(Action::Snapshot(task)),
                Effect::BroadcastPending => self.broadcast_pending(now),
                Effect::UrgePending(long) => self.urge_pending(now, long),
                Effect::LeaveView(view) => asked.views.push(ViewStep::Leave(view)),
                Effect::EnterView(view) => asked.views.push(ViewStep::Enter(view)),
            }
        }
        self.outbox = outbox;
        for proposal in decided {
            self.decision_log.on_decided(&proposal, &mut self.outbox);
            if proposal.batch.closes_epoch() {
                match self.log_closing(&proposal) {
                    Some(logged) if !active(Mutant::ClosingUnlogged) => {
                        self.hold(logged.when(), Held::Decide(proposal));
                    }
                    _ => self.hold_decision(proposal),
                }
            }
        }
        asked.became_stable = stable.is_some();
        if let Some(record) = stable {
            self.outbox.persist(record);
        }
        asked
    }

    /// A decision is executed, and answered, once everything logged before it is durable: our own commit is
    /// part of the quorum that decided.
    fn hold_decision(&mut self, proposal: Arc<Proposal>) {
        let when = match active(Mutant::DecisionBeforeDurable) {
            true => When::Now,
            false => self.promises.when_all_is_durable(),
        };
        self.hold(when, Held::Decide(proposal));
    }

    fn do_asked(&mut self, now: Time, asked: Asked) {
        if asked.became_stable && asked.diverged.is_none() {
            self.decision_log.on_stable(self.ordering.stable());
            self.drop_snapshots(now);
            self.cut_log(now);
        }
        for step in asked.views {
            match step {
                ViewStep::Leave(view) => self.leave_view(now, view),
                ViewStep::Enter(view) => self.enter_view(now, view),
            }
        }
        if asked.fell_behind && self.log_transfer.state() == LogTransferState::Idle {
            self.begin_log_transfer(now);
        }
        if let Some(stable) = asked.diverged {
            self.replace_state(now, stable);
        }
    }

    /// Does this once that is on disk for which it waits.
    pub(super) fn hold(&mut self, when: When, held: Held) {
        if let Some(held) = self.promises.hold(when, held) {
            self.release(held);
        }
    }

    pub(super) fn release(&mut self, held: Held) {
        match held {
            Held::CutLog(cut) => self.actions.push(Action::CutLog(cut)),
            Held::EpochEnded => self.tell_epoch_ended(),
            Held::AbstentionOver => self.actions.push(Action::AbstentionOver),
            Held::Install(seq) => self.actions.push(Action::Snapshot(SnapshotTask::Install(seq))),
            Held::Send { to, message } => self.actions.push(Action::ToReplicas { to, message }),
            Held::SendTogether(message) => self.promises.say_together(message),
            Held::Decide(proposal) => {
                if !active(Mutant::PoolKeepsDecided) {
                    self.pool.on_decided(&proposal.batch);
                }
                self.counters.decisions += 1;
                if self.supply.release(proposal.seq) {
                    self.actions.push(Action::Execute(proposal));
                }
            }
        }
    }
}
