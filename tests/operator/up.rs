//! `atlas up`: a cluster by one command, that serves, stays, and leaves no process behind.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use super::shared::alone;
use super::{atlas, complaint, eventually, output, wait_for_end};

/// `atlas up` in a directory, which is killed when this is dropped.
struct Up {
    child: Child,
    results: Lines<BufReader<ChildStdout>>,
    messages: Lines<BufReader<ChildStderr>>,
}

impl Up {
    fn start(home: &Path, arguments: &[&str]) -> Self {
        let mut command = atlas(&["up"]);
        command.args(arguments).current_dir(home);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        Self {
            results: BufReader::new(child.stdout.take().unwrap()).lines(),
            messages: BufReader::new(child.stderr.take().unwrap()).lines(),
            child,
        }
    }

    /// Waits until it says that the cluster answers: what it advises then.
    fn wait_answers(&mut self) -> Vec<String> {
        let mut lines = self.results.by_ref().map(Result::unwrap);
        let found = lines.find(|line| line.starts_with("The cluster answers"));
        assert!(found.is_some(), "it ended before the cluster answered");
        lines.take_while(|line| !line.is_empty()).collect()
    }

    /// Waits until it says this on standard error; the whole line.
    fn wait_message(&mut self, words: &str) -> String {
        let mut lines = self.messages.by_ref().map(Result::unwrap);
        let found = lines.find(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("it ended without {words}"))
    }

    /// The exit code after a signal.
    fn end(mut self, name: &str) -> Option<i32> {
        signal(self.child.id(), name);
        wait_for_end(&mut self.child).code()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(process: u32, name: &str) {
    let (name, process) = (format!("-{name}"), process.to_string());
    let sent = Command::new("kill").args([name, process]).status();
    assert!(sent.unwrap().success());
}

/// A process's parent, unless it has ended.
fn parent(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_zombie = fields.next()? == "Z";
    fields.next()?.parse().ok().filter(|_| !is_zombie)
}

/// The processes that another one has started, in the order of the replicas they run.
fn replicas(of: &Child) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let children = all.filter(|process| parent(*process) == Some(of.id()));
    let named = children.map(|process| {
        let line = std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap();
        let file = line.split('\0').find(|word| word.ends_with(".toml"));
        (file.unwrap().to_owned(), process)
    });
    let mut named: Vec<_> = named.collect();
    named.sort();
    named.into_iter().map(|(_, process)| process).collect()
}

/// What happens when a line that was advised is typed.
fn typed(home: &Path, line: &str) -> Output {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (program, arguments) = words.split_first().unwrap();
    assert_eq!(*program, "atlas", "{line}");
    atlas(arguments).current_dir(home).output().unwrap()
}

fn answer(home: &Path, line: &str) -> String {
    let output = typed(home, line);
    assert!(output.status.success(), "{line}: {}", complaint(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// The first line that an admin endpoint answers with; nothing while it cannot be reached.
fn first_line(address: &str, path: &str) -> String {
    let mut said = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let _ = stream.read_to_string(&mut said);
    }
    said.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_cluster_by_one_command_serves_and_has_the_next_time_what_it_was_told() {
    let _turn = alone();
    let home = tempfile::tempdir().unwrap();
    let mut up = Up::start(home.path(), &["--clients", "2"]);
    let advice = up.wait_answers();
    let call = |words: &str| {
        let line = advice.iter().find(|line| line.contains(words));
        line.unwrap_or_else(|| panic!("{words}: {advice:?}")).trim()
    };
    assert_eq!(answer(home.path(), call("put greeting hello")), "ok\n");
    let endpoints = advice.iter().filter_map(|line| line.split_once(" http://"));
    let endpoints: Vec<_> = endpoints.collect();
    assert_eq!(endpoints.len(), 4, "{advice:?}");
    for (node, address) in endpoints {
        eventually(node, || first_line(address, "/readyz") == "HTTP/1.1 200 OK");
    }
    let seen = answer(home.path(), &format!("{} --once", call("atlas top")));
    assert!(
        seen.contains("n = 4, f = 1") && seen.contains("4 of 4 ready"),
        "{seen}"
    );
    let twice = output(&["up", home.path().join("atlas-cluster").to_str().unwrap()]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(complaint(&twice).contains("another `atlas up` runs this cluster"));
    assert_eq!(up.end("INT"), Some(0));
    for node in 0..4 {
        answer(
            home.path(),
            &format!("atlas inspect integrity atlas-cluster/r{node}-data"),
        );
    }

    for (option, is) in [("--replicas=7", "4"), ("--clients=4", "2"), ("--app=bank", "kv")] {
        let refused = typed(home.path(), &format!("atlas up {option}"));
        assert_eq!(refused.status.code(), Some(1), "{option}");
        let expected = format!("has a cluster already, with {is};");
        assert!(complaint(&refused).contains(&expected), "{}", complaint(&refused));
    }

    let mut up = Up::start(home.path(), &["--replicas", "4"]);
    up.wait_answers();
    assert_eq!(answer(home.path(), call("get greeting")), "hello");
    signal(replicas(&up.child)[3], "KILL");
    let said = up.wait_message("r3 ended by itself");
    assert!(
        said.contains("3 of 4 replicas run") && said.contains("the others go on"),
        "{said}"
    );
    assert_eq!(answer(home.path(), call("put greeting hello")), "ok\n");
    assert_eq!(up.end("TERM"), Some(1), "a replica was lost on the way");
}

#[test]
fn no_replica_outlives_the_command_however_that_ends() {
    let _turn = alone();
    let home = tempfile::tempdir().unwrap();
    let mut up = Up::start(home.path(), &["lone", "--replicas", "1", "--app", "counter"]);
    let advice = up.wait_answers();
    assert_eq!(answer(home.path(), &advice[0]), "1\n");
    let left = replicas(&up.child);
    assert_eq!(left.len(), 1);
    drop(up);
    eventually("no replica is left", || {
        left.iter().all(|process| parent(*process).is_none())
    });

    let mut up = Up::start(home.path(), &["lone"]);
    up.wait_answers();
    assert_eq!(answer(home.path(), &advice[0]), "2\n");
    let left = replicas(&up.child);
    // One that hangs never drains.
    signal(left[0], "STOP");
    signal(up.child.id(), "INT");
    up.wait_message("another SIGINT (Ctrl-C) ends them at once");
    assert_eq!(up.end("INT"), Some(130));
    assert!(left.iter().all(|process| parent(*process).is_none()));
}

#[test]
fn a_directory_with_something_else_in_it_is_refused_and_stays_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    std::fs::create_dir(path("full")).unwrap();
    std::fs::write(path("full/notes"), "mine").unwrap();
    std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
    let own = output(&["init", "--app", "own", "--out", path("own").to_str().unwrap()]);
    assert!(own.status.success());
    let swapped = output(&["init", "--out", path("swapped").to_str().unwrap()]);
    assert!(swapped.status.success());
    std::fs::copy(path("swapped/r2.toml"), path("swapped/r1.toml")).unwrap();
    for (dir, why) in [
        ("full", "notes exists, but cluster.toml does not"),
        ("full/notes", "Not a directory"),
        ("link", "No such file"),
        ("own", "the cluster serves own"),
        ("swapped", "r1.toml: this is not the file of r1"),
    ] {
        let refused = typed(home.path(), &format!("atlas up {dir}"));
        assert_eq!(refused.status.code(), Some(1), "{dir}");
        assert!(
            complaint(&refused).contains(why),
            "{dir}: {}",
            complaint(&refused)
        );
    }
    let names = std::fs::read_dir(path("full")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["notes"]);
    assert_eq!(std::fs::read(path("full/notes")).unwrap(), b"mine");
    assert!(path("link").symlink_metadata().unwrap().is_symlink());
    assert!(!path("nowhere").exists());
}
