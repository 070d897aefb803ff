//! The agreed times of decisions.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Broken, Rule};
use crate::smr::types::{Digest, SeqNo, UnixTime};

/// At which times correct replicas execute decisions.
pub(in crate::sim) struct Times {
    bound: Duration,
    /// By batch: the earliest that any correct replica's clock showed when it was first seen. Nobody can
    /// have accepted it before.
    seen: BTreeMap<Digest, UnixTime>,
    /// The batch of each place.
    batches: BTreeMap<SeqNo, Digest>,
    /// The time of each place.
    agreed: BTreeMap<SeqNo, UnixTime>,
}

impl Times {
    pub(in crate::sim) fn new(bound: Duration) -> Self {
        Self {
            bound,
            seen: BTreeMap::new(),
            batches: BTreeMap::new(),
            agreed: BTreeMap::new(),
        }
    }

    /// Somebody proposes a batch; `earliest` is what the slowest correct clock shows.
    pub(in crate::sim) fn sees(&mut self, batch: Digest, earliest: UnixTime) {
        self.seen.entry(batch).or_insert(earliest);
    }

    /// A correct replica decides a batch.
    pub(in crate::sim) fn decides(&mut self, seq: SeqNo, batch: Digest) {
        self.batches.insert(seq, batch);
    }

    /// A correct replica executes a decision at this time; `latest` is what the fastest correct clock shows.
    pub(in crate::sim) fn executes(
        &mut self,
        host: usize,
        seq: SeqNo,
        time: UnixTime,
        latest: UnixTime,
    ) -> Result<(), Broken> {
        let broken = |what: String| {
            Err((
                Rule::Times,
                format!("host {host} executes {seq} at {time:?}, {what}"),
            ))
        };
        if let Some(first) = self.agreed.get(&seq) {
            return match *first == time {
                true => Ok(()),
                false => broken(format!("another replica at {first:?}")),
            };
        }
        self.agreed.insert(seq, time);
        if let Some((before, earlier)) = self.agreed.range(..seq).next_back()
            && *earlier > time
        {
            return broken(format!("and {before} was at {earlier:?}"));
        }
        if let Some((behind, later)) = self.agreed.range(seq.next()..).next()
            && *later < time
        {
            return broken(format!("and {behind} was at {later:?}"));
        }
        if time > latest.after(self.bound) {
            return broken(format!("the fastest correct clock shows {latest:?}"));
        }
        let batch = self.batches.get(&seq).filter(|batch| **batch != Digest::ZERO);
        match batch.and_then(|batch| self.seen.get(batch)) {
            Some(earliest) if time.after(self.bound) < *earliest => broken(format!(
                "the slowest correct clock showed {earliest:?} when it was proposed"
            )),
            _ => Ok(()),
        }
    }
}
