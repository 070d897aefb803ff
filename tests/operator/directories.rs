//! What becomes of a replica whose directory lost a part, or has what should not be there.

use std::path::Path;
use std::process::{Command, Stdio};

use atlas_smr_replica::execution::apps::kv;

use super::shared::{Replica, alone, connect, init, start, wait_until_caught_up};
use super::{complaint, last_words, lone, output, run};

#[test]
fn a_replica_without_its_log_or_its_snapshots_comes_back_and_one_without_its_superblock_is_told_how() {
    let _turn = alone();
    let dir = init("kv");
    let mut replicas = start(dir.path());
    let client = connect(dir.path(), 0);
    for (round, lost) in ["log", "images"].into_iter().enumerate() {
        for number in 0..20 {
            let key = format!("{round} {number}");
            client
                .call_blocking(kv::put(key.as_bytes(), b"value").unwrap())
                .unwrap();
        }
        drop(replicas.pop());
        std::fs::remove_dir_all(dir.path().join("r3-data").join(lost)).unwrap();
        let mut again = Replica::start(&dir.path().join("r3.toml"));
        again.wait_ready();
        wait_until_caught_up(dir.path(), 3);
        replicas.push(again);
    }
    drop(replicas.pop());
    std::fs::write(dir.path().join("r3-data/superblock"), [9; 8192]).unwrap();
    let refused = run(dir.path(), 3)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let (status, said) = last_words(refused.unwrap());
    assert!(
        !status.success() && said.contains("`atlas run --repair`"),
        "{said}"
    );
    let mut again = Replica::start_with(&dir.path().join("r3.toml"), &["--repair"]);
    again.wait_ready();
    wait_until_caught_up(dir.path(), 3);
}

#[test]
fn a_pipe_named_like_a_segment_is_named_and_not_waited_for() {
    let _turn = alone();
    let dir = init("kv");
    let pipe = dir.path().join("r0-data/log/0000000000000007");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = run(dir.path(), 0)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let (status, said) = last_words(refused.unwrap());
    assert!(!status.success(), "{said}");
    assert!(
        said.contains("0000000000000007") && said.contains("no regular file"),
        "{said}"
    );
}

#[test]
fn a_check_of_a_file_says_whether_its_data_directory_can_be_made_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let config = dir.path().join("r0.toml");
    let names = |path: &Path| std::fs::read_dir(path).unwrap().count();
    let text = std::fs::read_to_string(&config).unwrap();
    // Not even root makes directories there.
    for (db_path, code, expected) in [
        ("r0-data", 0, "✔ replica r0"),
        ("r0.key/below", 1, "r0.key/below: cannot be made: Not a directory"),
        ("/proc/atlas/r0", 1, "/proc/atlas/r0: cannot be made: "),
        ("/proc", 1, "/proc/lock: cannot be made: "),
        ("r0.key", 1, "r0.key: there is no superblock"),
        (
            "new/data",
            0,
            "there is no superblock, so this is not the data directory of r0",
        ),
    ] {
        std::fs::write(&config, text.replace("\"r0-data\"", &format!("{db_path:?}"))).unwrap();
        let (around, within) = (names(dir.path()), names(&dir.path().join("r0-data")));
        let checked = output(&["config", "check", config.to_str().unwrap()]);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&checked.stdout),
            complaint(&checked)
        );
        assert_eq!(checked.status.code(), Some(code), "{db_path}: {said}");
        assert!(said.contains(expected), "{db_path}: {said}");
        assert_eq!(
            (around, within),
            (names(dir.path()), names(&dir.path().join("r0-data"))),
            "{db_path}"
        );
        if code == 0 && db_path == "r0-data" {
            continue;
        }
        let run = run(dir.path(), 0).output().unwrap();
        assert_eq!(run.status.code(), Some(1), "{db_path}: {}", complaint(&run));
    }
}
