//! `atlas report` as a process: what it prints and the exit code it gives, on the figures of a short demo.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn atlas(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atlas"));
    command.args(arguments).output().expect("the binary starts")
}

/// A demo's figures, changed.
fn figures(
    directory: &Path,
    name: &str,
    demo: &serde_json::Value,
    key: &str,
    value: serde_json::Value,
) -> PathBuf {
    let mut changed = demo.clone();
    changed[key] = value;
    let path = directory.join(name);
    std::fs::write(&path, changed.to_string()).expect("the file is written");
    path
}

#[test]
fn a_run_is_shown_drawn_and_compared_and_the_exit_code_says_how_it_went() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let demo = path("demo.json");
    let run = atlas(&[
        "demo",
        "--seconds",
        "0.3",
        "--durability",
        "none",
        "--json",
        &demo,
    ]);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let text = std::fs::read_to_string(&demo).expect("the demo wrote its figures");
    let figures_of_demo: serde_json::Value = serde_json::from_str(&text).expect("they are JSON");
    let changed = |name, key, value| {
        let path = figures(directory.path(), name, &figures_of_demo, key, value);
        path.display().to_string()
    };

    let shown = atlas(&["report", &demo]);
    assert!(shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains("ops/s"));
    let page = path("page.html");
    assert!(atlas(&["report", &demo, "--html", &page]).status.success());
    assert!(
        std::fs::read_to_string(&page)
            .expect("the page")
            .ends_with("</html>\n")
    );

    let code = |other: &str, more: &[&str]| atlas(&[&["report", &demo, other], more].concat()).status.code();
    assert_eq!(code(&demo, &[]), Some(0), "nothing is worse than itself");
    let throughput = figures_of_demo["throughput_ops_s"].as_f64().expect("a number");
    let slower = changed("slower.json", "throughput_ops_s", (0.5 * throughput).into());
    assert_eq!(code(&slower, &[]), Some(1), "half the throughput is worse");
    assert_eq!(
        code(&slower, &["--tolerance", "60"]),
        Some(0),
        "unless that much is tolerated"
    );
    let elsewhere = changed("elsewhere.json", "machine", "another".into());
    assert_eq!(code(&elsewhere, &[]), Some(2), "other machines are refused");
    assert_eq!(
        code(&elsewhere, &["--across-machines"]),
        Some(0),
        "unless asked for"
    );
    let other = changed("other.json", "outstanding", 1.into());
    let compared = atlas(&["report", &demo, &other]);
    assert!(String::from_utf8_lossy(&compared.stdout).contains("outstanding: A 32768, B 1"));
    assert_eq!(
        code(&path("none.json"), &[]),
        Some(2),
        "a file that is not there cannot be compared"
    );
}
