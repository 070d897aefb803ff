//! Real processes are killed without warning, under load: what was acknowledged is there afterwards, once.
//!
//! `cargo test --test crash`; `ATLAS_CRASH_ROUNDS=500 cargo test --test crash` for more rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use atlas_smr_replica::Client;
use atlas_smr_replica::execution::apps::counter;

mod shared;

use shared::{Replica, alone, connect, init, set, start, wait_until_caught_up};

fn rounds() -> usize {
    std::env::var("ATLAS_CRASH_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(50)
}

/// One caller adds distinct powers to the counter until told to stop: what was acknowledged, in order, with
/// the sums.
fn add(client: &Client, stop: &AtomicBool, acknowledged: &AtomicU64) -> (Vec<u64>, Vec<Instant>) {
    let (mut sums, mut ends) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Acquire) {
        let sum = client
            .call_blocking(counter::add(1))
            .expect("a call outlives every crash");
        sums.push(counter::value(&sum).expect("a sum"));
        ends.push(Instant::now());
        acknowledged.fetch_add(1, Ordering::Release);
    }
    (sums, ends)
}

/// The longest time in which no caller was answered.
fn longest_gap(start: Instant, mut ends: Vec<Instant>) -> Duration {
    ends.push(start);
    ends.sort();
    let gaps = ends.windows(2).map(|pair| pair[1] - pair[0]);
    gaps.max().unwrap_or_default()
}

/// The counter is one register: histories of additions are linearizable exactly when every sum is given out
/// once, each caller's sums ascend, and the last sum is the number of additions.
fn check(histories: &[Vec<u64>], last: u64) {
    let mut seen = BTreeMap::new();
    for (caller, sums) in histories.iter().enumerate() {
        assert!(sums.is_sorted(), "caller {caller} saw the counter run backwards");
        for sum in sums {
            let before = seen.insert(*sum, caller);
            assert_eq!(before, None, "two additions gave {sum}: one was lost");
        }
    }
    let acknowledged = seen.len() as u64;
    assert_eq!(
        last, acknowledged,
        "additions acknowledged, and those that took effect"
    );
}

/// Runs callers while `disturb` does its worst, and checks what they were told.
fn under_load(dir: &Path, disturb: impl FnOnce(&AtomicU64)) {
    let clients: Vec<Client> = (0..3).map(|client| connect(dir, client)).collect();
    let (stop, begin) = (AtomicBool::new(false), Instant::now());
    let acknowledged = AtomicU64::new(0);
    let (histories, ends): (Vec<Vec<u64>>, Vec<Vec<Instant>>) = std::thread::scope(|scope| {
        let callers: Vec<_> = clients
            .iter()
            .flat_map(|client| [client, client])
            .map(|client| scope.spawn(|| add(client, &stop, &acknowledged)))
            .collect();
        disturb(&acknowledged);
        stop.store(true, Ordering::Release);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let last = clients[0].call_blocking(counter::read()).unwrap();
    check(&histories, counter::value(&last).unwrap());
    let acknowledged: usize = histories.iter().map(Vec::len).sum();
    println!(
        "{acknowledged} additions acknowledged, the longest time without one {:?}",
        longest_gap(begin, ends.concat())
    );
}

#[test]
fn one_after_another_is_killed_and_catches_up_while_the_others_serve() {
    let _alone = alone();
    let dir = init("counter");
    let mut replicas = start(dir.path());
    under_load(dir.path(), |_| {
        for round in 0..rounds() {
            let victim = round % 4;
            std::thread::sleep(Duration::from_millis(10 + 7 * (round as u64 % 13)));
            let file = dir.path().join(format!("r{victim}.toml"));
            drop(replicas.remove(victim));
            replicas.insert(victim, Replica::start(&file));
            replicas[victim].wait_ready();
            if round % 5 == 4 {
                wait_until_caught_up(dir.path(), victim);
            }
        }
    });
    (0..4).for_each(|node| wait_until_caught_up(dir.path(), node));
}

#[test]
fn a_damaged_snapshot_is_replaced_by_the_state_of_others_under_load() {
    let _alone = alone();
    let dir = init("counter");
    set(
        dir.path(),
        "cluster.toml",
        "checkpoint_decisions = 1000",
        "checkpoint_decisions = 50",
    );
    let mut replicas = start(dir.path());
    under_load(dir.path(), |_| {
        let snapshots = dir.path().join("r3-data/images");
        let whole = || -> Vec<_> {
            let files = std::fs::read_dir(&snapshots)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            files.filter(|path| path.extension().is_none()).collect()
        };
        // The newest may not be the one yet that a restart begins with; the one before it was.
        while whole().len() < 2 {
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(replicas.remove(3));
        let damaged = whole();
        for snapshot in &damaged {
            let mut bytes = std::fs::read(snapshot).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(snapshot, bytes).unwrap();
        }
        replicas.push(Replica::start(&dir.path().join("r3.toml")));
        replicas[3].wait_ready();
        wait_until_caught_up(dir.path(), 3);
        let is_kept = |snapshot: &std::path::PathBuf| snapshot.with_extension("damaged").exists();
        assert!(damaged.iter().any(is_kept), "the evidence is kept");
    });
}

#[test]
fn all_four_are_killed_again_and_again_and_nothing_acknowledged_is_lost_or_done_twice() {
    let _alone = alone();
    let dir = init("counter");
    let mut replicas = start(dir.path());
    under_load(dir.path(), |acknowledged| {
        for round in 0..rounds() {
            // The service is back, and no sooner: every round loses calls that were under way, at another
            // moment of their lives.
            let before = acknowledged.load(Ordering::Acquire);
            while acknowledged.load(Ordering::Acquire) == before {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(7 * (round as u64 % 13)));
            replicas.clear();
            replicas = start(dir.path());
        }
        std::thread::sleep(Duration::from_millis(200));
    });
}
