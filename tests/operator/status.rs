//! `atlas status`: over the admin endpoints as by a client's identity, in 80 columns, and true after a restart.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use atlas_smr_replica::execution::apps::kv;

use super::admin::Asked;
use super::shared::{alone, connect, init, set};
use super::{complaint, eventually, lone, output};

/// What `atlas status --json` says at these endpoints.
fn shown(addresses: &[String], more: &[&str]) -> (Option<i32>, serde_json::Value) {
    let output = ask(addresses, &[&["--json"], more].concat());
    let json = serde_json::from_slice(&output.stdout);
    (
        output.status.code(),
        json.unwrap_or_else(|_| panic!("{}", complaint(&output))),
    )
}

fn ask(addresses: &[String], more: &[&str]) -> Output {
    let mut arguments = vec!["status"];
    arguments.extend(more);
    arguments.push("--admin");
    arguments.extend(addresses.iter().map(String::as_str));
    output(&arguments)
}

fn text_of(output: &Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
    }
    text
}

#[test]
fn endpoints_tell_as_much_as_a_client_is_told_and_the_verdict_is_the_same() {
    let _turn = alone();
    let dir = init("kv");
    let mut replicas: Vec<Asked> = (0..4).map(|node| Asked::start(dir.path(), node, &[])).collect();
    let addresses: Vec<String> = replicas
        .iter()
        .rev()
        .map(|asked| asked.address.to_string())
        .collect();
    eventually("all take part", || ask(&addresses, &[]).status.code() == Some(0));
    let client = connect(dir.path(), 0);
    client.call_blocking(kv::put(b"k", b"v").unwrap()).unwrap();

    let (code, own) = shown(&addresses, &[]);
    let config = dir.path().join("c3.toml");
    let config = config.to_str().unwrap();
    let told = output(&["status", "--json", "--config", config]);
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(code, Some(0), "{own}");
    assert_eq!(own["health"], told["health"]);
    let keys = |of: &serde_json::Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for (node, (own, told)) in (0..4).map(|node| (node, (&own["replicas"][node], &told["replicas"][node]))) {
        assert_eq!(
            own["node"],
            format!("r{node}"),
            "in order, however they were named"
        );
        assert_eq!(keys(own), keys(told));
        assert_eq!(
            (&own["cluster"], &own["replicas"]),
            (&told["cluster"], &told["replicas"])
        );
    }
    for output in [ask(&addresses, &[]), output(&["status", "--config", config])] {
        let text = text_of(&output);
        assert!(
            text.ends_with("OK: 4 of 4 replicas take part, 3 needed; 1 more may fail\n"),
            "{text}"
        );
        assert!(text.contains("operations since start"), "{text}");
    }

    // Of a part nothing is said about the whole.
    let (code, part) = shown(&addresses[..2], &[]);
    assert_eq!((code, &part["health"]["verdict"]), (Some(0), &"UNKNOWN".into()));
    assert!(text_of(&ask(&addresses[..2], &[])).contains("UNKNOWN: 2 of 4 replicas were asked"));
    let twice = [
        addresses[0].clone(),
        addresses[0].replace("127.0.0.1", "localhost"),
    ];
    let twice = ask(&twice, &[]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(
        complaint(&twice).contains("are both r3's"),
        "{}",
        complaint(&twice)
    );

    drop(replicas.pop());
    let (code, rest) = shown(&addresses, &[]);
    assert_eq!((code, &rest["health"]["verdict"]), (Some(1), &"DEGRADED".into()));
    let gone = &rest["replicas"][3];
    assert_eq!(
        (&gone["node"], gone["error"].is_string()),
        (&addresses[0].clone().into(), true)
    );
    text_of(&ask(&addresses, &[]));
    drop(replicas);
    let nobody = ask(&addresses, &[]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        complaint(&nobody).contains("no endpoint answers"),
        "{}",
        complaint(&nobody)
    );
}

#[test]
fn tokens_are_named_by_their_files() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let file = |name: &str, token: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, token).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let token = file("r0.token", "correct-horse-battery\n", 0o600);
    let other = file("other.token", "wrong-horse-battery\n", 0o600);
    let open = file("open.token", "correct-horse-battery\n", 0o644);
    let named = "# bearer_token_file";
    set(dir.path(), "r0.toml", named, &named[2..]);
    let asked = Asked::start(dir.path(), 0, &[]);
    let address = [format!("http://{}", asked.address)];
    let told = |more: &[&str]| {
        let output = ask(&address, more);
        (output.status.code(), complaint(&output))
    };
    eventually("it takes part", || told(&["--token-file", &token]).0 == Some(0));
    for (more, said) in [
        (&[][..], "name its file by --token-file"),
        (&["--token-file", &other], "it asks for another token"),
        (&["--token-file", &open], "run: chmod 600"),
        (
            &["--token-file", "no/such/file"],
            "--token-file no/such/file: No such file",
        ),
        (&["--token-file", &token, &token], "2 files for 1 endpoints"),
    ] {
        let (code, complaint) = told(more);
        assert_eq!(code, Some(1), "{more:?}: {complaint}");
        assert!(complaint.contains(said), "{more:?}: {complaint}");
        assert!(!complaint.contains("horse"), "{complaint}");
    }
    for wrong in [
        &["status"][..],
        &["status", "--admin", "r0"],
        &["status", "--token-file", &token],
    ] {
        assert_eq!(output(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn after_a_restart_the_checkpoint_is_the_one_on_disk() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    set(
        dir.path(),
        "cluster.toml",
        "checkpoint_decisions = 1000",
        "checkpoint_decisions = 20",
    );
    set(dir.path(), "cluster.toml", "window = 2000", "window = 200");
    // The file's digest is the cluster's identity.
    std::fs::remove_dir_all(dir.path().join("r0-data")).unwrap();
    let config = dir.path().join("r0.toml");
    assert!(
        output(&["format", "--config", config.to_str().unwrap()])
            .status
            .success()
    );
    let row = |asked: &Asked| {
        let (_, mut all) = shown(&[asked.address.to_string()], &[]);
        all["replicas"][0].take()
    };
    let asked = Asked::start(dir.path(), 0, &[]);
    let fresh = row(&asked);
    assert_eq!(
        (&fresh["checkpoint"], fresh["checkpoint_digest"].is_null()),
        (&0.into(), true)
    );
    assert!(text_of(&ask(&[asked.address.to_string()], &[])).contains("no checkpoint yet"));
    let client = connect(dir.path(), 0);
    for number in 0..45_u32 {
        let put = kv::put(&number.to_be_bytes(), b"value").unwrap();
        client.call_blocking(put).unwrap();
    }
    drop(client);
    let mut before = row(&asked);
    eventually("checkpoints were taken", || {
        before = row(&asked);
        before["stable"].as_u64() >= Some(40) && before["checkpoint"].as_u64() >= Some(40)
    });
    // Killed: nothing more is written.
    drop(asked);
    let asked = Asked::start(dir.path(), 0, &[]);
    let after = row(&asked);
    for same in ["checkpoint", "checkpoint_digest", "executed", "stable"] {
        assert_eq!(after[same], before[same], "{same}: {after}");
    }
    let list = before["checkpoints"].as_array().unwrap();
    let last = after["checkpoints"].as_array().unwrap();
    assert!(
        last.iter().all(|checkpoint| list.contains(checkpoint)),
        "{last:?} of {list:?}"
    );
    assert!(!last.is_empty());
}
