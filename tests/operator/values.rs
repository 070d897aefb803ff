//! What `atlas client` does with values, and with calls that the cluster's application does not know.

use std::io::Write;
use std::process::{Output, Stdio};

use super::shared::{alone, base_port};
use super::{atlas, complaint, output, serving};

#[test]
fn values_go_in_from_files_and_streams_and_come_out_byte_for_byte() {
    let _turn = alone();
    let (dir, _replica) = serving();
    let config = dir.path().join("c0.toml").to_str().unwrap().to_owned();
    let client = |call: &[&str]| output(&[&["client", "--config", &config][..], call].concat());
    let done = |output: &Output| assert!(output.status.success(), "{}", complaint(output));

    let bytes: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    let file = dir.path().join("value");
    std::fs::write(&file, &bytes).unwrap();
    done(&client(&["put", "from file", "--file", file.to_str().unwrap()]));
    assert_eq!(client(&["get", "from file"]).stdout, bytes);

    let mut put = atlas(&["client", "--config", &config, "put", "from stdin", "-"]);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(b"\xff\0end").unwrap();
    done(&put.wait_with_output().unwrap());
    assert_eq!(client(&["get", "from stdin"]).stdout, b"\xff\0end");

    let shown = client(&["get", "from stdin", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["base64"], "/wBlbmQ=");
    assert_eq!(shown["text"], serde_json::Value::Null);
    done(&client(&["put", "empty", ""]));
    let empty = client(&["get", "empty"]);
    assert!(empty.status.success() && empty.stdout.is_empty());
    let missing = client(&["put", "k", "--file", "no/such/file"]);
    assert!(complaint(&missing).contains("no/such/file: No such file"));
    let neither = client(&["put", "k"]);
    assert_eq!(neither.status.code(), Some(2));
}

#[test]
fn calls_of_another_application_are_refused_by_name_and_write_nothing() {
    let _turn = alone();
    for (app, call) in [
        ("kv", &["deposit", "1", "2"][..]),
        ("kv", &["add", "1"]),
        ("null", &["put", "k", "v"]),
        ("null", &["get", "k"]),
        ("bank", &["delete", "k"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (out, port) = (dir.path().to_str().unwrap(), base_port().to_string());
        let made = output(&[
            "init",
            "--replicas",
            "1",
            "--app",
            app,
            "--base-port",
            &port,
            "--out",
            out,
        ]);
        assert!(made.status.success(), "{}", complaint(&made));
        // Nobody has to run for it.
        let config = dir.path().join("c0.toml");
        let refused = output(&[&["client", "--config", config.to_str().unwrap()][..], call].concat());
        let said = complaint(&refused);
        assert_eq!(refused.status.code(), Some(1), "{call:?}: {said}");
        assert!(
            said.contains(&format!("the cluster serves {app}")),
            "{call:?}: {said}"
        );
        assert!(refused.stdout.is_empty());
    }
}
