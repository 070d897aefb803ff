//! Names the commit that the program is built from: `atlas --version`.
//!
//! In this order: the variable `ATLAS_COMMIT` of whoever builds a package, the git repository that this source tree is, the record
//! that `cargo package` leaves in a published crate; else none. Builds for development name none, so that a commit does not make them
//! compile everything again.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=ATLAS_COMMIT");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let named = env::var("ATLAS_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = match (named, is_release) {
        (Some(named), _) => Some(named),
        (None, true) => of_git(&root).or_else(|| of_package(&root)),
        (None, false) => Some("built for development".to_owned()),
    };
    let shown = commit.map_or(version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=ATLAS_VERSION={shown}");
}

/// The commit that is checked out, with a mark if there are changes.
fn of_git(root: &Path) -> Option<String> {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git")
            .current_dir(root)
            .args(arguments)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // Not that of a repository which this tree was put into.
    if Path::new(&git(&["rev-parse", "--show-toplevel"])?)
        .canonicalize()
        .ok()?
        != root.canonicalize().ok()?
    {
        return None;
    }
    let commit = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])?;
    // Every commit and checkout adds a line to the log; changes of sources have all of this compiled anyway.
    for changed in ["logs/HEAD", "HEAD"] {
        let path = root.join(git(&["rev-parse", "--git-path", changed])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    ["src", "Cargo.toml", "Cargo.lock"]
        .iter()
        .for_each(|path| println!("cargo::rerun-if-changed={path}"));
    Some(commit)
}

/// The commit that a published crate was made from.
fn of_package(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = text.split_once("\"sha1\"")?;
    let commit: String = rest
        .chars()
        .skip_while(|c| !c.is_ascii_hexdigit())
        .take_while(char::is_ascii_hexdigit)
        .collect();
    (commit.len() >= 12).then(|| commit[..12].to_owned())
}
