use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::hdr::{self, HdrError};
use super::{Limits, Report, machine};

/// The version of the file.
const FORMAT: u32 = 1;

/// Which question a case answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The execution models under one load: conflict × compute × payload.
    Models,
    /// The same with a single replica, which has all cores for itself.
    Alone,
    /// Reads beside the order against reads in order.
    Reads,
    /// Latency at given rates, open loop.
    Sweep,
    /// Single cases: authentication, few and many clients, other services.
    Cases,
}

impl Group {
    /// All of them, in the order they are shown.
    pub const ALL: [Self; 5] = [Self::Models, Self::Alone, Self::Reads, Self::Sweep, Self::Cases];

    /// What the group shows, as a heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Models => "Execution models",
            Self::Alone => "One replica with all cores for itself (n = 1, f = 0)",
            Self::Reads => "Reads in order and beside the order",
            Self::Sweep => "Latency at a given rate (open loop)",
            Self::Cases => "Single cases",
        }
    }
}

/// One measured case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name: the same in every run of the bench.
    pub case: String,
    /// Which question it answers.
    pub group: Group,
    /// The execution model it stands for, where models are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What was found, with all parameters: the keys of the demo's JSON.
    #[serde(flatten)]
    pub report: Report,
    /// Latencies in nanoseconds, as an interval log holds them; empty when they were not kept.
    #[serde(default)]
    pub latency_histogram: String,
}

impl Row {
    /// The latencies; `None` when they were not kept.
    ///
    /// # Errors
    /// When the text is no histogram.
    pub fn histogram(&self) -> Result<Option<Histogram<u64>>, HdrError> {
        match self.latency_histogram.as_str() {
            "" => Ok(None),
            text => hdr::decode(text).map(Some),
        }
    }
}

/// What every case of a run has in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// Measured time of each case, in seconds.
    pub seconds: f64,
    /// Time before measuring, in seconds.
    pub warm_up_seconds: f64,
    /// Runs of each case, of which the one with the median throughput is shown.
    pub repeats: usize,
    /// What is on disk before a vote or a reply leaves.
    pub durability: String,
}

/// One run of the bench, with what is needed to run it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The version of this file.
    pub format: u32,
    /// The command.
    pub command: String,
    /// The commit it ran on.
    pub commit: String,
    /// The processor.
    pub machine: String,
    /// Cores the process could use.
    pub cores: usize,
    /// The kernel.
    pub kernel: String,
    /// What every case has in common.
    pub parameters: Parameters,
    /// The machine's own limits, measured in the same run.
    #[serde(default)]
    pub limits: Option<Limits>,
    /// The cases.
    pub rows: Vec<Row>,
}

/// Why a file of results cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The file cannot be reached.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error(
        "{path}: neither results of the throughput bench nor figures of `atlas demo` or `atlas bench`: {source}"
    )]
    Content {
        /// The file.
        path: String,
        /// Why.
        source: serde_json::Error,
    },
    /// It was written by a later version.
    #[error("{path}: format {found}, this program reads {FORMAT}")]
    Format {
        /// The file.
        path: String,
        /// Its format.
        found: u32,
    },
}

impl Results {
    /// No results yet, on this machine and commit.
    #[must_use]
    pub fn new(command: String, parameters: Parameters, limits: Option<Limits>) -> Self {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            format: FORMAT,
            command,
            commit: commit(),
            machine: machine(),
            cores: core_affinity::get_core_ids().map_or(0, |cores| cores.len()),
            kernel: kernel.trim().to_owned(),
            parameters,
            limits,
            rows: Vec::new(),
        }
    }

    /// The cases of one group, in order.
    pub fn group(&self, group: Group) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.group == group)
    }

    /// Reads a file of results, or the JSON of one demo or bench as results with one case.
    ///
    /// # Errors
    /// When it is neither.
    pub fn load(path: &Path) -> Result<Self, ResultsError> {
        let name = || path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| ResultsError::File { path: name(), source })?;
        let bad = |source| ResultsError::Content { path: name(), source };
        let mut value: serde_json::Value = serde_json::from_str(&text).map_err(bad)?;
        let is_of_bench = value.get("errors").is_some() && value.get("agree").is_none();
        let what = match is_of_bench {
            true => "bench",
            false => "demo",
        };
        if is_of_bench {
            complete_bench(&mut value);
        }
        if value.get("rows").is_none() {
            return serde_json::from_value(value)
                .map(|report| Self::of_one(report, what))
                .map_err(bad);
        }
        let results: Self = serde_json::from_value(value).map_err(bad)?;
        match results.format {
            FORMAT => Ok(results),
            found => Err(ResultsError::Format { path: name(), found }),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ResultsError> {
        let name = || path.display().to_string();
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| ResultsError::Content { path: name(), source })?;
        std::fs::write(path, text + "\n").map_err(|source| ResultsError::File { path: name(), source })
    }

    fn of_one(report: Report, what: &str) -> Self {
        Self {
            format: FORMAT,
            command: format!("atlas {what}"),
            commit: NOT_RECORDED.to_owned(),
            machine: report.machine.clone(),
            cores: report.cores,
            kernel: NOT_RECORDED.to_owned(),
            parameters: Parameters {
                seconds: report.seconds,
                warm_up_seconds: 1.0,
                repeats: 1,
                durability: report.durability.clone(),
            },
            limits: None,
            rows: vec![Row {
                case: what.to_owned(),
                group: Group::Cases,
                model: None,
                report,
                latency_histogram: String::new(),
            }],
        }
    }
}

/// The commit in the working directory, marked when files differ from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = std::process::Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let is_clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| text.is_empty());
    match is_clean {
        true => commit,
        false => commit + " with changes",
    }
}

/// What stands for a word that nobody wrote down.
pub(super) const NOT_RECORDED: &str = "not recorded";

/// Adds to the figures of `atlas bench` what a load cannot see of the cluster that it measures, as not
/// recorded.
fn complete_bench(value: &mut serde_json::Value) {
    let unseen = serde_json::json!({
        "agree": true, "app": NOT_RECORDED, "aborts_per_op": 0.0, "compute_us": 0.0, "cores": 0, "cpu_us_per_op_leader": 0.0,
        "cpu_us_per_op_per_replica": 0.0, "decisions": 0, "durability": NOT_RECORDED, "executor": NOT_RECORDED,
        "machine": NOT_RECORDED, "operations_per_decision": 0.0, "resident_mib_end": 0.0, "resident_mib_middle": 0.0,
        "resident_mib_start": 0.0, "shape": super::Shape::default(), "topology": NOT_RECORDED, "workers": 0,
    });
    let (Some(found), Some(unseen)) = (value.as_object_mut(), unseen.as_object()) else {
        return;
    };
    if found.get("rate").is_none_or(serde_json::Value::is_null) {
        found.insert("rate".to_owned(), 0.0.into());
    }
    for (key, unseen) in unseen {
        found.entry(key.clone()).or_insert_with(|| unseen.clone());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{LatencyReport, Shape};
    use super::*;

    pub(in super::super) fn report(throughput_ops_s: f64) -> Report {
        let latency_us = LatencyReport {
            p50: 1000.0,
            p90: 2000.0,
            p99: 3000.0,
            p999: 4000.0,
            max: 5000.0,
        };
        Report {
            agree: true,
            apart: None,
            errors: 0,
            operations: 10_000,
            throughput_ops_s,
            latency_us,
            cpu_us_per_op_per_replica: 2.0,
            cpu_us_per_op_leader: 2.5,
            cpu_us_per_op_client: 0.5,
            resident_mib_start: 100.0,
            resident_mib_middle: 100.0,
            resident_mib_end: 100.0,
            decisions: 100,
            operations_per_decision: 100.0,
            operations_per_frame: 50.0,
            messages_per_op_per_replica: 0.1,
            log_syncs_per_s: 500.0,
            n: 4,
            f: 1,
            app: "bank".to_owned(),
            payload_bytes: 64,
            outstanding: 1024,
            rate: 0.0,
            clients: 4,
            auth: "mac".to_owned(),
            read_level: "ordered".to_owned(),
            durability: "sync".to_owned(),
            executor: "single".to_owned(),
            workers: 1,
            compute_us: 20.0,
            shape: Shape::default(),
            aborts_per_op: 0.0,
            topology: "all".to_owned(),
            cores: 2,
            machine: "a processor".to_owned(),
            seconds: 1.0,
            byzantine: None,
            share_of_honest: None,
            incident: None,
        }
    }

    pub(in super::super) fn row(case: &str, model: &str, throughput_ops_s: f64) -> Row {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap();
        (1..100u64).for_each(|value| histogram.record(value * 100_000).unwrap());
        Row {
            case: case.to_owned(),
            group: Group::Models,
            model: Some(model.to_owned()),
            report: report(throughput_ops_s),
            latency_histogram: hdr::encode(&histogram).unwrap(),
        }
    }

    pub(in super::super) fn results(rows: Vec<Row>) -> Results {
        let parameters = Parameters {
            seconds: 1.0,
            warm_up_seconds: 0.5,
            repeats: 1,
            durability: "sync".to_owned(),
        };
        Results {
            machine: "a processor".to_owned(),
            cores: 2,
            rows,
            ..Results::new("a command".to_owned(), parameters, None)
        }
    }

    #[test]
    fn results_come_back_from_their_file_and_each_row_has_the_keys_of_the_demo() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.json");
        let results = results(vec![row("a", "single", 1000.0)]);
        results.save(&path).unwrap();
        assert_eq!(Results::load(&path).unwrap(), results);
        let text = std::fs::read_to_string(&path).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let demo = serde_json::to_value(&results.rows[0].report).unwrap();
        for (key, value_of_demo) in demo.as_object().unwrap() {
            assert_eq!(&value["rows"][0][key], value_of_demo, "{key}");
        }
        for key in ["machine", "command", "parameters", "commit"] {
            assert!(value.get(key).is_some(), "{key}");
        }
    }

    #[test]
    fn the_json_of_a_demo_is_a_run_of_one_case() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("demo.json");
        std::fs::write(&path, serde_json::to_string(&report(5.0)).unwrap()).unwrap();
        let results = Results::load(&path).unwrap();
        assert_eq!(results.rows.len(), 1);
        assert_eq!(results.rows[0].report, report(5.0));
    }

    #[test]
    fn files_that_hold_no_results_are_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("other.json");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Results::load(&path).unwrap_err().to_string()
        };
        assert!(refused("{").contains("other.json"));
        assert!(refused("{\"rows\": 3}").contains("neither results"));
        let mut later = results(Vec::new());
        later.format = 2;
        assert!(refused(&serde_json::to_string(&later).unwrap()).contains("format 2"));
        assert!(
            Results::load(&directory.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("none")
        );
    }
}
