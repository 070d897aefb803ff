//! The seam at which a demonstration has a replica lie: what it says and hears goes through an
//! [`Interceptor`]. The liars are elsewhere; production has none.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::lanes::{LinkSender, Outgoing};
use crate::smr::messages::Family;
use crate::smr::protocol::Recipients;
use crate::smr::types::{NodeId, Time};

/// Changes what a replica says to others: for demonstrations of faulty replicas, nothing else has one.
pub(crate) trait Interceptor: Send {
    /// What is sent in place of this message: to whom, what, and how much later.
    fn say(&mut self, to: NodeId, message: &Bytes) -> Vec<(NodeId, Bytes, Duration)>;

    /// What is sent because this message was heard from another replica.
    fn hear(&mut self, _message: &Bytes) -> Vec<(NodeId, Bytes, Duration)> {
        Vec::new()
    }
}

/// A replica's lies at work over real links: for demonstrations.
pub(crate) struct Faults {
    node: NodeId,
    n: usize,
    liar: Box<dyn Interceptor>,
    /// What is said later, by moment.
    late: VecDeque<(Time, NodeId, Bytes)>,
}

impl Faults {
    pub fn new(node: NodeId, n: usize, liar: Box<dyn Interceptor>) -> Self {
        Self {
            node,
            n,
            liar,
            late: VecDeque::new(),
        }
    }

    pub fn say(&mut self, now: Time, to: Recipients, message: &Bytes, outgoing: &mut [LinkSender<Outgoing>]) {
        let node = self.node;
        let others = NodeId::all(self.n).filter(|other| match to {
            Recipients::Others => *other != node,
            Recipients::One(one) => *other == one,
        });
        for other in others {
            let said = self.liar.say(other, message);
            self.send(now, said, outgoing);
        }
    }

    pub fn hear(&mut self, now: Time, message: &Bytes, outgoing: &mut [LinkSender<Outgoing>]) {
        let said = self.liar.hear(message);
        self.send(now, said, outgoing);
    }

    fn send(
        &mut self,
        now: Time,
        said: Vec<(NodeId, Bytes, Duration)>,
        outgoing: &mut [LinkSender<Outgoing>],
    ) {
        for (to, message, later) in said {
            if later.is_zero() {
                tell(outgoing, to, &message);
            } else {
                let at = now.after(later);
                let behind = self.late.partition_point(|(other, ..)| *other <= at);
                self.late.insert(behind, (at, to, message));
            }
        }
    }

    pub fn say_what_is_due(&mut self, now: Time, outgoing: &mut [LinkSender<Outgoing>]) {
        let due = self.late.partition_point(|(at, ..)| *at <= now);
        for (_, to, message) in self.late.drain(..due) {
            tell(outgoing, to, &message);
        }
    }

    pub fn next_due(&self) -> Option<Time> {
        self.late.front().map(|(at, ..)| *at)
    }
}

fn tell(outgoing: &mut [LinkSender<Outgoing>], to: NodeId, message: &Bytes) {
    for outgoing in outgoing {
        outgoing.push(Outgoing::Replicas {
            family: Family::of(message),
            to: Recipients::One(to),
            message: message.clone(),
        });
    }
}
