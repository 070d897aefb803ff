use super::{Report, Results, Row};

/// Which way a case went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// More throughput, or less CPU time, and nothing worse.
    Better,
    /// Neither by more than the tolerance.
    Same,
    /// Less throughput, or more CPU time.
    Worse,
    /// Their parameters differ: the ratios show what the parameters do.
    Differs,
}

/// One case in both runs. Ratios are the second run's figure divided by the first one's.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseComparison {
    /// The case.
    pub case: String,
    /// Throughput.
    pub throughput: f64,
    /// Median latency.
    pub p50: f64,
    /// Latency that 99 of 100 stay below.
    pub p99: f64,
    /// CPU time per operation and replica.
    pub cpu: f64,
    /// Parameters that differ: name, first value, second value.
    pub differences: Vec<(String, String, String)>,
    /// Which way it went.
    pub verdict: Verdict,
}

/// Two runs beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Cases that both have, in the order of the first.
    pub cases: Vec<CaseComparison>,
    /// Cases that only the first has.
    pub only_first: Vec<String>,
    /// Cases that only the second has.
    pub only_second: Vec<String>,
    /// What differs of the machines: name, first value, second value.
    pub machine: Vec<(String, String, String)>,
    /// What differs of the runs as a whole.
    pub run: Vec<(String, String, String)>,
}

/// The keys of a report that say what was measured, not what was found.
const PARAMETERS: [&str; 18] = [
    "n",
    "f",
    "app",
    "payload_bytes",
    "outstanding",
    "rate",
    "clients",
    "auth",
    "read_level",
    "durability",
    "executor",
    "workers",
    "compute_us",
    "shape",
    "topology",
    "cores",
    "machine",
    "byzantine",
];

fn differences(first: &Report, second: &Report) -> Vec<(String, String, String)> {
    let values = |report: &Report| serde_json::to_value(report).unwrap_or_default();
    let (first_values, second_values) = (values(first), values(second));
    let mut found: Vec<_> = PARAMETERS
        .iter()
        .map(|name| (name, &first_values[name], &second_values[name]))
        .filter(|(_, first, second)| first != second)
        .map(|(name, first, second)| ((*name).to_owned(), first.to_string(), second.to_string()))
        .collect();
    let tenths = |report: &Report| format!("{:.1}", report.seconds);
    if tenths(first) != tenths(second) {
        found.push(("seconds".to_owned(), tenths(first), tenths(second)));
    }
    found
}

fn of_case(first: &Row, second: &Row, tolerance: f64) -> CaseComparison {
    let (a, b) = (&first.report, &second.report);
    let ratio = |figure: fn(&Report) -> f64| {
        let (before, after) = (figure(a), figure(b));
        // Both may be unknown: of replicas elsewhere nobody knows what they use.
        if before == after {
            1.0
        } else {
            after / before.max(f64::MIN_POSITIVE)
        }
    };
    let throughput = ratio(|report| report.throughput_ops_s);
    let cpu = ratio(|report| report.cpu_us_per_op_per_replica);
    let differences = differences(a, b);
    let verdict = if !differences.is_empty() {
        Verdict::Differs
    } else if throughput < 1.0 - tolerance || cpu > 1.0 + tolerance || b.errors > a.errors || !b.agree {
        Verdict::Worse
    } else if throughput > 1.0 + tolerance || cpu < 1.0 - tolerance {
        Verdict::Better
    } else {
        Verdict::Same
    };
    CaseComparison {
        case: first.case.clone(),
        throughput,
        p50: ratio(|report| report.latency_us.p50),
        p99: ratio(|report| report.latency_us.p99),
        cpu,
        differences,
        verdict,
    }
}

/// Compares two runs case by case. Throughput and CPU time are judged, by more than `tolerance` (0.1 is 10
/// %); latencies of a closed loop follow from its throughput and are shown only.
#[must_use]
pub fn compare(first: &Results, second: &Results, tolerance: f64) -> Comparison {
    let named = |results: &Results, case: &str| results.rows.iter().find(|row| row.case == case).cloned();
    let missing = |from: &Results, of: &Results| {
        let rows = from.rows.iter().map(|row| row.case.clone());
        rows.filter(|case| named(of, case).is_none()).collect()
    };
    let differ = |pairs: Vec<(&str, String, String)>| {
        let pairs = pairs.into_iter().filter(|(_, first, second)| first != second);
        pairs
            .map(|(name, first, second)| (name.to_owned(), first, second))
            .collect()
    };
    let cases = first
        .rows
        .iter()
        .filter_map(|row| Some((row, named(second, &row.case)?)));
    Comparison {
        cases: cases
            .map(|(row, other)| of_case(row, &other, tolerance))
            .collect(),
        only_first: missing(first, second),
        only_second: missing(second, first),
        machine: differ(vec![
            ("machine", first.machine.clone(), second.machine.clone()),
            ("cores", first.cores.to_string(), second.cores.to_string()),
        ]),
        run: differ(vec![
            ("commit", first.commit.clone(), second.commit.clone()),
            ("kernel", first.kernel.clone(), second.kernel.clone()),
            ("command", first.command.clone(), second.command.clone()),
            (
                "repeats",
                first.parameters.repeats.to_string(),
                second.parameters.repeats.to_string(),
            ),
        ]),
    }
}

impl Comparison {
    /// Whether any case is worse.
    #[must_use]
    pub fn is_worse(&self) -> bool {
        self.cases.iter().any(|case| case.verdict == Verdict::Worse)
    }

    /// The comparison as a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for (name, first, second) in self.machine.iter().chain(&self.run) {
            text.push_str(&format!("{name:<10} A {first}\n{:<10} B {second}\n", ""));
        }
        text.push_str(&format!(
            "\nB divided by A{:<30} {:>10} {:>7} {:>7} {:>7}\n",
            "", "throughput", "p50", "p99", "CPU"
        ));
        for case in &self.cases {
            let word = match case.verdict {
                Verdict::Better => "better",
                Verdict::Same => "",
                Verdict::Worse => "WORSE",
                Verdict::Differs => "other parameters",
            };
            let line = format!(
                "{:<44} {:>10.2} {:>7.2} {:>7.2} {:>7.2}  {word}",
                case.case, case.throughput, case.p50, case.p99, case.cpu
            );
            text.push_str(line.trim_end());
            text.push('\n');
            for (name, first, second) in &case.differences {
                text.push_str(&format!("  {name}: A {first}, B {second}\n"));
            }
        }
        for (which, cases) in [("A", &self.only_first), ("B", &self.only_second)] {
            for case in cases {
                text.push_str(&format!("{case:<44} only in {which}\n"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::{results, row};
    use super::*;

    #[test]
    fn what_nobody_knows_of_either_is_no_difference() {
        let mut of_bench = results(vec![row("a", "single", 1000.0)]);
        of_bench.rows[0].report.cpu_us_per_op_per_replica = 0.0;
        let same = of_case(&of_bench.rows[0], &of_bench.rows[0], 0.1);
        assert_eq!((same.cpu, same.verdict), (1.0, Verdict::Same));
    }

    #[test]
    fn a_case_is_judged_by_throughput_and_cpu_within_the_tolerance() {
        let first = results(vec![row("a", "single", 1000.0)]);
        let verdict = |throughput, cpu: f64| {
            let mut second = results(vec![row("a", "single", throughput)]);
            second.rows[0].report.cpu_us_per_op_per_replica *= cpu;
            compare(&first, &second, 0.1).cases[0].verdict
        };
        assert_eq!(verdict(950.0, 1.05), Verdict::Same);
        assert_eq!(verdict(850.0, 1.0), Verdict::Worse);
        assert_eq!(verdict(1200.0, 1.2), Verdict::Worse);
        assert_eq!(verdict(1200.0, 1.0), Verdict::Better);
    }

    #[test]
    fn other_parameters_are_named_and_not_judged() {
        let first = results(vec![row("a", "single", 1000.0)]);
        let mut second = results(vec![row("a", "single", 10.0)]);
        second.rows[0].report.durability = "none".to_owned();
        let comparison = compare(&first, &second, 0.1);
        assert_eq!(comparison.cases[0].verdict, Verdict::Differs);
        assert_eq!(comparison.cases[0].differences.len(), 1);
        assert!(
            comparison.table().contains("durability: A \"sync\", B \"none\""),
            "{}",
            comparison.table()
        );
        assert!(!comparison.is_worse());
    }

    #[test]
    fn cases_that_one_run_lacks_and_other_machines_are_listed() {
        let first = results(vec![row("a", "single", 1000.0), row("b", "single", 1.0)]);
        let mut second = results(vec![row("a", "single", 1000.0), row("c", "single", 1.0)]);
        second.cores = 64;
        let comparison = compare(&first, &second, 0.1);
        assert_eq!(comparison.only_first, ["b"]);
        assert_eq!(comparison.only_second, ["c"]);
        assert_eq!(
            comparison.machine,
            [("cores".to_owned(), "2".to_owned(), "64".to_owned())]
        );
    }
}
