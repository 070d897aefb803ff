//! What commands say of wrong files and arguments, and what they leave when they are interrupted.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use super::shared::{alone, status};
use super::{atlas, complaint, eventually, output, serving, wait_for_end};

fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = output(&["init", "--clients", "1", "--out", dir.path().to_str().unwrap()]);
    assert!(made.status.success(), "{}", complaint(&made));
    dir
}

fn change(dir: &Path, file: &str, change: impl Fn(&str) -> String) {
    let path = dir.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(path, change(&text)).unwrap();
}

#[test]
fn wrong_files_are_refused_with_what_is_wrong_and_where() {
    let lines = |text: &str, start: &str| -> Vec<usize> {
        let lines = text.lines().enumerate();
        lines
            .filter(|(_, line)| line.starts_with(start))
            .map(|(index, _)| index + 1)
            .collect()
    };
    type Edit = fn(&Path);
    let cases: [(&str, Edit, &[&str], &str); 7] = [
        (
            "r0.toml",
            |_| (),
            &["run", "--config", "c0.toml"],
            "this is a client's file; name a replica's file instead",
        ),
        (
            "r0.toml",
            |_| (),
            &["client", "--config", "r0.toml", "get", "k"],
            "this is a replica's file; name a client's file",
        ),
        (
            "r0.toml",
            |_| (),
            &["status", "--config", "cluster.toml"],
            "this is a cluster's file; name a client's file",
        ),
        (
            "r0.toml",
            |dir| {
                change(dir, "r0.toml", |text| {
                    text.replacen("# listen = ", "listen = \"foo\" # ", 1)
                })
            },
            &["config", "check", "r0.toml"],
            "listen = foo: must be host:port",
        ),
        (
            "r0.toml",
            |dir| {
                let shards = "[[topology.shards]]\nroles = [\"network\", \"preprocess\", \"consensus\", \"execution\"]\ncore = 4095\n";
                change(dir, "r0.toml", |text| format!("{text}\n{shards}"));
            },
            &["config", "check", "r0.toml"],
            "topology: ",
        ),
        (
            "r0.toml",
            |dir| change(dir, "r0.toml", |text| text.replace("r0-data", "r1-data")),
            &["config", "check", "r0.toml"],
            "belongs to node r1, expected r0",
        ),
        (
            "cluster.toml",
            |dir| change(dir, "cluster.toml", |text| text.replace(":7001\"", ":7000\"")),
            &["config", "check", "cluster.toml"],
            "replica 0 has the same address",
        ),
    ];
    for (file, edit, arguments, expected) in cases {
        let dir = made();
        edit(dir.path());
        let refused = atlas(arguments).current_dir(dir.path()).output().unwrap();
        let said = complaint(&refused);
        assert!(!refused.status.success(), "{arguments:?}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
        let text = std::fs::read_to_string(dir.path().join(file)).unwrap();
        let place = match expected {
            "listen = foo: must be host:port" => lines(&text, "listen = ")[0],
            // Of two that are the same, the second is one too many.
            "replica 0 has the same address" => lines(&text, "address = ")[1],
            _ => continue,
        };
        assert!(said.contains(&format!("{file}:{place}: ")), "{said}");
    }
}

#[test]
fn arguments_that_mean_nothing_are_refused_and_those_that_mean_little_are_said() {
    for arguments in [
        &["demo", "--reads", "200"][..],
        &["demo", "--conflict", "300"],
        &["demo", "--zipf", "7"],
        &["bench", "--config", "c.toml", "--reads=-1"],
        &["bench", "--config", "c.toml", "--zipf", "1"],
    ] {
        let refused = output(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(complaint(&refused).contains("must be from 0"), "{arguments:?}");
    }
    let unwritable = output(&["demo", "--json", "/nonexistent/figures.json"]);
    assert_eq!(unwritable.status.code(), Some(1));
    let said = complaint(&unwritable);
    assert!(
        said.contains("/nonexistent/figures.json: cannot be written"),
        "{said}"
    );
    assert!(unwritable.stdout.is_empty(), "nothing is measured first");
    let anywhere = output(&["init", "--base-port", "0", "--out", "/nonexistent"]);
    assert_eq!(anywhere.status.code(), Some(2), "nobody finds a port at random");
    for option in ["--outstanding", "--keys", "--clients"] {
        let refused = output(&["demo", option, "0"]);
        assert_eq!(refused.status.code(), Some(2), "{option}");
        assert!(complaint(&refused).contains("invalid value '0'"), "{option}");
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let nowhere = output(&["init", "--host", "", "--out", out]);
    assert!(!nowhere.status.success() && complaint(&nowhere).contains("--host \"\": is no host"));
    let small = output(&["init", "--replicas", "3", "--out", out]);
    assert!(
        small.status.success(),
        "the failed attempt left nothing: {}",
        complaint(&small)
    );
    assert!(String::from_utf8_lossy(&small.stdout).contains("3 replicas tolerate no fault"));
}

#[test]
fn a_bench_that_is_interrupted_shows_what_it_measured_and_its_file_is_a_report() {
    let _turn = alone();
    let (dir, _replica) = serving();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (config, json) = (at("c0.toml"), at("bench.json"));
    let bench = atlas(&[
        "bench",
        "--config",
        &config,
        "--seconds",
        "3600",
        "--outstanding",
        "8",
        "--json",
        &json,
    ])
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn();
    let mut bench = bench.unwrap();
    let mut said = BufReader::new(bench.stderr.take().unwrap()).lines();
    let measures = said.any(|line| line.unwrap().contains("measuring"));
    assert!(measures, "it ended before it measured");
    let executed = || status(dir.path(), 0).map_or(0, |row| row["operations"].as_u64().unwrap());
    let before = executed();
    eventually("something is measured", || executed() > before + 100);
    let id = bench.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    assert!(wait_for_end(&mut bench).success());
    let figures: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(figures["errors"], 0);
    let report = output(&["report", &json]);
    assert!(report.status.success(), "{}", complaint(&report));
    let shown = String::from_utf8_lossy(&report.stdout).into_owned();
    assert!(
        shown.contains("\natlas bench\n") && shown.contains("Single cases"),
        "{shown}"
    );
    let case = shown.lines().find(|line| line.starts_with("bench ")).unwrap();
    // What the replicas did is theirs to know.
    let unknown = case.split_whitespace().rev().take(2).collect::<Vec<_>>();
    assert_eq!(unknown, ["-", "-"], "{case}");
    assert!(!shown.contains("demo") && !case.contains(" 0.00"), "{shown}");
}

#[test]
fn completions_and_manual_pages_know_every_subcommand() {
    let script = output(&["completions", "bash"]);
    let script = String::from_utf8_lossy(&script.stdout).into_owned();
    let dir = tempfile::tempdir().unwrap();
    let written = output(&["man", "--out", dir.path().to_str().unwrap()]);
    assert!(written.status.success(), "{}", complaint(&written));
    for subcommand in [
        "run",
        "up",
        "init",
        "status",
        "top",
        "inspect",
        "doctor",
        "completions",
        "man",
    ] {
        assert!(script.contains(&format!("__{subcommand}")), "{subcommand}");
        assert!(
            dir.path().join(format!("atlas-{subcommand}.1")).exists(),
            "{subcommand}"
        );
    }
    for shell in ["zsh", "fish"] {
        assert!(!output(&["completions", shell]).stdout.is_empty());
    }
}
