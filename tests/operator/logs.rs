//! What replicas log: for people and for programs, by command line, environment and file, and after SIGHUP.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use atlas_smr_replica::execution::apps::kv;

use super::admin::Asked;
use super::shared::{Replica, alone, connect, set};
use super::{
    atlas, complaint, eventually, has, ignores_hangups, lone, output, run, skip, terminate, wait_for_end,
};

/// What a process said on standard error so far.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    /// Of a replica whose standard error is a pipe.
    fn of(replica: &mut Replica) -> Self {
        let said = Self::default();
        let (lines, stderr) = (said.0.clone(), replica.0.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        said
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits for a line that contains this, which is not among the first so many.
    fn wait(&self, words: &str, after: usize) -> String {
        let mut found = None;
        eventually(words, || {
            found = self
                .lines()
                .into_iter()
                .skip(after)
                .find(|line| line.contains(words));
            found.is_some()
        });
        found.unwrap()
    }
}

fn started(dir: &Path, more: &[&str], variables: &[(&str, &str)]) -> (Asked, Said) {
    let mut command = run(dir, 0);
    command.args(["--admin", "127.0.0.1:0"]).args(more);
    command.envs(variables.iter().copied());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut replica = Replica(child.unwrap());
    let said = Said::of(&mut replica);
    (Asked::of(replica), said)
}

#[test]
fn lines_for_programs_are_objects_with_the_documented_names_and_lines_for_people_say_the_same() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let documented = include_str!("../../src/docs/operations.md");
    let (mut asked, said) = started(dir.path(), &["--log-format", "json", "--log=debug"], &[]);
    let put = kv::put(b"k", b"v").unwrap();
    connect(dir.path(), 0).call_blocking(put).unwrap();
    said.wait("link up", 0);
    terminate(&asked.replica.0);
    assert!(wait_for_end(&mut asked.replica.0).success());
    let lines = said.lines();
    assert!(!lines.is_empty());
    for line in &lines {
        let read: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let keys: Vec<&String> = read.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 9, "{line}");
        for key in keys {
            assert!(documented.contains(&format!("`{key}`")), "{key} is documented");
        }
        assert!(read["time"].as_str().unwrap().ends_with('Z'), "{line}");
        if read["target"]
            .as_str()
            .unwrap()
            .starts_with("atlas_smr_replica::runtime")
        {
            assert_eq!(
                (&read["node"], &read["epoch"]),
                (&"r0".into(), &0.into()),
                "{line}"
            );
            assert!(read["view"].is_u64(), "{line}");
        }
    }

    let (_asked, said) = started(dir.path(), &["--log", "info"], &[]);
    let line = said.wait("restored from disk", 0);
    assert!(
        line.contains("  INFO node=r0 view=0 epoch=0 atlas_smr_replica::"),
        "{line}"
    );
    assert!(!line.contains('\x1b'), "colours are for terminals: {line}");
}

#[test]
fn the_command_line_comes_before_the_environment_and_that_before_the_file() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let logged = |more: &[&str], variables: &[(&str, &str)]| {
        let (asked, _) = started(dir.path(), more, variables);
        asked.get("/log-level").1
    };
    assert_eq!(logged(&[], &[]), "warn\n");
    set(dir.path(), "r0.toml", "filter = \"warn\"", "filter = \"error\"");
    assert_eq!(logged(&[], &[]), "error\n");
    assert_eq!(logged(&[], &[("ATLAS_LOG", "")]), "error\n");
    assert_eq!(logged(&[], &[("ATLAS_LOG", "info")]), "info\n");
    assert_eq!(logged(&["--log", "debug"], &[("ATLAS_LOG", "info")]), "debug\n");
}

#[test]
fn a_filter_or_a_format_that_is_none_is_named_where_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let config = dir.path().join("r0.toml");
    let check = ["config", "check", config.to_str().unwrap()];
    let refused = |command: &mut Command| {
        let output = command.output().unwrap();
        (output.status.code(), complaint(&output))
    };
    let (code, said) = refused(atlas(&check).env("ATLAS_LOG", "info,debgu"));
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("ATLAS_LOG=info,debgu: `debgu` is neither"),
        "{said}"
    );
    assert!(said.contains("did you mean debug?"), "{said}");
    for (option, value, words) in [
        ("--log", "debgu", "did you mean debug?"),
        ("--log-format", "yaml", "possible values: text, json"),
    ] {
        for line in [
            [&[option, value][..], &check].concat(),
            [&check[..], &[option, value]].concat(),
        ] {
            let (code, said) = refused(&mut atlas(&line));
            assert_eq!(code, Some(2), "{line:?}: {said}");
            assert!(said.contains(option) && said.contains(words), "{line:?}: {said}");
        }
    }
    let text = std::fs::read_to_string(&config).unwrap();
    let place = |key: &str| {
        let line = text.lines().position(|line| line.starts_with(key)).unwrap();
        format!("r0.toml:{}: ", line + 1)
    };
    for (from, to, at, words) in [
        (
            "filter = \"warn\"",
            "filter = \"wran\"",
            "filter",
            "did you mean warn?",
        ),
        (
            "format = \"text\"",
            "format = \"jsn\"",
            "format",
            "expected `text` or `json`",
        ),
        (
            "format = \"text\"",
            "formt = \"json\"",
            "format",
            "did you mean `format`?",
        ),
        (
            "segment_bytes = ",
            "format = ",
            "segment_bytes",
            "did you mean `format under [logging]`?",
        ),
    ] {
        std::fs::write(&config, text.replace(from, to)).unwrap();
        let (code, said) = refused(&mut atlas(&check));
        assert_eq!(code, Some(1), "{to}: {said}");
        assert!(said.contains(&place(at)) && said.contains(words), "{to}: {said}");
    }
}

fn hang_up(asked: &Asked) {
    let id = asked.replica.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-HUP", &id])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn sighup_has_logs_and_the_token_read_again_and_names_what_takes_a_restart() {
    if ignores_hangups() {
        return skip(
            "a replica that reads its files again",
            "hangups are ignored here (nohup)",
        );
    }
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let token = |token: &str| {
        let path = dir.path().join("r0.token");
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    };
    token("the-first-token-of-all\n");
    let named = "# bearer_token_file";
    set(dir.path(), "r0.toml", named, &named[2..]);
    let (asked, said) = started(dir.path(), &[], &[]);
    let filter = |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        asked.ask("GET", "/log-level", &header, "")
    };
    assert_eq!(filter("the-first-token-of-all"), (200, "warn\n".to_owned()));

    token("another-token-from-now\n");
    set(dir.path(), "r0.toml", "filter = \"warn\"", "filter = \"info\"");
    set(dir.path(), "r0.toml", "format = \"text\"", "format = \"json\"");
    set(
        dir.path(),
        "r0.toml",
        "connections_max = 1024",
        "connections_max = 512",
    );
    hang_up(&asked);
    let line = said.wait("SIGHUP: the files were read again", 0);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let line = line["message"].as_str().unwrap();
    assert!(
        line.contains("log filter info, log format json, the admin endpoint's token was read"),
        "{line}"
    );
    assert!(
        line.ends_with("; not applied until a restart: limits.connections_max"),
        "{line}"
    );
    assert_eq!(filter("the-first-token-of-all").0, 401);
    assert_eq!(filter("another-token-from-now"), (200, "info\n".to_owned()));

    // Nothing at all is done with files that are wrong.
    for (from, to, words) in [
        ("node = 0", "nodes = 0", "r0.toml:"),
        ("filter = \"info\"", "filter = \"loud\"", "logging.filter = loud"),
        ("\"r0.token\"", "\"no.token\"", "admin.bearer_token_file = "),
    ] {
        let before = said.lines().len();
        set(dir.path(), "r0.toml", from, to);
        hang_up(&asked);
        let line = said.wait("SIGHUP: nothing is reloaded", before);
        assert!(line.contains(words), "{line}");
        assert_eq!(filter("another-token-from-now"), (200, "info\n".to_owned()));
        set(dir.path(), "r0.toml", to, from);
    }
    let put = kv::put(b"k", b"v").unwrap();
    connect(dir.path(), 0).call_blocking(put).unwrap();
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    if !has("script") {
        return skip("colours on a terminal", "script is not installed");
    }
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let config = dir.path().join("r0.toml");
    let config = config.to_str().unwrap();
    let shown = |no_colour: &str| {
        let line = format!(
            "{} run --no-pin --until-eof --log info --config {config}",
            env!("CARGO_BIN_EXE_atlas")
        );
        let mut terminal = Command::new("script");
        terminal
            .args(["-qec", &line, "/dev/null"])
            .env("NO_COLOR", no_colour);
        let output = terminal.stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The second start has something to tell.
    shown("");
    let coloured = shown("");
    assert!(coloured.contains("\x1b[32m INFO\x1b[0m"), "{coloured}");
    let plain = shown("1");
    assert!(
        plain.contains(" INFO node=r0") && !plain.contains('\x1b'),
        "{plain}"
    );
    assert!(output(&["--help"]).status.success());
}
