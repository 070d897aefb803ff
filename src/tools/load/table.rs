use super::report::{grouped, latency};
use super::{Limits, Report, Row};

/// How wide the names of cases are.
const CASE_WIDTH: usize = 44;

/// The heading of a table of cases.
#[must_use]
pub fn table_head() -> String {
    format!(
        "{:<CASE_WIDTH$} {:>11} {:>8} {:>8} {:>8} {:>8} {:>9} {:>11} {:>6}",
        "case", "ops/s", "p50", "p99", "p99.9", "max", "aborts/op", "CPU/op·repl", "floor"
    )
}

/// One case as a line of the table. The last column is the share of the CPU time that the machine's own
/// limits account for.
#[must_use]
pub fn table_row(row: &Row, limits: Option<&Limits>) -> String {
    let (report, l) = (&row.report, &row.report.latency_us);
    let share = limits.map(|limits| limits.share(report));
    let mut line = format!(
        "{:<CASE_WIDTH$} {:>11} {:>8} {:>8} {:>8} {:>8} {:>9} {:>11} {:>6}",
        row.case,
        grouped(report.throughput_ops_s),
        latency(l.p50),
        latency(l.p99),
        latency(l.p999),
        latency(l.max),
        aborts(report),
        cpu(report.cpu_us_per_op_per_replica),
        share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share)),
    );
    if report.errors > 0 {
        line.push_str(&format!("  {} ERRORS", report.errors));
    }
    if !report.agree {
        line.push_str(match report.apart {
            Some(_) => "  STATES NOT COMPARED",
            None => "  STATES DIFFER",
        });
    }
    line
}

/// Executions of no use per operation, where anybody counted them.
pub(super) fn aborts(report: &Report) -> String {
    match report.knows_replicas() {
        true => format!("{:.3}", report.aborts_per_op),
        false => "-".to_owned(),
    }
}

/// CPU time in microseconds, with as many digits as say something; nothing takes none, so that was not
/// measured.
pub(super) fn cpu(us: f64) -> String {
    match us {
        0.0 => "-".to_owned(),
        ..10.0 => format!("{us:.2} µs"),
        _ => format!("{us:.1} µs"),
    }
}
