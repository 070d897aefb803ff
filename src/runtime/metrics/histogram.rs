//! Histograms that one thread writes and anybody reads at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most bounds that a histogram has.
const BOUNDS_MAX: usize = 22;

/// Bounds that grow by a factor.
const fn growing<const N: usize>(first: u64, factor: u64) -> [u64; N] {
    let mut bounds = [first; N];
    let mut index = 1;
    while index < N {
        bounds[index] = factor * bounds[index - 1];
        index += 1;
    }
    bounds
}

/// The bounds between a histogram's buckets, and what its numbers are divided by where they are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    bounds: &'static [u64],
    per_unit: f64,
}

impl Scale {
    /// Nanoseconds, shown in seconds: from a microsecond on, each four times the one before, to four seconds.
    pub const TURNS: Self = Self {
        bounds: &growing::<12>(1000, 4),
        per_unit: 1e9,
    };
    /// Nanoseconds, shown in seconds: from four microseconds on, each twice the one before, to eight seconds.
    pub const LATENCIES: Self = Self {
        bounds: &growing::<BOUNDS_MAX>(4000, 2),
        per_unit: 1e9,
    };
    /// Things: one, and each four times as many as before, to 65,536.
    pub const COUNTS: Self = Self {
        bounds: &growing::<9>(1, 4),
        per_unit: 1.0,
    };
    /// Things that wait: none, one, and each four times as many as before, to 1,024.
    pub const DEPTHS: Self = Self {
        bounds: &[0, 1, 4, 16, 64, 256, 1024],
        per_unit: 1.0,
    };
    /// Bytes: from 64 on, each four times as many as before, to 16 MiB.
    pub const BYTES: Self = Self {
        bounds: &growing::<10>(64, 4),
        per_unit: 1.0,
    };
}

/// How often something had which size. One thread writes.
#[derive(Debug)]
pub struct Histogram {
    scale: Scale,
    /// By bucket; after those with a bound, what is beyond the last one.
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum: AtomicU64,
}

/// A [`Histogram`] as it was at one moment, in the unit that it is shown in.
#[derive(Debug, Clone, PartialEq)]
pub struct HistogramCounts {
    /// How many were measured.
    pub count: u64,
    /// What they are together.
    pub sum: f64,
    /// The largest of each bucket, and how many are in it alone. What is larger than all is in none.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(crate) const fn new(scale: Scale) -> Self {
        Self {
            scale,
            counts: [const { AtomicU64::new(0) }; BOUNDS_MAX + 1],
            sum: AtomicU64::new(0),
        }
    }

    /// Of the one thread that writes: a load and a store are enough.
    pub(crate) fn record(&self, size: u64) {
        let bucket = self.scale.bounds.partition_point(|bound| *bound < size);
        add(&self.sum, size);
        add(&self.counts[bucket], 1);
    }

    pub(crate) fn record_duration(&self, duration: Duration) {
        self.record(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was measured so far.
    #[must_use]
    pub fn read(&self) -> HistogramCounts {
        let Scale { bounds, per_unit } = self.scale;
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let shown = bounds.iter().map(|bound| *bound as f64 / per_unit);
        HistogramCounts {
            count: counts.iter().sum(),
            sum: self.sum.load(Ordering::Relaxed) as f64 / per_unit,
            buckets: shown.zip(counts).collect(),
        }
    }
}

impl HistogramCounts {
    /// With what another histogram of the same bounds measured.
    #[must_use]
    pub(crate) fn and(mut self, other: &Self) -> Self {
        self.count += other.count;
        self.sum += other.sum;
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            own.1 += other.1;
        }
        self
    }
}

/// Adds to what the calling thread alone writes: no other core has to give up the cache line for it.
pub(crate) fn add(to: &AtomicU64, more: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_in_the_first_bucket_that_is_large_enough() {
        let histogram = Histogram::new(Scale::TURNS);
        for nanos in [0, 1000, 1001, 4000, 4_000_000_000, 100_000_000_000] {
            histogram.record_duration(Duration::from_nanos(nanos));
        }
        let read = histogram.read();
        assert_eq!(read.count, 6);
        assert!((read.sum - 104.000_006_001).abs() < 1e-6, "{}", read.sum);
        let counts: Vec<u64> = read.buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!((read.buckets[0].0 - 1e-6).abs() < 1e-12);
        assert!((read.buckets[11].0 - 4.194_304).abs() < 1e-9);
    }

    #[test]
    fn histograms_of_several_writers_are_read_as_one() {
        let (one, other) = (Histogram::new(Scale::BYTES), Histogram::new(Scale::BYTES));
        one.record(64);
        other.record(65);
        other.record(u64::from(u32::MAX));
        let both = one.read().and(&other.read());
        assert_eq!((both.count, both.sum), (3, 129.0 + f64::from(u32::MAX)));
        assert_eq!(both.buckets[..2], [(64.0, 1), (256.0, 1)]);
        assert_eq!(both.buckets.last(), Some(&(f64::from(16 << 20), 0)));
        assert_eq!(both.buckets.iter().map(|(_, count)| count).sum::<u64>(), 2);
    }

    #[test]
    fn bounds_fit_and_rise() {
        let scales = [
            Scale::TURNS,
            Scale::LATENCIES,
            Scale::COUNTS,
            Scale::DEPTHS,
            Scale::BYTES,
        ];
        for scale in scales {
            assert!(scale.bounds.len() <= BOUNDS_MAX);
            assert!(scale.bounds.is_sorted_by(|one, next| one < next));
        }
    }
}
