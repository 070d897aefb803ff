//! States and decisions that come from others.

use super::*;

#[test]
fn a_replica_that_fell_behind_installs_a_state_and_executes_what_was_decided_meanwhile() {
    let mut bench = Bench::new();
    let target = checkpoint(100);
    bench.fall_behind(105);
    bench.offer(1, &target);
    bench.offer(2, &target);
    bench.wait_ms(60);
    for donor in bench.asked() {
        bench.send_chunks(donor, &target, 0..2);
    }
    // The head is known: ordering goes on from there, and execution waits.
    bench.decide(101..=105);
    assert_eq!(bench.replica.ordering().decided(), SeqNo::new(105));
    assert_eq!(bench.executor.executed(), SeqNo::ZERO);
    for donor in bench.asked() {
        bench.send_chunks(donor, &target, 2..target.chunks.len());
    }
    assert!(bench.told().contains(&"installed 100".to_string()));
    assert_eq!(bench.executor.executed(), SeqNo::new(105));
}

#[test]
fn a_state_that_ordering_has_passed_meanwhile_is_not_installed() {
    let mut bench = Bench::new();
    let target = checkpoint(20);
    bench.fall_behind(40);
    bench.offer(1, &target);
    bench.offer(2, &target);
    // What was missing came after all, was executed, and is forgotten.
    bench.decide(1..=45);
    bench.wait_ms(60);
    bench.serve(&target);
    bench.wait_ms(60);
    assert_eq!(bench.executor.executed(), SeqNo::new(45));
    assert!(!bench.told().iter().any(|told| told.starts_with("installed")));
    assert_eq!(bench.replica.transfer_phase(), TransferPhase::NotRunning);
    bench.decide(46..=50);
    assert_eq!(bench.executor.executed(), SeqNo::new(50));
}

#[test]
fn a_state_whose_certificate_was_forgotten_meanwhile_is_asked_for_again() {
    let mut bench = Bench::new();
    let target = checkpoint(100);
    bench.fall_behind(105);
    bench.offer(1, &target);
    bench.offer(2, &target);
    for later in 1..=100 {
        let claim = CheckpointClaim {
            seq: SeqNo::new(100 + later),
            ..target.claim
        };
        bench.replica.checkpoints.remember_certificate(claim, Vec::new());
    }
    for donor in bench.asked() {
        bench.send_chunks(donor, &target, 0..2);
    }
    assert_eq!(
        bench.replica.ordering().decided(),
        SeqNo::ZERO,
        "nothing proves where it would go on"
    );
    bench.offer(1, &target);
    bench.offer(2, &target);
    bench.serve(&target);
    assert!(bench.told().contains(&"installed 100".to_string()));
    assert_eq!(bench.replica.ordering().decided(), SeqNo::new(100));
}

#[test]
fn a_state_older_than_what_is_known_of_the_log_is_not_gone_on_from() {
    let mut bench = Bench::new();
    let (old, new) = (checkpoint(90), checkpoint(100));
    bench.fall_behind(105);
    bench.offer(1, &new);
    bench.offer(2, &new);
    bench.wait_ms(60);
    for donor in bench.asked() {
        bench.send_chunks(donor, &new, 0..2);
    }
    bench.decide(101..=105);
    // The donors have it no more, and offer an older one.
    let gone = ChunkOf {
        seq: 100,
        last: true,
        bytes: Vec::new(),
    };
    let gone = StateTransferMessage::Chunk(gone).encode(CLUSTER, Epoch::ZERO);
    bench.hear(1, &gone);
    bench.hear(2, &gone);
    bench.offer(1, &old);
    bench.offer(2, &old);
    bench.wait_ms(60);
    bench.serve(&old);
    bench.wait_ms(60);
    assert!(!bench.told().contains(&"installed 90".to_string()));
    bench.offer(1, &new);
    bench.offer(2, &new);
    bench.wait_ms(60);
    bench.serve(&new);
    assert!(bench.told().contains(&"installed 100".to_string()));
    assert_eq!(bench.executor.executed(), SeqNo::new(105));
}

#[test]
fn a_wrong_state_is_replaced_and_what_was_taken_of_it_counts_for_nothing() {
    let mut bench = Bench::new();
    bench.decide(1..=25);
    bench.told();
    // A quorum signs something else than what this replica has at 20.
    let mut right = checkpoint(20);
    let own = right.claim;
    right.claim.digest = Digest::from_bytes([9; 32]);
    bench.sign(right.claim);
    let told = bench.told();
    assert!(told.contains(&"diverged 20".to_string()), "{told:?}");
    assert!(!told.contains(&"cut 20".to_string()), "{told:?}");
    assert!(bench.replica.awaits_state());
    // Checkpoints and snapshots of the wrong state come late.
    bench.replica.on_checkpoint_taken(
        bench.now,
        crate::smr::messages::TakenCheckpoint {
            claim: CheckpointClaim {
                seq: SeqNo::new(30),
                ..own
            },
            light: None,
        },
    );
    bench.replica.on_snapshot_kept(bench.now, SeqNo::new(20));
    bench.act();
    assert_eq!(
        bench.told(),
        Vec::<String>::new(),
        "the log is not cut for a snapshot of a wrong state"
    );
    bench.decide(26..=28);
    assert_eq!(
        bench.executor.executed(),
        SeqNo::new(25),
        "nothing is executed on a wrong state"
    );
}

#[test]
fn a_small_gap_that_does_not_close_is_transferred_all_the_same() {
    let mut bench = Bench::new();
    bench.claim_decided(5);
    assert_eq!(bench.replica.transfer_phase(), TransferPhase::NotRunning);
    bench.wait_ms(1000);
    bench.claim_decided(5);
    assert_ne!(bench.replica.transfer_phase(), TransferPhase::NotRunning);
}

/// Decides up to `last`, and has a quorum sign every checkpoint.
fn go_on(bench: &mut Bench, last: u64) {
    for seq in bench.replica.ordering().decided().get() + 1..=last {
        bench.decide(seq..=seq);
        if seq % PERIOD == 0 {
            bench.sign(checkpoint(seq).claim);
        }
    }
}

#[test]
fn an_snapshot_is_kept_while_a_peer_reads_it_however_many_newer_ones_there_are() {
    let mut bench = Bench::new();
    let fetch = |seq: u64| {
        let range = crate::smr::messages::PieceRange {
            seq,
            piece: 0,
            offset: 0,
            until: 1,
        };
        StateTransferMessage::Fetch(range).encode(CLUSTER, Epoch::ZERO)
    };
    go_on(&mut bench, 10);
    let kept = |bench: &Bench| bench.snapshots.keys().map(|seq| seq.get()).collect::<Vec<_>>();
    for round in 1..8 {
        bench.hear(3, &fetch(10));
        bench.wait_ms(5000);
        go_on(&mut bench, 10 + 10 * round);
        assert!(kept(&bench).contains(&10), "{:?}", kept(&bench));
        assert!(kept(&bench).len() <= 4, "{:?}", kept(&bench));
    }
    bench.wait_ms(10_000);
    go_on(&mut bench, 90);
    assert!(!kept(&bench).contains(&10), "nobody reads it any more");
    // A peer that never ends loses it as well.
    for round in 0..400 {
        bench.hear(3, &fetch(90));
        bench.now = bench.now.after(Duration::from_secs(5));
        if round == 300 {
            go_on(&mut bench, 120);
            assert!(kept(&bench).contains(&90), "{:?}", kept(&bench));
        }
    }
    go_on(&mut bench, 150);
    assert!(!kept(&bench).contains(&90), "{:?}", kept(&bench));
}
