//! Keeps the house: what may not be in which room.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that know no clock, socket, thread or file.
const SANS_IO: &[&str] = &[
    "src/smr/types",
    "src/smr/crypto",
    "src/smr/messages",
    "src/smr/protocol",
    "src/smr/ordering",
    "src/smr/view_transfer",
    "src/smr/log_transfer",
    "src/smr/state_transfer",
    "src/smr/decision_log",
    "src/smr/preprocessing",
    "src/smr/execution",
    "src/smr/replica",
    "src/runtime/net",
    "src/client/session",
    "src/client/gathering.rs",
    "src/client/answers.rs",
    "src/client/calls.rs",
    "src/client/prover.rs",
];

/// What they may not say, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    ("Instant::now", "reads a clock: time is handed in"),
    ("SystemTime", "reads a clock: time is handed in"),
    ("std::thread", "knows threads"),
    ("thread::sleep", "sleeps"),
    ("std::net", "knows sockets"),
    ("std::fs", "knows files"),
    ("std::io", "does I/O"),
    ("glommio", "knows the runtime"),
    ("io_uring::", "knows the ring"),
    ("HashMap", "iterates in hash order: use a BTreeMap or a Vec"),
    ("HashSet", "iterates in hash order: use a BTreeSet or a Vec"),
    ("async fn", "is asynchronous"),
];

/// Where `unsafe` may be.
const UNSAFE: &[&str] = &[
    "src/runtime/ring",
    "src/runtime/net",
    "src/runtime/shard",
    "src/runtime/storage",
    "src/smr/messages",
];

/// What no source may say.
const NOWHERE: &[(&str, &str)] = &[
    ("todo!(", "is unfinished"),
    ("unimplemented!(", "is unfinished"),
    ("dbg!(", "is a leftover"),
    (
        "#[allow(",
        "silences a lint for ever: use #[expect(…, reason = …)]",
    ),
    ("#[ignore", "is a test that does not run"),
];

/// Files stay readable at one sitting; tests may be longer.
const LINES_MAX: usize = 700;

/// One broken rule.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let is_test = path.contains("/tests") || path.ends_with("tests.rs") || path.starts_with("tests/");
    let sans_io = SANS_IO.iter().any(|room| path.starts_with(room)) && !is_test;
    let may_be_unsafe = UNSAFE.iter().any(|room| path.starts_with(room))
        || path.starts_with("benches/")
        || path == "tests/tidy.rs"
        // An allocator that counts.
        || path == "tests/fuzz.rs"
        // A host that forbids system calls.
        || path == "tests/operator/hosts.rs";
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut report = |what: &str, why: &str| broken.push(format!("{path}:{}: `{what}` {why}", index + 1));
        if sans_io {
            FORBIDDEN
                .iter()
                .filter(|(word, _)| code.contains(word))
                .for_each(|(word, why)| report(word, why));
        }
        if !may_be_unsafe
            && (code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe fn"))
        {
            report("unsafe", "has no place in this room");
        }
        if !path.starts_with("tests/tidy") {
            NOWHERE
                .iter()
                .filter(|(word, _)| code.contains(word))
                .for_each(|(word, why)| report(word, why));
        }
    }
    let lines = text.lines().count();
    if lines > LINES_MAX && !is_test {
        broken.push(format!(
            "{path}: {lines} lines, at most {LINES_MAX}: a file is one idea"
        ));
    }
    broken
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_keeps_the_rules_of_its_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for dir in ["src", "tests", "benches"] {
        sources(&root.join(dir), &mut found);
    }
    assert!(found.len() > 50, "the sources are where this test looks for them");
    let broken: Vec<String> = found
        .iter()
        .flat_map(|path| {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            check(name, &fs::read_to_string(path).unwrap())
        })
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn each_rule_can_be_broken() {
    let broken = |path: &str, text: &str| check(path, text).len();
    for (word, _) in FORBIDDEN {
        assert_eq!(broken("src/smr/ordering/x.rs", word), 1, "{word}");
        assert_eq!(
            broken("src/runtime/shard/x.rs", word),
            0,
            "{word} is the shells' business"
        );
        assert_eq!(
            broken("src/smr/ordering/x.rs", &format!("// {word}")),
            0,
            "a comment may name it"
        );
    }
    for (word, _) in NOWHERE {
        assert_eq!(broken("src/tools/load/x.rs", word), 1, "{word}");
    }
    assert_eq!(broken("src/smr/ordering/x.rs", "unsafe { f() }"), 1);
    assert_eq!(broken("src/runtime/ring/x.rs", "unsafe { f() }"), 0);
    assert_eq!(broken("src/smr/types/x.rs", &"\n".repeat(LINES_MAX + 1)), 1);
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let (mut in_dependencies, mut explained) = (false, false);
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if in_dependencies && line.contains(" = ") {
            assert!(explained || line.contains('#'), "no reason beside: {line}");
        }
        // A comment explains the lines right below it.
        explained = line.starts_with('#') || (explained && !line.is_empty());
    }
}
