//! What scripts and supervisors rely on: exit codes, signals, versions, JSON. The table of
//! `src/docs/operations.md`.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::shared::{Replica, alone, connect, init, set};
use super::{
    atlas, complaint, eventually, ignores_hangups, last_words, lone, output, run, serving, skip, wait_for_end,
};

/// A command in a directory that has a cluster of one in it, which runs; the file `bad.toml`, and nothing
/// called `missing`.
struct Case(&'static str, i32);

#[test]
fn every_command_ends_with_the_exit_code_that_is_documented() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    std::fs::write(dir.path().join("bad.toml"), "node = 0\nnonsense = 1\n").unwrap();
    let mut replica = Replica::start(&dir.path().join("r0.toml"));
    replica.wait_ready();
    let check = |Case(line, code): &Case| {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let ended = atlas(&arguments).current_dir(dir.path()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), complaint(&ended));
        assert_eq!(ended.status.code(), Some(*code), "atlas {line}: {said}");
        assert!(!said.is_empty(), "atlas {line} says something");
    };
    let running = [
        Case("--help", 0),
        Case("--version", 0),
        Case("", 2),
        Case("nonsense", 2),
        Case("run", 2),
        Case("run --config missing.toml", 1),
        Case("run --config bad.toml", 1),
        Case("run --config r0.toml", 1),
        Case("config check r0.toml", 0),
        Case("config check bad.toml", 1),
        Case("client --config c0.toml put key value", 0),
        Case("client --config c0.toml get key", 0),
        Case("client --config c0.toml get missing", 1),
        Case("status --config c0.toml", 0),
        Case("status --config missing.toml", 1),
        Case("health --config r0.toml", 0),
        Case("health --ready --config r0.toml", 0),
        // Nothing listens at port 9, and a test has no terminal.
        Case("top --once --interval-ms 100 --admin 127.0.0.1:9", 1),
        Case("top --admin 127.0.0.1:9", 1),
        Case("top --once missing", 1),
        Case("top --admin nonsense", 2),
        Case("top . --admin 127.0.0.1:9", 2),
        Case("inspect superblock r0-data", 0),
        Case("inspect integrity r0-data", 0),
        Case("inspect integrity missing", 2),
        Case("report missing.json", 1),
        Case("report missing.json missing.json", 2),
        Case("init --out .", 1),
        Case("up . --replicas 2", 1),
        Case("sim --seed 1 --profile net", 0),
    ];
    running.iter().for_each(check);
    drop(replica);
    let stopped = [
        Case("health --config r0.toml", 1),
        Case("status --config c0.toml", 2),
    ];
    stopped.iter().for_each(check);
}

#[test]
fn what_shows_a_state_shows_it_as_json_when_it_is_asked_to() {
    let _turn = alone();
    let (dir, _replica) = serving();
    let bench = "bench --config c0.toml --seconds 1 --outstanding 4 --json bench.json";
    let arguments: Vec<&str> = bench.split_whitespace().collect();
    let measured = atlas(&arguments).current_dir(dir.path()).output().unwrap();
    assert!(measured.status.success(), "{}", complaint(&measured));
    for line in [
        "status --json --config c0.toml",
        "health --json --config r0.toml",
        "doctor --json",
        "config check --json r0.toml",
        "config check --json c0.toml",
        "config check --json cluster.toml",
        "inspect superblock --json r0-data",
        "inspect log --json r0-data",
        "inspect snapshot --json r0-data",
        "inspect integrity --json r0-data",
        "inspect diff --json r0-data r0-data",
        "report --json bench.json",
        "report --json bench.json bench.json",
        "sim --json --seeds 0..2 --profile net",
    ] {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        let shown = atlas(&arguments).current_dir(dir.path()).output().unwrap();
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(
            shown.status.success(),
            "atlas {line}: {text}{}",
            complaint(&shown)
        );
        let read: Result<serde_json::Value, _> = serde_json::from_str(&text);
        let read = read.unwrap_or_else(|error| panic!("atlas {line}: {error}: {text}"));
        let is_empty = read.as_object().is_some_and(|object| object.is_empty());
        assert!(
            read.is_array() || (read.is_object() && !is_empty),
            "atlas {line}: {text}"
        );
    }
}

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
    assert!(sent.unwrap().success());
}

/// A replica that runs, with what it says on standard error kept for its end.
fn started(dir: &Path) -> Replica {
    let mut command = run(dir, 0);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut replica = Replica(child.unwrap());
    replica.wait_ready();
    replica
}

#[test]
fn signals_that_end_a_replica_drain_it_and_one_that_has_it_reload_is_answered() {
    if ignores_hangups() {
        return skip(
            "a replica that is asked to reload",
            "hangups are ignored here (nohup)",
        );
    }
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    for name in ["TERM", "INT"] {
        let mut replica = started(dir.path());
        signal(&replica.0, "HUP");
        let client = connect(dir.path(), 0);
        let put = atlas_smr_replica::execution::apps::kv::put(b"k", b"v").unwrap();
        client.call_blocking(put).unwrap();
        let mut stderr = replica.0.stderr.take().unwrap();
        let mut byte = [0];
        // It has answered before it is told to end.
        std::io::Read::read_exact(&mut stderr, &mut byte).unwrap();
        signal(&replica.0, name);
        let mut said = String::from_utf8(byte.to_vec()).unwrap();
        std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
        assert!(wait_for_end(&mut replica.0).success(), "{name}: {said}");
        assert!(
            said.contains("SIGHUP: the files were read again: log filter warn"),
            "{name}: {said}"
        );
    }
}

#[test]
fn a_replica_whose_parent_ignores_hangups_ignores_them() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let binary = env!("CARGO_BIN_EXE_atlas");
    let line = format!(
        "trap '' HUP; exec {binary} run --no-pin --config {}",
        dir.path().join("r0.toml").display()
    );
    let child = Command::new("sh")
        .args(["-c", &line])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut replica = Replica(child.unwrap());
    replica.wait_ready();
    signal(&replica.0, "HUP");
    connect(dir.path(), 0);
    signal(&replica.0, "TERM");
    let (status, said) = last_words(std::mem::replace(
        &mut replica.0,
        atlas(&["--version"]).spawn().unwrap(),
    ));
    assert!(status.success() && !said.contains("SIGHUP"), "{said}");
}

#[test]
fn a_second_interrupt_ends_a_replica_at_once_whatever_it_waits_for() {
    let _turn = alone();
    let dir = init("kv");
    // Two of four decide nothing: what a client asks for is never finished, and draining takes as long as it
    // may.
    let mut replicas: Vec<Replica> = (0..2)
        .map(|node| Replica::start(&dir.path().join(format!("r{node}.toml"))))
        .collect();
    let client = connect(dir.path(), 0);
    let put = atlas_smr_replica::execution::apps::kv::put(b"k", b"v").unwrap();
    std::thread::spawn(move || client.call_blocking(put));
    let health = |key: &str| {
        let config = dir.path().join("r0.toml");
        let asked = output(&["health", "--json", "--config", config.to_str().unwrap()]);
        let answer: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        answer[key].clone()
    };
    eventually("the client is linked", || {
        health("client_links").as_u64() >= Some(1)
    });
    signal(&replicas[0].0, "INT");
    eventually("it drains", || health("draining") == true);
    signal(&replicas[0].0, "INT");
    assert_eq!(wait_for_end(&mut replicas[0].0).code(), Some(130));
}

#[test]
fn the_version_says_what_it_was_built_from() {
    let shown = output(&["--version"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let expected = format!("atlas {} (built for development)\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(shown, expected, "a release names its commit");

    // The build script by itself, on source trees of every kind.
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("build");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let compiled = Command::new("rustc")
        .args(["--edition", "2024", "-o"])
        .args([&script, &source])
        .status();
    assert!(compiled.unwrap().success());
    let version = |tree: &Path, commit: &str| {
        let built = Command::new(&script)
            .current_dir(tree)
            .env("CARGO_MANIFEST_DIR", tree)
            .env("CARGO_PKG_VERSION", "1.2.3")
            .env("PROFILE", "release")
            .env("ATLAS_COMMIT", commit)
            .output()
            .unwrap();
        assert!(built.status.success());
        let said = String::from_utf8(built.stdout).unwrap();
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("cargo::rustc-env=ATLAS_VERSION="));
        line.unwrap().to_owned()
    };
    let tree = dir.path().join("tree");
    std::fs::create_dir_all(tree.join("src")).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command
            .current_dir(&tree)
            .args(["-c", "user.name=n", "-c", "user.email=e"])
            .args(arguments);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", complaint(&done));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(
        version(&tree, ""),
        "1.2.3",
        "no repository, and nothing else that tells"
    );
    assert_eq!(version(&tree, "abc"), "1.2.3 (abc)");
    let info = r#"{"git": {"sha1": "0123456789abcdef0123456789abcdef01234567"}}"#;
    std::fs::write(tree.join(".cargo_vcs_info.json"), info).unwrap();
    assert_eq!(version(&tree, ""), "1.2.3 (0123456789ab)", "a published crate");
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "first"]);
    let commit = git(&["rev-parse", "--short=12", "HEAD"]);
    assert_eq!(version(&tree, ""), format!("1.2.3 ({commit})"));
    let inner = tree.join("src");
    assert_eq!(
        version(&inner, ""),
        "1.2.3",
        "the commit of a repository around it is not its own"
    );
    std::fs::write(tree.join(".cargo_vcs_info.json"), "changed").unwrap();
    assert_eq!(version(&tree, ""), format!("1.2.3 ({commit}-dirty)"));
}

#[test]
fn a_replica_on_a_host_of_its_own_data_directory_answers_for_its_health() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let config = dir.path().join("r0.toml");
    let asked = |more: &[&str]| {
        let mut command = atlas(&["health"]);
        command.args(more).env("ATLAS_CONFIG", &config).output().unwrap()
    };
    let nobody = asked(&[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(complaint(&nobody).contains("no replica runs with this data directory"));
    let mut replica = Replica::start(&config);
    replica.wait_ready();
    let well = asked(&["--ready"]);
    assert!(well.status.success(), "{}", complaint(&well));
    assert!(String::from_utf8_lossy(&well.stdout).starts_with("READY: r0, "));
    // As a killed one leaves it.
    drop(replica);
    let gone = asked(&[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(complaint(&gone).contains("no replica runs with this data directory"));
    // Without a quorum it is well, and not ready.
    let other = init("kv");
    set(other.path(), "r0.toml", "node = 0", "node = 0");
    let _one = Replica::start(&other.path().join("r0.toml"));
    let asked = |more: &[&str]| {
        let mut command = atlas(&["health"]);
        let config = other.path().join("r0.toml");
        command.args(more).env("ATLAS_CONFIG", config).output().unwrap()
    };
    eventually("it answers", || asked(&[]).status.success());
    assert!(String::from_utf8_lossy(&asked(&[]).stdout).starts_with("WAITS: r0, "));
    assert_eq!(asked(&["--ready"]).status.code(), Some(1));
}
