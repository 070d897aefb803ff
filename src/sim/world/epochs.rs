//! Epochs in the world: operators ask for changes, and hosts go from one epoch to the next.

use std::time::Duration;

use super::World;
use super::events::Event;
use crate::sim::SimRng;
use crate::sim::checker::{Rule, VoteAudit};
use crate::sim::keys::{newcomer, operator};
use crate::smr::membership::{Change, ChangeRequest, EpochHistory, Membership, Operators};
use crate::smr::messages::Mode;
use crate::smr::replica::Stack;
use crate::smr::types::{ClientId, Epoch, Lsn, Time};

impl<S: Stack> World<S> {
    /// An operator asks to change the newest membership that a correct host knows, by a client of its own choice.
    pub(super) fn ask_change(&mut self) {
        let known = self.hosts.iter().filter(|host| host.is_correct && host.is_up);
        let known = known.filter_map(|host| host.sim.replica().history());
        let newest = known.max_by_key(|history| history.membership().head().epoch());
        let Some(base) = newest.map(|history| history.membership().clone()) else {
            return self.plan_change(self.now.after(Duration::from_millis(50)));
        };
        let request = request(&base, &mut self.rng);
        let client = self.rng.below(self.config.honest_clients as u64) as usize;
        self.hit("change asked for", 1);
        self.tell(|_| format!("c{client} asks to change {}", base.head().epoch()));
        self.call_at(self.now, client, request.encode(), Mode::Change);
    }

    /// Has an operator ask for a change at a moment.
    pub(super) fn plan_change(&mut self, at: Time) {
        self.plan(at, Event::Change);
    }

    /// A host says that its epoch has ended: the next one begins with a new process.
    pub(super) fn end_epoch(&mut self, index: usize, history: &EpochHistory) {
        let (epoch, base) = (history.membership().head().epoch(), history.base());
        self.tell(|_| format!("host {index} begins {epoch}, after s{}", base.seq));
        self.hit("epoch begun", 1);
        if self.hosts[index].is_correct {
            self.judge_history_of(index, history);
        }
        self.stop(index);
        let steady_from = self.steady_from;
        let host = &mut self.hosts[index];
        host.acknowledged = Lsn::ZERO;
        host.ledger = VoteAudit::new(host.node.index(), &self.config)
            .steady_from(steady_from)
            .in_epoch(epoch, base);
        if let Some(disk_state) = &mut host.disk_state {
            disk_state.begin_epoch(history);
        }
        let pause = self.rng.micros(50, 2000);
        self.plan_restart(index, self.now.after(pause));
    }

    /// All correct hosts know the same epochs, each of which began with what correct replicas had there.
    fn judge_history_of(&mut self, index: usize, history: &EpochHistory) {
        let base = history.base();
        let right = self.agreement.right(base.seq.get());
        if right.is_some_and(|right| right != base) {
            let what = format!("host {index} begins an epoch with {base:?}, correct replicas had {right:?}");
            self.judge(Err((Rule::Epochs, what)));
        }
        let chain = history.chain();
        if let Some(known) = &self.history {
            let until = known.chain().newest().epoch().min(chain.newest().epoch()).get();
            let differs = (0..=until)
                .map(Epoch::new)
                .find(|epoch| known.chain().head(*epoch) != chain.head(*epoch));
            if let Some(epoch) = differs {
                let what = format!("host {index} knows another {epoch} than other correct replicas");
                self.judge(Err((Rule::Epochs, what)));
            }
        }
        let is_newer = |known: &EpochHistory| known.chain().newest().epoch() < chain.newest().epoch();
        if self.history.as_ref().is_none_or(is_newer) {
            self.history = Some(history.clone());
        }
    }
}

/// What an operator asks for.
fn request(base: &Membership, rng: &mut SimRng) -> ChangeRequest {
    let head = base.head();
    let next = ClientId::new(head.next_client() as u32);
    let changes = match rng.below(4) {
        0 => {
            let keys = vec![
                operator(0).verifying_key(),
                operator(1 + head.epoch().get() as usize).verifying_key(),
            ];
            vec![Change::SetOperators(
                Operators::new(1, keys).expect("one of two operators"),
            )]
        }
        _ => vec![Change::AddClient(newcomer(next))],
    };
    let mut request = ChangeRequest::new(head.cluster(), head.epoch(), changes);
    if rng.chance(90) {
        request.sign(&operator(0));
    }
    request
}
