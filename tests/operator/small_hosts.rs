//! Small hosts and tight limits: a replica works there, or says exactly why not.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::shared::{Replica, alone, set};
use super::{atlas, complaint, has, is_root, last_words, lone, skip};

/// What becomes of the replica.
enum Outcome {
    /// It serves, and its first lines contain this.
    Serves(&'static str),
    /// It does not start, and says all of this.
    Refuses(&'static [&'static str]),
}

/// A kind of host, made by the shell.
struct Host {
    what: &'static str,
    /// What its shell does before it becomes the replica; `$DIR` is the cluster's directory.
    before: &'static str,
    /// Programs that takes, and whether it takes root.
    needs: (&'static [&'static str], bool),
    /// Lines of the replica's file that are put in another one's place.
    settings: &'static [(&'static str, &'static str)],
    outcome: Outcome,
}

use Outcome::{Refuses, Serves};

const CONNECTIONS: (&str, &str) = (
    "connections_max = 1024",
    "connections_max = 16\nhandshakes_max = 8",
);
/// 64 files of them at most.
const LARGE_SEGMENTS: (&str, &str) = ("segment_bytes = 67108864", "segment_bytes = \"256MiB\"");

/// Puts the shell into a control group of its own: CONTROLLER (version 1), FILE1, VALUE1; FILE2, VALUE2
/// (version 2).
const GROUP: &str = r#"
group() {
    if [ -d /sys/fs/cgroup/$1 ]; then
        own=/sys/fs/cgroup/$1/atlas-test-$$ file=$2 value=$3
    else
        own=/sys/fs/cgroup/atlas-test-$$ file=$4 value=$5
    fi
    mkdir $own && echo "$value" >$own/$file && echo $$ >$own/cgroup.procs || exit 77
    echo $own >>$DIR/groups
}
"#;

const HOSTS: [Host; 10] = [
    Host {
        what: "one core",
        before: "exec taskset -c 0 \"$@\"",
        needs: (&["taskset"], false),
        settings: &[],
        outcome: Serves("core 0"),
    },
    Host {
        what: "64 KiB of locked memory, and no privilege",
        before: "ulimit -l 64; chown -R 65534 $DIR; exec setpriv --reuid 65534 --clear-groups --bounding-set=-all --inh-caps=-all \"$@\"",
        needs: (&["setpriv"], true),
        settings: &[],
        outcome: Refuses(&[
            "may lock 64 KiB of memory",
            "takes 512 KiB",
            "ulimit -l 65536",
            "LimitMEMLOCK=64M",
        ]),
    },
    Host {
        what: "512 KiB of locked memory, and no privilege",
        before: "ulimit -l 512; chown -R 65534 $DIR; exec setpriv --reuid 65534 --clear-groups --bounding-set=-all --inh-caps=-all \"$@\"",
        needs: (&["setpriv"], true),
        settings: &[],
        outcome: Serves("r0 of cluster"),
    },
    Host {
        what: "256 open files",
        before: "ulimit -n 256; exec \"$@\"",
        needs: (&[], false),
        settings: &[],
        outcome: Refuses(&[
            "limits.connections_max = 1024",
            "this process may have 256",
            "ulimit -n ",
            "LimitNOFILE=",
        ]),
    },
    Host {
        what: "256 open files, and limits that fit",
        before: "ulimit -n 256; exec \"$@\"",
        needs: (&[], false),
        settings: &[CONNECTIONS, LARGE_SEGMENTS],
        outcome: Serves("r0 of cluster"),
    },
    Host {
        what: "huge pages that are asked for and not there",
        before: "exec \"$@\"",
        needs: (&[], false),
        settings: &[("huge_pages = false", "huge_pages = true")],
        outcome: Serves("r0 of cluster"),
    },
    Host {
        what: "a read-only root",
        before: "exec unshare -m sh -c 'mount --bind $DIR $DIR && mount -o remount,bind,ro / && exec \"$@\"' sh \"$@\"",
        needs: (&["unshare"], true),
        settings: &[],
        outcome: Serves("r0 of cluster"),
    },
    Host {
        what: "a read-only data directory",
        before: "exec unshare -m sh -c 'mount --bind $DIR $DIR && mount -o remount,bind,ro $DIR && exec \"$@\"' sh \"$@\"",
        needs: (&["unshare"], true),
        settings: &[],
        outcome: Refuses(&["r0-data", "Read-only file system"]),
    },
    Host {
        what: "a CPU quota of half a core",
        before: "group cpu cpu.cfs_quota_us 50000 cpu.max '50000 100000'; exec \"$@\"",
        needs: (&[], true),
        settings: &[],
        outcome: Serves("data 0    any core"),
    },
    Host {
        what: "1 GiB of memory",
        before: "group memory memory.limit_in_bytes 1073741824 memory.max 1073741824; exec \"$@\"",
        needs: (&[], true),
        settings: &[],
        outcome: Serves("r0 of cluster"),
    },
];

/// Control groups that a host's shell made; they are empty once its processes are gone.
struct Groups(PathBuf);

impl Drop for Groups {
    fn drop(&mut self) {
        let made = std::fs::read_to_string(&self.0).unwrap_or_default();
        for group in made.lines() {
            for _ in 0..100 {
                if std::fs::remove_dir(group).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
    }
}

fn start(host: &Host, dir: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{GROUP}\n{}", host.before), "sh"])
        .args([env!("CARGO_BIN_EXE_atlas"), "run", "--config"])
        .arg(dir.join("r0.toml"))
        .env("DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    shell
}

#[test]
fn a_replica_works_on_small_hosts_or_says_exactly_why_it_does_not() {
    let _turn = alone();
    for host in &HOSTS {
        let (programs, as_root) = host.needs;
        if let Some(missing) = programs.iter().find(|program| !has(program)) {
            skip(host.what, &format!("{missing} is not installed"));
            continue;
        }
        if as_root && !is_root() {
            skip(host.what, "only root can make such a host");
            continue;
        }
        try_on(host);
    }
}

/// What is refused for the data directory is found by a check of the file, and what for the locked memory by
/// the doctor, in the same words.
fn is_foretold(host: &Host, dir: &Path, said: &str) {
    let said = said.trim_start_matches("atlas: ").trim_end();
    let (command, file) = match said {
        said if said.starts_with("data directory") => (&["config", "check"][..], Some(dir.join("r0.toml"))),
        said if said.contains("of memory") => (&["doctor"][..], None),
        _ => return,
    };
    let mut shell = Command::new("sh");
    shell
        .args(["-c", host.before, "sh", env!("CARGO_BIN_EXE_atlas")])
        .args(command)
        .args(file);
    let ended = shell.env("DIR", dir).output().unwrap();
    let shown = format!("{}{}", String::from_utf8_lossy(&ended.stdout), complaint(&ended));
    assert_eq!(ended.status.code(), Some(1), "{}: {shown}", host.what);
    assert!(shown.contains(said), "{}: {said}: {shown}", host.what);
}

fn try_on(host: &Host) {
    let what = host.what;
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    // Others than root look for their files there.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), readable).unwrap();
    for (from, to) in host.settings {
        set(dir.path(), "r0.toml", from, to);
    }
    let _groups = Groups(dir.path().join("groups"));
    let mut child = start(host, dir.path()).spawn().unwrap();
    match host.outcome {
        Refuses(parts) => {
            let (status, said) = last_words(child);
            assert_eq!(status.code(), Some(1), "{what}: {said}");
            is_foretold(host, dir.path(), &said);
            for part in parts {
                assert!(said.contains(part), "{what}: no {part:?}: {said}");
            }
        }
        Serves(part) => {
            let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
            let mut first = String::new();
            let is_ready = lines.by_ref().any(|line| {
                let line = line.unwrap_or_default();
                first.push_str(&line);
                first.push('\n');
                line == "READY"
            });
            if !is_ready {
                let (status, said) = last_words(child);
                if status.code() == Some(77) {
                    return skip(what, "no control group can be made here");
                }
                panic!("{what}: it ended: {status}: {first}{said}");
            }
            let replica = Replica(child);
            std::thread::spawn(move || lines.for_each(drop));
            assert!(first.contains(part), "{what}: no {part:?}: {first}");
            let client = dir.path().join("c0.toml");
            for arguments in [&["put", "k", "v"][..], &["get", "k"]] {
                let called = atlas(&["client", "--config", client.to_str().unwrap()])
                    .args(arguments)
                    .output()
                    .unwrap();
                assert!(called.status.success(), "{what}: {}", complaint(&called));
            }
            drop(replica);
        }
    }
}
