//! Loads that measure nothing, or not what they were asked to, say so.

use super::shared::alone;
use super::{complaint, output, serving};

#[test]
fn loads_that_measure_nothing_fail_with_a_word() {
    let _turn = alone();
    let (dir, _replica) = serving();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let client = at("c0.toml");
    for (arguments, expected) in [
        (
            &["bench", "--config", &client, &client, "--seconds", "1"][..],
            "are both client c0",
        ),
        (
            &[
                "bench",
                "--config",
                &client,
                "--payload",
                "1048576",
                "--seconds",
                "1",
            ],
            "no operation could be sent",
        ),
        (
            &["bench", "--config", &client, "--app", "bank", "--seconds", "1"],
            "the cluster serves kv (version 1), not bank",
        ),
        (
            &[
                "demo",
                "--no-pin",
                "--replicas",
                "1",
                "--payload",
                "3000000",
                "--seconds",
                "1",
            ],
            "no operation could be sent",
        ),
    ] {
        let refused = output(arguments);
        let said = complaint(&refused);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    for (option, value) in [
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--rate", "1e-300"),
        ("--seconds", "inf"),
    ] {
        let refused = output(&["bench", "--config", &client, option, value]);
        assert_eq!(refused.status.code(), Some(2), "{option} {value}");
        assert!(complaint(&refused).contains("must be from 0"), "{option} {value}");
    }
}

#[test]
fn a_rate_that_was_not_kept_is_said_and_is_in_the_figures() {
    let _turn = alone();
    let (dir, _replica) = serving();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (client, json) = (at("c0.toml"), at("bench.json"));
    let bench = output(&[
        "bench",
        "--config",
        &client,
        "--rate",
        "1e9",
        "--seconds",
        "1",
        "--json",
        &json,
    ]);
    let said = complaint(&bench);
    assert!(said.contains("the rate was not kept: "), "{said}");
    assert!(said.contains(" of 1000000000 operations per second"), "{said}");
    let figures: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(figures["rate_kept"], false, "{figures}");
    assert_eq!(figures["app"], "kv", "{figures}");
}
