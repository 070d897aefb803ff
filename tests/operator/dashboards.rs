//! What lies under `deploy` for Prometheus and Grafana names what a replica shows.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use atlas_smr_replica::admin;

use super::admin::{Asked, Exposition};
use super::shared::{alone, init};
use super::{has, skip};

const ALERTS: &str = "deploy/prometheus/atlas-alerts.yml";
const ALERTS_TEST: &str = "deploy/prometheus/atlas-alerts-test.yml";
const DASHBOARD: &str = "deploy/grafana/atlas-dashboard.json";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("atlas_")).collect()
}

/// Whether a replica shows a metric, or a histogram one of whose parts it is.
fn shows(shown: &Exposition, name: &str) -> bool {
    let parts = ["_bucket", "_sum", "_count"];
    let histogram = parts.iter().find_map(|part| name.strip_suffix(part));
    let is_histogram = |name: &str| shown.0.get(name).is_some_and(|metric| metric.kind == "histogram");
    match histogram {
        Some(name) if is_histogram(name) => true,
        // A histogram has no sample of its own name.
        _ => shown.0.contains_key(name) && !is_histogram(name),
    }
}

#[test]
fn every_metric_that_alerts_dashboards_and_pages_name_is_one_of_a_replica() {
    let _turn = alone();
    // One of several: what is about peers is there as well.
    let dir = init("kv");
    let shown = Asked::start(dir.path(), 0, &[]).scrape();
    for (name, least) in [(ALERTS, 18), (ALERTS_TEST, 16), (DASHBOARD, 75)] {
        let text = text(name);
        let names = named(&text);
        assert!(
            names.len() >= least,
            "{name} names metrics: {}: {names:?}",
            names.len()
        );
        let unknown: Vec<_> = names.iter().filter(|name| !shows(&shown, name)).collect();
        assert!(unknown.is_empty(), "{name}: there is no {unknown:?}");
    }
    let page = text("src/docs/operations.md");
    // Filters of logs have the crate's name, and a rule for names is none.
    let names = named(&page).into_iter();
    let names = names.filter(|name| !name.starts_with("atlas_smr_replica") && !name.contains("NAME"));
    let unknown: Vec<_> = names.filter(|name| !shown.0.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "there is no {unknown:?}");
    for name in [
        admin::names::ORDERING_PROTOCOL_POLL_TIME,
        admin::names::TIMEOUT_PROCESS_TIME,
        admin::names::OP_MESSAGES_PROCESSED,
        admin::names::REPLICA_PROTOCOL_RESP_PROCESS_TIME,
        admin::names::REPLICA_ORDERED_RQS_PROCESSED,
        admin::names::DECISION_LOG_PROCESSED,
        admin::names::RUN_LATENCY_TIME,
        admin::names::EXECUTION_TIME_TAKEN,
        admin::names::REFUSALS,
    ] {
        assert!(shown.0.contains_key(name), "{name}");
    }
}

/// The queries of a dashboard's panels.
fn queries(dashboard: &serde_json::Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_dashboard_is_one_that_grafana_imports() {
    let dashboard: serde_json::Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    for key in ["uid", "title", "schemaVersion", "templating", "panels", "time"] {
        assert!(!dashboard[key].is_null(), "{key}");
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
    let mut places = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let title = &panel["title"];
        assert!(
            at("x") + at("w") <= 24 && at("h") > 0,
            "{title} is within the page"
        );
        assert!(places.insert((at("x"), at("y"))), "{title} lies on another panel");
        let is_row = panel["type"] == "row";
        assert!(is_row || panel["datasource"]["uid"] == "${datasource}", "{title}");
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<&str> = variables
        .iter()
        .map(|variable| variable["name"].as_str().unwrap())
        .collect();
    assert_eq!(variables, ["datasource", "job", "node"]);
    for query in queries(&dashboard) {
        assert!(query.contains("job=~\"$job\""), "{query} is of one cluster");
    }
}

fn promtool(arguments: &[&str], input: &str) {
    let mut tool = Command::new("promtool")
        .args(arguments)
        .current_dir(file("deploy/prometheus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = tool.wait_with_output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    assert!(
        ended.status.success(),
        "promtool {arguments:?}: {}",
        String::from_utf8_lossy(&said)
    );
}

/// Where it is installed, Prometheus' own tool reads them too, and tries each alert.
#[test]
fn promtool_finds_nothing_wrong_with_metrics_alerts_and_queries() {
    if !has("promtool") {
        return skip(
            "metrics, alerts and the dashboard's queries as promtool reads them",
            "promtool is not installed (Debian: apt install prometheus)",
        );
    }
    let _turn = alone();
    let dir = init("kv");
    let (_, metrics) = Asked::start(dir.path(), 0, &[]).get("/metrics");
    promtool(&["check", "metrics"], &metrics);
    promtool(&["check", "rules", "atlas-alerts.yml"], "");
    promtool(&["test", "rules", "atlas-alerts-test.yml"], "");
    // A rule for each query of the dashboard: in JSON, which is YAML as well.
    let dashboard: serde_json::Value = serde_json::from_str(&text(DASHBOARD)).unwrap();
    let rules = queries(&dashboard)
        .into_iter()
        .enumerate()
        .map(|(number, query)| {
            let query = query.replace("$__rate_interval", "1m").replace("$job", "atlas");
            let query = query.replace("$node", "r.*");
            assert!(!query.contains('$'), "{query}");
            serde_json::json!({ "record": format!("query{number}"), "expr": query })
        });
    let rules: Vec<serde_json::Value> = rules.collect();
    let group = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    let path = dir.path().join("queries.yml");
    std::fs::write(&path, group.to_string()).unwrap();
    promtool(&["check", "rules", path.to_str().unwrap()], "");
}

/// An alert that nothing tries may never fire.
#[test]
fn every_alert_has_a_test_that_has_it_fire() {
    let (alerts, tests) = (text(ALERTS), text(ALERTS_TEST));
    let names: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(names.len() >= 15, "{names:?}");
    let is_tried = |name: &&&str| {
        let ways = [format!("alertname=\"{name}\""), format!("alertname: {name}\n")];
        ways.iter().any(|way| tests.contains(way))
    };
    let untried: Vec<_> = names.iter().filter(|name| !is_tried(name)).collect();
    assert!(untried.is_empty(), "nothing tries {untried:?}");
}
