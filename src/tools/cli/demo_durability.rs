//! What it costs to have every vote on disk: the same load with and without, in turn.

use std::path::Path;
use std::process::ExitCode;

use super::{CommandError, interrupts};
use crate::runtime::config::Durability;
use crate::runtime::shard::probe;
use crate::tools::load::{Report, median};

/// Runs of each kind; medians are compared.
const ROUNDS: usize = 3;

/// Has both kinds of runs take turns and compares their medians; `directory` is on the disk that is written
/// to.
pub(super) fn run(
    directory: &Path,
    run_one: impl Fn(Durability) -> Result<Report, CommandError>,
) -> Result<ExitCode, CommandError> {
    let mut reports = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (durability, reports) in [Durability::Sync, Durability::None].into_iter().zip(&mut reports) {
            reports.push(run_one(durability)?);
            interrupts::expect_none("nothing is compared")?;
        }
    }
    println!("durability   operations/s        p50        p99   CPU per operation and replica");
    for report in reports.iter().flatten() {
        println!(
            "{:<10} {:>14.0} {:>7.2} ms {:>7.2} ms {:>10.2} µs",
            report.durability,
            report.throughput_ops_s,
            report.latency_us.p50 / 1e3,
            report.latency_us.p99 / 1e3,
            report.cpu_us_per_op_per_replica
        );
    }
    let throughputs = reports
        .each_ref()
        .map(|reports| median(reports.iter().map(|report| report.throughput_ops_s)));
    let latencies = reports
        .each_ref()
        .map(|reports| median(reports.iter().map(|report| report.latency_us.p50)));
    println!(
        "medians: sync reaches {:.2} of the throughput of none, its p50 is {:.2} ms longer",
        throughputs[0] / throughputs[1],
        (latencies[0] - latencies[1]) / 1e3
    );
    let disk = probe::disk(directory)?;
    println!(
        "one block written and synced takes {} µs on this disk",
        disk.median.as_micros()
    );
    let sound = reports
        .iter()
        .flatten()
        .all(|report| report.agree && report.errors == 0);
    Ok(match sound {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
