use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::CommandError;
use crate::tools::load::{Comparison, Group, Results, compare, page, table_head, table_row};

/// Some case is worse.
const WORSE: u8 = 1;
/// The runs cannot be compared.
const NOT_COMPARABLE: u8 = 2;

/// Show the figures of a demo, a bench or `cargo bench --bench throughput`, or compare two of them.
///
/// Exit code of a comparison: 0 when no case is worse, 1 when one is, 2 when the runs cannot be compared.
/// Throughput and CPU time are judged, of cases with equal parameters.
#[derive(Debug, Args)]
pub(super) struct ReportCommand {
    /// A file of results: what `--json` of `atlas demo`, `atlas bench` or the throughput bench wrote.
    first: PathBuf,
    /// Another one, to compare with the first.
    second: Option<PathBuf>,
    /// Write the first run's page to this file.
    #[arg(long, conflicts_with = "second")]
    html: Option<PathBuf>,
    /// Compare even though the runs were made on different machines.
    #[arg(long, requires = "second")]
    across_machines: bool,
    /// How much less throughput or more CPU time is no change, in percent.
    #[arg(long, default_value_t = 15.0, requires = "second")]
    tolerance: f64,
    /// Print JSON instead of a table.
    #[arg(long, conflicts_with = "html")]
    json: bool,
}

impl ReportCommand {
    pub(super) fn run(&self) -> Result<ExitCode, CommandError> {
        match &self.second {
            None => self.show(),
            Some(second) => self.compare(second),
        }
    }

    fn show(&self) -> Result<ExitCode, CommandError> {
        let results = Results::load(&self.first)?;
        if let Some(path) = &self.html {
            std::fs::write(path, page(&results)?).map_err(|error| format!("{}: {error}", path.display()))?;
            println!("wrote {}", path.display());
            return Ok(ExitCode::SUCCESS);
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&results)?);
            return Ok(ExitCode::SUCCESS);
        }
        println!(
            "{}, {} cores; commit {}\n{}\n\n{}",
            results.machine,
            results.cores,
            results.commit,
            results.command,
            table_head()
        );
        for group in Group::ALL {
            for (place, row) in results.group(group).enumerate() {
                if place == 0 {
                    println!("{}", group.title());
                }
                println!("{}", table_row(row, results.limits.as_ref()));
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn compare(&self, second: &Path) -> Result<ExitCode, CommandError> {
        let (a, b) = match (Results::load(&self.first), Results::load(second)) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(error), _) | (_, Err(error)) => return Ok(not_comparable(&error.to_string())),
        };
        if !(0.0..=100.0).contains(&self.tolerance) {
            return Ok(not_comparable(&format!(
                "--tolerance {}: must be from 0 to 100",
                self.tolerance
            )));
        }
        let comparison = compare(&a, &b, self.tolerance / 100.0);
        if !comparison.machine.is_empty() && !self.across_machines {
            let differences = comparison.machine.iter();
            let differences = differences.map(|(name, a, b)| format!("{name}: A {a}, B {b}"));
            return Ok(not_comparable(&format!(
                "the runs were made on different machines ({}); --across-machines compares them all the same",
                differences.collect::<Vec<_>>().join("; ")
            )));
        }
        if comparison.cases.is_empty() {
            return Ok(not_comparable("the runs have no case in common"));
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&shown(&comparison))?);
        } else {
            println!("{}", comparison.table().trim_end());
        }
        Ok(match comparison.is_worse() {
            true => ExitCode::from(WORSE),
            false => ExitCode::SUCCESS,
        })
    }
}

/// A comparison as JSON.
fn shown(comparison: &Comparison) -> serde_json::Value {
    let cases = comparison.cases.iter().map(|case| {
        serde_json::json!({
            "case": case.case,
            "verdict": format!("{:?}", case.verdict).to_lowercase(),
            "throughput": case.throughput,
            "p50": case.p50,
            "p99": case.p99,
            "cpu": case.cpu,
            "differences": case.differences,
        })
    });
    serde_json::json!({
        "is_worse": comparison.is_worse(),
        "cases": cases.collect::<Vec<_>>(),
        "only_first": comparison.only_first,
        "only_second": comparison.only_second,
        "machine": comparison.machine,
        "run": comparison.run,
    })
}

fn not_comparable(why: &str) -> ExitCode {
    eprintln!("atlas: {why}");
    ExitCode::from(NOT_COMPARABLE)
}
