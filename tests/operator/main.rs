//! What operators, their hosts and strangers do to replicas, and what is said and done about it.

#[path = "../shared/mod.rs"]
mod shared;

mod admin;
mod commands;
mod conventions;
mod dashboards;
mod deployed;
mod descriptors;
mod directories;
mod documented;
mod flight;
mod hosts;
mod interrupted;
mod links;
mod loads;
mod logs;
mod messages;
mod readiness;
mod small_hosts;
mod status;
mod supervised;
mod top;
mod up;
mod values;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a busy machine; a test that waits so long has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// Waits until something is so.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LIMIT, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says that something cannot be tried here. CI lists these at its end: `ATLAS_SKIPPED` names the file for
/// them.
fn skip(what: &str, why: &str) {
    let line = format!("skipped {what}: {why}\n");
    eprint!("{line}");
    if let Some(list) = std::env::var_os("ATLAS_SKIPPED") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(list);
        file.unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// Whether whoever started these tests has hangups ignored (nohup): then what they start ignores them too.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap() & 1 == 1
}

/// Whether a program is installed.
fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn atlas(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atlas"));
    command.args(arguments);
    command
}

/// `atlas run` of a replica whose file this is.
fn run(dir: &Path, node: usize) -> Command {
    let config = dir.join(format!("r{node}.toml"));
    atlas(&["run", "--no-pin", "--config", config.to_str().unwrap()])
}

fn output(arguments: &[&str]) -> Output {
    atlas(arguments).output().unwrap()
}

/// What a command says on standard error.
fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn terminate(child: &Child) {
    let id = child.id().to_string();
    assert!(Command::new("kill").arg(id).status().unwrap().success());
}

/// Waits for the end of a process.
fn wait_for_end(child: &mut Child) -> ExitStatus {
    let mut ended = None;
    eventually("the process ends", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    ended.unwrap()
}

/// Waits for the end of a process, and what it said on standard error.
fn last_words(mut child: Child) -> (ExitStatus, String) {
    let status = wait_for_end(&mut child);
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).unwrap();
    }
    (status, said)
}

/// A cluster of one, which is ready at once: for what a single process shows.
fn lone(dir: &Path) {
    let out = dir.to_str().unwrap();
    let port = shared::base_port().to_string();
    let made = atlas(&["init", "--replicas", "1", "--base-port", &port, "--out", out])
        .stdout(Stdio::null())
        .status();
    assert!(made.unwrap().success());
}

/// A [cluster of one](lone) that serves, and its directory.
fn serving() -> (tempfile::TempDir, shared::Replica) {
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let mut replica = shared::Replica::start(&dir.path().join("r0.toml"));
    replica.wait_ready();
    (dir, replica)
}
