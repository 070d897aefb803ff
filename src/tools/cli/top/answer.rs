//! What a replica's endpoint answers, read from `/status` and `/metrics`. Both may be anybody's: what is kept
//! of them is bounded, and what is no answer is refused in words.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::prometheus::{Sample, samples};
use crate::runtime::metrics::ReplicaRow;
use crate::tools::cli::admin_page::{NAME_MAX, read_status, shown};

/// Bytes of `/metrics`: a replica's has a tenth of this.
pub(super) const METRICS_BYTES_MAX: usize = 2 << 20;

/// Counters that are kept, with each of their labels.
const COUNTERS_MAX: usize = 1024;
/// Histograms that are kept.
const HISTOGRAMS_MAX: usize = 64;

/// What one replica said at one time.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub row: ReplicaRow,
    /// Or why its `/metrics` cannot be read: it is known where it stands all the same.
    pub numbers: Result<Numbers, String>,
}

/// What `/metrics` says.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    /// Why it does not do its part right now; empty if it does.
    pub unready: Vec<String>,
    /// Bytes of its log and its snapshots.
    pub disk_bytes: f64,
    /// Memory of its process.
    pub memory_bytes: f64,
    /// Links with other replicas that make a quorum; zero if it does not say.
    pub links_needed: f64,
    /// What it refused so far, whatever for.
    pub refusals: f64,
    /// Every counter since its start.
    pub counters: BTreeMap<String, f64>,
    /// Every histogram of durations, in the order in which they come, but a request's whole way and those of
    /// phases before all others.
    pub histograms: Vec<(String, Histogram)>,
}

impl Answer {
    /// Reads the two pages.
    ///
    /// # Errors
    /// In words, when the first is not what a replica says.
    pub fn of(status: &[u8], metrics: Result<&[u8], String>) -> Result<Self, String> {
        let mut row = read_status(status)?;
        // `/metrics` has them by their names there.
        row.counters.clear();
        let numbers = metrics.map(|metrics| Numbers::of(&String::from_utf8_lossy(metrics)));
        Ok(Self { row, numbers })
    }

    /// Why it does not do its part; empty if it does, or does not say so.
    pub fn unready(&self) -> &[String] {
        self.numbers.as_ref().map_or(&[], |numbers| &numbers.unready)
    }
}

impl Numbers {
    fn of(text: &str) -> Self {
        let mut found = Self::default();
        for sample in samples(text) {
            found.take(&sample);
        }
        // A stable sort: what comes first of either kind stays first.
        found.histograms.sort_by_key(|(name, _)| match name.as_str() {
            REQUEST => 0,
            name if name.starts_with(PHASE) => 1,
            _ => 2,
        });
        found
    }

    fn take(&mut self, sample: &Sample<'_>) {
        let name = sample.name.strip_prefix("atlas_").unwrap_or(sample.name);
        let value = if sample.value.is_finite() {
            sample.value
        } else {
            0.0
        };
        match name {
            "unready" if value > 0.0 => {
                let reason = shown(sample.label("reason").unwrap_or("for no reason"), NAME_MAX);
                if self.unready.len() < 8 {
                    self.unready.push(reason);
                }
            }
            "links_needed" => self.links_needed = value,
            "disk_bytes" => self.disk_bytes += value.max(0.0),
            "process_resident_memory_bytes" => self.memory_bytes = value.max(0.0),
            _ => {}
        }
        if name == "refusals_total" {
            self.refusals += value.max(0.0);
        }
        if let Some(counter) = name.strip_suffix("_total") {
            let key = key(counter, sample);
            if self.counters.len() < COUNTERS_MAX || self.counters.contains_key(&key) {
                *self.counters.entry(key).or_default() += value.max(0.0);
            }
        } else if let Some((family, part)) = name.rsplit_once("_seconds_") {
            self.take_histogram(&key(family, sample), part, sample);
        }
    }

    fn take_histogram(&mut self, key: &str, part: &str, sample: &Sample<'_>) {
        if !["bucket", "count", "sum"].contains(&part) {
            return;
        }
        let at = self.histograms.iter().position(|(own, _)| own == key);
        let at = match at {
            Some(at) => at,
            None if self.histograms.len() == HISTOGRAMS_MAX => return,
            None => {
                self.histograms.push((key.to_owned(), Histogram::default()));
                self.histograms.len() - 1
            }
        };
        let histogram = &mut self.histograms[at].1;
        match part {
            "bucket" => {
                let bound = sample.label("le").and_then(|bound| bound.parse().ok());
                histogram.add_bucket(bound.unwrap_or(f64::NAN), sample.value);
            }
            "count" => histogram.add_count(sample.value),
            _ => histogram.add_sum(sample.value),
        }
    }

    /// Whether a counter is less than it was: the process was started again in between. CPU time does not
    /// tell: it is that of the threads that live.
    pub fn is_after_restart(&self, before: &Self) -> bool {
        let counts = |name: &str| !name.starts_with("process ");
        let has_shrunk = |(name, then): (&String, &f64)| {
            counts(name) && self.counters.get(name).is_some_and(|now| now < then)
        };
        before.counters.iter().any(has_shrunk)
    }

    /// A counter's value, with whatever labels.
    pub fn counter(&self, name: &str) -> f64 {
        self.counters.get(name).copied().unwrap_or_default()
    }
}

/// What the names of histograms of phases begin with.
pub(super) const PHASE: &str = "phase ";
/// The histogram of what phases add up to.
const REQUEST: &str = "request";

/// What a metric is called on the screen: without what all of them have, and with what its labels say. Shards
/// of one replica are taken together.
fn key(family: &str, sample: &Sample<'_>) -> String {
    let mut key = match (family.strip_suffix("_phase"), sample.label("phase")) {
        (Some(of), Some(_)) => format!("{PHASE}{}", of.replace('_', " ")),
        _ => family.replace('_', " "),
    };
    for (label, value) in &sample.labels {
        if !["node", "shard", "le"].contains(label) {
            key.push(' ');
            key.push_str(value);
        }
    }
    shown(&key, NAME_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tools::cli::admin_page::WORDS_MAX;
    use crate::tools::cli::top::histogram::Quantile;
    use crate::tools::cli::top::recorded;

    #[test]
    fn what_a_replica_answered_is_read() {
        let answer = Answer::of(recorded::STATUS.as_bytes(), Ok(recorded::METRICS.as_bytes())).unwrap();
        assert_eq!(
            (answer.row.node.as_str(), answer.row.phase.as_str()),
            ("r0", "ordering")
        );
        let numbers = answer.numbers.unwrap();
        assert!(numbers.unready.is_empty());
        // It was asked for a little later.
        assert!(numbers.counter("operations executed") >= answer.row.operations as f64);
        assert!(numbers.disk_bytes > 0.0 && numbers.memory_bytes > 0.0);
        let named = |name: &str| {
            let found = numbers.histograms.iter().find(|(own, _)| own == name);
            &found.unwrap_or_else(|| panic!("{name}")).1
        };
        let turns = named("consensus turn");
        assert!(turns.count > 0.0 && turns.sum > 0.0);
        assert!(matches!(turns.quantile(0.5), Some(Quantile::Within(at)) if at > 0.0 && at < 1.0));
        assert!(numbers.counters.contains_key("links opened replica"));
    }

    #[test]
    fn requests_and_their_phases_come_first_and_shards_are_taken_together() {
        let text = "atlas_log_turn_seconds_bucket{node=\"r0\",shard=\"0\",le=\"1\"} 4\n\
            atlas_log_turn_seconds_bucket{node=\"r0\",shard=\"1\",le=\"1\"} 3\n\
            atlas_frame_phase_seconds_count{node=\"r0\",phase=\"verified\"} 2\n\
            atlas_batch_phase_seconds_bucket{node=\"r0\",phase=\"durable\",le=\"+Inf\"} 5\n\
            atlas_batch_phase_seconds_count{node=\"r0\",phase=\"durable\"} 5\n\
            atlas_request_seconds_count{node=\"r0\"} 2\n";
        let numbers = Numbers::of(text);
        let names: Vec<&str> = numbers.histograms.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "request",
                "phase frame verified",
                "phase batch durable",
                "log turn"
            ]
        );
        let mut turns = Histogram::default();
        turns.add_bucket(1.0, 7.0);
        assert_eq!(numbers.histograms[3].1, turns, "the shards of a replica are one");
    }

    #[test]
    fn what_no_replica_says_is_refused_or_kept_within_bounds() {
        for status in [
            "",
            "{}",
            "[]",
            "null",
            "<html>",
            "{\"node\":7}",
            "{\"node\":\"r0\",\"view\":-1}",
        ] {
            assert!(Answer::of(status.as_bytes(), Ok(b"")).is_err(), "{status}");
        }
        let deep = "[".repeat(100_000);
        assert!(Answer::of(deep.as_bytes(), Ok(b"")).is_err());
        let long = format!(
            "{{\"node\":\"\\u001b[2Jr0\",\"phase\":\"{}\"}}",
            "x".repeat(100_000)
        );
        let answer = Answer::of(long.as_bytes(), Err("no metrics".to_owned())).unwrap();
        assert_eq!(
            (answer.row.node.as_str(), answer.row.phase.len()),
            ("[2Jr0", WORDS_MAX)
        );
        let many = |line: fn(usize) -> String| (0..5000).map(line).collect::<String>();
        let counters = Numbers::of(&many(|number| format!("c{number}_total 1\n")));
        assert_eq!(counters.counters.len(), COUNTERS_MAX);
        let histograms = Numbers::of(&many(|number| format!("h{number}_seconds_count 1\n")));
        assert_eq!(histograms.histograms.len(), HISTOGRAMS_MAX);
        let reasons = Numbers::of(&many(|number| {
            format!("atlas_unready{{reason=\"{number}\"}} 1\n")
        }));
        assert!(reasons.unready.len() <= 8);
    }

    proptest! {
        #[test]
        fn any_pages_are_an_answer_or_none(
            status in prop::collection::vec(any::<u8>(), 0..200),
            metrics in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Answer::of(&status, Ok(&metrics));
        }

        /// A page of a replica in which something was changed.
        #[test]
        fn damaged_pages_are_an_answer_or_none(
            at in 0..recorded::METRICS.len(),
            cut in 0..200_usize,
            put in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let damage = |page: &str| {
                let mut bytes = page.as_bytes().to_vec();
                let at = at % bytes.len();
                let end = (at + cut).min(bytes.len());
                bytes.splice(at..end, put.iter().copied());
                bytes
            };
            if let Ok(answer) = Answer::of(&damage(recorded::STATUS), Ok(&damage(recorded::METRICS))) {
                let numbers = answer.numbers.unwrap();
                prop_assert!(numbers.counters.values().all(|value| *value >= 0.0));
                prop_assert!(numbers.refusals >= 0.0 && numbers.disk_bytes >= 0.0);
            }
        }
    }
}
