//! The process that the replica is in, as the kernel counts it.

use std::fmt;

use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::exposition::{Text, sample};
use crate::runtime::server::thread_cpu_time;

/// The version, and the commit it was built from where that is known.
const VERSION: &str = env!("ATLAS_VERSION");

/// Writes what is known of it. Several replicas of one process say the same.
pub(super) fn describe(text: &mut Text<'_>) -> fmt::Result {
    let (version, commit) = match VERSION.split_once(" (") {
        Some((version, commit)) => (version, commit.trim_end_matches(')')),
        None => (VERSION, ""),
    };
    let help = "1; its labels say which build of the program this is.";
    let mut info = text.describe("build_info", help, MetricType::Gauge)?;
    let values = [version, commit];
    sample(&mut info, &["version", "commit"], &values, &ConstGauge::new(1u64))?;
    text.gauge(
        "process_resident_memory_bytes",
        "Memory of the process that is in RAM.",
        resident_bytes(),
    )?;
    text.gauge(
        "process_open_descriptors",
        "Files and sockets that the process has open.",
        open_descriptors(),
    )?;
    let help = "CPU time of all threads of the process that live.";
    let mut time = text.describe("process_cpu_seconds", help, MetricType::Counter)?;
    let seconds = thread_cpu_time(|_| true).as_secs_f64();
    sample(&mut time, &[], &[], &ConstCounter::new(seconds))
}

/// Zero where the kernel does not say it.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}
