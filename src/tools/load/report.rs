use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::Shape;
use super::results::NOT_RECORDED;

/// Latency in microseconds, from the intended send time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LatencyReport {
    /// The median.
    pub p50: f64,
    /// 90 of 100 are at most this.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1000.
    pub p999: f64,
    /// The worst.
    pub max: f64,
}

impl LatencyReport {
    /// The usual quantiles of a histogram of nanoseconds.
    #[must_use]
    pub fn of(latency_ns: &Histogram<u64>) -> Self {
        let us = |nanos: u64| nanos as f64 / 1000.0;
        let at = |quantile| us(latency_ns.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: us(latency_ns.max()),
        }
    }
}

/// What a run found, with everything needed to run it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// All correct replicas ended with equal state digests.
    pub agree: bool,
    /// Where they stood, if they did not all execute the same in time: then nothing is known about their
    /// states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apart: Option<String>,
    /// Operations that failed or gave an unexpected result.
    pub errors: u64,
    /// Operations completed in the measured time.
    pub operations: u64,
    /// Operations per second.
    pub throughput_ops_s: f64,
    /// Latency of an operation.
    pub latency_us: LatencyReport,
    /// CPU time of one replica for one operation, all its threads, averaged over the replicas.
    pub cpu_us_per_op_per_replica: f64,
    /// The same of the replica that leads.
    pub cpu_us_per_op_leader: f64,
    /// CPU time of the clients for one operation.
    pub cpu_us_per_op_client: f64,
    /// Resident memory of the process when measuring began, in MiB.
    pub resident_mib_start: f64,
    /// When it was half done.
    pub resident_mib_middle: f64,
    /// When it ended.
    pub resident_mib_end: f64,
    /// Decisions of the first replica in the measured time.
    pub decisions: u64,
    /// Operations per decision.
    pub operations_per_decision: f64,
    /// Operations per message of a client.
    #[serde(default)]
    pub operations_per_frame: f64,
    /// Messages that a replica received for one operation, of clients and replicas.
    #[serde(default)]
    pub messages_per_op_per_replica: f64,
    /// Groups of records that a replica brought to the disk, per second.
    #[serde(default)]
    pub log_syncs_per_s: f64,
    /// Replicas.
    pub n: usize,
    /// Replicas that may be faulty.
    pub f: usize,
    /// The service.
    pub app: String,
    /// Bytes of one operation.
    pub payload_bytes: usize,
    /// Operations under way at any time; zero in an open loop.
    pub outstanding: usize,
    /// Operations per second asked for; zero in a closed loop.
    pub rate: f64,
    /// Client identities.
    pub clients: usize,
    /// How clients prove their frames.
    pub auth: String,
    /// What reads promise, and where they are executed.
    #[serde(default)]
    pub read_level: String,
    /// What is on disk before a vote leaves.
    pub durability: String,
    /// How decisions are executed.
    pub executor: String,
    /// Threads that execute, at each replica.
    pub workers: usize,
    /// Processor time that each operation costs beside what the service does, in microseconds.
    pub compute_us: f64,
    /// What the operations were like.
    pub shape: Shape,
    /// Executions of no use for one operation at one replica.
    pub aborts_per_op: f64,
    /// Roles by shard.
    pub topology: String,
    /// Cores this process may use.
    pub cores: usize,
    /// The processor.
    pub machine: String,
    /// Measured time, in seconds.
    pub seconds: f64,
    /// What the first leader did to what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byzantine: Option<String>,
    /// The throughput as a share of that of an honest run just before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_of_honest: Option<f64>,
    /// What came of killing the leader.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<Incident>,
}

/// What came of killing the leader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// The longest time without a reply after it, in milliseconds.
    pub gap_ms: f64,
    /// How long replicas wait before they ask for another leader, in milliseconds.
    pub view_timeout_ms: u64,
    /// Operations that ended in each tenth of a second, warm-up included.
    pub throughput_per_100ms: Vec<u64>,
    /// Whether every correct replica executed exactly the operations that were sent, each once.
    pub executed_once: bool,
    /// The view at the end.
    pub view: u64,
}

impl Incident {
    fn rows(&self) -> String {
        let loss = match self.executed_once {
            true => "every operation executed exactly once at every remaining replica",
            false => "OPERATIONS WERE LOST OR DOUBLED",
        };
        format!(
            "  {:<18} {:.0} ms without a reply (view timeout {} ms), then view {}; {loss}\n  {:<18} {}\n",
            "leader killed",
            self.gap_ms,
            self.view_timeout_ms,
            self.view,
            "per 100 ms",
            sparkline(&self.throughput_per_100ms),
        )
    }
}

/// Numbers as a line of bars; zero is a dot.
fn sparkline(values: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().max().copied().unwrap_or(0).max(1);
    let bar = |value: &u64| match value {
        0 => '·',
        value => BARS[((value * 8).div_ceil(most) as usize - 1).min(7)],
    };
    values.iter().map(bar).collect()
}

impl Report {
    /// Whether it was measured what the replicas did, and not only what their clients saw.
    pub(super) fn knows_replicas(&self) -> bool {
        self.executor != NOT_RECORDED
    }

    fn agreement(&self) -> String {
        match (self.agree, &self.apart) {
            (true, _) if self.incident.is_none() && self.byzantine.is_none() => {
                "equal state digests at all replicas".to_owned()
            }
            (true, _) => "equal state digests at all correct replicas".to_owned(),
            (false, Some(standing)) => {
                format!("STATES NOT COMPARED: not all replicas have executed the same ({standing})")
            }
            (false, None) => "STATE DIGESTS DIFFER".to_owned(),
        }
    }

    /// The report as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let rows = self.found().into_iter().chain(self.conditions());
        let mut table: String = rows
            .map(|(name, value)| format!("  {name:<18} {value}\n"))
            .collect();
        if let Some(incident) = &self.incident {
            table.push_str(&incident.rows());
        }
        if let (Some(lie), Some(share)) = (&self.byzantine, self.share_of_honest) {
            table.push_str(&format!(
                "  {:<18} {lie} (r0): {:.0} % of the honest run's throughput\n",
                "one lies",
                share * 100.0
            ));
        }
        table
    }

    /// The rows of what was found.
    fn found(&self) -> [(&'static str, String); 6] {
        let l = &self.latency_us;
        [
            (
                "throughput",
                format!("{} operations/s", grouped(self.throughput_ops_s)),
            ),
            (
                "latency",
                format!(
                    "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}",
                    time(l.p50),
                    time(l.p90),
                    time(l.p99),
                    time(l.p999),
                    time(l.max)
                ),
            ),
            (
                "CPU per operation",
                format!(
                    "{:.2} µs per replica (leader {:.2}), {:.2} µs client",
                    self.cpu_us_per_op_per_replica, self.cpu_us_per_op_leader, self.cpu_us_per_op_client
                ),
            ),
            (
                "batching",
                format!("{:.0} operations per decision", self.operations_per_decision),
            ),
            (
                "resident memory",
                format!(
                    "{:.0} → {:.0} → {:.0} MiB (start, middle, end; whole process)",
                    self.resident_mib_start, self.resident_mib_middle, self.resident_mib_end
                ),
            ),
            (
                "agreement",
                format!(
                    "{}, {} errors in {} operations",
                    self.agreement(),
                    self.errors,
                    grouped(self.operations as f64)
                ),
            ),
        ]
    }

    /// The rows of what it was found with.
    fn conditions(&self) -> [(&'static str, String); 4] {
        let pace = match self.outstanding {
            0 => format!("open loop at {} operations/s", grouped(self.rate)),
            outstanding => format!(
                "closed loop, {} operations outstanding",
                grouped(outstanding as f64)
            ),
        };
        let s = &self.shape;
        [
            (
                "cluster",
                format!(
                    "n = {}, f = {}, app {}, {} clients",
                    self.n, self.f, self.app, self.clients
                ),
            ),
            (
                "load",
                format!(
                    "{} bytes, {pace}, {:.1} s measured; {:.0}% reads{}, {:.0}% conflict, {} µs each",
                    self.payload_bytes,
                    self.seconds,
                    100.0 * s.reads,
                    if s.unordered { " beside the order" } else { "" },
                    100.0 * s.conflict,
                    self.compute_us
                ),
            ),
            (
                "modes",
                format!(
                    "auth {}, durability {}, executor {} on {} threads, {:.3} executions repeated per operation",
                    self.auth, self.durability, self.executor, self.workers, self.aborts_per_op
                ),
            ),
            (
                "topology",
                format!("{} on {} cores ({})", self.topology, self.cores, self.machine),
            ),
        ]
    }
}

/// A whole number with its digits in groups of three.
pub(in crate::tools) fn grouped(value: impl fmt::Display) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A latency; nothing takes no time at all, so that was not measured.
pub(super) fn latency(us: f64) -> String {
    match us {
        0.0 => "-".to_owned(),
        _ => time(us),
    }
}

pub(super) fn time(us: f64) -> String {
    match us {
        ..1000.0 => format!("{us:.0} µs"),
        ..10_000.0 => format!("{:.2} ms", us / 1000.0),
        _ => format!("{:.1} ms", us / 1000.0),
    }
}

/// The histogram as bars, one for each doubling of latency.
#[must_use]
pub fn draw_histogram(latency_ns: &Histogram<u64>) -> String {
    const WIDTH: u64 = 50;
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    for value in latency_ns.iter_recorded() {
        let us = value.value_iterated_to() as f64 / 1000.0;
        let upper = 2f64.powi(us.max(1.0).log2().ceil() as i32);
        match buckets.last_mut() {
            Some((bound, count)) if *bound == upper => *count += value.count_since_last_iteration(),
            _ => buckets.push((upper, value.count_since_last_iteration())),
        }
    }
    let most = buckets.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    let bars = buckets.iter().map(|(upper, count)| {
        let eighths = count * WIDTH * 8 / most;
        let mut bar = "█".repeat((eighths / 8) as usize);
        bar.push_str(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][(eighths % 8) as usize]);
        if bar.is_empty() {
            bar.push('▏');
        }
        let share = 100.0 * *count as f64 / all.max(1) as f64;
        format!("  ≤ {:>9} {bar:<50} {share:>6.2}%\n", time(*upper))
    });
    bars.collect()
}

/// The figure in the middle, the upper one of two; zero of none.
#[must_use]
pub fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let median = median([9.0, 1.0, 4.0].into_iter());
        assert!((median - 4.0).abs() < f64::EPSILON);
    }

    #[test]
    fn digits_stand_in_groups_of_three() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(999.6), "1,000");
    }
}
