//! How many signatures of what a peer says are verified.
//!
//! Verifying costs much more than sending. A correct peer signs little: a checkpoint now and then, and a view change when a
//! leader failed. What a flood of such messages goes beyond is not judged; a correct peer says it again when it is asked.

use std::time::Duration;

use crate::types::{NodeId, Time};

/// Signatures a second that are verified of a peer, whatever the size of the cluster.
const RATE: u64 = 256;

/// Signatures that may still be verified, by peer: they fill up with time.
#[derive(Debug)]
pub(super) struct Judgements {
    burst: u64,
    per_second: u64,
    left: Vec<(u64, Time)>,
}

impl Judgements {
    /// For n replicas: two new views with all their proofs at once.
    pub fn new(n: usize) -> Self {
        let new_view = (n * (n + 1)) as u64;
        let burst = 2 * new_view + RATE;
        Self {
            burst,
            per_second: new_view / 4 + RATE,
            left: vec![(burst, Time::START); n],
        }
    }

    /// Whether so many signatures of what `from` says are verified now; they are counted if so.
    pub fn may_judge(&mut self, now: Time, from: NodeId, signatures: usize) -> bool {
        let Some((left, at)) = self.left.get_mut(from.index()) else {
            return false;
        };
        let since = now.since(*at).min(Duration::from_secs(60));
        let earned = since.as_micros() as u64 * self.per_second / 1_000_000;
        if earned > 0 {
            *left = (*left + earned).min(self.burst);
            *at = now;
        }
        let may = *left >= signatures as u64;
        *left -= if may { signatures as u64 } else { 0 };
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_judged_in_part_and_costs_nobody_else_anything() {
        let mut judgements = Judgements::new(4);
        let (flooder, other) = (NodeId::new(1), NodeId::new(2));
        let mut judged = 0;
        for micros in 0..1_000_000 {
            let now = Time::from_nanos(micros * 1000);
            judged += u64::from(judgements.may_judge(now, flooder, 1));
        }
        let whole = judgements.burst + judgements.per_second;
        assert!((whole - 2..=whole).contains(&judged), "{judged} of {whole}");
        assert!(judgements.may_judge(Time::START, other, 20));
        assert!(!judgements.may_judge(Time::START, NodeId::new(9), 1));
    }

    #[test]
    fn a_new_view_of_the_largest_cluster_is_judged() {
        let mut judgements = Judgements::new(64);
        assert!(judgements.may_judge(Time::START, NodeId::new(1), 64 * 65));
    }
}
