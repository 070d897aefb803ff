//! How many signatures of what a peer says are verified, and what it said that no correct replica says.
//!
//! Verifying costs much more than sending. A correct peer signs little: each checkpoint once, and a view
//! change when a leader failed. So each checkpoint that becomes stable here earns every peer a signature: how
//! fast decisions and checkpoints come is no reason to overhear one. What a flood of such messages goes beyond
//! is not judged; a correct peer says it again when it is asked.

use super::Offences;
use crate::smr::mutants::{Mutant, active};
use crate::smr::protocol::{Allowance, Rate, Rejected};
use crate::smr::types::{NodeId, Time};

/// Signatures a second that are verified of a peer, whatever the size of the cluster.
const RATE: u64 = 256;

/// Votes that are counted of a peer: some for each place of the largest window at once, and more a second
/// than anybody decides.
const VOTES: Rate = Rate {
    burst: 1 << 19,
    per_second: 1 << 20,
};

/// By peer: signatures that may still be verified, votes that may still be counted, and what it did wrong.
#[derive(Debug)]
pub(super) struct VerifyBudget {
    left: Vec<Allowance>,
    votes: Vec<Allowance>,
    offences: Vec<Offences>,
}

impl VerifyBudget {
    /// For n replicas: two new views with all their proofs at once.
    pub fn new(n: usize) -> Self {
        Self {
            left: vec![Allowance::full(Self::rate(n)); n],
            votes: vec![Allowance::full(VOTES); n],
            offences: vec![Offences::default(); n],
        }
    }

    fn rate(n: usize) -> Rate {
        let new_view = (n * (n + 1)) as u64;
        Rate {
            burst: 2 * new_view + RATE,
            per_second: new_view / 4 + RATE,
        }
    }

    /// How many of so many votes of a peer are counted now. A vote that is lost is sent again when a status
    /// asks for it.
    pub fn may_count(&mut self, now: Time, from: NodeId, votes: usize) -> usize {
        let Some(left) = self.votes.get_mut(from.index()) else {
            return 0;
        };
        let may = usize::try_from(left.left(now)).unwrap_or(0).min(votes);
        left.charge(may as u64);
        may
    }

    /// A message was refused: it counts if no correct replica sends such a one.
    pub fn on_rejected(&mut self, rejected: Rejected) {
        let offences = self.offences.get_mut(rejected.from.index());
        if let Some(offences) = offences.filter(|_| rejected.reason.is_misbehaviour()) {
            offences.count += 1;
            offences.last = Some(rejected);
        }
    }

    /// What a peer sent that no correct replica sends.
    pub fn offences(&self, peer: NodeId) -> Offences {
        self.offences.get(peer.index()).copied().unwrap_or_default()
    }

    /// A checkpoint is stable: each peer signed it once, or will.
    pub fn on_stable(&mut self) {
        self.left.iter_mut().for_each(|left| left.earn(1));
    }

    /// Whether so many signatures of what `from` says are verified now; they are counted if so.
    pub fn may_judge(&mut self, now: Time, from: NodeId, signatures: usize) -> bool {
        let left = self.left.get_mut(from.index());
        left.is_some_and(|left| left.take(now, signatures as u64)) || active(Mutant::VerificationsUnlimited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_judged_in_part_and_costs_nobody_else_anything() {
        let mut judgements = VerifyBudget::new(4);
        let (flooder, other) = (NodeId::new(1), NodeId::new(2));
        let mut judged = 0;
        for micros in 0..1_000_000 {
            let now = Time::from_nanos(micros * 1000);
            judged += u64::from(judgements.may_judge(now, flooder, 1));
        }
        let Rate { burst, per_second } = VerifyBudget::rate(4);
        let whole = burst + per_second;
        assert!((whole - 2..=whole).contains(&judged), "{judged} of {whole}");
        assert!(judgements.may_judge(Time::START, other, 20));
        assert!(!judgements.may_judge(Time::START, NodeId::new(9), 1));
    }

    #[test]
    fn checkpoints_that_become_stable_are_judged_however_fast_they_come() {
        let mut judgements = VerifyBudget::new(4);
        for micros in 0..10_000 {
            let now = Time::from_nanos(micros * 1000);
            for peer in 1..4 {
                assert!(judgements.may_judge(now, NodeId::new(peer), 1), "after {micros}");
            }
            judgements.on_stable();
        }
        let Rate { burst, .. } = VerifyBudget::rate(4);
        let end = Time::from_nanos(10_000_000);
        let left = (0..2 * burst).take_while(|_| judgements.may_judge(end, NodeId::new(1), 1));
        assert!(left.count() as u64 <= burst, "none is saved up beyond the burst");
    }

    #[test]
    fn a_flood_of_votes_is_counted_in_part() {
        let mut judgements = VerifyBudget::new(4);
        let (flooder, other) = (NodeId::new(1), NodeId::new(2));
        let counted: usize = (0..1000)
            .map(|ms| judgements.may_count(Time::from_nanos(ms * 1_000_000), flooder, 40_000))
            .sum();
        assert!((1 << 20..=3 << 19).contains(&counted), "{counted}");
        assert_eq!(judgements.may_count(Time::START, other, 500), 500);
        assert_eq!(judgements.may_count(Time::START, NodeId::new(9), 500), 0);
    }

    #[test]
    fn a_new_view_of_the_largest_cluster_is_judged() {
        let mut judgements = VerifyBudget::new(64);
        assert!(judgements.may_judge(Time::START, NodeId::new(1), 64 * 65));
    }
}
