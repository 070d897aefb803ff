//! Keeps the house: what may not be in which room.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that know no clock, socket, thread or file.
const SANS_IO: &[&str] = &[
    "src/smr",
    "src/runtime/net",
    "src/client/session",
    "src/client/gathering.rs",
    "src/client/answers.rs",
    "src/client/calls.rs",
    "src/client/prover.rs",
];

/// What each part of the house may import beside itself; a part is named by where it lies. What is imported
/// is read off paths `crate::…`, outside tests. Each row names nothing but rows above it: there is no circle.
const WALLS: &[(&str, &[&str])] = &[
    ("smr::types", &[]),
    ("smr::mutants", &[]),
    ("smr::crypto", &["smr::types"]),
    ("smr::messages", &["smr::types", "smr::mutants", "smr::crypto"]),
    (
        "smr::protocol",
        &["smr::types", "smr::mutants", "smr::crypto", "smr::messages"],
    ),
    (
        "smr::membership",
        &["smr::types", "smr::crypto", "smr::messages", "smr::protocol"],
    ),
    (
        "smr::reconfiguration",
        &[
            "smr::types",
            "smr::mutants",
            "smr::crypto",
            "smr::messages",
            "smr::protocol",
            "smr::membership",
        ],
    ),
    ("smr::execution", PROTOCOLS),
    ("smr::decision_log", PROTOCOLS),
    ("smr::log_transfer", PROTOCOLS),
    ("smr::view_transfer", PROTOCOLS),
    ("smr::ordering", PROTOCOLS),
    (
        "smr::state_transfer",
        &[
            "smr::types",
            "smr::mutants",
            "smr::crypto",
            "smr::messages",
            "smr::protocol",
            "smr::execution",
        ],
    ),
    (
        "smr::preprocessing",
        &[
            "smr::types",
            "smr::mutants",
            "smr::crypto",
            "smr::messages",
            "smr::protocol",
            "smr::membership",
            "smr::execution",
            "smr::view_transfer",
        ],
    ),
    (
        "smr::replica",
        &[
            "smr::types",
            "smr::mutants",
            "smr::crypto",
            "smr::messages",
            "smr::protocol",
            "smr::membership",
            "smr::reconfiguration",
            "smr::execution",
            "smr::decision_log",
            "smr::log_transfer",
            "smr::view_transfer",
            "smr::ordering",
            "smr::state_transfer",
            "smr::preprocessing",
        ],
    ),
    ("smr::node", &["smr"]),
    ("runtime::net", &["smr"]),
    ("runtime", &["smr", "runtime::net"]),
    ("client", &["smr", "runtime"]),
    (
        "sim",
        &[
            "smr",
            "client",
            "runtime::net",
            "runtime::storage",
            "runtime::config",
            "runtime::flight",
        ],
    ),
    ("tools", &["smr", "runtime", "client", "sim"]),
];

/// What every protocol, and execution, is made of.
const PROTOCOLS: &[&str] = &[
    "smr::types",
    "smr::mutants",
    "smr::crypto",
    "smr::messages",
    "smr::protocol",
];

/// Names that several public types share. The list may only shrink.
const SHARED_NAMES: &[&str] = &[
    "Action",
    "Completion",
    "Found",
    "Limits",
    "Outcome",
    "RecordReader",
    "Target",
    "Verdict",
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

/// A function is read at one sitting too.
const FUNCTION_LINES_MAX: usize = 70;

/// Longer functions, and how long they are. The list may only shrink: what it says is exact.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[("src/tools/load/run.rs", "report", 85)];

fn is_test(path: &str) -> bool {
    path.contains("/tests") || path.ends_with("tests.rs") || path.starts_with("tests/")
}

/// The broken rules of one source.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let is_test = is_test(path);
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

/// A path inside the crate, as far as `names` of it go: `smr::types` of `smr::types::SeqNo`.
fn first(path: &str, names: usize) -> String {
    let all: Vec<&str> = path.split("::").take(names).collect();
    all.join("::")
}

/// Whether `path` lies in `part`.
fn lies_in(path: &str, part: &str) -> bool {
    path == part || path.strip_prefix(part).is_some_and(|rest| rest.starts_with("::"))
}

/// The module that a source file is, as a path in the crate; `None` for the roots of crate and house.
fn module_of(path: &str) -> Option<String> {
    let inner = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let module = inner.strip_suffix("/mod").unwrap_or(inner).replace('/', "::");
    let is_root = ["lib", "main", "smr", "runtime", "tools"].contains(&&*module) || lies_in(&module, "docs");
    (!is_root).then_some(module)
}

/// What of a source is no test: tests that stand in the file are its last module.
fn without_tests(text: &str) -> &str {
    let tests = text.match_indices("\n#[cfg(test)]\nmod ").find(|(at, head)| {
        text[at + head.len()..]
            .lines()
            .next()
            .is_some_and(|line| line.ends_with('{'))
    });
    tests.map_or(text, |(at, _)| &text[..at])
}

/// The imports of one source that go through a wall.
fn check_walls(path: &str, text: &str) -> Vec<String> {
    let Some(module) = module_of(path).filter(|_| !is_test(path)) else {
        return Vec::new();
    };
    // The narrowest part that the module lies in.
    let Some((part, may)) = WALLS
        .iter()
        .filter(|(part, _)| lies_in(&module, part))
        .max_by_key(|(part, _)| part.len())
    else {
        return vec![format!("{path}: lies in no part of the house")];
    };
    let (mut broken, mut inline) = (Vec::new(), 0);
    for (index, line) in without_tests(text).lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, start) in code.match_indices("crate::") {
            let named = &code[at + start.len()..];
            let end = named.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let named = named[..end.unwrap_or(named.len())].trim_end_matches(':');
            let is_free = lies_in(named, part) || may.iter().any(|may| lies_in(named, may));
            if !is_free {
                let named = first(named, 2);
                broken.push(format!(
                    "{path}:{}: `crate::{named}` is none of {part}'s business",
                    index + 1
                ));
            }
        }
        // A module that stands in the file is one place lower than the file.
        match line {
            "}" => inline = 0,
            _ if line.ends_with('{')
                && line
                    .split("mod ")
                    .next()
                    .is_some_and(|head| ["", "pub "].contains(&head)) =>
            {
                inline = 1
            }
            _ => {}
        }
        let height = module.split("::").count() - part.split("::").count() + inline;
        let rows = code.split("super::").skip(1);
        let climbed = rows.fold((0, 0), |(most, row), rest| match rest.is_empty() {
            true => (most.max(row + 1), row + 1),
            false => (most.max(row + 1), 0),
        });
        if climbed.0 > height {
            broken.push(format!("{path}:{}: climbs out of {part}", index + 1));
        }
    }
    broken
}

/// The functions of a source that are no tests, and how many lines each has, from `fn` to its brace.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = without_tests(text).lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let words = ["pub", "const", "async", "unsafe", "extern", "\"C\""];
        let mut rest = code.split(' ');
        let Some(word) = rest.find(|word| !words.contains(word) && !word.starts_with("pub(")) else {
            continue;
        };
        // `pub(in crate::sim)` has two words.
        let word = if word.ends_with(')') {
            rest.next().unwrap_or_default()
        } else {
            word
        };
        let (Some(name), "fn") = (rest.next(), word) else {
            continue;
        };
        let name = name.split(['(', '<']).next().unwrap_or_default();
        let end = lines[index..].iter().position(|line| {
            let own = line.strip_prefix(indent).filter(|own| !own.starts_with(' '));
            own.is_some_and(|own| own == "}" || own.ends_with(';'))
        });
        // A body of one line, or a signature without body, ends with its first line.
        if let Some(end) = end.filter(|_| !line.ends_with([';', '}']))
            && lines[index + end].ends_with('}')
        {
            found.push((name.to_owned(), end + 1));
        }
    }
    found
}

/// Every name that several public types have.
fn shared_names(sources: &[(String, String)]) -> Vec<String> {
    let mut names = Vec::new();
    for (_, text) in sources
        .iter()
        .filter(|(path, _)| path.starts_with("src/") && !is_test(path))
    {
        for line in text.lines() {
            let kinds = [
                "pub struct ",
                "pub enum ",
                "pub trait ",
                "pub type ",
                "pub union ",
            ];
            if let Some(rest) = kinds.iter().find_map(|kind| line.strip_prefix(kind)) {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                names.push(rest[..end.unwrap_or(rest.len())].to_owned());
            }
        }
    }
    names.sort();
    let mut shared: Vec<String> = names
        .windows(2)
        .filter(|two| two[0] == two[1])
        .map(|two| two[0].clone())
        .collect();
    shared.dedup();
    shared
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

/// Every source there is: its path from the root, and its text.
fn all_sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for dir in ["src", "tests", "benches"] {
        sources(&root.join(dir), &mut found);
    }
    assert!(found.len() > 50, "the sources are where this test looks for them");
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        (name.to_owned(), fs::read_to_string(path).unwrap())
    };
    found.iter().map(read).collect()
}

#[test]
fn every_source_keeps_the_rules_of_its_room() {
    let sources = all_sources();
    let broken: Vec<String> = sources
        .iter()
        .flat_map(|(path, text)| check(path, text))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn no_source_reaches_through_a_wall() {
    let sources = all_sources();
    let broken: Vec<String> = sources
        .iter()
        .flat_map(|(path, text)| check_walls(path, text))
        .collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn walls_have_no_circle() {
    for (index, (part, may)) in WALLS.iter().enumerate() {
        for may in *may {
            // `smr` is all of its modules, `runtime::storage` is a part of `runtime`.
            let is_above = |(other, _): &(&str, _)| lies_in(other, may) || lies_in(may, other);
            assert!(
                WALLS[..index].iter().any(is_above),
                "{part} may import {may}, which is not above it"
            );
            assert!(
                !WALLS[index + 1..].iter().any(is_above),
                "{part} may import {may}, which is below it"
            );
        }
    }
}

#[test]
fn functions_fit_on_a_page() {
    let mut long = Vec::new();
    let mut count = 0;
    for (path, text) in all_sources().iter().filter(|(path, _)| !is_test(path)) {
        for (name, lines) in functions(text) {
            count += 1;
            if lines > FUNCTION_LINES_MAX {
                long.push((path.clone(), name, lines));
            }
        }
    }
    assert!(count > 1000, "functions are found: {count}");
    long.sort();
    let long: Vec<(&str, &str, usize)> = long
        .iter()
        .map(|(path, name, lines)| (path.as_str(), name.as_str(), *lines))
        .collect();
    let longer: Vec<_> = long.iter().filter(|one| !LONG_FUNCTIONS.contains(one)).collect();
    let shorter: Vec<_> = LONG_FUNCTIONS.iter().filter(|one| !long.contains(one)).collect();
    assert!(
        longer.is_empty(),
        "split them by what their parts are: {longer:#?}"
    );
    assert!(shorter.is_empty(), "the list says more than is so: {shorter:#?}");
}

#[test]
fn a_function_ends_at_its_own_brace() {
    let text = "impl A {\n    pub(in crate::sim) fn f(\n        a: u8,\n    ) {\n        if a > 0 {\n            b();\n        }\n    }\n    fn g();\n}\nconst fn h<T>() {\n}\nfn i() {}\n#[cfg(test)]\nmod tests {\n    fn j() {\n    }\n}";
    let expected = [("f".to_owned(), 7), ("h".to_owned(), 2)];
    assert_eq!(functions(text), expected);
}

#[test]
fn no_two_public_types_share_a_name() {
    assert_eq!(shared_names(&all_sources()), SHARED_NAMES);
}

#[test]
fn each_wall_can_be_broken() {
    let broken = |path: &str, text: &str| check_walls(path, text).len();
    for (part, may) in WALLS {
        let path = format!("src/{}/x.rs", part.replace("::", "/"));
        for (other, _) in WALLS {
            let is_free = lies_in(other, part) || may.iter().any(|may| lies_in(other, may));
            let line = format!("use crate::{other}::Thing;");
            assert_eq!(
                broken(&path, &line),
                usize::from(!is_free),
                "{part} imports {other}"
            );
        }
        assert_eq!(
            broken(&path, &format!("use crate::{part}::Thing;")),
            0,
            "{part} imports itself"
        );
        let climbing = "super::".repeat(part.split("::").count() + 1);
        assert_eq!(
            broken(&path, &format!("use {climbing}thing::Thing;")),
            1,
            "{part}: {climbing}"
        );
        assert_eq!(broken(&path, "use super::thing::Thing;"), 0);
    }
    let ordering = "src/smr/ordering/x.rs";
    assert_eq!(
        broken(ordering, "use crate::types::SeqNo;"),
        1,
        "the public path hides where it lies"
    );
    assert_eq!(broken(ordering, "use crate::{client, sim};"), 1);
    assert_eq!(broken(ordering, "use crate::smr::{replica, types};"), 1);
    assert_eq!(
        broken(ordering, "//! [`Session`](crate::client::Session)"),
        0,
        "a comment may name it"
    );
    assert_eq!(
        broken(
            ordering,
            "\n#[cfg(test)]\nmod tests {\n    use crate::sim::Cluster;"
        ),
        0
    );
    assert_eq!(
        broken("src/smr/ordering/tests/x.rs", "use crate::sim::Cluster;"),
        0
    );
    let inline = "pub mod names {\n    pub use super::thing::Thing;\n}\npub use super::Thing;";
    assert_eq!(
        broken("src/smr/ordering/mod.rs", inline),
        1,
        "the last line alone climbs"
    );
    assert_eq!(broken("src/attic/x.rs", ""), 1, "every source lies in some part");
    let source = |text: &str| ("src/smr/x.rs".to_owned(), text.to_owned());
    let twice = [
        source("pub struct Thing;\npub(crate) struct Other;"),
        source("pub enum Thing<T> {}\npub struct Other;"),
    ];
    assert_eq!(shared_names(&twice), ["Thing"]);
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
