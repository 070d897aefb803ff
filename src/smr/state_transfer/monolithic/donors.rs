//! Whom to ask for pieces: who has the checkpoint, and what is known of each.

use crate::smr::types::{NodeId, Signers};

/// What is to be expected of other replicas.
#[derive(Debug)]
pub(super) struct Donors {
    n: usize,
    /// They offered the checkpoint that comes.
    offering: Signers,
    /// They were silent, or have it no more.
    tired: Signers,
    /// They were silent in earlier attempts.
    stalled: Signers,
    /// They lied.
    banned: Signers,
    lies: u64,
    /// Who was asked last.
    turn: usize,
}

impl Donors {
    pub fn new(n: usize) -> Self {
        Self {
            n,
            offering: Signers::NONE,
            tired: Signers::NONE,
            stalled: Signers::NONE,
            banned: Signers::NONE,
            lies: 0,
            turn: 0,
        }
    }

    /// Another attempt begins. Who was silent is remembered: asked first again, it would cost so much time
    /// again that the others' checkpoints were gone.
    pub fn begin_again(&mut self) {
        self.tired.iter().for_each(|donor| {
            self.stalled.add(donor);
        });
        let faulty_max = (self.n - 1) / 3;
        // More than can be faulty: some of them were not.
        for blamed in [&mut self.stalled, &mut self.banned] {
            if blamed.count() > faulty_max {
                *blamed = Signers::NONE;
            }
        }
        (self.offering, self.tired) = (Signers::NONE, Signers::NONE);
    }

    /// Who was silent long ago is as good as any other.
    pub fn forgive(&mut self) {
        (self.stalled, self.tired) = (Signers::NONE, Signers::NONE);
    }

    /// These have the checkpoint.
    pub fn take_offers(&mut self, offering: Signers) {
        self.offering = offering;
    }

    /// So does this one.
    pub fn add(&mut self, donor: NodeId) {
        self.offering.add(donor);
    }

    /// It does not have it any more.
    pub fn remove(&mut self, donor: NodeId) {
        self.offering.remove(donor);
    }

    /// It brought next to nothing.
    pub fn tire(&mut self, donor: NodeId) {
        self.tired.add(donor);
    }

    /// It lied.
    pub fn ban(&mut self, donor: NodeId) {
        self.lies += 1;
        self.banned.add(donor);
    }

    pub fn is_banned(&self, donor: NodeId) -> bool {
        self.banned.has(donor)
    }

    /// How often one was found out.
    pub fn lies(&self) -> u64 {
        self.lies
    }

    /// How many of these did not stall before.
    pub fn willing(&self, among: &Signers) -> usize {
        among.iter().filter(|donor| !self.stalled.has(*donor)).count()
    }

    /// How little is to be expected of a donor: it was silent in this attempt, or in an earlier one.
    fn reluctance(&self, donor: NodeId) -> u8 {
        match (self.tired.has(donor), self.stalled.has(donor)) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        }
    }

    /// Those of whom most is to be expected.
    pub fn best(&self) -> Vec<NodeId> {
        let usable = || self.offering.iter().filter(|donor| !self.banned.has(*donor));
        let least = usable().map(|donor| self.reluctance(donor)).min();
        usable()
            .filter(|donor| Some(self.reluctance(*donor)) == least)
            .collect()
    }

    /// A donor that may be asked and is not busy, each in its turn; those that were silent only if there is
    /// nobody else.
    pub fn next(&mut self, is_busy: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        for reluctance in 0..=2 {
            for _ in 0..self.n {
                self.turn = (self.turn + 1) % self.n;
                let donor = NodeId::new(self.turn as u16);
                let is_donor = self.offering.has(donor) && !self.banned.has(donor);
                if is_donor && self.reluctance(donor) == reluctance && !is_busy(donor) {
                    return Some(donor);
                }
            }
        }
        None
    }

    /// The next that was not silent in this attempt.
    pub fn next_untired(&mut self) -> Option<NodeId> {
        let tired = self.tired;
        self.next(|donor| tired.has(donor))
    }
}
