use super::report::{grouped, time};
use super::{Limits, Row};

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
        "{:<CASE_WIDTH$} {:>11} {:>8} {:>8} {:>8} {:>8} {:>9.3} {:>11} {:>6}",
        row.case,
        grouped(report.throughput_ops_s),
        time(l.p50),
        time(l.p99),
        time(l.p999),
        time(l.max),
        report.aborts_per_op,
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

/// CPU time in microseconds, with as many digits as say something.
pub(super) fn cpu(us: f64) -> String {
    match us {
        ..10.0 => format!("{us:.2} µs"),
        _ => format!("{us:.1} µs"),
    }
}
