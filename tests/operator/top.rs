//! `atlas top`: what it shows of running replicas, and how it leaves a terminal.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::shared::{Replica, alone, base_port, set};
use super::{complaint, has, lone, output, skip, wait_for_end};

/// A cluster of one whose endpoint asks for a token.
fn guarded(dir: &Path) -> (Replica, String) {
    lone(dir);
    let address = format!("127.0.0.1:{}", base_port() + 1);
    let admin = format!("[admin]\nlisten = \"{address}\"\nbearer_token_file = \"r0.token\"\n");
    set(dir, "r0.toml", "[admin]\n", &admin);
    let token = dir.join("r0.token");
    std::fs::write(&token, "a-token-for-tests-only\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut replica = Replica::start(&dir.join("r0.toml"));
    replica.wait_ready();
    (replica, address)
}

#[test]
fn one_picture_needs_no_terminal_and_fails_where_nobody_answers() {
    let _turn = alone();
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().to_str().unwrap();
    let (replica, address) = guarded(home.path());
    let token = home.path().join("r0.token");
    let once = ["top", "--once", "--interval-ms", "100"];
    let shown = |more: &[&str]| {
        let output = output(&[&once[..], more].concat());
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        (output.status.code(), text + &complaint(&output))
    };
    for ways in [
        &[dir][..],
        &["--token-file", token.to_str().unwrap(), "--admin", &address],
    ] {
        let (code, text) = shown(ways);
        assert_eq!(code, Some(0), "{text}");
        for part in [
            "n = 1, f = 0   view 0, r0 leads   1 of 1 ready",
            "r0*",
            "ordering",
        ] {
            assert!(text.contains(part), "{ways:?}: no {part} in\n{text}");
        }
    }
    let (code, text) = shown(&["--admin", &address]);
    assert!(
        code == Some(1) && text.contains("asks for another token"),
        "{text}"
    );
    drop(replica);
    let (code, text) = shown(&[dir]);
    assert!(code == Some(1) && text.contains("Connection refused"), "{text}");
    let live = output(&["top", dir]);
    assert_eq!(live.status.code(), Some(1));
    assert!(complaint(&live).contains("--once"), "{}", complaint(&live));
}

/// `atlas top` in a terminal of 80 columns and 24 lines, that is killed when this is dropped.
struct InTerminal {
    child: Child,
    shown: Vec<u8>,
}

impl InTerminal {
    fn start(dir: &Path) -> Self {
        let line = format!(
            "stty rows 24 cols 80; stty -g; {} top {}; echo code $?; stty -g",
            env!("CARGO_BIN_EXE_atlas"),
            dir.display()
        );
        let child = Command::new("script")
            .args(["-qfc", &line, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self {
            child: child.unwrap(),
            shown: Vec::new(),
        }
    }

    fn wait_shown(&mut self, text: &str) {
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut chunk = [0; 4096];
        while !String::from_utf8_lossy(&self.shown).contains(text) {
            let read = stdout.read(&mut chunk).unwrap();
            assert!(read > 0, "it ended without {text}");
            self.shown.extend_from_slice(&chunk[..read]);
        }
    }

    /// What was shown until its end.
    fn end(mut self) -> String {
        let mut rest = Vec::new();
        self.child
            .stdout
            .as_mut()
            .unwrap()
            .read_to_end(&mut rest)
            .unwrap();
        wait_for_end(&mut self.child);
        self.shown.extend(rest);
        String::from_utf8_lossy(&self.shown).into_owned()
    }
}

impl Drop for InTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that another one has started by way of a shell.
fn top_under(script: u32) -> Option<u32> {
    let children = |of: u32| -> Vec<u32> {
        let listed = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
        listed.split_whitespace().map(|id| id.parse().unwrap()).collect()
    };
    let mut all = children(script);
    let mut at = 0;
    while at < all.len() {
        all.extend(children(all[at]));
        at += 1;
    }
    all.into_iter().find(|process| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        line.starts_with(env!("CARGO_BIN_EXE_atlas").as_bytes())
    })
}

#[test]
fn the_terminal_is_left_as_it_was_after_a_key_and_after_a_signal() {
    if !has("script") || !has("stty") {
        return skip("a live view in a terminal", "there is no `script`");
    }
    let _turn = alone();
    let home = tempfile::tempdir().unwrap();
    lone(home.path());
    let admin = "[admin]\nlisten = \"127.0.0.1:9\"\n";
    set(home.path(), "r0.toml", "[admin]\n", admin);
    for way in ["q", "TERM"] {
        let mut terminal = InTerminal::start(home.path());
        // Nobody answers there.
        terminal.wait_shown("q quit");
        match way {
            "q" => terminal.child.stdin.as_mut().unwrap().write_all(b"q").unwrap(),
            signal => {
                let top = top_under(terminal.child.id()).expect("it runs").to_string();
                let sent = Command::new("kill").args([&format!("-{signal}"), &top]).status();
                assert!(sent.unwrap().success());
            }
        }
        terminal.wait_shown("code ");
        let shown = terminal.end();
        let (before, rest) = shown
            .split_once("\u{1b}[?1049h")
            .expect("it takes another screen");
        let (_, after) = rest
            .rsplit_once("\u{1b}[?1049l")
            .expect("it gives the screen back");
        assert!(
            after.contains("\u{1b}[?25h"),
            "the cursor is there again: {after:?}"
        );
        assert!(after.contains("code 0"), "{way}: {after:?}");
        let settings = before.trim();
        assert!(
            !settings.is_empty() && after.trim().ends_with(settings),
            "{way}: {settings:?} before, {after:?} after"
        );
    }
}
