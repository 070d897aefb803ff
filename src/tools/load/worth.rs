//! Whether a load measured anything, and what it was asked to.

use std::sync::atomic::Ordering;

use super::{Control, Tally, is_interrupted};

/// A load that sent less than this share of the rate it was given did not keep it.
const RATE_SHARE: f64 = 0.95;

/// Why a load is given up that has sent nothing while it warmed up; `None` when it did send something, or was
/// not given the time.
#[must_use]
pub fn sent_nothing(control: &Control) -> Option<String> {
    if control.sent.load(Ordering::Acquire) > 0 || is_interrupted() {
        return None;
    }
    let why = control.tally().last_error;
    let why = why.unwrap_or_else(|| "an operation does not fit a frame of this cluster".to_owned());
    Some(format!("no operation could be sent: {why}"))
}

/// Why what was measured is worth nothing; `None` when operations completed.
#[must_use]
pub fn measured_nothing(tally: &Tally, seconds: f64) -> Option<String> {
    if tally.completed > 0 {
        return None;
    }
    let failed = tally.failed + tally.unexpected;
    let why = match &tally.last_error {
        Some(error) => format!("{failed} failed, the last with: {error}"),
        None if failed > 0 => format!("{failed} failed"),
        None => "none ended".to_owned(),
    };
    Some(format!(
        "nothing was measured: no operation completed in {seconds:.1} s; {why}"
    ))
}

/// What is said of an open loop that sent this many operations per second in place of `rate`; `None` when it
/// kept it.
#[must_use]
pub fn rate_missed(rate: f64, sent_per_second: f64) -> Option<String> {
    (sent_per_second < rate * RATE_SHARE).then(|| {
        format!(
            "the rate was not kept: {sent_per_second:.0} of {rate:.0} operations per second were sent; the latencies \
             include how long the others waited for their turn"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_or_the_share_is_said() {
        assert_eq!(rate_missed(1000.0, 990.0), None);
        let missed = rate_missed(1e9, 2_500_000.0).unwrap();
        assert!(missed.contains("2500000 of 1000000000"), "{missed}");
    }

    #[test]
    fn what_measured_nothing_says_why() {
        let mut tally = Control::new().tally();
        let said = |tally: &Tally| measured_nothing(tally, 2.0).unwrap();
        assert!(said(&tally).contains("in 2.0 s; none ended"));
        (tally.failed, tally.last_error) = (3, Some("no answer".to_owned()));
        assert!(said(&tally).contains("3 failed, the last with: no answer"));
        tally.completed = 1;
        assert_eq!(measured_nothing(&tally, 2.0), None);
        assert!(sent_nothing(&Control::new()).is_some());
    }
}
