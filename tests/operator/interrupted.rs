//! What commands leave behind that are interrupted, killed, or fail half way.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::messages::hung;
use super::shared::alone;
use super::{atlas, complaint, eventually, ignores_hangups, last_words, output, skip, wait_for_end};

fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args([&format!("-{name}"), &id]).status();
    assert!(sent.unwrap().success());
    // Of two that wait at the same time the process would see one.
    let status = format!("/proc/{id}/status");
    eventually("the signal is taken", || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        if status.contains("State:\tZ") {
            return true;
        }
        let waiting = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"));
        waiting.is_none_or(|waiting| waiting.trim().bytes().all(|digit| digit == b'0'))
    });
}

/// What is in a directory.
fn names(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_demo_that_is_interrupted_leaves_no_data_behind_however_often_and_early() {
    let _turn = alone();
    // Who interrupts it again waits for what never ends: here, for a reader that hangs.
    let cases: [(&[&str], &[&str], bool); 5] = [
        (&[], &["INT", "INT"], true),
        (&[], &["TERM", "INT"], true),
        (&[], &["HUP"], false),
        (&["--compare-durability"], &["INT"], false),
        (&["--byzantine", "corrupt-chunks"], &["INT"], false),
    ];
    for (more, signals, hangs) in cases {
        if signals == ["HUP"] && ignores_hangups() {
            skip(
                "a demo whose terminal is closed",
                "hangups are ignored here (nohup)",
            );
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let mut demo = atlas(&["demo", "--no-pin", "--seconds", "3600"]);
        demo.args(more).env("TMPDIR", dir.path()).stderr(Stdio::piped());
        let demo = demo.stdout(if hangs { hung() } else { Stdio::null() }).spawn();
        let demo = demo.unwrap();
        eventually("its replicas run", || {
            let made = names(dir.path());
            made.iter()
                .any(|data| data.join("r3/log/0000000000000001").exists())
        });
        signals.iter().for_each(|name| signal(&demo, name));
        let (status, said) = last_words(demo);
        if hangs {
            assert_eq!(status.code(), Some(130), "{more:?} {signals:?}: {said}");
            assert_eq!(said, "", "{more:?} {signals:?}");
        }
        assert_eq!(
            names(dir.path()),
            [] as [PathBuf; 0],
            "{more:?} {signals:?}: {said}"
        );
    }
}

#[test]
fn an_init_that_is_interrupted_makes_nothing_and_one_that_is_killed_hinders_no_other() {
    for is_there in [false, true] {
        for name in ["INT", "TERM", "KILL"] {
            let dir = tempfile::tempdir().unwrap();
            let (out, data) = (dir.path().join("cluster"), dir.path().join("data"));
            if is_there {
                std::fs::create_dir(&out).unwrap();
            }
            let within = if is_there { &out } else { dir.path() };
            let init = |clients: &str| {
                let mut init = atlas(&["init", "--clients", clients, "--out", out.to_str().unwrap()]);
                init.arg("--data")
                    .arg(&data)
                    .stderr(Stdio::piped())
                    .stdout(Stdio::null());
                init
            };
            let mut long = init("1000000").spawn().unwrap();
            eventually("files are made", || {
                names(within).iter().any(|aside| aside.join("c9.toml").exists())
            });
            signal(&long, name);
            let ended = wait_for_end(&mut long);
            assert!(!ended.success(), "{name}");
            if name != "KILL" {
                let (_, said) = last_words(long);
                assert!(said.contains("interrupted: nothing was made"), "{name}: {said}");
                assert_eq!(names(within), [] as [PathBuf; 0], "{name}");
            }
            assert!(!out.join("cluster.toml").exists() && !data.exists(), "{name}");
            let again = init("1").output().unwrap();
            assert!(again.status.success(), "{name}: {}", complaint(&again));
            for file in ["cluster.toml", "r3.toml", "r3.key", "c0.toml", "c0.key", "o0.key"] {
                assert!(out.join(file).is_file(), "{name}: {file}");
            }
            assert!(data.join("r3/superblock").is_file(), "{name}");
        }
    }
}

#[test]
fn an_init_that_fails_leaves_nothing_of_its_own_and_what_was_there_untouched() {
    let too_many = output(&["init", "--clients", "1048577", "--out", "/nonexistent/cluster"]);
    assert_eq!(too_many.status.code(), Some(2));
    assert!(complaint(&too_many).contains("1048577 is not in 0..=1048576"));
    assert!(!Path::new("/nonexistent").exists());

    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let init = |out: &str, data: &str| {
        let arguments = ["init", "--clients", "1", "--out", &at(out), "--data", &at(data)];
        output(&arguments)
    };
    assert!(init("first", "data").status.success());
    let superblock = std::fs::read(at("data/r2/superblock")).unwrap();
    for lost in ["r0", "r1"] {
        std::fs::remove_dir_all(dir.path().join("data").join(lost)).unwrap();
    }
    std::fs::create_dir(at("there")).unwrap();
    for out in ["second", "there"] {
        let refused = init(out, "data");
        let said = complaint(&refused);
        assert!(said.contains("data/r2: there is a superblock already"), "{said}");
        assert_eq!(names(&dir.path().join(out)), [] as [PathBuf; 0]);
        assert!(!dir.path().join("data/r0").exists(), "{out}");
        assert_eq!(std::fs::read(at("data/r2/superblock")).unwrap(), superblock);
    }
    assert!(!dir.path().join("second").exists());
    // As one leaves it that was killed at its very end, by this version or an earlier one.
    std::fs::remove_file(at("first/cluster.toml")).unwrap();
    let said = complaint(&init("first", "elsewhere"));
    assert!(
        said.contains("but cluster.toml does not: an `atlas init` was killed"),
        "{said}"
    );
    // Other files are no hindrance, and neither are the data directories among the new files.
    std::fs::write(at("there/notes"), "mine").unwrap();
    for (out, data) in [("there", "there/data"), ("new", "new/data")] {
        let made = init(out, data);
        assert!(made.status.success(), "{}", complaint(&made));
        let checked = output(&["config", "check", &at(&format!("{out}/r0.toml"))]);
        assert!(checked.status.success(), "{}", complaint(&checked));
        assert!(dir.path().join(data).join("r3/superblock").exists());
    }
    assert_eq!(std::fs::read(at("there/notes")).unwrap(), b"mine");
    let said = complaint(&init("there", "elsewhere"));
    assert!(said.contains("exists; choose an empty directory"), "{said}");
}
