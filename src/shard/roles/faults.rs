use std::collections::VecDeque;

use bytes::Bytes;

use crate::protocol::Recipients;
use crate::shard::lanes::{Interceptor, Outgoing, Outlet};
use crate::types::{NodeId, Time};

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

    pub fn say(&mut self, now: Time, to: Recipients, message: &Bytes, outgoing: &mut [Outlet<Outgoing>]) {
        let others = NodeId::all(self.n).filter(|node| match to {
            Recipients::Others => *node != self.node,
            Recipients::One(one) => *node == one,
        });
        for other in others {
            for (to, message, later) in self.liar.say(other, message) {
                if later.is_zero() {
                    tell(outgoing, to, &message);
                } else {
                    let at = now.after(later);
                    let behind = self.late.partition_point(|(other, ..)| *other <= at);
                    self.late.insert(behind, (at, to, message));
                }
            }
        }
    }

    pub fn say_what_is_due(&mut self, now: Time, outgoing: &mut [Outlet<Outgoing>]) {
        let due = self.late.partition_point(|(at, ..)| *at <= now);
        for (_, to, message) in self.late.drain(..due) {
            tell(outgoing, to, &message);
        }
    }

    pub fn next_due(&self) -> Option<Time> {
        self.late.front().map(|(at, ..)| *at)
    }
}

fn tell(outgoing: &mut [Outlet<Outgoing>], to: NodeId, message: &Bytes) {
    for outgoing in outgoing {
        outgoing.push(Outgoing::Replicas {
            to: Recipients::One(to),
            message: message.clone(),
        });
    }
}
