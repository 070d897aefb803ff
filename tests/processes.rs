//! Four real `atlas run` processes made by `atlas init`, served over loopback TCP.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

fn atlas(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atlas"));
    command.args(arguments);
    command
}

fn output(arguments: &[&str]) -> Output {
    atlas(arguments).output().unwrap()
}

fn stdout(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A replica's process; killed when dropped.
struct Replica {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Replica {
    fn start(config: &Path) -> Self {
        let mut child = atlas(&["run", "--no-pin", "--config", config.to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn wait_for(&mut self, line: &str) {
        let mut said = String::new();
        while self.lines.read_line(&mut said).unwrap() > 0 {
            if said.lines().last() == Some(line) {
                return;
            }
        }
        panic!("the replica ended without saying {line}: {said}");
    }

    fn terminate(&mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Four consecutive ports that were free a moment ago.
fn base_port() -> u16 {
    (0..200)
        .map(|_| {
            TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port()
        })
        .find(|port| {
            *port < 65_000 && (*port..port + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        })
        .expect("four free ports in a row")
}

struct Cluster {
    dir: TempDir,
    replicas: Vec<Replica>,
}

impl Cluster {
    fn start(auth: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (out, port) = (dir.path().to_str().unwrap(), base_port().to_string());
        stdout(&output(&[
            "init",
            "--out",
            out,
            "--base-port",
            &port,
            "--auth",
            auth,
        ]));
        let replicas = (0..4)
            .map(|id| Replica::start(&dir.path().join(format!("r{id}.toml"))))
            .collect::<Vec<_>>();
        let mut this = Self { dir, replicas };
        this.replicas
            .iter_mut()
            .for_each(|replica| replica.wait_for("READY"));
        this
    }

    fn client(&self, number: u16, call: &[&str]) -> Output {
        let config = self.dir.path().join(format!("c{number}.toml"));
        let mut arguments = vec!["client", "--config", config.to_str().unwrap()];
        arguments.extend(call);
        output(&arguments)
    }
}

#[test]
fn four_processes_serve_clients_and_a_bench_and_go_on_without_one_follower() {
    let mut cluster = Cluster::start("signature");
    assert_eq!(stdout(&cluster.client(0, &["put", "greeting", "hello"])), "ok\n");
    assert_eq!(stdout(&cluster.client(1, &["get", "greeting"])), "hello");
    assert_eq!(
        stdout(&cluster.client(1, &["get", "greeting", "--unordered"])),
        "hello"
    );
    assert!(!cluster.client(2, &["get", "nothing"]).status.success());

    let status = output(&[
        "status",
        "--counters",
        "--config",
        cluster.dir.path().join("c3.toml").to_str().unwrap(),
    ]);
    assert!(stdout(&status).contains("OK: 4 of 4 replicas take part, 3 needed; 1 more may fail"));

    let judged = |cluster: &Cluster| {
        let config = cluster.dir.path().join("c3.toml");
        let output = output(&["status", "--json", "--config", config.to_str().unwrap()]);
        let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let verdict = all["health"]["verdict"].as_str().unwrap().to_owned();
        let tolerable = all["health"]["faults_tolerable"].as_u64().unwrap();
        let rows = all["replicas"].as_array().unwrap().clone();
        (output.status.code(), verdict, tolerable, rows)
    };
    let (code, verdict, tolerable, rows) = judged(&cluster);
    assert_eq!((code, verdict.as_str(), tolerable), (Some(0), "OK", 1));
    assert_eq!(rows.len(), 4);
    for field in ["view", "ordered", "executed", "stable", "durable", "lag"] {
        assert!(rows.iter().all(|row| row[field].is_u64()), "{field}");
    }
    assert!(rows.iter().all(|row| row["phase"] == "ordering"));

    drop(cluster.replicas.remove(3));
    let (code, verdict, tolerable, rows) = judged(&cluster);
    assert_eq!((code, verdict.as_str(), tolerable), (Some(1), "DEGRADED", 0));
    assert!(rows[3]["error"].is_string());
    assert_eq!(
        stdout(&cluster.client(2, &["put", "greeting", "still here"])),
        "ok\n"
    );
    assert_eq!(stdout(&cluster.client(0, &["get", "greeting"])), "still here");
    let config = cluster.dir.path().join("c3.toml");
    let bench = output(&[
        "bench",
        "--config",
        config.to_str().unwrap(),
        "--seconds",
        "1",
        "--outstanding",
        "64",
    ]);
    assert!(stdout(&bench).contains("\"errors\": 0"));
    drop(cluster.replicas.remove(2));
    let (code, verdict, ..) = judged(&cluster);
    assert_eq!((code, verdict.as_str()), (Some(2), "STALLED"));
}

#[test]
fn a_replica_told_to_terminate_drains_and_says_so() {
    let mut cluster = Cluster::start("mac");
    assert_eq!(stdout(&cluster.client(0, &["put", "k", "v"])), "ok\n");
    let mut last = cluster.replicas.pop().unwrap();
    last.terminate();
    last.wait_for("STOPPED");
    assert!(last.child.wait().unwrap().success());
    assert_eq!(stdout(&cluster.client(0, &["get", "k"])), "v");
}

#[test]
fn a_client_of_another_cluster_learns_why_it_is_refused() {
    let cluster = Cluster::start("mac");
    let other = tempfile::tempdir().unwrap();
    let out = other.path().to_str().unwrap();
    stdout(&output(&["init", "--out", out]));
    // The other cluster's file, with this cluster's addresses.
    let read = |dir: &Path| std::fs::read_to_string(dir.join("cluster.toml")).unwrap();
    let addresses: Vec<String> = read(cluster.dir.path())
        .lines()
        .filter(|line| line.starts_with("address"))
        .map(str::to_owned)
        .collect();
    let mut next = addresses.iter();
    let text: Vec<String> = read(other.path())
        .lines()
        .map(|line| {
            if line.starts_with("address") {
                next.next().unwrap().clone()
            } else {
                line.to_owned()
            }
        })
        .collect();
    std::fs::write(other.path().join("cluster.toml"), text.join("\n")).unwrap();
    let refused = output(&["client", "--config", &format!("{out}/c0.toml"), "get", "k"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(
        error.contains("r0: the two ends belong to different clusters"),
        "{error}"
    );
}

#[test]
fn init_makes_operators_and_config_check_says_who_may_change_the_cluster() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let init = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let mut arguments = vec!["init", "--clients", "1", "--out", out.to_str().unwrap()];
        arguments.extend(more);
        (output(&arguments), out.clone())
    };
    for (name, more, keys, said) in [
        ("one", &[][..], 1, "1 of 1 operators have to sign a change"),
        (
            "three",
            &["--operators", "3"],
            3,
            "2 of 3 operators have to sign a change",
        ),
        (
            "all",
            &["--operators", "2", "--operators-threshold", "2"],
            2,
            "2 of 2 operators have to sign a change",
        ),
        (
            "none",
            &["--operators", "0"],
            0,
            "! there are no operators: nothing about this cluster can ever be changed",
        ),
    ] {
        let (made, out) = init(name, more);
        let told = stdout(&made);
        assert_eq!(told.contains("o0.key"), keys > 0, "{told}");
        for id in 0..4 {
            let key = out.join(format!("o{id}.key"));
            assert_eq!(key.exists(), id < keys, "{name}: {id}");
            if id < keys {
                let mode = std::fs::metadata(&key).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
        }
        let file = out.join("cluster.toml");
        let checked = stdout(&output(&["config", "check", file.to_str().unwrap()]));
        assert!(checked.contains(said), "{checked}");
        let checked = output(&["config", "check", "--json", file.to_str().unwrap()]);
        let checked: serde_json::Value = serde_json::from_slice(&checked.stdout).unwrap();
        assert_eq!(checked["operators"], keys);
        // Who edits the threshold makes another cluster.
        if keys == 3 {
            let text = std::fs::read_to_string(&file).unwrap();
            let edited = text.replace("operators_threshold = 2", "operators_threshold = 1");
            std::fs::write(&file, edited).unwrap();
            let again = output(&["config", "check", "--json", file.to_str().unwrap()]);
            let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
            assert_ne!(again["cluster_id"], checked["cluster_id"]);
            assert_eq!(again["operators_threshold"], 1);
        }
    }
    let (refused, out) = init("few", &["--operators-threshold", "2"]);
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        error.contains("--operators-threshold 2: of 1 operators so many cannot sign"),
        "{error}"
    );
    assert!(!out.exists());
}

#[test]
fn errors_of_the_command_line_name_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    stdout(&output(&["init", "--out", out, "--clients", "1"]));
    for file in ["cluster.toml", "r0.toml", "r3.toml", "c0.toml"] {
        assert!(stdout(&output(&["config", "check", &format!("{out}/{file}")])).starts_with('✔'));
    }
    let again = output(&["init", "--out", out]);
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("exists; choose an empty directory"));

    let path = dir.path().join("r1.toml");
    let text = std::fs::read_to_string(&path)
        .unwrap()
        .replace("pipeline", "pipelin");
    std::fs::write(&path, text).unwrap();
    let checked = output(&["config", "check", path.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success());
    assert!(
        error.contains("r1.toml:") && error.contains("did you mean `pipeline`?"),
        "{error}"
    );

    let missing = output(&["run", "--config", "no/such.toml"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("`atlas init` makes a cluster's files"));
    let swapped = dir.path().join("r2.toml");
    let text = std::fs::read_to_string(&swapped)
        .unwrap()
        .replace("r2.key", "r3.key");
    std::fs::write(&swapped, text).unwrap();
    let error = output(&["run", "--config", swapped.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&error.stderr).contains("not the keys that"));
}
