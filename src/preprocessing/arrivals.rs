use crate::types::Time;

/// Marks the end of a chain; never an index.
const NONE: usize = usize::MAX;

/// An entry's place in [`Arrivals`], valid until it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(usize);

#[derive(Debug)]
struct Node {
    since: Time,
    previous: usize,
    next: usize,
}

/// When each pending frame arrived, oldest first: a doubly linked list in one vector, so that any entry leaves
/// in constant time, however long an older one stays.
///
/// Invariant: the nodes are split between the list (from `oldest` to `newest`) and the chain of free ones
/// (from `free`, by `next`).
#[derive(Debug)]
pub(super) struct Arrivals {
    nodes: Vec<Node>,
    oldest: usize,
    newest: usize,
    free: usize,
}

impl Arrivals {
    pub(super) const fn new() -> Self {
        Self {
            nodes: Vec::new(),
            oldest: NONE,
            newest: NONE,
            free: NONE,
        }
    }

    /// Adds an arrival; time never runs backwards from one call to the next.
    pub(super) fn push(&mut self, since: Time) -> Ticket {
        let node = Node {
            since,
            previous: self.newest,
            next: NONE,
        };
        let index = match self.free {
            NONE => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
            free => {
                self.free = self.nodes[free].next;
                self.nodes[free] = node;
                free
            }
        };
        match self.newest {
            NONE => self.oldest = index,
            newest => self.nodes[newest].next = index,
        }
        self.newest = index;
        Ticket(index)
    }

    /// Removes an arrival.
    pub(super) fn remove(&mut self, Ticket(index): Ticket) {
        let Node { previous, next, .. } = self.nodes[index];
        match previous {
            NONE => self.oldest = next,
            previous => self.nodes[previous].next = next,
        }
        match next {
            NONE => self.newest = previous,
            next => self.nodes[next].previous = previous,
        }
        self.nodes[index].next = self.free;
        self.free = index;
    }

    /// The time of the oldest arrival still here.
    pub(super) fn oldest(&self) -> Option<Time> {
        self.nodes.get(self.oldest).map(|node| node.since)
    }
}
