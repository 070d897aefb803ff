//! Durations in buckets, as `/metrics` has them: what came in between two looks, and its quantiles.

/// Buckets of one histogram that are kept.
const BUCKETS_MAX: usize = 64;

/// How many durations were how long at most, so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Histogram {
    /// All of them.
    pub count: f64,
    /// Together, in seconds.
    pub sum: f64,
    /// A bound in seconds, and how many were no longer. In order of the bounds; what is longer than all of
    /// them is in none.
    buckets: Vec<(f64, f64)>,
}

/// Where a share of the durations ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Quantile {
    /// At so many seconds, if those of a bucket are spread evenly.
    Within(f64),
    /// Beyond the longest bound, so many seconds.
    Beyond(f64),
}

impl Histogram {
    /// Adds what a `_bucket` says. What is no bound or no count is left out.
    pub fn add_bucket(&mut self, bound: f64, count: f64) {
        let is_number = bound.is_finite() && bound >= 0.0 && count.is_finite() && count >= 0.0;
        if !is_number {
            return;
        }
        let at = self.buckets.partition_point(|(other, _)| *other < bound);
        let is_full = self.buckets.len() >= BUCKETS_MAX;
        match self.buckets.get_mut(at) {
            Some((other, total)) if *other == bound => *total += count,
            _ if is_full => {}
            _ => self.buckets.insert(at, (bound, count)),
        }
    }

    /// Adds what a `_count` says.
    pub fn add_count(&mut self, count: f64) {
        if count.is_finite() && count >= 0.0 {
            self.count += count;
        }
    }

    /// Adds what a `_sum` says.
    pub fn add_sum(&mut self, sum: f64) {
        if sum.is_finite() && sum >= 0.0 {
            self.sum += sum;
        }
    }

    /// Whether both have the same bounds: only then do they tell of the same buckets.
    fn is_like(&self, other: &Self) -> bool {
        let bounds = |of: &Self| of.buckets.iter().map(|(bound, _)| *bound).collect::<Vec<_>>();
        bounds(self) == bounds(other)
    }

    /// What came since an earlier look; `None` if the two do not fit together, as after a restart.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let has_shrunk = self.count < earlier.count || self.sum < earlier.sum;
        if has_shrunk || !self.is_like(earlier) {
            return None;
        }
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        Some(Self {
            count: self.count - earlier.count,
            sum: self.sum - earlier.sum,
            buckets: pairs
                .map(|((bound, now), (_, then))| (*bound, (now - then).max(0.0)))
                .collect(),
        })
    }

    /// Adds what another replica measured; if its buckets are others, nothing.
    pub fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() && self.count == 0.0 {
            *self = other.clone();
        } else if self.is_like(other) {
            self.count += other.count;
            self.sum += other.sum;
            let pairs = self.buckets.iter_mut().zip(&other.buckets);
            pairs.for_each(|((_, own), (_, more))| *own += more);
        }
    }

    /// Where this share of the durations ends, from 0 to 1; `None` if there is none.
    pub fn quantile(&self, share: f64) -> Option<Quantile> {
        if self.count <= 0.0 {
            return None;
        }
        let wanted = share * self.count;
        let (mut from, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *count >= wanted && *count > below {
                let part = ((wanted - below) / (count - below)).clamp(0.0, 1.0);
                return Some(Quantile::Within(from + part * (bound - from)));
            }
            from = *bound;
            below = count.max(below);
        }
        Some(Quantile::Beyond(from))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn histogram(buckets: &[(f64, f64)], count: f64) -> Histogram {
        let mut found = Histogram::default();
        buckets
            .iter()
            .for_each(|(bound, count)| found.add_bucket(*bound, *count));
        found.add_count(count);
        found.add_sum(count);
        found
    }

    #[test]
    fn quantiles_lie_where_their_share_of_a_bucket_ends() {
        let found = histogram(&[(1.0, 10.0), (2.0, 20.0), (4.0, 90.0)], 100.0);
        assert_eq!(found.quantile(0.05), Some(Quantile::Within(0.5)));
        assert_eq!(found.quantile(0.2), Some(Quantile::Within(2.0)));
        assert_eq!(found.quantile(0.55), Some(Quantile::Within(3.0)));
        assert_eq!(found.quantile(0.99), Some(Quantile::Beyond(4.0)));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }

    #[test]
    fn what_came_in_between_is_the_difference_and_nothing_after_a_restart() {
        let then = histogram(&[(1.0, 10.0), (2.0, 20.0)], 30.0);
        let now = histogram(&[(1.0, 10.0), (2.0, 60.0)], 70.0);
        let between = now.since(&then).unwrap();
        assert_eq!((between.count, between.sum), (40.0, 40.0));
        assert_eq!(between.quantile(0.5), Some(Quantile::Within(1.5)));
        assert_eq!(then.since(&now), None);
        assert_eq!(now.since(&histogram(&[(1.0, 1.0), (3.0, 2.0)], 2.0)), None);
    }

    #[test]
    fn histograms_with_other_bounds_are_not_added_up() {
        let mut all = Histogram::default();
        all.merge(&histogram(&[(1.0, 1.0)], 1.0));
        all.merge(&histogram(&[(1.0, 2.0)], 3.0));
        all.merge(&histogram(&[(9.0, 2.0)], 3.0));
        assert_eq!(all, histogram(&[(1.0, 3.0)], 4.0));
    }

    fn any_histogram() -> impl Strategy<Value = Histogram> {
        let number = || prop_oneof![any::<f64>(), 0.0..10.0];
        (
            prop::collection::vec((number(), number()), 0..100),
            number(),
            number(),
        )
            .prop_map(|(buckets, count, sum)| {
                let mut found = Histogram::default();
                buckets
                    .iter()
                    .for_each(|(bound, count)| found.add_bucket(*bound, *count));
                found.add_count(count);
                found.add_sum(sum);
                found
            })
    }

    proptest! {
        #[test]
        fn whatever_the_numbers_are_nothing_is_negative(now in any_histogram(), then in any_histogram()) {
            prop_assert!(now.buckets.len() <= BUCKETS_MAX);
            let between = now.since(&then).or_else(|| now.since(&Histogram::default()));
            for found in [Some(now), between].into_iter().flatten() {
                prop_assert!(found.count >= 0.0 && found.sum >= 0.0);
                for share in [0.0, 0.5, 0.99, 1.0] {
                    if let Some(Quantile::Within(at) | Quantile::Beyond(at)) = found.quantile(share) {
                        prop_assert!(at >= 0.0, "{at} of {found:?}");
                    }
                }
            }
        }
    }
}
