//! Probes of replicas' processes in each state in which one does not do its part: `/readyz` is 503 and says why,
//! `/livez` is 200. Without a quorum, and abstaining: `admin.rs`.

use std::process::Stdio;

use atlas_smr_replica::load::{Filling, fill};

use super::admin::Asked;
use super::hosts::with_a_full_disk;
use super::shared::{Replica, alone, connect, init, set};
use super::{atlas, eventually, lone};

#[test]
fn a_replica_whose_disk_is_full_is_not_ready_and_lives_and_is_ready_once_there_is_space() {
    let _turn = alone();
    let dir = tempfile::tempdir().unwrap();
    lone(dir.path());
    let config = dir.path().join("r0.toml");
    let mut command = atlas(&["run", "--no-pin", "--admin", "127.0.0.1:0", "--config"]);
    command.arg(&config).stdout(Stdio::piped());
    let full = Asked::of(Replica(with_a_full_disk(&mut command).spawn().unwrap()));
    // It is linked with all it needs: nothing else keeps it from its part.
    full.wait_unready("no_space");
    let (_, reasons) = full.get("/readyz");
    assert_eq!(reasons.lines().count(), 1, "{reasons}");
    let shown = full.scrape();
    assert!(shown.value("atlas_log_waits_for_space", &[]) > 0.5);
    assert!(shown.value("atlas_unready", &[("reason", "no_space")]) > 0.5);
    drop(full);
    let freed = Asked::start(dir.path(), 0, &[]);
    eventually("it is ready", || freed.get("/readyz").0 == 200);
}

#[test]
fn a_replica_that_receives_a_state_is_not_ready_and_lives_and_is_ready_once_it_has_it() {
    let _turn = alone();
    let dir = init("kv");
    for (key, default, value) in [
        ("checkpoint_decisions", 1000_u64, 20_u64),
        ("window", 2000, 200),
        ("state_log_bytes_max", 4_294_967_296, 1 << 20),
    ] {
        let (from, to) = (format!("{key} = {default}"), format!("{key} = {value}"));
        set(dir.path(), "cluster.toml", &from, &to);
    }
    for id in 0..4 {
        let file = format!("r{id}.toml");
        let set = |from: &str, to: &str| set(dir.path(), &file, from, to);
        set("kept_decisions = 4096", "kept_decisions = 1");
        set("kept_bytes = 67108864", "kept_bytes = 1048576");
        // As slowly as donors may be.
        set(
            "donor_bytes_per_second = 1073741824",
            "donor_bytes_per_second = 1048576",
        );
        set(
            "donor_bytes_per_second_serving = 33554432",
            "donor_bytes_per_second_serving = 1048576",
        );
    }
    let mut others: Vec<Replica> = (0..3)
        .map(|node| Replica::start(&dir.path().join(format!("r{node}.toml"))))
        .collect();
    others.iter_mut().for_each(Replica::wait_ready);
    // A state that takes seconds at that rate, and several checkpoints.
    let filling = Filling {
        first_key: 0,
        keys: 1500,
        value_bytes: 16 << 10,
        outstanding: 16,
    };
    fill(&connect(dir.path(), 0), filling).unwrap();
    let newcomer = Asked::start(dir.path(), 3, &[]);
    newcomer.wait_unready("transferring");
    assert!(newcomer.scrape().value("atlas_ready", &[]) < 0.5);
    eventually("it is ready", || newcomer.get("/readyz").0 == 200);
    let shown = newcomer.scrape();
    assert!(shown.value("atlas_states_transferred_total", &[]) >= 1.0);
}
