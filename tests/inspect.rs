//! `atlas inspect` on the directories of real replicas: sound, in use, damaged, and of clusters whose
//! replicas differ.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const CHECKPOINT: u64 = 10;

fn atlas(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_atlas"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A replica's process; killed when dropped.
struct Replica(Child);

impl Replica {
    fn start(config: &Path) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_atlas"))
            .args(["run", "--no-pin", "--config", config.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn();
        let mut this = Self(child.unwrap());
        let mut lines = BufReader::new(this.0.stdout.take().unwrap()).lines();
        assert!(
            lines.any(|line| line.is_ok_and(|line| line.contains("of cluster"))),
            "it starts"
        );
        // Keeps the pipe open, so that nothing it prints kills it.
        std::thread::spawn(move || lines.for_each(drop));
        this
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn base_port() -> u16 {
    let free = |port: u16| (port..port + 4).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
    let first = 32_000 + (std::process::id() % 150) as u16 * 4;
    (first..32_700).step_by(4).find(|port| free(*port)).unwrap()
}

/// A cluster whose directories are small and whose checkpoints are frequent.
fn init() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().to_str().unwrap();
    let port = base_port().to_string();
    assert!(
        atlas(&["init", "--auth", "mac", "--base-port", &port, "--out", out])
            .status
            .success()
    );
    let edit = |name: &str, from: &str, to: String| {
        let path = dir.path().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} says {from}");
        std::fs::write(&path, text.replace(from, &to)).unwrap();
    };
    edit(
        "cluster.toml",
        "checkpoint_decisions = 1000",
        format!("checkpoint_decisions = {CHECKPOINT}"),
    );
    for id in 0..4 {
        edit(
            &format!("r{id}.toml"),
            "segment_bytes = 67108864",
            "segment_bytes = 16777216".to_owned(),
        );
    }
    dir
}

fn data(dir: &TempDir, id: usize) -> PathBuf {
    dir.path().join(format!("r{id}-data"))
}

fn start(dir: &TempDir) -> Vec<Replica> {
    (0..4)
        .map(|id| Replica::start(&dir.path().join(format!("r{id}.toml"))))
        .collect()
}

fn put(dir: &TempDir, key: &str, value: &str) {
    let config = dir.path().join("c0.toml");
    let put = atlas(&["client", "--config", config.to_str().unwrap(), "put", key, value]);
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let (target, kind) = (to.join(entry.file_name()), entry.file_type().unwrap());
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            // A replica that runs, or was killed, has a socket there as well.
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Contents and names of every file, to see that nothing changed.
fn fingerprint(dir: &Path) -> Vec<(PathBuf, blake3::Hash)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(fingerprint(&entry.path()));
        } else if kind.is_file() {
            let contents = std::fs::read(entry.path()).unwrap();
            found.push((entry.path(), blake3::hash(&contents)));
        }
    }
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

/// Exit code and what was printed.
fn inspect(arguments: &[&str]) -> (i32, String) {
    let output = atlas(&[&["inspect"], arguments].concat());
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn json(arguments: &[&str]) -> (i32, Value) {
    let (code, text) = inspect(&[arguments, &["--json"]].concat());
    (
        code,
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Flips one bit of a file.
fn damage(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 4;
    std::fs::write(path, bytes).unwrap();
}

/// Runs a cluster that puts this value under `k`, and so many others; gives the numbers of the snapshots of
/// each replica.
fn run(dir: &TempDir, value: &str) {
    let replicas = start(dir);
    put(dir, "k", value);
    for number in 0..2 * CHECKPOINT {
        put(dir, &format!("key {number}"), "the same");
    }
    // Beside running replicas: it says so, and finds nothing wrong.
    let (code, seen) = json(&["integrity", text(&data(dir, 1))]);
    assert_eq!((code, seen["verdict"].as_str()), (0, Some("SOUND")), "{seen}");
    let process = seen["in_use_by"].as_u64();
    assert_eq!(process, Some(u64::from(replicas[1].0.id())), "{seen}");
    let (code, printed) = inspect(&["superblock", text(&data(dir, 1))]);
    assert!(
        code == 0 && printed.contains(&format!("in use by process {}", replicas[1].0.id())),
        "{printed}"
    );
    put(dir, "after", "it still serves");
}

#[test]
fn directories_are_shown_verified_and_compared_without_being_changed() {
    let dir = init();
    for id in 0..4 {
        copy(&data(&dir, id), &dir.path().join(format!("fresh{id}")));
    }
    run(&dir, "one");
    let before = fingerprint(&data(&dir, 0));
    shows_what_is_there(&data(&dir, 0));
    let (code, printed) = inspect(&["diff", text(&data(&dir, 0)), text(&data(&dir, 1))]);
    assert!(code == 0 && printed.contains("✔ decisions 1 to"), "{printed}");
    assert!(printed.contains("so is everything decided before"), "{printed}");
    assert_eq!(fingerprint(&data(&dir, 0)), before, "looking changes nothing");

    // The same cluster once more from the beginning, with another history.
    let old = dir.path().join("old");
    copy(&data(&dir, 0), &old);
    for id in 0..4 {
        std::fs::remove_dir_all(data(&dir, id)).unwrap();
        std::fs::rename(dir.path().join(format!("fresh{id}")), data(&dir, id)).unwrap();
    }
    run(&dir, "two");
    let (code, seen) = json(&["diff", text(&old), text(&data(&dir, 1))]);
    assert_eq!(code, 1);
    assert_eq!(seen["decision"]["seq"], 1, "{seen}");
    assert_ne!(seen["decision"]["a"], seen["decision"]["b"]);
    assert_eq!(
        seen["snapshot"]["what"], "what is remembered of client 0",
        "{seen}"
    );

    damaged_directories_are_told_from_sound_ones(&old, dir.path());
}

fn shows_what_is_there(dir: &Path) {
    let (code, seen) = json(&["superblock", text(dir)]);
    assert_eq!((code, seen["node"].as_str()), (0, Some("r0")));
    assert_eq!(seen["in_use_by"], Value::Null);
    let counting = seen["copies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|copy| copy["counts"] == true);
    let counting: Vec<&Value> = counting.collect();
    assert_eq!(counting.len(), 1, "{seen}");
    assert_eq!(counting[0]["starts"], 1);
    assert_eq!(counting[0]["snapshot"], 2 * CHECKPOINT);

    let (code, seen) = json(&["log", text(dir)]);
    assert_eq!((code, seen["damage"].as_array().unwrap().len()), (0, 0), "{seen}");
    let records = seen["records"].as_array().unwrap();
    let positions = records.iter().map(|record| record["position"].as_u64().unwrap());
    assert!(positions.eq(0..records.len() as u64), "every record, in order");
    let (_, seen) = json(&["log", text(dir), "--kind", "decision", "--from", "5", "--to", "7"]);
    let rows = seen["records"].as_array().unwrap();
    let places: Vec<u64> = rows.iter().map(|row| row["place"].as_u64().unwrap()).collect();
    assert_eq!(places, [5, 6, 7]);
    let (_, seen) = json(&["log", text(dir), "--kind", "proposal", "--last", "2"]);
    let rows = seen["records"].as_array().unwrap();
    assert!(rows.len() == 2 && rows[0]["operations"] == 1, "{seen}");
    let (_, printed) = inspect(&["log", text(dir), "--kind", "stable"]);
    assert!(printed.contains("signed by r"), "{printed}");

    let (code, seen) = json(&["snapshot", text(dir)]);
    let snapshots = seen["snapshots"].as_array().unwrap();
    assert_eq!((code, snapshots.len()), (0, 2), "{seen}");
    assert_eq!(snapshots[1]["seq"], 2 * CHECKPOINT);
    assert!(
        snapshots[1]["named"] == true && snapshots[1]["damage"] == Value::Null,
        "{seen}"
    );

    let (code, printed) = inspect(&["integrity", text(dir)]);
    assert!(code == 0 && printed.contains("SOUND: r0 of cluster"), "{printed}");
    assert!(
        printed.contains("one chain, every batch is there") && printed.contains("replicas signed its digest"),
        "{printed}"
    );
}

fn damaged_directories_are_told_from_sound_ones(sound: &Path, beside: &Path) {
    let fresh = |name: &str| {
        let dir = beside.join(name);
        copy(sound, &dir);
        dir
    };
    let segment = |dir: &Path| dir.join("log").join("0000000000000001");
    let expect = |dir: &Path, said: &[&str]| {
        let (code, printed) = inspect(&["integrity", text(dir)]);
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains("DAMAGED: r0"), "{printed}");
        for part in said {
            assert!(printed.contains(part), "{part} in {printed}");
        }
    };

    let rotten = fresh("rotten");
    damage(&segment(&rotten), 4096 + 100);
    expect(
        &rotten,
        &[
            text(&segment(&rotten)),
            "offset 4096: a group that had been durable is not sound",
            "give the replica a new key",
        ],
    );
    let (code, printed) = inspect(&["log", text(&rotten)]);
    assert!(
        code == 1 && printed.contains("records before the damage"),
        "{printed}"
    );
    let (code, printed) = inspect(&["diff", text(&rotten), text(sound)]);
    assert!(
        code == 1 && printed.contains("damaged at offset 4096"),
        "{printed}"
    );

    let lost = fresh("lost");
    std::fs::remove_file(segment(&lost)).unwrap();
    expect(&lost, &["the segment before it, 1, is missing"]);
    std::fs::remove_dir_all(lost.join("log")).unwrap();
    std::fs::create_dir(lost.join("log")).unwrap();
    expect(&lost, &["0000000000000002", "the segment is missing"]);

    let image = fresh("image");
    let name = image.join("images").join(format!("{:016}", 2 * CHECKPOINT));
    damage(&name, 100);
    expect(
        &image,
        &[
            text(&name),
            "a chunk's checksum does not fit",
            "the state comes from the others",
        ],
    );
    assert_eq!(inspect(&["snapshot", text(&image)]).0, 1);

    let swapped = fresh("swapped");
    let older = swapped.join("images").join(format!("{CHECKPOINT:016}"));
    let newer = swapped.join("images").join(format!("{:016}", 2 * CHECKPOINT));
    std::fs::copy(&older, &newer).unwrap();
    expect(
        &swapped,
        &["its head is that of another checkpoint than its name says"],
    );

    let one_copy = fresh("one-copy");
    damage(&one_copy.join("superblock"), 70);
    let (code, printed) = inspect(&["integrity", text(&one_copy)]);
    assert!(
        code == 0 && printed.contains("! superblock 0") && printed.contains("SOUND"),
        "{printed}"
    );
    damage(&one_copy.join("superblock"), 4096 + 70);
    let (code, printed) = inspect(&["superblock", text(&one_copy)]);
    assert!(
        code == 1 && printed.contains("neither copy of the superblock is sound"),
        "{printed}"
    );

    let nowhere = beside.join("nowhere");
    let (code, printed) = inspect(&["integrity", text(&nowhere)]);
    assert!(
        code == 2 && printed.contains(text(&nowhere)) && printed.contains("`db_path`"),
        "{printed}"
    );
}

#[test]
fn replicas_of_different_clusters_are_not_compared() {
    let (one, other) = (init(), init());
    let (code, printed) = inspect(&["diff", text(&data(&one, 0)), text(&data(&other, 1))]);
    assert!(
        code == 2 && printed.contains("only replicas of one cluster can be compared"),
        "{printed}"
    );
    let (code, printed) = inspect(&["diff", text(&data(&one, 0)), text(&data(&one, 1))]);
    assert!(code == 2 && printed.contains("nothing to compare"), "{printed}");
}
