use std::collections::BTreeMap;

use super::{Broken, Rule};
use crate::smr::types::Time;

/// From which states one correct replica has answered, in all its lives.
#[derive(Debug, Default)]
pub(in crate::sim) struct Answered {
    /// The last decision with operations whose results it gave.
    last: u64,
}

impl Answered {
    /// It executed a decision, and answered.
    pub(in crate::sim) fn executed(&mut self, seq: u64, operations: usize) {
        if operations > 0 {
            self.last = self.last.max(seq);
        }
    }

    /// It answers a read beside the order from the state after a place.
    pub(in crate::sim) fn reads(&mut self, host: usize, seq: u64) -> Result<(), Broken> {
        if seq >= self.last {
            return Ok(());
        }
        let what = format!(
            "host {host} answers a read from its state after s{seq}, it answered from that after s{} before",
            self.last
        );
        Err((Rule::Reads, what))
    }
}

/// A write or a read of one key whose result its client has.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) enum Seen {
    /// It was acknowledged at a moment; the place at which it was executed.
    Write(Time, u64),
    /// It began at a moment, and saw what was written at this place.
    Read(Time, u64),
}

/// Every read sees what was written last before it began, or later: by the places at which correct replicas
/// executed the writes.
pub(in crate::sim) fn judge_reads(history: &[Seen]) -> Result<(), String> {
    // By the moment of the acknowledgement: the last place that was acknowledged until then.
    let mut acknowledged: BTreeMap<Time, u64> = BTreeMap::new();
    for seen in history {
        if let Seen::Write(at, place) = seen {
            let known = acknowledged.entry(*at).or_default();
            *known = (*known).max(*place);
        }
    }
    let mut last = 0;
    for place in acknowledged.values_mut() {
        last = last.max(*place);
        *place = last;
    }
    for seen in history {
        let Seen::Read(from, saw) = seen else { continue };
        let before = acknowledged.range(..*from).next_back();
        if let Some((at, place)) = before.filter(|(_, place)| *place > saw) {
            return Err(format!(
                "a read that began at {from:?} saw what was written at s{saw}; the write at s{place} was acknowledged by {at:?}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[test]
    fn a_read_sees_every_write_that_was_acknowledged_before_it_began() {
        let writes = [Seen::Write(at(10), 5), Seen::Write(at(20), 4)];
        let judge = |from, saw| judge_reads(&[writes[0], writes[1], Seen::Read(at(from), saw)]);
        assert!(judge(10, 0).is_ok(), "it began before");
        assert!(judge(11, 4).is_err());
        assert!(judge(11, 5).is_ok());
        assert!(
            judge(30, 4).is_err(),
            "the later place counts, not the later moment"
        );
        assert!(judge(30, 9).is_ok());
    }

    #[test]
    fn a_replica_answers_from_no_earlier_state_than_before() {
        let mut answered = Answered::default();
        assert!(answered.reads(0, 0).is_ok());
        answered.executed(3, 1);
        answered.executed(4, 0);
        assert!(answered.reads(0, 3).is_ok(), "nobody saw s4");
        assert!(answered.reads(0, 2).is_err());
    }
}
