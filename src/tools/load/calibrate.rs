//! How much work a microsecond is on this machine.

use std::time::{Duration, Instant};

use crate::smr::execution::apps::compute::burn;

/// How many rounds of [`burn`] take a microsecond: the fastest of several tries, so that what else runs on
/// the machine does not make operations cheaper.
#[must_use]
pub fn rounds_per_us() -> f64 {
    const ROUNDS: u64 = 200_000;
    let fastest = (0..20)
        .map(|_| {
            let start = Instant::now();
            burn(ROUNDS);
            start.elapsed()
        })
        .min();
    ROUNDS as f64 / (fastest.unwrap_or(Duration::from_millis(1)).as_secs_f64() * 1e6)
}
